"""Check the formulas of `benchmarks.sizes` against measurements of a model that fits here."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks import extraction, memory, sizes, training
from benchmarks.scoring_cost import default_measures, default_pass
from benchmarks.setting import Setting, machine, multiply_rate, on_device, prepare, quieten, seconds
from benchmarks.sizes import MIB, Machine, Shape
from benchmarks.table import Cell, Table
from benchmarks.tensors import made_at_once
from lit_mem.audit.loop import needs_of
from lit_mem.extraction.continuations import Candidate, Prompter
from lit_mem.guards import evaluation_mode
from lit_mem.lightning.module import CausalLM
from lit_mem.types import IGNORED, Batch

TARGETS: Final = ("v", "o")
RANK: Final = 16
"""The adapter of `benchmarks.setting.make_module`."""
BUDGET: Final = 4096
"""Maximum tokens decoded at once; as many keys and values of prefixes may wait for their turn."""


def reading_rate(device: torch.device) -> float:
    """Bytes a second that this machine reads."""
    numbers = torch.ones(2**26, device=device)
    return numbers.numel() * 4 / min(seconds(numbers.sum) for _ in range(5))


def training_tokens(module: CausalLM, batch: Batch) -> int:
    """Tokens of a packed training batch."""
    scorer: Any = module._scorer
    lengths = (batch["labels"] != IGNORED).sum(dim=1).tolist()
    rows = scorer._rows(lengths)
    return len(rows) * max(sum(lengths[i] for i in row) for row in rows)


def set_checkpointing(module: CausalLM, on: bool) -> None:
    """Set activation checkpointing, as `model.gradient_checkpointing` does."""
    base: Any = module.language_model.get_base_model()  # type: ignore[operator]
    if on:
        # Renamed in transformers 5.2x; the old name warns there.
        enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    else:
        (getattr(base, "activation_checkpointing_disable", None) or base.gradient_checkpointing_disable)()


def decoding(prompted: dict[int, Candidate]) -> list[tuple[int, list[int]]]:
    """Batches as if none entered after others: tokens of all prompts, and tokens to generate for each."""
    prompter = Prompter(None, None, BUDGET)
    known = {i: prompter.known_length(c.hit) for i, c in prompted.items()}
    left = [i for i, c in prompted.items() if known[i] < len(c.prompt.suffix)]
    prompts = [prompted[i].prompt.input_ids[: prompted[i].prompt.cut + known[i]] for i in left]
    lengths = [len(prompted[i].prompt.suffix) - known[i] for i in left]
    batches = within_budget(prompts, lengths)
    return [(sum(len(prompts[j]) for j in batch), [lengths[j] for j in batch]) for batch in batches]


def within_budget(prompts: Sequence[Tensor], lengths: Sequence[int]) -> list[list[int]]:
    """Batches of prompts, the longest continuations first, none of which takes the place of a finished one."""
    batches: list[list[int]] = []
    width = 0
    for j in sorted(range(len(prompts)), key=lambda j: (-lengths[j], len(prompts[j]))):
        width = max(width, len(prompts[j]) + lengths[j])
        if not batches or (len(batches[-1]) + 1) * width > BUDGET:
            batches.append([])
            width = len(prompts[j]) + lengths[j]
        batches[-1].append(j)
    return batches


def row(name: str, predicted: float, measured: float) -> list[Cell]:
    """One row of the check."""
    return [name, predicted, measured, predicted / measured]


def counts(module: CausalLM, shape: Shape) -> list[list[Cell]]:
    """Parameters of base and adapter."""
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    base = sum(p.numel() for p in module.language_model.parameters()) - trained
    return [
        row("parameters of the base", shape.parameters, base),
        row("parameters of the adapter", shape.adapter(RANK, TARGETS), trained),
    ]


def memory_rows(args: argparse.Namespace, load: training.Workload, setting: Setting, shape: Shape) -> list[list[Cell]]:
    """Tensors of a training and of a scoring batch, and the peak of whole fits."""
    rows, width, on_gpu = [], 4, setting.device.type == "cuda"
    layer = sizes.saved_bytes(shape, RANK, TARGETS, width, dropout=False)
    batch, module = on_device(next(iter(load.data[False].train_dataloader())), setting.device), load.module
    module.to(setting.device)
    tokens, loss = training_tokens(module, batch), module._scorer.loss  # type: ignore[union-attr]
    for twice in (False, True):
        set_checkpointing(module, twice)
        work = sizes.training_bytes(shape, tokens, layer, twice, width)
        found = made_at_once(lambda: loss(batch).backward())
        rows.append(row(f"training {tokens} tokens{', checkpointed' * twice}, MiB", work / MIB, found / MIB))
    set_checkpointing(module, False)
    scored, needs = setting.batches[0], needs_of(default_measures())
    tokens = scored["input_ids"].numel()
    with evaluation_mode(setting.module.language_model):
        found = made_at_once(lambda: setting.module.score(scored, needs))
    rows.append(
        row(f"scoring {tokens} tokens, MiB", sizes.scoring_bytes(shape, tokens, width, on_gpu) / MIB, found / MIB)
    )
    longest = max(len(example.input_ids) for example in setting.examples)
    work = max(
        sizes.training_bytes(shape, training.BATCH * longest, layer, width=width),
        max(sizes.scoring_bytes(shape, b["input_ids"].numel(), width, on_gpu) for b in setting.batches),
    )
    base, adapter = sizes.base_bytes(shape, width), sizes.adapter_bytes(shape.adapter(RANK, TARGETS))
    for side in memory.SIDES:
        peak = memory.in_fresh_process(args, side)
        expected = (2 if side.endswith("copy") else 1) * base + adapter + work
        rows.append(row(f"a fit, {side}, MiB", expected / MIB, (peak["peak"] - peak["libraries"]) / MIB))
    return rows


def second_rows(
    args: argparse.Namespace, load: training.Workload, setting: Setting, shape: Shape, here: Machine
) -> dict[str, list[Cell]]:
    """Seconds of a training epoch, of a scoring pass whose reference scores are known, of the tuned model's answers."""
    module, callbacks, prompted = setting.module, default_measures(), extraction.candidates(setting)

    def score() -> None:
        with evaluation_mode(module.language_model):
            default_pass(module, setting.batches, callbacks, needs_of(callbacks))

    texts = sum(len(example.input_ids) for example in setting.examples)
    sides: dict[str, tuple[float, Callable[[], float]]] = {
        "training": (sizes.training_seconds(shape, load.tokens(), here), lambda: load.ours().seconds),
        "scoring": (sizes.scoring_seconds(shape, texts, here), lambda: seconds(score)),
        "generation": (
            sizes.generation_seconds(shape, decoding(prompted), here, width=4),
            lambda: seconds(lambda: extraction.ours(setting, prompted, base=False)),
        ),
    }
    found = {}
    for name, (predicted, side) in sides.items():
        side()  # warms up
        found[name] = row(f"{name}, s", predicted, statistics.median(side() for _ in range(args.repeats)))
    return found


def check(args: argparse.Namespace) -> tuple[Table, dict[str, float]]:
    """Predicted and measured values, and the reached share of the machine's peak, by task."""
    quieten()
    load, setting = training.Workload(args), prepare(args)
    shape = Shape.of(setting.module.language_model.config)
    here = Machine(multiply_rate(setting.module), reading_rate(setting.device))
    took = second_rows(args, load, setting, shape, here)
    rows = [*counts(setting.module, shape), *memory_rows(args, load, setting, shape), *took.values()]
    title = f"{args.model}, {args.rows} members and {args.rows} held-out texts, float32; {machine(setting.device)}"
    notes = [f"{here.flops / 1e9:.0f} GFLOP/s in matrix products, {here.bandwidth / 1e9:.1f} GB/s read."]
    notes += ["CPU seconds instead of wall-clock seconds: the machine was shared."] * args.shared
    reached = {name: float(cells[3] or 0) for name, cells in took.items()}
    return Table(title, ["", "predicted", "measured", "predicted ÷ measured"], rows, notes), reached
