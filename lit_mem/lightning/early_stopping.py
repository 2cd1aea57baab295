"""Stop training when memorization exceeds its thresholds."""

from __future__ import annotations

import logging
from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_mem.audit.judging import Rule
from lit_mem.audit.stopping import Stopping
from lit_mem.errors import check_range
from lit_mem.lightning.auditing import audit_of, latest_metrics
from lit_mem.lightning.last_line import LastLine
from lit_mem.lightning.planned_stop import planned_looks, planned_stops
from lit_mem.lightning.rules import Limits, check_limits, known_in

log = logging.getLogger(__name__)


class MemorizationEarlyStopping(LastLine, Stopping, Callback):
    """Stops training when logged metrics exceed their thresholds.

    Lightning's own EarlyStopping with a stopping threshold also stops a flat run by patience, and on NaN; this one
    considers only the thresholds, and only metrics of the last validation.

    Args:
        thresholds: such as "mia/reference_auroc > 0.6" or "memorization/perplexity_members < 3".
        stop_when: "any" threshold is exceeded, or "all" of them at once.
        lower_bound: if a metric has an interval, read its safe end, at a level spread over all thresholds and all
            validations: at most 5 % of runs whose metrics truly are within the limits are ever stopped by noise
            (docs/reference/metrics/intervals.md, "Many looks"). A report still judges by the 95 % interval.
        patience: number of consecutive validations over the limits before training stops. They score the same texts,
            so their noise is correlated: patience does not correct for noise.

    Attributes:
        option: option that set the thresholds, for messages and the record.
        reason: why training was stopped; None if it was not.
        stopped_after: the epoch in which it was stopped, from 1.
    """

    def __init__(
        self,
        thresholds: list[str],
        stop_when: Literal["any", "all"] = "any",
        lower_bound: bool = False,
        patience: int = 1,
    ) -> None:
        check_range("MemorizationEarlyStopping.patience", patience, at_least=1)
        super().__init__(Limits(thresholds, lower_bound), stop_when, patience)
        self.option = f"{type(self).__name__}.thresholds"
        self.stopped_after = 0

    def rules(self) -> list[Rule]:
        """These thresholds."""
        return [Rule(self.option, self.limits, self.stop_when)]

    @property
    def state_key(self) -> str:
        """State key, which distinguishes several such callbacks in one run."""
        return f"{type(self).__qualname__}({self.limits}; {self.stop_when})"

    def state_dict(self) -> dict[str, Any]:
        """State for resuming."""
        return self.counts() | {"stopped_after": self.stopped_after}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the counts."""
        self.load_counts(state_dict)
        self.stopped_after = state_dict.get("stopped_after", 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once a resumed run that had been stopped; log at which values thresholds with `lower_bound` act."""
        if self.over_in_a_row < self.patience:
            self.reason = None  # patience was raised since
        elif self.reason is not None:
            trainer.should_stop = True
        self.planned = planned_looks(trainer)
        if trainer.is_global_zero:
            if self.limits.meaning:
                log.info("%s: %s.", self.option, self.limits.meaning)
            for line in planned_stops(self.limits, trainer, self.level):
                log.info("%s", line)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reject misspelt names before anything is computed, and reset the state of another run.

        Raises:
            ConfigError: a threshold is on a metric that is never logged.
        """
        if stage == "fit":
            check_limits(self.limits, trainer, self.option)
            if trainer.global_step == 0:  # in a resumed run, load_state_dict follows
                self.start_over()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the metrics, all of which are logged by now, for any order of callbacks.

        Raises:
            ConfigError: a threshold is on a metric that cannot be measured; raised before training if there is a check.
        """
        if trainer.state.fn != "fit":
            return
        if trainer.sanity_checking:
            return check_limits(self.limits, trainer, self.option)
        self.note(trainer)
        result = audit_of(trainer).latest
        intervals = {} if result is None else result.intervals
        beyond = self.beyond(latest_metrics(trainer), intervals, known_in(trainer), self.option)
        # Every rank has the same metrics; a joint decision keeps ranks together even if that fails.
        over = trainer.strategy.reduce_boolean_decision(self.is_over(beyond), all=False)
        if self.count(over, beyond):
            trainer.should_stop = True
            self.stopped_after = trainer.current_epoch + 1

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print why training stopped (`MemorizationCheckpoint` then prints the paths of its checkpoints)."""
        if self.reason is not None:
            line = f"Training was stopped after epoch {self.stopped_after}: {self.reason}."
            pl_module.print(f"{line}{self.certainty()}")

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Log whether the model is within its limits, after the output of other callbacks."""
        if stage == "fit":
            self.say(trainer)
