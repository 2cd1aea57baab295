"""The LightningDataModule: loaders over the texts prepared from one corpus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lit_mem.audit.gather import on_rank_zero
from lit_mem.data.canaries.base import CanarySource
from lit_mem.data.chat.options import Chat
from lit_mem.data.checks import TrustReport
from lit_mem.data.chunk_options import Chunk, chunk_of
from lit_mem.data.deduplicate import Deduplicate
from lit_mem.data.detectors import Detector
from lit_mem.data.limits import reject_overfit_batches
from lit_mem.data.members import Sides
from lit_mem.data.options import DataOptions, positive
from lit_mem.data.prepare import Prepared, prepare
from lit_mem.data.remarks import on_end_tokens
from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.case_reports import CaseReports
from lit_mem.data.sources.given import as_source
from lit_mem.data.texts import checked_texts
from lit_mem.data.tokenizer import tokenizer_of
from lit_mem.lightning.console import show_messages
from lit_mem.lightning.lazy import lazily
from lit_mem.lightning.text_loaders import TextLoaders

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


class TextDataModule(TextLoaders):
    """Trains on the members; validates on held-out texts (non-members) and on a probe of the members.

    Args:
        source: source of the texts; in Python also a list of strings or of rows, or a `datasets.Dataset`.
        batch_size: training examples per step on each device; with model.privacy, per forward pass.
        group_by_length: train on batches of texts of similar length. The order is still random, but different, and
            texts of similar length come in runs. It saves padding if the model cannot train on concatenated texts.
        max_length: maximum number of tokens of an example; longer ones are truncated, and counted in the log.
        add_eos: end each example with the tokenizer's end-of-text token, so that the model learns to stop; that token
            is trained on but not scored.
        deduplicate: train on each text once: "exact" drops rows with the same text as an earlier one, "near" also
            near duplicates (see `lit_mem.data.deduplicate`); "none" drops none.
        train_size: train on a random subset of this many rows; None: all.
        heldout_size: hold out a random subset of this many rows; None: all.
        members_size: score a random subset of this many members, in which repeated texts and one row of each group come
            first; None: all of up to 2000, otherwise as many as there are held-out texts, at least 2000.
        heldout_fraction: share of `train` to hold out, by group, if the source has no held-out set; None: chosen by the
            number of rows, so that about 100 of 200 to 500 are held out, half of fewer, a fifth or tenth of more.
        scoring_tokens: maximum number of tokens in a scoring batch, padding included; lower it if scoring runs out of
            memory.
        seed: seed of subsets, splits and the order of training.
        check: look for duplicates and for a difference between members and held-out texts before training.
        tokenizer: hub id or folder; None: that of the model being trained.
        num_workers: number of processes that build batches; 0 is fastest for texts that fit in memory.
        spans_column: column that marks sensitive spans, in characters of the completion: lists of {type, start, end}
            or a form of `lit_mem.data.span_forms`. Without a column "spans" nothing is marked; null reads none.
        canaries: synthetic texts inserted into the training set at random, to test whether they are memorized (measured
            by the callbacks `Canaries` and `PrivacyAudit`). No other metric includes them.
        show_groups: show names of groups in the table of persons, and keep columns that name groups, as `group_column`
            does, for `Slices`. By default a keyed hash replaces each name: a group is usually a person.
        chat: options of conversations: which turns carry the loss, and the chat template.
        detector: finds unmarked sensitive spans in scored texts and in prompts: custom `Patterns`, or `Presidio`
            (extra `pii`). Detected spans are counted, never printed.
        deidentified_marks: mark what [** and **] enclose, as in MIMIC's notes, as spans of type "deidentified".
        chunk: {tokens, stride}: read longer texts in full, in windows (see `lit_mem.data.chunks`); None: truncate them.
    """

    def __init__(
        self,
        source: Source = lazily(CaseReports),  # noqa: B008  (how jsonargparse spells a default sub-object)
        batch_size: int = 8,
        group_by_length: bool = False,
        max_length: int = 512,
        add_eos: bool = True,
        deduplicate: Deduplicate = "none",
        train_size: int | None = None,
        heldout_size: int | None = None,
        members_size: int | None = None,
        heldout_fraction: float | None = 0.2,
        scoring_tokens: int = 2048,
        seed: int = 0,
        check: bool = True,
        tokenizer: str | None = None,
        num_workers: int = 0,
        spans_column: str | None = "spans",
        canaries: CanarySource | None = None,
        show_groups: bool = False,
        chat: Chat = Chat(),  # noqa: B008  (never changed)
        deidentified_marks: bool = False,
        detector: Detector | None = None,
        chunk: Chunk | None = None,
    ) -> None:
        super().__init__()
        positive(batch_size=batch_size, scoring_tokens=scoring_tokens)
        self.group_by_length, self.deidentified_marks = group_by_length, deidentified_marks
        self.chunk = chunk_of(chunk)
        self.batch_size, self.max_length, self.add_eos = batch_size, max_length, add_eos
        self.deduplicate: Deduplicate = deduplicate
        self.train_size, self.heldout_size, self.members_size = train_size, heldout_size, members_size
        self.heldout_fraction, self.scoring_tokens = heldout_fraction, scoring_tokens
        self.seed, self.check, self.tokenizer_id, self.num_workers = seed, check, tokenizer, num_workers
        self.spans_column, self.canary_source, self.show_groups = spans_column, canaries, show_groups
        self.chat, self.deidentified_marks, self.detector = chat, deidentified_marks, detector
        self._options()
        self.source = as_source(source)
        self._corpus: Corpus | None = None

    def _options(self) -> DataOptions:
        return DataOptions(**{field.name: getattr(self, field.name) for field in fields(DataOptions)})

    def prepare_data(self) -> None:
        """Read the source on one process, so that it is downloaded once; a second call does nothing."""
        if self._corpus is None:
            self._corpus = self.source.load()

    def setup(self, stage: str) -> None:
        """Split, check and tokenize; a second call does nothing.

        Raises:
            DataError: a row or split has an unexpected form.
            ConfigError: a size exceeds the data, `spans_column` names a missing column, or the trainer would not train
                on the members.
        """
        show_messages()
        reject_overfit_batches(self.trainer)
        if self._prepared is None:
            options, module = self._options(), getattr(self.trainer, "lightning_module", None)
            texts = checked_texts(self._corpus or self.source, options)
            tokenizer, base_model = tokenizer_of(self.tokenizer_id, module), getattr(module, "fresh_base", None)
            if (template := self.chat.template_text()) is not None:
                tokenizer.chat_template = template  # so that an exported tokenizer uses the same template
            found = self._prepared = prepare(texts, tokenizer, options, base_model, self._once)
            self.train, self.members, self.heldout = found.train, found.members, found.heldout
            self.canaries, self.documents, self.rows = found.canaries, found.documents, texts
        if stage == "test":
            self.test = self._prepared.test

    def train_dataloader(self) -> Any:
        """The members and the inserted canaries; checks that the model, built by now, can learn the canaries.

        Raises:
            ConfigError: it cannot.
        """
        model = getattr(getattr(self.trainer, "lightning_module", None), "language_model", None)
        if self.canary_source is not None and model is not None:
            self.canary_source.check_model(model)
        return super().train_dataloader()

    def _once(self, compute: Callable[[], Any]) -> Any:
        """Compute on rank zero and broadcast; a user's error is raised on all ranks, so that none hangs."""
        if self.trainer is None:
            return compute()
        return self.trainer.strategy.broadcast(on_rank_zero(self.trainer, compute))

    @property
    def tokenizer_of_texts(self) -> Any:
        """The tokenizer that the texts were encoded with; None before `setup`."""
        return None if self._prepared is None else self._prepared.encoder.tokenizer

    @property
    def trust(self) -> TrustReport | None:
        """Results of the data checks; None before `setup`, and if `data.check` is false."""
        return None if self._prepared is None else self._prepared.texts.trust

    @property
    def corpus_name(self) -> str:
        """Name of the corpus in logs; "" before it is read."""
        return "" if self._corpus is None else self._corpus.name

    def sides(self) -> Sides | None:
        """The texts by their role in this run, for `lit_mem.lightning.member_check`; None before `setup`."""
        if self._prepared is None:
            return None
        texts, test = self._prepared.texts, self._prepared.test_rows if self._testing() else None
        if test is not None:
            return Sides(texts.train, test, "test", self.canaries)
        return Sides(texts.train, texts.heldout, canaries=self.canaries)

    def prepared_texts(self) -> tuple[Prepared | None, Dataset | None]:
        """The prepared texts, None before `setup`; and in a test the rows that members are compared with."""
        found = self._prepared
        return found, found.test_rows if found is not None and self._testing() else None

    def _testing(self) -> bool:
        return self.trainer is not None and self.trainer.testing

    def log_inner_ends(self, ends: Collection[int]) -> None:
        """Log how many texts have an end token inside, once the model's end tokens are known."""
        if self._prepared is not None:
            line = on_end_tokens(self.every_example(), ends, self._prepared.encoder.tokenizer)
            if line is not None:
                log.info("%s", line)
