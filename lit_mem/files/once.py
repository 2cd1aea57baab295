"""What happens once for each key, such as a message that is logged once a run."""

from __future__ import annotations


class Once:
    """Remembers the keys that it was called with."""

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
        """Start anew, as with other data."""
        self._seen.clear()
