"""Print this package's log messages in programs that use Lightning."""

from __future__ import annotations

from lightning.fabric.utilities.rank_zero import rank_zero_only

from lit_mem.audit import messages


def show_messages() -> None:
    """Print this package's log messages on rank zero, if the program has not configured logging."""
    messages.show_messages(first=getattr(rank_zero_only, "rank", None) in (0, None))
