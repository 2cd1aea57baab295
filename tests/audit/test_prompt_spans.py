"""Spans of prompts compared with greedy generation by transformers from the text before them."""

import re

import pytest
import torch

import lit_mem
from lit_mem.audit.measure import with_ends
from lit_mem.audit.measures.prompt_spans import PromptSpanExtraction
from lit_mem.data.sources import CaseReports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sets():
    """Members and held-out texts, with the words of their first halves marked."""
    corpus = CaseReports().load()

    def halved(text):
        cut = text.index(" ", len(text) // 2)
        words = [[m.start(), m.end(), ("even", "odd")[i % 2]] for i, m in enumerate(re.finditer(r"\w+", text[:cut]))]
        return {"prompt": text[:cut], "completion": text[cut:], "prompt_spans": words}

    return [[halved(text) for text in rows["completion"][:6]] for rows in (corpus.train, corpus.heldout)]


def written(model, tokenizer, row):
    """For each marked word, whether greedy generation reproduces it."""
    encoded = tokenizer(row["prompt"] + row["completion"], return_offsets_mapping=True, return_tensors="pt")
    ids, offsets, found = encoded["input_ids"], encoded["offset_mapping"][0].tolist(), []
    for start, end, _ in row["prompt_spans"]:
        tokens = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
        first, last = tokens[0], tokens[-1] + 1
        more = model.generate(ids[:, :first], max_new_tokens=last - first, min_new_tokens=last - first, do_sample=False)
        found.append(torch.equal(more[0, first:last], ids[0, first:last]))
    return found


def test_rates_are_those_of_greedy_generation(module, data, trainer, sets):
    made = module(rank=8, targets=["all-linear"])
    trainer([], limit_val_batches=0, max_epochs=3).fit(made, data(train_size=16, heldout_size=8))
    model, tokenizer = made.language_model.eval(), made.tokenizer
    model.generation_config.eos_token_id = None
    found = lit_mem.audit(model, tokenizer, *sets, suite="quick", folder=None, check=False)
    name = "extraction/prompt_span_rate"
    for part, rows in zip(("", "_heldout"), sets, strict=True):
        mine = [written(model, tokenizer, row) for row in rows]
        with model.disable_adapter():
            base = [written(model, tokenizer, row) for row in rows]
        for expected, metric in ((mine, f"{name}{part}"), (base, f"{name}_base{part}")):
            flat = [hit for row in expected for hit in row]
            assert 0.1 < found.metrics[metric] < 0.9
            assert found.metrics[metric] == pytest.approx(sum(flat) / len(flat), abs=1e-12), metric
        odd = [hit for row in mine for i, hit in enumerate(row) if i % 2]
        assert found.metrics[f"{name}_odd{part}"] == pytest.approx(sum(odd) / len(odd), abs=1e-12)
    assert not [metric for metric in found.metrics if metric.startswith("extraction/span_rate")]


def test_its_names():
    rates = [f"extraction/prompt_span_rate{part}" for part in ("", "_heldout", "_base", "_base_heldout")]
    assert PromptSpanExtraction().names() == with_ends(rates)
