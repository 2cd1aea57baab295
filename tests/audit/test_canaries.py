"""Canaries and PrivacyAudit: metrics compared with plain loops over the model, and all other metrics unchanged."""

import logging
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lit_mem.attacks import Loss, OfflineRMIA, ReCaLL, ReferenceRatio
from lit_mem.callbacks import (
    Canaries,
    Correlation,
    Extractability,
    Extraction,
    MembershipInference,
    MemorizationEarlyStopping,
    Movers,
    PerExampleTable,
    Perplexity,
    PrivacyAudit,
    Slices,
    SpanExtraction,
)
from lit_mem.cli.main import main
from lit_mem.data.canaries import Lines, RandomTokens, Secrets, Traps
from lit_mem.errors import ConfigError
from lit_mem.functional.one_run_audit import epsilon_lower_bound, one_run_audit

ROOT = Path(__file__).parents[2]
NAMESPACES = ("canary/", "audit/")


@pytest.fixture(scope="module")
def tuned(module, data, trainer):
    """A module that memorized some secrets, its data, and the metrics logged before and after."""
    torch.manual_seed(1)
    model = module(dropout=0.0, rank=16, targets=["all-linear"], lr=1e-2)
    secrets = Secrets(24, ["The code of {name} is ####"], repetitions=[1, 16], seed=3)
    corpus = data(train_size=4, heldout_size=4, max_length=96, batch_size=16, canaries=secrets)
    canaries, audit = Canaries(), PrivacyAudit(guesses=[4, 12], confidence=0.9, delta=0)
    before = {}

    class Start(Perplexity):
        def on_sanity_check_end(self, trainer, pl_module):
            before.update({**canaries.metrics, **audit.metrics})

    t = trainer([canaries, audit, Start()], max_epochs=4, check_val_every_n_epoch=4)
    t.fit(model, corpus)
    return model.eval(), corpus, before, {k: float(v) for k, v in t.callback_metrics.items()}


@torch.no_grad()
def logprobs(model, example):
    """(n,) log-probability of each token of the secret, in float64 from one text alone; and greedy choices."""
    (span,) = example.record.spans
    logits = model(input_ids=example.input_ids[None]).logits[0, span.start - 1 : span.end - 1].double()
    ids = example.input_ids[span.start : span.end]
    return logits.log_softmax(-1).gather(1, ids[:, None])[:, 0], logits.argmax(-1) == ids


@pytest.fixture(scope="module")
def loop(tuned):
    """For each canary: inserted, repetitions, log-probability (also per token and of the base), extracted."""
    from lit_mem.models.base_models import load_base

    model, corpus, *_ = tuned
    base, rows = load_base("asset:tiny_llama").eval(), []
    for example in corpus.canaries:
        found, hits = logprobs(model.language_model, example)
        of_base, _ = logprobs(base, example)
        rows.append((example.member, example.repetitions, found.sum(), found.mean(), of_base.mean(), bool(hits.all())))
    return [np.array(column, dtype=float) for column in zip(*rows, strict=True)]


def parts(loop):
    inserted, times, *_ = loop
    return {"": inserted >= 0, "_x1": (times == 1) | (inserted == 0), "_x16": (times == 16) | (inserted == 0)}


def test_exposure_is_that_of_a_plain_loop(tuned, loop):
    *_, logged = tuned
    inserted, _, total, *_ = loop
    for part, rows in parts(loop).items():
        heldout = total[inserted == 0]
        ranks = [1 + (heldout > score).sum() for score in total[rows & (inserted == 1)]]
        expected = [math.log2(len(heldout) + 1) - math.log2(rank) for rank in ranks]
        assert logged[f"canary/exposure_mean{part}"] == pytest.approx(np.mean(expected), abs=1e-5)
        assert logged[f"canary/exposure_max{part}"] == pytest.approx(max(expected), abs=1e-5)


def test_auroc_is_that_of_what_the_base_does_not_foretell(tuned, loop):
    *_, logged = tuned
    inserted, _, _, score, base, _ = loop
    slope, start = np.polyfit(base, score, 1)
    left = score - slope * base - start
    for part, rows in parts(loop).items():
        area = logged[f"canary/auroc{part}"]
        assert area == pytest.approx(roc_auc_score(inserted[rows], left[rows]), abs=1e-6)
        assert logged[f"canary/auroc{part}_low"] <= area <= logged[f"canary/auroc{part}_high"]


def test_extraction_is_that_of_plain_generation(tuned, loop):
    model, corpus, _, logged = tuned
    inserted, *_, extracted = loop
    for part, rows in parts(loop).items():
        assert logged[f"canary/extraction_rate{part}"] == pytest.approx(extracted[rows & (inserted == 1)].mean())
    assert logged["canary/extraction_rate_heldout"] == pytest.approx(extracted[inserted == 0].mean())
    assert 0 < extracted.sum() < inserted.sum()
    for example, whole in zip(corpus.canaries, extracted, strict=True):
        (span,) = example.record.spans
        with torch.no_grad():
            out = model.language_model.generate(
                input_ids=example.input_ids[None, : span.start], attention_mask=torch.ones(1, span.start),
                do_sample=False, max_new_tokens=span.end - span.start, pad_token_id=3,
            )  # fmt: skip
        assert (out[0].tolist() == example.input_ids[: span.end].tolist()) == whole


def test_memorization_grows_with_repetition(tuned):
    *_, logged = tuned
    for name in ("exposure_mean", "auroc", "extraction_rate"):
        assert logged[f"canary/{name}_x16"] > logged[f"canary/{name}_x1"]


def test_the_audit_is_of_the_canaries_inserted_once(tuned, loop):
    *_, logged = tuned
    inserted, times, _, score, base, _ = loop
    slope, start = np.polyfit(base, score, 1)  # over all of them, inserted or not
    left, once = score - slope * base - start, times == 1
    assert once.sum() == 12
    audit = one_run_audit(torch.tensor(left[once]), torch.tensor(inserted[once] == 1), [4, 12], 0.0, 0.9)
    assert logged["audit/epsilon_lower_bound"] == pytest.approx(audit.epsilon, abs=1e-6)
    assert logged["audit/accuracy"] == pytest.approx(audit.n_correct / audit.n_guesses)


def test_before_training_canaries_are_not_distinguished(tuned):
    *_, before, _ = tuned
    assert before["canary/auroc"] == before["canary/auroc_x16"] == 0.5
    assert before["audit/epsilon_lower_bound"] == 0
    assert before["canary/extraction_rate"] == 0
    assert 0.5 < before["canary/exposure_mean"] < 2.5


def everything(folder):
    return [
        Perplexity(),
        MembershipInference(),
        Extraction(n_members=6, n_heldout=6),
        Extractability(),
        SpanExtraction(),
        Correlation(),
        Movers(),
        Slices(min_size=5),
        PerExampleTable(str(folder)),
    ]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_no_other_metric_includes_canaries(tuned, module, data, trainer, tmp_path):
    """The same weights, validated with and without canaries in the data: every other metric is the same."""
    import pyarrow.parquet as pq

    model, logged = tuned[0], []
    for name, canaries in (("without", None), ("with", Secrets(12))):
        more = [] if canaries is None else [Canaries(), PrivacyAudit()]
        t = trainer([*everything(tmp_path / name), *more])
        t.validate(model, data(train_size=12, heldout_size=8, canaries=canaries), verbose=False)
        metrics = {k: float(v) for k, v in t.callback_metrics.items() if not k.startswith(("time/", *NAMESPACES))}
        logged.append((metrics, pq.read_table(tmp_path / name / "validate.parquet")))
    assert logged[0][0] == logged[1][0]
    assert len(logged[0][0]) > 50
    assert logged[0][1].equals(logged[1][1])


def test_training_is_the_same_with_and_without_them(module, data, trainer, trained):
    weights = []
    for callbacks in ([], [Canaries(), PrivacyAudit()]):
        torch.manual_seed(1)
        model = module()
        trainer(callbacks, max_epochs=1).fit(model, data(train_size=6, canaries=Secrets(6, repetitions=[1, 2])))
        weights.append(trained(model))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def validated(module, data, trainer, canaries, *callbacks):
    t = trainer(callbacks)
    model = module()
    t.validate(model, data(train_size=6, heldout_size=6, canaries=canaries), verbose=False)
    return {k: float(v) for k, v in t.callback_metrics.items()}


@pytest.mark.slow
def test_traps_are_compared_within_their_range(module, data, trainer):
    logged = validated(module, data, trainer, Traps(16, 8, [1, 10, 1e4], repetitions=[1]), Canaries())
    ranges = ["perplexity_1-10", "perplexity_10-10000"]
    for name in ("exposure_mean", "exposure_max", "auroc", "auroc_low", "auroc_high", "extraction_rate"):
        for group in ranges:
            end = next((e for e in ("_low", "_high") if name.endswith(e)), "")
            assert f"canary/{name.removesuffix(end)}_{group}{end}" in logged
    assert logged["canary/auroc"] == 0.5


@pytest.mark.slow
def test_one_sided_coins_leave_out_what_cannot_be_measured(module, data, trainer):
    """Of two canaries both may be inserted, or held out."""
    seen = set()
    for seed in range(8):
        logged = validated(module, data, trainer, Secrets(2, repetitions=[1], seed=seed), Canaries())
        of_all = [name for name in logged if name.startswith("canary/") and "_x" not in name]
        seen.add(tuple(sorted(name for name in of_all if not name.endswith(("_low", "_high")))))
        assert all(map(math.isfinite, logged.values()))
        if len(seen) == 3:  # both inserted, both held out, one each
            break
    assert ("canary/extraction_rate",) in seen
    assert ("canary/extraction_rate_heldout",) in seen


def test_another_attack_may_judge(module, data, trainer, tuned):
    model, corpus, *_ = tuned
    t = trainer([Canaries(Loss()), Perplexity()])
    t.validate(model, corpus, verbose=False)
    member = [e.member for e in corpus.canaries]
    scores = [logprobs(model.language_model, e)[0].mean().item() for e in corpus.canaries]
    assert float(t.callback_metrics["canary/auroc"]) == pytest.approx(roc_auc_score(member, scores), abs=1e-6)
    assert Canaries(Loss()).needs.reference is False
    assert Canaries(ReferenceRatio()).needs.reference is True


@pytest.mark.parametrize("callback", [Canaries, PrivacyAudit])
@pytest.mark.parametrize("attack", [ReCaLL(), OfflineRMIA(["a", "b"])])
def test_attacks_that_run_the_model_further_are_rejected(callback, attack):
    with pytest.raises(ConfigError, match=rf"{callback.__name__}\.attack is {type(attack).__name__}, which"):
        callback(attack=attack)


def test_a_module_without_a_reference_is_judged_by_its_loss(module, data, trainer, tuned):
    model, corpus, *_ = tuned
    callback = Canaries()
    callback.begin(None)
    for batch in corpus.val_dataloader()[2]:
        callback.observe(replace(model.score(batch), reference=None), batch)
    table = callback._scores.compute()
    assert torch.equal(table["score"], callback._scores.compute()["score"])
    totals = {e.example_id: logprobs(model.language_model, e)[0].mean().item() for e in corpus.canaries}
    assert table["score"].tolist() == pytest.approx([totals[i] for i in table.example_id.tolist()], abs=1e-5)


# -- what is wrong ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("callback", [Canaries, PrivacyAudit])
def test_without_canaries_they_say_so(module, data, trainer, callback):
    with pytest.raises(ConfigError, match=r"set data\.canaries"):
        validated(module, data, trainer, None, callback())


@pytest.mark.slow
def test_the_audit_needs_canaries_inserted_once(module, data, trainer):
    with pytest.raises(ConfigError, match="with a 1 among its repetitions"):
        validated(module, data, trainer, Secrets(8, repetitions=[2]), PrivacyAudit())
    with pytest.raises(ConfigError, match=r"PrivacyAudit\.guesses is \[9\], but only 8 canaries"):
        validated(module, data, trainer, Secrets(8, repetitions=[1]), PrivacyAudit(guesses=[9]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "PrivacyAudit.confidence is 1.0; expected above 0 and below 1"),
        ({"confidence": 0}, "PrivacyAudit.confidence is 0"),
        ({"delta": -0.1}, "PrivacyAudit.delta is -0.1"),
        ({"delta": 1}, "PrivacyAudit.delta is 1"),
        ({"guesses": []}, r"PrivacyAudit.guesses is \[\]; expected at least one number"),
        ({"guesses": [10, 0]}, r"PrivacyAudit.guesses is \[10, 0\]"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        PrivacyAudit(**options)


@pytest.mark.slow
def test_a_check_before_training_over_few_batches_measures_nothing_of_them(module, data, trainer):
    t = trainer([Canaries(), PrivacyAudit()], max_epochs=1, num_sanity_val_steps=1)
    t.fit(module(), data(train_size=6, scoring_tokens=64, canaries=Secrets(8, repetitions=[1])))
    assert "canary/auroc" in t.callback_metrics


@pytest.mark.slow
def test_thresholds_may_be_set_on_them(module, data, trainer):
    stop = MemorizationEarlyStopping(["canary/exposure_mean_x2 > 0", "canary/auroc > 2"], lower_bound=True)
    t = trainer([Canaries(), stop], max_epochs=3)
    t.fit(module(), data(train_size=6, canaries=Secrets(12, repetitions=[2])))
    assert t.current_epoch == 1
    assert stop.reason.startswith("canary/exposure_mean_x2 is ")
    with pytest.raises(ConfigError, match="'canary/exposure_meen'; did you mean 'canary/exposure_mean'"):
        trainer([Canaries(), MemorizationEarlyStopping(["canary/exposure_meen > 1"])]).fit(
            module(), data(train_size=6, canaries=Secrets(12))
        )


def test_a_name_with_an_interval_bound_is_read_as_that_bound():
    from lit_mem.audit.thresholds import Threshold

    names = {name: Threshold(name, True, 0.6).cautious_name() for name in (
        "canary/auroc", "canary/auroc_low", "canary/auroc_x16_high", "canary/auroc_x16",
        "canary/auroc_perplexity_1-10", "canary/exposure_mean", "mia/loss_auroc",
    )}  # fmt: skip
    assert names == {
        "canary/auroc_low": "canary/auroc_low", "canary/auroc_x16_high": "canary/auroc_x16_high",
        "canary/auroc": "canary/auroc_low", "canary/auroc_x16": "canary/auroc_x16_low",
        "canary/auroc_perplexity_1-10": "canary/auroc_perplexity_1-10_low",
        "canary/exposure_mean": "canary/exposure_mean", "mia/loss_auroc": "mia/loss_auroc_low",
    }  # fmt: skip


@pytest.mark.slow
def test_what_is_said(module, data, trainer, caplog):
    """The maximum exposure, and the bound at the end; no canary's text."""
    with caplog.at_level(logging.INFO, logger="lit_mem"):
        corpus = data(train_size=6, canaries=Secrets(24, repetitions=[1]))
        trainer([Canaries(), PrivacyAudit()], max_epochs=2).fit(module(), corpus)
    said = [record.getMessage() for record in caplog.records]
    (reach,) = [line for line in said if line.startswith("Canaries: exposure")]
    n = sum(not e.member for e in corpus.canaries)
    assert reach.startswith(
        f"Canaries: exposure is at most {math.log2(n + 1):.2f} bits with {n} held-out canaries, and 1."
    )
    (verdict,) = [line for line in said if line.startswith("Audit")]
    assert "at 95 % confidence" in verdict
    assert "of 6 guesses about 24 canaries were correct" in verdict
    assert not any(e.record.text[-8:] in line for e in corpus.canaries for line in said)


@pytest.mark.slow
def test_lines_of_ones_own_are_measured(module, data, trainer, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("".join(f"The locker number {i * i} is behind door {i}\n" for i in range(20)))
    logged = validated(module, data, trainer, Lines(str(path), repetitions=[1]), Canaries(), PrivacyAudit())
    assert logged["canary/auroc"] == 0.5
    assert logged["audit/epsilon_lower_bound"] == 0


@pytest.mark.slow
def test_a_quarter_is_guessed_by_default(tuned, module, data, trainer):
    logged = validated(module, data, trainer, RandomTokens(40, length=8), PrivacyAudit(attack=Loss(), delta=0))
    rights = round(10 * logged["audit/accuracy"])
    assert logged["audit/accuracy"] == pytest.approx(rights / 10)
    assert logged["audit/epsilon_lower_bound"] == pytest.approx(epsilon_lower_bound(40, 10, rights, 0), abs=1e-6)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.slow
@pytest.mark.exhaustive
def test_no_canary_reaches_disk_or_console(tmp_path, monkeypatch, capsys, tokenizer):
    """Nor of custom lines: for a run from the command line, all files and all output."""
    lines = [f"The zymurgy locker {1000 + 7 * i} opens with q{90_000 + 11 * i}" for i in range(8)]
    (tmp_path / "mine.txt").write_text("\n".join(lines))
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    more = [f"--trainer.callbacks+=lit_mem.callbacks.{name}" for name in ("Canaries", "PrivacyAudit")]
    sizes = "--data.train_size 8 --data.heldout_size 8 --trainer.max_epochs 1 --data.canaries Lines".split()
    options = ["--data.canaries.path", str(tmp_path / "mine.txt"), "--data.canaries.repetitions", "[1]"]
    main(["fit", "--config", str(ROOT / "tests" / "quickstart_plain.yaml"), *sizes, *options, *more])
    said = capsys.readouterr()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(path.suffix == ".ckpt" for path in files)
    assert "canary/exposure_mean" in next(path for path in files if path.name == "metrics.csv").read_text()
    assert "Audit: at 95 % confidence" in said.err
    for line in lines:
        ids = torch.tensor(tokenizer(line, add_special_tokens=False)["input_ids"])
        forms = [line, line.split()[-1], *(ids.to(kind).numpy().tobytes() for kind in (torch.int64, torch.int32))]
        for form in forms:
            found = form if isinstance(form, bytes) else form.encode()
            assert not [path for path in files if found in path.read_bytes()]
        assert not any(form in said.out + said.err for form in forms[:2])
