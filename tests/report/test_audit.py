"""The report of a validation by itself, which trained nothing."""

import csv
import importlib.util
import json
import math
from pathlib import Path

import jsonschema
import pytest
from sklearn.metrics import roc_auc_score

import lit_mem.report
from lit_mem.callbacks import MembershipInference, Perplexity
from lit_mem.cli import main as cli
from lit_mem.files.origin import write_origin
from lit_mem.lightning.base_model import BaseModel

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
SCHEMA = json.loads((Path(lit_mem.report.__file__).parent / "schema.json").read_text())

MEASURED = {
    "val/perplexity": 3.1,
    "val/perplexity_base": 3.2,
    "memorization/perplexity_members": 2.9,
    "memorization/perplexity_members_base": 3.3,
    "mia/reference_auroc": 0.747,
    "mia/reference_auroc_low": 0.59,
    "mia/reference_auroc_high": 0.86,
    "mia/loss_auroc": 0.6,
    "mia/loss_auroc_low": 0.4,
    "mia/loss_auroc_high": 0.8,
    "mia/loss_auroc_base": 0.62,
    "mia/loss_auroc_base_low": 0.55,
    "mia/loss_auroc_base_high": 0.69,
    "extraction/ngram_rate": 0.4,
    "extraction/ngram_rate_base": 0.2,
    "extraction/ngram_rate_heldout": 0.21,
    "extraction/ngram_rate_base_heldout": 0.22,
}


@pytest.fixture
def audit(tmp_path):
    """A folder as `validate` leaves it, with a configuration whose thresholds were meant for training."""
    folder = made.write_run(tmp_path / "audit", limits="mia/reference_auroc > 0.5", table=False)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("model:\n", "model:\n  adapter_path: some/adapter\n"))
    with (folder / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["epoch", "step", *MEASURED], [0, 0, *MEASURED.values()]])
    write_origin(folder, "validate", None, 0)
    made.write_checks(folder, scored={"members": 25, "of_members": 95, "heldout": 25, "of_heldout": 25})
    return folder


def report(folder, *words, code=None):
    if code is None:
        cli.main(["report", str(folder), *words])
    else:
        with pytest.raises(SystemExit) as stop:
            cli.main(["report", str(folder), *words])
        assert stop.value.code == code
    data = json.loads((folder / "report.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    return (folder / "report.html").read_text(), data


def test_it_has_no_limits_of_training_and_no_epochs(audit):
    html, data = report(audit)
    assert data["audit"] == {"command": "validate", "of": "adapter", "name": "some/adapter"}
    assert (data["verdict"]["state"], data["verdict"]["limits"]) == ("no limits", [])
    assert data["checkpoints"] == data["trust"]["before_training"] == []
    assert [row["epoch"] for row in data["validations"]] == [0]
    assert '<h2 class="name">Audit of the adapter some/adapter</h2>' in html
    for text in ("efore training", "after every epoch", "epoch", "MemorizationEarlyStopping</td>"):
        assert text not in html.partition('<section id="configuration">')[0], text
    assert {row["what"]: row["value"] for row in data["setup"]}["Adapter"] == "some/adapter"
    assert data["scored"]["text"] in html


def test_the_base_model_s_metrics_stand_beside(audit):
    html, data = report(audit)
    rows = {row["metric"]: row for row in data["key_metrics"]}
    for name in ("val/perplexity", "memorization/perplexity_members", "mia/loss_auroc", "extraction/ngram_rate"):
        assert (rows[name]["last"], rows[name]["base"]) == (MEASURED[name], MEASURED[f"{name}_base"])
        assert rows[name]["start"] is None
    heldout = rows["extraction/ngram_rate_heldout"]
    assert (heldout["last"], heldout["base"]) == (0.21, 0.22)
    assert rows["mia/reference_auroc"]["base"] is None  # there is nothing to compare the base with
    assert not [name for name in rows if name.endswith("_base")]
    (reading,) = data["trust"]["of_base"]
    assert (reading["metric"], reading["value"], reading["low"]) == ("mia/loss_auroc_base", 0.62, 0.55)
    assert "above 0.5 in the base" in reading["reading"]
    assert '<th scope="col" class="n">Base model</th>' in html


@pytest.mark.slow
@pytest.mark.parametrize(
    ("condition", "code", "state"),
    [
        ("mia/reference_auroc > 0.9", None, "within"),
        ("mia/reference_auroc > 0.7", 4, "undecided"),
        ("mia/reference_auroc > 0.55", 3, "crossed"),
        ("memorization/perplexity_members < 2.95", 3, "crossed"),
    ],
)
def test_its_limits_are_those_that_it_is_given(audit, capsys, condition, code, state):
    html, data = report(audit, "--fail-on", condition, code=code)
    assert data["verdict"]["state"] == state
    (limit,) = data["verdict"]["limits"]
    assert (limit["set_by"], limit["limit"], limit["state"]) == ("--fail-on", condition, state)
    assert "epoch" not in capsys.readouterr().err
    tone = {"within": "good", "undecided": "warn", "crossed": "bad"}[state]
    assert f'<div class="verdict {tone}" id="verdict">' in html


@pytest.mark.slow
def test_fewer_held_out_texts_never_make_it_greener(audit):
    """At the same value and limit, the verdict can only go from over or within to undecided."""
    from lit_mem.functional.planning import planned_interval

    found = []
    for n in (1000, 300, 100, 25, 5):
        low, high = planned_interval(0.747, n, n)
        row = MEASURED | {"mia/reference_auroc_low": low, "mia/reference_auroc_high": high}
        with (audit / "metrics.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["epoch", "step", *row], [0, 0, *row.values()]])
        code = 3 if low > 0.7 else 4
        found.append(report(audit, "--fail-on", "mia/reference_auroc > 0.7", code=code)[1]["verdict"]["state"])
    assert found == ["crossed", "crossed", "undecided", "undecided", "undecided"]


@pytest.mark.slow
def test_a_checkpoint_or_a_model_is_named_as_such(audit):
    write_origin(audit, "validate", "elsewhere/best.ckpt", 40)
    html, data = report(audit)
    assert data["audit"]["of"] == "checkpoint"
    assert data["audit"]["name"].endswith("elsewhere/best.ckpt")
    assert "Audit of the checkpoint" in html
    write_origin(audit, "test", None, 0)
    text = (audit / "config.yaml").read_text()
    (audit / "config.yaml").write_text(text.replace("  adapter_path: some/adapter\n", ""))
    _, data = report(audit)
    assert data["audit"] == {"command": "test", "of": "model", "name": "asset:tiny_llama"}


def test_an_audit_of_an_earlier_version_is_known_by_what_it_lacks(audit):
    (audit / "run.json").unlink()
    assert report(audit)[1]["audit"]["of"] == "adapter"
    (audit / "checkpoints").mkdir()  # a fit of one epoch that logged no loss
    assert report(audit)[1]["audit"] is None


def test_a_fit_is_never_an_audit(audit):
    write_origin(audit, "fit", None, 0)
    _, data = report(audit)
    assert data["audit"] is None
    assert data["verdict"]["state"] == "crossed"  # 0.59 is above 0.5
    assert data["validations"][0]["epoch"] == 1


@pytest.mark.slow
def test_the_base_is_measured_in_validate_as_before_the_first_step_of_a_fit(module, data, trainer):
    membership, perplexity = MembershipInference(plots=False), Perplexity()
    tuned, texts = module(), data()
    start = trainer([membership, perplexity], max_epochs=1)
    start.validate(tuned, texts, verbose=False)
    before = {name: float(value) for name, value in start.callback_metrics.items()}
    start.fit(tuned, texts)
    run = trainer([BaseModel(), membership, perplexity])
    run.validate(tuned, texts, verbose=False)
    after = {name: float(value) for name, value in run.callback_metrics.items()}
    names = ["val/perplexity", "memorization/perplexity_members", "memorization/perplexity_gap"]
    names += [f"mia/{attack}_auroc{end}" for attack in ("loss", "zlib", "min_k") for end in ("", "_low", "_high")]
    for name in names:
        base = name.replace("_auroc", "_auroc_base") if "_auroc" in name else f"{name}_base"
        assert after[base] == pytest.approx(before[name], abs=1e-6), name
        if name in ("val/perplexity", "memorization/perplexity_members"):
            assert after[base] != pytest.approx(after[name], rel=1e-4)
    assert {name for name in after if "_base" in name} == {
        n.replace("_auroc", "_auroc_base") if "_auroc" in n else f"{n}_base" for n in names
    }
    assert not math.isnan(after["mia/min_k_auroc_base"])


def test_the_base_s_area_is_sklearn_s(module, data, trainer):
    base = BaseModel()
    run = trainer([base, MembershipInference(plots=False)])
    run.validate(module(), data(), verbose=False)
    table = base._base._table.compute()
    score = table["logprob"] / table["n_tokens"]
    expected = roc_auc_score(table.member.numpy(), score.numpy())
    assert float(run.callback_metrics["mia/loss_auroc_base"]) == pytest.approx(expected)


@pytest.mark.slow
def test_a_fit_logs_nothing_of_it(module, data, trainer):
    run = trainer([BaseModel(), MembershipInference(plots=False), Perplexity()], max_epochs=1)
    run.fit(module(), data())
    assert not [name for name in run.callback_metrics if "_base" in name]


@pytest.mark.slow
def test_validate_on_the_command_line_leaves_an_audit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    (tmp_path / "callbacks.yaml").write_text(
        "trainer:\n  accelerator: cpu\n  callbacks:\n"
        "  - class_path: lit_mem.callbacks.MembershipInference\n"
        "  - class_path: lit_mem.callbacks.MemorizationEarlyStopping\n"
        "    init_args: {thresholds: [mia/loss_auroc > 0.5]}\n"
    )
    words = "--config callbacks.yaml --model.model_id asset:tiny_llama --data.train_size 24 --data.heldout_size 24"
    cli.main(["validate", *words.split()])
    (folder,) = (tmp_path / "logs" / "lit_mem").iterdir()
    said = capsys.readouterr()
    assert f"report {folder.relative_to(tmp_path)} --fail-on 'mia/loss_auroc > 0.5'" in said.err.splitlines()[-1]
    _, data = report(folder)
    assert data["audit"] == {"command": "validate", "of": "model", "name": "asset:tiny_llama"}
    assert data["verdict"]["limits"] == []
    by_name = {row["metric"]: row for row in data["key_metrics"]}
    assert by_name["mia/loss_auroc"]["base"] == pytest.approx(by_name["mia/loss_auroc"]["last"])  # nothing was tuned
