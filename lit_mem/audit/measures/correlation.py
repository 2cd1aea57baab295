"""Rank correlation of perplexity and memorization over examples."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.errors import ConfigError
from lit_mem.files.once import Once
from lit_mem.functional.rank_correlation import spearman
from lit_mem.plots.scatter import scatter_plot
from lit_mem.types import Needs

log = logging.getLogger(__name__)

PERPLEXITIES = ("perplexity", "perplexity_base")
PANELS = 9


class Correlation(Measure):
    """Whether perplexity predicts memorization: Spearman's rank correlation over the validated members.

    Logged for each measure of memorization, if both values vary: `correlation/perplexity_vs_<measure>` (perplexity of
    the tuned model) and `correlation/perplexity_base_vs_<measure>` (of the frozen reference: are texts that are hard
    for the base memorized more?), where <measure> is the column's name without its namespace, as in
    `correlation/perplexity_vs_ngram_rate`; the namespace is kept where two columns would share a name. The plot
    `correlation/scatter` shows the tuned model's perplexity against nine of them, extraction first. Needs the measure
    `Perplexity`.

    An attack that is itself a function of the loss correlates with perplexity by construction: exactly -1 for `loss`,
    close to -1 for `min_k`, and `reference` contains the loss. Such values are not findings. Correlations with
    generated text, or of the base's perplexity with an attack, can be.

    Source: the second question of Savine et al. 2025 (arXiv 2507.21009).

    Args:
        measures: per-example columns, such as `extraction/ngram_rate`; None: all of `mia/` and `extraction/` except
            the base model's (`…_base`).
        plots: draw the plot for loggers that show images.
    """

    needs = Needs(reference=True)
    reads = ("perplexity", "mia/", "extraction/")

    def __init__(self, measures: list[str] | None = None, plots: bool = True) -> None:
        if measures is not None and (not measures or len(set(measures)) < len(measures)):
            raise ConfigError(f"Correlation.measures is {measures}; expected at least one column, each once")
        self.measures, self.draw = measures, plots
        self.name_prefixes: tuple[str, ...] = ("correlation/",) if measures is None else ()
        self._once = Once()

    def names(self) -> list[str]:
        """Metrics of the columns in `measures`."""
        names = _short(self.measures or [])
        return [f"correlation/{perplexity}_vs_{name}" for name in names.values() for perplexity in PERPLEXITIES]

    def compute(self, run: Pass) -> Result:
        """Correlations of both perplexities with each measure, over members.

        Raises:
            ConfigError: a column is unknown, or no measure gives perplexities.
        """
        table = run.rows
        if missing := [name for name in PERPLEXITIES if name not in table.columns]:
            raise ConfigError(
                f"Correlation reads the per-example column {missing[0]!r}, which no measure gives; add the measure "
                "Perplexity"
            )
        names = self._names(run)
        if not names and self.measures is None and not run.checking and self._once.first():
            log.warning("No correlations: no measure gives per-example memorization (mia/, extraction/).")
        members, metrics = table.members(), dict[str, float]()
        for column, name in names.items():
            for perplexity in PERPLEXITIES:
                rho = spearman(members[perplexity], members[column])
                if rho is not None:
                    metrics[f"correlation/{perplexity}_vs_{name}"] = rho
        # Extraction first: plots of attacks that are functions of the loss are less informative.
        ranked = sorted(names, key=lambda c: (not c.startswith("extraction/"), c != "mia/reference"))
        shown = {names[c]: table[c] for c in ranked if table[c].isfinite().any()}
        shown = dict(list(shown.items())[:PANELS])
        drawn = {name: metrics.get(f"correlation/perplexity_vs_{name}") for name in shown}

        def scatter() -> Any:
            return scatter_plot(table["perplexity"], table.member, shown, drawn)

        return Result(metrics, plots={"correlation/scatter": scatter} if self.draw and shown else {})

    def _names(self, run: Pass) -> dict[str, str]:
        """The columns correlated in this pass, each with its short name."""
        if self.measures is not None:
            check_columns(self.measures, run, "Correlation.measures")
            wanted = self.measures
        else:
            # Include columns of other passes: a short name must not depend on whether its clash was measured.
            known = [*run.rows.columns, *sorted(run.known.columns - run.rows.columns.keys())]
            wanted = [c for c in known if c.startswith(("mia/", "extraction/")) and not c.endswith("_base")]
        return {column: name for column, name in _short(wanted).items() if column in run.rows.columns}


def _short(columns: Sequence[str]) -> dict[str, str]:
    """Each column's name without its namespace, where that is unique."""
    short = {column: column.partition("/")[2] or column for column in columns}
    count = Counter(short.values())
    return {column: name if count[name] == 1 else column for column, name in short.items()}


def check_columns(columns: Sequence[str], run: Pass, option: str) -> None:
    """Reject a per-example column that nothing measures, in this pass or another.

    Args:
        columns: the columns to check.
        run: the pass.
        option: option that names the columns, for the message.

    Raises:
        ConfigError: a column is unknown; the message lists those available.
    """
    known = run.rows.columns.keys() | run.known.columns
    for column in columns:
        if column not in known:
            raise ConfigError(
                f"{option}: {column!r} is not a per-example column of any measure; expected one of "
                f"{', '.join(sorted(known)) or 'none'}"
            )
