"""The frozen reference model: the tuned model with its adapter disabled, or a copy; verified at start-up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from lit_mem.adapters.base import adapter_off, frozen_reference, gives_base_back
from lit_mem.errors import ModelError
from lit_mem.guards import evaluation_mode
from lit_mem.models.base_loader import BaseLoader, Place
from lit_mem.models.fingerprint import fingerprint
from lit_mem.scoring.reference_scores import Reference
from lit_mem.scoring.scorer import TokenScorer


def _same(model: nn.Module) -> nn.Module:
    return model


@dataclass(frozen=True)
class Setting:
    """Device and precision of model calls.

    Attributes:
        device: device of the tuned model.
        precision: the trainer's precision; "": no trainer.
        convert: converts a model to that precision.
    """

    device: torch.device
    precision: str = ""
    convert: Callable[[nn.Module], nn.Module] = _same


@dataclass(frozen=True)
class ReferenceModel:
    """The frozen model that membership attacks compare with.

    Attributes:
        name: description for messages.
        tuned: the model being tuned.
        scorer: scorer of the copy; None: no copy, the tuned model's adapter is disabled instead.
        fingerprint: `models.fingerprint.fingerprint` of its weights.
        probe: (1, 8, V) its logits for a few tokens, which would differ with other weights or kernels.
        loaded_as: precision, quantization and attention kernel.
    """

    name: str
    tuned: nn.Module
    scorer: TokenScorer | None
    fingerprint: dict[str, str]
    probe: Tensor
    loaded_as: str

    def context(self, setting: Setting) -> AbstractContextManager[nn.Module]:
        """The model to call, in eval mode, without gradients."""
        # A copy is not a submodule, so it is not converted to the trainer's precision with the tuned model.
        copy = None if self.scorer is None else setting.convert(self.scorer.model.to(setting.device))
        return frozen_reference(self.tuned, copy)

    def settings(self, setting: Setting) -> dict[str, str]:
        """Everything except the batch that its scores depend on, bit for bit."""
        kind = setting.device.type
        device = torch.cuda.get_device_name(setting.device) if kind == "cuda" else kind
        # Nothing about the adapter: disabled it gives the base bit for bit, which was checked when it was added, so
        # runs with other adapters share the scores.
        return {
            "model": json.dumps(self.fingerprint, sort_keys=True),
            "probe": hashlib.sha256(self.probe.float().cpu().numpy().tobytes()).hexdigest(),
            "loaded": self.loaded_as,
            "precision": setting.precision,
            "machine": f"{device}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
            "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        }


def probe(model: nn.Module) -> Tensor:
    """(1, 8, V) logits for a few tokens, to compare a model with itself later."""
    ids = torch.arange(1, 9, device=next(model.parameters()).device)[None]
    with evaluation_mode(model):
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
        return logits.clone()


def choose_reference(
    reference: Reference,
    tuned: nn.Module,
    before: tuple[dict[str, str], Tensor],
    bases: BaseLoader,
    place: Place,
    check: Callable[[Any, str], None],
    vocabulary: Callable[[], int],
) -> ReferenceModel:
    """The reference of a tuned model: the configured one, or the right one for its adapter.

    Args:
        reference: options of the reference.
        tuned: the model with its adapter.
        before: fingerprint and probe of its base before the adapter was added.
        bases: loads a copy if needed.
        place: where to put the copy.
        check: raises if a model, given with its name, cannot process the texts.
        vocabulary: number of tokens in the tokenizer.

    Raises:
        ModelError: it is not the base, or has another vocabulary.
        ConfigError: it cannot process the texts.
    """
    other = reference.model_id
    known = gives_base_back(tuned) and other is None
    if reference.kind == "adapter_off" or (reference.kind == "auto" and known):
        with adapter_off(tuned) as off:
            after = probe(off)
        if not torch.equal(before[1], after):
            raise ModelError(
                "with the adapter disabled the model differs from its base (logits differ by up to "
                f"{(before[1] - after).abs().max().item():.3g}), so it cannot be the reference; "
                "set model.reference.kind to copy"
            )
        return ReferenceModel("the same weights, adapter off", tuned, None, *before, bases.loaded_as)
    copy = bases.load(place) if other is None else bases.load(place, other, "model.reference.model_id")
    if other is not None and copy.get_input_embeddings().weight.shape[0] < vocabulary():
        raise ModelError(f"model.reference.model_id {other!r} has another vocabulary than the tokenizer")
    check(copy, other or bases.model_id)
    numbers, logits = fingerprint(copy), probe(copy)
    scorer = TokenScorer(copy.eval())  # not a submodule: kept out of checkpoints and wrappers
    return ReferenceModel(
        f"a frozen copy of {other or bases.model_id}", tuned, scorer, numbers, logits, bases.loaded_as
    )
