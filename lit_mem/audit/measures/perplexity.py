"""Perplexity of members and of held-out texts."""

from __future__ import annotations

import math

import torch

from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ExampleTable, ScoreTable
from lit_mem.types import Batch, TokenScores


class Perplexity(Measure):
    """Token-weighted perplexities: exp(−Σ ℓ_t / Σ n) over all tokens of a set, as in torchmetrics.

    Logged: `val/perplexity` (held-out; `test/perplexity` in a test), `memorization/perplexity_members`, and
    `memorization/perplexity_gap`, the log ratio held-out ÷ members in nats per token: 0 if members are no
    easier than unseen texts, higher as they are memorized.

    Columns: `perplexity`, `perplexity_base` (the reference model's, if another measure needs its scores)
    and `n_tokens`.
    """

    def __init__(self) -> None:
        self._table = ExampleTable(["logprob", "reference", "n_tokens"])

    def names(self) -> list[str]:
        """Perplexities and their gap."""
        return ["val/perplexity", "memorization/perplexity_members", "memorization/perplexity_gap"]

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._table.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep each example's sums."""
        reference = torch.full_like(scores.total_logprob, torch.nan)
        if scores.reference is not None:
            reference = scores.reference.cpu().double().sum(dim=1)
        values = {"logprob": scores.total_logprob, "reference": reference, "n_tokens": scores.n_tokens}
        self._table.update(scores.example_id, scores.member, values)

    def compute(self, run: Pass) -> Result:
        """Perplexities of the sets that were seen."""
        table = self._table.compute()
        per_token = {name: -table[name] / table["n_tokens"] for name in ("logprob", "reference")}
        rows = ScoreTable(
            table.example_id,
            table.member,
            {
                "perplexity": per_token["logprob"].exp(),
                "perplexity_base": per_token["reference"].exp(),
                "n_tokens": table["n_tokens"],
            },
        )
        return Result(perplexities(table, "test" if run.stage == "test" else "val"), rows)


def perplexities(table: ScoreTable, stage: str) -> dict[str, float]:
    """Perplexities of the sets in the table, and the gap between them.

    Args:
        table: with `logprob`, the sum over an example's tokens in nats, and `n_tokens`.
        stage: "val" or "test", the namespace of the held-out texts' perplexity.
    """
    heldout, members = mean_loss(table.nonmembers()), mean_loss(table.members())
    metrics = {}
    if heldout is not None:
        metrics[f"{stage}/perplexity"] = _exp(heldout)
    if members is not None:
        metrics["memorization/perplexity_members"] = _exp(members)
    if heldout is not None and members is not None:
        metrics["memorization/perplexity_gap"] = heldout - members
    return metrics


def mean_loss(table: ScoreTable) -> float | None:
    """Mean loss per token in nats, None without tokens."""
    total = table["n_tokens"].sum().item()
    return -table["logprob"].sum().item() / total if total else None


def _exp(loss: float) -> float:
    """exp, infinite instead of an overflow error; NaN stays NaN."""
    return math.inf if loss > 700 else math.exp(loss)
