"""What `lit-mem`, `python -m lit_mem` and `train.py` run: shows at once that something happens, then starts."""

from __future__ import annotations

import gc
import sys


def run() -> None:
    """Import the libraries, which takes most of the time to the first step, and run the command line."""
    from lit_mem.cli.light import run_light

    if run_light(sys.argv[1:]):
        return
    seen = sys.stderr.isatty()
    if seen:
        print("Loading lit_mem ...", end="", file=sys.stderr, flush=True)  # noqa: T201  (seconds pass before the next)
    # Classes and functions are no garbage: the collector would walk over the growing heap again and again.
    gc.disable()
    from lit_mem.cli.main import main

    gc.freeze()
    gc.enable()
    if seen:
        print("\r\033[K", end="", file=sys.stderr, flush=True)  # noqa: T201  (takes that line back)
    main()
