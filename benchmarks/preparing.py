"""Seconds and peak memory of preparing many texts, against tokenizing them and one linear check of them.

Synthetic, distinct texts of 40 words of the bundled case reports, in a .jsonl file. Sides, each in a fresh process:

- prepare: `lit_mem.data.prepare`: reads the file, holds out a fifth, checks for repeats and for a distribution shift
  between the sets, and tokenizes.
- tokenizing: only the tokenizer over the same texts, 1000 at a time; its output is discarded.
- check: only `lit_mem.data.checks.check_texts`, on the same texts, a fifth of them held out.

`ratio` is prepare ÷ (tokenizing + check). Both sides must count the same tokens. Memory is the peak resident memory;
`above libraries` excludes the memory before the first text was read. Seconds are wall-clock, with CPU seconds beside
them, whose ratio is better on a shared machine.

    python -m benchmarks.preparing
    python -m benchmarks.preparing --sizes 1000 3000 --repeats 1
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.growth import exponent
from benchmarks.memory import MIB, peak_resident
from benchmarks.setting import agree, machine, options
from benchmarks.table import Cell, Table, tell
from lit_mem.data.checks import check_texts
from lit_mem.data.examples import lengths_of
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.data.sources import CaseReports, TextFiles
from lit_mem.models.hub import load_tokenizer

SIDES = ("prepare", "tokenizing", "check")
WORDS = 40
AT_ONCE = 1000
LIBRARIES = ("datasets", "pyarrow", "sklearn.feature_extraction.text", "sklearn.linear_model", "tqdm")


def write(path: Path, n: int, seed: int = 0) -> None:
    """Write n texts, one per line: words of the bundled texts, by frequency."""
    random = np.random.default_rng(seed)
    spelled = " ".join(CaseReports().load().train["completion"][:]).split()
    words, counts = np.unique(spelled, return_counts=True)
    share = counts**0.5 / (counts**0.5).sum()
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, n, 10_000):
            for row in words[random.choice(len(words), (min(10_000, n - start), WORDS), p=share)]:
                file.write(json.dumps({"text": " ".join(row)}) + "\n")


def texts_in(path: Path) -> Iterator[str]:
    """The texts of the file, one by one."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]


def one_side(args: argparse.Namespace) -> dict[str, float]:
    """Wall-clock and CPU seconds, peak and initial bytes, and tokens, of one side in this process."""
    logging.disable()
    for name in LIBRARIES:
        importlib.import_module(name)
    tokenizer = load_tokenizer(args.model)
    tokenizer("loads what it loads at its first text")
    path = Path(args.file)
    libraries, start, used = peak_resident(), time.perf_counter(), time.process_time()
    tokens = 0
    if args.side == "prepare":
        found = prepare(TextFiles(str(path)), tokenizer, DataOptions(max_length=2**20, add_eos=False))
        took, cpu, peak = time.perf_counter() - start, time.process_time() - used, peak_resident()
        tokens = sum(sum(lengths_of(examples)) for examples in (found.train, found.heldout))
    elif args.side == "tokenizing":
        rest = texts_in(path)
        for some in iter(lambda: list(islice(rest, AT_ONCE)), []):
            tokens += sum(map(len, tokenizer(some, return_attention_mask=False)["input_ids"]))
        took, cpu, peak = time.perf_counter() - start, time.process_time() - used, peak_resident()
    else:
        texts = list(texts_in(path))
        check_texts(texts[len(texts) // 5 :], texts[: len(texts) // 5])
        took, cpu, peak = time.perf_counter() - start, time.process_time() - used, peak_resident()
    return {"seconds": took, "cpu": cpu, "peak": peak, "libraries": libraries, "tokens": tokens}


def in_fresh_process(args: argparse.Namespace, side: str, path: Path) -> dict[str, float]:
    """The result of `one_side` in a fresh process."""
    words = [sys.executable, "-m", "benchmarks.preparing", "--side", side, "--file", str(path)]
    words += ["--model", args.model]
    root = str(Path(__file__).parent.parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    made = subprocess.run(words, env=env, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return found


def measured(args: argparse.Namespace, size: int) -> dict[str, dict[str, float]]:
    """Medians of each side on this many texts; the sides take turns."""
    found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.jsonl"
        write(path, size)
        for _ in range(args.repeats):
            for side in SIDES:
                found[side].append(in_fresh_process(args, side, path))
    for whole, alone in zip(found["prepare"], found["tokenizing"], strict=True):
        agree(whole["tokens"], alone["tokens"], f"the number of tokens of {size} texts")
    return {
        side: {name: statistics.median(one[name] for one in each) for name in each[0]} for side, each in found.items()
    }


def run(args: argparse.Namespace) -> list[Table]:
    """The table of seconds and memory by number of texts, and their exponents."""
    rows: list[list[Cell]] = []
    by_size = {size: measured(args, size) for size in args.sizes}
    growth: dict[str, list[float]] = {}
    for size, sides in by_size.items():
        whole = sides["prepare"]
        above = whole["peak"] - whole["libraries"]
        parts = {unit: sides["tokenizing"][unit] + sides["check"][unit] for unit in ("seconds", "cpu")}
        cells = [whole["seconds"], sides["tokenizing"]["seconds"], sides["check"]["seconds"]]
        cells += [whole["seconds"] / parts["seconds"], whole["cpu"], whole["cpu"] / parts["cpu"]]
        rows.append([f"{size} texts", *cells, whole["peak"] / MIB, above / MIB])
        for name, value in (("seconds", whole["seconds"]), ("cpu", whole["cpu"]), ("memory", above)):
            growth.setdefault(name, []).append(value)
    if len(by_size) > 1:
        b = {name: exponent(list(by_size), values) for name, values in growth.items()}
        rows.append(["exponent", b["seconds"], None, None, None, b["cpu"], None, None, b["memory"]])
    heads = [
        "",
        "prepare, s",
        "tokenizing, s",
        "check, s",
        "ratio",
        "processor, s",
        "ratio ",
        "peak MiB",
        "above libraries MiB",
    ]
    tokens = max(sides["tokenizing"]["tokens"] / size for size, sides in by_size.items())
    title = f"texts of {WORDS} words, {tokens:.0f} tokens of {args.model}; medians of {args.repeats}; {machine()}"
    return [Table(title, heads, rows)]


def made_options() -> argparse.ArgumentParser:
    """The command-line options."""
    made = options(__doc__, repeats=1)
    made.add_argument("--model", default="asset:tiny_llama", help="whose tokenizer is used")
    made.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="numbers of texts")
    made.add_argument("--side", choices=SIDES, help="measure this one in this process, and print it as JSON")
    made.add_argument("--file", help="of the texts, for --side")
    return made


def main() -> None:
    """Print the table."""
    args = made_options().parse_args()
    if args.side:
        print(json.dumps(one_side(args)))  # noqa: T201
        return
    tell(args, "preparing", run(args))


if __name__ == "__main__":
    main()
