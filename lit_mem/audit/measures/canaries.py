"""Exposure, membership and extraction of canaries, also by the number of repetitions."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from lit_mem.attacks.base import Attack
from lit_mem.audit.gather import Gathered
from lit_mem.audit.measure import Measure, Pass, Result, with_ends
from lit_mem.audit.measures.canary_scores import CanaryScores
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable
from lit_mem.data.canaries.encoding import SECRET
from lit_mem.errors import ConfigError
from lit_mem.files.once import Once
from lit_mem.functional.auroc import auroc_interval
from lit_mem.functional.ends import before_end, is_end
from lit_mem.functional.exposure import chance_exposure, exposure
from lit_mem.functional.interval import Interval
from lit_mem.functional.rate import rate_interval
from lit_mem.types import Batch, TokenScores

log = logging.getLogger(__name__)


class Canaries(Measure):
    """Whether the canaries of `data.canaries` are memorized: inserted ones against held-out ones, chosen at random.

    Logged: `canary/exposure_mean` and `canary/exposure_max` of the inserted canaries, in bits; `canary/auroc` with its
    95 % interval `canary/auroc_low` and `_high`; `canary/extraction_rate`, the share of inserted canaries whose secret
    greedy decoding reproduces from the text before it (without a prefix: the second half from the first), and
    `canary/extraction_rate_heldout`, both with Clopper-Pearson intervals `_low` and `_high`. All except the last are
    also logged by repetitions, as in `canary/exposure_mean_x16`, against all held-out canaries; and by group if
    canaries were made in groups, as in `canary/auroc_perplexity_1-10`, against the held-out canaries of the group.

    Exposure ranks by log-probability, following its definition, among the held-out canaries of the group: the order in
    which secrets would be guessed. The AUROC may compare with the reference: whether a canary's insertion can be
    inferred.

    Args:
        attack: attack that scores canaries for the AUROC. None: the residual of the log-probability given the
            reference's.
    """

    of_canaries = True
    name_prefixes = tuple(
        f"canary/{name}_{part}"
        for name in ("exposure_mean", "exposure_max", "auroc", "extraction_rate")
        for part in ("x", "perplexity_")
    )

    def __init__(self, attack: Attack | None = None) -> None:
        self._scores = CanaryScores(attack, "Canaries", ["logprob", "extracted"])
        self.needs = self._scores.needs
        self._groups: Gathered[int, str] = Gathered()
        self._once = Once()

    def names(self) -> list[str]:
        """Metrics of all canaries."""
        names = with_ends(["auroc", "extraction_rate", "extraction_rate_heldout"])
        return [f"canary/{name}" for name in ("exposure_mean", "exposure_max", *names)]

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._scores.reset()
        self._groups.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Score the batch's canaries."""
        more = {"logprob": scores.total_logprob, "extracted": _extracted(scores, batch, self.ends)}
        self._scores.update(scores, batch, more)
        for example_id, record in zip(scores.example_id.tolist(), batch.get("records", ()), strict=False):
            self._groups[example_id] = str(record.attributes.get("group", ""))

    def compute(self, run: Pass) -> Result:
        """Metrics of all canaries, by number of repetitions, and by group.

        Raises:
            ConfigError: there are no canaries.
        """
        table, known = self._scores.compute(), self._groups.compute()
        if not len(table) and run.complete:
            raise ConfigError("Canaries: no canary was validated; set data.canaries, or remove the measure")
        groups = [known.get(example_id, "") for example_id in table.example_id.tolist()]
        table.columns["exposure"] = _exposures(table, groups)
        found = Result()
        for part, rows in _parts(table, groups):
            found = found.plus(_metrics(rows, part))
        if n := len(heldout := table.nonmembers()):
            rate, interval = rate_interval(heldout["extracted"])
            name = "canary/extraction_rate_heldout"
            found = found.plus(Result({name: rate}, intervals={name: interval}))
            if run.complete and self._once.first():
                log.info(
                    "Canaries: exposure is at most %.2f bits with %d held-out canaries, and %.2f on average if nothing "
                    "is memorized.", math.log2(n + 1), n, chance_exposure(n),
                )  # fmt: skip
        return found


def _extracted(scores: TokenScores, batch: Batch, ends: frozenset[int]) -> Tensor:
    """(B,) bool on the CPU: whether every token of the secret, up to an end token, is the greedy choice."""
    hit, mask = scores.hit.cpu(), scores.mask.cpu()
    wanted = mask & (mask.cumsum(dim=1) > mask.sum(dim=1, keepdim=True) // 2)
    for row, record in enumerate(batch.get("records", ())):
        for span in record.spans:
            if span.kind == SECRET:
                wanted[row] = False
                wanted[row, span.start : span.end] = True
    wanted = before_end(wanted, is_end(batch["input_ids"], ends))
    return (hit | ~wanted).all(dim=1) & wanted.any(dim=1)


def _exposures(table: ScoreTable, groups: list[str]) -> Tensor:
    """(N,) exposure of each inserted canary among the held-out ones of its group; NaN if there are none."""
    found = torch.full((len(table),), torch.nan, dtype=torch.float64)
    for name in set(groups):
        alike = torch.tensor([each == name for each in groups])
        inserted, heldout = alike & table.member, alike & ~table.member
        if heldout.any():
            found[inserted] = exposure(table["logprob"][inserted], table["logprob"][heldout])
    return found


def _parts(table: ScoreTable, groups: list[str]) -> Iterator[tuple[str, ScoreTable]]:
    """All canaries; those of each repetition count with all held-out ones; those of each group. With name suffixes."""
    yield "", table
    for n in sorted(set(table["repetitions"].tolist())):
        yield f"_x{n:g}", table.where((table["repetitions"] == n) | ~table.member)
    for name in sorted(set(groups) - {""}):
        yield f"_{name}", table.where(torch.tensor([each == name for each in groups]))


def _metrics(rows: ScoreTable, part: str) -> Result:
    inserted, metrics, intervals = rows.members(), dict[str, float](), dict[str, Interval]()
    exposed = inserted["exposure"][~inserted["exposure"].isnan()]
    if len(exposed):
        metrics[f"canary/exposure_mean{part}"] = exposed.mean().item()
        metrics[f"canary/exposure_max{part}"] = exposed.max().item()
    if 0 < len(inserted) < len(rows):
        area = f"canary/auroc{part}"
        metrics[area], intervals[area] = auroc_interval(rows["score"], rows.member)
    if len(inserted):
        rate = f"canary/extraction_rate{part}"
        metrics[rate], intervals[rate] = rate_interval(inserted["extracted"])
    return Result(metrics, intervals=intervals)
