"""The LightningDataModule: loaders over what `prepare` makes of one corpus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import Any

import lightning.pytorch as pl
from jsonargparse import lazy_instance
from torch.utils.data import DataLoader

from lit_mem.audit.gather import on_rank_zero
from lit_mem.data.canaries.base import CanarySource
from lit_mem.data.checks import TrustReport
from lit_mem.data.chunks import Chunk, chunk_of
from lit_mem.data.deduplicate import Deduplicate
from lit_mem.data.encoding import Encoded
from lit_mem.data.example_sets import ExampleSets
from lit_mem.data.limits import limited_scoring, limited_training, reject_overfit_batches
from lit_mem.data.loaders import Loaders, Ranks
from lit_mem.data.members import Sides
from lit_mem.data.options import DataOptions, positive
from lit_mem.data.prepare import Prepared, prepare
from lit_mem.data.remarks import on_end_tokens
from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.data.sources.given import as_source
from lit_mem.data.texts import checked_texts
from lit_mem.data.tokenizer import tokenizer_of
from lit_mem.files.once import Once
from lit_mem.functional.planning import Scored
from lit_mem.lightning.checks_file import write_checks
from lit_mem.lightning.console import show_messages
from lit_mem.lightning.resumable_loader import ResumableLoader
from lit_mem.types import Batch

log = logging.getLogger(__name__)


class TextDataModule(ExampleSets, pl.LightningDataModule):
    """Trains on the members; validates on held-out texts (non-members) and on a probe of the members.

    The two validation loaders are what makes the validation loop a memorization pass: every batch says which
    of its examples are members.

    Args:
        source: where the texts come from; in Python also a list of texts or of rows, or a `datasets.Dataset`.
        batch_size: training examples a step on each device; with model.privacy, how many at a time.
        group_by_length: train on batches of texts of similar length. The order is random still, but another one, and
            texts of one length come in runs. It saves padding where the model cannot lay texts end to end.
        max_length: longest example in tokens; the rest is cut, and counted in the log.
        add_eos: end each example with the tokenizer's end-of-text token, so that the model learns to stop; that token
            is trained on but not scored.
        deduplicate: train on texts once: "exact" leaves out rows with the same text as an earlier one, "near" also
            those that are nearly the same (see `lit_mem.data.deduplicate`); "none" leaves out none.
        train_size: train on a random subset of this many rows; None: all.
        heldout_size: hold out a random subset of this many rows; None: all.
        members_size: score a random subset of this many members, in which repeated texts and one row of each group come
            first; None: all of up to 2000, of more as many as are held out, but at least 2000.
        heldout_fraction: share of `train` to hold out, by group, where the source has no held-out set.
        scoring_tokens: most tokens in a scoring batch, padding included; lower it if scoring runs out of memory.
        seed: of subsets, splits and the order of training.
        check: look for duplicates and for a difference between members and held-out texts before training.
        tokenizer: hub id or folder; None: the one of the model being trained.
        num_workers: processes that build batches; 0 is fastest for texts that fit in memory.
        spans_column: the column that marks telling pieces (names, dates, drugs): a list of {type, start, end} in
            characters of the completion. Where the texts have no column "spans", nothing is marked; null reads none.
        canaries: texts that are made up and put into the training set by fair coins, to see whether they are memorized
            (the callbacks `Canaries` and `PrivacyAudit` tell). They are no members of any other figure.
        show_groups: keep columns that name groups, as `group_column` does, beside the texts, so that `Slices` names
            metrics by them. By default they serve to split and to check alone: a group is most often a person.
        chunk: {tokens, stride}: read longer texts in windows, all of them (see `lit_mem.data.chunks`); None: cut them.
    """

    def __init__(
        self,
        source: Source = lazy_instance(CaseReports),  # noqa: B008  (how jsonargparse spells a default sub-object)
        batch_size: int = 8,
        group_by_length: bool = False,
        max_length: int = 512,
        add_eos: bool = True,
        deduplicate: Deduplicate = "none",
        train_size: int | None = None,
        heldout_size: int | None = None,
        members_size: int | None = None,
        heldout_fraction: float = 0.2,
        scoring_tokens: int = 2048,
        seed: int = 0,
        check: bool = True,
        tokenizer: str | None = None,
        num_workers: int = 0,
        spans_column: str | None = "spans",
        canaries: CanarySource | None = None,
        show_groups: bool = False,
        chunk: Chunk | None = None,
    ) -> None:
        super().__init__()
        positive(batch_size=batch_size, scoring_tokens=scoring_tokens)
        self.group_by_length, self.chunk = group_by_length, chunk_of(chunk)
        self.batch_size, self.max_length, self.add_eos = batch_size, max_length, add_eos
        self.deduplicate: Deduplicate = deduplicate
        self.train_size, self.heldout_size, self.members_size = train_size, heldout_size, members_size
        self.heldout_fraction, self.scoring_tokens = heldout_fraction, scoring_tokens
        self.seed, self.check, self.tokenizer_id, self.num_workers = seed, check, tokenizer, num_workers
        self.spans_column, self.canary_source, self.show_groups = spans_column, canaries, show_groups
        self._options()
        self.source = as_source(source)
        self.largest_group = 1  # most training rows of one person or document, as far as groups are known
        self._corpus: Corpus | None = None
        self._prepared: Prepared | None = None
        self._scored: Scored | None = None
        self._checks_written = False
        self._warnings = Once()

    def _options(self) -> DataOptions:
        return DataOptions(**{field.name: getattr(self, field.name) for field in fields(DataOptions)})

    def prepare_data(self) -> None:
        """Read the source once on one process, so that a download happens once; the second call does nothing."""
        if self._corpus is None:
            self._corpus = self.source.load()

    def setup(self, stage: str) -> None:
        """Split, check and tokenize; the second call does nothing.

        Raises:
            DataError: a row or split is not what was expected.
            ConfigError: a size asks for more than there is, `spans_column` names a column that is not there, or the
                trainer would not train on the members.
        """
        show_messages()
        reject_overfit_batches(self.trainer)
        if self._prepared is None:
            options, module = self._options(), getattr(self.trainer, "lightning_module", None)
            texts = checked_texts(self._corpus or self.source, options)
            tokenizer, base_model = tokenizer_of(self.tokenizer_id, module), getattr(module, "fresh_base", None)
            found = self._prepared = prepare(texts, tokenizer, options, base_model, self._once)
            self.train, self.members, self.heldout = found.train, found.members, found.heldout
            self.canaries, self.documents, self.largest_group = found.canaries, found.documents, texts.largest_group
        if stage == "test":
            self.test = self._prepared.test

    def _once(self, compute: Callable[[], Any]) -> Any:
        """What one process computes, on all; a mistake of the user's is raised on all, so that none waits for it."""
        if self.trainer is None:
            return compute()
        return self.trainer.strategy.broadcast(on_rank_zero(self.trainer, compute))

    @property
    def tokenizer_of_texts(self) -> Any:
        """The tokenizer that the texts were encoded with; None before `setup`."""
        return None if self._prepared is None else self._prepared.encoder.tokenizer

    @property
    def trust(self) -> TrustReport | None:
        """What the checks of the texts found; None before `setup`, and where `data.check` is false."""
        return None if self._prepared is None else self._prepared.texts.trust

    @property
    def corpus_name(self) -> str:
        """What the texts are called in logs; "" before they are read."""
        return "" if self._corpus is None else self._corpus.name

    def sides(self) -> Sides | None:
        """The texts by what this run does with them, for `lit_mem.lightning.member_check`; None before `setup`."""
        if self._prepared is None:
            return None
        texts, test = self._prepared.texts, self._prepared.test_rows if self._testing() else None
        if test is not None:
            return Sides(texts.train, test, "test", self.canaries)
        return Sides(texts.train, texts.heldout, canaries=self.canaries)

    def _testing(self) -> bool:
        return self.trainer is not None and self.trainer.testing

    def remark_on_ends(self, ends: Collection[int]) -> None:
        """Log how many texts have an end token inside, once it is known at which tokens the model's decoding stops."""
        if self._prepared is not None:
            line = on_end_tokens(self.every_example(), ends, self._prepared.encoder.tokenizer)
            if line is not None:
                log.info("%s", line)

    def _loaders(self) -> Loaders:
        ranks = Ranks(self.trainer.world_size, self.trainer.global_rank) if self.trainer else Ranks()
        kind = DataLoader if self.trainer is None else ResumableLoader
        return Loaders(self.seed, ranks, self.num_workers, kind)

    def train_dataloader(self) -> DataLoader[Any]:
        """Members in an order that depends on seed and epoch alone."""
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
        """Held-out texts, then the members probe, then canaries if there are any."""
        return self._scoring(self.heldout, self._ready().of_heldout, "held-out texts", "limit_val_batches")

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Test texts, then the members probe, then canaries if there are any."""
        return self._scoring(self.test, self._ready().of_test, "test texts", "limit_test_batches")

    def _scoring(self, others: list[Encoded], of: int, name: str, option: str) -> list[DataLoader[Batch]]:
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
        """How many texts of each side are scored, limits of batches included; None before `setup`.

        `of_members` are those trained on, without canaries; `of_heldout` those that the source holds out, or, where a
        test is under way, its test texts.
        """
        if self._scored is None and self._prepared is not None:
            sizes = len(self._prepared.texts.train), self._prepared.of_heldout
            return Scored(len(self.members), len(self.heldout), *sizes)
        return self._scored

    def _warn_once(self, line: str | None) -> None:
        if line is not None and self._warnings.first(line):  # loaders may be made again every epoch
            log.warning("%s", line)
