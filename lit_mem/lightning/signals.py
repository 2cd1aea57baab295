"""External causes that end a run: a signal, or a full disk."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

STOPPED_BY: Final = {128 + signal.SIGINT: "Ctrl-C", 128 + signal.SIGTERM: "SIGTERM"}
"""Exit code -> its cause."""

_FAILED_WRITES: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Make SIGTERM end the body like Ctrl-C: at once, with clean-up.

    Lightning alone waits for the end of the batch, which a validation can delay beyond the grace period before a
    process is killed, and exits with code 0.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # the calling program has its own handler
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None, launcher: Any = None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    if launcher is not None:
        launcher.kill(number)  # its child processes
    sys.exit(128 + number)


class EndOnSigterm(Callback):
    """Keeps the handler of `ended_by_sigterm` while Lightning runs.

    Lightning replaces it by a handler that notifies the other processes of a run in a broadcast that they do not
    expect: all of them hang, and only SIGKILL ends them.
    """

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Runs first after Lightning has installed its handler."""
        handler = signal.getsignal(signal.SIGTERM)
        if _end in getattr(handler, "signal_handlers", ()):
            signal.signal(signal.SIGTERM, partial(_end, launcher=trainer.strategy.launcher))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, for a run without a sanity check."""
        self.on_sanity_check_start(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, for a validation alone."""
        self.on_sanity_check_start(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, for a test."""
        self.on_sanity_check_start(trainer, pl_module)


def stop_code(error: BaseException) -> int | None:
    """The exit code of `STOPPED_BY`, if a signal is the first cause in the chain of errors; None otherwise."""
    for each in _chain(error):
        if isinstance(each, KeyboardInterrupt):
            return 128 + signal.SIGINT
        if isinstance(each, SIGTERMException) or (isinstance(each, SystemExit) and each.code == 128 + signal.SIGTERM):
            return 128 + signal.SIGTERM
    return None


def failed_write(error: BaseException, place: str) -> OSError | None:
    """The write error of a full or read-only disk in the chain of errors; None without one.

    Args:
        error: the top-level error, which loggers may have replaced.
        place: path to report if the error has none.
    """
    found = [each for each in _chain(error) if isinstance(each, OSError) and each.errno in _FAILED_WRITES]
    for each in sorted(found, key=lambda each: each.filename is None):
        return OSError(each.errno, each.strerror, each.filename or place)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes. An error that is raised again, as by TensorBoard, may be its own cause."""
    chain: list[BaseException] = [error]
    for each in chain:  # grows while iterating
        yield each
        for other in (each.__cause__, each.__context__):
            if other is not None and all(other is not known for known in chain):
                chain.append(other)


@contextmanager
def writer_errors_silenced() -> Iterator[None]:
    """Silence write errors of TensorBoard's writer thread: the next logging call raises the same error again."""
    before = threading.excepthook

    def hook(args: Any) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
