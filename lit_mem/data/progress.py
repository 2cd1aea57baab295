"""Helpers for long loops over rows: a progress bar after a few seconds, and no garbage collection."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

T = TypeVar("T")

_SECONDS: Final = 3.0


def shown_progress(batches: Iterable[T], size: int, total: int, what: str) -> Iterator[T]:
    """Iterate over batches; on a terminal a progress bar appears after a few seconds.

    Args:
        batches: batches of rows.
        size: rows in each except the last.
        total: total number of rows.
        what: label of the progress bar.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]  # it has no type hints

    first = os.environ.get("LOCAL_RANK", "0") == "0"  # every process of a run reads all rows
    off = None if first else True  # None: disabled without a terminal
    with tqdm(total=total, desc=what, unit=" texts", leave=False, delay=_SECONDS, disable=off) as bar:
        for number, batch in enumerate(batches, start=1):
            yield batch
            bar.update(min(size, total - (number - 1) * size))


@contextmanager
def uncollected() -> Iterator[None]:
    """Disable garbage collection while rows create many objects without cycles.

    A collection scans all objects of all libraries: a tenth of the time of encoding texts.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
