"""Data loaders for training and for scoring passes, over the prepared texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from torch.utils.data import DataLoader

from lit_mem.data.encoding import Encoded
from lit_mem.data.example_sets import ExampleSets
from lit_mem.data.limits import limited_scoring, limited_training
from lit_mem.data.loaders import Loaders, Ranks
from lit_mem.data.prepare import Prepared
from lit_mem.files.once import Once
from lit_mem.functional.planning import Scored
from lit_mem.lightning.checks_file import write_checks
from lit_mem.lightning.resumable_loader import ResumableLoader
from lit_mem.types import Batch

log = logging.getLogger(__name__)


class TextLoaders(ExampleSets, pl.LightningDataModule):
    """Makes the loaders of a data module.

    The two validation loaders make the validation loop a memorization pass: every batch marks which of its examples
    are members.
    """

    batch_size: int
    group_by_length: bool
    scoring_tokens: int
    seed: int
    num_workers: int

    def __init__(self) -> None:
        super().__init__()
        self._prepared: Prepared | None = None
        self._scored: Scored | None = None
        self._checks_written = False
        self._warnings = Once()

    def _loaders(self) -> Loaders:
        ranks = Ranks(self.trainer.world_size, self.trainer.global_rank) if self.trainer else Ranks()
        kind = DataLoader if self.trainer is None else ResumableLoader
        return Loaders(self.seed, ranks, self.num_workers, kind)

    def train_dataloader(self) -> DataLoader[Any]:
        """Members in an order that depends only on seed and epoch."""
        loaders = self._loaders()
        self._warn_once(limited_training(self.trainer, len(self.train), self.batch_size * loaders.ranks.world))
        private = getattr(self.trainer.lightning_module, "private", None) if self.trainer is not None else None
        if private is None:
            loader = loaders.training(self.train, self.batch_size, self.group_by_length)
        else:
            draws = private.batch_size, private.stream, self._ready().public_size
            loader = loaders.private(self.train, self.batch_size, *draws)
        if isinstance(loader, ResumableLoader):
            loader.trainer = self.trainer
        return loader

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Held-out texts, followed by the members probe and any canaries."""
        return self._scoring(self.heldout, self._ready().of_heldout, "held-out texts", "limit_val_batches")

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Test texts, followed by the members probe and any canaries."""
        return self._scoring(self.test, self._ready().of_test, "test texts", "limit_test_batches")

    def _scoring(self, others: Sequence[Encoded], of: int, name: str, option: str) -> list[DataLoader[Batch]]:
        sets = [others, self.members, *([self.canaries] if self.canaries else [])]
        loaders = [self._loaders().scoring(examples, self.scoring_tokens) for examples in sets]
        n_others, n_members, line = limited_scoring(self.trainer, option, loaders[0], loaders[1], name)
        texts = self._ready().texts
        self._scored = Scored(n_members, n_others, len(texts.train), of)
        if texts.trust is not None and not self._checks_written:
            self._checks_written = write_checks(self.trainer, texts.trust, self._scored)
        self._warn_once(line)
        return loaders

    def _ready(self) -> Prepared:
        if self._prepared is None:
            raise RuntimeError("TextDataModule has no texts yet; call its setup() before its loaders are made")
        return self._prepared

    def scored_texts(self) -> Scored | None:
        """Number of texts of each set that are scored, including limits on batches; None before `setup`.

        `of_members` is the number of training texts, without canaries; `of_heldout` that of the source's held-out
        texts, or in a test of its test texts.
        """
        if self._scored is None and self._prepared is not None:
            sizes = len(self._prepared.texts.train), self._prepared.of_heldout
            return Scored(len(self.members), len(self.heldout), *sizes)
        return self._scored

    def _warn_once(self, line: str | None) -> None:
        if line is not None and self._warnings.first(line):  # loaders may be rebuilt every epoch
            log.warning("%s", line)
