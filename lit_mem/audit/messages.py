"""Messages of this package on standard error, where nothing else handles them."""

from __future__ import annotations

import logging
import sys

from lit_mem.functional.plain_text import printable


class Console(logging.Handler):
    """Writes messages as they are to what is standard error at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        print(printable(self.format(record), aligned=True), file=sys.stderr)  # noqa: T201  (the console handler itself)


class FallbackConsole(Console):
    """The same, as long as the root logger has no handler: then messages reach that one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        if not logging.getLogger().handlers:
            from tqdm.auto import tqdm  # commands that load no library have messages too

            tqdm.write(printable(self.format(record), aligned=True), file=sys.stderr)  # beside a trainer's bar


def show_messages(first: bool = True) -> None:
    """Show what this package logs, from INFO on, in a program that has set up no logging; on rank zero only.

    Where the logger `lit_mem` or the root logger has a handler, nothing is changed. What the program sets up later is
    used from then on, and no message is shown twice.

    Args:
        first: whether this process is rank zero; the others show errors only.
    """
    logger = logging.getLogger("lit_mem")
    if logger.handlers or logging.getLogger().handlers:
        return
    logger.addHandler(FallbackConsole())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO if first else logging.ERROR)
