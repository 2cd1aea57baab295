"""Score texts that are too long for one pass: window by window, each token once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lit_mem.functional.length_groups import length_groups
from lit_mem.scoring.windows import positions_of, windows_of
from lit_mem.types import IGNORED, Batch, Needs, TokenScores


class _Piece(NamedTuple):
    """A row for the model.

    Attributes:
        row: row of the batch.
        positions: (n,) int64, positions of its tokens in that row.
        first: the first scored position.
    """

    row: int
    positions: Tensor
    first: int


def scored_in_windows(score: Callable[[Batch], TokenScores], batch: Batch, mask: Tensor, needs: Needs) -> TokenScores:
    """Score a batch as if each text were read in one pass, with the context that its windows give.

    Windows without scored tokens are skipped. Batches for the model depend only on the given batch, so scores are the
    same on any number of processes.

    Args:
        score: scores a batch of rows without windows.
        batch: with `windows`.
        mask: (B, T) bool, the scored positions.
        needs: optional scores that `score` computes.
    """
    on_cpu = mask.cpu()
    pieces = _pieces(batch, on_cpu)
    lengths = [len(piece.positions) for piece in pieces]
    device = mask.device

    def empty(dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(mask.shape, dtype=dtype, device=device)

    whole = TokenScores(
        empty(),
        empty(torch.bool),
        mask,
        batch["example_id"],
        batch["member"],
        mean=empty() if needs.moments else None,
        std=empty() if needs.moments else None,
        sampled={scheme: empty() for scheme in needs.sampling},
        batch=batch,
    )
    for group in length_groups(lengths, batch.get("at_once", max(lengths, default=1))):
        part, rows, positions, counts = _part(batch, on_cpu, [pieces[i] for i in group])
        found = score(part)
        at = rows[:, None].expand_as(positions)[counts], positions[counts]
        for into, values in _paired(whole, found):
            into[at] = values[counts]
    return whole


def _pieces(batch: Batch, mask: Tensor) -> list[_Piece]:
    found = []
    for row, text in enumerate(batch["windows"]):
        scored = mask[row]
        if text is not None:
            for window in windows_of(text):
                if bool(scored[window.first : window.stop].any()):
                    found.append(_Piece(row, positions_of(window, text.head), window.first))
        elif bool(scored.any()):
            found.append(_Piece(row, torch.arange(int(scored.nonzero().max()) + 1), 0))
    return found


def _part(batch: Batch, mask: Tensor, pieces: list[_Piece]) -> tuple[Batch, Tensor, Tensor, Tensor]:
    """Some pieces as a batch; (n,) rows, (n, W) positions of their tokens, and (n, W) bool scored positions."""
    rows = torch.tensor([piece.row for piece in pieces])
    positions = torch.nn.utils.rnn.pad_sequence([p.positions for p in pieces], batch_first=True, padding_value=-1)
    first = torch.tensor([piece.first for piece in pieces])
    real = positions >= 0
    positions = positions.clamp(min=0)
    counts = real & (positions >= first[:, None]) & mask[rows[:, None], positions]
    device = batch["input_ids"].device
    rows, positions, counts, real = (t.to(device) for t in (rows, positions, counts, real))
    ids = batch["input_ids"][rows[:, None], positions].masked_fill(~real, 0)
    part = Batch(
        input_ids=ids,
        labels=ids.masked_fill(~counts, IGNORED),
        scored=counts,
        example_id=batch["example_id"][rows],
        member=batch["member"][rows],
    )
    return part, rows, positions, counts


def _paired(whole: TokenScores, part: TokenScores) -> list[tuple[Tensor, Tensor]]:
    """Pairs of corresponding tensors of both."""
    pairs = [(whole.logprob, part.logprob), (whole.hit, part.hit)]
    for into, values in ((whole.mean, part.mean), (whole.std, part.std)):
        if into is not None and values is not None:
            pairs.append((into, values))
    return [*pairs, *((into, part.sampled[scheme]) for scheme, into in whole.sampled.items())]
