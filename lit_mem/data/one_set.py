"""One set of texts as examples, and what can be trusted of two such sets."""

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
        name: what the set is called in messages.
        tokenizer: of the model.
        options: how texts are encoded, the seed of the subset, and whether columns that name persons are kept.
        size: how many texts; None or more than there are: all.
        member: whether they are in the fine-tuning set.
        first_id: ids count up from here.
        fields: which columns hold the texts.
        counted: gets how many rows each person or document has, by name; None: nothing is counted.

    Raises:
        DataError: a row is not what was expected.
        ConfigError: `rows` is of no known form.
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
    """Check two sets of examples: texts on both sides, and whether text alone shows which set one is of.

    Args:
        members: each with a record.
        heldout: likewise.
        seed: of the classifier.
    """
    texts, origins = zip(*(_columns(examples) for examples in (members, heldout)), strict=True)
    return check_texts(texts[0], texts[1], origins=origins, seed=seed)


def _columns(examples: Sequence[Encoded]) -> tuple[list[str], list[str]]:
    records = [one.record or Record("") for one in examples]
    return [one.prompt + one.text for one in records], [one.origin for one in records]
