"""Every extraction measure fulfils the interface."""

import importlib
import inspect
import math
import pkgutil

import pytest
import torch

import lit_mem.extraction
from lit_mem.extraction import Continuation, ExactMatch, ExtractionMeasure, NgramRate

SHORT = ["rash", ".", "I", "a b"]
OTHER_SCRIPTS = ["患者出现皮疹", "皮疹。", "🙂", "👩‍⚕️ ❤️", "zażółć gęślą jaźń", "कि का", "\ufffd", " rash\n"]


def every_measure():
    """All concrete measures of the package, so that new files are tested automatically."""
    found = set()
    for entry in pkgutil.walk_packages(lit_mem.extraction.__path__, "lit_mem.extraction."):
        for value in vars(importlib.import_module(entry.name)).values():
            if inspect.isclass(value) and issubclass(value, ExtractionMeasure) and not inspect.isabstract(value):
                found.add(value)
    return sorted(found, key=lambda measure: measure.__name__)


@pytest.fixture(scope="module", params=every_measure(), ids=lambda measure: measure.__name__)
def measure(request, encoder_folder):
    """With its defaults; a measure that needs a model gets a tiny one."""
    options = inspect.signature(request.param).parameters
    return request.param(**({"model": encoder_folder()} if "model" in options else {}))


def continuation(tokenizer, generated, truth):
    generated_ids = tokenizer(generated, add_special_tokens=False)["input_ids"] if generated else []
    return Continuation(generated_ids, tokenizer(truth, add_special_tokens=False)["input_ids"], generated, truth)


def test_the_package_is_not_empty():
    assert {"ExactMatch", "NgramRate", "RougeL", "BertScore"} <= {measure.__name__ for measure in every_measure()}


def test_the_truth_is_one_and_nothing_is_zero(measure, tokenizer, texts):
    for text in [*texts[:5], *SHORT, *OTHER_SCRIPTS]:
        assert measure(continuation(tokenizer, text, text)) == 1.0
        assert measure(continuation(tokenizer, "", text)) == 0.0


@pytest.mark.slow
def test_every_value_is_a_finite_share(measure, tokenizer, texts):
    for generated in (texts[0], texts[1][:30], " ", "zzz", texts[2] + " " + texts[0], *SHORT, *OTHER_SCRIPTS):
        for truth in (texts[0], *SHORT, *OTHER_SCRIPTS):
            value = measure(continuation(tokenizer, generated, truth))
            assert isinstance(value, float)
            assert math.isfinite(value)
            assert 0 <= value <= 1


def test_the_truth_is_not_outdone(measure, tokenizer, texts):
    truth = continuation(tokenizer, texts[0], texts[0])
    for other in texts[1:6]:
        assert measure(continuation(tokenizer, other, texts[0])) < measure(truth)


def test_many_at_a_time_are_as_one_after_another(measure, tokenizer, texts):
    pairs = [(texts[i][: 10 + 40 * (i % 3)], texts[j]) for i, j in ((0, 0), (1, 2), (2, 2), (3, 1), (1, 2))]
    pairs += [("", texts[0]), (texts[4], texts[4]), *zip(OTHER_SCRIPTS, reversed(OTHER_SCRIPTS), strict=True)]
    continuations = [continuation(tokenizer, generated, truth) for generated, truth in pairs]
    together = measure.over(continuations)
    assert all(isinstance(value, float) for value in together)
    assert together == pytest.approx([measure(one) for one in continuations], abs=1e-5)
    assert measure.over(continuations[::-1]) == pytest.approx(together[::-1], abs=1e-5)
    assert measure.over([]) == []


def test_the_precision_of_the_trainer_makes_no_difference(measure, tokenizer, texts):
    continuations = [continuation(tokenizer, texts[i][:70], texts[i + 1] + texts[i][:40]) for i in range(3)]
    before = measure.over(continuations)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            assert measure.over(continuations) == before
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_input_is_not_changed(measure, tokenizer, texts):
    given = continuation(tokenizer, texts[1], texts[0])
    before = (list(given.generated_ids), list(given.true_ids))
    measure(given)
    assert (given.generated_ids, given.true_ids) == before


def test_no_random_number_is_drawn(measure, tokenizer, texts):
    before = torch.get_rng_state()
    measure(continuation(tokenizer, texts[1], texts[0]))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("generated", "exact"),
    [([5, 6, 7], 1.0), ([5, 6], 0.0), ([5, 6, 8], 0.0), ([5, 6, 7, 7], 0.0), ([4, 5, 6], 0.0), ([], 0.0)],
)
def test_exact_match_is_token_for_token(generated, exact):
    assert ExactMatch()(Continuation(generated, [5, 6, 7], "the same words", "the same words")) == exact


def test_ngram_rate_reads_the_words():
    assert NgramRate()(Continuation([1], [2, 3], "mild rash after two doses", "severe rash after two weeks")) == 0.6
