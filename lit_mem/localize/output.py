"""Write results atomically, as JSON and PNG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_mem.files import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_json(path: Path, content: Any) -> None:
    """Write plain values; a non-finite number is not valid JSON, and raises."""
    atomic.write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_png(path: Path, figure: Figure) -> None:
    """Write a picture."""
    with atomic.whole(path) as part:
        figure.savefig(part, format="png", dpi=150)
