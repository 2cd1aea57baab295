"""A well-known sign of memorization: the members' perplexity falls suddenly."""

from __future__ import annotations

import logging

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_mem.callbacks.thresholds import check_names
from lit_mem.errors import ConfigError

log = logging.getLogger(__name__)

MEMBERS, HELDOUT = "memorization/perplexity_members", "val/perplexity"


class PerplexityDropWarning(Callback):
    """Warns, in log and console, when the members' perplexity falls sharply from one validation to the next.

    The fall from the untrained model to the first validation is not looked at: on a new domain it is steep on
    every run. The warning says what held-out perplexity did meanwhile, which tells learning from memorizing.

    Args:
        share: how far perplexity must fall, as a share of its last value.
    """

    def __init__(self, share: float = 0.25) -> None:
        if not 0 < share < 1:
            raise ConfigError(f"PerplexityDropWarning.share is {share}; expected a number between 0 and 1")
        self.share = share
        self._last: tuple[float, float] | None = None

    def state_dict(self) -> dict[str, list[float] | None]:
        """What a resumed run needs."""
        return {"last": list(self._last) if self._last else None}

    def load_state_dict(self, state_dict: dict[str, list[float] | None]) -> None:
        """Go on from the last validation."""
        last = state_dict["last"]
        self._last = (last[0], last[1]) if last else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse to watch what nothing logs; start a new run with nothing to compare with."""
        if stage == "fit":
            check_names([MEMBERS, HELDOUT], trainer, type(self).__name__)
            if trainer.global_step == 0:  # a resumed run gets its own next
                self._last = None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare with the last validation."""
        metrics = trainer.callback_metrics
        if trainer.state.fn != "fit" or trainer.sanity_checking or MEMBERS not in metrics or HELDOUT not in metrics:
            return
        members, heldout = float(metrics[MEMBERS]), float(metrics[HELDOUT])
        if self._last is not None and members < (1 - self.share) * self._last[0]:
            log.warning("Warning: %s.", self.message(self._last, (members, heldout)))
        self._last = members, heldout

    @staticmethod
    def message(before: tuple[float, float], now: tuple[float, float]) -> str:
        """One line: what fell, and what held-out perplexity did meanwhile."""
        fall, change = 1 - now[0] / before[0], now[1] / before[1] - 1
        return (
            f"the members' perplexity fell by {fall:.0%} ({before[0]:.2f} to {now[0]:.2f}) since the last validation, "
            f"held-out perplexity {'rose' if change > 0 else 'fell'} by {abs(change):.0%}: a sudden fall is a sign of "
            "memorization, the more so the less held-out texts share it"
        )
