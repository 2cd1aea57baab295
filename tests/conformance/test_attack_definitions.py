"""The attacks on the scoring pass: each formula, and what other implementations compute under its name."""

import math
import random
import re
import zlib as compression

import pytest
import torch

from lit_mem.attacks import EzMia, MinK, MinKPlusPlus, ReferenceRatio, WindowComparison, Zlib
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.data.encoding import collate
from lit_mem.errors import ConfigError
from lit_mem.functional.auroc import auroc
from lit_mem.models.base_models import load_base
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Needs

MEMBER = torch.tensor([True, False])


@pytest.mark.parametrize("name", default_attacks())
def test_higher_means_member_in_every_attack(all_scores_of, name):
    """mimir, open-unlearning, LLM-PBE and detect-pretrain-code use the opposite sign: an AUROC near 0 is one near 1."""
    score = default_attacks()[name](all_scores_of(likelier=(0.8, 0.0)))
    assert auroc(score, MEMBER).value == 1.0
    assert auroc(-score, MEMBER).value == 0.0


# Reference --------------------------------------------------------------------------------------------------------


def test_the_reference_attack_is_a_difference_and_not_a_ratio(scores_of):
    """LLM-PBE's `refer`, LM_Memorization and mia_llms_benchmark divide log-perplexities, which ranks differently."""
    scores = scores_of([[-1.0] * 3, [-4.0] * 5], reference=[[-2.0] * 3, [-6.0] * 5])
    ratio = [1.0 / 2.0, 4.0 / 6.0]  # low = member
    score = ReferenceRatio()(scores)
    by_hand = [math.log(math.exp(-1.0) / math.exp(-2.0)), math.log(math.exp(-4.0) / math.exp(-6.0))]
    assert score.tolist() == pytest.approx(by_hand, abs=1e-12)
    assert ratio[0] < ratio[1]  # there the first is the member
    assert score[1] > score[0]
    of_perplexities = [math.exp(1.0) / math.exp(2.0), math.exp(4.0) / math.exp(6.0)]  # copyright-traps, low = member
    assert -torch.tensor(of_perplexities).log().double() == pytest.approx(score.tolist(), abs=1e-6)


def test_the_reference_is_subtracted_as_a_log_likelihood(scores_of):
    """recall's `ref` takes the first value of its scorer, the reference's probability: almost the loss alone."""
    scores = scores_of([[-3.0], [-4.0]], reference=[[-3.0], [-9.0]])
    theirs = [ll - math.exp(ref) for ll, ref in ((-3.0, -3.0), (-4.0, -9.0))]
    assert theirs[0] > theirs[1]
    assert ReferenceRatio()(scores).tolist() == [0.0, 5.0]


@torch.no_grad()
def test_the_reference_scores_come_from_the_reference(module, batch):
    """mimir passes the target's probabilities to the reference if the caller has them: every score is 0."""
    model = module()
    model.configure_model()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.2)
    model.eval()
    scores = model.score(batch, Needs(reference=True))
    theirs = scores.with_reference(scores.logprob)
    assert ReferenceRatio()(theirs).tolist() == [0.0] * len(batch["member"])
    frozen = TokenScorer(load_base("asset:tiny_llama").eval())(batch)
    expected = (scores.total_logprob - frozen.total_logprob) / scores.n_tokens
    torch.testing.assert_close(ReferenceRatio()(scores), expected, rtol=0, atol=1e-6)
    assert expected.abs().min() > 1e-3


def test_an_untrained_adapter_scores_zero_to_the_last_bit(module, batch):
    model = module()
    model.configure_model()
    model.eval()
    scores = model.score(batch, Needs(reference=True))
    assert ReferenceRatio()(scores).tolist() == [0.0] * len(batch["member"])
    assert auroc(ReferenceRatio()(scores), batch["member"]).value == 0.5


# zlib -------------------------------------------------------------------------------------------------------------


def test_zlib_compares_like_with_like_and_does_not_favour_long_texts(scores_of):
    """mimir, open-unlearning and Carlini et al. divide the mean, LLM-PBE the perplexity: halved for a doubled text."""
    letters = random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=8000)
    once, twice = "".join(letters[:4000]), "".join(letters)
    scores = scores_of([[-2.0] * 1000, [-2.0] * 2000], texts=[once, twice])
    sizes = [len(compression.compress(text.encode())) for text in (once, twice)]
    score = Zlib()(scores).tolist()
    assert score == pytest.approx([-2000 / sizes[0], -4000 / sizes[1]], rel=1e-6)
    assert score[1] / score[0] == pytest.approx(1.0, abs=0.01)
    of_the_mean = [2.0 / size for size in sizes]  # low = member
    of_the_perplexity = [math.exp(2.0) / (8 * size) for size in sizes]
    for theirs in (of_the_mean, of_the_perplexity):
        assert theirs[1] / theirs[0] == pytest.approx(0.5, abs=0.01)


# Min-K% and Min-K%++ ----------------------------------------------------------------------------------------------


def test_a_share_of_few_tokens_is_at_least_one_token(scores_of):
    """int(4 × 0.2) = 0 in mimir, detect-pretrain-code, mink-plus-plus, recall and copyright-traps: an empty mean."""
    row = [-1.0, -3.0, -2.0, -0.5]
    theirs = sorted(row)[: int(len(row) * 0.2)]
    assert theirs == []
    assert MinK(share=0.2)(scores_of([row])).item() == -3.0


def test_a_share_is_of_the_tokens_and_not_of_the_padded_width(scores_of):
    """copyright-traps takes k % of the batch's width."""
    row, width = [-1.0, -9.0, -2.0, -0.5, -3.0], 16
    theirs = sorted([*row, *[0.0] * (width - 1 - len(row))])[: int(0.2 * (width - 1))]
    assert theirs == [-9.0, -3.0, -2.0]
    assert MinK(share=0.2)(scores_of([row], width=width)).item() == -9.0
    assert MinK(share=0.2)(scores_of([row])).item() == -9.0


def test_min_k_averages_the_least_likely_tokens(scores_of):
    """The papers' "k %" are the lowest tokens, although a comment says "top" (mimir)."""
    row = [-1.0, -9.0, -2.0, -0.5, -3.0, -4.0, -0.1, -0.2, -7.0, -0.3]
    assert MinK(share=0.2)(scores_of([row])).item() == (-9.0 - 7.0) / 2


def test_the_moments_of_min_k_plus_plus_are_weighted_by_probability(base, examples):
    """mia_llms_benchmark weights the vocabulary uniformly for mean and deviation: another statistic."""
    example = examples[8]
    ids = example.input_ids
    with torch.no_grad():
        logprob = base(input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1)
    of_truth = logprob.gather(1, ids[1:, None])[:, 0]
    p = logprob.exp()
    mean = (p * logprob).sum(-1)
    std = (p * (logprob - mean[:, None]).square()).sum(-1).sqrt()
    k = int(0.2 * len(of_truth))
    right = ((of_truth - mean) / std).sort().values[:k].mean().item()
    theirs = ((of_truth - logprob.mean(-1)) / logprob.std(-1)).sort().values[:k].mean().item()
    scores = TokenScorer(base)(collate([example]), Needs(moments=True))
    assert MinKPlusPlus(share=0.2)(scores).item() == pytest.approx(right, rel=1e-4)
    assert abs(theirs - right) > 1


def test_the_variance_is_summed_around_the_mean(fixed_logits, batch_of):
    """E[x²] − μ², as in mink-plus-plus and recall, cancels if all tokens are about equally likely."""
    logits = 1e-3 * torch.randn(2048)
    logprob = logits.log_softmax(-1)
    p = logprob.exp()
    theirs = ((p * logprob.square()).sum() - (p * logprob).sum().square()).item()
    exact = logits.double().log_softmax(-1)
    right = ((exact.exp() * exact.square()).sum() - (exact.exp() * exact).sum().square()).sqrt().item()
    assert not 0.8 < theirs / right**2 < 1.2  # below 0 its root is NaN
    scores = TokenScorer(fixed_logits(logits))(batch_of([0, 1]), Needs(moments=True))
    assert scores.std[0, 1].item() == pytest.approx(right, rel=1e-3)


def test_a_deviation_of_zero_divides_nothing_to_nan(fixed_logits, batch_of):
    """If all tokens are equally likely, (ℓ − μ)/σ is 0/0."""
    scores = TokenScorer(fixed_logits(torch.zeros(64)))(batch_of([0, 1, 2]), Needs(moments=True))
    assert scores.std[0, 1].item() < 1e-6
    assert MinKPlusPlus()(scores).item() == pytest.approx(0.0, abs=0.05)


# Tuned model against its base -------------------------------------------------------------------------------------


def test_the_surest_member_of_ez_mia_is_the_highest_score(scores_of):
    """ez-mia replaces infinite and undefined ratios by 0, the lowest score."""
    rows = {"nothing fell": [2.0, 1.0], "no error": [3.0, 1.0], "balanced": [1.0, -1.0], "fell": [-2.0, -1.0]}
    hit = [[False, False], [True, True], [False, False], [False, False]]
    scores = scores_of([[d - 4 for d in row] for row in rows.values()], reference=[[-4.0, -4.0]] * 4, hit=hit)
    theirs = []
    for row, right in zip(rows.values(), hit, strict=True):
        zone = [d for d, is_hit in zip(row, right, strict=True) if not is_hit]
        rise, fall = sum(d for d in zone if d > 0), sum(-d for d in zone if d < 0)
        theirs.append(rise / fall if fall else 0.0)  # ∞ → 0, and 0/0 → 0
    assert theirs == [0.0, 0.0, 1.0, 0.0]
    assert EzMia(break_ties=False)(scores).tolist() == [1.0, 1.0, 0.0, -1.0]
    member = torch.tensor([True, True, False, False])
    assert auroc(torch.tensor(theirs), member).value < 0.5
    assert auroc(EzMia()(scores), member).value == 1.0


def test_ez_mia_counts_where_the_tuned_model_errs(scores_of):
    """The zone is that of the tuned model, not the reference's, and positions without an error do not count."""
    scores = scores_of(
        [[-1.0, -3.0, -4.5]],
        reference=[[-4.0, -4.0, -4.0]],
        hit=[[True, False, False]],
        reference_hit=[[False, True, False]],
    )
    in_zone = (1.0, 0.5)  # increase and decrease at the two errors; over all tokens 4.0 and 0.5
    assert EzMia(break_ties=False)(scores).item() == pytest.approx((in_zone[0] - in_zone[1]) / sum(in_zone), abs=1e-7)


@pytest.mark.parametrize("n", [1, 3, 7, 45])
def test_wbc_is_the_mean_over_sizes_of_shares_of_windows(scores_of, n):
    """By a loop; for a text shorter than a window the share is 0/0, and the mean over all sizes would be NaN."""
    delta = [random.Random(i).choice([-1.0, -0.5, 0.5, 0.75]) for i in range(n)]
    sizes = [2, 3, 4, 5, 8, 11, 15, 21, 29, 40]
    shares = []
    for size in [s for s in sizes if s <= n] or [n]:
        windows = [sum(delta[i : i + size]) for i in range(n - size + 1)]
        shares.append(sum(w > 0 for w in windows) / len(windows))
    assert WindowComparison().sizes == sizes
    scores = scores_of([[d - 4 for d in delta]], reference=[[-4.0] * n])
    assert WindowComparison(break_ties=False)(scores).item() == pytest.approx(sum(shares) / len(shares), abs=1e-12)


# The authors' own conventions, as options -------------------------------------------------------------------------


def test_zlib_of_the_mean_is_what_its_authors_divide(scores_of):
    """Carlini et al. 2021, mimir, open-unlearning and recall: mean log-probability by bytes of the compressed text."""
    rows, texts = [[-1.0, -2.5], [-0.5, -0.25, -4.0, -1.0]], ["fever and rash", "no " * 40]
    expected = []
    for row, text in zip(rows, texts, strict=True):
        mean = sum(row) / len(row)
        expected.append(mean / len(compression.compress(text.encode())))
    scores = scores_of(rows, texts=texts)
    assert Zlib(normalize=True)(scores).tolist() == pytest.approx(expected, rel=1e-12)
    assert Zlib()(scores).tolist() == Zlib(normalize=False)(scores).tolist() != Zlib(normalize=True)(scores).tolist()


def authors_ez(delta, hit):
    """P / N over errors except the first predicted token; 0 for fewer than two errors, and without a decrease."""
    errors = [d for t, (d, right) in enumerate(zip(delta, hit, strict=True)) if t > 0 and not right]
    if len(errors) < 2:
        return 0.0
    fallen = 0.0
    risen = 0.0
    for d in errors:
        if d > 0:
            risen += d
        if d < 0:
            fallen -= d
    return risen / fallen if fallen else 0.0


def test_ez_mia_with_the_authors_conventions_ranks_as_their_ratio(scores_of):
    """JetBrains-Research/ez-mia: `EzMia(first=2, least=2)`, which is (ratio - 1) / (ratio + 1) of their ratio."""
    draw = random.Random(3)
    rows = [[draw.choice([-1.5, -0.5, 0.0, 0.25, 1.0]) for _ in range(draw.randint(1, 9))] for _ in range(200)]
    hits = [[draw.random() < 0.4 for _ in row] for row in rows]
    theirs = [authors_ez(row, hit) for row, hit in zip(rows, hits, strict=True)]
    scores = scores_of([[d - 4 for d in row] for row in rows], reference=[[-4.0] * len(row) for row in rows], hit=hits)
    expected = [(ratio - 1) / (ratio + 1) for ratio in theirs]
    assert len(set(theirs)) > 10
    assert EzMia(first=2, least=2)(scores).tolist() == pytest.approx(expected, abs=1e-6)
    assert EzMia()(scores).tolist() != pytest.approx(expected, abs=1e-6)
    assert EzMia(first=1, least=None)(scores).tolist() == EzMia()(scores).tolist()


@pytest.mark.parametrize("n", [1, 3, 11, 60])
def test_wbc_with_the_authors_conventions_clamps_windows_to_the_text(scores_of, n):
    """Stry233/WBC: other sizes, and a window longer than the text is the text: `WindowComparison(sizes, "clamp")`."""
    sizes = [2, 3, 4, 6, 9, 13, 18, 25, 32, 40]
    delta = [random.Random(7 * n + i).choice([-1.0, -0.5, 0.5, 0.75]) for i in range(n)]
    shares = []
    for size in sizes:
        clamped = min(size, n)
        windows = [sum(delta[i : i + clamped]) for i in range(n - clamped + 1)]
        shares.append(sum(w > 0 for w in windows) / len(windows))
    scores = scores_of([[d - 4 for d in delta]], reference=[[-4.0] * n])
    theirs = WindowComparison(sizes=sizes, long="clamp", break_ties=False)
    assert theirs(scores).item() == pytest.approx(sum(shares) / len(shares), abs=1e-12)
    ours = WindowComparison()
    assert WindowComparison(2, 40, 10, "skip")(scores).item() == ours(scores).item()


@pytest.mark.parametrize(
    ("attack", "options", "message"),
    [
        (EzMia, {"first": 0}, "EzMia.first is 0; expected at least 1"),
        (EzMia, {"least": 0}, "EzMia.least is 0; expected at least 1"),
        (WindowComparison, {"sizes": []}, "WindowComparison.sizes is []"),
        (WindowComparison, {"sizes": [2, 2]}, "WindowComparison.sizes is [2, 2]"),
        (WindowComparison, {"sizes": [0, 2]}, "WindowComparison.sizes is [0, 2]"),
        (WindowComparison, {"long": "pad"}, "WindowComparison.long is 'pad'; expected skip or clamp"),
    ],
)
def test_options_of_the_conventions_are_checked(attack, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        attack(**options)
