"""Scores of canaries, a row each, for the measures that guess which of them were inserted."""

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
    """Gathers the canaries of a pass over batches and ranks, with a score by which to guess their coins.

    Without an attack the score is log p_tuned(x) / n less what log p_reference(x) / n foretells of it, a straight line
    fitted to all canaries, in and out: the loss attack where the reference knows nothing of the canaries, as of random
    tokens, and better than the reference attack where it does. No coin is looked at.

    Args:
        attack: gives the score instead; None: as above.
        who: has the option `attack`, for messages.
        columns: further numbers that are kept.

    Raises:
        ConfigError: the attack runs the model further, or learns from known members.
    """

    def __init__(self, attack: Attack | None, who: str, columns: Sequence[str] = ()) -> None:
        if isinstance(attack, ProbingAttack):
            raise ConfigError(
                f"{who}.attack is {type(attack).__name__}, which runs the model further; expected one that reads the "
                "scoring pass, or none"
            )
        self.attack = attack
        self.needs = Needs(reference=True) if attack is None else attack.needs
        self._table = ExampleTable(["score", "foretold", "repetitions", *columns])

    def reset(self) -> None:
        """Drop the last pass."""
        self._table.reset()

    def update(self, scores: TokenScores, batch: Batch, more: Mapping[str, Tensor] | None = None) -> None:
        """Take in a batch of canaries, with a (B,) number of each for every further column."""
        score = mean_logprob(scores) if self.attack is None else self.attack(scores)
        foretold = torch.full_like(score, torch.nan)
        if self.attack is None and scores.reference is not None:
            foretold = mean_logprob(replace(scores, logprob=scores.reference))
        values = {"score": score, "foretold": foretold, "repetitions": batch["canary"], **(more or {})}
        self._table.update(scores.example_id, scores.member, values)

    def compute(self) -> ScoreTable:
        """All canaries of all ranks; `score`: higher = more likely in; `repetitions`: how often, if in."""
        table = self._table.compute()
        columns = {name: values for name, values in table.columns.items() if name != "foretold"}
        if not table["foretold"].isnan().any():
            columns["score"] = residual(table["score"], table["foretold"])
        return ScoreTable(table.example_id, table.member, columns)
