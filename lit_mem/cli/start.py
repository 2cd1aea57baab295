"""Entry point of `lit-mem`, `python -m lit_mem` and `train.py`: show progress at once, then import."""

from __future__ import annotations

import gc
import sys

from lit_mem.cli.closed_pipe import ended_by_closed_pipe


def run() -> None:
    """Import the libraries, which takes most of the start-up time, and run the command line."""
    with ended_by_closed_pipe():
        _run()


def _run() -> None:
    from lit_mem.cli.light import run_light

    if run_light(sys.argv[1:]):
        return
    seen = sys.stderr.isatty()
    if seen:
        print("Loading lit_mem ...", end="", file=sys.stderr, flush=True)  # noqa: T201  (imports take seconds)
    # Imports and the parser create little garbage, but the collector would scan the growing heap again and again.
    gc.disable()
    from lit_mem.cli.deferred import defer

    defer()
    # Lightning imports it too. Earlier is faster: for each operator that it registers, it scans all imported modules.
    import torch._dynamo  # noqa: F401

    from lit_mem.cli.main import main

    if seen:
        print("\r\033[K", end="", file=sys.stderr, flush=True)  # noqa: T201  (erases that line)
    main(ready=_collect)


def _collect() -> None:
    gc.freeze()
    gc.enable()
