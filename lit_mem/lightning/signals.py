"""What ends a run from outside: a signal, or a disk that takes no more."""

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

_REFUSED_WRITES: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the body as Ctrl-C does: at once, and with whatever cleans up behind it.

    Lightning alone waits for the end of the batch, which a validation can put off beyond the time that a process is
    given before it is killed, and leaves with exit code 0.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield  # the program around it has a handler of its own
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None, launcher: Any = None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    if launcher is not None:
        launcher.kill(number)  # the processes that this one has started
    sys.exit(128 + number)


class EndOnSigterm(Callback):
    """Keeps the handler of `ended_by_sigterm` while Lightning runs.

    Lightning puts a handler of its own before it, which tells the other processes of a run in a broadcast that they do
    not expect: all of them hang, and nothing but SIGKILL ends them.
    """

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first thing that Lightning does after it has put its handler there."""
        handler = signal.getsignal(signal.SIGTERM)
        if _end in getattr(handler, "signal_handlers", ()):
            signal.signal(signal.SIGTERM, partial(_end, launcher=trainer.strategy.launcher))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, in a run that checks nothing before."""
        self.on_sanity_check_start(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, where there is only a validation."""
        self.on_sanity_check_start(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same in a test."""
        self.on_sanity_check_start(trainer, pl_module)


def stop_code(error: BaseException) -> int | None:
    """The exit code of `STOPPED_BY`, if a signal is what came first in the chain of errors; None otherwise."""
    for each in _chain(error):
        if isinstance(each, KeyboardInterrupt):
            return 128 + signal.SIGINT
        if isinstance(each, SIGTERMException) or (isinstance(each, SystemExit) and each.code == 128 + signal.SIGTERM):
            return 128 + signal.SIGTERM
    return None


def refused_write(error: BaseException, place: str) -> OSError | None:
    """The error of a disk that took no more, wherever in the chain of errors it is; None if there is none.

    Args:
        error: what reached the top; loggers have words of their own for it.
        place: what could not be written, where the error does not say.
    """
    found = [each for each in _chain(error) if isinstance(each, OSError) and each.errno in _REFUSED_WRITES]
    for each in sorted(found, key=lambda each: each.filename is None):
        return OSError(each.errno, each.strerror, each.filename or place)
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that it came of. What is raised more than once, as by TensorBoard, may come of itself."""
    chain: list[BaseException] = [error]
    for each in chain:  # grows on the way
        yield each
        for other in (each.__cause__, each.__context__):
            if other is not None and all(other is not known for known in chain):
                chain.append(other)


@contextmanager
def writers_are_heard_once() -> Iterator[None]:
    """Keep quiet what TensorBoard's writing thread cannot write: the next thing logged raises the same error again."""
    before = threading.excepthook

    def hook(args: Any) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
