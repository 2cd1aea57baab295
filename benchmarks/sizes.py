"""Memory and time of a LLaMA-architecture model: the formulas of `benchmarks.scaling`; nothing is measured.

Bytes are those of tensors that exist at once, without allocator overhead, library buffers, and the program itself.
Operations are two per parameter that a token is multiplied with, forward. Attention's token-by-token products are not
included (0.5 % of LLaMA 2 7B's at 256 tokens per text), nor are norms, softmax and the adapter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

MIB: Final = 2**20
GIB: Final = 2**30
NF4_BITS: Final = 4 + 8 / 64 + 32 / (64 * 256)
"""A weight in nf4: 4 bits, 8 for the scale of 64 weights, 32 for the scale of 256 such scales (double quantization)."""
TRAINING_LOGITS: Final = 2**25
SCORING_LOGITS: Final = 2**26
SCORING_CHUNK: Final = 1024
PROCESSOR_BLOCK: Final = 1_600_000
"""Maximum logits, and their tokens, at once: those of `lit_mem.training.head_loss` and `lit_mem.scoring.scorer`."""
_SHARE_AN_INPUT: Final = {"q": "normed", "k": "normed", "v": "normed", "gate": "mlp", "up": "mlp"}


@dataclass(frozen=True)
class Shape:
    """A LLaMA-architecture model in plain numbers; `tied`: the output layer is the embedding table."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool = False

    @classmethod
    def of(cls, config: Any) -> Shape:
        """That of a Hugging Face configuration."""
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size")
        return cls(*(getattr(config, name) for name in names), config.vocab_size, config.tie_word_embeddings)

    @property
    def kv(self) -> int:
        """Width of the keys, and of the values."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """A decoder layer's matrices by short name: (into, out)."""
        h, i = self.hidden, self.intermediate
        return {
            "q": (h, h), "k": (h, self.kv), "v": (h, self.kv), "o": (h, h), "gate": (h, i), "up": (h, i), "down": (i, h)
        }  # fmt: skip

    @property
    def in_layers(self) -> int:
        """Parameters of all decoder layers' matrices."""
        return self.layers * sum(into * out for into, out in self.matrices.values())

    @property
    def table(self) -> int:
        """Parameters of the embedding table; of the output layer as many."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All of them, norms included."""
        return self.in_layers + self.table * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with."""
        return self.in_layers + self.table

    def adapter(self, rank: int, targets: Sequence[str]) -> int:
        """Parameters of a LoRA on these matrices of every layer."""
        return self.layers * rank * sum(sum(self.matrices[name]) for name in targets)


LLAMA_2: Final = {
    "7B": Shape(4096, 32, 32, 32, 11008, 32000),
    "13B": Shape(5120, 40, 40, 40, 13824, 32000),
    "70B": Shape(8192, 80, 64, 8, 28672, 32000),
}


# -- bytes -------------------------------------------------------------------------------------------------


def base_bytes(shape: Shape, width: int = 2, quantized: bool = False) -> float:
    """The frozen base at `width` bytes a weight; quantized, the decoder layers' matrices are in nf4, and no others."""
    matrices = shape.in_layers * (NF4_BITS / 8 if quantized else width)
    return matrices + (shape.parameters - shape.in_layers) * width


def sharded_bytes(shape: Shape, devices: int, width: int = 2) -> float:
    """The base's shard on one of several devices, plus three gathered layers: the running and the next one.

    The next is gathered into one buffer and copied from there, hence three.
    """
    norms = 2 * shape.layers * shape.hidden
    layers = (shape.in_layers + norms) * width
    return base_bytes(shape, width) - layers + layers / devices + (3 * layers / shape.layers if devices > 1 else 0)


def adapter_bytes(trained: int, devices: int = 1) -> int:
    """Float32 weights, gradients and Adam's two moments; on several devices DDP's buckets of gradients too."""
    return trained * (16 if devices == 1 else 20)


def saved_bytes(shape: Shape, rank: int, targets: Sequence[str], width: int = 2, dropout: bool = True) -> int:
    """Bytes that one decoder layer keeps per token for the backward pass.

    The float32 input of both norms; queries, keys, values, result and normaliser of attention; three activations of
    the MLP; of an adapted matrix its input, its dropout mask and the inner product. A frozen matrix keeps nothing.
    """
    h, i = shape.hidden, shape.intermediate
    kept = 2 * (4 * h + 4) + width * (2 * h + 2 * shape.kv) + 4 * shape.heads + 3 * width * i
    # In one precision and without dropout, all consumers of an input share it.
    shared = width == 4 and not dropout
    inputs = {_SHARE_AN_INPUT.get(name, name) if shared else name: shape.matrices[name][0] for name in targets}
    return kept + sum(inputs.values()) * (width + dropout) + len(targets) * rank * width


def training_bytes(shape: Shape, tokens: int, layer: int, checkpointing: bool = False, width: int = 2) -> int:
    """Activations of a batch of this many tokens, and the logits that exist at once.

    Args:
        shape: shape of the model.
        tokens: number of tokens in the batch.
        layer: `saved_bytes`.
        checkpointing: keep only each layer's input, plus all activations of one layer at a time.
        width: bytes of an activation.
    """
    logits = min(tokens * shape.vocabulary, TRAINING_LOGITS) * (4 if width == 4 else 4 + 2 * width)
    end = 4 * shape.hidden + 2 * width * shape.hidden  # last norm; the loss' slopes, in pieces and whole
    if checkpointing:
        # A layer is recomputed after the logits are freed.
        return tokens * (shape.layers * width * shape.hidden + end) + max(logits, tokens * layer)
    return tokens * (shape.layers * layer + end) + logits


def scoring_bytes(shape: Shape, tokens: int, width: int = 2, on_gpu: bool = True) -> int:
    """One layer's activations of a scoring batch, or a chunk's logits in addition to those of the previous chunk.

    Logits are made at `width` bytes and read in float32; a GPU reads all of a chunk at once, with their powers and the
    products for mean and deviation beside them.
    """
    h, at_once = shape.hidden, min(tokens, SCORING_CHUNK, SCORING_LOGITS // shape.vocabulary)
    layer = tokens * width * max(3 * shape.intermediate + 2 * h, 5 * h + 2 * shape.kv)
    first, second = (n * shape.vocabulary for n in (at_once, min(at_once, tokens - at_once)))
    scratch = 4 * (first if on_gpu else min(first, PROCESSOR_BLOCK))
    made = 4 + (width if width < 4 else 0)
    logits = max(first * made, first * 4 + 2 * scratch, first * 4 + scratch + second * made)
    return max(layer, 2 * tokens * width * h + logits)


def cache_bytes(shape: Shape, tokens: int, width: int = 2) -> int:
    """Keys and values of this many tokens."""
    return 2 * shape.layers * shape.kv * width * tokens


def reference_cache_bytes(tokens: int) -> int:
    """Log-probability and hit of each token under the reference: in memory, and as much again on disk."""
    return 5 * tokens


# -- seconds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Machine:
    """Peak performance of a device.

    Attributes:
        flops: floating-point operations a second in matrix products.
        bandwidth: bytes a second read from its memory.
        link: bytes per second received from other devices.
    """

    flops: float
    bandwidth: float
    link: float = math.inf


def training_seconds(shape: Shape, tokens: int, machine: Machine, checkpointing: bool = False) -> float:
    """Forward, and back to the inputs alone, since the base is frozen; with checkpointing, one more forward pass."""
    return (4 * shape.multiplied + 2 * checkpointing * shape.in_layers) * tokens / machine.flops


def scoring_seconds(shape: Shape, tokens: int, machine: Machine) -> float:
    """One pass of one model."""
    return 2 * shape.multiplied * tokens / machine.flops


def generation_seconds(
    shape: Shape, batches: Sequence[tuple[int, Sequence[int]]], machine: Machine, width: float = 2
) -> float:
    """Seconds to decode batches: (tokens of all prompts, tokens to generate for each).

    A step takes as long as the reading of all weights, or as the products of its rows, whichever is longer.
    """
    total, read = 0.0, shape.multiplied * width / machine.bandwidth
    for prompts, lengths in batches:
        total += scoring_seconds(shape, prompts, machine)
        for step in range(1, max(lengths)):  # the first token comes with the prompt
            total += max(read, scoring_seconds(shape, sum(n > step for n in lengths), machine))
    return total


def gathering_seconds(shape: Shape, devices: int, machine: Machine, width: int = 2) -> float:
    """Seconds to gather all layers in one forward pass; each device already has its own shard."""
    return shape.in_layers * width * (1 - 1 / devices) / machine.link
