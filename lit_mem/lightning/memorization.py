"""The measuring callback: a suite of measures, what shows them, and what stops the run."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint

from lit_mem.attacks.base import Attack
from lit_mem.audit.headline import Sent
from lit_mem.audit.loop import clash
from lit_mem.audit.measure import Measure, Stateful
from lit_mem.audit.measures.perplexity import Perplexity
from lit_mem.audit.suite import ExtractionOptions, Suite, of_canaries
from lit_mem.audit.suite import suite as measures_of
from lit_mem.errors import ConfigError, check_range
from lit_mem.lightning import dashboard
from lit_mem.lightning.auditing import HasMeasures, measures
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.baseline import Baseline
from lit_mem.lightning.checkpoint import MemorizationCheckpoint
from lit_mem.lightning.early_stopping import MemorizationEarlyStopping
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.lightning.perplexity_drop import PerplexityDropWarning
from lit_mem.lightning.runs_audit import RunsAudit
from lit_mem.lightning.signals import EndOnSigterm
from lit_mem.lightning.stopwatch import Stopwatch
from lit_mem.lightning.table import EpochTable

_LIGHTNINGS_DEFAULT = 2
"""Batches of the check before training, where the user has set nothing."""


class Memorization(HasMeasures, RunsAudit):
    """Measures memorization before training and in every validation, shows it, keeps checkpoints, and stops the run.

    It brings along, where `trainer.callbacks` holds none of the kind: a table in the console (`EpochTable`), a warning
    where members' perplexity falls alone (`PerplexityDropWarning`), seconds (`Stopwatch`), checkpoints
    (`MemorizationCheckpoint`, unless `enable_checkpointing` is false) and, with `stop`, `MemorizationEarlyStopping`.
    Canaries are measured where `data.canaries` makes some.

    Args:
        suite: `quick` (no generation), `standard`, `full` (slices of all attacks and measures) or `none`.
        stop: one or more thresholds that end training, such as "mia/reference_auroc > 0.85".
        stop_when: "any" threshold is passed, or "all" of them at once.
        lower_bound: for AUROCs read the end of the 95 % interval that is nearer to the safe side.
        patience: how many validations in a row it must be so before training ends.
        attacks: of membership inference, by the name under which they are logged; None: those of no extra cost.
        extraction: how texts are prompted; null: nothing is generated.
        measures: further measures; each takes the place of one of the suite's that would log the same names.
        log: which metrics loggers get. `main`: those of `lit_mem.audit.headline.MAIN`, those that thresholds and
            monitors name, and those of measures of your own; `all`: every one. The record, the report, the table,
            thresholds and monitors have all of them in both cases. With `main` and a logger, `Trainer.validate`
            returns the main ones; `trainer.callback_metrics` holds all.

    Raises:
        ConfigError: an option is not one of those.
    """

    def __init__(
        self,
        suite: Suite = "standard",
        stop: list[str] | str = [],  # noqa: B006  (shown by --help; never changed)
        stop_when: Literal["any", "all"] = "any",
        lower_bound: bool = False,
        patience: int = 1,
        attacks: dict[str, Attack] | None = None,
        extraction: ExtractionOptions | None = ExtractionOptions(),  # noqa: B008  (likewise)
        measures: list[Measure] = [],  # noqa: B006  (likewise)
        log: Sent = "main",
    ) -> None:
        if log not in get_args(Sent):
            raise ConfigError(f"Memorization.log is {log!r}; expected main or all")
        self.suite, self.stop = suite, [stop] if isinstance(stop, str) else list(stop)
        self.attacks, self.extraction, self.others = attacks, extraction, list(measures)
        self.measures = measures_of(suite, attacks, extraction, measures)
        self.sent = log  # Lightning gives each callback a method `log`
        self._brought: list[Callback] = []
        self._stopping = _stopping(self.stop, stop_when, lower_bound, patience) if self.stop else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Bring along what belongs to it, and prepare the measures.

        Raises:
            ConfigError: an option does not fit, or two measures log the same name.
        """
        super().setup(trainer, pl_module, stage)
        brought, self._brought = self._brought, []
        for callback in brought:  # Lightning goes through the list that it had when `setup` began
            callback.setup(trainer, pl_module, stage)

    def prepare(self, trainer: pl.Trainer) -> None:
        """Bring along what belongs to it, and measure canaries if there are some."""
        self._brought = self.attach(trainer)
        data = getattr(trainer, "datamodule", None)
        if self.measures and getattr(data, "canary_source", None) is not None:
            self.measures = [*self.measures, *of_canaries(measures(trainer))]

    def attach(self, trainer: pl.Trainer) -> list[Callback]:
        """Put what belongs to it into the trainer, where that has none of the kind; what was put there."""
        there = callbacks_of(trainer)
        listed = [one for one in there if isinstance(one, Measure)]
        if any(clash(one, other) for other in listed for one in self.measures):
            made = measures_of(self.suite, self.attacks, self.extraction, [*self.others, *listed])
            self.measures = [one for one in made if one not in listed]
        if not self.measures:
            return []
        wanted: list[Callback] = [EndOnSigterm(), Baseline(), BaseModel(), Stopwatch(), EpochTable()]
        if any(isinstance(one, Perplexity) for one in measures(trainer)):
            wanted.append(PerplexityDropWarning())
        brought = [one for one in wanted if not any(type(one) is type(other) for other in there)]
        if self._stopping is not None and all(one.state_key != self._stopping.state_key for one in there):
            brought.append(self._stopping)
        keepers: list[Callback] = []
        if trainer.checkpoint_callbacks and not any(isinstance(one, MemorizationCheckpoint) for one in there):
            keepers.append(MemorizationCheckpoint())
        # Lightning has checkpoints last, so that they save what the others have counted.
        kept = [one for one in there if isinstance(one, Checkpoint) and not (keepers and _is_default(one))]
        others = [one for one in there if not isinstance(one, Checkpoint)]
        trainer.callbacks = [*others, *brought, *kept, *keepers]  # type: ignore[attr-defined]
        if trainer.num_sanity_val_steps == _LIGHTNINGS_DEFAULT and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.num_sanity_val_steps = math.inf  # the whole of it: what is measured before training is a row
        return [*brought, *keepers]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lay out TensorBoard's Custom Scalars page, and start the lines of thresholds there."""
        if self.measures:
            dashboard.write_layout(trainer)
            if not trainer.global_step:
                dashboard.write_limits(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append to the record; go on with the lines of thresholds."""
        super().on_validation_end(trainer, pl_module)
        if self.measures and trainer.state.fn == "fit" and not trainer.sanity_checking:
            dashboard.write_limits(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, by measure."""
        return {one.state_key: one.state_dict() for one in self.measures if isinstance(one, Stateful)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        for one in self.measures:
            if isinstance(one, Stateful) and one.state_key in state_dict:
                one.load_state_dict(state_dict[one.state_key])


def _stopping(
    stop: list[str], stop_when: Literal["any", "all"], lower_bound: bool, patience: int
) -> MemorizationEarlyStopping:
    """What stops the run; its messages name the options of this section.

    Raises:
        ConfigError: an option does not fit.
    """
    check_range("memorization.patience", patience, at_least=1)
    made = MemorizationEarlyStopping(stop, stop_when, lower_bound, patience)
    made.option = "memorization.stop"
    return made


def _is_default(callback: Checkpoint) -> bool:
    """Whether it is what Lightning adds by itself."""
    return (
        type(callback) is ModelCheckpoint
        and callback.dirpath is None
        and callback.monitor is None
        and callback.filename is None
        and not callback.save_last
    )
