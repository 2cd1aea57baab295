"""Names and values of the metrics of prompted extraction."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lit_mem.audit.measure import Result, means_by_set, with_ends
from lit_mem.audit.table import ScoreTable
from lit_mem.errors import MetricError
from lit_mem.plots.prefixes import prefixes_plot


class ExtractionMetrics:
    """Averages per-example columns of each measure at each prefix length.

    With several prefix lengths every name includes the length, as in `ngram_rate_prefix_8`.

    Args:
        group: namespace of the logged names.
        measures: names of the extraction measures.
        prefixes: lengths, each a share of a text below 1 or a number of tokens.
        base: whether the base model generates too; its columns end in `_base`.
    """

    def __init__(self, group: str, measures: Iterable[str], prefixes: Sequence[int | float], base: bool) -> None:
        self.group, self.measures, self.prefixes = group, list(measures), prefixes
        self.time = "time/generation" + ("" if group == "extraction" else f"_{group}")
        self.tags = [f"_prefix_{p:g}" for p in prefixes] if len(prefixes) > 1 else [""]
        self._models = ("", "_base") if base else ("",)

    def columns(self, *tags: str) -> list[str]:
        """Names of the per-example columns at some prefix lengths, by their tags."""
        return [name + tag + model for tag in tags for name in self.measures for model in self._models]

    def table_columns(self) -> list[str]:
        """Columns at all lengths, and those for the generated perplexity."""
        return [c for tag in self.tags for c in (*self.columns(tag), f"logprob{tag}", f"n_tokens{tag}")]

    def names(self) -> list[str]:
        """All metrics at all prefix lengths."""
        names = [self.time]
        for tag in self.tags:
            names += with_ends(f"{self.group}/{c}{part}" for c in self.columns(tag) for part in ("", "_heldout"))
            names.append(f"{self.group}/generated_perplexity{tag}")
        return names

    def rows(self, table: ScoreTable) -> ScoreTable:
        """The columns of the measures, renamed to their logged names."""
        return table.renamed({f"{self.group}/{c}": c for c in self.columns(*self.tags)})

    def means(self, table: ScoreTable) -> Result:
        """The mean of each column over members and over held-out texts, and the members' generated perplexity.

        Means of values in [0, 1] have intervals; each text counts once.

        Args:
            table: the columns of `table_columns`, one row per prompted example.

        Raises:
            MetricError: generated tokens have a non-finite log-probability.
        """
        found = Result()
        for tag in self.tags:
            _reject_not_finite(table, f"logprob{tag}")
            found = found.plus(means_by_set(table, self.columns(tag), self.group))
            members = table.members()
            if tokens := members[f"n_tokens{tag}"].sum().item():
                loss = -members[f"logprob{tag}"].sum().item() / tokens
                perplexity = {f"{self.group}/generated_perplexity{tag}": math.exp(min(loss, 700))}
                found = found.plus(Result(perplexity))
        return found

    def plots(self, metrics: Mapping[str, float]) -> dict[str, Callable[[], Any]]:
        """Plot of each measure against the prefix length; {} with a single length."""
        if len(self.prefixes) < 2:
            return {}
        curves: dict[str, dict[str, list[float]]] = {}
        whose = {"": "members", "_heldout": "held-out", "_base": "members, base", "_base_heldout": "held-out, base"}
        for measure in self.measures:
            for end, label in whose.items():
                keys = [f"{self.group}/{measure}{tag}{end}" for tag in self.tags]
                if all(key in metrics for key in keys):
                    curves.setdefault(measure, {})[label] = [metrics[key] for key in keys]
        return {f"{self.group}/prefix_sweep": lambda: prefixes_plot(curves, self.prefixes)}


def _reject_not_finite(table: ScoreTable, column: str) -> None:
    """Reject continuations decoded from non-finite logits."""
    bad = ~table[column].isfinite()
    if bad.any():
        raise MetricError(
            f"Extraction: the text generated for example {int(table.example_id[bad][0])} (of {int(bad.sum())} "
            "affected) has a non-finite log-probability, though the true text's is finite; set trainer.precision to "
            "32-true"
        )
