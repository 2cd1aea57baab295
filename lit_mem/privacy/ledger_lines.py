"""The lines of a privacy ledger: their content, and the hash chain."""

from __future__ import annotations

import hashlib
import json
import secrets
from contextlib import suppress
from typing import Any, Final, NamedTuple

from lit_mem.privacy.accountant import Steps, possible_noise

_LEAST_RATE: Final = 1e-12  # outside this range an accountant is very slow, or overflows
_MOST: Final = 10**9


class Start(NamedTuple):
    """A start of a run, with its steps.

    Attributes:
        id: random id; the same in every ledger with these steps, so that they count once.
        texts: N, number of texts that the steps were drawn from.
        steps: their parameters and number.
        corpus: `lit_mem.privacy.corpus.corpus_digest` of the texts; "" if unknown.
        unaccounted: whether it began from weights that were trained before without a ledger.
        copied: whether its steps are copied from another ledger, which has them one by one.
    """

    id: str
    texts: int
    steps: Steps
    corpus: str = ""
    unaccounted: bool = False
    copied: bool = False


def new_id() -> str:
    """A random id of a start."""
    return secrets.token_hex(8)


def link(before: str, content: bytes) -> str:
    """The hash of a line, from the previous hash and its own content."""
    return hashlib.sha256(before.encode() + b"\n" + content).hexdigest()


def row_of(line: bytes) -> dict[str, Any] | None:
    """The content of a line; None for a truncated one."""
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
        if isinstance(row, dict):
            return row
    return None


def start_of(row: dict[str, Any]) -> Start:
    """Parse the line of a start.

    Raises:
        KeyError, TypeError, ValueError, OverflowError: a number is missing or invalid.
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
