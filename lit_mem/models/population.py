"""A population of frozen reference models that score the same examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lit_mem.adapters.options import checked_config
from lit_mem.adapters.origin import adapter_config, check_origin
from lit_mem.adapters.targets import known_warnings_off
from lit_mem.errors import ModelError
from lit_mem.guards import preserved_random_state
from lit_mem.models.fingerprint import fingerprint
from lit_mem.models.saved_adapter import load_adapter
from lit_mem.scoring.reference_scores import ReferenceCache
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.sharding.parameters import is_sharded, put_adapter
from lit_mem.types import Batch, TokenScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Population:
    """Reference models, loaded once, frozen and in eval mode; each scores every example once.

    Plain LoRA adapters share one copy of the base. An adapter that changes more than that (trained biases or
    embeddings, an initialisation that rewrites the base) gets its own copy, and so does a full model.

    Args:
        references: folders of adapters saved by peft for the same base, recognised by their adapter_config.json; or ids
            or folders of full models with the same tokenizer.
        load_base: loads a causal language model by id or folder; for None, a fresh copy of the run's base.

    Raises:
        ModelError: a reference cannot be loaded.
    """

    def __init__(self, references: Sequence[str], load_base: Callable[[str | None], nn.Module]) -> None:
        self._load_base = load_base
        self._shared: TokenScorer | None = None
        self._fingerprint: dict[str, str] = {}
        self._members: list[tuple[TokenScorer, str | None]] = []
        # Adapters are randomly initialised before their weights are loaded; and a model loaded while Lightning
        # validates would consist of inference tensors, which cannot be modified outside inference mode.
        with preserved_random_state(), torch.inference_mode(False):
            for reference in references:
                self._members.append(self._loaded(reference))
        self._caches = [ReferenceCache() for _ in references]

    def __len__(self) -> int:
        return len(self._members)

    def __call__(self, batch: Batch) -> list[Tensor]:
        """For each reference (B, T) float32 log-probabilities in nats, on the batch's device; 0 where not scored.

        Raises:
            ModelError: a reference's vocabulary is too small for the batch.
        """
        return [
            cache.scores(batch, partial(self._score, scorer, adapter))[0]
            for cache, (scorer, adapter) in zip(self._caches, self._members, strict=True)
        ]

    @staticmethod
    def _score(scorer: TokenScorer, adapter: str | None, batch: Batch) -> TokenScores:
        model: Any = scorer.model.to(batch["input_ids"].device)
        known = model.get_input_embeddings().weight.shape[0]
        if (largest := int(batch["input_ids"].max())) >= known:
            raise ModelError(
                f"a reference has {known} tokens, but a text has token {largest}; expected references with the same "
                "tokenizer"
            )
        if adapter is not None:
            model.set_adapter(adapter)
            model.requires_grad_(False)  # enabling an adapter makes it trainable
        return scorer(batch)

    def _loaded(self, reference: str) -> tuple[TokenScorer, str | None]:
        """A reference's scorer, and its adapter's name if the scorer is shared."""
        if not (Path(reference) / "adapter_config.json").is_file():
            return _frozen(self._load_base(reference)), None
        if not _is_plain_lora(Path(reference)):
            return _frozen(self._adapted(reference)), None
        if self._shared is None:
            self._shared = _frozen(self._adapted(reference))
            return self._shared, "default"
        name = f"reference_{len(self._members)}"
        base: Any = self._shared.model
        check_origin(reference, base.get_base_model().config._name_or_path, lambda: self._fingerprint, "references")
        _add_adapter(self._shared.model, reference, name)
        return self._shared, name

    def _adapted(self, folder: str) -> nn.Module:
        base = cast("PreTrainedModel", self._load_base(None))
        self._fingerprint = self._fingerprint or fingerprint(base)  # before an adapter renames its weights
        return load_adapter(base, folder, "references")


def _frozen(model: nn.Module) -> TokenScorer:
    return TokenScorer(model.requires_grad_(False).eval())


def _is_plain_lora(folder: Path) -> bool:
    """Whether an adapter changes nothing but what its own matrices add; False if it cannot be read."""
    try:
        config = adapter_config(str(folder))
        with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
            names = list(weights.keys())
    except (OSError, ModelError, SafetensorError):
        return False  # loading it separately reports the error
    return (
        config.get("peft_type") == "LORA"
        and config.get("bias", "none") == "none"
        and config.get("init_lora_weights", True) in (True, False, "gaussian", "orthogonal")
        and not any(config.get(key) for key in ("layer_replication", "target_parameters", "trainable_token_indices"))
        and all("lora_" in name for name in names)
    )


def _add_adapter(model: Any, folder: str, name: str) -> None:
    """Load another adapter into a peft model, with the same checks as for the first.

    Raises:
        ModelError: it does not fit the model.
    """
    file = Path(folder) / "adapter_config.json"
    config = checked_config(adapter_config(folder, "references"), model.get_base_model(), str(file))
    with safe_open(file.with_name("adapter_model.safetensors"), "pt") as weights:
        saved = sum("lora_" in key for key in weights.keys())
    try:
        if is_sharded(model):
            _, missing = put_adapter(model, folder, name, config, trainable=False)
        else:
            with known_warnings_off():
                config.inference_mode = True
                model.add_adapter(name, config, low_cpu_mem_usage=True)  # for plain LoRA
                result = model.load_adapter(folder, adapter_name=name, is_trainable=False, low_cpu_mem_usage=True)
            missing = [key for key in result.missing_keys if f".{name}." in f"{key}."]
        # Weights missing from the file would stay at their initialisation.
        if missing:
            raise ValueError(f"it lacks {len(missing)} weights, such as {missing[0]}")
        parameters = [parameter for parameter, _ in model.named_parameters() if "lora_" in parameter]
        taken = sum(f".{name}." in f"{parameter}." for parameter in parameters)
        if saved > taken:
            raise ValueError(f"it has {saved} LoRA matrices, of which {taken} fit this model")
    except Exception as error:
        line = " ".join(str(error).split())[:300]
        raise ModelError(f"the adapter in {folder!r} does not fit this base model: {line}") from error
    model.requires_grad_(False).eval()
