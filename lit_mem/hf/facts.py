"""Provenance of a trainer's run, for `facts.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from transformers import Trainer

from lit_mem.audit.facts import persons_in, started_facts, with_digests, with_model
from lit_mem.data.encoding import Encoded
from lit_mem.data.groups import Groups
from lit_mem.files.facts import Facts, SetFacts
from lit_mem.hf.trainers_texts import copies_in


@dataclass(frozen=True)
class TextsOfRun:
    """The texts of a trainer's run.

    Attributes:
        copies: number of copies of each training text, by its tokens; None if not counted yet, or not known.
        rows: number of training texts.
        heldout: the scored held-out texts.
        groups: rows of each person, for given texts.
    """

    copies: Counter[tuple[int, ...]] | None
    rows: int
    heldout: Sequence[Encoded]
    groups: Groups


def facts_of(trainer: Trainer, started: str, texts: TextsOfRun) -> Facts:
    """Facts about a trainer's model and texts.

    Args:
        trainer: about to train or evaluate.
        started: the start time.
        texts: texts of the run.
    """
    copies = texts.copies
    if copies is None and trainer.train_dataset is not None:
        copies = copies_in(trainer)
    tokens = None if copies is None else sum(len(ids) * n for ids, n in copies.items())
    facts = replace(
        with_model(started_facts(started), trainer.model, trainer.is_in_train, trainer.state.global_step),
        members=SetFacts(texts.rows, tokens, persons_in(texts.groups.members)),
        heldout=SetFacts(len(texts.heldout), None, persons_in(texts.groups.others)),
        digest_of="tokens",
    )
    if copies is None:
        return facts
    return with_digests(facts, map(_spelled, copies.elements()), (_ids(one) for one in texts.heldout))


def _ids(example: Encoded) -> str:
    return _spelled(example.input_ids.tolist())


def _spelled(ids: Iterable[int]) -> str:
    """Token ids as a string for a digest."""
    return " ".join(map(str, ids))
