"""Work on many rows: a progress bar for what takes more than a few seconds, and no search for garbage meanwhile."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

T = TypeVar("T")

_SECONDS: Final = 3.0


def shown_progress(batches: Iterable[T], size: int, total: int, what: str) -> Iterator[T]:
    """The same batches; on a terminal a bar shows how many rows are done, once it takes more than a few seconds.

    Args:
        batches: of rows.
        size: rows in each but the last.
        total: rows in all of them.
        what: is done, for the bar.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]  # it has no types

    first = os.environ.get("LOCAL_RANK", "0") == "0"  # every process of a run reads all rows
    off = None if first else True  # None: off where there is no terminal
    with tqdm(total=total, desc=what, unit=" texts", leave=False, delay=_SECONDS, disable=off) as bar:
        for number, batch in enumerate(batches, start=1):
            yield batch
            bar.update(min(size, total - (number - 1) * size))


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from looking for cycles of garbage, where rows make many objects that hold no cycle.

    Each search goes through all objects of all libraries: a tenth of the time of encoding texts.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
