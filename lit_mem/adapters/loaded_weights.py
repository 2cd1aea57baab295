"""Check that a model's files contain every weight of its configuration; missing ones would be random."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from lit_mem.adapters.text_decoder import text_parameters
from lit_mem.errors import ModelError

log = logging.getLogger(__name__)

_NUMBER: Final = re.compile(r"(?<=\.)\d+(?=\.)")


def check_loaded(model: Any, what: str, info: Mapping[str, Any]) -> None:
    """Reject a model with weights that did not come from its files.

    Tied weights (an output layer tied to the embeddings) count once, under any of their names. For a model that also
    takes images or audio, only the parts used for text count. Weights in the files that the model does not use are
    logged.

    Args:
        model: returned by `from_pretrained`.
        what: description for messages, such as "model_id './llama'".
        info: the loading info that `from_pretrained` returns with `output_loading_info=True`.

    Raises:
        ModelError: a weight is missing from the files, or has another shape there.
    """
    used = set(map(id, text_parameters(model)))
    needed = {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in used}
    if missing := sorted(needed & set(info["missing_keys"])):
        raise ModelError(lacks(what, missing, len(used)))
    if mismatched := sorted((name, tuple(there), tuple(here)) for name, there, here in info.get("mismatched_keys", ())):
        name, there, here = mismatched[0]
        others = f" (and {len(mismatched) - 1} more)" if len(mismatched) > 1 else ""
        raise ModelError(
            f"{what}: {name} is {there} in its files, but {here} in its configuration{others}; expected "
            "configuration and weights of one model"
        )
    if surplus := sorted(info.get("unexpected_keys", ())):
        log.warning(
            "%s: its files have %d weights that are not in its configuration (%s); they are ignored.",
            what[:1].upper() + what[1:], len(surplus), grouped(surplus),
        )  # fmt: skip


def lacks(what: str, missing: Collection[str], of: int) -> str:
    """The message for weights missing from a model's files.

    Args:
        what: description of the model.
        missing: names of the missing weights.
        of: total number of weights.
    """
    return (
        f"{what}: its files lack {len(missing)} of {of} weights of its configuration ({grouped(missing)});  "
        "they would be random; expected complete weights with a matching configuration"
    )


def grouped(names: Iterable[str], most: int = 4) -> str:
    """Names in short form: those that differ only in the layer index are merged, such as layers.{4,5}.mlp.weight.

    Args:
        names: names of weights.
        most: maximum number of merged names to show; the others are counted.
    """
    groups: dict[tuple[str, str], set[int]] = {}
    for name in names:
        found = _NUMBER.search(name)
        before, number, after = (name[: found.start()], found[0], name[found.end() :]) if found else (name, "-1", "")
        groups.setdefault((before, after), set()).add(int(number))
    shown = []
    for (before, after), numbers in sorted(groups.items())[:most]:
        several = ",".join(map(str, sorted(numbers)))
        shown.append(before + (several if len(numbers) == 1 else f"{{{several}}}") * (numbers != {-1}) + after)
    return ", ".join(shown) + (f" and {len(groups) - most} more kinds" if len(groups) > most else "")


@contextmanager
def without_load_report() -> Iterator[None]:
    """Suppress transformers' loading report, which `check_loaded` replaces by one line."""
    # The last logs unsharded layers if the first has its own level.
    names = ("modeling_utils", "utils.loading_report", "distributed.tensor_parallel")
    loggers = [logging.getLogger(f"transformers.{name}") for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
