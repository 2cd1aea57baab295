"""Which attribute values reveal a text of the run, the same on every rank."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Protocol

from lit_mem.audit.gather import gathered
from lit_mem.functional.shown_values import revealing
from lit_mem.types import Batch


class HasTexts(Protocol):
    """Holds the texts of a run."""

    def every_text(self) -> Iterable[str]:
        """All texts, prompts included, scored or not; () if not known."""
        ...


class HiddenValues:
    """Compares values with the texts of the batches seen, and with all other texts of the run.

    Texts stay on the rank that scored them; only the matching values are gathered.
    """

    def __init__(self) -> None:
        self._texts: set[tuple[str, str]] = set()
        self._found: dict[tuple[frozenset[str], bool, int], set[str]] = {}

    def reset(self) -> None:
        """Reset before other data."""
        self._texts, self._found = set(), {}

    def observe(self, batch: Batch) -> None:
        """Keep references to the texts of a batch, if it carries records."""
        self._texts.update((record.prompt, record.text) for record in batch.get("records", ()))

    def among(self, values: Iterable[str], n_known: int, subject: HasTexts | None, whole: bool = False) -> set[str]:
        """The values that reveal a text; every rank must call it, with the same arguments.

        Args:
            values: values to check; an unchanged set is compared once.
            n_known: number of examples that all ranks have seen so far.
            subject: holds texts that are not scored; None without any.
            whole: see `revealing`.
        """
        key = (frozenset(values), whole, n_known)
        if key not in self._found:
            others: Iterable[str] = () if subject is None else subject.every_text()
            mine = revealing(key[0], chain(chain.from_iterable(self._texts), others), whole) if key[0] else set()
            self._found[key] = set().union(*gathered(mine))
        return self._found[key]
