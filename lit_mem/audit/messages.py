"""Print this package's log messages on standard error, if no other handler does."""

from __future__ import annotations

import logging
import sys

from lit_mem.functional.plain_text import printable


class Console(logging.Handler):
    """Writes messages unformatted to the current standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        print(printable(self.format(record), aligned=True), file=sys.stderr)  # noqa: T201  (the console handler itself)


class FallbackConsole(Console):
    """A `Console` that is silent once the root logger has a handler, which then prints the messages."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        if not logging.getLogger().handlers:
            from tqdm.auto import tqdm  # imported late: commands that load no library log too

            tqdm.write(printable(self.format(record), aligned=True), file=sys.stderr)  # beside a trainer's bar


def show_messages(first: bool = True) -> None:
    """Print this package's log messages from INFO on, in a program that has not configured logging.

    Nothing changes if the logger `lit_mem` or the root logger has a handler. If the program configures logging later,
    its handlers take over, and no message is printed twice.

    Args:
        first: whether this process is rank zero; other ranks print errors only.
    """
    logger = logging.getLogger("lit_mem")
    if logger.handlers or logging.getLogger().handlers:
        return
    logger.addHandler(FallbackConsole())
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO if first else logging.ERROR)
