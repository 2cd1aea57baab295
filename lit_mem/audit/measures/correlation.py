"""How perplexity and memorization go together, example by example."""

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
    """Whether perplexity tells what is memorized: Spearman's rank correlation over the validated members.

    Logged for each measure of memorization, as far as both numbers vary: `correlation/perplexity_vs_<measure>` (of the
    tuned model) and `correlation/perplexity_base_vs_<measure>` (of the frozen reference: is what the base finds hard
    memorized more?), where <measure> is the column's name without its room, as in
    `correlation/perplexity_vs_ngram_rate`; the room stays where two columns would share a name. The plot
    `correlation/scatter` shows the tuned model's perplexity against nine of them, extraction first. Needs the callback
    `Perplexity`.

    An attack that is itself a function of the loss goes along with perplexity by construction: for `loss` the
    correlation is exactly -1, for `min_k` near it, and `reference` has the loss on one side. Such a number is no
    finding. What the model generates, or how the base's perplexity foretells an attack, may be one.

    Source: the second question of Savine et al. 2025 (arXiv 2507.21009).

    Args:
        measures: per-example columns, such as `extraction/ngram_rate`; None: all of `mia/` and `extraction/` but the
            base model's (`…_base`).
        figures: draw the plot for loggers that show images.
    """

    needs = Needs(reference=True)
    reads = ("perplexity", "mia/", "extraction/")

    def __init__(self, measures: list[str] | None = None, figures: bool = True) -> None:
        if measures is not None and (not measures or len(set(measures)) < len(measures)):
            raise ConfigError(f"Correlation.measures is {measures}; expected at least one column, each once")
        self.measures, self.draw = measures, figures
        self.name_prefixes: tuple[str, ...] = ("correlation/",) if measures is None else ()
        self._once = Once()

    def names(self) -> list[str]:
        """Of the columns that `measures` names."""
        names = _short(self.measures or [])
        return [f"correlation/{perplexity}_vs_{name}" for name in names.values() for perplexity in PERPLEXITIES]

    def compute(self, run: Pass) -> Result:
        """Correlations of both perplexities with each measure, over members.

        Raises:
            ConfigError: a column is not known, or no measure gives perplexities.
        """
        table = run.rows
        if missing := [name for name in PERPLEXITIES if name not in table.columns]:
            raise ConfigError(
                f"Correlation reads the per-example column {missing[0]!r}, which no measure gives; add the measure "
                "Perplexity"
            )
        names = self._names(run)
        if not names and self.measures is None and not run.checking and self._once.first():
            log.warning("No correlations: no measure gives memorization of single examples (mia/, extraction/).")
        members, metrics = table.members(), dict[str, float]()
        for column, name in names.items():
            for perplexity in PERPLEXITIES:
                rho = spearman(members[perplexity], members[column])
                if rho is not None:
                    metrics[f"correlation/{perplexity}_vs_{name}"] = rho
        # Extraction first: an attack that is a function of the loss has little to show.
        ranked = sorted(names, key=lambda c: (not c.startswith("extraction/"), c != "mia/reference"))
        shown = {names[c]: table[c] for c in ranked if table[c].isfinite().any()}
        shown = dict(list(shown.items())[:PANELS])
        drawn = {name: metrics.get(f"correlation/perplexity_vs_{name}") for name in shown}

        def scatter() -> Any:
            return scatter_plot(table["perplexity"], table.member, shown, drawn)

        return Result(metrics, plots={"correlation/scatter": scatter} if self.draw and shown else {})

    def _names(self, run: Pass) -> dict[str, str]:
        """The columns of this pass that are correlated, and what each is called in logged names."""
        if self.measures is not None:
            check_columns(self.measures, run, "Correlation.measures")
            wanted = self.measures
        else:
            # Announced columns too: a name must not change in a pass that did not measure the one it clashes with.
            known = [*run.rows.columns, *sorted(run.known.columns - run.rows.columns.keys())]
            wanted = [c for c in known if c.startswith(("mia/", "extraction/")) and not c.endswith("_base")]
        return {column: name for column, name in _short(wanted).items() if column in run.rows.columns}


def _short(columns: Sequence[str]) -> dict[str, str]:
    """Each column's name without its room, where that tells it from the others."""
    short = {column: column.partition("/")[2] or column for column in columns}
    count = Counter(short.values())
    return {column: name if count[name] == 1 else column for column, name in short.items()}


def check_columns(columns: Sequence[str], run: Pass, option: str) -> None:
    """Reject a per-example column that nothing measures, in this pass or another.

    Args:
        columns: what is wanted.
        run: the pass.
        option: where the columns were named, for the message.

    Raises:
        ConfigError: one is not known; it names those there are.
    """
    known = run.rows.columns.keys() | run.known.columns
    for column in columns:
        if column not in known:
            raise ConfigError(
                f"{option}: no callback measures {column!r} of single examples; there are: "
                f"{', '.join(sorted(known)) or 'none'}"
            )
