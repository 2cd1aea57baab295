"""Count rows per person or document, by set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Groups:
    """Rows per group, before any subset is taken for scoring; empty if each row is its own group.

    Attributes:
        members: by group name, number of training rows.
        others: by group name, number of rows that members are compared with.
        shown: whether names may be shown (`data.show_groups`).
    """

    members: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)
    shown: bool = False

    @classmethod
    def of(cls, members: Iterable[str], others: Iterable[str], shown: bool = False) -> Groups:
        """Count rows.

        Args:
            members: (M,) names of the groups of the rows that the model is trained on, or a `Counter` of them.
            others: (N,) likewise for the rows that they are compared with.
            shown: whether names may be shown.

        >>> Groups.of(["a", "a", "b"], ["c"]).members["a"], Groups.of(["a", "b"], ["c"]).shared
        (2, False)
        """
        counts = Counter(members), Counter(others)
        several = any(max(one.values(), default=0) > 1 for one in counts)
        # A name per row has no information, and would use most of the memory of a large set.
        return cls(*counts, shown) if several else cls(shown=shown)

    @property
    def shared(self) -> bool:
        """Whether any two rows of one side share a group."""
        return bool(self.members or self.others)
