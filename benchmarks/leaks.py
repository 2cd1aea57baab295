"""Cost of tracing a few texts in a large corpus: CPU seconds, and additional memory.

The texts are synthetic, with natural word frequencies, and are generated while being read.

    python -m benchmarks.leaks --texts 1000000
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Iterator, Sequence

from lit_mem.functional.openings import shared_openings
from lit_mem.functional.word_runs import WordRuns

VOCABULARY = [f"word{i}" for i in range(20_000)]
WEIGHTS = [1 / (i + 1) for i in range(len(VOCABULARY))]


def corpus(n: int, words: int) -> Iterator[str]:
    """N texts of this many words, the same at each call."""
    pool = random.Random(1).choices(VOCABULARY, WEIGHTS, k=4_000_000)
    for i in range(n):
        start = i * 7919 % (len(pool) - words)
        yield " ".join(pool[start : start + words])


def main(given: Sequence[str] | None = None) -> None:
    """Print both costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=40)
    options = parser.parse_args(given)
    n, words = options.texts, options.words
    start = time.process_time()
    some = [text for i, text in enumerate(corpus(n, words)) if i < 64]
    made = time.process_time() - start
    runs = WordRuns(some, 8)
    for what, read in (
        ("tracing 64 texts", lambda: runs.find(corpus(n, words), ~runs.nowhere())),
        ("openings", lambda: shared_openings(corpus(n, words), 3, 20, 4)),
    ):
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        read()
        took = time.process_time() - start - made
        more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"{what}: {n:,} texts of {words} words in {took:.1f} s of CPU, {more:.0f} MiB more", flush=True)  # noqa: T201  (what a benchmark is for)


if __name__ == "__main__":
    main()
