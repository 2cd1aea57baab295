"""A progress bar for generation, beside Lightning's own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

Advance = Callable[[int], None]
"""Receives the number of tokens generated since the last call."""


@contextmanager
def generation_bar(trainer: pl.Trainer, what: str, total: int) -> Iterator[Advance]:
    """Show how many of `total` tokens are generated, on a terminal and if `trainer.enable_progress_bar` is true.

    Args:
        trainer: trainer whose progress bar style is used.
        what: title of the bar.
        total: maximum number of tokens.
    """
    bar = trainer.progress_bar_callback
    if not total or bar is None or not trainer.is_global_zero or getattr(bar, "is_disabled", False):
        yield _nothing
    elif isinstance(bar, RichProgressBar):
        with _rich(bar, what, total) as advance:
            yield advance
    elif sys.stderr.isatty():
        with Tqdm(desc=what, total=total, leave=False, dynamic_ncols=True, file=sys.stderr) as shown:
            yield shown.update
    else:
        yield _nothing


def _nothing(tokens: int) -> None:
    pass


@contextmanager
def _rich(bar: RichProgressBar, what: str, total: int) -> Iterator[Advance]:
    progress: Any = bar.progress
    if progress is None or not progress.console.is_terminal:
        yield _nothing
        return
    # Lightning finds its tasks by index, so none may be removed: ours is reused.
    task = next((task.id for task in progress.tasks if task.description.endswith(what)), None)
    if task is None:
        task = bar._add_task(total, what)
    progress.reset(task, total=total, visible=True)

    def advance(tokens: int) -> None:
        progress.update(task, advance=tokens)
        bar.refresh()

    try:
        yield advance
    finally:
        progress.update(task, visible=False)
        bar.refresh()
