"""Membership inference against the frozen reference, at every validation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor

from lit_mem.attacks.base import Attack, ProbingAttack
from lit_mem.attacks.delta_low import DeltaLow
from lit_mem.attacks.delta_t import DeltaT
from lit_mem.attacks.ez_mia import EzMia
from lit_mem.attacks.loss import Loss
from lit_mem.attacks.min_k import MinK
from lit_mem.attacks.min_k_plus_plus import MinKPlusPlus
from lit_mem.attacks.reference import ReferenceRatio
from lit_mem.attacks.wbc import WindowComparison
from lit_mem.attacks.zlib import Zlib
from lit_mem.audit.known import Known
from lit_mem.audit.measure import Measure, Pass, Result, with_ends
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ExampleTable, ScoreTable
from lit_mem.errors import ConfigError, MetricError
from lit_mem.files.once import Once
from lit_mem.functional.auroc import auroc_interval
from lit_mem.functional.combine import FEWEST, half_split_scores
from lit_mem.functional.family import strongest
from lit_mem.functional.histogram import histogram
from lit_mem.functional.interval import Interval
from lit_mem.functional.roc import best_balanced_accuracy, roc_curve, tpr_at_fpr, tpr_interval
from lit_mem.plots.histogram import histograms_plot
from lit_mem.plots.roc import roc_plot
from lit_mem.types import Batch, Needs, TokenScores

log = logging.getLogger(__name__)

COMBINED, STRONGEST = "combined", "strongest"


def default_attacks() -> dict[str, Attack]:
    """Attacks that need no further forward passes."""
    return {
        "loss": Loss(),
        "reference": ReferenceRatio(),
        "zlib": Zlib(),
        "min_k": MinK(),
        "min_k_plus_plus": MinKPlusPlus(),
        "ez_mia": EzMia(),
        "wbc": WindowComparison(),
        "delta_t": DeltaT(),
        "delta_low": DeltaLow(),
        "zlib_calibrated": Zlib(calibrated=True),
        "min_k_calibrated": MinK(calibrated=True),
    }


class MembershipInference(Measure):
    """How well attacks separate members from held-out texts by the model's scores.

    Logged for each attack: `mia/<name>_auroc` with its 95 % interval (`functional.auroc`) `mia/<name>_auroc_low` and
    `_auroc_high`; `mia/<name>_balanced_accuracy` at the threshold that is best on these texts (the attack's advantage
    is twice that minus one); and, with enough non-members, `mia/<name>_tpr_at_fpr_<rate>` with its interval `_low` and
    `_high` (`functional.roc.tpr_interval`), which accounts for the estimated threshold. `mia/strongest_auroc` is the
    AUROC of the attack with the highest lower confidence bound (`functional.family`), with an interval corrected for
    choosing among all attacks except `combined`.
    Plots: the ROC on log axes and histograms of both sets' scores. Columns: `mia/<name>`.

    Args:
        attacks: attacks by logged name. None: `default_attacks`, without those whose input the module's scores lack.
        fprs: false-positive rates at which the true-positive rate is read; None: 0.01 and 0.001.
        combined: add the attack `combined`, a logistic regression over all others, fitted on half of the examples and
            evaluated on the other half. It is optimistic: it learns from known members, which an attacker rarely has.
        plots: draw ROC and histograms for loggers that show images.
    """

    def __init__(
        self,
        attacks: dict[str, Attack] | None = None,
        fprs: list[float] | None = None,
        combined: bool = True,
        plots: bool = True,
    ) -> None:
        self.attacks = default_attacks() if attacks is None else attacks
        self.fprs = fprs if fprs is not None else [0.01, 0.001]
        if bad := [fpr for fpr in self.fprs if not 0 < fpr < 1]:
            raise ConfigError(f"MembershipInference.fprs contains {bad[0]}; expected rates between 0 and 1")
        if not self.attacks:
            raise ConfigError("MembershipInference.attacks is empty; expected at least one attack")
        if COMBINED in self.attacks and combined:
            raise ConfigError(
                f"MembershipInference.attacks names an attack {COMBINED!r}; set combined to false, or rename it"
            )
        if STRONGEST in self.attacks:
            raise ConfigError(f"MembershipInference.attacks names an attack {STRONGEST!r}; expected another name")
        self._given, self._combine = dict(self.attacks), combined
        self.combined = combined and len(self.attacks) > 1
        self.draw = plots
        self.needs = reduce(or_, (attack.needs for attack in self.attacks.values()), Needs())
        self._may_leave_out = self._are_defaults = attacks is None
        self._table = ExampleTable(list(self.attacks))
        self._once = Once()
        self._quiet = False

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Restore all attacks, including those skipped with an earlier subject."""
        if self._are_defaults:
            self._use(self._given)
            self._may_leave_out = True

    def _use(self, attacks: dict[str, Attack]) -> None:
        self.attacks = dict(attacks)
        self.combined = self._combine and len(attacks) > 1
        self._table = ExampleTable(list(attacks))

    def names(self) -> list[str]:
        """Metrics of all attacks, and of the strongest."""
        names = self._metrics_of([*self.attacks, *([COMBINED] if self.combined else [])])
        return [*names, *with_ends([f"mia/{STRONGEST}_auroc"])] if self.attacks else names

    def _metrics_of(self, attacks: Iterable[str]) -> list[str]:
        names = []
        for attack in attacks:
            names += [*with_ends([f"mia/{attack}_auroc"]), f"mia/{attack}_balanced_accuracy"]
            names += with_ends(f"mia/{attack}_tpr_at_fpr_{fpr:g}" for fpr in self.fprs)
        return names

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass; prepare the attacks that need the model."""
        self._table.reset()
        for name, attack in self.attacks.items():
            if isinstance(attack, ProbingAttack):
                attack.prepare(subject.prober(f"attack {name!r}"))

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Score the batch with every attack."""
        if self._may_leave_out:
            self._drop_unsupported(scores)
        # An example without scored tokens carries no information; its score of 0 would be extreme for some attacks.
        scored = scores.n_tokens > 0
        values = {name: attack(scores)[scored] for name, attack in self.attacks.items()}
        self._table.update(scores.example_id.cpu()[scored], scores.member.cpu()[scored], values)

    def _drop_unsupported(self, scores: TokenScores) -> None:
        """Drop default attacks whose input a custom module does not give."""
        self._may_leave_out = False
        lacking: dict[str, str] = {}
        for name, attack in self.attacks.items():
            try:
                attack(scores)
            except MetricError as error:
                lacking[name] = str(error)
        if lacking:
            before = set(self.names())
            self._use({name: attack for name, attack in self.attacks.items() if name not in lacking})
            each = "; ".join(f"{name} ({what})" for name, what in lacking.items())
            reason = f"the TokenScores of validation_step lack the input of {len(lacking)} attacks: {each}"
            self.leave_out(sorted(before - set(self.names())), reason)

    def compute(self, run: Pass) -> Result:
        """AUROC, interval, balanced accuracy and TPR of every attack.

        Raises:
            MetricError: an attack gave a non-finite score; the message names the example.
        """
        table = self._table.compute()
        self._quiet = not run.complete
        if not table.member.any() or table.member.all():
            if not run.checking:
                n = int(table.member.sum())
                log.warning("No membership inference: %d members and %d non-members were validated.", n, len(table) - n)
            return Result()
        for name, attack in self.attacks.items():
            table.columns[name] = self._checked(name, attack, table)
        names = list(self.attacks)
        if self.combined and (scores := self._combined(table)) is not None:
            table.columns[COMBINED] = scores
            names.append(COMBINED)
        judged = {name: table.where(~torch.isnan(table[name])) for name in names}
        judged = {name: rows for name, rows in judged.items() if rows.member.any() and not rows.member.all()}
        plots = _plots(judged, int((~table.member).sum())) if self.draw else {}
        found = Result(rows=table.renamed({f"mia/{name}": name for name in names}), plots=plots)
        for name, rows in judged.items():
            found = found.plus(self._of_scores(name, rows[name], rows.member))
        if self.attacks.keys() & judged.keys():
            found = found.plus(self._strongest(found.metrics, found.intervals))
        return found

    def _strongest(self, metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> Result:
        """The strongest of the attacks that do not learn from known members."""
        named = {name: f"mia/{name}_auroc" for name in self.attacks if f"mia/{name}_auroc" in metrics}
        values = {name: metrics[area] for name, area in named.items()}
        name, value, interval = strongest(values, {name: intervals[area] for name, area in named.items()})
        low, high = interval(0.95)
        chosen = "" if len(values) == 1 else f", corrected for choosing among {len(values)}"
        line = f"Strongest attack: {name}, AUROC {value:.3f} [{low:.3f}, {high:.3f}]{chosen}."
        area = f"mia/{STRONGEST}_auroc"
        return Result({area: value}, verdict=((logging.INFO, line),), intervals={area: interval})

    @staticmethod
    def _checked(name: str, attack: Attack, table: ScoreTable) -> Tensor:
        """(N,) the attack's scores of the whole set; NaN only where a probing attack gave no score."""
        score = table[name]
        judged = ~torch.isnan(score) if isinstance(attack, ProbingAttack) else torch.ones_like(table.member)
        wrong = judged & ~torch.isfinite(score)
        if wrong.any():
            raise MetricError(
                f"attack {name!r} gave {score[wrong][0].item()} for example {int(table.example_id[wrong][0])} "
                f"({int(wrong.sum())} such); the model's loss there is not finite"
            )
        whole = torch.full_like(score, torch.nan)
        whole[judged] = attack.over_set(score[judged], table.member[judged])
        return whole

    def _combined(self, table: ScoreTable) -> Tensor | None:
        """(N,) combined scores of half of the examples, NaN for the others; None with too few examples."""
        columns = {name: table[name] for name in self.attacks}
        judged = torch.stack(list(columns.values())).isfinite().all(dim=0)
        member = table.member[judged]
        if min(int(member.sum()), int((~member).sum())) < FEWEST:
            self._log_once(COMBINED, f"No attack {COMBINED!r}: it needs at least {FEWEST} members and non-members.")
            return None
        scores = torch.full(table.member.shape, torch.nan, dtype=torch.float64)
        columns = {name: c[judged] for name, c in columns.items()}
        scores[judged] = half_split_scores(columns, member, table.example_id[judged])
        return scores

    def _of_scores(self, name: str, score: Tensor, member: Tensor) -> Result:
        metrics, intervals = dict[str, float](), dict[str, Interval]()
        area = f"mia/{name}_auroc"
        metrics[area], intervals[area] = auroc_interval(score, member)
        metrics[f"mia/{name}_balanced_accuracy"] = best_balanced_accuracy(score, member)
        for fpr in self.fprs:
            tpr = tpr_at_fpr(score, member, fpr)
            if tpr is not None:
                rate = f"mia/{name}_tpr_at_fpr_{fpr:g}"
                metrics[rate], intervals[rate] = tpr, tpr_interval(score, member, fpr)
            elif f"{fpr:g}" not in self._once:
                needed, there = round(1 / fpr), int((~member).sum())
                whose = f"{name}: " if name == COMBINED else ""
                self._log_once(
                    f"{whose}{fpr:g}",
                    f"{whose}TPR at FPR {fpr:g} needs at least {needed} non-members, there are {there}: not logged.",
                )
        return Result(metrics, intervals=intervals)

    def _log_once(self, key: str, message: str) -> None:
        if not self._quiet and self._once.first(key):
            log.info("%s", message)


def _plots(judged: Mapping[str, ScoreTable], n_nonmembers: int) -> dict[str, Callable[[], Any]]:
    """Plots over the examples that each attack scored."""

    def roc() -> Any:
        curves = {name: roc_curve(rows[name], rows.member) for name, rows in judged.items()}
        return roc_plot(curves, n_nonmembers, title="Membership inference")

    def histograms() -> Any:
        bins = {name: histogram(rows.members()[name], rows.nonmembers()[name]) for name, rows in judged.items()}
        return histograms_plot(bins)

    return {"mia/roc": roc, "mia/scores": histograms}
