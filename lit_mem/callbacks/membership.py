"""Membership inference against the frozen reference, at every validation."""

from __future__ import annotations

import logging

import lightning.pytorch as pl
import torch

from lit_mem.attacks.base import Attack
from lit_mem.attacks.loss import Loss
from lit_mem.attacks.reference import ReferenceRatio
from lit_mem.callbacks.base import Measure, log_figure
from lit_mem.errors import ConfigError, MetricError
from lit_mem.functional.auroc import auroc
from lit_mem.functional.roc import roc_curve, tpr_at_fpr
from lit_mem.metrics.examples import ExampleTable, ScoreTable
from lit_mem.report.figures import histogram_figure, roc_figure
from lit_mem.types import Batch, TokenScores

log = logging.getLogger(__name__)


class MembershipInference(Measure):
    """How well an attacker tells members from held-out texts by the model's scores.

    Logged for each attack: `mia/<name>_auroc` with its 95 % DeLong interval `mia/<name>_auroc_low` and
    `_auroc_high`, and `mia/<name>_tpr_at_fpr_<rate>` where there are enough non-members to measure it. Figures:
    the ROC on log axes and a histogram of both sets' scores.

    Args:
        attacks: by the name under which they are logged. None: `loss` and `reference`.
        fprs: false-positive rates at which the true-positive rate is read.
        figures: draw ROC and histograms for loggers that show pictures.
    """

    def __init__(
        self,
        attacks: dict[str, Attack] | None = None,
        fprs: list[float] | None = None,
        figures: bool = True,
    ) -> None:
        self.attacks: dict[str, Attack] = (
            attacks if attacks is not None else {"loss": Loss(), "reference": ReferenceRatio()}
        )
        self.fprs = fprs if fprs is not None else [0.01]
        if bad := [fpr for fpr in self.fprs if not 0 < fpr < 1]:
            raise ConfigError(f"MembershipInference.fprs holds {bad[0]}; expected rates between 0 and 1")
        if not self.attacks:
            raise ConfigError("MembershipInference.attacks is empty; expected at least one attack")
        self.draw = figures
        self.needs_reference = any(attack.needs_reference for attack in self.attacks.values())
        self._table = ExampleTable(list(self.attacks))
        self._told_of_too_few = False

    def metric_names(self) -> list[str]:
        """Names that this callback logs."""
        names = []
        for attack in self.attacks:
            names += [f"mia/{attack}_auroc", f"mia/{attack}_auroc_low", f"mia/{attack}_auroc_high"]
            names += [f"mia/{attack}_tpr_at_fpr_{fpr:g}" for fpr in self.fprs]
        return names

    def begin(self) -> None:
        """Forget the last pass."""
        self._table.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Score the batch with every attack."""
        values = {name: attack(scores) for name, attack in self.attacks.items()}
        self._table.update(scores.example_id, scores.member, values)

    def results(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """AUROC, interval and TPR of every attack.

        Raises:
            MetricError: an attack gave a score that is not a number; it names the example.
        """
        table = self._table.compute()
        if not table.member.any() or table.member.all():
            if not trainer.sanity_checking:
                n = int(table.member.sum())
                log.warning("No membership inference: %d members and %d non-members were validated.", n, len(table) - n)
            return {}
        figures: dict[str, float] = {}
        for name in self.attacks:
            figures |= self._figures_of(name, table)
        if self.draw and trainer.loggers:
            self._draw(trainer, table)
        return figures

    def _figures_of(self, name: str, table: ScoreTable) -> dict[str, float]:
        score = table[name]
        finite = torch.isfinite(score)
        if not finite.all():
            first = int(table.example_id[~finite][0])
            raise MetricError(
                f"attack {name!r} gave {score[~finite][0].item()} for example {first} "
                f"({int((~finite).sum())} such); the model's loss there is not a number"
            )
        area = auroc(score, table.member)
        figures = {f"mia/{name}_auroc{part}": v for part, v in zip(("", "_low", "_high"), area, strict=True)}
        for fpr in self.fprs:
            tpr = tpr_at_fpr(score, table.member, fpr)
            if tpr is not None:
                figures[f"mia/{name}_tpr_at_fpr_{fpr:g}"] = tpr
            elif not self._told_of_too_few:
                self._told_of_too_few = True
                log.warning(
                    "TPR at FPR %g needs at least %d non-members, there are %d: not logged.",
                    fpr, round(1 / fpr), int((~table.member).sum()),
                )  # fmt: skip
        return figures

    def _draw(self, trainer: pl.Trainer, table: ScoreTable) -> None:
        if not trainer.is_global_zero:
            return
        curves = {name: roc_curve(table[name], table.member) for name in self.attacks}
        log_figure(trainer, "mia/roc", roc_figure(curves, int((~table.member).sum())))
        for name in self.attacks:
            figure = histogram_figure(name, table.members()[name], table.nonmembers()[name])
            log_figure(trainer, f"mia/{name}_scores", figure)
