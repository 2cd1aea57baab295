"""Offline RMIA compared with a plain loop over its definition, and by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from lit_mem.attacks.rmia import OfflineRMIA
from lit_mem.errors import ConfigError, MetricError
from lit_mem.types import Batch, TokenScores


def one_token(probabilities):
    """Scores of examples with one scored token of these probabilities."""
    n = len(probabilities)
    logprob = torch.tensor([[0.0, math.log(p)] for p in probabilities])
    mask = torch.tensor([[False, True]] * n)
    batch = Batch(input_ids=torch.zeros(n, 2).long(), labels=torch.zeros(n, 2).long(), example_id=torch.arange(n),
                  member=torch.zeros(n).bool())  # fmt: skip
    return TokenScores(logprob, mask, mask, batch["example_id"], batch["member"], batch=batch)


class Given:
    """A prober with a given population: `out[i][r]` is the probability that reference r gives example i."""

    def __init__(self, out):
        self.out = out

    def population(self, references):
        assert all(len(row) == len(references) for row in self.out)
        return lambda batch: [
            torch.tensor([[0.0, math.log(row[r])] for row in self.out]) for r in range(len(references))
        ]


def rmia(target, out, member, **options):
    attack = OfflineRMIA([str(i) for i in range(len(out[0]))], **options)
    attack.prepare(Given(out))
    return attack.over_set(attack(one_token(target)), torch.tensor(member))


# The probabilities of facebookresearch/PrivacyGuard, test_rmia_attack.py: population, then members, then others. The
# population's references all average 0.5, so its p(x) is (1.3 * 0.5 + 0.7) / 2 = 0.675 at a = 0.3.
POPULATION = [0.45, 0.55, 0.65], [[0.4, 0.5, 0.6], [0.5, 0.4, 0.6], [0.6, 0.5, 0.4]]
EXAMPLES = [0.8, 0.6, 0.9, 0.4, 0.1], [
    [0.4, 0.5, 0.3], [0.5, 0.4, 0.6], [0.4, 0.5, 0.3], [0.5, 0.6, 0.4], [0.6, 0.5, 0.7]
]  # fmt: skip


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        # Ratios by hand: population 0.6667, 0.8148, 0.9630; examples 0.8 / 0.61 = 1.3115, 0.6 / 0.675 = 0.8889,
        # 0.9 / 0.61 = 1.4754, 0.4 / 0.675 = 0.5926, 0.1 / 0.74 = 0.1351.
        (1.0, [1, 2 / 3, 1, 0, 0]),
        (1.5, [2 / 3, 0, 2 / 3 + 1 / 3, 0, 0]),
        (2.0, [0, 0, 1 / 3, 0, 0]),
    ],
)
def test_by_hand(gamma, expected):
    target, out = EXAMPLES[0] + POPULATION[0], EXAMPLES[1] + POPULATION[1]
    shares = rmia(target, out, [True] * 5 + [False] * 3, a=0.3, gamma=gamma)
    assert shares[:5].tolist() == pytest.approx(expected)
    assert shares.dtype == torch.float64


def plain(target, out, member, a, gamma):
    """The definition, example by example; ties up to rounding count half."""
    ratios = [p / (((1 + a) * sum(row) / len(row) + 1 - a) / 2) for p, row in zip(target, out, strict=True)]
    shares = []
    for x in ratios:
        wins = [
            0.5 if math.isclose(x / z, gamma, rel_tol=1e-9) else float(x / z > gamma)
            for z, is_member in zip(ratios, member, strict=True)
            if not is_member
        ]
        shares.append(sum(wins) / len(wins))
    return shares


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 15),
    references=st.integers(1, 4),
    a=st.sampled_from([0.0, 0.33, 1.0]),
    gamma=st.sampled_from([0.5, 1.0, 1.7]),
)
def test_it_is_the_definition_example_by_example(seed, n, references, a, gamma):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(n, references + 1, generator=generator).clamp(min=0.01).log().exp()  # in float32 logs
    target = [math.exp(torch.tensor(math.log(p)).item()) for p in draw[:, 0].tolist()]
    out = [[math.exp(torch.tensor(math.log(p)).item()) for p in row] for row in draw[:, 1:].tolist()]
    member = [i % 2 == 0 for i in range(n)]
    expected = plain(target, out, member, a, gamma)
    assert rmia(target, out, member, a=a, gamma=gamma).tolist() == pytest.approx(expected, abs=1e-9)


def test_equal_ratios_score_the_same_whoever_has_them():
    shares = rmia([0.5] * 6, [[0.25]] * 6, [True, False] * 3)
    assert shares.tolist() == [0.5] * 6
    # The second non-member and the second member tie, among others above and below.
    shares = rmia([0.9, 0.5, 0.1, 0.5, 0.3, 0.7], [[0.25]] * 6, [True, True, True, False, False, False])
    assert shares[1] == shares[3] == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_at_gamma_one_the_auroc_is_that_of_the_ratio_itself(seed):
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(60, generator=generator, dtype=torch.float64)
    score[40:] = score[:20]  # ties across the sets
    member = torch.arange(60) % 3 == 0
    shares = OfflineRMIA(["a"]).over_set(score, member)
    assert roc_auc_score(member, shares) == pytest.approx(roc_auc_score(member, score), abs=1e-12)
    top = score.argmax()
    assert (shares[top] >= shares).all()


def test_a_member_above_all_others_ranks_above_the_best_of_them():
    score = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
    shares = OfflineRMIA(["a"]).over_set(score, torch.tensor([True, False, False]))
    assert shares.tolist() == [1.0, 0.75, 0.25]


def test_probabilities_too_small_for_a_float_keep_their_order():
    attack = OfflineRMIA(["a", "b"], a=1.0)
    attack.prepare(Given([[0.5, 0.5]] * 3))
    attack._population = lambda batch: [torch.tensor([[0.0, -5000.0]] * 3), torch.tensor([[0.0, -5001.0]] * 3)]
    scores = one_token([0.5] * 3)
    scores.logprob[:, 1] = torch.tensor([-4000.0, -5000.0, -6000.0])
    expected = [x + 5000 + math.log(2) - math.log1p(math.exp(-1)) for x in (-4000.0, -5000.0, -6000.0)]
    assert attack(scores).tolist() == pytest.approx(expected)


def test_nan_stays_nan_and_is_no_part_of_the_population():
    score = torch.tensor([2.0, math.nan, 1.0, 0.0, math.nan], dtype=torch.float64)
    shares = OfflineRMIA(["a"]).over_set(score, torch.tensor([True, True, False, False, False]))
    assert shares.tolist() == pytest.approx([1.0, math.nan, 0.75, 0.25, math.nan], nan_ok=True)


def test_a_set_without_non_members_is_rejected():
    with pytest.raises(MetricError, match="OfflineRMIA compares with the set's non-members"):
        OfflineRMIA(["a"]).over_set(torch.zeros(3, dtype=torch.float64), torch.ones(3).bool())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"references": []}, r"OfflineRMIA\.references names 0 models; expected 1 or more"),
        ({"references": ["a"], "a": 1.1}, r"OfflineRMIA\.a is 1\.1"),
        ({"references": ["a"], "gamma": 0.0}, r"OfflineRMIA\.gamma is 0\.0"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        OfflineRMIA(**options)
