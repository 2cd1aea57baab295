"""Exit codes of commands that take `--fail-on`."""

from __future__ import annotations

from typing import Final

FAILED: Final = 3
"""Exit code if a condition of `--fail-on` holds, or its metric was not measured."""
UNDECIDED: Final = 4
"""Exit code if no condition holds and one is undecided: the limit lies inside the metric's interval."""
