"""The lines of a privacy ledger: what they hold, and the hash that chains each to those before it."""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import suppress
from typing import Any, Final, NamedTuple

from lit_mem.privacy.accountant import Steps, possible_noise

_LEAST_RATE: Final = 1e-12  # beyond these an accountant takes very long, or overflows
_MOST: Final = 10**9


class Start(NamedTuple):
    """A start of a run, and the steps that it took.

    Attributes:
        id: random; the same wherever these steps are written down, so that they count once.
        texts: N, how many texts the steps were drawn from.
        steps: their kind and number.
        corpus: `lit_mem.privacy.corpus.corpus_digest` of the texts; "" where it is not known.
        unaccounted: it began with weights that were trained before, and no ledger has those steps.
        copied: its steps were taken before this ledger was made, and another ledger has them one by one.
    """

    id: str
    texts: int
    steps: Steps
    corpus: str = ""
    unaccounted: bool = False
    copied: bool = False


def new_id() -> str:
    """Of a start."""
    return secrets.token_hex(8)


def link(before: str, content: bytes) -> str:
    """The hash of a line: of the one before it, and of its own content."""
    return hashlib.sha256(before.encode() + b"\n" + content).hexdigest()


def row_of(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that was cut short."""
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
        if isinstance(row, dict):
            return row
    return None


def start_of(row: dict[str, Any]) -> Start:
    """What a start's line says.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: it lacks a number, or has one that cannot be.
    """
    noise, rate = float(row["noise_multiplier"]), float(row["sample_rate"])
    texts, taken, corpus = int(row["texts"]), int(row.get("taken", 0)), row.get("corpus", "")
    if not (
        possible_noise(noise)
        and _LEAST_RATE <= rate <= 1
        and 0 < texts <= _MOST
        and 0 <= taken <= _MOST
        and isinstance(corpus, str)
    ):
        raise ValueError("out of range")
    return Start(
        str(row["start"]), texts, Steps(noise, rate, taken), corpus, bool(row.get("unaccounted")), "taken" in row
    )
