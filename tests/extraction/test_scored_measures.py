"""Scoring-pass extraction measures: the interface, definitions by brute force, and generation."""

import importlib
import inspect
import math
import pkgutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lit_mem.extraction
from lit_mem.data.encoding import collate
from lit_mem.errors import ConfigError, MetricError
from lit_mem.extraction import Discoverable, ExactMemorization, ExtractionStrength, NgramHits, NgramMemorization
from lit_mem.extraction.scored import ScoredMeasure
from lit_mem.generation.decoding import decode
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Needs, Sampling, TokenScores

SCHEME = Sampling(top_k=40)


def every_measure():
    """All concrete measures of the package, so that new files are tested automatically."""
    found = set()
    for entry in pkgutil.walk_packages(lit_mem.extraction.__path__, "lit_mem.extraction."):
        for value in vars(importlib.import_module(entry.name)).values():
            if inspect.isclass(value) and issubclass(value, ScoredMeasure) and not inspect.isabstract(value):
                found.add(value)
    return sorted(found, key=lambda measure: measure.__name__)


@pytest.fixture(params=every_measure(), ids=lambda measure: measure.__name__)
def measure(request):
    return request.param()


def made_up(patterns, width=None, first=1):
    """Scores of examples with greedy hits given as strings of 1 and 0."""
    width = width or max(map(len, patterns)) + first
    mask = torch.zeros(len(patterns), width, dtype=torch.bool)
    hit, drawn = torch.zeros_like(mask), torch.zeros(len(patterns), width)
    for row, pattern in enumerate(patterns):
        for i, letter in enumerate(pattern):
            mask[row, first + i] = True
            hit[row, first + i] = letter == "1"
            drawn[row, first + i] = -0.1 if letter == "1" else -5.0
    ids = torch.arange(len(patterns))
    return TokenScores(drawn, hit, mask, ids, ids % 2 == 0, sampled={SCHEME: drawn})


PATTERNS = ["1", "0", "111", "1101", "0011", "1110", "", "10101", "0" * 12, "1" * 12]


def test_the_package_is_not_empty():
    assert {ExactMemorization, ExtractionStrength, Discoverable} <= set(every_measure())


def test_shape_type_and_range(measure):
    result = measure(made_up(PATTERNS))
    assert result.shape == (len(PATTERNS),)
    assert result.dtype == torch.float64
    assert result.device.type == "cpu"
    assert ((result >= 0) & (result <= 1)).all()
    assert result[PATTERNS.index("")] == 0


def test_padding_order_and_company_do_not_matter(measure):
    result = measure(made_up(PATTERNS))
    assert torch.equal(measure(made_up(PATTERNS, 40)), result)
    assert torch.equal(measure(made_up(PATTERNS, first=9)), result)  # padding on the left, or a prompt
    assert torch.equal(measure(made_up(PATTERNS[::-1])), result.flip(0))
    assert torch.equal(torch.cat([measure(made_up([p])) for p in PATTERNS]), result)


def test_a_text_predicted_whole_is_one_and_one_missed_whole_is_zero(measure):
    sure = made_up(["1" * 8, "0" * 8])
    drawn = torch.where(sure.hit, 0.0, -torch.inf).masked_fill(~sure.mask, 0.0)
    assert measure(replace(sure, sampled={SCHEME: drawn})).tolist() == [1.0, 0.0]


@given(st.text("01", min_size=1, max_size=15))
def test_strength_is_the_shortest_prefix_that_gives_the_rest(pattern):
    n = len(pattern)
    k = min(k for k in range(n + 1) if "0" not in pattern[k:])
    assert ExtractionStrength()(made_up([pattern])).item() == pytest.approx(1 - k / n)


def test_strength_is_zero_when_nothing_matches_whatever_the_length():
    """open-unlearning gives 1/n there, which favours short texts."""
    assert ExtractionStrength()(made_up(["0", "000", "0" * 7, "10"])).tolist() == [0, 0, 0, 0]


@given(st.text("01", min_size=1, max_size=15))
def test_exact_memorization_is_the_share_of_hits(pattern):
    assert ExactMemorization()(made_up([pattern])).item() == pytest.approx(pattern.count("1") / len(pattern))


@pytest.mark.parametrize("n_texts", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_strength_is_what_greedy_generation_finds(base, examples, n_texts):
    """`model.generate` from every prefix, shortest first."""
    base.generation_config.pad_token_id = 3
    scores = TokenScorer(base)(collate(examples[:n_texts]))
    found = ExtractionStrength()(scores)
    for row, example in enumerate(examples[:n_texts]):
        ids = example.input_ids
        n = len(ids) - 1  # the first token is part of the prompt and does not count
        for k in range(n + 1):
            if k == n:
                break
            out = base.generate(
                ids[None, : k + 1], attention_mask=torch.ones(1, k + 1), do_sample=False, max_new_tokens=n - k
            )
            if out[0].tolist() == ids.tolist():
                break
        assert found[row].item() == pytest.approx(1 - k / n)


# (n, p)-discoverable extraction -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [0, 0.29, 0.5, 3])
def test_the_suffix_is_what_follows_the_prefix(prefix):
    lengths = [1, 2, 4, 7, 100]
    scores = made_up(["10" * 50][:1] + ["1" * n for n in lengths])
    total = Discoverable(prefix=prefix).suffix_logprob(scores)[1:]
    for value, n in zip(total.tolist(), lengths, strict=True):
        given_tokens = int(prefix * n + 1e-9) if prefix < 1 else prefix
        left = n - given_tokens
        assert value == (pytest.approx(-0.1 * left) if left > 0 else -math.inf)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_rate_within_tries_is_that_of_sampling_them():
    """A model with few tokens, actually sampled: the share of texts sampled at least once in n tries."""
    from types import SimpleNamespace

    class Bigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(4)
            self.table = torch.nn.Parameter(2 * torch.randn(6, 6, generator=generator))

        def forward(self, input_ids, **_):
            return SimpleNamespace(logits=self.table[input_ids], past_key_values=None)

    model, scheme, n = Bigram(), Sampling(0.9, 3), 12
    ids = torch.tensor([[0, 2, 4, 1]])
    # A text that can be sampled: each token among the three most likely.
    for t in range(1, 4):
        ids[0, t] = model.table[ids[0, t - 1]].topk(3).indices[t % 3]
    batch = {
        "input_ids": ids, "labels": torch.tensor([[-100, *ids[0, 1:].tolist()]]),
        "example_id": torch.tensor([0]), "member": torch.tensor([True]),
    }  # fmt: skip
    scores = TokenScorer(model)(batch, Needs(sampling=frozenset({scheme})))
    expected = Discoverable(n=n, p=None, prefix=1, sampling=scheme)(scores).item()
    runs = 3000
    drawn = decode(model, [ids[0, :2]] * (runs * n), [2] * (runs * n), None, scheme, token_budget=10**6)
    hits = torch.tensor([d.ids.tolist() == ids[0, 2:].tolist() for d in drawn]).view(runs, n)
    assert 0.1 < expected < 0.99
    assert hits.any(dim=1).double().mean().item() == pytest.approx(expected, abs=0.03)


def test_it_counts_from_the_probability_on():
    scores = made_up(["1" * 10])
    probability = Discoverable(n=3, p=None)(scores).item()
    assert Discoverable(n=3, p=probability - 1e-9)(scores).item() == 1
    assert Discoverable(n=3, p=probability + 1e-9)(scores).item() == 0


def test_without_the_scheme_it_says_so():
    with pytest.raises(MetricError, match="top_k=7"):
        Discoverable(sampling=Sampling(top_k=7))(made_up(["11"]))


@pytest.mark.parametrize(("option", "value"), [("n", 0), ("p", 0.0), ("p", 1.0), ("prefix", -0.1), ("prefix", 1.5)])
def test_options_out_of_range(option, value):
    with pytest.raises(ConfigError, match=rf"Discoverable\.{option} is"):
        Discoverable(**{option: value})
    with pytest.raises(ConfigError, match=r"Discoverable\.sampling\.temperature"):
        Discoverable(sampling=Sampling(temperature=0))


# n-gram hits ------------------------------------------------------------------------------------------------------


@given(st.lists(st.text("01-", min_size=1, max_size=15), min_size=1, max_size=4), st.integers(1, 5))
def test_ngram_hits_count_the_runs_of_n_tokens_that_are_all_hits(patterns, size):
    """`-` is an unscored token, such as in a user's turn: no run crosses it."""
    scores = made_up(patterns)
    unscored = torch.tensor([[False] + [c == "-" for c in p.ljust(scores.mask.shape[1] - 1)] for p in patterns])
    found = NgramHits([size])(replace(scores, mask=scores.mask & ~unscored))
    for value, pattern in zip(found.tolist(), patterns, strict=True):
        n = min(size, max(map(len, pattern.split("-"))))
        runs = [pattern[i : i + n] for i in range(len(pattern) - n + 1) if "-" not in pattern[i : i + n]]
        assert value == pytest.approx(runs.count("1" * n) / len(runs) if n else 0)


def test_ngram_hits_are_the_mean_over_the_sizes():
    scores = made_up(PATTERNS)
    one_by_one = torch.stack([NgramHits([n])(scores) for n in (4, 5, 6)])
    assert torch.equal(NgramHits()(scores), one_by_one.mean(dim=0))
    assert torch.equal(NgramHits([1])(scores), ExactMemorization()(scores))


def test_ngram_hits_are_what_greedy_generation_writes(base, examples):
    """`model.generate` of n tokens from every position of a text."""
    base.generation_config.pad_token_id = 3
    example, n = examples[1], 2
    ids = example.input_ids
    places = range(1, len(ids) - n + 1)
    written = 0
    for k in places:
        out = base.generate(ids[None, :k], attention_mask=torch.ones(1, k), do_sample=False, max_new_tokens=n)
        written += out[0, k:].tolist() == ids[k : k + n].tolist()
    assert 0 < written < len(places)
    assert NgramHits([n])(TokenScorer(base)(collate([example]))).item() == pytest.approx(written / len(places))


@pytest.mark.parametrize("measure", [NgramHits, NgramMemorization])
@pytest.mark.parametrize("sizes", [[], [4, 0], [-1]])
def test_sizes_below_one_are_rejected(measure, sizes):
    with pytest.raises(ConfigError, match=rf"{measure.__name__}\.sizes is \["):
        measure(sizes)
