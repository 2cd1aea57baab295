"""Count how often token sequences are trained on in full, in rows as collated by a trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset
from transformers import Trainer

from lit_mem.data.tokenized import texts_of_batch
from lit_mem.hf.trainers_texts import COUNTED, unregistered
from lit_mem.types import IGNORED

Ids = tuple[int, ...]


def trained_counts(trainer: Trainer, wanted: Sequence[Ids]) -> Counter[Ids] | None:
    """How often each token sequence occurs in a training text with a loss on all but its first token.

    For speed, rows that do not contain the first two tokens of any sequence are not collated.

    Args:
        trainer: with its training set.
        wanted: sequences of at least two tokens.

    Returns:
        Counts by sequence; None if the set is a stream, or has more than 200,000 rows.
    """
    rows: Any = trainer.train_dataset
    if isinstance(rows, IterableDataset) or not hasattr(rows, "__len__") or len(rows) > COUNTED:
        return None
    with unregistered(trainer):
        loader = trainer.get_train_dataloader()
    begins: dict[tuple[int, int], list[Ids]] = {}
    for run in dict.fromkeys(wanted):
        begins.setdefault((run[0], run[1]), []).append(run)
    codes = np.array([_code(*pair) for pair in begins], np.int64)
    found: Counter[Ids] = Counter()
    for i in range(len(loader.dataset)):
        row = loader.dataset[i]
        known = row.get("input_ids") if isinstance(row, dict) else None
        if known is not None and not _any(np.asarray(known, np.int64).reshape(-1), codes):
            continue
        batch = loader.collate_fn([dict(row) if isinstance(row, dict) else row])  # some collators modify rows
        for tokens, labels in texts_of_batch(batch):
            ids, trained = tokens.tolist(), (labels != IGNORED).tolist()
            for at, pair in enumerate(pairwise(ids)):
                for run in begins.get(pair, ()):
                    end = at + len(run)
                    found[run] += tuple(ids[at:end]) == run and all(trained[at + 1 : end])
    return found


def _any(ids: np.ndarray[Any, np.dtype[np.int64]], codes: np.ndarray[Any, np.dtype[np.int64]]) -> bool:
    return bool(np.isin(_code(ids[:-1], ids[1:]), codes).any())


def _code(one: Any, other: Any) -> Any:
    """A single code for a pair of tokens."""
    return one * 2**31 + other
