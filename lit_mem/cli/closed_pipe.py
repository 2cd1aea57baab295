"""End quietly where the program that reads the output has ended, as in `lit-mem sweep ... | head`."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, TextIO

CODE: Final = 141
"""Exit code of a program that SIGPIPE ended: 128 + 13."""


@contextmanager
def ended_by_closed_pipe() -> Iterator[None]:
    """Exit with code 141 if the reader of the output has closed it; flush the output here, not at interpreter exit.

    An exit code other than 0 of the body is kept. A broken pipe to anything but this program's output is an error as
    before.

    Raises:
        SystemExit: the reader closed the pipe.
    """
    try:
        yield
        sys.stdout.flush()
    except SystemExit as end:
        if not _flushed() and not end.code:
            sys.exit(CODE)
        raise
    except BrokenPipeError:
        closed = [stream for stream in (sys.stdout, sys.stderr) if _is_closed(stream)]
        if not closed:
            raise
        for stream in closed:
            _discard(stream)
        sys.exit(CODE)


def _flushed() -> bool:
    """Flush the output; if its reader is gone, discard the remaining output and return False."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        return False
    return True


def _is_closed(stream: TextIO) -> bool:
    """Whether a stream is a pipe or socket without a reader."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (OSError, ValueError):  # replaced by an object without a file, or closed
        return False


def _discard(stream: TextIO) -> None:
    """Send what is still buffered nowhere, so that the interpreter's own flush at exit succeeds."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with suppress(OSError, ValueError):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
