"""Scoring-pass extraction measures, sensitive spans, and the sweep over prefix lengths."""

import logging

import pytest
import torch

from lit_mem.attacks import Loss
from lit_mem.audit.measure import with_ends
from lit_mem.callbacks import Extractability, Extraction, MembershipInference, Perplexity, SpanExtraction
from lit_mem.data.encoding import Encoded, collate
from lit_mem.errors import ConfigError
from lit_mem.extraction import Discoverable, ExactMemorization
from lit_mem.lightning.auditing import per_example
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Record, Sampling, Span, TokenScores


@pytest.fixture(scope="module")
def tuned(module, data, trainer):
    """A module after epochs of memorization, its data, the callbacks and the logged metrics."""
    torch.manual_seed(1)
    model, corpus = (
        module(dropout=0.0, targets=["all-linear"], lr=1e-2),
        data(train_size=12, heldout_size=8, batch_size=3, max_length=128),
    )
    callbacks = [
        Perplexity(),
        Extractability(),
        SpanExtraction(),
        Extraction(prefix=[0.25, 0.75], n_members=None, n_heldout=None),
    ]
    t = trainer(callbacks, max_epochs=8, check_val_every_n_epoch=8, num_sanity_val_steps=0)
    t.fit(model, corpus)
    return model.eval(), corpus, callbacks, t


def logged(t):
    return {name: float(value) for name, value in t.callback_metrics.items()}


@torch.no_grad()
def greedy_hits(model, example):
    """(n,) greedy hits of the scored tokens of one text without padding."""
    ids = example.input_ids
    hits = torch.zeros(len(ids), dtype=torch.bool)
    hits[1:] = model(input_ids=ids[None]).logits[0, :-1].argmax(-1) == ids[1:]
    return hits


def test_metrics_are_means_of_a_plain_loop_for_tuned_and_base(tuned, base):
    model, corpus, _, t = tuned
    metrics = logged(t)
    for who, causal_lm in (("", model.language_model), ("_base", base)):
        for part, examples in (("", corpus.members), ("_heldout", corpus.heldout)):
            shares, strengths = [], []
            for example in examples:
                scored = greedy_hits(causal_lm, example)[example.scored].tolist()
                shares.append(sum(scored) / len(scored))
                tail = next((i for i, hit in enumerate(reversed(scored)) if not hit), len(scored))
                strengths.append(tail / len(scored))
            for name, values in (("exact_memorization", shares), ("extraction_strength", strengths)):
                expected = sum(values) / len(values)
                assert metrics[f"extraction/{name}{who}{part}"] == pytest.approx(expected, abs=1e-6)
    assert metrics["extraction/exact_memorization"] > metrics["extraction/exact_memorization_base"]
    assert "extraction/discoverable" in metrics
    assert "extraction/discoverable_base" not in metrics


def test_discoverable_is_that_of_the_models_own_distribution(tuned):
    model, corpus, callbacks, _ = tuned
    table = callbacks[1].examples
    for example in corpus.members[:8]:
        ids, scored = example.input_ids, example.scored.nonzero()[:, 0]
        suffix = scored[int(0.5 * len(scored)) :]
        with torch.no_grad():
            logits = model.language_model(input_ids=ids[None]).logits[0]
        total = 0.0
        for t in suffix.tolist():
            values, tokens = logits[t - 1].topk(40)
            at = (tokens == ids[t]).nonzero()
            total += values.log_softmax(-1)[at[0, 0]].item() if len(at) else -torch.inf
        expected = 1 - (1 - torch.tensor(total).double().exp().item()) ** 1000 >= 0.5
        row = (table.example_id == example.example_id).nonzero()[0, 0]
        assert table["extraction/discoverable"][row].item() == float(expected)


def test_a_module_without_reference_logs_no_base_metrics(batch, module, audited):
    callback = Extractability({"share": ExactMemorization()})
    model = module()
    model.configure_model()
    scores = TokenScorer(model.language_model.eval())(batch)
    assert set(audited(callback, (scores, batch)).metrics) == set(
        with_ends(["extraction/share", "extraction/share_heldout"])
    )


def test_a_measure_asks_for_what_it_needs():
    needs = Extractability({"d": Discoverable(sampling=Sampling(top_k=3))}, base=False).needs
    assert needs.sampling == {Sampling(top_k=3)}
    assert not needs.reference
    with pytest.raises(ConfigError, match="measures is empty"):
        Extractability({})


# Sensitive spans ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.exhaustive
def test_span_rates_are_those_of_generating_each_span(tuned, base):
    """Given the true text before a span, `model.generate` reproduces it or not."""
    model, corpus, _, t = tuned
    metrics = logged(t)
    for who, causal_lm in (("", model.language_model), ("_base", base)):
        for part, examples in (("", corpus.members), ("_heldout", corpus.heldout)):
            written = {}
            for example in examples:
                ids, spans = example.input_ids, example.record.spans
                if not spans:
                    continue
                longest = max(span.start for span in spans)
                prompts, mask = torch.full((len(spans), longest), 3), torch.zeros(len(spans), longest, dtype=torch.long)
                for row, span in enumerate(spans):
                    prompts[row, longest - span.start :], mask[row, longest - span.start :] = ids[: span.start], 1
                out = causal_lm.generate(
                    prompts, attention_mask=mask, do_sample=False, pad_token_id=3,
                    max_new_tokens=max(span.end - span.start for span in spans),
                )[:, longest:]  # fmt: skip
                for row, span in zip(out.tolist(), spans, strict=True):
                    hit = row[: span.end - span.start] == ids[span.start : span.end].tolist()
                    written.setdefault(span.kind, []).append(hit)
            assert len(written) > 3
            for kind, values in written.items():
                assert metrics[f"extraction/span_rate_{kind}{who}{part}"] == pytest.approx(sum(values) / len(values))
            every = [hit for values in written.values() for hit in values]
            assert metrics[f"extraction/span_rate{who}{part}"] == pytest.approx(sum(every) / len(every))
    assert 0 < metrics["extraction/span_rate"] < 1


def scored_spans(spans, member):
    """Scores of two texts of six tokens with hits at 1 to 3."""
    examples = []
    for i in range(2):
        ids = torch.arange(6)
        labels = ids.clone()
        labels[0] = -100
        examples.append(Encoded(ids, labels, i, member, record=Record("text", spans=spans)))
    batch = collate(examples)
    hit = torch.zeros(2, 6, dtype=torch.bool)
    hit[0, 1:4] = True
    mask = torch.ones_like(hit)
    mask[:, 0] = False
    zeros = torch.zeros(2, 6)
    return TokenScores(zeros, hit, mask, batch["example_id"], batch["member"], batch=batch), batch


def test_spans_by_hand(caplog, audited):
    logging.getLogger("lit_mem").propagate = True
    callback = SpanExtraction()
    scores, batch = scored_spans([Span("Full name", 1, 3), Span("date", 3, 5)], member=True)
    with caplog.at_level(logging.INFO):
        result = audited(callback, (scores, batch))
    # The first text has the name and half the date; the second has nothing. There is no reference.
    expected = {
        "extraction/span_rate": 0.25,
        "extraction/span_rate_date": 0.0,
        "extraction/span_rate_full_name": 0.5,
    }
    assert {name: value for name, value in result.metrics.items() if name in result.intervals} == expected
    assert set(result.metrics) == set(with_ends(expected))
    assert result.metrics["extraction/span_rate_date_high"] == pytest.approx(1 - 0.025 ** (1 / 2))  # 0 of two texts
    assert result.rows["extraction/span_rate"].tolist() == [0.5, 0.0]
    assert "Sensitive spans of the members: 2 Full name, 2 date." in caplog.text


def test_data_without_spans_says_so_once(caplog, audited):
    logging.getLogger("lit_mem").propagate = True
    callback = SpanExtraction()
    scores, batch = scored_spans([], member=True)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            assert audited(callback, (scores, batch)).metrics == {}
    assert caplog.text.count("No sensitive spans") == 1


# The sweep over prefix lengths ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_length_of_a_sweep_is_what_it_is_alone(tuned, trainer):
    model, corpus, callbacks, t = tuned
    metrics = logged(t)
    for prefix in (0.25, 0.75):
        alone = Extraction(prefix=prefix, n_members=None, n_heldout=None)
        other = trainer([alone])
        other.validate(model, corpus, verbose=False)
        for name, value in logged(other).items():
            if name.startswith("extraction/"):
                end = next((end for end in ("_low", "_high") if name.endswith(end)), "")
                stem, _, _ = name.removesuffix(end).partition("_heldout")
                base = "_base" if stem.endswith("_base") else ""
                of = "_heldout" if "_heldout" in name else ""
                key = f"{stem.removesuffix(base)}_prefix_{prefix}{base}{of}{end}"
                assert metrics[key] == pytest.approx(value, abs=1e-6), key
    sweep = callbacks[3]
    assert set(sweep.metrics) == set(sweep.names())
    assert metrics["extraction/ngram_rate_prefix_0.25"] != metrics["extraction/ngram_rate_prefix_0.75"]


@pytest.mark.slow
def test_a_sweep_asks_the_same_texts_at_every_length(module, data, trainer):
    prompted = []

    class Spy(Extraction):
        def _prompt_all(self, given, subject):
            prompted.append({i: [c.prompt.cut for c in candidates] for i, candidates in given.items()})
            super()._prompt_all(given, subject)

    trainer([Spy(prefix=[4, 50], n_members=5, n_heldout=5)]).validate(module(), data(), verbose=False)
    [texts] = prompted
    assert texts
    assert all(cuts == [5, 51] for cuts in texts.values())  # after the BOS token, which does not count


@pytest.mark.parametrize(
    ("prefix", "message"), [([], "at least one length"), ([0.5, 0.5], "each once"), ([0.5, 8], "only shares, or only")]
)
def test_a_sweep_rejects_invalid_options(prefix, message):
    with pytest.raises(ConfigError, match=message):
        Extraction(prefix=prefix)


def test_the_examples_of_all_measures_stand_in_one_table(tuned):
    model, corpus, _, t = tuned
    table = per_example(t, model)
    assert len(table) == len(corpus.members) + len(corpus.heldout)
    assert {"perplexity", "perplexity_base", "n_tokens", "extraction/span_rate"} <= set(table.columns)
    members = table.members()
    for name in ("exact_memorization", "extraction_strength", "discoverable", "ngram_rate_prefix_0.25"):
        mean = members[f"extraction/{name}"].nanmean().item()
        assert mean == pytest.approx(logged(t)[f"extraction/{name}"], abs=1e-6)


def test_an_example_without_a_scored_token_counts_nowhere(module, batch, audited):
    """A score of 0 would be the highest of all for attacks with scores of at most 0."""
    model = module()
    model.configure_model()
    labels = batch["labels"].clone()
    labels[0] = -100
    scores = TokenScorer(model.language_model.eval())({**batch, "labels": labels})
    assert scores.n_tokens[0] == 0
    inference = MembershipInference({"loss": Loss()}, plots=False)
    shares = Extractability({"share": ExactMemorization()}, base=False)
    for callback in (inference, shares):
        assert audited(callback, (scores, batch)).rows.example_id.tolist() == batch["example_id"][1:].tolist()
