"""Count how much of a set of texts is truncated."""

from __future__ import annotations

import logging

log = logging.getLogger(__name__)


class CutTexts:
    """Counts the tokens of a set's texts, and those beyond a limit.

    Args:
        limit: maximum tokens of a text.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.texts = self.cut = self.tokens = self.lost = 0

    def add(self, length: int) -> None:
        """Count a text of this length."""
        beyond = max(0, length - self.limit)
        self.texts += 1
        self.cut += beyond > 0
        self.tokens += length
        self.lost += beyond

    def warn(self, what: str, also: str = "") -> None:
        """Log one warning with the truncated share of the set, if any.

        Args:
            what: the texts, such as "training texts".
            also: what else is lost, such as "; 3 of 40 turns are truncated".
        """
        if self.lost:
            log.warning(
                "data.max_length=%d truncates %d of %d %s: %s of %s tokens (%s) are neither trained on nor measured%s; "
                "data.chunk splits long texts.",
                self.limit, self.cut, self.texts, what, f"{self.lost:,}", f"{self.tokens:,}",
                _percent(self.lost / self.tokens), also,
            )  # fmt: skip


def _percent(share: float) -> str:
    """A positive share in percent, never rounded to 0.

    >>> _percent(0.343), _percent(0.0042), _percent(0.00001)
    ('34 %', '0.4 %', '<0.1 %')
    """
    if share < 0.001:
        return "<0.1 %"
    return f"{share:.0%}".replace("%", " %") if share >= 0.095 else f"{share:.1%}".replace("%", " %")
