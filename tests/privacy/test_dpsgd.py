"""A private step against a full computation by hand, the budget, and resuming."""

import copy
import json
import re

import pytest
import torch

from lit_mem.data.encoding import collate
from lit_mem.data.poisson import PoissonBatches, StepBatches
from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.functional.random_stream import RandomStream
from lit_mem.models.checkpoint import own_content
from lit_mem.privacy import DPSGD
from lit_mem.privacy.accountant import Steps, epsilon
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.resumed import ledger_of
from lit_mem.privacy.training import PrivateTraining


def options(**more):
    quick = {"noise_multiplier": 1.0, "batch_size": 4, "clipping_norm": 0.5, "test_seed": 7, "accountant": "rdp"}
    return DPSGD(**(quick | more))


def private(model=None, texts=20, ledger=None, steps=10, stream=None, **more):
    chosen = options(**more)
    made = PrivateTraining(chosen, texts, stream or chosen.stream(), ledger)
    made.budget.plan(steps)
    if model is not None:
        made.attach(model)
    return made


def step(made, number, losses, batches):
    for batch in batches:
        made.accumulate(lambda batch=batch: losses(batch))
    made.finish_step(number)


def grads(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


# -- a step ------------------------------------------------------------------------------------------------


def test_a_step_is_the_sum_of_clipped_gradients_plus_noise_over_the_expected_batch_size(
    tuned, mean_losses, some_texts, one_at_a_time
):
    model, texts = tuned(), some_texts((9, 12, 4, 7, 3))
    each = one_at_a_time(model, texts).double()
    clipped = each * (0.5 / each.norm(dim=1, keepdim=True)).clamp(max=1.0)
    assert (each.norm(dim=1) > 0.5).any()
    made = private(model)
    step(made, 3, mean_losses(model), [collate(texts)])
    wanted = [p for p in model.parameters() if p.requires_grad]
    noise = torch.cat([torch.from_numpy(made.stream.normal(p.numel(), "noise", 3, i)) for i, p in enumerate(wanted)])
    torch.testing.assert_close(grads(model).double(), (clipped.sum(dim=0) + 0.5 * noise) / 4, rtol=0, atol=1e-6)
    made.close()


def test_noise_in_the_gradient_has_deviation_sigma_c_over_the_batch_size(tuned):
    model = tuned()
    made = private(model, noise_multiplier=3.0, clipping_norm=0.2, batch_size=6)
    drawn = []
    for number in range(8):  # empty batches: noise alone
        made.finish_step(number)
        drawn.append(grads(model))
    noise = torch.cat(drawn)
    assert noise.std() == pytest.approx(3.0 * 0.2 / 6, rel=0.02)
    assert not torch.equal(drawn[0], drawn[1])
    assert made.budget.steps == 8
    made.close()


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_how_a_batch_is_split_makes_no_difference(size, tuned, mean_losses, some_texts):
    texts = some_texts((9, 12, 4, 7, 3, 5, 8))
    found = []
    for micro in (100, size):
        model = tuned()
        made = private(model)
        step(made, 0, mean_losses(model), StepBatches(texts, micro)[list(range(7))])
        found.append(grads(model))
        made.close()
    assert (found[0] - found[1]).abs().max() <= 1e-6


def test_two_shares_add_up_to_the_whole_with_noise_once(tuned, mean_losses, some_texts):
    """Two processes simulated in one: each clips its share, one adds noise, both get the sum."""
    texts, found = some_texts((9, 12, 4, 7, 3)), []
    model = tuned()
    made = private(model)
    step(made, 0, mean_losses(model), [collate(texts)])
    expected = grads(model)
    made.close()

    sums = []
    for rank, share in enumerate((texts[::2], texts[1::2])):
        model = tuned()
        made = private(model)
        made.accumulate(lambda share=share, model=model: mean_losses(model)(collate(share)))
        made.finish_step(0, total=lambda flat: sums.append(flat) or flat, noisy=rank == 0)
        made.close()
    found = (sums[0] + sums[1]) / 4
    assert (found - expected).abs().max() <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_run_over_empty_and_full_batches(batch_size, tuned, mean_losses, some_texts):
    model, texts = tuned(), some_texts([5] * 20)
    made = private(model, batch_size=batch_size)
    sampler, data = PoissonBatches(20, batch_size, made.stream), StepBatches(texts, 3)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    sizes = []
    for number, indices in enumerate(sampler):
        sizes.append(len(indices))
        step(made, number, mean_losses(model), data[indices])
        optimizer.step()
    assert made.budget.steps == len(sampler) == 20 // batch_size
    assert made.budget.epsilon() == epsilon([Steps(1.0, batch_size / 20, made.budget.steps)], made.budget.delta, "rdp")
    assert (0 in sizes) == (batch_size == 1)
    assert all(p.isfinite().all() for p in model.parameters())
    made.close()


def test_autocast_gives_nearly_the_same_in_float32(tuned, mean_losses, some_texts):
    texts, found = some_texts((9, 12, 4, 7)), []
    for enabled in (False, True):
        model = tuned()
        made = private(model, noise_multiplier=0.0)
        losses = mean_losses(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):  # as Lightning calls a training step
            step(made, 0, losses, [collate(texts)])
        found.append(grads(model))
        assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
        made.close()
    assert 0 < (found[0] - found[1]).norm() < 0.03 * found[0].norm()


def test_without_noise_and_with_nothing_to_clip_it_is_plain_training(tuned, mean_losses, some_texts):
    texts, trained = some_texts((9, 5, 7, 6)), []
    for is_private in (False, True):
        model = tuned()
        losses = mean_losses(model)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        made = private(model, noise_multiplier=0.0, clipping_norm=1e6) if is_private else None
        for number in range(10):
            if made is None:
                optimizer.zero_grad()
                (losses(collate(texts)).sum() / 4).backward()
            else:
                step(made, number, losses, StepBatches(texts, 2)[[0, 1, 2, 3]])
            optimizer.step()
        trained.append(torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad]))
    assert (trained[0] - trained[1]).abs().max() < 1e-4


# -- noise is used once ------------------------------------------------------------------------------------


def test_a_step_cannot_be_taken_twice(tuned):
    made = private(tuned())
    made.finish_step(0)
    with pytest.raises(RuntimeError, match="step 0 was already taken"):
        made.finish_step(0)
    assert made.budget.steps == 1
    made.close()


def test_each_start_has_noise_of_its_own_whatever_seeds_are_set(tuned):
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        model = tuned()
        made = private(model, test_seed=None)
        made.finish_step(0)
        found.append(grads(model))
        made.close()
    assert abs(torch.corrcoef(torch.stack(found))[0, 1]) < 0.1


def test_a_test_seed_gives_the_same_noise(tuned):
    found = []
    for _ in range(2):
        model = tuned()
        made = private(model)
        made.finish_step(0)
        found.append(grads(model))
        made.close()
    assert torch.equal(*found)


def test_global_random_numbers_are_neither_used_nor_changed(tuned, mean_losses, some_texts):
    model = tuned()
    made = private(model, test_seed=None)
    before = torch.get_rng_state()
    step(made, 0, mean_losses(model), [collate(some_texts((5, 4)))])
    assert torch.equal(torch.get_rng_state(), before)
    made.close()


# -- the budget --------------------------------------------------------------------------------------------


def test_noise_for_a_target_is_chosen_and_used_up():
    made = private(target_epsilon=3.0, noise_multiplier=None, steps=50)
    assert made.budget.remaining == 50
    assert 2.9 < epsilon([Steps(made.budget.noise_multiplier, 0.2, 50)], made.budget.delta, "rdp") <= 3.0


def test_training_ends_before_the_target_is_passed(tuned):
    made = private(tuned(), target_epsilon=8.0, noise_multiplier=0.8, steps=1000)
    allowed = made.budget.remaining
    assert 0 < allowed < 1000
    for number in range(allowed):
        made.finish_step(number)
    assert made.budget.remaining == 0
    assert made.budget.epsilon() <= 8.0 < epsilon([Steps(0.8, 0.2, allowed + 1)], made.budget.delta, "rdp")
    with pytest.raises(RuntimeError, match="budget is exhausted"):
        made.finish_step(allowed)
    assert made.budget.steps == allowed
    made.close()


def test_a_resumed_run_keeps_its_noise_with_more_epochs():
    first = private(target_epsilon=3.0, noise_multiplier=None, steps=50)
    second = PrivateTraining(first.options, 20, RandomStream.fresh())
    second.budget.history = (Steps(first.budget.noise_multiplier, 0.2, 25),)
    second.budget.plan(75, first.budget.noise_multiplier)
    assert second.budget.noise_multiplier == first.budget.noise_multiplier
    assert second.budget.remaining == 25


def test_delta_is_a_tenth_of_one_in_n():
    assert private(texts=20).budget.delta == 1 / 200
    assert private(texts=20, delta=1e-6).budget.delta == 1e-6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"noise_multiplier": None}, "neither target_epsilon nor noise_multiplier"),
        ({"target_epsilon": 0.0}, "target_epsilon is 0.0; expected above 0"),
        ({"target_epsilon": float("inf")}, "target_epsilon is inf"),
        ({"delta": 0.0}, "delta is 0.0; expected above 0 and below 1"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"noise_multiplier": -1.0}, "noise_multiplier is -1.0"),
        ({"noise_multiplier": 0.0, "target_epsilon": 1.0}, "noise_multiplier is 0, which exceeds any"),
        ({"clipping_norm": 0.0}, "clipping_norm is 0.0"),
        ({"batch_size": 0}, "batch_size is 0; expected at least 1"),
        ({"test_seed": -1}, "test_seed is -1"),
        ({"batch_size": 20}, "batch_size is 20, but there are 20 training texts; expected fewer"),
        ({"delta": 0.06}, r"delta is 0.06; expected below 1/N = 0.05: publishing one"),
        ({"target_epsilon": 0.2, "noise_multiplier": 0.3}, "one step with noise_multiplier 0.3 costs more"),
        ({"target_epsilon": 1.0, "noise_multiplier": None, "steps": float("inf")}, "needs the number of steps"),
    ],
)
def test_options_that_cannot_work_are_rejected(more, message):
    with pytest.raises(ConfigError, match=message):
        private(**more)


# -- resuming ----------------------------------------------------------------------------------------------


def killed_after(steps, saved_at, tuned, path):
    """A run that saved a checkpoint after some steps, and was killed after more."""
    model, ledger = tuned(), Ledger(path)
    made = private(model, ledger=ledger)
    ledger.start(20, made.budget.noise_multiplier, made.budget.sample_rate)
    state = None
    for number in range(steps):
        if number == saved_at:
            state = copy.deepcopy(made.budget.state())
        made.finish_step(number)
    noise = grads(model)
    return state, noise


def test_a_run_resumed_after_a_crash_still_counts_all_steps(tuned, tmp_path):
    path = tmp_path / "privacy.jsonl"
    state, _ = killed_after(8, 5, tuned, path)
    assert sum(steps[2] for steps in state["history"]) == 5
    again = private(ledger=ledger_of(state, None, None), stream=RandomStream.fresh())
    assert again.budget.steps == 8
    assert again.budget.epsilon() == epsilon([Steps(1.0, 0.2, 8)], again.budget.delta, "rdp")
    assert again.budget.epsilon() > epsilon([Steps(1.0, 0.2, 5)], again.budget.delta, "rdp")


def test_a_run_that_goes_on_does_not_replay_its_noise(tuned, tmp_path):
    """With the same noise on both, the difference of two steps would show the texts."""
    path = tmp_path / "privacy.jsonl"
    model, found = tuned(), []
    for _ in range(2):
        torch.manual_seed(0)
        ledger = Ledger(path)
        made = private(model, ledger=ledger, test_seed=None)
        ledger.start(20, 1.0, 0.2)
        for number in range(5, 7):
            made.finish_step(number)
            found.append(grads(model))
        made.close()
    for i in range(4):
        for j in range(i):
            assert abs(torch.corrcoef(torch.stack([found[i], found[j]]))[0, 1]) < 0.1


def test_the_ledger_is_found_beside_a_checkpoint_that_was_moved(tuned, tmp_path):
    state, _ = killed_after(3, 2, tuned, tmp_path / "old" / "privacy.jsonl")
    (tmp_path / "old").rename(tmp_path / "new")
    checkpoint = tmp_path / "new" / "checkpoints" / "last.ckpt"
    assert ledger_of(state, None, str(checkpoint)).steps == 3
    assert ledger_of(state, str(tmp_path / "new" / "privacy.jsonl"), None).steps == 3
    with pytest.raises(CheckpointError, match=r"its privacy ledger .*old/privacy\.jsonl does not exist"):
        ledger_of(state, None, str(tmp_path / "elsewhere" / "checkpoints" / "last.ckpt"))


def test_another_runs_ledger_is_rejected(tuned, tmp_path):
    state, _ = killed_after(3, 2, tuned, tmp_path / "a.jsonl")
    killed_after(3, 2, tuned, tmp_path / "b.jsonl")
    with pytest.raises(CheckpointError, match="is not the one of this checkpoint"):
        ledger_of(state, str(tmp_path / "b.jsonl"), None)


def test_a_ledger_that_lost_steps_is_rejected(tuned, tmp_path):
    path = tmp_path / "a.jsonl"
    state, _ = killed_after(8, 5, tuned, path)
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:4]))
    with pytest.raises(CheckpointError, match=r"has 3 steps; expected \w+ and at least 5"):
        ledger_of(state, None, None)


def rewritten(path, noise, name=None):
    """The ledger rewritten with another noise and valid hashes, as its owner can do."""
    before = Ledger(path)
    path.unlink()
    made = Ledger(path)
    (start,) = before.starts
    made._begin(start._replace(id=name or start.id, steps=Steps(noise, start.steps.sample_rate, 0)))
    for _ in range(before.steps):
        made.charge()
    assert Ledger(path).history == (Steps(noise, 0.2, before.steps),)


def test_a_ledger_written_anew_is_not_what_its_checkpoint_knows(tuned, tmp_path):
    path = tmp_path / "a.jsonl"
    state, _ = killed_after(8, 5, tuned, path)
    rewritten(path, 100.0)
    with pytest.raises(
        CheckpointError, match=r"5 steps with noise multiplier 100 and .*; expected 5 steps with noise multiplier 1 and"
    ):
        ledger_of(state, None, None)
    rewritten(path, 1.0)  # the steps as they were, in lines with the same hashes
    assert ledger_of(state, None, None).steps == 8


def test_a_ledger_that_lost_its_hashes_or_has_others_is_not_what_its_checkpoint_knows(tuned, tmp_path):
    path = tmp_path / "a.jsonl"
    state, _ = killed_after(8, 5, tuned, path)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    plain = [{key: value for key, value in row.items() if key != "chain"} for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in plain))
    assert (Ledger(path).steps, Ledger(path).unchained) == (8, 9)
    with pytest.raises(CheckpointError, match=f"no line with the hash .* {state['ledger_chain'][:16]}"):
        ledger_of(state, None, None)
    del state["ledger_chain"]  # as in an earlier version
    assert ledger_of(state, None, None).steps == 8
    state["history"][0][0] = 2.0
    with pytest.raises(CheckpointError, match="expected 5 steps with noise multiplier 2"):
        ledger_of(state, None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"history": 3}, {"history": [[1.0, 0.1]]}, {"history": [[float("nan"), 0.1, 2]]}, {"history": [[1.0, 7.0, 2]]},
        {"texts": 0}, {"texts": "many"}, {"ledger": None}, {"ledger_chain": 5}, {"noise_multiplier": -1.0},
    ],
)  # fmt: skip
def test_a_malformed_record_of_a_checkpoint_is_rejected(wrong):
    spent = {"history": [[1.0, 0.1, 2]], "noise_multiplier": 1.0, "texts": 20, "ledger": "", "ledger_id": ""}
    content = {"format": 1, "base": "b", "fingerprint": {}, "random_state": {}}
    checkpoint = {"state_dict": {}, "pytorch-lightning_version": "2", "lit_mem": content | {"privacy": spent}}
    assert own_content(checkpoint)["privacy"] == spent
    checkpoint["lit_mem"]["privacy"] = spent | wrong
    with pytest.raises(CheckpointError, match="this checkpoint is damaged: its privacy"):
        own_content(checkpoint)


def test_a_ledger_of_other_texts_is_rejected(tuned, tmp_path):
    path = tmp_path / "a.jsonl"
    killed_after(3, 2, tuned, path)
    with pytest.raises(ConfigError, match=re.escape(f"{path} is for 20 training texts, but there are 21")):
        private(texts=21, ledger=Ledger(path))


@pytest.mark.slow
def test_what_is_spent_already_counts_toward_the_target(tuned, tmp_path):
    path = tmp_path / "a.jsonl"
    killed_after(9, 2, tuned, path)
    spent = epsilon([Steps(1.0, 0.2, 9)], 1 / 200, "rdp")
    with pytest.raises(ConfigError, match=r"target_epsilon is 2, but .* is already spent in 9 steps"):
        private(ledger=Ledger(path), target_epsilon=2.0)
    made = private(ledger=Ledger(path), target_epsilon=spent + 1, noise_multiplier=None, steps=10)
    assert made.budget.noise_multiplier > 1.0
    assert made.budget.remaining == 10
