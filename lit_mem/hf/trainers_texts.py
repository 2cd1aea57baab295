"""A trainer's own texts as examples: tokens, labels and masks as collated by the trainer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import Trainer

from lit_mem.data.encoding import Encoded
from lit_mem.data.probe import ALL_UP_TO
from lit_mem.data.tokenized import encoded, texts_of_batch
from lit_mem.errors import ConfigError
from lit_mem.hf.calling import tokenizer_of
from lit_mem.types import IGNORED

COUNTED: Final = 200_000
"""Maximum number of rows for which copies of a text are counted in the whole set."""


def members_of(
    trainer: Trainer, size: int | None, seed: int, first_id: int, others: Container[Tensor] = ()
) -> list[Encoded]:
    """A random sample of the texts that the trainer trains on.

    Args:
        trainer: with its training set.
        size: number of texts; None: up to 2000.
        seed: seed of the sample.
        first_id: first example id.
        others: token ids of texts to leave out.

    Raises:
        ConfigError: the set is a stream, or its texts cannot be separated.
    """
    with unregistered(trainer):
        loader = trainer.get_train_dataloader()
    return _examples(trainer, loader, size, seed, first_id, True, "train_dataset", others)


def heldout_of(trainer: Trainer, size: int | None, seed: int, first_id: int) -> list[Encoded]:
    """A random sample of the texts that the trainer evaluates on (the first of several sets).

    Raises:
        ConfigError: there is no evaluation set, it is a stream, or its texts cannot be separated.
    """
    given: Any = trainer.eval_dataset
    if given is None:
        raise ConfigError(
            "MemorizationCallback: the trainer has no eval_dataset, and heldout is not given; expected texts that are "
            "not trained on, to compare with members"
        )
    name = next(iter(given)) if isinstance(given, dict) else None
    with unregistered(trainer):
        loader = trainer.get_eval_dataloader(name)
    return _examples(
        trainer, loader, size, seed, first_id, False, f"eval_dataset[{name!r}]" if name else "eval_dataset"
    )


class unregistered:
    """Keeps loaders made inside out of those that accelerate saves and restores."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._loaders = trainer.accelerator._dataloaders

    def __enter__(self) -> None:
        self._before = list(self._loaders)
        self._kept = dict(getattr(self._trainer, "_eval_dataloaders", {}))

    def __exit__(self, *_: object) -> None:
        self._loaders[:] = self._before
        if hasattr(self._trainer, "_eval_dataloaders"):
            self._trainer._eval_dataloaders = self._kept


def _examples(
    trainer: Trainer,
    loader: Any,
    size: int | None,
    seed: int,
    first_id: int,
    member: bool,
    name: str,
    others: Container[Tensor] = (),
) -> list[Encoded]:
    option = "members" if member else "heldout"
    rows = loader.dataset
    if isinstance(rows, IterableDataset) or not hasattr(rows, "__len__"):
        raise ConfigError(
            f"MemorizationCallback: {name} is a stream, which cannot be sampled; set {option} to a list of "
            "texts, a dataset or a file"
        )
    if cuts_texts(trainer, member):
        raise ConfigError(
            f"MemorizationCallback: packing_strategy is 'wrapped', which cuts the texts of {name} into pieces; "
            f"expected 'bfd', or texts given as {option}"
        )
    wanted = size or ALL_UP_TO
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    found: list[tuple[int, str, Tensor, Tensor]] = []
    seen: set[tuple[int, ...]] = set()  # skip copies
    for i in order:
        if len(found) >= wanted:
            break
        for origin, ids, labels in _texts_of_row(loader, i, name, option):
            text = tuple(ids.tolist())
            if text not in seen and ids not in others:
                seen.add(text)
                found.append((i, origin, ids, labels))
    found = sorted(found[:wanted], key=lambda one: (one[0], one[1]))
    if not found:
        raise ConfigError(f"MemorizationCallback: no text of {name} has trained tokens; set {option}")
    tokenizer = tokenizer_of(trainer)
    return [
        encoded(ids, labels, tokenizer, first_id + n, member, origin)
        for n, (_, origin, ids, labels) in enumerate(found)
    ]


def _texts_of_row(loader: Any, i: int, name: str, option: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Origin, token ids and labels of the texts in a row of a loader's data set."""
    row = loader.dataset[i]
    batch = loader.collate_fn([dict(row) if isinstance(row, dict) else row])  # some collators modify rows
    if "labels" not in batch or "input_ids" not in batch:
        lacking = "labels" if "input_ids" in batch else "input_ids"
        raise ConfigError(
            f"MemorizationCallback: the collator gives no {lacking} for {name}; expected both, as for causal language "
            f"modelling, or texts given as {option}"
        )
    texts = list(texts_of_batch(batch))
    for n, (ids, labels) in enumerate(texts, start=1):
        if bool((labels[1:] != IGNORED).any()):
            yield f"{name}:{i + 1}" + (f".{n}" if len(texts) > 1 else ""), ids, labels


def copies_in(trainer: Trainer) -> Counter[tuple[int, ...]] | None:
    """Number of copies of each training text, packed or not; None if counting is not cheap."""
    rows: Any = trainer.train_dataset
    if cuts_texts(trainer, True) or not hasattr(rows, "__len__") or len(rows) > COUNTED:
        return None
    if isinstance(rows, list) and all("input_ids" in row for row in rows):
        return Counter(tuple(torch.as_tensor(row["input_ids"]).tolist()) for row in rows)
    columns = (getattr(rows, "column_names", None) or ()) if hasattr(rows, "with_format") else ()
    if "input_ids" not in columns:
        return None
    plain, found = rows.with_format(None), Counter[tuple[int, ...]]()
    every = plain["input_ids"][:]
    lengths = plain["seq_lengths"][:] if "seq_lengths" in columns else [[len(ids)] for ids in every]
    for ids, of_row in zip(every, lengths, strict=True):
        start = 0
        for n in of_row:
            found[tuple(ids[start : start + n])] += 1
            start += n
    return found


def cuts_texts(trainer: Trainer, training: bool) -> bool:
    """Whether the trainer's packing cuts texts into pieces."""
    args: Any = trainer.args
    packing = getattr(args, "packing", False)
    if not training and getattr(args, "eval_packing", None) is not None:
        packing = args.eval_packing
    return bool(packing) and getattr(args, "packing_strategy", "") == "wrapped"
