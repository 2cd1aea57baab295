"""Provenance of a run (models, texts, versions), collected in its first measuring pass for `facts.json`."""

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
    """Start time and software versions.

    Args:
        started: the time, as formatted by `lit_mem.files.facts.now`.
    """
    return Facts(started, versions())


def with_model(facts: Facts, model: nn.Module, training: bool, step: int) -> Facts:
    """Add the facts of a user's own model.

    Args:
        facts: facts of the run.
        model: a Hugging Face model, with or without a peft adapter.
        training: whether the model is being trained; False if it is measured as it is.
        step: training steps so far.
    """
    return replace(
        facts,
        base=name_of(model),
        # After full fine-tuning the weights are no longer those of a base.
        fingerprint={} if training and step else base_fingerprint(model),
        trained=trained_parameters(model) if training else adapter_parameters(model),
        parameters=all_parameters(model),
    )


def with_texts(facts: Facts, found: Prepared, others: Dataset | None = None) -> Facts:
    """Add the facts of the texts that `prepare` encoded.

    Args:
        facts: facts of the run.
        found: the prepared texts; the members are the training set.
        others: rows that members are compared with; None: the held-out ones.
    """
    groups, rows = found.texts.groups(test=others is not None), found.texts.train
    members = SetFacts(len(rows), number_of_tokens(found.train), persons_in(groups.members))
    others = found.texts.heldout if others is None else others
    heldout = SetFacts(len(others), None, persons_in(groups.others))
    return with_digests(replace(facts, members=members, heldout=heldout), texts_of(rows), texts_of(others))


def with_digests(facts: Facts, members: Iterable[str], heldout: Iterable[str] | None) -> Facts:
    """Add keyed digests of both sets, under a salt drawn for this run.

    Args:
        facts: facts of the run.
        members: all texts of the training set.
        heldout: all held-out texts; None if not known.
    """
    try:
        salted = new_salt()
        ours = replace(facts.members, digest=salted_digest(members, salted.salt))
        theirs = facts.heldout
        if heldout is not None:
            theirs = replace(theirs, digest=salted_digest(heldout, salted.salt))
    except OSError as error:
        log.warning("facts.json has no digest of the texts: %s: %s.", error.filename, error.strerror)
        return facts
    return replace(facts, members=ours, heldout=theirs, digest_salt=salted.salt, digest_key=salted.key)


def persons_in(counts: Mapping[str, int]) -> int | None:
    """Number of persons or documents among the rows; None if no two rows are known to share one."""
    return len(counts) or None


def number_of_tokens(examples: Sequence[Encoded]) -> int:
    """Total number of tokens of all examples, prompts included."""
    if isinstance(examples, Examples):
        return int(examples.lengths.sum())
    return sum(len(one.input_ids) for one in examples)


def trained_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(_size(p) for p in model.parameters() if p.requires_grad)


def all_parameters(model: nn.Module) -> int:
    """Number of parameters of a model, its adapter included."""
    return sum(map(_size, model.parameters()))


def adapter_parameters(model: nn.Module) -> int | None:
    """Number of parameters of a peft adapter as saved, frozen ones included; None without an adapter."""
    if not getattr(model, "peft_config", None):
        return None
    from peft import get_peft_model_state_dict

    saved: dict[str, Tensor] = get_peft_model_state_dict(model)  # type: ignore[no-untyped-call]
    return sum(weight.numel() for weight in saved.values())


def base_fingerprint(model: Any) -> dict[str, str]:
    """Fingerprint of a model without its adapter; {} if the adapter changes the base weights or is not LoRA-like.

    Args:
        model: a Hugging Face model that is its own base, or one with a peft adapter.
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
    """Files of an adapter folder with their SHA-256; [] if it is not a readable local folder."""
    if folder is None or not Path(folder).is_dir():
        return []
    try:
        return hashed(Path(folder), Path(folder).iterdir())
    except OSError as error:
        log.warning("facts.json has no hashes of the adapter: %s: %s.", error.filename, error.strerror)
        return []


def _size(parameter: nn.Parameter) -> int:
    """Number of elements of a parameter; for 4-bit weights, of the unpacked weight."""
    shape = getattr(getattr(parameter, "quant_state", None), "shape", None)
    return parameter.numel() if shape is None else math.prod(shape)
