"""The last lines printed by `validate` and `test`."""

import re
import shlex

import pytest

from lit_mem.audit.closing import next_steps, sentence, table
from lit_mem.callbacks import EpochTable, Extraction, MembershipInference, MemorizationEarlyStopping, Perplexity
from lit_mem.cli.main import main
from lit_mem.functional.interval import clopper_pearson
from lit_mem.lightning.auditing import latest_metrics
from lit_mem.lightning.last_line import audited

METRICS = {
    "val/loss": 1.0832, "val/perplexity": 2.954, "memorization/perplexity_members": 2.651,
    "mia/reference_auroc": 0.8541,
    "mia/strongest_auroc": 0.8612, "mia/strongest_auroc_low": 0.8239, "mia/strongest_auroc_high": 0.8842,
    "extraction/exact_rate": 0.03, "time/scoring": 1.0,
}  # fmt: skip


def test_the_row_is_that_of_the_epoch_table():
    header, row = table(METRICS, "valid")
    titles = ["epoch", "val/loss", "ppl held-out", "ppl members", "AUROC reference", "AUROC strongest [95 %]", "exact"]
    assert re.split(r" {2,}", header) == titles
    assert row.split() == ["valid", "1.083", "2.95", "2.65", "0.854", "0.861", "[0.824,", "0.884]", "0.030"]
    assert len(header) == len(row)


def test_of_a_test_set_too():
    metrics = {name.replace("val/", "test/"): value for name, value in METRICS.items()}
    assert table(metrics, "test") == [line.replace("valid", " test") for line in table(METRICS, "valid")]
    assert sentence(metrics) == sentence(METRICS)


def test_with_the_columns_of_the_configured_table():
    header, row = table(METRICS, "valid", EpochTable(["time/scoring", "val/loss", "val/other"]).columns)
    assert header.split() == ["epoch", "time/scoring", "val/loss"]
    assert row.split() == ["valid", "1", "1.083"]
    assert table({}, "valid") == []


def test_the_sentence_has_the_numbers():
    text = sentence(METRICS)
    assert text.count(". ") == 0
    for part in ("1.083", "2.65", "2.95", "strongest attack is 0.861 [0.824, 0.884]", " 3 %"):
        assert part in text
    assert "persons with at least one extracted piece is 12.5 %" in sentence(METRICS | {"user/extracted_share": 0.125})
    assert "loss attack" in sentence({"mia/loss_auroc": 0.6})
    assert sentence({}) == ""


@pytest.mark.parametrize("name", ["extraction/exact_rate", "extraction/span_rate", "user/extracted_share"])
@pytest.mark.parametrize(
    ("value", "n", "said"),
    [(0.0, 300, "is 0 of 300: below 1.2 %"), (0.0, 87.4, "is 0: below 4.1 %"), (0.03, 100, "is 3 % [0.62 %, 8.5 %]")],
)
def test_rates_have_their_intervals_and_zero_is_of_so_many(name, value, n, said):
    low, high = clopper_pearson(value, n)
    assert said in sentence({name: value, f"{name}_low": low, f"{name}_high": high})


def test_the_next_command_can_be_pasted():
    assert next_steps("logs/a b/version_0", True)[-1] == "Next: lit-mem report 'logs/a b/version_0'"
    assert not any("report" in line for line in (*next_steps("logs/x", False), *next_steps(None, True)))
    assert next_steps(None, True, without="trainer.fast_dev_run") == ["No run folder: trainer.fast_dev_run."]
    line = next_steps("a b", True, ["mia/loss_auroc > 0.7", "val/loss < 2"])[-1]
    words = shlex.split(line.partition(": lit-mem report ")[2])
    assert words == ["a b", "--fail-on", "mia/loss_auroc > 0.7", "--fail-on", "val/loss < 2"]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", ["validate", pytest.param("test", marks=pytest.mark.slow)])
def test_an_audit_is_judged_by_what_it_measured(stage, module, data, trainer):
    stop = MemorizationEarlyStopping(["train/loss > 3", "val/perplexity > 1000", "mia/loss_auroc > 0.999"])
    other = MemorizationEarlyStopping(["val/loss > 0.001", "mia/loss_auroc > 0.999", "extraction/exact_rate > 0.1"])
    run = trainer([stop, other, Perplexity(), MembershipInference(plots=False), Extraction(4, 4)])
    getattr(run, stage)(module(), data(members_size=20), verbose=False)
    assert "extraction/exact_rate" in latest_metrics(run)
    lines, conditions = audited(run)
    here = "val" if stage == "validate" else "test"
    others = ["mia/loss_auroc > 0.999", f"{here}/loss > 0.001", "extraction/exact_rate > 0.1"]
    assert conditions == [f"{here}/perplexity > 1000", *others]
    judged, absent = lines
    assert judged.startswith("Over the limits: ")
    assert f"{here}/loss is {latest_metrics(run)[f'{here}/loss']:.3f}" in judged
    assert "train/loss" in absent
    assert "perplexity" not in absent


@pytest.mark.slow
def test_without_thresholds_an_audit_is_not_judged(module, data, trainer):
    run = trainer([Perplexity()])
    run.validate(module(), data(), verbose=False)
    assert audited(run) == ([], [])
    run = trainer([MemorizationEarlyStopping(["train/loss > 3"]), Perplexity()])
    run.validate(module(), data(), verbose=False)
    lines, conditions = audited(run)
    assert (len(lines), conditions) == (1, [])


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_the_command_line_ends_with_them(stage, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    sizes = "--data.train_size 30 --data.heldout_size 30 --data.max_length 48 --trainer.accelerator cpu"
    measures = "--trainer.callbacks+=lit_mem.callbacks.MembershipInference"
    main([stage, *"--model.model_id asset:tiny_llama --data.source CaseReports".split(), *sizes.split(), measures])
    printed = capsys.readouterr()
    metrics = dict(re.findall(r"^(\S+/\S+) +(\S+)$", printed.out, flags=re.MULTILINE))
    assert printed.out.splitlines()[-1].startswith("val/" if stage == "validate" else "test/")  # nothing after them
    assert metrics["mia/reference_auroc"] == "0.5000"
    lines = printed.err.splitlines()
    folder = lines[-2].removeprefix("Run: ")
    assert lines[-1] == f"Next: python train.py report {folder}"
    assert (tmp_path / folder / "metrics.csv").is_file()
    header = next(i for i, line in enumerate(lines) if re.match(r"epoch +val/loss +AUROC reference", line))
    loss = metrics["test/loss" if stage == "test" else "val/loss"]
    assert lines[header + 1].split()[1] == f"{float(loss):.3f}"
    main(["report", folder])
    assert (tmp_path / folder / "report.html").is_file()
