"""Per-canary scores, for the measures that infer which canaries were inserted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lit_mem.attacks.base import Attack, ProbingAttack
from lit_mem.attacks.likelihood import mean_logprob
from lit_mem.audit.table import ExampleTable, ScoreTable
from lit_mem.errors import ConfigError
from lit_mem.functional.calibration import residual
from lit_mem.types import Batch, Needs, TokenScores


class CanaryScores:
    """Collects the canaries of a pass over batches and ranks, with a score for inferring which were inserted.

    Without an attack the score is the residual of log p_tuned(x) / n after a linear fit on log p_reference(x) / n over
    all canaries, inserted or not. It equals the loss attack if the reference does not predict the canaries, as with
    random tokens, and is better than the reference attack if it does. The fit does not use membership.

    Args:
        attack: attack that gives the score; None: the residual above.
        who: measure with the option `attack`, for messages.
        columns: further per-canary columns.

    Raises:
        ConfigError: the attack needs further forward passes, or learns from known members.
    """

    def __init__(self, attack: Attack | None, who: str, columns: Sequence[str] = ()) -> None:
        if isinstance(attack, ProbingAttack):
            raise ConfigError(
                f"{who}.attack is {type(attack).__name__}, which needs further forward passes; expected an attack that "
                "reads only the scoring pass, or none"
            )
        self.attack = attack
        self.needs = Needs(reference=True) if attack is None else attack.needs
        self._table = ExampleTable(["score", "predicted", "repetitions", *columns])

    def reset(self) -> None:
        """Reset for a new pass."""
        self._table.reset()

    def update(self, scores: TokenScores, batch: Batch, more: Mapping[str, Tensor] | None = None) -> None:
        """Add a batch of canaries, with (B,) values for every further column."""
        score = mean_logprob(scores) if self.attack is None else self.attack(scores)
        predicted = torch.full_like(score, torch.nan)
        if self.attack is None and scores.reference is not None:
            predicted = mean_logprob(replace(scores, logprob=scores.reference))
        values = {"score": score, "predicted": predicted, "repetitions": batch["canary"], **(more or {})}
        self._table.update(scores.example_id, scores.member, values)

    def compute(self) -> ScoreTable:
        """All canaries of all ranks; `score`: higher = more likely inserted; `repetitions`: how often, if inserted."""
        table = self._table.compute()
        columns = {name: values for name, values in table.columns.items() if name != "predicted"}
        if not table["predicted"].isnan().any():
            columns["score"] = residual(table["score"], table["predicted"])
        return ScoreTable(table.example_id, table.member, columns)
