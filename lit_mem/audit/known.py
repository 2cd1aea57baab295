"""Names of the metrics that measures log, so that a misspelt one is rejected before anything is computed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from lit_mem.errors import ConfigError

_OF_PROMPTS: Final = frozenset({"extraction/exact_rate", "extraction/ngram_rate"})


@dataclass(frozen=True)
class Known:
    """Metrics that may be logged in a run.

    Attributes:
        metrics: logged names, as far as they are known before the data is read.
        prefixes: prefixes of the other names (`slice/`).
        columns: per-example columns that measures may give, in this pass or another (extraction every n passes).
        absent: metrics left out of this run, each with the reason.
    """

    metrics: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    columns: frozenset[str] = frozenset()
    absent: Mapping[str, str] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether a metric of this name may be logged."""
        return name in self.metrics or name.startswith(self.prefixes)

    def check(self, names: Iterable[str], who: str, complete: bool = True) -> None:
        """Reject metrics that are never logged, or that cannot be measured in this run.

        Args:
            names: names of the metrics.
            who: what reads them, for the message.
            complete: whether no other source may log them.

        Raises:
            ConfigError: one of them is not available.
        """
        for name in names:
            if name in self.absent:
                raise ConfigError(f"{who}: {name!r} is not measured: {self.absent[name]}. {self.listed(name)}")
            if complete and not self.has(name):
                close = difflib.get_close_matches(name, self.metrics, n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                if name in _OF_PROMPTS:
                    hint = (
                        "texts are prompted for it, which the suite quick does not do; expected the suite standard or "
                        "full, or no threshold on it (the presets have one). "
                    )
                raise ConfigError(f"{who}: nothing logs {name!r}; {hint}{self.listed(name)}")

    def listed(self, name: str) -> str:
        """Logged names in the namespace of a name, or all if it has none; at most twenty."""
        namespace = name.partition("/")[0] + "/"
        names = sorted(other for other in self.metrics if other.startswith(namespace)) or sorted(self.metrics)
        # The closest matches, where there are too many to show.
        shown = sorted(difflib.get_close_matches(name, names, n=20, cutoff=0.0)) if len(names) > 20 else names
        more = f" and {len(names) - len(shown)} more (see docs/reference/names.md)" if len(shown) < len(names) else ""
        return f"Logged metrics: {', '.join(shown)}{more}"
