"""Members, held-out texts and texts of reference models, drawn from all texts of a corpus by patient or article."""

from __future__ import annotations

import random
from collections.abc import Sequence

from datasets import Dataset, concatenate_datasets

from lit_mem.data.sources.base import Corpus, Source


class Drawn(Source):
    """Rows drawn elsewhere."""

    def __init__(self, train: Dataset, heldout: Dataset) -> None:
        self._corpus = Corpus(train, heldout, None, "drawn")

    def load(self) -> Corpus:
        """The rows."""
        return self._corpus


class Pool:
    """All texts of a corpus, each once, of which some groups are reserved for reference models."""

    def __init__(self, source: Source, reserved: float) -> None:
        corpus = source.load()
        rows = concatenate_datasets([part for part in (corpus.train, corpus.heldout, corpus.test) if part is not None])
        first = {text: i for i, text in reversed(list(enumerate(rows["completion"][:])))}
        self.rows = rows.select(sorted(first.values()))
        self.group_of = dict(zip(self.rows["origin"][:], self.rows["group"][:], strict=True))
        self._rows_of: dict[str, list[int]] = {}
        for i, group in enumerate(self.rows["group"][:]):
            self._rows_of.setdefault(group, []).append(i)
        groups = sorted(self._rows_of)
        random.Random(0).shuffle(groups)  # the same for all seeds
        cut = round(reserved * len(groups))
        self.reserved, self.free = groups[:cut], groups[cut:]

    def draw(self, groups: Sequence[str], sizes: Sequence[int], seed: str) -> list[Dataset]:
        """Sets of these sizes that share no group.

        Raises:
            SystemExit: there are too few.
        """
        order = random.Random(seed).sample(list(groups), len(groups))
        made = []
        for size in sizes:
            found: list[int] = []
            while len(found) < size:
                if not order:
                    raise SystemExit(f"too few texts for {sum(sizes)} of separate groups; expected a smaller --rows")
                found += self._rows_of[order.pop()]
            made.append(self.rows.select(sorted(found[:size])))
        return made
