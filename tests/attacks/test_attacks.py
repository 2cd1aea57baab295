"""Every attack fulfils the interface; loss and reference ratio equal plain loops over the model's own loss."""

import importlib
import inspect
import pkgutil
from dataclasses import replace

import pytest
import torch

import lit_mem.attacks
from lit_mem.adapters.base import adapter_off
from lit_mem.adapters.lora import LoRA
from lit_mem.attacks import Attack, Loss, MinK, ReferenceRatio, WindowComparison
from lit_mem.attacks.base import ProbingAttack
from lit_mem.data.encoding import collate
from lit_mem.errors import ConfigError, MetricError
from lit_mem.models.base_models import load_base
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import IGNORED, Batch, Needs, Record, TokenScores

IN_STEPS = (WindowComparison,)
"""Attacks that count votes: a likelier token need not add a vote."""


def every_attack():
    """All concrete attacks of the package that read only scores, so that new files are tested automatically."""
    found = set()
    for entry in pkgutil.walk_packages(lit_mem.attacks.__path__, "lit_mem.attacks."):
        for value in vars(importlib.import_module(entry.name)).values():
            concrete = inspect.isclass(value) and issubclass(value, Attack) and not inspect.isabstract(value)
            if concrete and not issubclass(value, ProbingAttack):
                found.add(value)
    return sorted(found, key=lambda attack: attack.__name__)


@pytest.fixture(params=every_attack(), ids=lambda attack: attack.__name__)
def attack(request):
    return request.param()


def made_up(lengths, width=None, seed=0):
    """Scores of examples with these numbers of tokens; row i does not depend on the other rows and the width."""
    width = width or max(lengths) + 1
    logprob, reference, mean, std = torch.zeros(4, len(lengths), width)
    mask = torch.zeros(len(lengths), width, dtype=torch.bool)
    for row, n in enumerate(lengths):
        generator = torch.Generator().manual_seed(seed + n)
        logprob[row, 1 : n + 1] = -4 * torch.rand(n, generator=generator) - 0.1
        reference[row, 1 : n + 1] = -4 * torch.rand(n, generator=generator) - 0.1
        mean[row, 1 : n + 1] = -3 * torch.rand(n, generator=generator)
        std[row, 1 : n + 1] = 2 * torch.rand(n, generator=generator)
        mask[row, 1 : n + 1] = True
    example_id = torch.tensor(lengths)
    member = example_id % 2 == 0
    batch = Batch(
        input_ids=torch.where(mask, 7, 0),
        labels=torch.where(mask, 7, IGNORED),
        example_id=example_id,
        member=member,
        records=[Record(" ".join(f"word{i}" for i in range(n))) for n in lengths],
    )
    hit = mask & (logprob > -1)
    return TokenScores(logprob, hit, mask, example_id, member, reference, hit, mean, std, batch=batch)


def with_logprob(scores, logprob):
    """The same with another log-probability (a number or a tensor) at scored tokens."""
    return replace(scores, logprob=torch.where(scores.mask, torch.as_tensor(logprob), 0.0))


def test_the_package_is_not_empty():
    names = {attack.__name__ for attack in every_attack()}
    assert {"EzMia", "Loss", "MinK", "MinKPlusPlus", "ReferenceRatio", "WindowComparison", "Zlib"} <= names


def test_shape_and_type(attack):
    result = attack(made_up([5, 9, 1, 3]))
    assert result.shape == (4,)
    assert result.dtype == torch.float64
    assert result.device.type == "cpu"
    assert torch.isfinite(result).all()


def test_one_token_is_enough_and_none_scores_zero(attack):
    one = made_up([1, 0, 4])
    sure, unlikely = attack(with_logprob(one, -1e-3)), attack(with_logprob(one, -9.0))
    assert torch.isfinite(torch.stack([sure, unlikely])).all()
    assert sure[0] > unlikely[0], "the one token must count"
    assert sure[1] == unlikely[1] == 0


def test_batch_order_and_company_do_not_matter(attack):
    lengths = [5, 9, 1, 3, 30]
    together = attack(made_up(lengths))
    torch.testing.assert_close(attack(made_up(lengths[::-1])), together.flip(0), rtol=0, atol=1e-12)
    alone = torch.cat([attack(made_up([n])) for n in lengths])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-12)


def test_padding_does_not_matter(attack):
    lengths = [5, 9, 1]
    torch.testing.assert_close(attack(made_up(lengths, 64)), attack(made_up(lengths)), rtol=0, atol=1e-12)


def test_what_the_model_likes_better_looks_more_like_a_member(attack):
    """Hits are unchanged: which tokens an attack reads is separate from how likely they are."""
    scores = made_up([5, 9, 1, 3, 30, 60])
    hopeless, before, half, nearly_sure = (
        attack(with_logprob(scores, scores.logprob * c)) for c in (1e6, 1, 0.5, 1e-6)
    )
    assert (half >= before).all()
    assert (nearly_sure >= half).all()
    # If the score does not rise, it must already be the maximum.
    top, bottom = nearly_sure.max(), hopeless.min()
    assert (nearly_sure > before).any()
    assert ((nearly_sure > before) | (before == top)).all()
    if not isinstance(attack, IN_STEPS):
        # A bounded score may also be at its minimum, without evidence.
        assert (half > before).any()
        assert ((half > before) | (before == top) | (half == bottom)).all()


@pytest.mark.parametrize(
    ("need", "gone", "message"),
    [("reference", ("reference", "reference_hit"), "reference"), ("moments", ("mean", "std"), "moments")],
)
def test_an_attack_says_what_it_needs(attack, need, gone, message):
    scores = made_up([5, 9])
    without = replace(scores, **dict.fromkeys(gone))
    if getattr(attack.needs, need):
        with pytest.raises(MetricError, match=message):
            attack(without)
    else:
        assert torch.equal(attack(without), attack(scores))


def test_the_required_inputs_are_declared_in_full(attack):
    """It works with only the inputs that it declares."""
    scores = replace(made_up([5, 9]), reference_hit=None, sampled={})
    needs = attack.needs
    assert isinstance(needs, Needs)
    without = replace(
        scores,
        reference=scores.reference if needs.reference else None,
        mean=scores.mean if needs.moments else None,
        std=scores.std if needs.moments else None,
    )
    assert torch.equal(attack(without), attack(made_up([5, 9])))


def test_a_log_probability_that_is_no_number_is_not_passed_over(attack):
    scores = made_up([5, 9, 60])
    scores.logprob[1, 4] = torch.nan
    assert torch.isfinite(attack(scores)).tolist() == [True, False, True]


def test_scores_of_a_set_are_left_as_they_are(attack):
    score = torch.tensor([0.5, -1.0], dtype=torch.float64)
    assert torch.equal(attack.over_set(score, torch.tensor([True, False])), score)


# Compared with the model, one text at a time, with its own loss -------------------------------------------------


@torch.no_grad()
def losses(model, examples):
    return torch.tensor(
        [model(input_ids=e.input_ids[None], labels=e.labels[None]).loss.item() for e in examples], dtype=torch.float64
    )


@pytest.fixture
def tuned(base):
    """A LoRA model that differs from its base."""
    model = LoRA(rank=4, dropout=0.0).wrap(base).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


def test_loss_is_minus_the_models_own_loss(base, examples):
    scores = TokenScorer(base)(collate(examples))
    torch.testing.assert_close(Loss()(scores), -losses(base, examples), rtol=0, atol=2e-5)


def test_reference_ratio_is_the_difference_of_two_models_losses(tuned, examples):
    frozen = load_base("asset:tiny_llama").eval()
    expected = losses(frozen, examples) - losses(tuned, examples)
    assert expected.abs().min() > 1e-3, "the perturbed model must differ from its base for this to test anything"
    batch = collate(examples)
    scores = TokenScorer(tuned)(batch)
    with adapter_off(tuned):
        off = TokenScorer(tuned)(batch).logprob
    copy = TokenScorer(frozen)(batch).logprob
    assert torch.equal(off, copy)
    scores = scores.with_reference(copy)
    torch.testing.assert_close(ReferenceRatio()(scores), expected, rtol=0, atol=4e-5)
    n_tokens = torch.tensor([int((e.labels[1:] != -100).sum()) for e in examples])
    torch.testing.assert_close(ReferenceRatio(normalize=False)(scores), expected * n_tokens, rtol=0, atol=4e-3)


def test_reference_ratio_of_an_untrained_adapter_is_exactly_zero(base, examples):
    model = LoRA(rank=4, init="gaussian").wrap(base).eval()
    scorer, batch = TokenScorer(model), collate(examples)
    scores = scorer(batch)
    with adapter_off(model):
        scores = scores.with_reference(scorer(batch).logprob)
    for normalize in (True, False):
        assert torch.equal(ReferenceRatio(normalize)(scores), torch.zeros(len(examples), dtype=torch.float64))


def test_reference_ratio_by_hand():
    scores = TokenScores(
        logprob=torch.tensor([[0.0, -1.0, -2.0, -0.5]]),
        hit=torch.zeros(1, 4, dtype=torch.bool),
        mask=torch.tensor([[False, True, True, True]]),
        example_id=torch.tensor([7]),
        member=torch.tensor([True]),
        reference=torch.tensor([[0.0, -2.0, -4.0, -1.0]]),
    )
    assert ReferenceRatio()(scores).tolist() == [3.5 / 3]
    assert ReferenceRatio(normalize=False)(scores).tolist() == [3.5]
    assert Loss()(scores).tolist() == [-3.5 / 3]


@pytest.mark.parametrize("share", [0.01, 0.2, 0.29, 0.5, 1.0])
def test_min_k_is_the_mean_of_the_lowest_tokens_one_example_at_a_time(share):
    from fractions import Fraction

    lengths = [1, 2, 4, 5, 9, 30, 100]
    scores = made_up(lengths)
    for row, n in enumerate(lengths):
        k = max(1, int(Fraction(str(share)) * n))
        lowest = sorted(scores.logprob[row, 1 : n + 1].double().tolist())[:k]
        assert MinK(share)(scores)[row].item() == pytest.approx(sum(lowest) / k, abs=1e-12)


def test_min_k_of_all_tokens_is_the_loss_attack():
    scores = made_up([1, 5, 9, 30])
    torch.testing.assert_close(MinK(1.0)(scores), Loss()(scores), rtol=0, atol=1e-12)


def test_min_k_reads_the_models_own_log_probabilities(base, examples):
    """Shi et al. by hand: log-softmax of the model's logits on one text at a time, no padding."""
    scores = MinK(0.2)(TokenScorer(base)(collate(examples)))
    for row, example in enumerate(examples):
        with torch.no_grad():
            logprob = base(input_ids=example.input_ids[None]).logits[0, :-1].double().log_softmax(-1)
        mine = logprob.gather(1, example.input_ids[1:, None])[:, 0].sort().values
        assert scores[row].item() == pytest.approx(mine[: max(1, len(mine) // 5)].mean().item(), abs=5e-5)


@pytest.mark.parametrize("share", [0, -0.1, 1.5])
def test_min_k_rejects_a_share_outside_its_range(share):
    with pytest.raises(ConfigError, match=r"MinK\.share is"):
        MinK(share)
