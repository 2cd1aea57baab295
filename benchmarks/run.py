"""Run all benchmarks in sequence, each in its own process: tables of ratios within one run.

- scoring: a validation's scoring pass, against the research loop at batch 1, padded batches, a forward pass per
  measure, and the speed of light.
- extraction: continuations, against `model.generate` in padded batches and at batch 1.
- tracking: a tracked epoch, against the same epoch untracked.
- memory: peak memory of a tracked run, against an untracked one, and against a second copy of the model.
- growth: seconds by examples, sequence length and vocabulary, against a line.
- training: an untracked epoch, against Hugging Face's Trainer, and against the machine's limit.
- privacy: a private epoch, against a plain one.
- peers: a validation's scoring pass and extraction, against the passes of MIMIR, open-unlearning, memaudit and
  lm-evaluation-harness.

`python -m benchmarks.<name> --help` describes each, with its own options. Without a GPU everything runs on the CPU;
with one, times and achieved FLOP/s are those of the GPU. Output goes to standard output only, unless `--out` is given.

    python benchmarks/run.py
    python benchmarks/run.py --model path/to/smollm2 --source PHEE --folder path/to/phee --out results
    python benchmarks/run.py --quick --only scoring tracking
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path[0] = str(ROOT)  # run by path: names in this folder must not shadow other packages

from benchmarks.setting import device_of, machine, parser  # noqa: E402

NAMES = ("scoring", "extraction", "tracking", "memory", "growth", "training", "privacy", "peers")
QUICK = {"growth": ["--most", "300", "--longest", "128", "--widest", "16384"], "tracking": ["--epochs", "2"]}
QUICK_ROWS = 16


def words(args: argparse.Namespace, name: str) -> list[str]:
    """The options passed to a benchmark."""
    given = ["--device", args.device]
    if args.out is not None:
        given += ["--out", str(args.out)]
    repeats = 1 if args.quick and args.repeats is None else args.repeats
    given += [] if repeats is None else ["--repeats", str(repeats)]
    given += QUICK.get(name, []) if args.quick else []
    if name == "growth":  # makes its own model and texts
        return given
    rows = QUICK_ROWS if args.quick and args.rows is None else args.rows
    given += [] if rows is None else ["--rows", str(rows)]
    given += ["--model", args.model, "--source", args.source]
    return [*given, *(["--folder", args.folder] if args.folder else [])]


def run_one(args: argparse.Namespace, name: str) -> tuple[int, str]:
    """Exit code and what it printed, which is passed on line by line."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    command = [sys.executable, "-m", f"benchmarks.{name}", *words(args, name)]
    printed = []
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            _say(line.rstrip("\n"))
            printed.append(line)
    return process.returncode, "".join(printed)


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (what it is for)


def main() -> None:
    """Run them all; exit code 1 if one failed."""
    made = parser(__doc__, rows=0)
    made.set_defaults(rows=None, repeats=None)
    made.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    made.add_argument("--quick", action="store_true", help="few rows, one repeat: a smoke test")
    args = made.parse_args()
    found = machine(device_of(args))
    _say(found)
    results: dict[str, object] = {"machine": found, "arguments": sys.argv[1:]}
    failed = []
    for i, name in enumerate(args.only, start=1):
        _say(f"\n[{i}/{len(args.only)}] benchmarks.{name} {' '.join(words(args, name))}")
        start = time.perf_counter()
        code, text = run_one(args, name)
        took = time.perf_counter() - start
        _say(f"{name} {'done' if code == 0 else f'FAILED with exit code {code}'} after {took:.0f} s")
        failed += [name] * (code != 0)
        results[name] = {"exit_code": code, "seconds": took, "text": text}
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / f"{name}.txt").write_text(text)
            (args.out / "run.json").write_text(json.dumps(results, indent=1) + "\n")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
