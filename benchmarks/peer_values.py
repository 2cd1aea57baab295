"""What a peer found, compared text by text with ours, or with the peer's own formula where it defines it otherwise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.extraction import Answers, gap, generated
from benchmarks.peer_passes import SHARE, Values, lowest
from benchmarks.setting import Setting
from lit_mem.audit.loop import PassResult
from lit_mem.audit.measures import Extraction
from lit_mem.extraction.base import Continuation
from lit_mem.extraction.continuations import Candidate
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Needs, TokenScores

Definitions = dict[int, dict[str, float]]
"""By example id, in the order of the setting's texts: values by name."""
TOLERANCE = 1e-4
TIE = 1e-3
GREEDY = ("strength", "greedy", "extraction/exact_memorization")
"""Values that jump where two tokens have logits equal up to rounding."""
DIFFERENCES = {"mia/reference": "mia/loss", "headline": "min_k_plus_plus"}
"""Values that are a difference, whose rounding is that of its terms, and the value that is one of them."""


def definitions(setting: Setting) -> Definitions:
    """By example id the values that a peer defines otherwise than we do, by its formula, from our scores of tokens."""
    found: Definitions = {}
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
                "log of probability": logprob.mean(), "total": logprob.sum(), "greedy": float(run == n),
                "strength": max(run, 1) / n, "min_k": lowest(logprob, k), "min_k_plus_plus": lowest(standardized, k),
                "headline": lowest(standardized, k) - lowest(by_token_of(frozen, row)[1], k),
            }  # fmt: skip
    return {example.example_id: found[example.example_id] for example in setting.examples}


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


def agree_by_text(
    theirs: Sequence[float], expected: Sequence[float], what: str, terms: Sequence[float], ties: int = 0
) -> None:
    """Check that values agree text by text, up to rounding; NaN of theirs are left out.

    Args:
        theirs: a peer's values.
        expected: ours, or those of its definition.
        what: their name.
        terms: values whose largest gives the scale: `expected`, or what it is a difference of.
        ties: texts that may differ by more: those with two greedy tokens equal up to rounding.

    Raises:
        RuntimeError: they differ by more than 0.0001 of the largest term, or none is left.
    """
    left, right = np.array(theirs, dtype=np.float64), np.array(expected, dtype=np.float64)
    known = ~np.isnan(left)
    apart = np.abs(left - right)[known]
    differ = ~(apart <= TOLERANCE * np.abs(np.array(terms)).max(initial=0))
    if not known.any() or differ.sum() > ties:
        most = f"at most {apart.max():.2g}" if known.any() else "no value"
        raise RuntimeError(f"the sides differ: {what} of {differ.sum()} texts, by {most}")


def check(theirs: Values, mine: PassResult, defined: Definitions, who: str) -> None:
    """Compare all values of a peer with ours, or with its own formula, by text in the order of `defined`."""
    for name, values in theirs.items():
        ids, rows = list(defined), mine.rows.columns
        expected = of_ids(mine, name, ids) if name in rows else [defined[i][name] for i in ids]
        terms = theirs[DIFFERENCES[name]] if name in DIFFERENCES else expected
        ties = len(ids) // 100 if name in GREEDY else 0
        agree_by_text(values, expected, f"{name} of {who}", terms, ties)


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
                expected = of_ids(mine, column, equal)
                agree_by_text([self.values[column][i] for i in equal], expected, f"{column} of {who}", expected)
        if apart and max(apart) > TIE:
            raise RuntimeError(f"the sides differ: outputs of {who}, where the logits lie {max(apart):.2g} apart")
        n = sum(len(answers) for answers in self.found)
        return f"{who}: {len(apart)} of {n} outputs differ, each at tokens with logits equal up to {TIE:g}"
