"""Offline LiRA compared with the published arrays of TensorFlow Privacy, and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.attacks.lira import OfflineLiRA
from lit_mem.errors import ConfigError
from lit_mem.types import Batch, TokenScores


def one_token(values):
    """Scores of examples with one scored token of these log-probabilities."""
    n = len(values)
    logprob = torch.tensor([[0.0, value] for value in values])
    mask = torch.tensor([[False, True]] * n)
    batch = Batch(input_ids=torch.zeros(n, 2).long(), labels=torch.zeros(n, 2).long(), example_id=torch.arange(n),
                  member=torch.zeros(n).bool())  # fmt: skip
    return TokenScores(logprob, mask, mask, batch["example_id"], batch["member"], batch=batch)


class Given:
    """A prober with a given population: `out[r][i]` is reference r's log-probability of example i."""

    def __init__(self, out):
        self.out = out

    def population(self, references):
        assert len(references) == len(self.out)
        return lambda batch: [torch.tensor([[0.0, value] for value in row]) for row in self.out]


def lira(values, out, deviation="auto"):
    attack = OfflineLiRA([str(i) for i in range(len(out))], deviation)
    attack.prepare(Given(out))
    return attack(one_token(values))


# tensorflow_privacy, advanced_mia_test.py, TestLiRA.test_with_one_augmentation (Apache 2.0; the numbers only): targets
# 1, 0, 0; shadow models without the example (1, -1), (0, -2), (0, -20); atol 1e-7. Its score is the log density.
TARGETS = [1.0, 0.0, 0.0]
OUT = [[1.0, 0.0, 0.0], [-1.0, -2.0, -20.0]]


def log_density(z, std):
    return -0.5 * math.log(2 * math.pi) - math.log(std) - z**2 / 2


def test_golden_one_deviation_for_each_example():
    z = lira(TARGETS, OUT, "example").tolist()
    densities = [log_density(value, std) for value, std in zip(z, (1.0, 1.0, 10.0), strict=True)]
    assert densities == pytest.approx([-1.41893853, -1.41893853, -3.72152363], abs=1e-7)


def test_golden_one_deviation_for_all():
    difference = lira(TARGETS, OUT, "fixed").tolist()
    pooled = math.sqrt((1 + 1 + 100) / 3)  # root mean square deviation of the references from their means
    densities = [log_density(value / pooled, pooled) for value in difference]
    assert densities == pytest.approx([-2.69682468, -2.69682468, -4.15270703], abs=1e-7)


def test_by_hand():
    assert lira([-1.0], [[-2.0], [-4.0]], "example").item() == pytest.approx(2.0)  # (-1 + 3) / 1
    assert lira([-1.0], [[-2.0], [-4.0]], "fixed").item() == pytest.approx(2.0)
    assert lira([-1.0], [[-2.0], [-8.0]], "example").item() == pytest.approx(4 / 3)
    assert lira([-1.0], [[-2.0], [-8.0]], "fixed").item() == pytest.approx(4.0)


@pytest.mark.parametrize(("references", "same_as"), [(2, "fixed"), (7, "fixed"), (8, "example"), (9, "example")])
def test_an_own_deviation_from_eight_references_on(references, same_as):
    out = [[-1.0 - i, -2.0 - 3 * i] for i in range(references)]
    assert torch.equal(lira([-1.0, -1.5], out), lira([-1.0, -1.5], out, same_as))
    other = "fixed" if same_as == "example" else "example"
    assert not torch.equal(lira([-1.0, -1.5], out), lira([-1.0, -1.5], out, other))


def test_references_that_all_agree_give_a_finite_score():
    values = lira([-1.0, -2.0, -3.0], [[-2.0] * 3] * 8)
    assert torch.isfinite(values).all()
    assert values[0] > values[1] == 0 > values[2]


@given(
    value=st.floats(-20, 0, width=32),
    out=st.lists(st.floats(-20, 0, width=32), min_size=2, max_size=12),
    rise=st.floats(0.125, 5, width=32),
    deviation=st.sampled_from(["auto", "example", "fixed"]),
)
def test_a_likelier_text_scores_higher_and_references_have_no_order(value, out, rise, deviation):
    score = lira([value], [[x] for x in out], deviation)
    assert torch.isfinite(score).all()
    assert lira([value + rise], [[x] for x in out], deviation) > score
    torch.testing.assert_close(lira([value], [[x] for x in out[::-1]], deviation), score, rtol=1e-9, atol=1e-9)


def test_tokens_that_are_not_scored_do_not_count():
    """Two of four tokens are scored: the mean is over them, whatever a reference gives for the others."""
    mask = torch.tensor([[False, True, True, False]])
    logprob = torch.tensor([[0.0, -1.0, -2.0, 0.0]])
    batch = Batch(input_ids=torch.zeros(1, 4).long(), labels=torch.zeros(1, 4).long(), example_id=torch.tensor([3]),
                  member=torch.tensor([True]))  # fmt: skip
    attack = OfflineLiRA(["a", "b"])
    prober = Given([[0.0], [0.0]])
    prober.population = lambda names: lambda batch: [
        torch.tensor([[9.0, -2.0, -4.0, -50.0]]), torch.tensor([[9.0, -4.0, -6.0, 7.0]])
    ]  # fmt: skip
    attack.prepare(prober)
    score = attack(TokenScores(logprob, mask, mask, batch["example_id"], batch["member"], batch=batch))
    assert score.item() == pytest.approx(-1.5 + 4.0)


def test_the_references_are_loaded_once():
    attack, loads = OfflineLiRA(["a", "b"]), []
    prober = Given([[-1.0], [-2.0]])
    prober.population = lambda names: loads.append(names) or (lambda batch: [torch.zeros(1, 2)] * 2)
    attack.prepare(prober)
    attack.prepare(prober)
    assert loads == [["a", "b"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"references": ["a"]}, r"OfflineLiRA\.references names 1 models; expected 2 or more"),
        ({"references": []}, r"OfflineLiRA\.references names 0 models"),
        ({"references": ["a", "b", "a"]}, r"OfflineLiRA\.references names 'a' twice"),
        ({"references": ["a", "b"], "deviation": "pooled"}, r"OfflineLiRA\.deviation is 'pooled'"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        OfflineLiRA(**options)
