"""Keep checkpoints whose memorization is within limits."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, Literal
from weakref import proxy

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_mem.audit.judging import Rule
from lit_mem.audit.push import push_of
from lit_mem.files.record import Line, parsed, plain
from lit_mem.lightning.auditing import exported, latest_metrics, measured_line
from lit_mem.lightning.checkpoint_files import CheckpointFiles
from lit_mem.lightning.early_stopping import MemorizationEarlyStopping
from lit_mem.lightning.end_of_fit import finish
from lit_mem.lightning.exported_model import export_adapter
from lit_mem.lightning.last_line import LastLine
from lit_mem.lightning.lead import put_first
from lit_mem.lightning.measured_weights import SavesWhatWasMeasured, suspects
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.lightning.rules import Limits, check_limits, known_in, passed, read
from lit_mem.lightning.run_folder import run_folder

log = logging.getLogger(__name__)


class MemorizationCheckpoint(LastLine, SavesWhatWasMeasured, ModelCheckpoint):
    """Keeps up to three checkpoints of a run, each with the adapter in peft's format.

    - `best.ckpt`: the lowest `monitor` among validations under every threshold;
    - `safe.ckpt`: the last validation under every threshold;
    - `last.ckpt`: the last validation regardless of metrics, to resume from.

    Beside each is a folder (`best-adapter/` …) that peft and transformers load, with the tokenizer, a model card and,
    after private training, the ledger; after full fine-tuning it is a whole model, which `model.model_id` accepts. Its
    `lit_mem.json` has the checkpoint's `global_step` and the fingerprint of the base. Files and folders are written
    atomically. The saved weights are the measured ones: if a callback swaps weights between validation and saving, the
    run ends with an error.

    Args:
        thresholds: such as "mia/reference_auroc > 0.6". None: those of the run's `MemorizationEarlyStopping`s.
        lower_bound: as for `MemorizationEarlyStopping`; applies to `thresholds`.
        monitor: metric that the best checkpoint minimizes (or maximizes, see `mode`).
        mode: "min" or "max".
        dirpath: folder of the checkpoints; None: `checkpoints` in the run's folder.
        export: write the adapter folders.
        merge: when training ends, also write the best checkpoint as one plain model with the adapter merged into its
            base (`best-merged/`; loads a second copy of the base).
        push_to_hub: repository (me/notes-adapter) to which the best checkpoint's folder is uploaded after training.
        push_public: whether that repository may be public.
        push_over_limits: also upload a model over a limit; if no validation was under all, the last checkpoint.
    """

    def __init__(
        self,
        thresholds: list[str] | None = None,
        lower_bound: bool = False,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        dirpath: str | None = None,
        export: bool = True,
        merge: bool = False,
        push_to_hub: str | None = None,
        push_public: bool = False,
        push_over_limits: bool = False,
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_last=True,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self.limits: list[Limits] | None = None if thresholds is None else [Limits(thresholds, lower_bound)]
        self._given_dirpath = self.dirpath
        self._rules = [Rule(f"{type(self).__name__}.thresholds", limits, "any") for limits in self.limits or []]
        self.export, self.merge = export, merge
        self.push = push_of(push_to_hub, push_public, push_over_limits, export)
        self.lines: dict[str, Line] = {}
        self.safe_model_path = ""
        self.epochs: dict[str, int] = {}
        self.hardly_learned = False

    def rules(self) -> list[Rule]:
        """Its own thresholds; those of `MemorizationEarlyStopping` are listed there."""
        return self._rules

    def state_dict(self) -> dict[str, Any]:
        """State for resuming."""
        return super().state_dict() | {
            "safe_model_path": self.safe_model_path,
            "epochs": self.epochs,
            "hardly_learned": self.hardly_learned,
            "lines": {which: plain(line) for which, line in self.lines.items()},
        }

    def _start_over(self) -> None:
        self.best_model_path = self.last_model_path = self.safe_model_path = ""
        self.best_model_score, self.epochs, self.lines = None, {}, {}
        self._last_global_step_saved, self._last_checkpoint_saved = 0, ""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the checkpoints of the interrupted run, even if they are in another folder."""
        for name in ("best_model_path", "best_model_score", "last_model_path", "safe_model_path"):
            setattr(self, name, state_dict[name])
        self.epochs = dict(state_dict["epochs"])
        self.hardly_learned = bool(state_dict.get("hardly_learned", False))
        self.lines = {k: parsed(v, f"checkpoint's line of {k}") for k, v in state_dict.get("lines", {}).items()}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find folder and thresholds; remove unfinished files of a killed run.

        Raises:
            ConfigError: a threshold is on a metric that is not logged, or another callback writes files of these names.
        """
        saves = stage == "fit" and not trainer.fast_dev_run  # type: ignore[attr-defined]
        # A callback that is reused must not write into the folder of an earlier run.
        self.dirpath = self._given_dirpath or (str(run_folder(trainer) / "checkpoints") if saves else None)
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            put_first(self, trainer)
            if trainer.global_step == 0:  # in a resumed run, load_state_dict follows
                self._start_over()
        if self.limits is None:  # checked by the callbacks that own them
            stops = [c for c in callbacks_of(trainer) if isinstance(c, MemorizationEarlyStopping)]
            self.limits = [stop.limits for stop in stops]
        elif stage == "fit":
            for limits in self.limits:
                check_limits(limits, trainer, type(self).__name__)
        if stage == "fit" and trainer.is_global_zero:
            self.files.settle()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a resumed run, the checkpoint it started from need not be saved again."""
        super().on_train_start(trainer, pl_module)
        if self.last_model_path:
            self._last_global_step_saved = trainer.global_step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the checkpoints that this validation qualifies for, as copies of one file.

        Raises:
            ConfigError: a callback has swapped the weights since they were measured, or a threshold or `monitor` is on
                a metric that cannot be measured.
        """
        name = type(self).__name__
        if trainer.state.fn == "fit":
            known_in(trainer).check([str(self.monitor)], name, complete=False)
            for limits in self.limits or []:
                check_limits(limits, trainer, name)
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.measured.check(trainer, pl_module)
        self.note(trainer)
        metrics, monitor = latest_metrics(trainer), str(self.monitor)
        # A metric measured only in some validations cannot make a checkpoint the best in the others.
        value = metrics.get(monitor) if monitor in known_in(trainer).metrics else read(monitor, metrics, name)
        under = not any(passed(limits, trainer, name) for limits in self.limits or [])
        under = trainer.strategy.reduce_boolean_decision(under, all=True)
        kept = ["last"]
        if under:
            kept.append("safe")
            self.safe_model_path = self.files.checkpoint("safe")
            if value is not None and self._is_best(trainer, value):
                kept.append("best")
                self.best_model_path = self.files.checkpoint("best")
                self.best_model_score = torch.tensor(value, dtype=torch.float64)
        if "best" in kept:
            self.hardly_learned = bool(getattr(getattr(pl_module, "learning", None), "hardly_changed", False))
        self.last_model_path = self.files.checkpoint("last")
        line = measured_line(trainer, metrics)
        self.epochs |= dict.fromkeys(kept, trainer.current_epoch + 1)
        self.lines |= {} if line is None else dict.fromkeys(kept, line)
        self._write(trainer, kept)

    @property
    def files(self) -> CheckpointFiles:
        """Their files."""
        return CheckpointFiles(Path(str(self.dirpath)), self.FILE_EXTENSION)

    def _is_best(self, trainer: pl.Trainer, value: float) -> bool:
        best = None if self.best_model_score is None else float(self.best_model_score)
        beats = best is None or (value < best if self.mode == "min" else value > best)
        return bool(trainer.strategy.reduce_boolean_decision(math.isfinite(value) and beats))

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Called by Lightning at the end of a fit without validation."""
        self.epochs["last"] = trainer.current_epoch
        self.lines.pop("last", None)
        self._write(trainer, ["last"])

    def _write(self, trainer: pl.Trainer, kept: list[str]) -> None:
        """Save once, and keep the file under each of these names, which include "last"."""
        step, epoch = trainer.global_step, self.epochs["last"]

        def export(folder: Path) -> None:
            if self.export:
                export_adapter(exported(trainer), folder, epoch, step, self.lines.get("last"))

        self.files.write(trainer, kept, self.save_weights_only, export)
        self._last_global_step_saved, self._last_checkpoint_saved = step, self.files.checkpoint("last")
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the paths of the checkpoints; merge and push the best one if configured."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.global_step != self._last_global_step_saved:
            super().on_train_end(trainer, pl_module)
        elif self.measured.changed(trainer, pl_module) is not None:
            log.warning(
                "A callback changed the trained weights after the last validation (%s). Metrics and "
                "checkpoints are those of the weights before that.", suspects(trainer),
            )  # fmt: skip
        if self.last_model_path:
            finish(self, trainer, pl_module)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log whether the model is within this callback's limits, after the output of other callbacks."""
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            self.say(trainer)
