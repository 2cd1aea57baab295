"""LiRA and RMIA, offline, by their closed forms."""

import math

import pytest
from scipy.stats import norm

from lit_mem.attacks.lira import OfflineLiRA
from lit_mem.attacks.rmia import OfflineRMIA

# Mean log-probabilities of four texts, members and non-members in turn: under the tuned model and three references.
TUNED = [-1.5, -2.0, -2.25, -3.125]
OUT = {"a": [-2.0, -2.5, -2.0, -3.5], "b": [-3.0, -2.0, -3.0, -2.5], "c": [-4.0, -1.5, -4.0, -3.0]}


@pytest.fixture
def asked(prober, tokenizer, scores_of):
    """Scores of texts of one to four tokens with these means, and an attack prepared with the references."""
    rows = [[mean] * (1 + i) for i, mean in enumerate(TUNED)]
    scores = scores_of(rows, texts=["x"] * 4)
    references = {
        name: scores_of([[mean] * (1 + i) for i, mean in enumerate(means)]).logprob for name, means in OUT.items()
    }

    def run(attack):
        attack.prepare(prober(tokenizer, None, references=references))
        return attack(scores), scores.member

    return run


def test_offline_lira_is_the_distance_from_the_references_in_deviations(asked):
    score, _ = asked(OfflineLiRA(list(OUT), deviation="example"))
    for i, value in enumerate(score.tolist()):
        out = [means[i] for means in OUT.values()]
        mean = sum(out) / 3
        deviation = math.sqrt(sum((x - mean) ** 2 for x in out) / 3)
        assert value == pytest.approx((TUNED[i] - mean) / deviation, rel=1e-6)
    by_hand = [1.5 / math.sqrt(2 / 3), 0.0, 0.75 / math.sqrt(2 / 3), -0.125 / math.sqrt(1 / 6)]
    assert score.tolist() == pytest.approx(by_hand, abs=1e-6)


def test_offline_lira_with_one_deviation_for_all_is_a_difference(asked):
    score, _ = asked(OfflineLiRA(list(OUT), deviation="fixed"))
    assert score.tolist() == pytest.approx([1.5, 0.0, 0.75, -0.125], abs=1e-6)


def test_lira_keeps_the_distance_where_its_probability_would_tie(prober, tokenizer, scores_of):
    """The attack's Φ(z) is 1 in float64 from z = 8.3 on: the strongest members would be tied."""
    scores = scores_of([[-0.5], [-0.25]], texts=["x"] * 2)
    references = {name: scores_of([[mean], [mean]]).logprob for name, mean in (("a", -3.0), ("b", -3.5))}
    attack = OfflineLiRA(["a", "b"], deviation="example")
    attack.prepare(prober(tokenizer, None, references=references))
    z = attack(scores)
    assert z.tolist() == pytest.approx([11.0, 12.0], abs=1e-6)
    assert norm.cdf(z.tolist()).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("a", [0.0, 0.33, 1.0])
@pytest.mark.parametrize("gamma", [1.0, 1.25])
def test_offline_rmia_is_the_share_of_ratios_outdone(asked, a, gamma):
    """p(x) = ((1 + a) p_out + 1 − a) / 2, followed by a loop over pairs; as in ml_privacy_meter and PrivacyGuard."""
    attack = OfflineRMIA(list(OUT), a=a, gamma=gamma)
    log_ratio, member = asked(attack)
    ratio = []
    for i, mean in enumerate(TUNED):
        p_out = sum(math.exp(means[i]) for means in OUT.values()) / 3
        ratio.append(math.exp(mean) / (((1 + a) * p_out + 1 - a) / 2))
    assert log_ratio.exp().tolist() == pytest.approx(ratio, rel=1e-6)
    others = [ratio[1], ratio[3]]
    share = attack.over_set(log_ratio, member).tolist()
    for value, x in zip(share, ratio, strict=True):
        # A tie at gamma counts half.
        wins = [0.5 if math.isclose(x / z, gamma, rel_tol=1e-9) else float(x / z > gamma) for z in others]
        assert value == pytest.approx(sum(wins) / 2)


def test_rmia_counts_ratios_and_not_probabilities(asked):
    """A text that every model finds likely is not a member for that reason, although p_θ(x) alone suggests it."""
    attack = OfflineRMIA(list(OUT), a=1.0)
    log_ratio, member = asked(attack)
    share = attack.over_set(log_ratio, member)
    assert TUNED[1] > TUNED[2]
    assert share[2] > share[1]
