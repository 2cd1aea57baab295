"""The LightningDataModule: one corpus as a training set, a members probe and a held-out set; and canaries."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import lightning.pytorch as pl
import torch
from jsonargparse import lazy_instance
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from lit_mem import atomic
from lit_mem.audit.gather import on_rank_zero
from lit_mem.console import show_messages
from lit_mem.data.batching import BatchList, ExampleList, ScoringBatches
from lit_mem.data.canaries.base import CanarySource, Setting
from lit_mem.data.canaries.encoding import copies, encoded
from lit_mem.data.deduplicate import Deduplicate, deduplicated, without_repeats
from lit_mem.data.encoding import Encoded, Encoder, collate
from lit_mem.data.group_columns import without_groups
from lit_mem.data.grouped_order import GroupedOrder
from lit_mem.data.members import Sides
from lit_mem.data.overlap import normalized
from lit_mem.data.poisson import PoissonBatches, StepBatches
from lit_mem.data.probe import default_size, scored_members
from lit_mem.data.remarks import on_end_tokens, on_scripts
from lit_mem.data.resuming import ResumableLoader
from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.data.sources.given import as_source
from lit_mem.data.sources.table import listed
from lit_mem.errors import ConfigError, DataError, ModelError
from lit_mem.functional.planning import Scored
from lit_mem.guards import preserved_random_state
from lit_mem.run_folder import run_folder
from lit_mem.types import Batch

if TYPE_CHECKING:
    from datasets import Dataset

    from lit_mem.data.checks import TrustReport

log = logging.getLogger(__name__)

_SPANS: Final = "spans"


class TextDataModule(pl.LightningDataModule):
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
        spans_column: str | None = _SPANS,
        canaries: CanarySource | None = None,
        show_groups: bool = False,
    ) -> None:
        super().__init__()
        sizes = {
            "batch_size": batch_size,
            "scoring_tokens": scoring_tokens,
            "train_size": train_size,
            "heldout_size": heldout_size,
            "members_size": members_size,
        }
        for name, size in sizes.items():
            if size is not None and size < 1:
                raise ConfigError(f"data.{name} is {size}; expected 1 or more")
        if seed < 0:
            raise ConfigError(f"data.seed is {seed}; expected 0 or more")
        if max_length < 2:
            raise ConfigError(f"data.max_length is {max_length}; expected 2 or more: the first token is never scored")
        if not 0 < heldout_fraction < 1:
            raise ConfigError(f"data.heldout_fraction is {heldout_fraction}; expected a number between 0 and 1")
        self.source, self.group_by_length = as_source(source), group_by_length
        self.batch_size, self.max_length, self.add_eos = batch_size, max_length, add_eos
        self.deduplicate: Deduplicate = deduplicate
        self.train_size, self.heldout_size, self.members_size = train_size, heldout_size, members_size
        self.heldout_fraction, self.scoring_tokens = heldout_fraction, scoring_tokens
        self.seed, self.check, self.tokenizer_id, self.num_workers = seed, check, tokenizer, num_workers
        self.spans_column, self.canary_source, self.show_groups = spans_column, canaries, show_groups
        self._corpus: Corpus | None = None
        self._told: set[str] = set()
        self.train: list[Encoded] = []
        self.members: list[Encoded] = []
        self.heldout: list[Encoded] = []
        self.test: list[Encoded] = []
        self.canaries: list[Encoded] = []
        self.largest_group = 1  # most training rows of one person or document, as far as groups are known
        self._trust: TrustReport | None = None
        self._scored: Scored | None = None

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
        if (n := getattr(self.trainer, "overfit_batches", 0)) > 0:
            raise ConfigError(
                f"trainer.overfit_batches is {n}: it trains on a few texts, and all members "
                "would be judged; set data.train_size to train on few texts, and leave it out"
            )
        if self.train:
            return self._encode_test(stage)
        corpus = self._corpus or self.source.load()
        train, heldout, test = self._splits(corpus)
        log.info("Data %s: %d members to train on, %d held-out texts.", corpus.name, len(train), len(heldout))
        if (line := on_scripts([*train["completion"][:], *heldout["completion"][:]])) is not None:
            log.info("%s", line)
        if self.check:
            self._report(train, heldout, corpus.name)
        if self.spans_column not in (None, _SPANS, *train.column_names):
            raise ConfigError(
                f"data.spans_column is {self.spans_column!r}, but {corpus.name} has no such column; "
                f"there are: {listed(train.column_names)}"
            )
        if not self.show_groups:
            train, heldout, test = without_groups(train, heldout, test, self.spans_column)
        self._encoder = Encoder(self._tokenizer(), self.max_length, self.add_eos, self.spans_column)
        # One numbering over all sets: an id never means a member here and a non-member there.
        self.train = self._encoder(train, 0, member=True, name="training")
        self.heldout = self._encoder(heldout, len(train), member=False, name="held-out")
        _count_duplicates([*self.train, *self.heldout], members=self.train)
        self.members = self._probe_of_members(train)
        self._rows = train, heldout
        self.largest_group = max(Counter(train["group"][:]).values())
        self._test_rows, self._first_test_id = test, len(train) + len(heldout)
        if self.canary_source is not None:
            self._insert_canaries(self.canary_source, [train, heldout, test])
        return self._encode_test(stage)

    def _encode_test(self, stage: str) -> None:
        if stage == "test" and not self.test:
            rows = self._test_rows
            if rows is None:
                self.test = self.heldout
                return
            rows = self._test_rows = without_repeats(rows, "test")  # as `sides` compares what is scored
            self.test = self._encoder(rows, self._first_test_id, member=False, name="test")
            _count_duplicates(self.test, members=self.train)

    def _insert_canaries(self, source: CanarySource, sets: Sequence[Dataset | None]) -> None:
        """Make the canaries, and train on those whose coins say so. They have ids after those of all texts."""
        texts = [
            prompt + completion
            for rows in sets
            if rows is not None
            for prompt, completion in zip(rows["prompt"][:], rows["completion"][:], strict=True)
        ]
        with preserved_random_state():
            canaries = source.make(Setting(self._encoder.tokenizer, texts, self._base_loader(), self._once))
        first_id = sum(len(rows) for rows in sets if rows is not None)
        self.canaries = encoded(canaries, self._encoder.tokenizer, self.max_length, self.add_eos, first_id)
        inserted = copies(self.canaries)
        self.train = [*self.train, *inserted]
        turns = sorted(Counter(example.repetitions for example in self.canaries if example.member).items())
        log.info(
            "Canaries: %d of %d are inserted, by fair coins (%s): %d of %d training rows. No other figure has them.",
            sum(n for _, n in turns), len(self.canaries), ", ".join(f"{n} {k}-fold" for k, n in turns) or "none",
            len(inserted), len(self.train),
        )  # fmt: skip

    def _base_loader(self) -> Callable[[], nn.Module] | None:
        module = self.trainer.lightning_module if self.trainer is not None else None
        load: Callable[[], nn.Module] | None = getattr(module, "fresh_base", None)
        return load

    def _once(self, compute: Callable[[], Any]) -> Any:
        """What one process computes, on all; a mistake of the user's is raised on all, so that none waits for it."""
        if self.trainer is None:
            return compute()
        return self.trainer.strategy.broadcast(on_rank_zero(self.trainer, compute))

    def _splits(self, corpus: Corpus) -> tuple[Dataset, Dataset, Dataset | None]:
        from lit_mem.data.split import split_by_group, take

        train, heldout = corpus.train, corpus.heldout
        if heldout is None:
            try:
                train, heldout = split_by_group(train, self.heldout_fraction, self.seed)
            except DataError as error:
                raise DataError(f"{corpus.name} has no held-out set: {error}") from error
            log.info("%s has no held-out set: %d of its texts are held out, by group.", corpus.name, len(heldout))
        train = deduplicated(train, self.deduplicate)
        for name, size, rows in (("train_size", self.train_size, train), ("heldout_size", self.heldout_size, heldout)):
            if size is not None and size > len(rows):
                raise ConfigError(
                    f"data.{name} is {size}, but {corpus.name} has only {len(rows)} such texts; "
                    f"set it to null to use all {len(rows)}"
                )
        train = take(train, self.train_size, self.seed)
        self._of_heldout = len(heldout)
        heldout = without_repeats(take(heldout, self.heldout_size, self.seed), "held-out")
        if not len(train) or not len(heldout):
            raise DataError(f"{corpus.name}: {len(train)} members and {len(heldout)} held-out texts; both are needed")
        return train, heldout, corpus.test

    def _report(self, train: Dataset, heldout: Dataset, name: str) -> None:
        from lit_mem.data.checks import check_trust

        report = self._trust = check_trust(train, heldout, seed=self.seed)
        if report.shared_normalized == report.n_heldout:
            raise DataError(
                f"{name}: each of the {report.n_heldout} held-out texts is a member's text too, such as "
                f"{', '.join(report.examples['near'])}, so there is nothing to compare members with; expected texts "
                "that are not trained on (data.check: false runs it all the same)"
            )
        for line in report.summary():
            log.info("%s", line)
        for line in report.warnings:
            log.warning("%s", line)

    def _tokenizer(self) -> Any:
        from lit_mem.adapters.loading import load_tokenizer

        if self.tokenizer_id is not None:
            try:
                return load_tokenizer(self.tokenizer_id)
            except ModelError as error:
                raise ConfigError(str(error).replace("model_id", "data.tokenizer")) from error
        module = self.trainer.lightning_module if self.trainer is not None else None
        if module is None or not hasattr(module, "tokenizer"):
            raise ConfigError("data.tokenizer is not set, and the model being trained brings no tokenizer")
        return module.tokenizer

    def _probe_of_members(self, rows: Dataset) -> list[Encoded]:
        size, n = self.members_size or default_size(len(rows), len(self.heldout)), len(rows)
        if size > n:
            raise ConfigError(
                f"data.members_size is {size}, but only {n} members are trained on; set it to null to choose by itself"
            )
        texts = [p + c for p, c in zip(rows["prompt"][:], rows["completion"][:], strict=True)]
        chosen = scored_members(texts, rows["group"][:], size, self.seed)
        if size < n:
            log.info(
                "Scored: %d of %d members, at random, but first one row of each text that stands several times and of "
                "each group; %d of %d held-out texts.",
                size, n, len(self.heldout), self._of_heldout,
            )  # fmt: skip
        return [self.train[i] for i in chosen]

    def extent(self) -> tuple[int, int]:
        """What a model must be able to read: the longest text in tokens, and the highest token id; 0 before `setup`."""
        examples = [*self.train, *self.heldout, *self.test, *self.canaries]
        longest = max((len(example.input_ids) for example in examples), default=0)
        return longest, max((int(example.input_ids.max()) for example in examples), default=0)

    def sides(self) -> Sides | None:
        """The texts by what this run does with them, for `lit_mem.data.member_check`; None before `setup`."""
        if not self.train:
            return None
        train, heldout = self._rows
        if self.trainer is not None and self.trainer.testing and self._test_rows is not None:
            return Sides(train, self._test_rows, "test", self.canaries)
        return Sides(train, heldout, canaries=self.canaries)

    def remark_on_ends(self, ends: Collection[int]) -> None:
        """Log how many texts have an end token inside, once it is known at which tokens the model's decoding stops."""
        if not self.train:
            return
        texts = [*self.train, *self.heldout, *self.test, *self.canaries]
        line = on_end_tokens(texts, ends, self._encoder.tokenizer)
        if line is not None:
            log.info("%s", line)

    def texts(self, member: bool) -> dict[int, Tensor]:
        """What attacks that put other texts in front may take: whole sets, not a rank's share of them.

        The loaders deal the sets out over ranks; this does not, so every rank has all of them and, as a dictionary
        keeps its order, has them in the same one.

        Args:
            member: the validated members (the probe), or the held-out texts; while testing, the test texts.

        Returns:
            (T,) int64 token ids by example id, the appended end-of-text token included; empty before `setup`. These
            are the examples' own tensors: do not write to them.
        """
        testing = self.trainer is not None and self.trainer.testing
        examples = self.members if member else self.test if testing else self.heldout
        return {example.example_id: example.input_ids for example in examples}

    def every_text(self) -> Iterator[str]:
        """Prompts and texts of all sets, scored or not, so that no value is shown that gives one away."""
        for example in [*self.train, *self.heldout, *self.test]:
            if example.record is not None:
                yield from (example.record.prompt, example.record.text)

    # -- loaders -------------------------------------------------------------------------------------------

    def _ranks(self) -> tuple[int, int]:
        """How many processes there are, and which this is."""
        return (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)

    def train_dataloader(self) -> DataLoader[Any]:
        """Members in an order that depends on seed and epoch alone."""
        self._tell_of_limited_training()
        world, rank = self._ranks()
        private = getattr(self.trainer.lightning_module, "private", None) if self.trainer is not None else None
        if private is not None:
            draws = PoissonBatches(
                len(self.train), private.batch_size, private.stream, world, rank, self._public_size()
            )
            return self._resumable(StepBatches(self.train, self.batch_size), batch_size=None, sampler=draws)
        examples = ExampleList(self.train)
        order: DistributedSampler[Encoded]
        if self.group_by_length:
            order = GroupedOrder(self.train, self.batch_size, world, rank, seed=self.seed)
        else:
            order = DistributedSampler(examples, world, rank, shuffle=True, seed=self.seed)
        return self._resumable(examples, batch_size=self.batch_size, sampler=order, collate_fn=collate)

    def _public_size(self) -> int:
        """Rows of the training set if all canaries' coins had come up heads: what is computed of it tells no coin."""
        left_out = sum(example.repetitions for example in self.canaries if not example.member)
        return len(self.train) + left_out

    def _resumable(self, examples: Any, **options: Any) -> DataLoader[Any]:
        loader = ResumableLoader if self.trainer is not None else DataLoader
        batches: DataLoader[Any] = loader(
            examples,
            **options,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(self.seed),  # a loader draws from the global one otherwise
            pin_memory=torch.cuda.is_available(),
        )
        if isinstance(batches, ResumableLoader):
            batches.trainer = self.trainer
        return batches

    def _scoring_loader(self, examples: list[Encoded]) -> DataLoader[Batch]:
        return DataLoader(
            BatchList(examples),
            batch_size=None,
            sampler=ScoringBatches(examples, self.scoring_tokens, *self._ranks()),
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(self.seed),
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> list[DataLoader[Batch]]:
        """Held-out texts, then the members probe, then canaries if there are any."""
        return self._scoring_loaders(self.heldout, self._of_heldout, "held-out texts", "limit_val_batches")

    def _keep_checks(self, scored: Scored) -> None:
        """Write what the checks found, and how many texts are scored, into the run's folder, if anything is logged."""
        trainer, trust = self.trainer, self._trust
        if trainer is None or trust is None or not trainer.loggers or getattr(trainer, "fast_dev_run", False):
            return
        folder = run_folder(trainer)  # on every process
        self._trust = None
        if trainer.is_global_zero:
            atomic.write_text(folder / "checks.json", trust.to_json(scored._asdict()))

    def scored_texts(self) -> Scored | None:
        """How many texts of each side are scored, limits of batches included; None before `setup`.

        `of_members` are those trained on, without canaries; `of_heldout` those that the source holds out, or, where a
        test is under way, its test texts.
        """
        if self._scored is None and self.train:
            return Scored(len(self.members), len(self.heldout), len(self._rows[0]), self._of_heldout)
        return self._scored

    def test_dataloader(self) -> list[DataLoader[Batch]]:
        """Test texts, then the members probe, then canaries if there are any."""
        rows = self._test_rows
        of = self._of_heldout if rows is None else len(rows)
        return self._scoring_loaders(self.test, of, "test texts", "limit_test_batches")

    def _scoring_loaders(self, others: list[Encoded], of: int, name: str, option: str) -> list[DataLoader[Batch]]:
        loaders = [self._scoring_loader(others), self._scoring_loader(self.members)]
        limit = 1.0 if self.trainer is None else getattr(self.trainer, option, 1.0)
        scored = [_examples_within(loader, limit) for loader in loaders]
        sizes = [len(others), len(self.members)]
        self._scored = Scored(scored[1], scored[0], len(self._rows[0]), of)
        self._keep_checks(self._scored)
        if 0 < sum(scored) < sum(sizes):
            self._tell_once(
                f"trainer.{self._limited_by(option, limit)}: only the longest texts are scored, {scored[0]} of "
                f"{sizes[0]} {name} and {scored[1]} of {sizes[1]} members, so no figure is that of the whole sets; "
                "data.heldout_size and data.members_size take random texts instead."
            )
        if self.canaries:
            loaders.append(self._scoring_loader(self.canaries))
        return loaders

    def _tell_of_limited_training(self) -> None:
        if self.trainer is None or getattr(self.trainer, "fast_dev_run", False):
            return
        limit: int | float = getattr(self.trainer, "limit_train_batches", 1.0)
        batches = -(-len(self.train) // (self.batch_size * self._ranks()[0]))
        if 0 < (n := limit if isinstance(limit, int) else int(batches * limit)) < batches:
            self._tell_once(
                f"trainer.limit_train_batches is {limit}: an epoch trains on {n} of {batches} batches, but all "
                f"{len(self.train)} texts count as members in every figure; data.train_size takes fewer instead."
            )

    def _limited_by(self, option: str, limit: float) -> str:
        dry = getattr(self.trainer, "fast_dev_run", False)
        return f"fast_dev_run is {limit}" if dry else f"{option} is {limit}"

    def _tell_once(self, line: str) -> None:
        if line not in self._told:  # loaders may be made again every epoch
            self._told.add(line)
            log.warning("%s", line)


def _examples_within(loader: DataLoader[Batch], limit: float) -> int:
    """How many examples of a scoring loader, on all ranks, a limit of batches leaves: the longest."""
    order = loader.sampler
    assert isinstance(order, ScoringBatches)
    batches = limit if isinstance(limit, int) else int(len(loader) * limit)
    return sum(len(group) for group in order.groups[: batches * order.num_replicas])


def _count_duplicates(examples: Iterable[Encoded], members: Iterable[Encoded]) -> None:
    """Note in each record how many other members have the same text once normalised."""
    copies = Counter(normalized(e.record.text) for e in members if e.record is not None)
    for example in examples:
        if example.record is not None:
            example.record.duplicates = copies[normalized(example.record.text)] - example.member
