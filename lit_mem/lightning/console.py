"""Messages of this package in a program that uses Lightning."""

from __future__ import annotations

from lightning.fabric.utilities.rank_zero import rank_zero_only

from lit_mem.audit import messages


def show_messages() -> None:
    """Show what this package logs, on rank zero only, in a program that has set up no logging."""
    messages.show_messages(first=getattr(rank_zero_only, "rank", None) in (0, None))
