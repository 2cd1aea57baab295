"""Remarks about the texts that affect the metrics."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import torch

from lit_mem.data.encoding import Encoded
from lit_mem.functional.runs import runs
from lit_mem.functional.words import scripts_without_spaces


def on_scripts(texts: Iterable[str]) -> str | None:
    """A message about texts in scripts without spaces, whose characters count as words; None if there are none."""
    found, total, scripts = 0, 0, set[str]()
    for text in texts:
        total += 1
        if mine := scripts_without_spaces(text):
            found += 1
            scripts |= mine
    if not found:
        return None
    return (
        f"{found} of {total} texts are in a script without spaces between words ({', '.join(sorted(scripts))}): each "
        "of its characters counts as a word (n-gram rate, ROUGE-L, BLEU, near duplicates, text-only classifier)."
    )


def on_end_tokens(examples: Iterable[Encoded], ends: Collection[int], tokenizer: Any) -> str | None:
    """A message about texts with an inner end token, after which extraction measures stop; None if there are none.

    Args:
        examples: the texts; identical rows of one id count once.
        ends: ids of the tokens at which decoding stops.
        tokenizer: decodes them.
    """
    wanted = torch.tensor(sorted(ends))
    listed = wanted.numpy()
    behind = scored = 0
    known, ended, met, rows = set[int](), set[int](), set[int](), set[int]()
    for example in examples:  # a long text has several rows, and a canary several identical ones
        key = hash((example.example_id, example.input_ids.numpy().tobytes()))
        if key in rows:
            continue
        rows.add(key)
        known.add(example.example_id)
        mask = example.scored
        scored += int(mask.sum())
        if not np.isin(example.input_ids.numpy()[mask.numpy()], listed).any():
            continue  # as in nearly every text
        for run in runs(mask):  # one for a plain text, one per turn of a conversation
            own = example.input_ids[run]
            places = torch.isin(own, wanted).nonzero().flatten()
            if len(places) and int(places[0]) < len(own) - 1:
                behind += len(own) - 1 - int(places[0])
                met.update(own[places].tolist())
                ended.add(example.example_id)
    if not ended:
        return None
    names = ", ".join(str(name) for name in tokenizer.convert_ids_to_tokens(sorted(met)))
    return (
        f"{len(ended)} of {len(known)} texts have an end token ({names}) before their end, where decoding stops: "
        f"extraction measures use a suffix up to its first end token. {behind / scored:.0%} of the scored tokens come "
        "after the first end token of their text."
    )
