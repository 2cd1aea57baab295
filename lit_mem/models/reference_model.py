"""The frozen reference model: the tuned one with its adapter off, or a copy; and a check that it is what it must be."""

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
    """Where and how models are called.

    Attributes:
        device: of the tuned model.
        precision: of the trainer; "": there is none.
        convert: puts a model into that precision.
    """

    device: torch.device
    precision: str = ""
    convert: Callable[[nn.Module], nn.Module] = _same


@dataclass(frozen=True)
class ReferenceModel:
    """The frozen model that membership is judged against.

    Attributes:
        name: what it is, for messages.
        tuned: the model being tuned.
        scorer: of the copy; None: there is none, and the tuned model's adapter is turned off.
        fingerprint: `models.fingerprint.fingerprint` of its weights.
        probe: (1, 8, V) its logits of a few tokens, which other weights or other kernels would change.
        loaded_as: precision, quantization and attention kernel.
    """

    name: str
    tuned: nn.Module
    scorer: TokenScorer | None
    fingerprint: dict[str, str]
    probe: Tensor
    loaded_as: str

    def context(self, setting: Setting) -> AbstractContextManager[nn.Module]:
        """The model to call; in eval mode, without gradients."""
        # Not being a submodule, a copy does not follow the tuned model into the trainer's precision by itself.
        copy = None if self.scorer is None else setting.convert(self.scorer.model.to(setting.device))
        return frozen_reference(self.tuned, copy)

    def settings(self, setting: Setting) -> dict[str, str]:
        """All that its scores depend on, to the last bit, beside the batch."""
        kind = setting.device.type
        device = torch.cuda.get_device_name(setting.device) if kind == "cuda" else kind
        # Nothing of the adapter: turned off it leaves the base to the last bit, which was checked when it was put on,
        # so that runs with other adapters share the scores.
        return {
            "model": json.dumps(self.fingerprint, sort_keys=True),
            "probe": hashlib.sha256(self.probe.float().cpu().numpy().tobytes()).hexdigest(),
            "loaded": self.loaded_as,
            "precision": setting.precision,
            "machine": f"{device}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
            "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        }


def probe(model: nn.Module) -> Tensor:
    """(1, 8, V) logits of a few tokens, to compare a model with itself later."""
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
    """The reference of a tuned model: that which was chosen, or what is right for its adapter.

    Args:
        reference: what was chosen.
        tuned: the model with its adapter.
        before: fingerprint and probe of its base before the adapter was put on.
        bases: loads a copy.
        place: where the copy goes.
        check: raises unless a model, with its name, can read the texts.
        vocabulary: how many tokens the tokenizer has.

    Raises:
        ModelError: it is not the base, or has another vocabulary.
        ConfigError: it cannot read the texts.
    """
    other = reference.model_id
    known = gives_base_back(tuned) and other is None
    if reference.kind == "adapter_off" or (reference.kind == "auto" and known):
        with adapter_off(tuned) as off:
            after = probe(off)
        if not torch.equal(before[1], after):
            raise ModelError(
                "with the adapter off the model is not its base any more (logits differ by up to "
                f"{(before[1] - after).abs().max().item():.3g}), so it cannot be the reference; "
                "set model.reference.kind to copy"
            )
        return ReferenceModel("the same weights, adapter off", tuned, None, *before, bases.loaded_as)
    copy = bases.load(place) if other is None else bases.load(place, other, "model.reference.model_id")
    if other is not None and copy.get_input_embeddings().weight.shape[0] < vocabulary():
        raise ModelError(f"model.reference.model_id {other!r} has another vocabulary")
    check(copy, other or bases.model_id)
    numbers, logits = fingerprint(copy), probe(copy)
    scorer = TokenScorer(copy.eval())  # not a submodule: out of checkpoints and wrappers
    return ReferenceModel(
        f"a frozen copy of {other or bases.model_id}", tuned, scorer, numbers, logits, bases.loaded_as
    )
