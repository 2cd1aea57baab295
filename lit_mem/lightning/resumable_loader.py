"""A loader of training batches that a resumed run enters where the interrupted one was."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader


class ResumableLoader(DataLoader[Any]):
    """Leaves out what a resumed epoch has trained on already.

    How many batches that is Lightning keeps in the checkpoint itself. The sampler must give an epoch's order again.

    Attributes:
        trainer: whose training loader this is; None: it is nobody's, and always whole.
    """

    trainer: pl.Trainer | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The epoch's batches, or the rest of them."""
        # A generator: Lightning makes the iterator before it tells the sampler which epoch it is, and worker processes
        # ask the sampler at once.
        done = 0
        if self.trainer is not None and self.trainer.train_dataloader is self:
            done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
        yield from islice(super().__iter__(), done, None)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: that there is this method tells Lightning that the loader can go on amid an epoch."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to load."""
