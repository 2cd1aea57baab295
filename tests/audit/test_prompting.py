"""Continuations that the prompter does not generate equal those decoded from the bare prompt."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from lit_mem.callbacks import Extraction, MembershipInference
from lit_mem.extraction import continuations
from lit_mem.extraction.continuations import Prompter, no_bar
from lit_mem.generation.decoding import decode
from lit_mem.lightning.module_subject import ModuleSubject
from lit_mem.types import Needs, Sampling

EOS = 2


@pytest.fixture
def model(module, data):
    """A module before training, and its data."""
    made, corpus = module(targets=["all-linear"]), data(train_size=12, heldout_size=12)
    made.configure_model()
    made.eval()
    corpus.trainer = SimpleNamespace(lightning_module=made, world_size=1, global_rank=0, testing=False)
    corpus.setup("validate")
    return made, [batch for loader in corpus.val_dataloader() for batch in loader]


def candidates(made, batches, reference=False):
    callback, needs = Extraction(), Needs(reference=reference)
    callback.begin(SimpleNamespace(tokenizer=made.tokenizer, language_model=made.language_model, progress=no_bar))
    for batch in batches:
        callback.observe(made.score(batch, needs), batch)
    return {i: at_one_length[0] for i, at_one_length in callback._seen.items()}


def change(made, std=0.05):
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=std)


def plainly(made, prompted, sampling=None):
    """Continuations of the base model from the bare prompts."""
    with made.reference_context() as base:
        decoded = decode(
            base,
            [c.prompt.input_ids[: c.prompt.cut] for c in prompted.values()],
            [len(c.prompt.suffix) for c in prompted.values()],
            EOS,
            sampling,
            keys=list(prompted),
        )
    return dict(zip(prompted, decoded, strict=True))


def same(answers, expected):
    assert answers.keys() == expected.keys()
    for i, answer in answers.items():
        assert torch.equal(answer.ids, expected[i].ids)
        torch.testing.assert_close(answer.logprob, expected[i].logprob, rtol=0, atol=1e-4)


class Prompts:
    """Replaces `decode` and records its calls."""

    def __init__(self, monkeypatch):
        self.lengths = []
        monkeypatch.setattr(continuations, "decode", self)

    def __call__(self, model, prompts, lengths, *args, **kwargs):
        self.lengths.append(dict(zip(kwargs["keys"], map(len, prompts), strict=True)))
        return decode(model, prompts, lengths, *args, **kwargs)


@pytest.mark.parametrize(
    "sampling", [None, pytest.param(Sampling(temperature=1.2, top_k=50, seed=3), marks=pytest.mark.slow)]
)
def test_before_training_the_tuned_answers_are_the_base_s(model, monkeypatch, sampling):
    made, batches = model
    prompted, prompter, prompts = candidates(made, batches), Prompter(EOS, sampling, 4096), Prompts(monkeypatch)
    tuned = prompter.tuned(prompted, made.language_model)
    answers = prompter.base(prompted, made, tuned)
    assert len(prompts.lengths) == 1, "nothing is generated for the base"
    same(answers, plainly(made, prompted, sampling))
    change(made)
    same(prompter.base(prompted, made, prompter.tuned(prompted, made.language_model)), answers)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("silent", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_base_is_prompted_if_the_model_may_differ_from_it(model, monkeypatch, silent):
    made, batches = model
    change(made)
    prompted, prompter, prompts = candidates(made, batches), Prompter(EOS, None, 4096), Prompts(monkeypatch)

    class Silent:
        """A module that does not report whether it equals its reference."""

        @contextmanager
        def reference_context(self):
            with made.reference_context() as base:
                yield base

    tuned = prompter.tuned(prompted, made.language_model)
    answers = prompter.base(prompted, ModuleSubject(None, Silent()) if silent else made, tuned)
    assert len(prompts.lengths) == 2
    expected = plainly(made, prompted)
    same(answers, expected)
    assert any(not torch.equal(tuned[i].ids, expected[i].ids) for i in prompted)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", [None, pytest.param(Sampling(temperature=1.2, seed=3), marks=pytest.mark.slow)])
def test_reference_scores_say_where_the_base_first_misses(model, monkeypatch, sampling):
    made, batches = model
    change(made, std=0.15)
    prompted = candidates(made, batches, reference=True)
    first_miss = {i: min([*(~c.base_hit).nonzero().flatten().tolist(), len(c.base_hit)]) for i, c in prompted.items()}
    prompter, prompts = Prompter(EOS, sampling, 4096), Prompts(monkeypatch)
    same(prompter.base(prompted, made), plainly(made, prompted, sampling))
    known = {i: 0 for i in prompted} if sampling else first_miss
    assert prompts.lengths == [
        {i: c.prompt.cut + known[i] for i, c in prompted.items() if known[i] < len(c.prompt.suffix)}
    ]
    own = [min([*(~c.hit).nonzero().flatten().tolist(), len(c.hit)]) for c in prompted.values()]
    assert 0 < sum(first_miss.values())
    assert list(first_miss.values()) != own, "the tuned model's misses would have done"


def test_the_base_is_not_prompted_for_a_suffix_it_reproduces_whole(model, monkeypatch):
    made, batches = model
    change(made)
    prompted = candidates(made, batches[:1], reference=True)
    i, candidate = next(iter(prompted.items()))
    candidate.base_hit[:] = True
    prompts = Prompts(monkeypatch)
    answers = Prompter(EOS, None, 4096).base(prompted, made)
    assert i not in prompts.lengths[0]
    assert torch.equal(answers[i].ids, candidate.prompt.suffix)
    assert torch.equal(answers[i].logprob, candidate.base_logprob)


@pytest.mark.slow
def test_scores_of_the_base_are_used_if_present_and_never_requested(module, data, trainer):
    assert not Extraction().needs.reference
    for others, there in (([], False), ([MembershipInference()], True)):
        extraction = Extraction(n_members=4, n_heldout=4)
        trainer([extraction, *others]).validate(module(), data(train_size=8, heldout_size=8), verbose=False)
        seen = [c for at_all_lengths in extraction._seen.values() for c in at_all_lengths]
        assert all((c.base_hit is not None) == (c.base_logprob is not None) == there for c in seen)
    made = Extraction(n_members=4, n_heldout=4, base=False)
    trainer([made, MembershipInference()]).validate(module(), data(train_size=8, heldout_size=8), verbose=False)
    assert all(c.base_hit is None for at_all_lengths in made._seen.values() for c in at_all_lengths)
