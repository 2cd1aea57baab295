"""ReCaLL compared with the model's own loss on sequences built by hand, one text at a time."""

import math
from dataclasses import replace

import pytest
import torch

from lit_mem.attacks.prefixing import Shot, fitting
from lit_mem.attacks.recall import ReCaLL
from lit_mem.data.encoding import Encoded
from lit_mem.errors import ConfigError

BOS, EOS = 1, 2


@pytest.fixture
def prober(make_prober, tokenizer, tuned, small):
    return make_prober(tokenizer, tuned, small)


def prefix_of(attack, prober, examples, scores):
    """The examples that the attack left out, and the prefix that they form in one of their orders."""
    left_out = [e for e, value in zip(examples, attack(scores).tolist(), strict=True) if math.isnan(value)]
    probed = prober.probed[-1]["input_ids"][0].tolist()
    bodies = [e.input_ids.tolist()[1:-1] for e in left_out]
    for order in (bodies, bodies[::-1]):
        joined = [BOS, *order[0], *order[1]]
        if probed[: len(joined)] == joined:
            return left_out, joined
    raise AssertionError("the prefix is not BOS and the two texts, without their own BOS and end tokens")


def test_it_is_the_ratio_of_two_losses_of_the_model_itself(prober, tuned, small, scored, loss_of):
    attack, scores = ReCaLL(shots=2), scored(prober, small)
    attack.prepare(prober)
    left_out, prefix = prefix_of(attack, prober, small, scores)
    assert len(left_out) == 2
    assert not any(e.member for e in left_out)
    for example, value in zip(small, attack(scores).tolist(), strict=True):
        if math.isnan(value):
            continue
        text = example.input_ids.tolist()[1:-1]  # the appended end token is not scored
        expected = loss_of(tuned, prefix + text, len(prefix)) / loss_of(tuned, [BOS, *text], 1)
        assert value == pytest.approx(expected, rel=2e-5)


def test_without_a_bos_the_first_token_stays_unscored_and_none_is_put_in(prober, tuned, encode, texts, scored, loss_of):
    examples = [encode(text, i, False, bos=False, eos=False, length=9) for i, text in enumerate(texts[:5])]
    prober.examples = examples
    attack, scores = ReCaLL(shots=1), scored(prober, examples)
    attack.prepare(prober)
    values = attack(scores)
    (shot,) = values.isnan().nonzero().flatten().tolist()
    prefix = examples[shot].input_ids.tolist()
    for i in sorted({0, 1, 2, 3, 4} - {shot}):
        text = examples[i].input_ids.tolist()
        expected = loss_of(tuned, prefix + text, len(prefix) + 1) / loss_of(tuned, text, 1)
        assert values[i].item() == pytest.approx(expected, rel=2e-5)


def test_a_prompt_goes_between_prefix_and_text_and_is_not_scored(prober, tuned, encode, texts, scored, loss_of):
    example = encode(texts[9], 50, prompt="Report: the ")
    attack = ReCaLL(prefix=["A short note."])
    attack.prepare(prober)
    value = attack(scored(prober, [example])).item()
    text = example.input_ids.tolist()[1:-1]
    prompt = int((example.labels != -100).nonzero()[0]) - 1
    assert prompt >= 2
    note = prober.tokenizer("A short note.")["input_ids"]
    expected = loss_of(tuned, note + text, len(note) + prompt) / loss_of(tuned, [BOS, *text], 1 + prompt)
    assert value == pytest.approx(expected, rel=2e-5)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_same_shots_in_any_order_of_the_texts(prober, small, scored):
    def left_out(seed, examples):
        prober.examples = examples
        attack = ReCaLL(shots=2, seed=seed)
        attack.prepare(prober)
        return attack(scored(prober, small)).isnan().tolist()

    assert left_out(0, small) == left_out(0, small[::-1])
    assert len({tuple(left_out(seed, small)) for seed in range(8)}) > 1


def test_a_second_copy_of_a_prefix_text_is_left_out_too(prober, small, scored):
    attack = ReCaLL(shots=2)
    attack.prepare(prober)
    shot = int(attack(scored(prober, small)).isnan().nonzero()[0])
    copy = replace(small[shot], example_id=99, member=True)
    assert attack(scored(prober, [copy, small[0]])).isnan().tolist() == [True, False]
    attack = ReCaLL(prefix=[small[3].record.text])
    attack.prepare(prober)
    assert attack(scored(prober, small)).isnan().tolist() == [i == 3 for i in range(8)]


def test_a_users_prefix_needs_no_data_module(make_prober, tokenizer, tuned, small, scored):
    prober = make_prober(tokenizer, tuned)
    attack = ReCaLL(prefix=["A short note.", "And another."])
    attack.prepare(prober)
    assert torch.isfinite(attack(scored(prober, small))).all()
    with pytest.raises(ConfigError, match="no texts here"):
        ReCaLL().prepare(prober)


def test_no_more_tokens_go_through_the_model_at_a_time_than_in_the_scoring_pass(prober, small, scored):
    attack, scores = ReCaLL(shots=2), scored(prober, small)
    attack.prepare(prober)
    attack(scores)
    assert len(prober.probed) > 1
    for batch in prober.probed:
        assert len(batch["input_ids"]) == 1 or batch["input_ids"].numel() <= scores.mask.numel()


def test_shots_are_dropped_until_the_longest_text_fits(prober, tuned, small, scored):
    longest = max(len(e.input_ids) for e in small) - 2
    shots = sorted(len(e.input_ids) - 2 for e in small if not e.member)
    attack = ReCaLL(shots=3)
    tuned.config.max_position_embeddings = 1 + shots[0] + shots[1] + longest
    attack.prepare(prober)
    values = attack(scored(prober, small))
    assert 1 <= values.isnan().sum() <= 2
    for batch in prober.probed:
        assert batch["input_ids"].shape[1] <= tuned.config.max_position_embeddings
    tuned.config.max_position_embeddings = shots[0] + longest
    with pytest.raises(ConfigError, match=r"ReCaLL: no shot fits: the longest text has \d+ tokens"):
        attack.prepare(prober)


def test_the_longest_shots_are_dropped_first_and_the_order_stays():
    shots = [Shot(torch.arange(n), n) for n in (5, 9, 2, 9, 4)]

    def kept(limit):
        return [len(shot.ids) for shot in fitting(shots, 10, limit, "x")]

    assert kept(None) == kept(40) == [5, 9, 2, 9, 4]
    assert kept(39) == kept(31) == [5, 9, 2, 4]
    assert kept(30) == kept(22) == [5, 2, 4]
    assert kept(13) == [2]
    with pytest.raises(ConfigError):
        kept(12)


def test_a_text_longer_than_all_prepared_ones_is_rejected(prober, tuned, encode, texts, scored):
    attack = ReCaLL(shots=2)
    attack.prepare(prober)
    attack._limit = 24
    with pytest.raises(ConfigError, match="example 70 has"):
        attack(scored(prober, [encode(texts[9], 70)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 0}, r"ReCaLL\.shots is 0"),
        ({"seed": -1}, r"ReCaLL\.seed is -1"),
        ({"prefix": []}, r"ReCaLL\.prefix is empty"),
        ({"prefix": ["x", " "]}, r"ReCaLL\.prefix is empty or contains"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        ReCaLL(**options)


def test_more_shots_than_texts_are_rejected(prober):
    with pytest.raises(ConfigError, match=r"ReCaLL\.shots is 4, but there are 4 held-out texts"):
        ReCaLL(shots=4).prepare(prober)


def test_a_model_that_is_certain_gives_a_finite_score(prober, small, scored):
    attack, scores = ReCaLL(shots=1), scored(prober, small)
    attack.prepare(prober)
    certain = replace(scores, logprob=torch.zeros_like(scores.logprob))
    usual, sure = attack(scores), attack(certain)
    judged = ~usual.isnan()
    assert torch.isfinite(sure[judged]).all()
    assert (sure > usual)[judged].all()


def test_a_text_without_content_is_no_shot(prober, small):
    empty = Encoded(torch.tensor([BOS, EOS]), torch.tensor([-100, EOS]), 51, False, 1)
    prober.examples = [*small, empty]
    with pytest.raises(ConfigError, match="there are 4 held-out texts"):
        ReCaLL(shots=4).prepare(prober)
