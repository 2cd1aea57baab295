"""Shared code of the benchmarks: the machine, a model with an adapter, texts, validation batches, and the clock."""

from __future__ import annotations

import argparse
import logging
import math
import os
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import transformers
from torch import nn

from lit_mem.adapters import LoRA
from lit_mem.data import TextDataModule
from lit_mem.data.encoding import Encoded
from lit_mem.data.sources import PHEE, CaseReports
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.reference_scores import Reference
from lit_mem.types import Batch


@dataclass
class Setting:
    """A module in eval mode, its texts, and how a validation batches them; all tensors on one device."""

    module: CausalLM
    data: TextDataModule
    examples: list[Encoded]
    batches: list[Batch]

    @property
    def tokens(self) -> int:
        """Number of scored tokens."""
        return sum(int(example.scored.sum()) for example in self.examples)

    @property
    def device(self) -> torch.device:
        """Device of model and texts."""
        return self.module.device


# -- options -----------------------------------------------------------------------------------------------


def options(doc: str | None, repeats: int = 5) -> argparse.ArgumentParser:
    """Options of every benchmark; `doc` is the text of `--help`."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--repeats", type=int, default=repeats, help="number of repeats, of which the median is shown")
    made.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    made.add_argument(
        "--out", type=Path, help="folder for tables (.txt, .json) and plots (.png); none: standard output"
    )
    return made


def parser(doc: str | None, rows: int) -> argparse.ArgumentParser:
    """Options of the benchmarks on a model and a corpus; `rows` is the default of that option."""
    made = options(doc)
    made.add_argument("--model", default="asset:tiny_llama")
    made.add_argument("--source", choices=["CaseReports", "PHEE"], default="CaseReports")
    made.add_argument("--folder", help="of the corpus")
    made.add_argument("--rows", type=int, default=rows, help="members and held-out texts, each")
    return made


def epoch_parser(doc: str | None) -> argparse.ArgumentParser:
    """Options of the benchmarks that time epochs of plain training."""
    made = parser(doc, rows=200)
    made.set_defaults(repeats=3)
    made.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    return made


def device_of(args: argparse.Namespace) -> torch.device:
    """The device chosen; "auto" is the GPU if there is one."""
    chosen = getattr(args, "device", "auto")
    return torch.device("cuda" if chosen == "auto" and torch.cuda.is_available() else chosen.replace("auto", "cpu"))


# -- model and texts ---------------------------------------------------------------------------------------


def make_module(args: argparse.Namespace, dropout: float = 0.0, **more: Any) -> CausalLM:
    """The model with an adapter as in `configs/smollm2_phee.yaml`; not built, without scores from disk."""
    more = {"reference": Reference(cache=False)} | more
    return CausalLM(args.model, adapter=LoRA(rank=16, targets=["v", "o"], dropout=dropout), **more)


def make_data(
    args: argparse.Namespace, train: int, scored: int, kind: type[TextDataModule] = TextDataModule, **more: Any
) -> TextDataModule:
    """Data with these numbers of training texts, and of scored members and held-out texts, each."""
    source = {"CaseReports": CaseReports, "PHEE": PHEE}[args.source](args.folder)
    more = {"members_size": min(train, scored)} | more
    return kind(source, max_length=256, train_size=train, heldout_size=scored, check=False, **more)


def attach(data: TextDataModule, module: CausalLM) -> None:
    """Attach a trainer without training, which has the module."""
    data.trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    data.trainer.strategy.connect(module)


def make_trainer(args: argparse.Namespace, folder: str, **more: Any) -> pl.Trainer:
    """A trainer on the chosen device that shows, logs and saves nothing."""
    return pl.Trainer(
        accelerator="gpu" if device_of(args).type == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **more,
    )


def quieten() -> None:
    """Print nothing but tables."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lit_mem"):
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def prepare(args: argparse.Namespace) -> Setting:
    """Load model and texts onto the chosen device; without reference scores from disk."""
    quieten()
    device = device_of(args)
    module = make_module(args)
    module.configure_model()
    module.eval()
    module.language_model.eval()
    module.to(device)
    data = make_data(args, args.rows, args.rows)
    attach(data, module)
    data.setup("validate")
    batches = [on_device(batch, device) for loader in data.val_dataloader() for batch in loader]
    examples = [
        replace(each, input_ids=each.input_ids.to(device), labels=each.labels.to(device))
        for each in [*data.heldout, *data.members]
    ]
    return Setting(module, data, examples, batches)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch moved to a device."""
    moved: Any = {key: value.to(device) if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
    return moved  # type: ignore[no-any-return]


# -- clock and fairness ------------------------------------------------------------------------------------

CLOCK: dict[str, Callable[[], float]] = {"seconds": time.perf_counter}
"""The clock: `time.process_time` counts only this process, for a shared machine."""


def now() -> float:
    """Seconds on the clock, after synchronizing the GPU."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
    return CLOCK["seconds"]()


def seconds(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = now()
    work()
    return now() - start


def agree(left: float, right: float, what: str, tolerance: float = 0.0) -> None:
    """Check that both sides did the same work.

    Args:
        left: value of one side.
        right: value of the other.
        what: name of the value.
        tolerance: maximum relative difference; 0: bit-identical.

    Raises:
        RuntimeError: they differ, or are not finite.
    """
    if not (math.isfinite(left) and abs(left - right) <= tolerance * max(abs(left), abs(right))):
        raise RuntimeError(f"the sides differ: {what} is {left!r} on one and {right!r} on the other")


# -- the machine -------------------------------------------------------------------------------------------


def machine(device: torch.device | None = None) -> str:
    """The machine in one line: processor, cores, threads, GPU if it is used, versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads"
    if device is None or device.type == "cuda":
        found += f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{found}; torch {torch.__version__}, Python {platform.python_version()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def multiplying(model: nn.Module) -> int:
    """Parameters that each token is multiplied with: all except an embedding table that is not tied."""
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    table, head = base.get_input_embeddings().weight, base.get_output_embeddings().weight
    total = sum(p.numel() for p in model.parameters())
    return total if table is head else total - int(table.numel())


def flops_rate(parameters: int, tokens: int, took: float) -> float:
    """Floating-point operations a second of a forward pass: 2 a parameter and token; attention is not counted."""
    return 2 * parameters * tokens / took


def multiply_rate(module: CausalLM, tokens: int = 2048) -> float:
    """Floating-point operations per second of matrix products with the model's shapes and dtype.

    A batch of `tokens` tokens through the model's widest layer except the output layer; the best of a few tries.
    """
    config: Any = module.language_model.config
    width, wide = int(config.hidden_size), int(config.intermediate_size)
    like = next(module.language_model.parameters())
    left, right = torch.randn(tokens, width).to(like), torch.randn(wide, width).to(like)

    def work() -> None:
        for _ in range(10):
            nn.functional.linear(left, right)

    with torch.inference_mode():
        return 10 * 2 * tokens * width * wide / min(seconds(work) for _ in range(8))
