"""Texts longer than `data.max_length`, read in windows: all of a document is trained on and measured.

A document stays one example where it is scored: its tokens are scored window by window, each once, and whatever is
computed of them (an attack, a perplexity, a span) is computed of the document. It is one piece of evidence, so it
counts as one text in every figure. In training each window is a row of its own.

A token is trained on in the one window in which it is scored, with the same context; what else stands in a window is
context in both. So an epoch trains on each token once, and a document's loss is the same in training and scoring. The
first tokens of a document stand in front of each window only where they are a BOS token; the appended end-of-text token
stands in the last window alone. A prompt, or the first turns of a conversation, stand where they stand: a later window
does not repeat them.
"""

from __future__ import annotations

import copy
import logging
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from lit_mem.data.encoding import Encoded, Encoder
from lit_mem.data.examples import Examples
from lit_mem.errors import ConfigError, check_range, options_of
from lit_mem.scoring.windows import positions_of, windows_of
from lit_mem.types import IGNORED, Span, Windows

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Chunk:
    """How texts longer than `data.max_length` are read in windows.

    Attributes:
        tokens: of a window, a BOS token in front of it included; None: `data.max_length`.
        stride: how many further tokens each window has; the others are context, so that a token has at least tokens −
            stride tokens before it. None: half of `tokens`. The same as `tokens`: windows have nothing in common, and
            the first token of each has no context but a BOS token (of a tokenizer without one, one token).
    """

    tokens: int | None = None
    stride: int | None = None

    def sizes(self, max_length: int) -> tuple[int, int]:
        """Tokens and stride.

        Args:
            max_length: above which a text is read in windows.

        Raises:
            ConfigError: one is out of range.
        """
        for name, value in (("tokens", self.tokens), ("stride", self.stride)):
            if not isinstance(value, int | None):
                raise ConfigError(f"data.chunk.{name} is {value!r}; expected a whole number")
        check_range("data.chunk.tokens", self.tokens, at_least=2, or_null=True)
        tokens = max_length if self.tokens is None else self.tokens
        check_range("data.chunk.tokens", tokens, at_most=max_length, hint=", which is data.max_length")
        check_range("data.chunk.stride", self.stride, at_least=1, or_null=True)
        stride = max(1, tokens // 2) if self.stride is None else self.stride
        check_range("data.chunk.stride", stride, at_most=tokens, hint=", which is data.chunk.tokens")
        return tokens, stride


def chunk_of(given: Chunk | Mapping[str, Any] | None) -> Chunk | None:
    """The option as given, or from some of its parts by name.

    Raises:
        ConfigError: it has no part of a name, or is of another kind.
    """
    return options_of(Chunk, given, "data.chunk")


def setting_of(chunk: Chunk | Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run's configuration records of it, in the section `data`; {} where there is none."""
    found = chunk_of(chunk)
    return {} if found is None else {"chunk": asdict(found)}


class WholeTexts:
    """Encodes texts of any length; those above `max_length` are to be read in windows.

    Args:
        encoder: of the texts, which would cut them there.
        chunk: what the windows are.
    """

    def __init__(self, encoder: Encoder, chunk: Chunk) -> None:
        self.max_length = encoder.max_length
        self.tokens, self.stride = chunk.sizes(encoder.max_length)
        self._encoder = copy.copy(encoder)
        self._encoder.max_length = sys.maxsize

    def __call__(
        self, rows: Dataset, first_id: int, member: bool, name: str, looked_at: Container[int] | None = None
    ) -> Examples:
        """As for `Encoder`; the spans of a document are those that a window holds whole, the others are counted."""
        examples = self._encoder(rows, first_id, member, name, looked_at)
        documents = int((examples.lengths > self.max_length).sum())
        if not documents:
            return examples
        counted = Counter[str]()
        read = Examples(self._read(example, counted) for example in examples)
        log.info(
            "data.chunk: %d of %d %s texts are longer than %d tokens and are read in %d windows of %d tokens, with a "
            "stride of %d.",
            documents, len(read), name, self.max_length, counted["windows"], self.tokens, self.stride,
        )  # fmt: skip
        if counted["lost"]:
            log.warning(
                "%d of %d spans of these %s texts are in no window whole and are not measured; a smaller "
                "data.chunk.stride, %d now, cuts fewer.",
                counted["lost"], counted["spans"], name, self.stride,
            )  # fmt: skip
        return read

    def _read(self, example: Encoded, counted: Counter[str]) -> Encoded:
        length = len(example.input_ids)
        if length <= self.max_length:
            return example
        head = int(self._encoder.bos is not None and int(example.input_ids[0]) == self._encoder.bos)
        windows = Windows(self.tokens, self.stride, head, length)
        counted["windows"] += len(windows_of(windows))
        if (record := example.record) is not None:
            before = len(record.spans) + len(record.prompt_spans)
            record.spans, record.prompt_spans = _whole(record.spans, windows), _whole(record.prompt_spans, windows)
            counted["spans"] += before
            counted["lost"] += before - len(record.spans) - len(record.prompt_spans)
        return replace(example, windows=windows)


def _whole(spans: Sequence[Span], text: Windows) -> tuple[Span, ...]:
    """Those that the window in which their last token is scored holds whole."""
    windows = windows_of(text)
    stops = [window.stop for window in windows]
    return tuple(span for span in spans if windows[bisect_left(stops, span.end)].start <= span.start)


def split(example: Encoded) -> list[Encoded]:
    """The rows of a text in training: its windows with something to train on; the text itself where it has none.

    Each has the text's id and record, and labels on the tokens that count in it.
    """
    text = example.windows
    if text is None:
        return [example]
    rows = []
    for window in windows_of(text):
        positions = positions_of(window, text.head)
        labels = example.labels[positions].masked_fill(positions < window.first, IGNORED)
        if bool((labels != IGNORED).any()):
            appended = example.appended if window.stop == text.length else 0
            ends = tuple(i for i, position in enumerate(positions.tolist()) if position in example.ends)
            ids = example.input_ids[positions]
            row = replace(example, input_ids=ids, labels=labels, appended=appended, ends=ends, windows=None)
            rows.append(row)
    return rows


def in_windows(examples: Sequence[Encoded]) -> Examples:
    """What is trained on: `split` of each text, in order."""
    return Examples(row for example in examples for row in split(example))


def longest_read(example: Encoded) -> int:
    """Tokens that go through the model together at most."""
    return len(example.input_ids) if example.windows is None else example.windows.tokens


def cut_at(example: Encoded, ids: torch.Tensor) -> Windows | None:
    """How a text in an example's place is read: in windows as the example is, as far as it is longer than one."""
    text = example.windows
    return None if text is None or len(ids) <= text.tokens else text._replace(length=len(ids))
