"""Split texts longer than `data.max_length` into windows: a whole document is trained on and measured.

For scoring a document stays one example: its tokens are scored window by window, each once, and everything computed
from them (an attack, a perplexity, a span) refers to the document. It is one piece of evidence, so it counts as one
text in every metric. In training each window is a row.

A token is trained on only in the window in which it is scored, with the same context; other tokens of a window are
context in both. So an epoch trains on each token once, and a document's loss is the same in training and scoring. The
first token of a document is prepended to each window only if it is a BOS token; the appended end-of-text token is in
the last window only. A prompt, or the first turns of a conversation, are not repeated in later windows.
"""

from __future__ import annotations

import copy
import logging
import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from lit_mem.data.chunk_options import Chunk, chunk_of
from lit_mem.data.encoding import Encoded, Encoder
from lit_mem.data.examples import Examples
from lit_mem.scoring.windows import positions_of, windows_of
from lit_mem.types import IGNORED, Span, Windows

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


def setting_of(chunk: Chunk | Mapping[str, Any] | None) -> dict[str, Any]:
    """Its entry in a run's configuration, in the section `data`; {} if there is none."""
    found = chunk_of(chunk)
    return {} if found is None else {"chunk": asdict(found)}


class WholeTexts:
    """Encodes texts of any length; those above `max_length` get windows.

    Args:
        encoder: encoder of the texts, which would truncate them.
        chunk: options of the windows.
    """

    def __init__(self, encoder: Encoder, chunk: Chunk) -> None:
        self.max_length = encoder.max_length
        self.tokens, self.stride = chunk.sizes(encoder.max_length)
        self._encoder = copy.copy(encoder)
        self._encoder.max_length = sys.maxsize

    def __call__(
        self, rows: Dataset, first_id: int, member: bool, name: str, looked_at: Container[int] | None = None
    ) -> Examples:
        """As for `Encoder`; spans of a document that no window contains fully are dropped and counted."""
        examples = self._encoder(rows, first_id, member, name, looked_at)
        documents = int((examples.lengths > self.max_length).sum())
        if not documents:
            return examples
        counted = Counter[str]()
        read = Examples(self._read(example, counted) for example in examples)
        log.info(
            "data.chunk: %d of %d %s texts are longer than %d tokens and are split into %d windows of %d tokens, with "
            "a "
            "stride of %d.",
            documents, len(read), name, self.max_length, counted["windows"], self.tokens, self.stride,
        )  # fmt: skip
        if counted["lost"]:
            log.warning(
                "%d of %d spans of these %s texts are not fully inside any window and are not measured; a smaller "
                "data.chunk.stride (now %d) loses fewer.",
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
    """Spans fully inside the window in which their last token is scored."""
    windows = windows_of(text)
    stops = [window.stop for window in windows]
    return tuple(span for span in spans if windows[bisect_left(stops, span.end)].start <= span.start)


def split(example: Encoded) -> list[Encoded]:
    """The training rows of a text: its windows that have trained tokens; the text itself if it has no windows.

    Each has the text's id and record, and labels on the tokens that it scores.
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
    """The training rows: `split` of each text, in order."""
    return Examples(row for example in examples for row in split(example))


def longest_read(example: Encoded) -> int:
    """Maximum tokens per forward pass."""
    return len(example.input_ids) if example.windows is None else example.windows.tokens


def cut_at(example: Encoded, ids: torch.Tensor) -> Windows | None:
    """The windows of a text that replaces an example: as for the example, if the text is longer than a window."""
    text = example.windows
    return None if text is None or len(ids) <= text.tokens else text._replace(length=len(ids))
