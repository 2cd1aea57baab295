"""The bound on one text's effect, and the added noise."""

import pytest
import torch
from scipy import stats

from lit_mem.data.encoding import collate
from lit_mem.data.poisson import StepBatches
from lit_mem.functional.random_stream import RandomStream
from lit_mem.privacy.clipping import add_clipped_, add_noise_, norms
from lit_mem.privacy.per_text import PerTextGradients

STREAM = RandomStream.reproducible(1)


def gradients(scale=1.0, n=5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(2)
    made = [torch.randn(n, *shape, generator=generator) for shape in ((3, 4), (7,), (2, 2, 2))]
    return [(scale * g).to(dtype) for g in made]


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors])


def empty():
    return [torch.zeros(shape) for shape in ((3, 4), (7,), (2, 2, 2))]


def test_norms_are_over_all_parameters_together():
    made = gradients()
    expected = torch.stack([flat([g[i] for g in made]).double().norm() for i in range(5)])
    torch.testing.assert_close(norms(made), expected, rtol=1e-6, atol=0)


def test_long_gradients_are_scaled_down_and_short_ones_kept():
    made = gradients()
    for g in made:
        g[1] *= 0.01
    expected = torch.zeros(27)
    for i in range(5):
        each = flat([g[i] for g in made])
        expected += each if each.norm() <= 1.0 else each / each.norm()
    totals = empty()
    length = add_clipped_(totals, [g.clone() for g in made], 1.0)
    torch.testing.assert_close(flat(totals), expected, rtol=0, atol=1e-6)
    assert (length > 1).tolist() == [True, False, True, True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", [1e-3, 1.0, 50.0])
def test_no_text_adds_more_than_the_clipping_norm(dtype, norm):
    for i in range(5):
        totals = empty()
        add_clipped_(totals, [g[i : i + 1] for g in gradients(scale=100, dtype=dtype)], norm)
        assert norm * (1 - 1e-5) < flat(totals).double().norm() <= norm * (1 + 1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_gradient_that_is_not_finite_counts_as_none(bad):
    made, totals, expected = gradients(), empty(), empty()
    add_clipped_(expected, [g[1:].clone() for g in made], 1.0)
    made[1][0, 3] = bad
    add_clipped_(totals, made, 1.0)
    assert flat(totals).isfinite().all()
    torch.testing.assert_close(flat(totals), flat(expected), rtol=0, atol=1e-6 if bad != 1e30 else 1.1)


def test_all_zero_gradients_and_none_at_all():
    totals = empty()
    add_clipped_(totals, [torch.zeros(2, *t.shape) for t in totals], 1.0)
    add_clipped_(totals, [torch.zeros(0, *t.shape) for t in totals], 1.0)
    assert torch.equal(flat(totals), torch.zeros(27))


@pytest.mark.parametrize("shape", [(2000, 2000), (3_000_000,), (16, 11_008)])
def test_norms_of_millions_of_numbers_are_not_too_small(shape):
    """A norm that is found too small lets a gradient through that is longer than the clipping norm."""
    gradient = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)) + 0.5
    exact = torch.linalg.vector_norm(gradient.flatten(1), dim=1, dtype=torch.float64)
    assert ((norms([gradient]) / exact - 1).abs() < 1e-6).all()


@pytest.mark.parametrize(
    ("autocast", "norm"),
    [
        (False, 0.05),
        (True, 1.0),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(False, 1.0), (True, 0.05)]),
    ],
)
def test_taking_one_text_out_changes_the_sum_by_no_more_than_the_clipping_norm(
    autocast, norm, tuned, mean_losses, some_texts
):
    """The definition itself, padding included."""
    model, texts = tuned(), some_texts((19, 17, 12, 7, 3, 18))
    recorder = PerTextGradients(model)
    losses = mean_losses(model)

    def total(kept):
        totals = [torch.zeros_like(p) for p in recorder.parameters]
        for batch in StepBatches(kept, 3)[list(range(len(kept)))]:
            with recorder.recording():
                with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                    found = losses(batch)
                add_clipped_(totals, recorder.of(found), norm)
        return flat(totals).double()

    whole = total(texts)
    changes = [(whole - total(texts[:i] + texts[i + 1 :])).norm().item() for i in range(len(texts))]
    assert max(changes) > 0.5 * norm
    assert max(changes) <= norm * (1 + 1e-6)


def test_a_loss_averaged_over_the_batchs_tokens_would_change_more(tuned, some_texts):
    """Hugging Face's own loss: why ours is per text. The test above must be able to fail."""
    model, texts = tuned(), some_texts((40, 9, 9, 9, 9))
    recorder = PerTextGradients(model)

    def total(kept):
        batch = collate(kept)
        totals = [torch.zeros_like(p) for p in recorder.parameters]
        with recorder.recording():
            loss = model(input_ids=batch["input_ids"], labels=batch["labels"], use_cache=False).loss
            each = recorder.of(loss * torch.ones(len(kept)))  # the mean times the number of texts, as Opacus has it
            lengths.append(norms(each).max().item())
            add_clipped_(totals, each, norm)
        return flat(totals).double()

    lengths, norm = [], 1e6
    total(texts)
    norm = lengths[0]  # nothing is clipped
    whole = total(texts)
    assert max((whole - total(texts[:i] + texts[i + 1 :])).norm().item() for i in range(5)) > 1.1 * norm


def test_noise_has_the_stated_deviation_and_is_normal():
    totals = [torch.zeros(300, 400), torch.zeros(50_000)]
    add_noise_(totals, 2.5, STREAM, 0)
    noise = flat(totals).double()
    assert noise.std() == pytest.approx(2.5, rel=0.01)
    assert stats.kstest(noise.numpy() / 2.5, "norm").pvalue > 0.01
    assert abs(noise.mean()) < 0.03


def test_noise_is_added_and_differs_by_step_and_parameter():
    found = []
    for step in (0, 1):
        totals = [torch.full((64,), 5.0), torch.full((64,), 5.0)]
        add_noise_(totals, 1.0, STREAM, step)
        found += [t - 5.0 for t in totals]
    for i in range(4):
        for j in range(i):
            assert abs(torch.corrcoef(torch.stack([found[i], found[j]]))[0, 1]) < 0.5
            assert not torch.equal(found[i], found[j])


def test_no_noise_leaves_the_sum():
    totals = [torch.ones(3)]
    add_noise_(totals, 0.0, STREAM, 0)
    assert torch.equal(totals[0], torch.ones(3))
