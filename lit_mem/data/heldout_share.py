"""How many rows of a file to hold out where nobody says."""

from typing import Final

_WANTED: Final = 100
_LARGE: Final = 10_000


def heldout_fraction(n_rows: int) -> float:
    """The share of rows to hold out where none is given: a fifth, more where that is under 100 rows, but at most half.

    Of 10,000 rows or more a tenth is enough.

    >>> [heldout_fraction(n) for n in (60, 250, 600, 20_000)]
    [0.5, 0.4, 0.2, 0.1]
    """
    return round(min(0.5, max(0.1 if n_rows >= _LARGE else 0.2, _WANTED / max(1, n_rows))), 2)
