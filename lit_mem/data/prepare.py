"""Turn a source of texts into examples for training and scoring, without a trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from lit_mem.data.canaries.base import here
from lit_mem.data.canaries.inserting import inserted
from lit_mem.data.chat.encoding import ConversationEncoder
from lit_mem.data.chat.options import Chat
from lit_mem.data.chunks import WholeTexts, in_windows
from lit_mem.data.deduplicate import count_duplicates, without_repeats
from lit_mem.data.digests import digests, numbered
from lit_mem.data.encoding import Encoded, Encoder
from lit_mem.data.options import DataOptions
from lit_mem.data.probe import members_probe
from lit_mem.data.row_texts import RowTexts
from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.chat_fields import HELD
from lit_mem.data.texts import Texts, checked_texts

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The examples of a run. Ids are unique over all sets.

    Attributes:
        texts: the rows that they come from, with the findings of the checks.
        encoder: the encoder that encoded them.
        train: (M,) members in the order of their rows, then inserted canaries, each as often as it is trained on. With
            `data.chunk` a long text is replaced by its windows in order.
        members: the members that are scored, which are examples of `train`, except that long texts are whole here.
        heldout: (N,) all held-out texts.
        canaries: all canaries, inserted and held out, for scoring; they belong to no other set.
        encode: encodes the rows of a set: `encoder`, or with `data.chunk` a wrapper that keeps long texts whole.
        documents: number of training texts that are split into windows.
    """

    texts: Texts
    encoder: Encoder
    train: Sequence[Encoded]
    members: Sequence[Encoded]
    heldout: Sequence[Encoded]
    canaries: Sequence[Encoded]
    encode: Encoder | WholeTexts
    documents: int = 0

    @cached_property
    def test_rows(self) -> Dataset | None:
        """The rows scored while testing, each text once; None if the source has none."""
        rows = self.texts.test
        return None if rows is None else without_repeats(rows, "test")

    @cached_property
    def test(self) -> Sequence[Encoded]:
        """The test texts, encoded on first access; the held-out texts if the source has none."""
        if self.test_rows is None:
            return self.heldout
        first_id = len(self.texts.train) + len(self.texts.heldout)
        test = self.encode(self.test_rows, first_id, member=False, name="test")
        count_duplicates(test, members=self.train)
        return test

    @property
    def of_heldout(self) -> int:
        """Number of held-out texts, of which `heldout` are scored."""
        return self.texts.of_heldout

    @property
    def of_test(self) -> int:
        """Number of test texts."""
        return self.of_heldout if self.test_rows is None else len(self.test_rows)

    @property
    def public_size(self) -> int:
        """Size of `train` if all canaries were inserted, which is independent of the coins."""
        left_out = sum(example.repetitions for example in self.canaries if not example.member)
        return len(self.train) + left_out


def prepare(
    source: Source | Corpus | Texts | Any,
    tokenizer: Any,
    options: DataOptions | None = None,
    base_model: Callable[[], nn.Module] | None = None,
    once: Callable[[Callable[[], Any]], Any] = here,
) -> Prepared:
    """Read, split, check and encode the texts of a run, insert its canaries, and log the findings.

    The same for the same options on every machine; the global random state is not changed.

    Args:
        source: a source; a list of texts or of rows; a `datasets.Dataset`; or a corpus that was already read.
        tokenizer: the model's Hugging Face tokenizer.
        options: None: the defaults.
        base_model: loads the un-tuned base model in eval mode, for canaries that are sampled from it.
        once: computes a value on one process and returns it on all; for multi-process runs.

    Raises:
        DataError: a row or split is invalid, or the tokenizer lacks what `options` need.
        ConfigError: a size exceeds the number of rows, or `spans_column` does not exist.
    """
    options = options or DataOptions()
    texts = source if isinstance(source, Texts) else checked_texts(source, options)
    encoder = encoder_of(texts.train, tokenizer, options)
    encode = encode_of(encoder, options)
    probe = members_probe(
        numbered(digests(RowTexts(texts.train)))[0].tolist(),
        texts.train["group"][:],
        options.members_size,
        len(texts.heldout),
        texts.of_heldout,
        options.seed,
    )
    train = encode(texts.train, 0, member=True, name="training", looked_at=set(probe))
    heldout = encode(texts.heldout, len(train), member=False, name="held-out")
    count_duplicates(train + heldout, members=train)
    members = train.select(probe)
    longer = np.flatnonzero(train.lengths > options.max_length) if options.chunk is not None else ()
    train = in_windows(train) if len(longer) else train
    canaries: Sequence[Encoded] = ()
    if options.canary_source is not None:
        train, canaries = inserted(options.canary_source, train, texts, encoder, base_model, once)
    return Prepared(texts, encoder, train, members, heldout, canaries, encode, len(longer))


def encode_of(encoder: Encoder, options: DataOptions) -> Encoder | WholeTexts:
    """The encoder of a set's rows; with `data.chunk`, one that keeps long texts whole."""
    return encoder if options.chunk is None else WholeTexts(encoder, options.chunk)


def encoder_of(rows: Dataset, tokenizer: Any, options: DataOptions) -> Encoder:
    """The encoder for a kind of rows: texts, or conversations with the tokenizer's chat template."""
    marks = options.spans_column, options.deidentified_marks, options.detector
    if HELD in rows.column_names:
        return ConversationEncoder(tokenizer, options.max_length, *marks, chat=options.chat)
    if options.chat != Chat():
        log.warning(
            "data.chat (loss, template) has no effect, since the rows are texts: to read conversations, use "
            "data.source "
            "ChatFiles, or `form` in the fields of an audit (--chat_form)."
        )
    return Encoder(tokenizer, options.max_length, options.add_eos, *marks)
