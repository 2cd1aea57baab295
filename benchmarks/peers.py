"""Measures of other projects, in the passes that those projects make, timed beside ours. One run, sides in turns.

Each pass is written anew after reading the project's source; none of its code is used. Both sides work on the same
models and token ids, and every value is compared per text before any time is shown.

- MIMIR: loss, reference, zlib, Min-K%, Min-K%++ of one text at a time: a forward pass, log-probabilities over the
  vocabulary, a Python loop that reads each token's, and the mean and deviation for Min-K%++; then a second loop over
  all texts with the reference, a second copy of the model.
- open-unlearning: probability, exact memorization, extraction strength, and the attacks loss, zlib, Min-K%, Min-K%++
  and reference, each in its own pass over padded batches of 32 in the order given, with log-probabilities over the
  vocabulary: nine passes of the tuned model (Min-K%++ makes two), one of a second copy. `generating`: also
  `model.generate` on the first half of each text, in left-padded batches of 64.
- memaudit: loss, Min-K%, Min-K%++, and Min-K%++ less that of the base, of one text at a time, with the adapter and
  without it. `generating`: also `model.generate` on the first quarter and on the first half of each text, one
  prompt at a time.
- lm-evaluation-harness: log-likelihood of a text after its first token, and whether greedy decoding gives it: requests
  sorted by length in batches of 8, log-probabilities over the vocabulary at every padded position. Tuned model only.

Ours is one scoring pass of a validation with the measures that compute the same, including AUROC and intervals over all
texts; where the peer generates, with extraction after it. `ours`: the first pass of a run that scores a trained model
and its reference; `ours, known`: every later one, with the reference's scores known. The adapter holds small random
weights, so that tuned model and base differ.

What a peer does beyond what is compared is left out, which favours the peer: tokenizing texts once a pass, loading the
reference in every evaluation (open-unlearning), areas and their bootstrap (MIMIR), tokens beyond the true suffix
(memaudit: 4; open-unlearning: a fixed number). Generated text is compared with ours on both sides: ROUGE-L for
open-unlearning, which stems words; exact match, BLEU and edit similarity for memaudit, whose last two differ.

Two choices are ours: both sets are measured throughout, where open-unlearning by default takes the texts to be
unlearned alone for what is not an attack; and the batches of 8 of lm-evaluation-harness, which has no fixed number.

Where definitions differ, values are compared with the peer's formula: extraction strength is at least 1/n in
open-unlearning; memaudit rounds the share of Min-K% up; MIMIR has no Min-K% of fewer than five tokens. open-unlearning
also counts the end token in its loss, and leaves out the last token elsewhere; here both score the same tokens.

`benchmarks.peer_passes` has the passes, and the commits that were read.

    python -m benchmarks.peers
    python -m benchmarks.peers --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 16 --repeats 1
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.peer_passes import SHARE, Values, harness, memaudit, mimir, open_unlearning
from benchmarks.peer_values import Definitions, Generation, check, definitions
from benchmarks.scoring_cost import measured_pass
from benchmarks.setting import CLOCK, Setting, agree, device_of, machine, parser, prepare, seconds
from benchmarks.table import Cell, Table, tell
from lit_mem.attacks.loss import Loss
from lit_mem.attacks.min_k import MinK
from lit_mem.attacks.min_k_plus_plus import MinKPlusPlus
from lit_mem.attacks.reference import ReferenceRatio
from lit_mem.attacks.zlib import Zlib
from lit_mem.audit.loop import PassResult, needs_of
from lit_mem.audit.measure import Measure
from lit_mem.audit.measures import Extractability, Extraction, MembershipInference
from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.bleu import Bleu
from lit_mem.extraction.edit import EditSimilarity
from lit_mem.extraction.exact import ExactMatch
from lit_mem.extraction.exact_memorization import ExactMemorization
from lit_mem.extraction.rouge import RougeL
from lit_mem.extraction.strength import ExtractionStrength
from lit_mem.guards import evaluation_mode
from lit_mem.lightning.module import CausalLM

GENERATION_BATCH = 64


@dataclass
class Comparison:
    """A peer's passes beside ours.

    Attributes:
        name: row of the table.
        passes: forward passes a text.
        theirs: their scoring; returns their values.
        measures: ours that compute the same.
        generation: what they generate after it.
    """

    name: str
    passes: str
    theirs: Callable[[], Values]
    measures: list[Measure]
    generation: Generation | None = None


def comparisons(setting: Setting) -> list[Comparison]:
    """All peers."""
    model, examples = setting.module.language_model, setting.examples
    copied: Any = copy.deepcopy(model)
    second = copied.unload().eval()
    five = {"loss": Loss(), "reference": ReferenceRatio(), "zlib": Zlib(normalize=True), "min_k": MinK(SHARE)}
    five |= {"min_k_plus_plus": MinKPlusPlus(SHARE)}
    scored = {"exact_memorization": ExactMemorization(), "extraction_strength": ExtractionStrength()}

    def attacks(*names: str) -> MembershipInference:
        return MembershipInference({name: five[name] for name in names}, combined=False, plots=False)

    def generation(size: int, prefix: list[float], measures: dict[str, ExtractionMeasure]) -> Generation:
        return Generation(setting, Extraction(None, None, prefix, measures, base=False), size, [], {})

    return [
        Comparison("MIMIR", "1 + 1", lambda: mimir(model, second, examples), [attacks(*five)]),
        Comparison(
            "open-unlearning", "9 + 1", lambda: open_unlearning(model, second, examples),
            [attacks(*five), Extractability(scored, base=False)],
            generation(GENERATION_BATCH, [0.5], {"rouge_l": RougeL("recall")}),
        ),
        Comparison(
            "memaudit", "1 + 1", lambda: memaudit(model, examples),
            [attacks("loss", "reference", "min_k", "min_k_plus_plus")],
            generation(
                1, [0.25, 0.5], {"exact_rate": ExactMatch(), "bleu": Bleu(), "edit_similarity": EditSimilarity()}
            ),
        ),
        Comparison(
            "lm-evaluation-harness", "1 + 0", lambda: harness(model, examples),
            [attacks("loss"), Extractability(scored, base=False)],
        ),
    ]  # fmt: skip


def nudge(module: CausalLM) -> None:
    """Give the adapter small random weights: tuned model and base differ, as after a few steps."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in module.language_model.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))


def ours(setting: Setting, measures: list[Measure], known: bool) -> PassResult:
    """One pass of a validation; `known`: the reference scores are cached."""
    cache, needs = setting.module.reference_cache, needs_of(measures)
    if not known:
        cache.clear()
    before = cache.computed
    found = measured_pass(setting.module, setting.batches, measures, needs)
    wanted = len(setting.examples) if needs.reference and not known else 0
    agree(cache.computed - before, wanted, "the number of texts that the reference scores")
    return found


def measure(args: argparse.Namespace) -> list[Table]:
    """Time all sides in turns."""
    CLOCK["seconds"] = time.process_time if args.shared else time.perf_counter
    setting = prepare(args)
    nudge(setting.module)
    rows: list[list[Cell]] = []
    notes: list[str] = []
    with evaluation_mode(setting.module.language_model):
        peers = comparisons(setting)
        defined = definitions(setting)
        ours(setting, peers[0].measures, known=False)  # warms up
        for one in peers:
            for compared in one.generation.extraction.measures.values() if one.generation else ():
                compared(Continuation([1], [1], "a", "a"))  # imports
            rows += timed(setting, one, args.repeats, defined, notes)
    table = Table(
        f"Peers: {args.model}, {len(setting.examples)} texts, {setting.tokens} tokens, medians of {args.repeats}"
        f"{' of CPU time' if args.shared else ''}, "
        f"{machine(device_of(args))}",
        ["", "passes a text", "seconds", "ours", "ours, known", "÷ ours", "÷ ours, known"],
        rows,
        notes,
    )
    return [table]


def timed(setting: Setting, one: Comparison, repeats: int, defined: Definitions, notes: list[str]) -> list[list[Cell]]:
    """Rows of one peer: its scoring, and with what it generates; both sides in turns, and compared."""
    times: dict[str, list[float]] = {}
    theirs: list[Values] = []
    mine: list[PassResult] = []

    def clock(name: str, work: Callable[[], object]) -> None:
        times.setdefault(name, []).append(seconds(work))

    reference = needs_of(one.measures).reference
    for _ in range(repeats):
        clock("theirs", lambda: theirs.append(one.theirs()))
        for known in (False, True):
            if known or reference:
                clock(f"ours {known}", lambda: mine.append(ours(setting, one.measures, known)))  # noqa: B023
        if one.generation is not None:
            for known in (False, True):
                both = [*one.measures, one.generation.extraction]
                clock(f"both {known}", lambda: mine.append(ours(setting, both, known)))  # noqa: B023
            clock("generation", one.generation)
    for values in theirs:
        for result in mine:
            check(values, result, defined, one.name)
    middle = {name: statistics.median(values) for name, values in times.items()}

    def row(name: str, passes: str, took: float, side: str) -> list[Cell]:
        found = [middle.get(f"{side} {known}") for known in (False, True)]
        return [name, passes, took, *found, *(None if value is None else took / value for value in found)]

    rows = [row(one.name, one.passes, middle["theirs"], "ours")]
    if one.generation is not None:
        took = middle["theirs"] + middle["generation"]
        rows.append(row(f"{one.name}, generating", f"{one.passes}, generate", took, "both"))
        notes.append(one.generation.check(mine[-1], one.name))
    return rows


def main() -> None:
    """Print the table."""
    made = parser(__doc__, rows=50)
    made.add_argument(
        "--shared", action="store_true", help="the machine is shared: count CPU seconds (OMP_NUM_THREADS=1)"
    )
    args = made.parse_args()
    tell(args, "peers", measure(args))


if __name__ == "__main__":
    main()
