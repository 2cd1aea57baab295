"""Membership inference by turn: each assistant turn of a conversation is scored separately."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_mem.audit.gather import Gathered
from lit_mem.audit.known import Known
from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable
from lit_mem.functional.auroc import auroc_interval
from lit_mem.functional.interval import Interval
from lit_mem.functional.runs import runs
from lit_mem.types import Batch, Needs, TokenScores


class _Turn(NamedTuple):
    """Membership and scores of one turn (NaN without a reference)."""

    member: bool
    loss: float
    reference: float


class Turns(Measure):
    """How well an attack separates single turns of members from those of held-out conversations.

    A turn is a run of scored tokens: one for a plain text, one per assistant turn for a conversation. Its scores are
    those of the attacks `loss`, (1/n) Σ ℓ_t, and `reference`, (1/n) Σ (ℓ_t − ℓ_t^ref), over the run's tokens, given
    the true conversation before it.

    Logged: `turn/loss_auroc` and `turn/reference_auroc` with their 95 % intervals `_low` and `_high`, clustered by
    conversation. Columns: `turn/loss` and `turn/reference`, the maximum over an example's turns.
    Nothing is logged if no example has two turns: then turns are examples, and `mia/` has their AUROC.

    Args:
        reference: compare with the reference too.
    """

    name_prefixes = ("turn/",)

    def __init__(self, reference: bool = True) -> None:
        self.needs = Needs(reference=reference)
        self.attacks = ("loss", "reference") if reference else ("loss",)
        self._turns: Gathered[tuple[int, int], _Turn] = Gathered()

    def names(self) -> list[str]:
        """None: nothing is logged for texts that are not conversations."""
        return []

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Reset for a new run."""
        self._turns.reset()

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._turns.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Score the turns of the batch."""
        logprob = scores.logprob.cpu().double()
        difference = None if scores.reference is None else logprob - scores.reference.cpu().double()
        rows = zip(scores.mask.cpu(), scores.example_id.tolist(), scores.member.tolist(), strict=True)
        for row, (mask, example_id, member) in enumerate(rows):
            for number, tokens in enumerate(runs(mask)):
                loss = logprob[row, tokens].mean().item()
                ratio = torch.nan if difference is None else difference[row, tokens].mean().item()
                self._turns[example_id, number] = _Turn(bool(member), loss, ratio)

    def compute(self, run: Pass) -> Result:
        """AUROCs over turns, and the highest score of each example."""
        turns = dict(sorted(self._turns.compute().items()))
        examples = torch.tensor([example_id for example_id, _ in turns], dtype=torch.int64)
        ids, at = examples.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        if len(ids) == len(turns):
            return Result()
        member = torch.tensor([turn.member for turn in turns.values()])
        metrics, intervals = dict[str, float](), dict[str, Interval]()
        columns: dict[str, Tensor] = {}
        of_member = torch.zeros(len(ids), dtype=torch.bool)
        of_member[at] = member
        for name in self.attacks:
            score = torch.tensor([getattr(turn, name) for turn in turns.values()], dtype=torch.float64)
            if not score.isfinite().all():
                continue
            low = torch.full((len(ids),), -torch.inf, dtype=torch.float64)
            columns[f"turn/{name}"] = low.scatter_reduce(0, at, score, "amax")
            if member.any() and not member.all():
                area = f"turn/{name}_auroc"
                metrics[area], intervals[area] = auroc_interval(score, member, at)
        return Result(metrics, ScoreTable(ids, of_member, columns), intervals=intervals)
