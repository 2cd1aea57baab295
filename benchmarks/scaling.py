"""Computed cost of larger models, and a check of the same formulas against measurements on this machine.

The formulas are those of `benchmarks.sizes`. First the check, on a model that fits here: parameters, tensors of a batch
of training and of scoring, peak memory of a fit (as `benchmarks.memory` measures it), seconds of a training epoch (as
`benchmarks.training`), of a scoring pass (as `benchmarks.scoring`) and of an extraction (as `benchmarks.extraction`),
each predicted from the model's shape, the texts' lengths, and the machine's own rate of multiplying matrices and of
reading memory.

Then LLaMA 2 at 7, 13 and 70 billion parameters: memory for each way to run it, and seconds on GPUs. NOTHING OF A GPU IS
MEASURED: the peak performance is the vendor's specification, and the share of it that is reached is assumed to be the
one reached on this machine (predicted ÷ measured), which the table repeats. `--no-check` measures nothing and assumes
the peak.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 48
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Final

import torch

from benchmarks import sizes
from benchmarks.scaling_check import BUDGET, RANK, TARGETS, check
from benchmarks.setting import CLOCK, agree, parser
from benchmarks.sizes import LLAMA_2, MIB, Machine, Shape
from benchmarks.table import Cell, Table, tell

GPUS: Final = {
    "H100 SXM": Machine(flops=989e12, bandwidth=3.35e12, link=450e9),
    "A100 80 GB SXM": Machine(flops=312e12, bandwidth=2.04e12, link=300e9),
}
"""Dense bfloat16, memory and NVLink (one direction), from the vendor's data sheets."""


def counted(shape: Shape) -> int:
    """Parameter count of such a model in transformers, created on the meta device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        tie_word_embeddings=shape.tied,
    )  # fmt: skip
    with torch.device("meta"):
        return sum(p.numel() for p in LlamaForCausalLM(config).parameters())


def side_by_side(title: str, found: dict[str, dict[str, Cell]], notes: list[str]) -> Table:
    """One column per model, one row per quantity."""
    rows: list[list[Cell]] = [[what, *(each[what] for each in found.values())] for what in next(iter(found.values()))]
    return Table(title, ["", *found], rows, notes)


def training_work(shape: Shape, args: argparse.Namespace, checkpointing: bool) -> int:
    """Bytes of a training batch on a GPU: in bfloat16, with dropout."""
    return sizes.training_bytes(shape, args.batch * args.length, sizes.saved_bytes(shape, RANK, TARGETS), checkpointing)


def parts(args: argparse.Namespace) -> Table:
    """Memory of each part."""
    found: dict[str, dict[str, Cell]] = {}
    tokens, state = args.batch * args.length, "adapter, gradients, Adam: rank"
    for name, shape in LLAMA_2.items():
        agree(shape.parameters, counted(shape), f"the number of parameters of LLaMA 2 {name}")
        taken: dict[str, float] = {
            "base, bfloat16": sizes.base_bytes(shape),
            "base, 4 bits": sizes.base_bytes(shape, quantized=True),
            f"{state} 16, v o": sizes.adapter_bytes(shape.adapter(16, TARGETS)),
            f"{state} 16, all seven": sizes.adapter_bytes(shape.adapter(16, list(shape.matrices))),
            f"{state} 64, all seven": sizes.adapter_bytes(shape.adapter(64, list(shape.matrices))),
            f"training, {tokens} tokens": training_work(shape, args, False),
            f"training, {tokens} tokens, checkpointed": training_work(shape, args, True),
            f"scoring, {args.scoring_tokens} tokens": sizes.scoring_bytes(shape, args.scoring_tokens),
            f"extraction, 2 x {BUDGET} tokens of keys and values": sizes.cache_bytes(shape, 2 * BUDGET),
            "reference, adapter off": 0.0,
            "reference, a copy": sizes.base_bytes(shape),
        }
        gib: dict[str, Cell] = {what: size / sizes.GIB for what, size in taken.items()}
        found[name] = {"parameters": f"{shape.parameters:,}"} | gib
    known = sizes.reference_cache_bytes(2 * args.scored * args.length) / MIB
    note = (
        f"The reference's scores of {args.scored} members and {args.scored} held-out texts of {args.length} tokens: "
        f"{known:.1f} MiB of the host's memory over all ranks, and as much on disk."
    )
    return side_by_side("LLaMA 2: what each part takes, GiB", found, [note])


def ways(args: argparse.Namespace) -> Table:
    """Peak memory per device for each way to run it."""
    found: dict[str, dict[str, Cell]] = {}
    for name, shape in LLAMA_2.items():
        whole, matrix = sizes.base_bytes(shape), 2 * shape.hidden * shape.intermediate
        base = {
            "bfloat16, one device or ddp": whole,
            "the same, reference a copy": 2 * whole,
            # A 4-bit matrix is dequantized while it is multiplied.
            "4 bits, one device or ddp": sizes.base_bytes(shape, quantized=True) + matrix,
        } | {f"sharded over {k}": sizes.sharded_bytes(shape, k) for k in (2, 4, 8, 16)}
        work = max(
            training_work(shape, args, True),
            sizes.scoring_bytes(shape, args.scoring_tokens),
            sizes.cache_bytes(shape, 2 * BUDGET),
        ) + sizes.adapter_bytes(shape.adapter(RANK, TARGETS), devices=2)
        found[name] = {way: (size + work) / sizes.GIB for way, size in base.items()}
    note = f"Base, adapter (rank {RANK} on v and o), and the largest of checkpointed training, scoring and extraction."
    return side_by_side("LLaMA 2: peak of a device, GiB", found, [note])


def times(args: argparse.Namespace, gpu: str, reached: dict[str, float]) -> Table:
    """Seconds on a GPU, at the share of its peak that was reached on this machine."""
    found: dict[str, dict[str, Cell]] = {}
    most, tokens, given = GPUS[gpu], args.members * args.length, args.length // 2

    def prompts(n: int) -> list[tuple[int, list[int]]]:
        at_once = max(1, BUDGET // args.length)
        split = [min(at_once, n - start) for start in range(0, n, at_once)]
        return [(rows * given, [args.length - given] * rows) for rows in split]

    steps = sum(max(lengths) for _, lengths in prompts(math.ceil(args.prompts / 8)))
    for name, shape in LLAMA_2.items():
        layers = sizes.gathering_seconds(shape, 8, most)
        train = [sizes.training_seconds(shape, tokens, most, twice) / reached["training"] for twice in (False, True)]
        found[name] = {
            "training": train[0],
            "training, checkpointed": train[1],
            "a scoring pass": sizes.scoring_seconds(shape, 2 * args.scored * args.length, most) / reached["scoring"],
            "extraction": sizes.generation_seconds(shape, prompts(args.prompts), most) / reached["generation"],
            "one training step, checkpointed": train[1] * args.batch / args.members,
            "its gathering of layers, sharded over 8": 2 * layers,
            f"that of the {steps} steps of extraction": steps * layers,
        }
    said = ", ".join(f"{part:.0%} in {name}" for name, part in reached.items())
    notes = [
        f"{args.members} members trained on, {args.scored} + {args.scored} scored, {args.prompts} prompts; texts of "
        f"{args.length} tokens, {args.batch} a step. Assumed: {said} of {most.flops / 1e12:.0f} TFLOP/s and "
        f"{most.bandwidth / 1e12:.2f} TB/s; {most.link / 1e9:.0f} GB/s between devices. The host's time is not "
        "included."
    ]
    return side_by_side(f"LLaMA 2: seconds of one {gpu}, computed, NOT MEASURED", found, notes)


def run(args: argparse.Namespace) -> list[Table]:
    """All tables."""
    tables, reached = [], dict.fromkeys(("training", "scoring", "generation"), 1.0)
    CLOCK["seconds"] = time.process_time if args.shared else time.perf_counter
    if args.check:
        table, reached = check(args)
        tables.append(table)
    return [*tables, parts(args), ways(args), *(times(args, gpu, reached) for gpu in GPUS)]


def options() -> argparse.ArgumentParser:
    """The command-line options."""
    made = parser(__doc__, rows=48)
    made.set_defaults(repeats=3, precision="32-true", epochs=1)
    made.add_argument("--check", action=argparse.BooleanOptionalAction, default=True, help="measure first")
    made.add_argument(
        "--shared", action="store_true", help="the machine is shared: count CPU seconds (OMP_NUM_THREADS=1)"
    )
    for name, default, what in (
        ("members", 10_000, "texts trained on"), ("scored", 1000, "members and held-out texts, each"),
        ("prompts", 200, "texts continued"), ("length", 256, "tokens of a text"), ("batch", 8, "texts a step"),
        ("scoring_tokens", 8192, "data.scoring_tokens"),
    ):  # fmt: skip
        made.add_argument(f"--{name}", type=int, default=default, help=f"of the large models: {what}")
    return made


def main() -> None:
    """Print the tables."""
    args = options().parse_args()
    tell(args, "scaling", run(args))


if __name__ == "__main__":
    main()
