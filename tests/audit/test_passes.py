"""A pass without a trainer gives bit-identical metrics to Lightning's validation."""

from dataclasses import replace

import pytest
import torch

from lit_mem.attacks import Loss, ReCaLL
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.loop import Audit
from lit_mem.audit.measure import Pass
from lit_mem.audit.measures import Extraction, MembershipInference, Perplexity
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.audit.passes import measured, observe
from lit_mem.audit.suite import suite
from lit_mem.errors import ConfigError, MetricError
from lit_mem.lightning.auditing import audit_of
from lit_mem.lightning.memorization import Memorization

OPTIONS = ExtractionOptions(n_members=6, n_heldout=6)


@pytest.fixture(scope="module")
def validated(module, data, trainer):
    """A module after two epochs, its batches, and the metrics of Lightning's validation."""
    made, corpus = module(dropout=0.1, targets=["all-linear"]), data(train_size=12, heldout_size=12)
    t = trainer([Memorization(extraction=OPTIONS)], limit_val_batches=0)
    t.fit(made, corpus)
    t = trainer([Memorization(extraction=OPTIONS)])
    t.validate(made, corpus, verbose=False)
    batches = [batch for loader in corpus.val_dataloader() for batch in loader]
    return made, batches, audit_of(t).audit.result


def test_it_measures_what_a_validation_measures(validated):
    made, batches, expected = validated
    made.train()
    state, before = torch.get_rng_state(), [m.training for m in made.modules()]
    subject = ModelSubject(made.language_model, made.tokenizer, "adapter_off")
    found = measured(subject, batches, suite("standard", extraction=OPTIONS))
    assert len(found.metrics) > 100
    for name, value in found.metrics.items():
        if not name.startswith("time/"):
            assert value == expected.metrics[name], name
    rows, there = found.rows, expected.rows
    assert rows.columns.keys() == there.columns.keys()
    for name, values in rows.columns.items():
        assert torch.equal(values.nan_to_num(7), there[name].nan_to_num(7)), name
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in made.modules()] == before


class Widths(torch.nn.Module):
    """Records how many tokens of each text the model reads at once."""

    def __init__(self, model):
        super().__init__()
        self.read = []
        model.get_base_model().model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, _, args, inputs):
        self.read.append(inputs["input_ids"].shape[1])


@pytest.mark.parametrize(
    ("token_budget", "prefixes_read"), [(4096, False), pytest.param(40, True, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("prefix", [0.5, [0.3, 0.6]])
def test_prefixes_are_read_once_from_the_second_pass_on(validated, token_budget, prefixes_read, prefix):
    made, batches, _ = validated
    subject = ModelSubject(made.language_model, made.tokenizer)
    measure = Extraction(n_members=6, n_heldout=4, base=False, prefix=prefix, token_budget=token_budget)
    audit, widths = Audit([measure]), Widths(made.language_model)
    audit.open(subject, fresh=True)
    results, reads = [], []
    for _ in range(3):
        assert observe(audit, subject, batches) is None
        widths.read.clear()
        results.append(audit.finish(Pass(subject)))
        reads.append(max(widths.read))
    assert reads[0] > 1
    assert (reads[1] > 1, reads[2] > 1) == (prefixes_read, prefixes_read)
    for later in results[1:]:
        for name, value in later.metrics.items():
            if not name.startswith("time/"):
                assert value == pytest.approx(results[0].metrics[name], rel=1e-5), name


def test_a_frozen_copy_is_a_reference_as_good_as_the_adapter_off(validated, base):
    made, batches, expected = validated
    found = measured(ModelSubject(made.language_model, made.tokenizer, base), batches, [MembershipInference()])
    for name, value in found.metrics.items():
        assert value == expected.metrics[name], name


def test_a_model_without_reference_is_measured_by_itself(validated, base):
    made, batches, _ = validated
    subject = ModelSubject(base, made.tokenizer)
    found = measured(subject, batches, [Perplexity(), MembershipInference({"loss": Loss()}, combined=False)])
    assert {"val/perplexity", "mia/loss_auroc"} <= set(found.metrics)
    with pytest.raises(ConfigError, match="reference_context"):
        measured(subject, batches, [Extraction()])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_attacks_take_their_prefix_from_texts_that_are_given(validated):
    made, batches, _ = validated
    attack = {"recall": ReCaLL()}
    ids = {True: {}, False: {}}
    for batch in batches:
        for i, text, labels in zip(batch["example_id"].tolist(), batch["input_ids"], batch["labels"], strict=True):
            n = int((labels != -100).nonzero().max()) + 1
            ids[bool(batch["member"][batch["example_id"].tolist().index(i)])][i] = text[:n]
    with pytest.raises(ConfigError, match="none were given"):
        measured(
            ModelSubject(made.language_model, made.tokenizer, "adapter_off"), batches, [MembershipInference(attack)]
        )
    given = ModelSubject(made.language_model, made.tokenizer, "adapter_off", texts=ids)
    assert "mia/recall_auroc" in measured(given, batches, [MembershipInference(attack)]).metrics


def test_a_text_without_a_finite_loss_ends_the_pass(validated, monkeypatch):
    made, batches, _ = validated
    subject = ModelSubject(made.language_model, made.tokenizer, "adapter_off")
    score = subject.score
    monkeypatch.setattr(subject, "score", lambda *args: replace(score(*args), logprob=score(*args).logprob * torch.nan))
    with pytest.raises(MetricError, match=r"loss on .* is nan"):
        measured(subject, batches, [Perplexity()])
