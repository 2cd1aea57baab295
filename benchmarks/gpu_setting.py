"""Models with random weights, made on the device, and texts of random tokens: the setting of `benchmarks.gpu`."""

from __future__ import annotations

import argparse
import gc
import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import nn

from benchmarks.setting import device_of, now, on_device, seconds
from benchmarks.sizes import GIB, LLAMA_2, Machine, Shape
from benchmarks.table import Cell
from lit_mem.adapters import LoRA
from lit_mem.data.batching import ScoringBatches
from lit_mem.data.encoding import Encoded, collate
from lit_mem.lightning.module import CausalLM
from lit_mem.models.base_loader import BaseLoader
from lit_mem.scoring.reference_scores import Reference
from lit_mem.sharding.lockstep import Lockstep
from lit_mem.types import IGNORED, Batch

TOKENIZER: Final = "asset:tiny_llama"
TOY: Final = Shape(hidden=64, layers=2, heads=4, kv_heads=4, intermediate=176, vocabulary=4096)
SHAPES: Final = {"toy": TOY} | {name.lower(): shape for name, shape in LLAMA_2.items()}
CONTEXT: Final = 4096
TARGETS: Final = ("v", "o")
RANK: Final = 16


# -- models ------------------------------------------------------------------------------------------------


def random_base(shape: Shape, device: torch.device, dtype: str, attention: str | None = None, seed: int = 0) -> Any:
    """A frozen LLaMA-architecture model with random weights, made on the device, without end tokens.

    Args:
        shape: its sizes.
        device: where its weights are made; they are never on another one.
        dtype: precision of the weights.
        attention: attention kernel; None: the library's default.
        seed: of the weights; the global random state is unchanged.
    """
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied, max_position_embeddings=CONTEXT, rms_norm_eps=1e-5,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    kernel = {} if attention is None else {"attn_implementation": attention}
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []), device:
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype), **kernel)
    return model.requires_grad_(False).train()


class RandomBases(BaseLoader):
    """Gives `random_base` in place of a model's files.

    Args:
        shape: its sizes.
        device: where its weights are made.
        dtype: precision of the weights.
        attention: attention kernel.
    """

    def __init__(self, shape: Shape, device: torch.device, dtype: str, attention: str | None) -> None:
        super().__init__(TOKENIZER, None, dtype, "none", attention, Lockstep())
        self._make: Callable[[], Any] = lambda: random_base(shape, device, dtype, attention)

    def _whole(self, *args: Any) -> Any:
        return self._make()


def random_module(
    args: argparse.Namespace, dropout: float = 0.0, attention: str | None = None, **more: Any
) -> CausalLM:
    """A module with random weights of the chosen shape, the bundled tokenizer, and LoRA; not built yet."""
    more = {"reference": Reference(cache=False)} | more
    adapter = LoRA(rank=RANK, targets=list(TARGETS), dropout=dropout)
    module = CausalLM(TOKENIZER, adapter=adapter, dtype=args.dtype, attention=attention, **more)
    module._bases = RandomBases(SHAPES[args.shape], device_of(args), args.dtype, attention)
    return module


def built(args: argparse.Namespace, attention: str | None = None) -> CausalLM:
    """The same, built on the chosen device, in eval mode."""
    module = random_module(args, attention=attention)
    module.configure_model()
    module.to(device_of(args))
    module.eval()
    module.language_model.eval()
    return module


def autocast(args: argparse.Namespace) -> AbstractContextManager[Any]:
    """The context in which a trainer calls the model: `bf16-mixed` with a base in bfloat16."""
    return torch.autocast(device_of(args).type, torch.bfloat16, enabled=args.dtype == "bfloat16")


# -- texts -------------------------------------------------------------------------------------------------


def random_texts(count: int, shortest: int, longest: int, vocabulary: int, seed: int = 0) -> list[Encoded]:
    """Texts of random tokens, on the CPU; lengths spread evenly from `shortest` to `longest`, in random order."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.linspace(shortest, longest, count).round().long()[torch.randperm(count, generator=generator)]
    texts = []
    for i, length in enumerate(lengths.tolist()):
        ids = torch.randint(0, vocabulary, (length,), generator=generator)
        labels = ids.clone()
        labels[0] = IGNORED
        texts.append(Encoded(ids, labels, example_id=i, member=i % 2 == 0))
    return texts


def batches_in_order(texts: Sequence[Encoded], size: int, device: torch.device) -> list[Batch]:
    """Batches of this many texts in the order given, padded, on the device."""
    parts = [texts[start : start + size] for start in range(0, len(texts), size)]
    return [on_device(collate(part), device) for part in parts]


def validation_batches(texts: Sequence[Encoded], token_budget: int, device: torch.device) -> list[Batch]:
    """The batches of a validation, on the device."""
    groups = ScoringBatches(texts, token_budget).groups
    return [on_device(collate([texts[i] for i in group]), device) for group in groups]


def attention_mask(batch: Batch) -> torch.Tensor:
    """(B, T) int64, 0 for padding."""
    mask = (batch["labels"] != IGNORED).long()
    mask[:, 0] = 1
    return mask


# -- the device --------------------------------------------------------------------------------------------


def matrix_rate(shape: Shape, device: torch.device, dtype: str, tokens: int, tries: int = 8) -> float:
    """Floating-point operations a second in one forward pass's matrix products, and nothing else.

    Every matrix of a layer as often as there are layers, and the output layer; of each the best of some tries.
    """
    matrices = [(*sides, shape.layers) for sides in shape.matrices.values()]
    operations = took = 0.0
    kind = getattr(torch, dtype)
    with torch.inference_mode():
        for into, out, count in [*matrices, (shape.hidden, shape.vocabulary, 1)]:
            left = torch.randn(tokens, into, device=device, dtype=kind)
            right = torch.randn(out, into, device=device, dtype=kind)
            result = torch.empty(tokens, out, device=device, dtype=kind)

            def work(left: Any = left, right: Any = right, result: Any = result) -> None:
                for _ in range(5):
                    torch.mm(left, right.T, out=result)

            work()
            took += count * min(seconds(work) for _ in range(tries)) / 5
            operations += count * 2 * tokens * into * out
    return operations / took


def copy_rate(device: torch.device, size: int) -> float:
    """Bytes a second read and written by a copy of `size` bytes; the best of some tries."""
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * size / min(seconds(lambda: target.copy_(source)) for _ in range(8))


def free(device: torch.device) -> None:
    """Return the memory of deleted models to the device, and start counting the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float | None:
    """GiB: the most memory that tensors took since `free`; None on a CPU."""
    return torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else None


@dataclass
class Session:
    """What all parts of a run share.

    Attributes:
        args: the options.
        device: where everything runs.
        shape: sizes of the model.
        deadline: clock time after which no further repeat or part begins.
        rates: operations and bytes a second of the device, measured.
        notes: lines about what could not be measured.
        failed: lines about what went wrong.
    """

    args: argparse.Namespace
    device: torch.device
    shape: Shape
    deadline: float
    rates: Machine = field(default_factory=lambda: Machine(flops=math.nan, bandwidth=math.nan))
    notes: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether the time is over."""
        return now() > self.deadline

    @property
    def exact(self) -> bool:
        """Whether sides agree up to rounding of float32."""
        return bool(self.args.dtype == "float32")

    def median(self, work: Callable[[], object]) -> tuple[float, float | None]:
        """Median seconds of the repeats after a warm-up, and peak GiB; after the deadline of one."""
        free(self.device)
        work()
        times = [seconds(work)]
        while len(times) < self.args.repeats and not self.over:
            times.append(seconds(work))
        return statistics.median(times), peak_gib(self.device)

    def computed(self, name: str, operations: float, tokens: int, work: Callable[[], object]) -> list[Cell]:
        """A row of what arithmetic limits: seconds, tokens/s, TFLOP/s, share of the device's rate, peak GiB."""
        took, peak = self.median(work)
        rate = operations / took
        return [name, took, tokens / took, rate / 1e12, rate / self.rates.flops, peak]


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that are trained."""
    return [p for p in module.parameters() if p.requires_grad]
