"""Encode one set of texts as examples, and check two such sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from lit_mem.data.checks import TrustReport, check_texts
from lit_mem.data.deduplicate import count_duplicates
from lit_mem.data.encoding import Encoded
from lit_mem.data.examples import Examples
from lit_mem.data.group_columns import group_columns
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import encode_of, encoder_of
from lit_mem.data.sources.given import given_set
from lit_mem.data.sources.given_fields import Fields
from lit_mem.data.split import take
from lit_mem.types import Record


def encoded_set(
    rows: Any,
    name: str,
    tokenizer: Any,
    options: DataOptions,
    size: int | None,
    member: bool,
    first_id: int,
    fields: Fields = None,
    counted: Counter[str] | None = None,
) -> Examples:
    """A random subset of given texts as examples.

    Args:
        rows: as for `given_set`.
        name: name of the set, for messages.
        tokenizer: the model's tokenizer.
        options: options of encoding, the seed of the subset, and whether group columns are kept.
        size: number of texts; None or more than available: all.
        member: whether they are in the fine-tuning set.
        first_id: ids count up from here.
        fields: which columns hold the texts.
        counted: receives the rows per person or document, by name; None: do not count.

    Raises:
        DataError: a row is invalid.
        ConfigError: `rows` has an unknown form.
    """
    found = given_set(rows, name, fields)
    if counted is not None:
        counted.update(found["group"][:])
    if not options.show_groups:
        found = found.remove_columns(group_columns([found], options.spans_column))
    examples = encode_of(encoder_of(found, tokenizer, options), options)(
        take(found, None if size is None or size >= len(found) else size, options.seed), first_id, member, name
    )
    if member:
        count_duplicates(examples, members=examples)
    return examples


def check_examples(members: Sequence[Encoded], heldout: Sequence[Encoded], seed: int) -> TrustReport:
    """Check two sets of examples: shared texts, and whether a text-only classifier separates them.

    Args:
        members: each with a record.
        heldout: likewise.
        seed: seed of the classifier.
    """
    texts, origins = zip(*(_columns(examples) for examples in (members, heldout)), strict=True)
    return check_texts(texts[0], texts[1], origins=origins, seed=seed)


def _columns(examples: Sequence[Encoded]) -> tuple[list[str], list[str]]:
    records = [one.record or Record("") for one in examples]
    return [one.prompt + one.text for one in records], [one.origin for one in records]
