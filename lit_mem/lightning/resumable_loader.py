"""A training loader that a resumed run continues where it was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader


class ResumableLoader(DataLoader[Any]):
    """Skips the batches that a resumed epoch has already trained on.

    Lightning stores their number in the checkpoint. The sampler must reproduce an epoch's order.

    Attributes:
        trainer: trainer whose training loader this is; None: the loader always gives whole epochs.
    """

    trainer: pl.Trainer | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The epoch's batches, or the remaining ones."""
        # A generator: Lightning makes the iterator before it sets the sampler's epoch, and worker processes query the
        # sampler at once.
        done = 0
        if self.trainer is not None and self.trainer.train_dataloader is self:
            done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        yield from islice(super().__iter__(), done, None)

    def state_dict(self) -> dict[str, Any]:
        """Empty: the method's existence makes Lightning treat the loader as resumable within an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
