"""How perplexity and memorization go together, example by example."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import lightning.pytorch as pl

from lit_mem.callbacks.base import Relation, log_figure, measures, per_example
from lit_mem.errors import ConfigError
from lit_mem.functional.rank_correlation import spearman
from lit_mem.metrics.examples import ScoreTable
from lit_mem.report.scatter_figure import scatter_figure
from lit_mem.types import Batch, Needs, TokenScores

log = logging.getLogger(__name__)

PERPLEXITIES = ("perplexity", "perplexity_base")
PANELS = 9


class Correlation(Relation):
    """Whether perplexity tells what is memorized: Spearman's rank correlation over the validated members.

    Logged for each measure of memorization, as far as both numbers vary: `correlation/perplexity_vs_<measure>` (of the
    tuned model) and `correlation/perplexity_base_vs_<measure>` (of the frozen reference: is what the base finds hard
    memorized more?), where <measure> is the column's name without its room, as in
    `correlation/perplexity_vs_ngram_rate`; the room stays where two columns would share a name. The figure
    `correlation/scatter` shows the tuned model's perplexity against nine of them, extraction first. Needs the callback
    `Perplexity`.

    An attack that is itself a function of the loss goes along with perplexity by construction: for `loss` the
    correlation is exactly -1, for `min_k` near it, and `reference` has the loss on one side. Such a number is no
    finding. What the model generates, or how the base's perplexity foretells an attack, may be one.

    Source: the second question of Savine et al. 2025 (arXiv 2507.21009).

    Args:
        measures: per-example columns, such as `extraction/ngram_rate`; None: all of `mia/` and `extraction/` but the
            base model's (`…_base`).
        figures: draw the figure for loggers that show pictures.
    """

    needs = Needs(reference=True)
    metric_prefixes = ("correlation/",)

    def __init__(self, measures: list[str] | None = None, figures: bool = True) -> None:
        if measures is not None and (not measures or len(set(measures)) < len(measures)):
            raise ConfigError(f"Correlation.measures is {measures}; expected at least one column, each once")
        self.measures, self.draw = measures, figures
        self._told = False

    def metric_names(self) -> list[str]:
        """Names that this callback logs, where it was told the columns."""
        names = _short(self.measures or [])
        return [f"correlation/{perplexity}_vs_{name}" for name in names.values() for perplexity in PERPLEXITIES]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a second such callback that would log the same.

        Raises:
            ConfigError: there is one.
        """
        super().setup(trainer, pl_module, stage)
        others = [each for each in measures(trainer) if isinstance(each, Correlation) and each is not self]
        if any(self.measures is None or other.measures is None for other in others):
            raise ConfigError("there are two Correlation callbacks, which would log the same names; expected one")

    def begin(self) -> None:
        """Nothing is kept from pass to pass."""

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """The other measures look at the batches."""

    def results(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Correlations of both perplexities with each measure, over members.

        Raises:
            ConfigError: a column is not known, or nothing tells perplexities.
        """
        table = per_example(trainer, pl_module)
        if missing := [name for name in PERPLEXITIES if name not in table.columns]:
            raise ConfigError(
                f"Correlation reads the per-example column {missing[0]!r}, which no callback tells; add the callback "
                "Perplexity"
            )
        names = self._names(trainer, table)
        if not names and self.measures is None and not trainer.sanity_checking and not self._told:
            self._told = True
            log.warning("No correlations: no callback measured memorization of single examples (mia/, extraction/).")
        members, figures = table.members(), {}
        for column, name in names.items():
            for perplexity in PERPLEXITIES:
                rho = spearman(members[perplexity], members[column])
                if rho is not None:
                    figures[f"correlation/{perplexity}_vs_{name}"] = rho
        if self.draw and trainer.loggers and trainer.is_global_zero:
            self._draw(trainer, table, names, figures)
        return figures

    def _names(self, trainer: pl.Trainer, table: ScoreTable) -> dict[str, str]:
        """The columns of this pass that are correlated, and what each is called in logged names."""
        if self.measures is not None:
            check_columns(self.measures, table, trainer, "Correlation.measures")
            asked = self.measures
        else:
            # Announced columns too: a name must not change in a pass that did not measure the one it clashes with.
            known = [*table.columns, *sorted(announced_columns(trainer) - table.columns.keys())]
            asked = [c for c in known if c.startswith(("mia/", "extraction/")) and not c.endswith("_base")]
        return {column: name for column, name in _short(asked).items() if column in table.columns}

    @staticmethod
    def _draw(trainer: pl.Trainer, table: ScoreTable, names: dict[str, str], figures: dict[str, float]) -> None:
        # Extraction first: an attack that is a function of the loss has little to show.
        ranked = sorted(names, key=lambda c: (not c.startswith("extraction/"), c != "mia/reference"))
        values = {names[c]: table[c] for c in ranked if table[c].isfinite().any()}
        values = dict(list(values.items())[:PANELS])
        rho = {name: figures.get(f"correlation/perplexity_vs_{name}") for name in values}
        if values:
            figure = scatter_figure(table["perplexity"], table.member, values, rho)
            log_figure(trainer, "correlation/scatter", figure)


def _short(columns: Sequence[str]) -> dict[str, str]:
    """Each column's name without its room, where that tells it from the others."""
    short = {column: column.partition("/")[2] or column for column in columns}
    count = Counter(short.values())
    return {column: name if count[name] == 1 else column for column, name in short.items()}


def announced_columns(trainer: pl.Trainer) -> set[str]:
    """Per-example columns that the logged names promise, measured in this pass or not (extraction every n passes)."""
    names = {name for m in measures(trainer) if not isinstance(m, Relation) for name in m.metric_names()}
    ends = ("_auroc", "_heldout")
    return {name.removesuffix(end) for name in names for end in ends if name.endswith(end)}


def check_columns(columns: Sequence[str], table: ScoreTable, trainer: pl.Trainer, option: str) -> None:
    """Refuse a per-example column that nothing measures, in this pass or another.

    Args:
        columns: what is asked for.
        table: what this pass measured.
        trainer: its callbacks say what they may measure.
        option: where the columns were named, for the message.

    Raises:
        ConfigError: one is not known; it names those there are.
    """
    known = table.columns.keys() | announced_columns(trainer)
    for column in columns:
        if column not in known:
            raise ConfigError(
                f"{option}: no callback measures {column!r} of single examples; there are: "
                f"{', '.join(sorted(known)) or 'none'}"
            )
