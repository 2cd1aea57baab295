"""`TokenScorer` compared with the model's own logits and loss, one text at a time and without padding."""

import math
from types import SimpleNamespace

import pytest
import torch
from torchmetrics.text import Perplexity
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import Encoded, collate
from lit_mem.models.base_models import load_base
from lit_mem.scoring.scorer import TokenScorer, trained_positions
from lit_mem.types import Needs, Sampling

SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def gpt2():
    config = GPT2Config(
        vocab_size=97, n_positions=64, n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2,
        initializer_range=0.3,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def gemma():
    return GemmaForCausalLM(GemmaConfig(**SMALL, head_dim=8, initializer_range=0.3))


def gemma2_capped():
    config = Gemma2Config(
        **SMALL, head_dim=8, initializer_range=0.3, final_logit_softcapping=2.0, attn_implementation="eager"
    )
    return Gemma2ForCausalLM(config)


def cohere_scaled():
    return CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.25, initializer_range=0.3))


ARCHITECTURES = [gpt2, gemma, gemma2_capped, cohere_scaled]


def random_examples(vocabulary=97, lengths=(7, 2, 19, 12)):
    generator = torch.Generator().manual_seed(3)
    examples = []
    for i, n in enumerate(lengths):
        ids = torch.randint(3, vocabulary, (n,), generator=generator)
        labels = ids.clone()
        labels[0] = -100
        examples.append(Encoded(ids, labels, i, i % 2 == 0))
    return examples


@torch.no_grad()
def alone(model, example):
    """Log-probability and greedy hit of each token after the first, for one text with a mask and no padding."""
    ids = example.input_ids[None]
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, :-1].float()
    target = example.input_ids[1:]
    return logits.log_softmax(-1)[torch.arange(len(target)), target], logits.argmax(-1) == target


def assert_scores_are_those_of(model, scores, examples, atol=2e-5):
    for row, example in enumerate(examples):
        logprob, hit = alone(model, example)
        trained = example.labels[1:] != -100
        n = len(example.input_ids)
        assert scores.mask[row, 1:n].tolist() == trained.tolist()
        torch.testing.assert_close(scores.logprob[row, 1:n][trained], logprob[trained], rtol=0, atol=atol)
        assert torch.equal(scores.hit[row, 1:n][trained], hit[trained])
        assert not scores.mask[row, n:].any()
        assert not scores.mask[row, 0]
    assert (scores.logprob[~scores.mask] == 0).all()
    assert not scores.hit[~scores.mask].any()


def own_loss(model, batch):
    """The model's own loss of the padded batch, with the attention mask that `TokenScorer` omits."""
    width = batch["input_ids"].shape[1]
    last = torch.tensor([int((row != 0).nonzero().max()) for row in batch["input_ids"]])
    mask = (torch.arange(width)[None] <= last[:, None]).long()
    return model(input_ids=batch["input_ids"], attention_mask=mask, labels=batch["labels"], use_cache=False).loss


def test_a_padded_batch_without_mask_scores_as_each_text_alone(base, examples):
    scores = TokenScorer(base)(collate(examples))
    assert len({len(e.input_ids) for e in examples}) > 10, "without padding this would test nothing"
    assert_scores_are_those_of(base, scores, examples)
    assert 0 < scores.hit.sum() < scores.mask.sum()


def test_ids_and_sets_pass_through(base, batch):
    scores = TokenScorer(base)(batch)
    assert torch.equal(scores.example_id, batch["example_id"])
    assert torch.equal(scores.member, batch["member"])
    assert scores.reference is None
    assert scores.logprob.dtype == torch.float32
    assert not scores.logprob.requires_grad


def test_the_padding_token_does_not_matter(base, examples):
    batch = collate(examples)
    scores = TokenScorer(base)(batch)
    beyond = (
        torch.arange(batch["input_ids"].shape[1])[None] >= torch.tensor([len(e.input_ids) for e in examples])[:, None]
    )
    other = {**batch, "input_ids": batch["input_ids"].masked_fill(beyond, 777)}
    assert torch.equal(TokenScorer(base)(other).logprob, scores.logprob)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 64, 10**6])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_the_chunk_size_does_not_matter(base, batch, chunk_tokens, dtype, atol):
    # In float64 differences of the matrix product are negligible; in float32 a single row uses another kernel.
    base.to(dtype)
    expected = TokenScorer(base)(batch)
    scores = TokenScorer(base, chunk_tokens)(batch)
    torch.testing.assert_close(scores.logprob, expected.logprob, rtol=0, atol=atol)
    assert torch.equal(scores.hit, expected.hit)
    assert torch.equal(scores.mask, expected.mask)
    assert scores.logprob.dtype == torch.float32


@pytest.mark.slow
def test_a_prompt_without_labels_is_read_but_not_scored(base, examples):
    masked = []
    for i, e in enumerate(examples):
        labels = e.labels.clone()
        labels[: 2 + i % 5] = -100
        masked.append(Encoded(e.input_ids, labels, e.example_id, e.member))
    batch = collate(masked)
    assert_scores_are_those_of(base, TokenScorer(base)(batch), masked)
    torch.testing.assert_close(TokenScorer(base).loss(batch), own_loss(base, batch), rtol=0, atol=2e-5)


def test_position_zero_is_never_scored(base, examples):
    batch = collate(examples)
    labelled = batch["labels"].clone()
    labelled[:, 0] = batch["input_ids"][:, 0]
    scores = TokenScorer(base)({**batch, "labels": labelled})
    assert torch.equal(scores.logprob, TokenScorer(base)(batch).logprob)
    assert not trained_positions(labelled)[:, 0].any()
    assert (labelled[:, 0] != -100).all(), "the labels of the batch must not be written to"


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # peft, of GPT-2's Conv1D
@pytest.mark.parametrize("build", ARCHITECTURES)
def test_other_architectures_are_scored_by_their_own_logits(build):
    torch.manual_seed(1)
    model = build().eval()
    examples = random_examples()
    batch = collate(examples)
    for tuned in (model, LoRA(targets=["all-linear"], init="gaussian").wrap(model).eval()):
        with torch.no_grad():
            for name, parameter in tuned.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.2)
        scores = TokenScorer(tuned)(batch)
        assert_scores_are_those_of(tuned, scores, examples)
        # The logits must be far from flat, or wrong ones would go unnoticed.
        assert scores.logprob[scores.mask].std() > 0.1
        torch.testing.assert_close(TokenScorer(tuned).loss(batch), own_loss(tuned, batch), rtol=0, atol=2e-5)


@pytest.mark.parametrize("build", [gemma2_capped, cohere_scaled])
def test_logits_that_are_capped_or_scaled_are_not_just_the_output_layer(build):
    """A premise of the test above: using the head's output as logits would be detected."""
    torch.manual_seed(1)
    model = build().eval()
    ids = torch.arange(1, 9)[None]
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        hidden = model.model(input_ids=ids).last_hidden_state
        assert (model.lm_head(hidden).log_softmax(-1) - whole.log_softmax(-1)).abs().max() > 0.1


def test_a_bfloat16_model_is_scored_in_float32(batch):
    model = load_base("asset:tiny_llama", dtype="bfloat16").eval()
    scores = TokenScorer(model)(batch)
    assert scores.logprob.dtype == torch.float32
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits
    assert logits.dtype == torch.bfloat16
    expected = logits.float().log_softmax(-1)[:, :-1].gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    expected = torch.where(scores.mask[:, 1:], expected, 0.0)
    torch.testing.assert_close(scores.logprob[:, 1:], expected, rtol=0, atol=0.1)  # a bf16 step near 16 is 0.125
    torch.testing.assert_close(scores.total_logprob, expected.double().sum(1), rtol=2e-3, atol=0)
    rounded = scores.logprob.bfloat16().float()
    assert (rounded[scores.mask] != scores.logprob[scores.mask]).float().mean() > 0.9, "rounded to bfloat16"
    assert TokenScorer(model).loss(batch).dtype == torch.float32


@pytest.mark.parametrize("build", [gemma, gemma2_capped])
def test_other_bfloat16_models_are_scored_in_float32_too(build):
    torch.manual_seed(1)
    model = build().eval().bfloat16()
    examples = random_examples()
    scores = TokenScorer(model)(collate(examples))
    rounded = scores.logprob.bfloat16().float()
    assert (rounded[scores.mask] != scores.logprob[scores.mask]).float().mean() > 0.9, "rounded to bfloat16"
    for row, example in enumerate(examples):
        logprob, _ = alone(model, example)
        torch.testing.assert_close(scores.logprob[row, 1 : len(logprob) + 1], logprob, rtol=0.05, atol=0.1)
    assert TokenScorer(model).loss(collate(examples)).dtype == torch.float32


def test_loss_and_its_gradient_are_the_models_own(base, examples):
    batch = collate(examples[:8])
    base.requires_grad_(True)
    mine = TokenScorer(base).loss(batch)
    mine.backward()
    gradients = {name: p.grad.clone() for name, p in base.named_parameters()}
    base.zero_grad()
    theirs = own_loss(base, batch)
    theirs.backward()
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-6)
    assert mine.shape == ()
    for name, p in base.named_parameters():
        assert p.grad.abs().max() > 0
        torch.testing.assert_close(gradients[name], p.grad, rtol=1e-3, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_loss_is_a_mean_over_tokens_not_over_examples(base, examples):
    batch = collate([examples[0], examples[-1]])
    scores = TokenScorer(base)(batch)
    loss = TokenScorer(base).loss(batch).item()
    assert loss == pytest.approx(-scores.total_logprob.sum().item() / int(scores.n_tokens.sum()), abs=1e-5)
    assert abs(loss + (scores.total_logprob / scores.n_tokens).mean().item()) > 1e-2


def test_a_batch_without_labels_gives_zero_and_no_nan(base, batch):
    model = LoRA(init="gaussian").wrap(base)
    batch["labels"].fill_(-100)
    loss = TokenScorer(model).loss(batch)
    assert loss.item() == 0.0
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is None or (parameter.grad == 0).all(), name
    scores = TokenScorer(model.eval())(batch)
    assert not scores.mask.any()
    assert (scores.logprob == 0).all()
    assert scores.n_tokens.tolist() == [0] * len(batch["labels"])


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_one_row_without_labels_leaves_the_others_alone(base, examples, dtype, atol):
    # As above, two texts may need another kernel than three.
    base.to(dtype)
    batch = collate(examples[:3])
    expected = TokenScorer(base)(batch).logprob
    batch["labels"][1] = -100
    scores = TokenScorer(base)(batch)
    assert (scores.logprob[1] == 0).all()
    torch.testing.assert_close(scores.logprob[[0, 2]], expected[[0, 2]], rtol=0, atol=atol)


def test_perplexity_is_that_of_torchmetrics(base, examples):
    metric = Perplexity(ignore_index=-100)
    for example in examples:
        with torch.no_grad():
            logits = base(input_ids=example.input_ids[None], use_cache=False).logits
        metric.update(logits[:, :-1], example.labels[None, 1:])
    scores = TokenScorer(base)(collate(examples))
    perplexity = math.exp(-scores.total_logprob.sum().item() / int(scores.n_tokens.sum()))
    assert perplexity == pytest.approx(metric.compute().item(), rel=1e-5)


def test_a_gap_of_a_hundred_and_twenty_nats_is_not_infinite(base, batch):
    """Here torchmetrics' perplexity, by softmax and log, is infinite."""
    with torch.no_grad():
        base.get_output_embeddings().weight.mul_(400.0)
    scores = TokenScorer(base)(batch)
    assert scores.logprob.min() < -120
    assert torch.isfinite(scores.logprob).all()


def test_making_a_scorer_leaves_the_model_as_it_was(base):
    base.train()
    base.model.layers[1].eval()
    flags = [m.training for m in base.modules()]
    random_state = torch.get_rng_state()
    TokenScorer(base)
    assert [m.training for m in base.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random_state)


# Optional scores ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_moments_are_those_of_the_whole_vocabulary(base, examples):
    """μ = Σ p log p and σ² = Σ p (log p − μ)², in float64, one text at a time."""
    scores = TokenScorer(base, chunk_tokens=7)(collate(examples), Needs(moments=True))
    for row, example in enumerate(examples):
        with torch.no_grad():
            logprob = base(input_ids=example.input_ids[None]).logits[0, :-1].double().log_softmax(-1)
        p, n = logprob.exp(), len(example.input_ids)
        mean = (p * logprob).sum(-1)
        std = (p * (logprob - mean[:, None]) ** 2).sum(-1).sqrt()
        torch.testing.assert_close(scores.mean[row, 1:n].double(), mean, rtol=0, atol=3e-5)
        torch.testing.assert_close(scores.std[row, 1:n].double(), std, rtol=0, atol=3e-5)
    for values in (scores.mean, scores.std):
        assert (values[~scores.mask] == 0).all()


def test_what_else_is_computed_changes_no_score(base, batch):
    plain = TokenScorer(base)(batch)
    rich = TokenScorer(base)(batch, Needs(moments=True, sampling=frozenset({Sampling(top_k=5), Sampling(0.5)})))
    assert torch.equal(plain.logprob, rich.logprob)
    assert torch.equal(plain.hit, rich.hit)
    assert plain.mean is None
    assert plain.std is None
    assert not plain.sampled
    assert rich.batch is batch


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme", [Sampling(), Sampling(0.7), Sampling(1.0, 1), Sampling(2.0, 5), Sampling(1.0, 10**6)], ids=str
)
def test_sampled_log_probabilities_are_those_of_the_warped_distribution(base, examples, scheme):
    """Compared with transformers' own warpers of temperature and top-k."""
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper

    scores = TokenScorer(base)(collate(examples), Needs(sampling=frozenset({scheme})))
    for row, example in enumerate(examples):
        ids = example.input_ids[None]
        with torch.no_grad():
            logits = base(input_ids=ids).logits[0, :-1]
        logits = TemperatureLogitsWarper(float(scheme.temperature))(None, logits)
        if scheme.top_k is not None:
            logits = TopKLogitsWarper(scheme.top_k)(None, logits)
        expected = logits.log_softmax(-1).gather(1, example.input_ids[1:, None])[:, 0]
        n = len(example.input_ids)
        torch.testing.assert_close(scores.sampled[scheme][row, 1:n], expected, rtol=0, atol=3e-5)
    assert (scores.sampled[scheme][~scores.mask] == 0).all()


class FixedLogits(torch.nn.Module):
    """Returns the same logits at every position."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, input_ids, use_cache=False):
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


def one_text(*ids):
    ids = torch.tensor([ids])
    labels = ids.clone()
    labels[:, 0] = -100
    return {"input_ids": ids, "labels": labels, "example_id": torch.tensor([0]), "member": torch.tensor([True])}


def test_a_token_tied_with_the_kth_is_drawn_too():
    """As in decoding, where every token as likely as the k-th is kept."""
    model = FixedLogits(torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0]))
    scheme = Sampling(top_k=2)
    scores = TokenScorer(model)(one_text(0, 0, 3, 4), Needs(sampling=frozenset({scheme})))
    total = math.log(math.exp(2) + 3 * math.exp(1))
    assert scores.sampled[scheme][0, 1:].tolist() == pytest.approx([2 - total, 1 - total, -math.inf])


def test_a_token_that_cannot_come_leaves_the_moments_finite():
    model = FixedLogits(torch.tensor([1.0, 0.0, -math.inf]))
    scores = TokenScorer(model)(one_text(0, 0, 1), Needs(moments=True))
    logprob = torch.tensor([1.0, 0.0]).log_softmax(-1)
    mean = (logprob.exp() * logprob).sum()
    std = (logprob.exp() * (logprob - mean) ** 2).sum().sqrt()
    torch.testing.assert_close(scores.mean[0, 1:], mean.expand(2))
    torch.testing.assert_close(scores.std[0, 1:], std.expand(2))


def test_the_deviation_of_a_model_that_is_sure_is_zero_and_not_less():
    """E[x²] − μ² cancels there; the centred form does not."""
    model = FixedLogits(torch.tensor([200.0, 0.0, 0.0]))
    scores = TokenScorer(model)(one_text(0, 0, 1), Needs(moments=True))
    assert scores.std[0, 1:].tolist() == [0.0, 0.0]
    assert scores.mean[0, 1:].tolist() == [0.0, 0.0]
    assert scores.logprob[0, 1:].tolist() == [0.0, -200.0]


def test_under_autocast_all_is_computed_in_float32(base, batch):
    """Autocast runs products in 16 bits, including the sums of the moments."""
    needs = Needs(moments=True, sampling=frozenset({Sampling(0.5, 7)}))
    with torch.autocast("cpu", torch.bfloat16):
        scorer = TokenScorer(base)
        scores = scorer(batch, needs)
        ((logits, _),) = scorer.logits(batch, scores.mask, 10_000)
    logprob = logits.double().log_softmax(-1)
    mean = (logprob.exp() * logprob).sum(-1)
    std = (logprob.exp() * (logprob - mean[..., None]) ** 2).sum(-1).sqrt()
    mask = scores.mask[:, 1:]
    torch.testing.assert_close(scores.mean[:, 1:].double()[mask], mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores.std[:, 1:].double()[mask], std, rtol=0, atol=1e-4)
    assert {v.dtype for v in (scores.logprob, scores.mean, scores.std, *scores.sampled.values())} == {torch.float32}


def test_a_token_whose_logits_are_not_numbers_is_no_hit(base, batch):
    class Diverged(torch.nn.Module):
        def forward(self, hidden):
            return torch.full((*hidden.shape[:-1], 50), torch.nan)

    scorer = TokenScorer(base)
    assert scorer._parts is not None
    scorer._parts = (scorer._parts[0], Diverged())
    clipped = batch | {"input_ids": batch["input_ids"] % 50}
    scores = scorer(clipped, Needs(moments=True, sampling=frozenset({Sampling(1.0, 5)})))
    assert scores.mask.any()
    assert not scores.hit.any()
    assert scores.logprob[scores.mask].isnan().all()


def test_logits_of_a_large_vocabulary_exist_for_few_tokens_at_a_time(monkeypatch):
    """Checked at the output layer: a chunk has at most a quarter of a GiB."""
    monkeypatch.setattr("lit_mem.scoring.scorer._CHUNK", 3000)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(1000, (2, 9))
    batch = {"input_ids": ids, "labels": ids.clone(), "example_id": torch.arange(2), "member": torch.ones(2).bool()}
    scorer, seen = TokenScorer(model), []
    model.get_output_embeddings().register_forward_hook(lambda module, given, made: seen.append(made.numel()))
    scores = scorer(batch)
    assert len(seen) == 6
    assert max(seen) == 3000
    with torch.no_grad():
        loss = model(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(-scores.logprob.sum() / 16, loss)
