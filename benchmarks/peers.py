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
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.extraction import Answers, gap, generated
from benchmarks.peer_passes import SHARE, Values, harness, lowest, memaudit, mimir, open_unlearning
from benchmarks.scoring_cost import measured_pass
from benchmarks.setting import Setting, agree, device_of, machine, parser, prepare, seconds
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
from lit_mem.extraction.continuations import Candidate
from lit_mem.extraction.edit import EditSimilarity
from lit_mem.extraction.exact import ExactMatch
from lit_mem.extraction.exact_memorization import ExactMemorization
from lit_mem.extraction.rouge import RougeL
from lit_mem.extraction.strength import ExtractionStrength
from lit_mem.guards import evaluation_mode
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Needs, TokenScores

GENERATION_BATCH = 64
TOLERANCE = 1e-4
TIE = 1e-3
GREEDY = ("strength", "greedy", "extraction/exact_memorization")
"""Values that jump where two tokens have logits equal up to rounding."""


# -- generation --------------------------------------------------------------------------------------------


@dataclass
class Generation:
    """What a peer generates and compares with the true suffixes.

    Attributes:
        setting: model and texts.
        extraction: ours, with the prompts and measures; after a pass it holds the candidates.
        size: prompts per call of `model.generate`.
        found: tokens generated, for each prefix length.
        values: values of each measure by example id, by column of ours.
    """

    setting: Setting
    extraction: Extraction
    size: int
    found: list[Answers]
    values: dict[str, dict[int, float]]

    def prompted(self) -> list[dict[int, Candidate]]:
        """The prompts of each prefix length, by example id, in the order of the texts."""
        seen, examples = self.extraction._seen, self.setting.examples
        ids = [one.example_id for one in examples if one.example_id in seen]
        return [{i: seen[i][k] for i in ids} for k in range(len(self.extraction.prefixes))]

    def __call__(self) -> None:
        """Generate and compare."""
        tokenizer = self.setting.module.tokenizer
        self.found, self.values = [], {}
        for tag, prompted in zip(self.extraction._metrics.tags, self.prompted(), strict=True):
            model = self.setting.module.language_model
            answers = generated(model, prompted, self.size, tokenizer.eos_token_id)
            self.found.append(answers)
            for i, candidate in prompted.items():
                suffix = candidate.prompt.suffix.tolist()
                texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in (answers[i], suffix)]
                for name, measure in self.extraction.measures.items():
                    column = self.values.setdefault(f"extraction/{name}{tag}", {})
                    column[i] = measure(Continuation(answers[i], suffix, *texts))

    def check(self, mine: PassResult, who: str) -> str:
        """Compare tokens and values with ours; the differences in words.

        Raises:
            RuntimeError: they differ by more than rounding.
        """
        model, eos = self.setting.module.language_model, self.setting.module.tokenizer.eos_token_id
        apart: list[float] = []
        for tag, prompted, answers in zip(self.extraction._metrics.tags, self.prompted(), self.found, strict=True):
            tokens = {i: d.ids.tolist() for i, d in self.extraction._prompter.tuned(prompted, model).items()}
            equal = [i for i in prompted if tokens[i] == answers[i]]
            for i in set(prompted) - set(equal):
                prompt = prompted[i].prompt.input_ids[: prompted[i].prompt.cut]
                apart.append(gap(model, prompt, tokens[i], answers[i], eos))
            for name in self.extraction.measures:
                column = f"extraction/{name}{tag}"
                agree_by_text(
                    [self.values[column][i] for i in equal], of_ids(mine, column, equal), f"{column} of {who}"
                )
        if apart and max(apart) > TIE:
            raise RuntimeError(f"the sides differ: outputs of {who}, where the logits lie {max(apart):.2g} apart")
        n = sum(len(answers) for answers in self.found)
        return f"{who}: {len(apart)} of {n} outputs differ, each at tokens with logits equal up to {TIE:g}"


# -- the comparison ----------------------------------------------------------------------------------------


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
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))


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


def definitions(setting: Setting) -> dict[int, dict[str, float]]:
    """By example id the values that a peer defines otherwise than we do, by its formula, from our scores of tokens."""
    found = {}
    for batch in setting.batches:
        tuned = TokenScorer(setting.module.language_model)(batch, Needs(moments=True))
        with setting.module.reference_context() as model:
            frozen = TokenScorer(model)(batch, Needs(moments=True))
        for row, i in enumerate(batch["example_id"].tolist()):
            logprob, standardized = by_token_of(tuned, row)
            hit = tuned.hit[row][tuned.mask[row]].tolist()
            n, k = len(hit), math.ceil(len(hit) * SHARE)
            run = next((at for at, one in enumerate(reversed(hit)) if not one), n)
            found[i] = {
                "probability": math.exp(logprob.mean()), "total": logprob.sum(), "greedy": float(run == n),
                "strength": max(run, 1) / n, "min_k": lowest(logprob, k), "min_k_plus_plus": lowest(standardized, k),
                "headline": lowest(standardized, k) - lowest(by_token_of(frozen, row)[1], k),
            }  # fmt: skip
    return found


def by_token_of(scores: TokenScores, row: int) -> tuple[Any, Any]:
    """(n,) log-probabilities of a text's tokens, raw and standardized; float64 arrays."""
    assert scores.mean is not None
    assert scores.std is not None
    fields = (scores.logprob, scores.mean, scores.std)
    logprob, mean, deviation = (one[row][scores.mask[row]].cpu().double().numpy() for one in fields)
    return logprob, (logprob - mean) / deviation.clip(1e-8)


def of_ids(mine: PassResult, column: str, ids: list[int]) -> list[float]:
    """Ours, of these example ids."""
    rows = mine.rows
    return rows[column][torch.searchsorted(rows.example_id, torch.tensor(ids, dtype=torch.int64))].tolist()


def agree_by_text(theirs: Sequence[float], expected: Sequence[float], what: str, ties: int = 0) -> None:
    """Check that values agree text by text, up to rounding; NaN of theirs are left out.

    Args:
        theirs: a peer's values.
        expected: ours, or those of its definition.
        what: their name.
        ties: texts that may differ by more: those with two greedy tokens equal up to rounding.

    Raises:
        RuntimeError: they differ by more than 0.0001 of the largest value, or none is left.
    """
    left, right = np.array(theirs, dtype=np.float64), np.array(expected, dtype=np.float64)
    known = ~np.isnan(left)
    apart = np.abs(left - right)[known]
    differ = ~(apart <= TOLERANCE * np.abs(right).max(initial=0))
    if not known.any() or differ.sum() > ties:
        most = f"at most {apart.max():.2g}" if known.any() else "no value"
        raise RuntimeError(f"the sides differ: {what} of {differ.sum()} texts, by {most}")


def check(one: Comparison, theirs: Values, mine: PassResult, defined: dict[int, dict[str, float]]) -> None:
    """Compare all values of a peer with ours, or with its own formula, by text in the order of `defined`."""
    for name, values in theirs.items():
        ids, rows = list(defined), mine.rows.columns
        expected = of_ids(mine, name, ids) if name in rows else [defined[i][name] for i in ids]
        ties = len(ids) // 100 if name in GREEDY else 0
        agree_by_text(values, expected, f"{name} of {one.name}", ties)


def measure(args: argparse.Namespace) -> list[Table]:
    """Time all sides in turns."""
    setting = prepare(args)
    nudge(setting.module)
    rows: list[list[Cell]] = []
    notes: list[str] = []
    with evaluation_mode(setting.module.language_model):
        peers = comparisons(setting)
        found = definitions(setting)
        defined = {example.example_id: found[example.example_id] for example in setting.examples}
        ours(setting, peers[0].measures, known=False)  # warms up
        for one in peers:
            for compared in one.generation.extraction.measures.values() if one.generation else ():
                compared(Continuation([1], [1], "a", "a"))  # imports
            rows += timed(setting, one, args.repeats, defined, notes)
    table = Table(
        f"Peers: {args.model}, {len(setting.examples)} texts, {setting.tokens} tokens, medians of {args.repeats}, "
        f"{machine(device_of(args))}",
        ["", "passes a text", "seconds", "ours", "ours, known", "÷ ours", "÷ ours, known"],
        rows,
        notes,
    )
    return [table]


def timed(
    setting: Setting, one: Comparison, repeats: int, defined: dict[int, dict[str, float]], notes: list[str]
) -> list[list[Cell]]:
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
            check(one, values, result, defined)
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
    args = parser(__doc__, rows=50).parse_args()
    tell(args, "peers", measure(args))


if __name__ == "__main__":
    main()
