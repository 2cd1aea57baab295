"""Build the model of a run: the base, its adapter, and the frozen reference."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.distributed.tensor import DTensor

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.experts import has_experts
from lit_mem.adapters.targets import adapted_matrices
from lit_mem.errors import ConfigError
from lit_mem.models.added_tokens import fit_vocabulary
from lit_mem.models.base_loader import BaseLoader, Place
from lit_mem.models.fingerprint import fingerprint
from lit_mem.models.reference_model import ReferenceModel, choose_reference, probe
from lit_mem.models.saved_adapter import load_adapter
from lit_mem.scoring.reference_scores import Reference
from lit_mem.sharding.parameters import is_sharded, whole_shapes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """A model ready for training and scoring.

    Attributes:
        base: the base model, frozen except for what the adapter trains.
        model: the base with its adapter, in train mode.
        reference: the frozen reference model.
        fingerprint: `models.fingerprint.fingerprint` of the base before the adapter was added.
    """

    base: Any
    model: nn.Module
    reference: ReferenceModel
    fingerprint: dict[str, str]


def build(
    bases: BaseLoader,
    place: Place,
    adapter: Adapter | str,
    reference: Reference,
    check: Callable[[Any, str], None],
    vocabulary: Callable[[], int],
) -> Built:
    """Load the base, add the adapter, and verify the reference.

    Args:
        bases: loads the base.
        place: where to put it.
        adapter: the adapter to add, or the folder of an adapter saved by peft.
        reference: options of the frozen reference.
        check: raises if a model, given with its name, cannot process the texts.
        vocabulary: number of tokens in the tokenizer.

    Raises:
        ConfigError: an option does not fit the model, or the model cannot process the texts.
        ModelError: a model or an adapter cannot be loaded, or the reference is not the base.
    """
    base = bases.load(place)
    check(base, bases.model_id)
    if isinstance(adapter, str):
        fit_vocabulary(base, adapter)
    before = fingerprint(base), probe(base)
    if isinstance(adapter, str):
        model = load_adapter(base, adapter)
    else:
        with whole_shapes(base):
            model = adapter.wrap(base)
    check(model, bases.model_id)
    _reject_sharded_weights(base, model, adapter)
    model.train()
    return Built(base, model, choose_reference(reference, model, before, bases, place, check, vocabulary), before[0])


def _reject_sharded_weights(base: Any, model: nn.Module, adapter: Adapter | str) -> None:
    """Raise if weights that are sharded over devices would be trained."""
    name = "model.adapter_path" if isinstance(adapter, str) else type(adapter).__name__
    if any(p.requires_grad and isinstance(p, DTensor) for p in model.parameters()):
        raise ConfigError(
            f"{name} trains weights that trainer.strategy sharded distributes over devices; "
            "expected an adapter that does not train the base, or trainer.strategy ddp"
        )
    if getattr(model, "peft_config", None) and is_sharded(base) and has_experts(model):
        raise ConfigError(
            "model.adapter.targets adapts experts' matrices, which trainer.strategy sharded distributes over devices; "
            "expected targets that are linear layers, or trainer.strategy ddp"
        )


def checkpoint_gradients(base: Any, private: bool) -> None:
    """Enable gradient checkpointing: recompute activations in the backward pass.

    Args:
        base: the base without its adapter.
        private: whether per-text gradients are computed.
    """
    # Renamed in transformers 5.2x; the old name warns there.
    enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
    # Only then is each layer's per-text gradient computed once, as Opacus requires.
    enable({"use_reentrant": private})
    if private:
        base.enable_input_require_grads()


def log_sizes(model: nn.Module, name: str, reference: str) -> None:
    """Log a model's size, its trained parameters, and its reference.

    Args:
        model: the model with its adapter.
        name: name of the model.
        reference: name of the reference.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    log.info(
        "Model %s: %s parameters, %s trained (%.2f %%); reference: %s.",
        name, f"{total:,}", f"{trained:,}", 100 * trained / total, reference,
    )  # fmt: skip
    if adapted := adapted_matrices(model):
        log.info("Adapted matrices: %s.", adapted)
