"""What a run is of, as its first measuring pass finds it, for `facts.json`."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lit_mem.adapters.base import gives_base_back
from lit_mem.audit.subject_models import name_of
from lit_mem.data.encoding import Encoded
from lit_mem.data.examples import Examples
from lit_mem.data.members import texts_of
from lit_mem.data.prepare import Prepared
from lit_mem.files.facts import Facts, SetFacts
from lit_mem.files.hashes import Hashed, hashed
from lit_mem.files.software import versions
from lit_mem.models.fingerprint import fingerprint
from lit_mem.privacy.corpus import new_salt, salted_digest

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


def started_facts(started: str) -> Facts:
    """Those that every run has: when it started, and versions.

    Args:
        started: the time, as `lit_mem.files.facts.now` has it.
    """
    return Facts(started, versions())


def with_model(facts: Facts, model: nn.Module, training: bool, step: int) -> Facts:
    """Facts, and those of a user's own model.

    Args:
        facts: of the run.
        model: a Hugging Face model, with or without an adapter of peft's.
        training: whether it is trained; False: it is measured as it is.
        step: of training so far.
    """
    return replace(
        facts,
        base=name_of(model),
        # Once all weights have been trained they are not those of a base any more.
        fingerprint={} if training and step else base_fingerprint(model),
        trained=trained_parameters(model) if training else adapter_parameters(model),
        parameters=all_parameters(model),
    )


def with_texts(facts: Facts, found: Prepared, others: Dataset | None = None) -> Facts:
    """Facts, and those of the texts that `prepare` made a run's examples of.

    Args:
        facts: of the run.
        found: its texts; the members are trained on, or were.
        others: rows that members are compared with; None: the held-out ones.
    """
    groups, rows = found.texts.groups(test=others is not None), found.texts.train
    members = SetFacts(len(rows), number_of_tokens(found.train), persons_in(groups.members))
    others = found.texts.heldout if others is None else others
    heldout = SetFacts(len(others), None, persons_in(groups.others))
    return with_digests(replace(facts, members=members, heldout=heldout), texts_of(rows), texts_of(others))


def with_digests(facts: Facts, members: Iterable[str], heldout: Iterable[str] | None) -> Facts:
    """Facts, and keyed digests of both sets under a salt that is drawn for the run.

    Args:
        facts: of the run.
        members: all texts of the training set.
        heldout: all held-out texts; None: not known.
    """
    try:
        salted = new_salt()
        ours = replace(facts.members, digest=salted_digest(members, salted.salt))
        theirs = facts.heldout
        if heldout is not None:
            theirs = replace(theirs, digest=salted_digest(heldout, salted.salt))
    except OSError as error:
        log.warning("facts.json gets no digest of the texts: %s: %s.", error.filename, error.strerror)
        return facts
    return replace(facts, members=ours, heldout=theirs, digest_salt=salted.salt, digest_key=salted.key)


def persons_in(counts: Mapping[str, int]) -> int | None:
    """How many persons or documents rows are of; None: no two rows are known to be of one."""
    return len(counts) or None


def number_of_tokens(examples: Sequence[Encoded]) -> int:
    """Tokens of all examples, prompts included."""
    if isinstance(examples, Examples):
        return int(examples.lengths.sum())
    return sum(len(one.input_ids) for one in examples)


def trained_parameters(model: nn.Module) -> int:
    """Parameters that an optimizer may change."""
    return sum(_size(p) for p in model.parameters() if p.requires_grad)


def all_parameters(model: nn.Module) -> int:
    """Parameters of a model, its adapter included."""
    return sum(map(_size, model.parameters()))


def adapter_parameters(model: nn.Module) -> int | None:
    """Parameters of an adapter of peft's, as it is saved, trainable now or not; None: there is none."""
    if not getattr(model, "peft_config", None):
        return None
    from peft import get_peft_model_state_dict

    saved: dict[str, Tensor] = get_peft_model_state_dict(model)  # type: ignore[no-untyped-call]
    return sum(weight.numel() for weight in saved.values())


def base_fingerprint(model: Any) -> dict[str, str]:
    """The fingerprint of a model without its adapter; {} where the adapter has changed the base, or is none of LoRA's.

    Args:
        model: a Hugging Face model that is its own base, or one with an adapter of peft's on it.
    """
    if not hasattr(model, "get_input_embeddings"):
        return {}
    if not getattr(model, "peft_config", None):
        return fingerprint(model)
    adapter = getattr(getattr(model, "base_model", None), "prefix", None)
    if not isinstance(adapter, str) or not gives_base_back(model):
        return {}
    named = [pair for pair in model.get_base_model().named_parameters() if adapter not in pair[0]]
    if any(".modules_to_save." in name for name, _ in named):
        return {}
    return fingerprint(model.get_base_model(), [(name.replace(".base_layer.", "."), p) for name, p in named])


def adapter_files(folder: str | None) -> list[Hashed]:
    """The files of an adapter's folder with their SHA-256; [] where it is no folder here, or cannot be read."""
    if folder is None or not Path(folder).is_dir():
        return []
    try:
        return hashed(Path(folder), Path(folder).iterdir())
    except OSError as error:
        log.warning("facts.json gets no hashes of the adapter: %s: %s.", error.filename, error.strerror)
        return []


def _size(parameter: nn.Parameter) -> int:
    """Numbers in a parameter; of one in 4 bits, of which a byte holds two, those that it stands for."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    return parameter.numel() if shape is None else math.prod(shape)
