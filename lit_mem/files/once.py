"""Actions done once per key, such as a message logged once per run."""

from __future__ import annotations


class Once:
    """The set of keys seen so far."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def first(self, key: str = "") -> bool:
        """Whether this is the first call with this key since `reset`."""
        if key in self._seen:
            return False
        self._seen.add(key)
        return True

    def __contains__(self, key: str) -> bool:
        """Whether `first` was called with this key."""
        return key in self._seen

    def reset(self) -> None:
        """Clear the keys, for example for other data."""
        self._seen.clear()
