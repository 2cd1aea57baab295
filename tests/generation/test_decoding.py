"""Batched decoding compared with `generate`, one prompt at a time, and with a plain forward pass."""

import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from lit_mem.adapters.base import adapter_off
from lit_mem.adapters.lora import LoRA
from lit_mem.adapters.prompt_tuning import PromptTuning
from lit_mem.generation import rows
from lit_mem.generation.decoding import Sampling, decode
from lit_mem.generation.kv_cache import cache_in

EOS = 2


def gpt2(n_positions=96):
    """Positions are learned, so that a wrong one is detected, and limited in number."""
    config = GPT2Config(
        vocab_size=2048, n_positions=n_positions, n_embd=48, n_layer=2, n_head=4, initializer_range=0.3,
        bos_token_id=1, eos_token_id=EOS,
    )  # fmt: skip
    torch.manual_seed(2)
    return GPT2LMHeadModel(config).eval()


def sliding():
    """Attends only to the last six tokens, so that its cache is of another type, whose rows cannot be merged."""
    config = MistralConfig(
        vocab_size=2048, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=6, initializer_range=0.3, bos_token_id=1, eos_token_id=EOS,
    )  # fmt: skip
    torch.manual_seed(2)
    return MistralForCausalLM(config).eval()


@pytest.fixture(
    params=[
        "base",
        pytest.param("lora", marks=pytest.mark.slow),
        "gpt2",
        pytest.param("sliding", marks=pytest.mark.slow),
    ]
)
def model(request, base):
    if request.param == "base":
        return base
    if request.param == "gpt2":
        return gpt2()
    if request.param == "sliding":
        return sliding()
    tuned = LoRA(rank=4, targets=["all-linear"]).wrap(base).eval()
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return tuned


@pytest.fixture
def prompts(examples):
    """Prompts of 1 to about 30 tokens, unordered."""
    cuts = [9, 3, 1, 20, 12, 5, 30, 2]
    return [e.input_ids[:n] for e, n in zip(examples[8:16], cuts, strict=True)]


LENGTHS = [6, 20, 12, 1, 9, 30, 4, 15]


@torch.no_grad()
def generated(model, prompt, length, eos=None):
    """The library's own greedy decoding of one prompt, without padding."""
    whole = model.generate(
        input_ids=prompt[None],
        attention_mask=torch.ones_like(prompt)[None],
        do_sample=False,
        max_new_tokens=length,
        eos_token_id=eos,
        pad_token_id=0,
    )
    new = whole[0, len(prompt) :].tolist()
    return new[: new.index(eos)] if eos in new else new


@torch.no_grad()
def logits_after(model, prompt, ids=()):
    """(n + 1, V) float32 logits at the end of the prompt and after each of the n new tokens."""
    whole = torch.cat([prompt, torch.as_tensor(ids, dtype=torch.int64)])
    return model(input_ids=whole[None], use_cache=False).logits[0, len(prompt) - 1 :].float()


def rescored(model, prompt, ids):
    rows = logits_after(model, prompt, ids)[: len(ids)].log_softmax(-1)
    return rows[torch.arange(len(ids)), ids]


def test_greedy_is_what_generate_writes(model, prompts):
    decoded = decode(model, prompts, LENGTHS, None)
    expected = [generated(model, p, n) for p, n in zip(prompts, LENGTHS, strict=True)]
    assert [d.ids.tolist() for d in decoded] == expected
    assert [len(d.ids) for d in decoded] == LENGTHS
    assert len({tuple(e[:1]) for e in expected}) > 3, "prompts that all go on alike would test little"


@pytest.mark.slow
def test_end_of_text_ends_it_and_is_left_out(model, prompts):
    free = [generated(model, p, 30) for p in prompts]
    eos = free[0][3]  # a token that the model generates early in some texts and never in others
    expected = [generated(model, p, 30, eos) for p in prompts]
    assert len({len(e) for e in expected}) > 1
    decoded = decode(model, prompts, [30] * len(prompts), eos)
    assert [d.ids.tolist() for d in decoded] == expected
    assert all(len(d.ids) == len(d.logprob) for d in decoded)


def test_end_of_text_at_once_gives_an_empty_continuation(model, prompts):
    eos = generated(model, prompts[0], 1)[0]
    decoded = decode(model, prompts[:1], [5], eos)[0]
    assert decoded.ids.shape == decoded.logprob.shape == (0,)
    assert decoded.ids.dtype == torch.int64


def test_logprob_is_that_of_a_plain_forward_pass(model, prompts):
    for sampling in (None, Sampling(temperature=1.7, top_k=50)):
        for prompt, d in zip(prompts, decode(model, prompts, LENGTHS, None, sampling), strict=True):
            torch.testing.assert_close(d.logprob, rescored(model, prompt, d.ids), rtol=0, atol=1e-4)
            assert d.logprob.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("token_budget", [60, pytest.param(150, marks=pytest.mark.slow), 10**6])
def test_the_company_and_the_token_budget_do_not_matter(model, prompts, token_budget):
    together = decode(model, prompts, LENGTHS, EOS, token_budget=token_budget)
    backwards = decode(model, prompts[::-1], LENGTHS[::-1], EOS, token_budget=token_budget)[::-1]
    for i, (prompt, length) in enumerate(zip(prompts, LENGTHS, strict=True)):
        (alone,) = decode(model, [prompt], [length], EOS)
        for other in (together[i], backwards[i]):
            assert torch.equal(other.ids, alone.ids)
            torch.testing.assert_close(other.logprob, alone.logprob, rtol=0, atol=1e-4)


class Spy(torch.nn.Module):
    """Records the model's inputs, and the number of cache columns afterwards."""

    def __init__(self, model):
        super().__init__()
        self.model, self.shapes, self.masks, self.columns = model, [], [], []

    def forward(self, **inputs):
        self.shapes.append(tuple(inputs["input_ids"].shape))
        self.masks.append(inputs["attention_mask"])
        output = self.model(**inputs)
        self.columns.append(cache_in(output).get_seq_length())
        return output


def test_the_token_budget_bounds_a_batch_and_the_cache_is_used(base, prompts):
    spy = Spy(base)
    decode(spy, prompts, [5] * len(prompts), None, token_budget=50)
    starts = [shape for shape in spy.shapes if shape[1] > 1]
    assert len(starts) > 1
    assert all(rows * (width + 5) <= 50 or rows == 1 for rows, width in starts)
    assert sum(rows for rows, width in spy.shapes) == 5 * len(prompts)
    spy.shapes.clear()
    decode(spy, prompts, [5] * len(prompts), None)
    read = [shape for shape in spy.shapes if shape[1] > 1]
    assert sum(n for n, _ in read) == 8
    assert spy.shapes == read + [(8, 1)] * 4, "one batch, one token a step, no step too many"


@torch.no_grad()
def states_of(model, text):
    """Keys and values of a text, by a plain forward pass."""
    cache = model(input_ids=text[None], use_cache=True).past_key_values
    return tuple((layer.keys[0], layer.values[0]) for layer in cache.layers)


@pytest.mark.parametrize("token_budget", [60, 4096])
def test_prompts_whose_keys_and_values_are_known_are_not_read_again(base, prompts, token_budget):
    """They are those of a longer text, and not known of every prompt."""
    expected = decode(base, prompts, LENGTHS, EOS)
    states = [None if k % 3 == 2 else states_of(base, torch.cat([p, p])) for k, p in enumerate(prompts)]
    spy = Spy(base)
    found = decode(spy, prompts, LENGTHS, EOS, token_budget=token_budget, states=states.__getitem__)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.ids, other.ids)
        torch.testing.assert_close(one.logprob, other.logprob, rtol=0, atol=1e-4)
    read = sum(n * width for n, width in spy.shapes if width > 1)
    assert 0 < read <= sum(len(p) for k, p in enumerate(prompts) if k % 3 == 2) + 30


def test_a_waiting_text_enters_when_others_have_finished(base, prompts):
    """Batches stay as large as the budget allows until no prompt waits."""
    lengths = [3, 9] * 12
    some = [prompts[0][:4]] * len(lengths)
    spy = Spy(base)
    decoded = decode(spy, some, lengths, None, token_budget=8 * 13)
    expected = generated(base, some[0], 9)
    assert [d.ids.tolist() for d in decoded] == [expected[:n] for n in lengths]
    sizes = [n for n, width in spy.shapes if width == 1]
    # 12 long texts first: 8 of them, then the other 4 beside short ones, which take turns.
    assert sizes[:8] == [8] * 8
    assert sum(sizes) == sum(n - 1 for n in lengths)
    assert len(sizes) < 8 + 8 + 4
    assert all(n * width <= 8 * 13 for n, width in zip([n for n, _ in spy.shapes], spy.columns, strict=True))


def test_a_prompt_whose_keys_and_values_are_known_enters_without_a_step_of_its_own(base, prompts):
    """Its last token is read along with the new tokens of the others."""
    lengths, prompt = [3, 9] * 12, prompts[0][:4]
    spy = Spy(base)
    given = []

    def states(k):
        given.append((k, len(spy.shapes)))
        return states_of(base, prompt)

    decoded = decode(spy, [prompt] * len(lengths), lengths, None, token_budget=8 * 13, states=states)
    expected = generated(base, prompt, 9)
    assert [d.ids.tolist() for d in decoded] == [expected[:n] for n in lengths]
    # 144 tokens: 8 long texts, then the other 4 beside 3 times 4 short ones.
    assert spy.shapes == [(8, 1)] * 18
    assert sorted(k for k, _ in given) == list(range(24))
    assert [step for _, step in given] == [0] * 8 + [9] * 8 + [12] * 4 + [15] * 4, "not before they enter"


def test_prompts_are_read_beside_others_of_their_length(base, examples):
    """Neither all in one padded batch nor each separately, and without a mask where none is needed."""
    ids = torch.cat([e.input_ids for e in examples])
    prompts = [ids[:n] for n in [4] * 30 + [80] * 5]
    spy = Spy(base)
    decode(spy, prompts, [3] * len(prompts), None)
    assert sorted(spy.shapes) == sorted([(30, 4), (5, 80), (35, 1), (35, 1)])
    assert [mask is None for mask in spy.masks] == [True, True, False, False]
    spy.masks.clear()
    decode(spy, prompts[:30], [3] * 30, None)
    assert spy.masks == [None] * 3


@pytest.mark.slow
def test_finished_texts_leave_the_batch(base, prompts):
    spy = Spy(base)
    decoded = decode(spy, prompts, LENGTHS, None)
    assert [d.ids.tolist() for d in decoded] == [generated(base, p, n) for p, n in zip(prompts, LENGTHS, strict=True)]
    steps = [n for n, width in spy.shapes[-(max(LENGTHS) - 1) :]]
    assert steps == [sum(length > k for length in LENGTHS) for k in range(1, max(LENGTHS))]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "who", [pytest.param("base", marks=pytest.mark.slow), "gpt2", pytest.param("sliding", marks=pytest.mark.slow)]
)
def test_texts_that_end_by_themselves_leave_from_the_middle(base, prompts, who):
    """Rows before and after the removed ones must keep their own keys, positions and padding."""
    model = {"base": base, "gpt2": gpt2(), "sliding": sliding()}[who]
    free = [generated(model, p, 24) for p in prompts]
    spy, seen = Spy(model), set()
    for eos in sorted({token for row in free for token in row[:8]}):
        spy.shapes.clear()
        decoded = decode(spy, prompts, [24] * len(prompts), eos)
        expected = [row[: row.index(eos)] if eos in row else row for row in free]
        assert [d.ids.tolist() for d in decoded] == expected
        ended = tuple(len(row) < 24 for row in expected)
        steps = [n for n, width in spy.shapes if width == 1]
        if who != "sliding" and 2 <= sum(ended) < len(prompts) and max(map(len, expected)) == 24:
            assert min(steps) <= len(prompts) - sum(ended) + 1
            seen.add(ended)
    assert who == "sliding" or any(flags[0] < flags[1] or flags[1] < flags[2] for flags in seen)


def test_padding_that_no_text_left_needs_is_given_up(base, examples):
    """The longest prompt stays and the short ones are removed: their padding is dropped too, or the other way round."""
    ids = torch.cat([e.input_ids for e in examples])
    long, short = ids[:90], ids[3:9]
    for prompts, lengths, columns in (([long, short], [2, 12], 6 + 11), ([long, short], [12, 2], 90 + 11)):
        spy = Spy(base)
        decoded = decode(spy, prompts, lengths, None)
        expected = [generated(base, p, n) for p, n in zip(prompts, lengths, strict=True)]
        assert [d.ids.tolist() for d in decoded] == expected
        assert spy.columns[-1] == columns
        assert spy.masks[-1] is None


def test_one_prompt_and_one_token(model, prompts):
    (alone,) = decode(model, prompts[3:4], [17], EOS)
    assert alone.ids.tolist() == generated(model, prompts[3], 17, EOS)
    spy = Spy(model)
    decoded = decode(spy, prompts, [1] * len(prompts), None)
    assert [d.ids.tolist() for d in decoded] == [generated(model, p, 1) for p in prompts]
    assert sum(n for n, _ in spy.shapes) == len(prompts), "all done after the first token: no step"


POOL = [(3, 7), (0, 30), (5, 1), (2, 12), (7, 12), (1, 3), (4, 21), (6, 2)]


@pytest.fixture(scope="module")
def pool():
    """Two models with the prompts and a free continuation of 20 tokens for each."""
    made = {}
    for name, model in (("gpt2", gpt2(n_positions=50)), ("sliding", sliding())):
        prompts = [(torch.arange(n) * 37 + 11 * k + 5) % 2048 for k, n in POOL]
        made[name] = model, prompts, [generated(model, p, 20) for p in prompts]
    return made


@settings(
    max_examples=2 * settings.default.max_examples // 5,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(["gpt2", "sliding"]),
    st.lists(st.tuples(st.integers(0, len(POOL) - 1), st.integers(1, 20)), min_size=1, max_size=12),
    st.none() | st.tuples(st.integers(0, len(POOL) - 1), st.integers(0, 19)),
    st.sampled_from([40, 200, 4096]),
    st.booleans(),
)
def test_any_lengths_and_any_end_of_text_give_what_generate_writes(pool, name, prompted, end, token_budget, join):
    """The free continuation, cut at the end-of-text token and at the length, is what each prompt alone gives."""
    model, prompts, free = pool[name]
    eos = None if end is None else free[end[0]][end[1]]
    with pytest.MonkeyPatch.context() as patch:
        if not join:
            patch.setattr(rows, "join", lambda *args, **kwargs: False)
        decoded = decode(model, [prompts[k] for k, _ in prompted], [n for _, n in prompted], eos, None, token_budget)
    expected = [free[k][:n] for k, n in prompted]
    assert [d.ids.tolist() for d in decoded] == [e[: e.index(eos)] if eos in e else e for e in expected]


def test_looking_for_ends_only_now_and_then_changes_nothing(prompts, monkeypatch):
    """As on a GPU, where results are not read in every step."""
    from lit_mem.generation import decoding

    model = gpt2()
    eos = generated(model, prompts[0], 9)[4]
    expected = decode(model, prompts, LENGTHS, eos)
    monkeypatch.setattr(decoding, "_STEPS_BETWEEN_LOOKS", {"cpu": 3})
    for answer, other in zip(expected, decode(model, prompts, LENGTHS, eos), strict=True):
        assert torch.equal(answer.ids, other.ids)


def test_a_batch_stops_when_all_its_texts_have_ended(base, prompts):
    spy = Spy(base)
    eos = generated(base, prompts[0], 1)[0]
    decode(spy, [prompts[0]] * 3, [40, 30, 20], eos)
    assert len(spy.shapes) == 1


def test_a_finished_text_does_not_run_out_of_learned_positions():
    """A long prompt with few new tokens beside a short one with many: neither alone exceeds the last position."""
    model = gpt2(n_positions=32)
    prompts = [torch.arange(3, 33), torch.arange(5, 15)]
    lengths = [2, 22]
    decoded = decode(model, prompts, lengths, None)
    assert [d.ids.tolist() for d in decoded] == [generated(model, p, n) for p, n in zip(prompts, lengths, strict=True)]


@pytest.mark.parametrize("joined", [True, False])
def test_a_finished_text_that_stays_does_not_run_out_of_positions_either(joined, monkeypatch):
    """One of many is finished: too few to copy the others' cache, or the cache cannot drop rows."""
    if not joined:
        monkeypatch.setattr(rows, "join", lambda *args, **kwargs: False)
    model = gpt2(n_positions=50)
    prompts = [(torch.arange(n) * (17 + 2 * k) + 11 * k + 5) % 2048 for k, n in enumerate([48] + [44] * 9)]
    lengths = [2] + [6] * 9
    free = [generated(model, p, n) for p, n in zip(prompts, lengths, strict=True)]
    # It ends only one text, between others, so that the remaining rows are not the first ones.
    eos = next(row[0] for row in free[1:-1] if sum(row[0] in other for other in free) == 1)
    spy = Spy(model)
    decoded = decode(spy, prompts, lengths, eos)
    assert [d.ids.tolist() for d in decoded] == [row[: row.index(eos)] if eos in row else row for row in free]
    # Finished texts stay, until all columns that the longest text may need are in use.
    assert [n for n, width in spy.shapes if width == 1] == ([10, 10, 8, 8, 8] if joined else [10] * 5)


def test_no_prompts_give_no_answers(base):
    assert decode(base, [], [], EOS) == []


@pytest.mark.slow
def test_with_the_adapter_off_it_is_the_base_that_writes(base, prompts):
    expected = [d.ids.tolist() for d in decode(base, prompts, LENGTHS, EOS)]
    tuned = LoRA(rank=4, targets=["all-linear"]).wrap(base).eval()
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    assert [d.ids.tolist() for d in decode(tuned, prompts, LENGTHS, EOS)] != expected
    with adapter_off(tuned):
        assert [d.ids.tolist() for d in decode(tuned, prompts, LENGTHS, EOS)] == expected


# Sampling -----------------------------------------------------------------------------------------------------


def sampled(model, prompts, **options):
    return [d.ids.tolist() for d in decode(model, prompts, LENGTHS, None, Sampling(**options))]


@pytest.mark.slow
def test_sampling_follows_its_seed_alone(base, prompts):
    first = sampled(base, prompts, seed=1)
    torch.manual_seed(99)
    assert sampled(base, prompts, seed=1) == first
    assert sampled(base, prompts, seed=2) != first
    assert first != [d.ids.tolist() for d in decode(base, prompts, LENGTHS, None)]


@pytest.mark.parametrize("sampling", [None, Sampling()])
def test_no_global_generator_is_touched(base, prompts, sampling):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), np.random.get_state()[2]
    decode(base, prompts, LENGTHS, EOS, sampling)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert np.random.get_state()[2] == before[3]


@pytest.mark.slow
def test_top_k_of_one_is_greedy(model, prompts):
    assert sampled(model, prompts, top_k=1) == [d.ids.tolist() for d in decode(model, prompts, LENGTHS, None)]


def test_a_low_temperature_is_greedy(base, prompts):
    assert sampled(base, prompts, temperature=1e-4) == [d.ids.tolist() for d in decode(base, prompts, LENGTHS, None)]


def test_top_k_beyond_the_vocabulary_is_no_limit(base, prompts):
    assert sampled(base, prompts, top_k=10**6) == sampled(base, prompts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("temperature", "top_k"),
    [
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(1.0, None), (0.6, None), (1.0, 8)]),
        (1.8, 8),
    ],
)
def test_tokens_are_drawn_as_often_as_their_probability_says(base, prompts, temperature, top_k):
    prompt, n = prompts[7], 3000
    draws = decode(base, [prompt] * n, [1] * n, None, Sampling(temperature, top_k, seed=3), token_budget=800)
    counts = torch.bincount(torch.cat([d.ids for d in draws]), minlength=2048).double()
    logits = logits_after(base, prompt)[0].double()
    if top_k is not None:
        kept = logits.argsort(descending=True)[:top_k]
        assert counts.sum() == counts[kept].sum() == n
        logits = torch.full_like(logits, -torch.inf).index_copy(0, kept, logits[kept])
    expected = n * (logits / temperature).softmax(-1)
    common = expected >= 5  # the others form one class
    observed = torch.cat([counts[common], counts[~common].sum()[None]])
    wanted = torch.cat([expected[common], expected[~common].sum()[None]])
    if wanted[-1] < 5:
        observed, wanted = observed[:-1], wanted[:-1] * observed[:-1].sum() / wanted[:-1].sum()
    assert len(wanted) > 3
    assert chisquare(observed.numpy(), wanted.numpy()).pvalue > 0.001


@pytest.mark.slow
def test_the_second_token_is_drawn_given_the_first(base, prompts):
    """Pairs, so that reading another row's cache would be detected."""
    prompt, n = prompts[7], 3000
    draws = decode(base, [prompt] * n, [2] * n, None, Sampling(top_k=3, seed=4), token_budget=800)
    observed = {}
    for d in draws:
        observed[tuple(d.ids.tolist())] = observed.get(tuple(d.ids.tolist()), 0) + 1
    wanted = {}
    first = logits_after(base, prompt)[0].double().topk(3)
    for token, p in zip(first.indices.tolist(), first.values.softmax(-1).tolist(), strict=True):
        second = logits_after(base, prompt, [token])[-1].double().topk(3)
        for follower, q in zip(second.indices.tolist(), second.values.softmax(-1).tolist(), strict=True):
            wanted[token, follower] = n * p * q
    assert set(observed) <= set(wanted)
    pairs = [pair for pair in wanted if wanted[pair] >= 5]
    total = sum(observed.get(pair, 0) for pair in pairs)
    scale = total / sum(wanted[pair] for pair in pairs)
    assert len(pairs) > 3
    assert chisquare([observed.get(p, 0) for p in pairs], [wanted[p] * scale for p in pairs]).pvalue > 0.001


@pytest.mark.slow
def test_what_is_sampled_for_a_prompt_depends_on_its_key_alone(base, prompts):
    sampling, keys = Sampling(temperature=1.2, seed=5), [100 + i for i in range(len(prompts))]
    together = decode(base, prompts, LENGTHS, None, sampling, keys=keys)
    for prompt, length, key, drawn in zip(prompts, LENGTHS, keys, together, strict=True):
        (alone,) = decode(base, [prompt], [length], None, sampling, keys=[key])
        assert torch.equal(alone.ids, drawn.ids)


@pytest.mark.slow
def test_what_is_sampled_does_not_depend_on_who_leaves(base, prompts):
    sampling, free = Sampling(temperature=1.2, seed=5), [20] * len(prompts)
    eos = decode(base, prompts, free, None, sampling)[2].ids[4].item()
    together = decode(base, prompts, free, eos, sampling)
    assert len({len(d.ids) for d in together}) > 1
    for key, (prompt, drawn) in enumerate(zip(prompts, together, strict=True)):
        (alone,) = decode(base, [prompt], [20], eos, sampling, keys=[key])
        assert torch.equal(alone.ids, drawn.ids)


def test_no_tensor_is_copied_to_the_device_at_each_token(base, examples, monkeypatch):
    made, tensor = [], torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda *args, **options: made.append(args) or tensor(*args, **options))
    counts = []
    for length in (4, 16):
        made.clear()
        (decoded,) = decode(base, [examples[0].input_ids[:6]], [length], eos=[2047])
        assert len(decoded.ids) == length
        counts.append(len(made))
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("virtual", [0, 12])
def test_space_for_all_tokens_is_made_once(base, prompts, monkeypatch, virtual):
    """Virtual tokens take columns too."""
    model = PromptTuning(tokens=virtual).wrap(base).eval() if virtual else base
    joined, join = [], rows.join
    monkeypatch.setattr(rows, "join", lambda *args: joined.append(args[2]) or join(*args))
    decoded = decode(model, prompts[:1] * 3, [9, 9, 5], None)
    assert [len(one.ids) for one in decoded] == [9, 9, 5]
    assert joined == [9]
