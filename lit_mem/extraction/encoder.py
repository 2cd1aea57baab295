"""A frozen transformers encoder, for the measures that compare meaning."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_mem.errors import ModelError, check_range
from lit_mem.extraction.base import Continuation
from lit_mem.extraction.precision import own_precision
from lit_mem.guards import preserved_random_state
from lit_mem.models.hub import load_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)


class EncodedText(NamedTuple):
    """The tokens of a text as encoded by a model.

    Attributes:
        states: (n, D) float32 on the CPU, one vector per token, special tokens included.
        own: (n,) bool, False for special tokens that the tokenizer added.
    """

    states: Tensor
    own: Tensor


class Encoder:
    """Loads a model on first use and keeps it outside the module tree that is trained and saved.

    It is not an `nn.Module`, so that neither checkpoints nor Lightning's wrappers see the weights. They are float32
    and in eval mode, whatever the trainer's precision.

    Args:
        who: the measure that uses it, for messages.
        model: hub id, local folder, or `asset:<name>` for a bundled model. Weights must be saved as .safetensors;
            custom code of a model is never run.
        layer: hidden states to return: 0 the embeddings, 1 the first layer's output, …; None: the last.
        batch_size: number of texts per forward pass.
        device: device of the model; None: the current CUDA device if available, else the CPU.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, who: str, model: str, layer: int | None, batch_size: int, device: str | None) -> None:
        check_range(f"{who}.layer", layer, at_least=0, or_null=True, hint=" for the last (0: the embeddings)")
        check_range(f"{who}.batch_size", batch_size, at_least=1)
        self.who, self.model = who, model
        self.layer, self.batch_size, self.device = layer, batch_size, device
        self._loaded: tuple[PreTrainedTokenizerBase, PreTrainedModel] | None = None

    def compare(
        self, continuations: Sequence[Continuation], similarity: Callable[[EncodedText, EncodedText], float]
    ) -> list[float]:
        """Compare generated texts with the true ones, in the given order.

        Args:
            continuations: any number.
            similarity: similarity of generated and true text, each with at least one non-special token.

        Returns:
            Values of `similarity`; 0 if no word was generated (or none that the tokenizer can encode), and exactly 1
            if the true text was generated.

        Raises:
            ModelError: the model cannot be loaded, has no such layer, or gives non-finite values.
        """
        given = {i: c for i, c in enumerate(continuations) if c.generated.split() and c.generated != c.truth}
        encoded = self._encode({text for c in given.values() for text in (c.generated, c.truth)})
        results = [float(c.generated == c.truth) for c in continuations]
        for i, c in given.items():
            generated, truth = encoded[c.generated], encoded[c.truth]
            if generated.own.any() and truth.own.any():
                results[i] = similarity(generated, truth)
        return results

    def _encode(self, texts: set[str]) -> dict[str, EncodedText]:
        if not texts:
            return {}
        # Normal tensors even if the caller is in inference mode, since the model is kept afterwards.
        with torch.inference_mode(False), torch.no_grad():
            tokenizer, model = self._load()
            limit = _longest_input(tokenizer, model)
            ordered = sorted(texts)
            tokens = tokenizer(ordered, truncation=limit is not None, max_length=limit, return_special_tokens_mask=True)
            ids = [torch.tensor(row, dtype=torch.int64) for row in tokens["input_ids"]]
            own = [torch.tensor(row, dtype=torch.int64) == 0 for row in tokens["special_tokens_mask"]]
            # Sorted by length, to minimize padding.
            order = sorted(range(len(ordered)), key=lambda i: len(ids[i]))
            encoded = {}
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                states = self._states(model, [ids[i] for i in rows], tokenizer.pad_token_id or 0)
                encoded.update({ordered[i]: EncodedText(s, own[i]) for i, s in zip(rows, states, strict=True)})
        return encoded

    def _states(self, model: PreTrainedModel, rows: Sequence[Tensor], pad: int) -> list[Tensor]:
        """(n, D) hidden states of each row of ids; always padded on the right."""
        device = next(model.parameters()).device
        lengths = [len(row) for row in rows]
        ids = nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=pad)
        if ids.shape[1] == 0:
            return [torch.zeros(0, 1, dtype=torch.float32) for _ in rows]
        known = model.get_input_embeddings().weight.shape[0]
        if (highest := int(ids.max())) >= known:
            raise ModelError(
                f"{self.who}.model {self.model!r}: its tokenizer gives token {highest}, the model has {known} tokens"
            )
        mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
        with own_precision(torch.float32, device.type):
            output = model(
                input_ids=ids.to(device),
                attention_mask=mask.long().to(device),
                output_hidden_states=self.layer is not None,
            )
        if self.layer is None:
            states = output.last_hidden_state
        elif self.layer < len(output.hidden_states):
            states = output.hidden_states[self.layer]
        else:
            raise ModelError(
                f"{self.who}.layer is {self.layer}; {self.model!r} has layers 0 (the embeddings) to "
                f"{len(output.hidden_states) - 1}"
            )
        found = [state[:n] for state, n in zip(states.float().cpu(), lengths, strict=True)]
        if not all(state.isfinite().all() for state in found):
            raise ModelError(f"{self.who}.model {self.model!r} gives non-finite hidden states")
        return found

    def _load(self) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
        if self._loaded is None:
            # Weights missing from the file, such as an unused pooler, are initialized randomly.
            with preserved_random_state():
                self._loaded = _load(f"{self.who}.model", self.model)
            device = self.device
            if device is None:
                device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
            self._loaded[1].to(device)
            log.info("%s loaded %s onto %s.", self.who, self.model, device)
        return self._loaded


def _load(option: str, name: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    from transformers import AutoModel

    tokenizer = load_tokenizer(name, option=option)
    model, found = load_model(AutoModel, name, option, dtype=torch.float32)
    if missing := sorted(key for key in found["missing_keys"] if not key.startswith("pooler.")):
        raise ModelError(
            f"{option} {name!r} lacks {len(missing)} weights of a {type(model).__name__} ({missing[0]}, …); "
            "randomly initialized they would measure nothing"
        )
    if model.config.is_encoder_decoder:
        raise ModelError(f"{option} {name!r} is an encoder-decoder; expected an encoder such as BERT")
    return tokenizer, model.requires_grad_(False).eval()


def _longest_input(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int | None:
    """Maximum number of tokens of the model's input; None without a limit."""
    limits: list[Any] = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa's positions start after its padding token's id.
            taken = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - taken)
    # Tokenizers without a limit report 10^30, XLNet's −1.
    known = [int(limit) for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(known, default=None)
