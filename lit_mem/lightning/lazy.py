"""Defaults that are built on first use."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from jsonargparse import lazy_instance

T = TypeVar("T")


def lazily(kind: type[T]) -> T:
    """An instance of a class as the default of an option, built on first use; jsonargparse shows its `class_path`.

    `lazy_instance` reads the source of each frame of its call stack, which is deep during an import: a fifth of a
    second. The stack of a thread is short.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_made, kind).result()


def _made(kind: type[T]) -> T:
    made: T = lazy_instance(kind)  # which adds a class to the module of its caller
    return made
