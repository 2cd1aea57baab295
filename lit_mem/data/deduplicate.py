"""Deduplicate a training set.

Duplicated texts are memorized first: Lee et al. 2022, "Deduplicating Training Data Makes Language Models
Better" (arXiv 2107.06499); Kandpal, Wallace and Raffel 2022, "Deduplicating Training Data Mitigates Privacy Risks in
Language Models" (arXiv 2202.06539).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from lit_mem.data.digests import digests, numbered, repeats_of
from lit_mem.data.examples import Examples, texts_of_records
from lit_mem.data.minhash import EXACT_UP_TO, method, near_repeats_of, sketched
from lit_mem.data.overlap import NEAR, near_repeats, normalized, repeats
from lit_mem.data.row_texts import RowTexts

if TYPE_CHECKING:
    from datasets import Dataset

    from lit_mem.data.encoding import Encoded

log = logging.getLogger(__name__)

Deduplicate = Literal["none", "exact", "near"]


def deduplicated(rows: Dataset, how: Deduplicate) -> Dataset:
    """The rows in order, keeping the first of equal ones.

    Args:
        rows: with columns `prompt` and `completion`.
        how: "exact": the same text, prompt and completion together; "near": also texts that are the same ignoring case,
            space and punctuation, and those that share most of their runs of three words (Jaccard similarity of at
            least 0.7; with more than 50 000 rows found by MinHash, see `lit_mem.data.minhash`); "none": keep all rows.
    """
    if how == "none":
        return rows
    texts, by = RowTexts(rows), str(how)
    if how == "exact":
        again = repeats(texts)
    elif len(texts) <= EXACT_UP_TO:
        again = near_repeats(list(texts))
    else:
        again = near_repeats_of(sketched(texts, NEAR, "Looking for duplicates"), texts, NEAR)
        by = f"near, by {method(NEAR)}"
    log.info("Duplicates: %d of %d rows repeat an earlier one (%s) and are not trained on.", len(again), len(texts), by)
    return rows.select([i for i in range(len(texts)) if i not in again]) if again else rows


def without_repeats(rows: Dataset, name: str) -> Dataset:
    """The rows of a set that is only scored, each text once: repeats would count as independent evidence.

    Args:
        rows: with columns `prompt` and `completion`.
        name: "held-out" or "test", for the log, which reports exact repeats, and repeats ignoring case and punctuation.
    """
    texts = RowTexts(rows)
    found = sketched(texts, None, f"Looking for repeats of {name} texts")
    again, alike = (repeats_of(numbered(one)[0]) for one in (found.exact, found.forms))
    if alike:
        log.info(
            "%d of %d %s texts repeat an earlier one and are not scored; %d more do so ignoring case and punctuation.",
            len(again), len(texts), name, len(alike) - len(again),
        )  # fmt: skip
    return rows.select([i for i in range(len(texts)) if i not in again]) if again else rows


def count_duplicates(examples: Sequence[Encoded], members: Sequence[Encoded]) -> None:
    """Set in each record the number of other members with the same normalized text."""
    numbers, others = numbered(digests(_normalized_texts(examples)), digests(_normalized_texts(members)))
    copies = np.bincount(others, minlength=int(numbers.max(initial=-1)) + 1)[numbers]
    if isinstance(examples, Examples):
        examples.set_duplicates(copies - examples.numbers("member"))
        return
    for example, n in zip(examples, copies.tolist(), strict=True):
        if example.record is not None:
            example.record.duplicates = n - example.member


def _normalized_texts(examples: Sequence[Encoded]) -> Iterator[str]:
    """Normalized texts of the records; an example without a record gets a unique, unnormalized text."""
    for number, text in enumerate(texts_of_records(examples)):
        yield f"A {number}" if text is None else normalized(text)
