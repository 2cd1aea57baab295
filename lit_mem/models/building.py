"""Builds the model of a run: the base, what is trained on it, and the frozen reference."""

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
    """A model that is ready to be trained and scored.

    Attributes:
        base: the base model, frozen but for what the adapter trains.
        model: the base with its adapter, in train mode.
        reference: the frozen model to compare with.
        fingerprint: `models.fingerprint.fingerprint` of the base before the adapter was put on.
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
    """Load the base, put the adapter on, and check that the reference is what it must be.

    Args:
        bases: loads the base.
        place: where it goes.
        adapter: how the base becomes trainable; or the folder of an adapter that peft saved.
        reference: the choice of the frozen model.
        check: raises unless a model, with its name, can read the texts.
        vocabulary: how many tokens the tokenizer has.

    Raises:
        ConfigError: an option does not fit the model, or it cannot read the texts.
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
    _refuse_spread_weights(base, model, adapter)
    model.train()
    return Built(base, model, choose_reference(reference, model, before, bases, place, check, vocabulary), before[0])


def _refuse_spread_weights(base: Any, model: nn.Module, adapter: Adapter | str) -> None:
    """Raise where weights would be trained that are spread over devices."""
    name = "model.adapter_path" if isinstance(adapter, str) else type(adapter).__name__
    if any(p.requires_grad and isinstance(p, DTensor) for p in model.parameters()):
        raise ConfigError(
            f"{name} trains the weights that trainer.strategy sharded spreads over devices; "
            "expected an adapter that leaves the base as it is, or trainer.strategy ddp"
        )
    if getattr(model, "peft_config", None) and is_sharded(base) and has_experts(model):
        raise ConfigError(
            "model.adapter.targets adapts experts' matrices, which trainer.strategy sharded spreads over devices; "
            "expected targets that are linear layers, or trainer.strategy ddp"
        )


def checkpoint_gradients(base: Any, private: bool) -> None:
    """Compute activations anew in the backward pass, instead of keeping them.

    Args:
        base: without its adapter.
        private: whether each text's gradient is taken by itself.
    """
    # Renamed in transformers 5.2x; the old name warns there.
    enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
    # Only in this way does each layer's gradient of each text come once, as Opacus needs it.
    enable({"use_reentrant": private})
    if private:
        base.enable_input_require_grads()


def log_sizes(model: nn.Module, name: str, reference: str) -> None:
    """Log how large a model is, what of it is trained, and what it is compared with.

    Args:
        model: with its adapter.
        name: what it is called.
        reference: what the reference is called.
    """
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    log.info(
        "Model %s: %s parameters, %s trained (%.2f %%); reference: %s.",
        name, f"{total:,}", f"{trained:,}", 100 * trained / total, reference,
    )  # fmt: skip
    if adapted := adapted_matrices(model):
        log.info("Adapted matrices: %s.", adapted)
