"""Documents in windows count as one text each, with the scores of a plain loop over their windows."""

import json
import math
from itertools import pairwise

import pytest
import torch
from datasets import Dataset, DatasetDict
from torch.distributions import Categorical, kl_divergence

import lit_mem
from lit_mem.adapters.base import adapter_off
from lit_mem.attacks import DeltaStandardized, GradientNorm, Lowercase, ReCaLL
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.cli.main import main
from lit_mem.errors import ConfigError
from lit_mem.lightning.auditing import audit_of, per_example
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.memorization import Memorization
from lit_mem.types import Record, TokenScores
from tests.scoring.test_windowed import plain

TOKENS, STRIDE = 24, 10
CHUNK = {"tokens": TOKENS, "stride": STRIDE}


@pytest.fixture(scope="module")
def tuned(module, data, trainer):
    """A module after an epoch; some training texts and others, of which one per set is short."""
    made, corpus = module(dropout=0.0, targets=["all-linear"], lr=2e-3), data(train_size=10, heldout_size=9)
    trainer([], limit_val_batches=0, max_epochs=3).fit(made, corpus)
    texts = [[one.record.text for one in examples] for examples in (corpus.members, corpus.heldout)]
    long = [[f"{a} {b}" for a, b in pairwise(some[1:])] for some in texts]
    return made.eval(), [[" ".join(some[0].split()[:3]), *more] for some, more in zip(texts, long, strict=True)]


def quick(tuned, **options):
    made, (members, heldout) = tuned
    options = {"suite": "quick", "folder": None, "check": False, "max_length": TOKENS, "chunk": CHUNK} | options
    return lit_mem.audit(made.language_model, made.tokenizer, members, heldout, **options)


def oracle(made, text):
    """TokenScores of one text by a plain loop, under the tuned model and with its adapter off."""
    ids = torch.tensor(made.tokenizer(text)["input_ids"])
    tokens, stride = (TOKENS, STRIDE) if len(ids) > TOKENS else (len(ids), len(ids))
    mine = plain(made.language_model, ids, tokens, stride, True)
    with made.language_model.disable_adapter():
        base = plain(made.language_model, ids, tokens, stride, True)
    logprob, hit, _, mean, std = (torch.tensor([[0, *each]]) for each in mine)
    reference, reference_hit = (torch.tensor([[0, *each]]) for each in base[:2])
    mask = torch.arange(len(ids))[None] > 0
    batch = {"records": [Record(text)]}
    zero = torch.tensor([0])
    return TokenScores(
        logprob, hit.bool(), mask, zero, zero.bool(), reference, reference_hit.bool(), mean, std, batch=batch
    )


def test_each_document_scores_as_in_a_plain_loop(tuned):
    made, (members, heldout) = tuned
    found = quick(tuned, scoring_tokens=100)
    rows, texts = found.rows, [*members, *heldout]
    assert len(rows) == len(texts)  # one per document, for any number of windows
    assert rows.member.tolist() == [True] * len(members) + [False] * len(heldout)
    scores = [oracle(made, text) for text in texts]
    assert sum(one.mask.shape[1] > TOKENS for one in scores) == len(texts) - 2
    for name, attack in default_attacks().items():
        expected = [attack(one).item() for one in scores]
        apart = 2e-3 if name in ("ez_mia", "wbc") else 3e-4  # these count signs, of which rounding can flip one
        assert rows[f"mia/{name}"].tolist() == pytest.approx(expected, abs=apart), name
    for which, column in (("logprob", "perplexity"), ("reference", "perplexity_base")):
        sums = [getattr(one, which).double().sum().item() for one in scores]
        counts = [int(one.mask.sum()) for one in scores]
        assert rows["n_tokens"].tolist() == counts
        each = [math.exp(-total / n) for total, n in zip(sums, counts, strict=True)]
        assert rows[column].tolist() == pytest.approx(each, rel=1e-4)
        n = len(members)
        of_set = math.exp(-sum(sums[n:]) / sum(counts[n:])), math.exp(-sum(sums[:n]) / sum(counts[:n]))
        end = "" if which == "logprob" else "_base"
        assert found.metrics[f"val/perplexity{end}"] == pytest.approx(of_set[0], rel=1e-4)
        assert found.metrics[f"memorization/perplexity_members{end}"] == pytest.approx(of_set[1], rel=1e-4)
    memorized = [one.hit[one.mask].float().mean().item() for one in scores]
    assert rows["extraction/exact_memorization"].tolist() == pytest.approx(memorized)


@pytest.mark.slow
def test_numbers_do_not_depend_on_how_windows_meet_in_a_batch(tuned):
    first, second = (quick(tuned, scoring_tokens=n) for n in (TOKENS, 5000))
    for name, values in first.rows.columns.items():
        if name not in ("mia/combined", "mia/ez_mia", "mia/wbc"):  # these count signs, which rounding can flip
            torch.testing.assert_close(values, second.rows[name], atol=3e-4, rtol=1e-3, equal_nan=True)


@pytest.mark.slow
def test_a_document_is_prompted_for_by_its_first_window(tuned):
    """Its text equals that of a truncated document: generation is the same."""
    options = {"suite": "standard", "extraction": {"n_members": None, "n_heldout": None}}
    whole, cut = quick(tuned, **options), quick(tuned, chunk=None, **options)
    names = [name for name in cut.metrics if name.startswith("extraction/") and not name.startswith("extraction/span")]
    generated = [
        name
        for name in names
        if name.split("/")[1].startswith(("ngram_rate", "exact_rate", "rouge_l", "edit_similarity", "generated"))
    ]
    assert len([name for name in generated if not name.endswith(("_low", "_high"))]) == 17
    for name in generated:
        assert whole.metrics[name] == pytest.approx(cut.metrics[name], rel=1e-4), name
    assert "extraction/longest_run" in whole.metrics.keys() - cut.metrics.keys()


@pytest.mark.slow
def test_probing_attacks_read_documents_whole(tuned):
    made, (members, heldout) = tuned
    texts = [text.lower() for text in [*members, *heldout]]
    lower = made, (texts[: len(members)], texts[len(members) :])
    attacks = {"lower": Lowercase(), "norm": GradientNorm(), "standardized": DeltaStandardized()}
    rows = quick(lower, attacks=attacks, max_length=20, chunk={"tokens": 20, "stride": 20}).rows
    assert rows["mia/lower"].tolist() == pytest.approx([1.0] * len(texts), abs=1e-4)
    ids = torch.tensor(made.tokenizer(texts[1])["input_ids"])
    model, total = made.language_model, 0.0
    above = spread = 0.0
    trained = [p for p in model.parameters() if p.requires_grad]
    for start in range(1, len(ids), 19):  # without overlap: 19 tokens after the BOS, the last window shorter
        stop = min(start + 19, len(ids))
        row = torch.cat([ids[:1], ids[max(1, stop - 19) : stop]])
        logits = model(input_ids=row[None]).logits[0]
        own = range(start - max(1, stop - 19) + 1, len(row))
        total = total - sum(logits[t - 1].log_softmax(-1)[row[t]] for t in own)
        with torch.no_grad(), adapter_off(model) as base:
            q = Categorical(logits=base(input_ids=row[None]).logits[0].double())
        p = Categorical(logits=logits.detach().double())
        ratio, mean = p.logits - q.logits, kl_divergence(p, q)
        variance = (p.probs * ratio.square()).sum(dim=-1) - mean.square()
        above += sum((ratio[t - 1, row[t]] - mean[t - 1]).item() for t in own)
        spread += sum(variance[t - 1].item() + 1e-8 for t in own)
    gradients = torch.autograd.grad(total / (len(ids) - 1), trained)
    norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients))
    assert rows["mia/norm"][1].item() == pytest.approx(-norm, rel=1e-3)
    assert rows["mia/standardized"][1].item() == pytest.approx(above / math.sqrt(spread), rel=1e-3)
    with pytest.raises(ConfigError, match="is read in windows"):
        quick(lower, attacks={"recall": ReCaLL(shots=1)})


@pytest.mark.slow
def test_lightning_has_the_same_numbers(tuned, trainer):
    made, (members, heldout) = tuned
    sets = {"train": members, "heldout": heldout}
    source = DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in sets.items()})
    corpus = TextDataModule(source, max_length=TOKENS, chunk=CHUNK, add_eos=False, check=False)
    run = trainer([Memorization(extraction=ExtractionOptions(n_members=3, n_heldout=3)), BaseModel()])
    run.validate(made, corpus, verbose=False)
    expected = quick(tuned, suite="standard", extraction={"n_members": 3, "n_heldout": 3})
    metrics = {name: float(value) for name, value in run.callback_metrics.items()}
    metrics |= audit_of(run).audit.result.metrics
    assert len(expected.metrics) > 80
    for name, value in expected.metrics.items():
        if not name.startswith(("time/", "correlation/")):
            assert metrics[name] == pytest.approx(value, abs=1e-4, rel=1e-4), name
    assert len(per_example(run, made)) == len(members) + len(heldout)
    assert corpus.scored_texts().members == len(members)


@pytest.mark.slow
def test_a_second_run_finds_its_reference_scores_and_no_others(tuned, trainer, module):
    _, (members, heldout) = tuned
    sets = {"train": members, "heldout": heldout}
    source = DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in sets.items()})
    found = []
    for stride in (STRIDE, STRIDE, STRIDE - 1):
        made = module()
        corpus = TextDataModule(source, max_length=TOKENS, chunk={"stride": stride}, check=False)
        trainer([Memorization("quick")]).validate(made, corpus, verbose=False)
        found.append(made.reference_cache.computed)
    n = len(members) + len(heldout)
    assert found[:2] == [n, 0]
    assert found[2] >= n - 2  # the two short texts are unchanged


@pytest.mark.slow
def test_spans_of_a_document_are_read_where_they_stand(tuned):
    made, (members, heldout) = tuned
    rows = []
    for text in members[1:]:
        words, at = text.split(), 0
        spans = []
        for word in words:
            at = text.index(word, at)
            spans.append({"type": "word", "start": at, "end": at + len(word)})
        rows.append({"text": text, "spans": spans})
    found = quick((made, (rows, heldout))).rows
    for i, row in enumerate(rows):
        scores = oracle(made, row["text"])
        offsets = made.tokenizer(row["text"], return_offsets_mapping=True)["offset_mapping"]
        held, n = [], len(offsets)
        stops = [*range(TOKENS, n, STRIDE), n]
        for span in row["spans"]:
            tokens = [t for t, (a, b) in enumerate(offsets) if a < span["end"] and b > span["start"]]
            tokens = [t for t in tokens if row["text"][slice(*offsets[t])].strip()]
            stop = next(stop for stop in stops if tokens[-1] < stop)
            if stop == TOKENS or stop - (TOKENS - 1) <= tokens[0]:
                held.append(bool(scores.hit[0, tokens[0] : tokens[-1] + 1].all()))
        assert found["extraction/span_rate"][i].item() == pytest.approx(sum(held) / len(held))


@pytest.mark.slow
def test_the_command_takes_it(tuned, tmp_path, capsys, monkeypatch):
    made, (members, heldout) = tuned
    monkeypatch.chdir(tmp_path)
    made.language_model.save_pretrained(tmp_path / "adapter")
    for name, texts in (("members", members), ("heldout", heldout)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = "audit --model asset:tiny_llama --adapter adapter --members members.jsonl --heldout heldout.jsonl".split()
    words += "--suite quick --check false".split()
    words += f"--max_length {TOKENS} --chunk.tokens {TOKENS} --chunk.stride {STRIDE}".split()
    main(words)
    said = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    for name in ("mia/reference_auroc", "extraction/longest_run_base"):
        assert float(said[name]) == pytest.approx(quick(tuned).metrics[name], rel=1e-3), name
    (setting,) = (tmp_path / "logs" / "audit").glob("*/config.yaml")
    assert '"stride": 10' in setting.read_text()
