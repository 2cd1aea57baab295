"""How many rows each person or document has, by what is done with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Groups:
    """Rows of each group, before any subset of them is scored; empty where each row is a group of its own.

    Attributes:
        members: by name of the group, how many rows the model is trained on.
        others: likewise, how many they are compared with.
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
            others: (N,) likewise of those that they are compared with.
            shown: whether names may be shown.

        >>> Groups.of(["a", "a", "b"], ["c"]).members["a"], Groups.of(["a", "b"], ["c"]).shared
        (2, False)
        """
        counts = Counter(members), Counter(others)
        several = any(max(one.values(), default=0) > 1 for one in counts)
        # A name for each row says nothing, and would be most of what a large set takes here.
        return cls(*counts, shown) if several else cls(shown=shown)

    @property
    def shared(self) -> bool:
        """Whether any two rows of one side are of one group."""
        return bool(self.members or self.others)
