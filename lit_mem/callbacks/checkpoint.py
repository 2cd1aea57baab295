"""Keep the checkpoints that memorize no more than they may."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_mem.callbacks.base import callbacks_of, latest_figures
from lit_mem.callbacks.early_stopping import MemorizationEarlyStopping
from lit_mem.callbacks.thresholds import Limits, logged_names, read

log = logging.getLogger(__name__)


class MemorizationCheckpoint(ModelCheckpoint):
    """Keeps up to three checkpoints of a run, and beside each the adapter in peft's own format.

    - `best.ckpt`: the lowest `monitor` among validations under every threshold;
    - `safe.ckpt`: the last validation under every threshold;
    - `last.ckpt`: the last validation whatever it measured, to resume from.

    Beside each lies a folder (`best-adapter/` …) that peft, transformers and vLLM load.

    Args:
        thresholds: such as "mia/reference_auroc > 0.6". None: those of the run's `MemorizationEarlyStopping`s.
        lower_bound: as for `MemorizationEarlyStopping`; goes with `thresholds`.
        monitor: what the best checkpoint has least of (or most, see `mode`).
        mode: "min" or "max".
        dirpath: where to; None: `checkpoints` in the logger's folder.
        export: write the adapter folders.
        merge: when training ends, also write the best checkpoint as one plain model with the adapter merged into
            its base (`best-merged/`, as large as the base; loads the base once more, in memory of its own).
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
        self.export, self.merge = export, merge
        self.safe_model_path = ""
        self.epochs: dict[str, int] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return super().state_dict() | {"safe_model_path": self.safe_model_path, "epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the checkpoints of the interrupted run, should they lie in another folder too."""
        for name in ("best_model_path", "best_model_score", "last_model_path", "safe_model_path"):
            setattr(self, name, state_dict[name])
        self.epochs = dict(state_dict["epochs"])

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find folder and thresholds.

        Raises:
            ConfigError: a threshold is on a figure that nothing logs.
        """
        super().setup(trainer, pl_module, stage)
        if self.limits is None:  # those who own them have checked them
            stops = [c for c in callbacks_of(trainer) if isinstance(c, MemorizationEarlyStopping)]
            self.limits = [stop.limits for stop in stops]
        elif stage == "fit":
            for limits in self.limits:
                limits.check_names(trainer, type(self).__name__)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what this validation deserves, all from one checkpoint."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert self.dirpath is not None
        name = type(self).__name__
        figures, monitor = latest_figures(trainer), str(self.monitor)
        # A figure that is measured only now and then makes no checkpoint the best when it is not.
        value = figures.get(monitor) if monitor in logged_names(trainer) else read(monitor, figures, name)
        under = not any(limits.passed(trainer, name) for limits in self.limits or [])
        under = trainer.strategy.reduce_boolean_decision(under, all=True)
        kept = ["last"]
        if under:
            kept.append("safe")
            self.safe_model_path = self._path("safe")
            if value is not None and self._is_best(trainer, value):
                kept.append("best")
                self.best_model_path = self._path("best")
                self.best_model_score = torch.tensor(value, dtype=torch.float64)
        self.last_model_path = self._path("last")
        for which in kept:
            self.epochs[which] = trainer.current_epoch + 1
        self._save_checkpoint(trainer, self.last_model_path)
        if trainer.is_global_zero:
            self._export(pl_module)
            for which in kept[1:]:
                self._copy_last_to(which)
        trainer.strategy.barrier("MemorizationCheckpoint")

    def _is_best(self, trainer: pl.Trainer, value: float) -> bool:
        best = None if self.best_model_score is None else float(self.best_model_score)
        beats = best is None or (value < best if self.mode == "min" else value > best)
        better = math.isfinite(value) and beats
        return bool(trainer.strategy.reduce_boolean_decision(better))

    def _path(self, which: str) -> str:
        return os.path.join(str(self.dirpath), f"{which}{self.FILE_EXTENSION}")

    def _adapter(self, which: str) -> str:
        return os.path.join(str(self.dirpath), f"{which}-adapter")

    def _export(self, module: pl.LightningModule) -> None:
        """Write the adapter beside the last checkpoint; it appears whole or not at all."""
        model: Any = getattr(module, "language_model", None)
        if not self.export or not hasattr(model, "save_pretrained"):
            return
        with tempfile.TemporaryDirectory(dir=self.dirpath, prefix=".export-") as folder:
            fresh = os.path.join(folder, "adapter")
            # Otherwise peft asks the hub whether the vocabulary grew.
            model.save_pretrained(fresh, **({"save_embedding_layers": False} if hasattr(model, "peft_config") else {}))
            shutil.rmtree(self._adapter("last"), ignore_errors=True)
            os.replace(fresh, self._adapter("last"))

    def _copy_last_to(self, which: str) -> None:
        """Keep the last checkpoint, and its adapter if there is one, under another name too."""
        _replace(self._path("last"), self._path(which))
        if self.export and os.path.isdir(self._adapter("last")):
            _replace(self._adapter("last"), self._adapter(which))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where the checkpoints lie, and merge the best one if that was asked for."""
        super().on_train_end(trainer, pl_module)
        if trainer.fast_dev_run or not self.last_model_path:  # type: ignore[attr-defined]
            return
        for line in self.summary():
            pl_module.print(line)
        if self.merge and trainer.is_global_zero and self.best_model_path:
            self._write_merged(pl_module)

    def summary(self) -> list[str]:
        """Where the checkpoints lie, a line each."""
        score = "" if self.best_model_score is None else f", {self.monitor} {float(self.best_model_score):.4g}"
        limited = " under every threshold" if self.limits else ""
        if not self.best_model_path:
            lines = ["No checkpoint: no validation was under every threshold."]
        else:
            lines = [f"Best checkpoint{limited} (epoch {self.epochs['best']}{score}): {self.best_model_path}"]
            if self.limits:
                lines.append(f"Last checkpoint{limited} (epoch {self.epochs['safe']}): {self.safe_model_path}")
        return [*lines, f"Last checkpoint, to resume from (epoch {self.epochs['last']}): {self.last_model_path}"]

    def _write_merged(self, module: Any) -> None:
        folder, adapter = Path(str(self.dirpath)), Path(self._adapter("best"))
        if not self.export or not hasattr(module, "merged") or not (adapter / "adapter_config.json").is_file():
            log.warning("Nothing to merge: there is no adapter folder beside the best checkpoint.")
            return
        model = module.merged(str(adapter))
        model.save_pretrained(folder / "best-merged")
        module.tokenizer.save_pretrained(folder / "best-merged")
        module.print(f"Best checkpoint as one merged model: {folder / 'best-merged'}")


def _replace(source: str, target: str) -> None:
    """Copy a checkpoint or an adapter (a file or a folder) over another."""
    fresh = f"{target}.partial"
    if os.path.isdir(source):
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(source, fresh)
        shutil.rmtree(target, ignore_errors=True)
    else:
        shutil.copyfile(source, fresh)
    os.replace(fresh, target)
