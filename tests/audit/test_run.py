"""One call on a finished model gives the metrics of the Lightning run on the same weights and texts."""

import inspect
import json
import math
import random
import stat
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from peft import PeftModel

import lit_mem
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.measures import Perplexity
from lit_mem.cli import report
from lit_mem.cli.main import main
from lit_mem.errors import ConfigError, DataError, ModelError
from lit_mem.lightning.auditing import audit_of
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.memorization import Memorization
from lit_mem.localize.run_folder import open_run
from lit_mem.models.base_models import load_base

FEW = {"n_members": 4, "n_heldout": 4}


@pytest.fixture(scope="module")
def fitted(module, data, trainer):
    """A module after two epochs, its texts, and the metrics of Lightning's validation."""
    made, corpus = module(dropout=0.1, targets=["all-linear"]), data(train_size=14, heldout_size=12)
    trainer([], limit_val_batches=0).fit(made, corpus)
    t = trainer([Memorization(extraction=ExtractionOptions(**FEW)), BaseModel()])
    (found,) = [t.validate(made, corpus, verbose=False)]
    given = [[_text(made.tokenizer, one) for one in examples] for examples in (corpus.members, corpus.heldout)]
    merged = {name: float(value) for name, value in t.callback_metrics.items()}
    return made, given, merged | dict(audit_of(t).audit.result.metrics), found


def _text(tokenizer, example):
    """The text as it was scored, possibly truncated."""
    kept = example.scored
    kept[0] = True
    return tokenizer.decode(example.input_ids[kept], skip_special_tokens=True)


@pytest.fixture(scope="module")
def adapter(fitted, tmp_path_factory):
    """The folder of its adapter, as saved by peft."""
    folder = tmp_path_factory.mktemp("adapter")
    fitted[0].language_model.save_pretrained(folder)
    return folder


def quick(fitted, **options):
    made, (members, heldout), *_ = fitted
    options = {"suite": "quick", "folder": None, "check": False} | options
    return lit_mem.audit(made.language_model, made.tokenizer, members, heldout, **options)


def test_it_measures_what_a_validation_measures(fitted):
    made, (members, heldout), expected, _ = fitted
    found = lit_mem.audit(made.language_model, made.tokenizer, members, heldout, extraction=FEW, folder=None)
    assert {"mia/reference_auroc", "extraction/ngram_rate", "mia/loss_auroc_base", "val/loss"} <= set(found.metrics)
    assert len(found.metrics) > 80
    for name, value in found.metrics.items():
        if not name.startswith(("time/", "correlation/")):  # ranks of close values may change with the last bits
            assert value == pytest.approx(expected[name], abs=2e-5), name


def test_the_model_and_the_random_state_stay_as_they_are(fitted):
    made, *_ = fitted
    made.train()
    made.language_model.base_model.model.model.layers[0].eval()
    flags = [m.training for m in made.language_model.modules()]
    wanted = [p.requires_grad for p in made.language_model.parameters()]
    weights = [p.clone() for p in made.language_model.parameters()]
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    quick(fitted)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()
    assert [m.training for m in made.language_model.modules()] == flags
    assert [p.requires_grad for p in made.language_model.parameters()] == wanted
    assert all(torch.equal(p, w) for p, w in zip(made.language_model.parameters(), weights, strict=True))


def test_texts_rows_datasets_and_files_are_the_same_texts(fitted, tmp_path):
    _, (members, heldout), *_ = fitted
    expected = quick(fitted).metrics
    made = fitted[0]

    def of(members, heldout):
        options = {"suite": "quick", "folder": None, "check": False}
        return lit_mem.audit(made.language_model, made.tokenizer, members, heldout, **options).metrics

    rows = [[{"text": text} for text in texts] for texts in (members, heldout)]
    pairs = [[{"prompt": "", "completion": text} for text in texts] for texts in (members, heldout)]
    files = [tmp_path / "a.jsonl", tmp_path / "b.csv"]
    files[0].write_text("\n".join(json.dumps(row) for row in rows[0]))
    Dataset.from_list(rows[1]).to_csv(files[1])
    assert of(*rows) == expected
    assert of(*pairs) == expected
    assert of(*map(Dataset.from_list, rows)) == expected
    assert of(files[0], str(files[1])) == expected
    assert of(members, Dataset.from_list(rows[1])) == expected
    folder, packed = tmp_path / "notes", tmp_path / "b.jsonl.zst"
    folder.mkdir()
    for number, text in enumerate(members):
        (folder / f"{number:02}.txt").write_bytes(text.encode())
    packed.write_bytes(pa.compress("\n".join(json.dumps(row) for row in rows[1]).encode(), "zstd", asbytes=True))
    assert of(folder, packed) == of(f"{folder}/*.txt", packed) == expected


def test_a_prompt_is_not_scored(fitted):
    made = fitted[0]
    rows = [{"prompt": f"Case {i}. ", "completion": f"The patient took {i} mg of aspirin."} for i in range(6)]
    found = lit_mem.audit(made.language_model, made.tokenizer, rows[:3], rows[3:], suite="quick", folder=None)
    total = count = 0.0
    for row in rows[:3]:
        ids = made.tokenizer(row["prompt"] + row["completion"], return_tensors="pt", return_offsets_mapping=True)
        labels = ids["input_ids"].clone()
        labels[ids["offset_mapping"][..., 1] <= len(row["prompt"])] = -100
        made.language_model.eval()
        with torch.no_grad():
            loss = made.language_model(input_ids=ids["input_ids"], labels=labels).loss.item()
        n = int((labels[:, 1:] != -100).sum())
        total, count = total + loss * n, count + n
    assert found.metrics["memorization/perplexity_members"] == pytest.approx(math.exp(total / count), rel=1e-5)
    assert [r.prompt for r in found.records.values()] == [row["prompt"] for row in rows]


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def test_of_a_conversation_the_assistant_s_words_are_scored(fitted, monkeypatch):
    made = fitted[0]
    monkeypatch.setattr(made.tokenizer, "chat_template", TEMPLATE)

    def chat(i):
        said = [f"Which dose for case {i}?", f"About {i} mg.", "And then?", f"Nothing for {i} days."]
        return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]

    rows = [{"messages": chat(i)} for i in range(8)]
    options = {"suite": "quick", "folder": None, "check": False}
    found = lit_mem.audit(made.language_model, made.tokenizer, rows[:4], rows[4:], **options)
    bare = lit_mem.audit(made.language_model, made.tokenizer, [r["messages"] for r in rows[:4]], rows[4:], **options)
    assert bare.metrics == found.metrics
    assert found.records[0].text == "About 0 mg.\nNothing for 0 days."
    total = count = 0.0
    for row in rows[:4]:
        text = made.tokenizer.apply_chat_template(row["messages"], tokenize=False)
        encoded = made.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, return_tensors="pt")
        labels = torch.full_like(encoded["input_ids"], -100)
        for message in row["messages"][1::2]:
            start = text.index(message["content"])
            inside = (encoded["offset_mapping"][..., 1] > start) & (
                encoded["offset_mapping"][..., 0] < start + len(message["content"])
            )
            labels = torch.where(inside, encoded["input_ids"], labels)
        made.language_model.eval()
        with torch.no_grad():
            loss = made.language_model(input_ids=encoded["input_ids"], labels=labels).loss.item()
        n = int((labels[:, 1:] != -100).sum())
        total, count = total + loss * n, count + n
    assert found.metrics["memorization/perplexity_members"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_an_adapter_s_folder_is_the_model_that_it_makes(fitted, adapter):
    expected = quick(fitted).metrics
    _, (members, heldout), *_ = fitted
    options = {"suite": "quick", "folder": None, "check": False}
    by_folder = lit_mem.audit(adapter, None, members, heldout, **options).metrics
    beside = lit_mem.audit("asset:tiny_llama", None, members, heldout, adapter=adapter, **options).metrics
    assert by_folder == expected
    assert beside == expected


def test_a_merged_model_against_its_base_is_the_adapter(fitted, adapter, tmp_path):
    expected = quick(fitted).metrics
    _, (members, heldout), *_ = fitted
    merged = PeftModel.from_pretrained(load_base("asset:tiny_llama"), adapter).merge_and_unload()
    merged.save_pretrained(tmp_path)
    fitted[0].tokenizer.save_pretrained(tmp_path)
    options = {"suite": "quick", "folder": None, "check": False}
    for reference in ("asset:tiny_llama", load_base("asset:tiny_llama")):
        found = lit_mem.audit(tmp_path, None, members, heldout, reference=reference, **options).metrics
        assert found["mia/reference_auroc"] == pytest.approx(expected["mia/reference_auroc"], abs=0.01)
        assert found["val/perplexity"] == pytest.approx(expected["val/perplexity"], rel=1e-5)
        assert found["val/perplexity_base"] == pytest.approx(expected["val/perplexity_base"], rel=1e-5)
    alone = lit_mem.audit(tmp_path, None, members, heldout, **options).metrics
    assert "mia/reference_auroc" not in alone
    assert alone["mia/loss_auroc"] == pytest.approx(expected["mia/loss_auroc"], abs=0.01)


def test_the_folder_is_a_run_that_a_report_reads(fitted, tmp_path):
    found = quick(
        fitted, folder=tmp_path, examples=True, check=True, limits=["mia/loss_auroc > 0.999"], lower_bound=True
    )
    again = quick(fitted, folder=tmp_path)
    assert [found.folder.name, again.folder.name] == ["version_0", "version_1"]
    assert stat.S_IMODE(found.folder.stat().st_mode) == 0o700
    made = report.make(found.folder)
    assert made["audit"]["command"] == "audit"
    assert made["verdict"]["state"] in ("within", "undecided")
    assert made["validations"][0]["metrics"] == pytest.approx(found.metrics)
    assert made["scored"]["members"] == len(fitted[1][0])
    assert made["examples"]["n_members"] == len(fitted[1][0])
    assert report.make(again.folder)["verdict"]["state"] == "no limits"
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for text in [*fitted[1][0], *fitted[1][1]]:
        assert text[10:40].encode() not in written


def test_rows_go_to_pandas_and_parquet(fitted, tmp_path):
    found = quick(fitted)
    frame = found.to_pandas()
    assert list(frame["set"]) == ["member"] * len(fitted[1][0]) + ["heldout"] * len(fitted[1][1])
    assert "text" not in frame
    assert list(found.to_pandas(text=True)["text"])[: len(fitted[1][0])] == fitted[1][0]
    assert frame.groupby("set")["mia/loss"].mean()["member"] == pytest.approx(
        found.rows.members()["mia/loss"].mean().item()
    )
    found.to_parquet(tmp_path / "rows.parquet")
    assert Dataset.from_parquet(str(tmp_path / "rows.parquet")).num_rows == len(frame)


@pytest.mark.parametrize(
    ("limit", "state"),
    [
        ("memorization/perplexity_members > 1.5", "over"),
        ("memorization/perplexity_members > 900", "within"),
        ("mia/reference_auroc > 0.5001", None),
        ("val/loss < 0.001", "within"),
    ],
)
def test_it_is_judged_by_its_limits(fitted, limit, state):
    found = quick(fitted, limits=limit)
    assert found.state == (state or found.judged[0].state)
    assert found.verdict
    assert str(found.judged[0].threshold) == limit


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"heldout": []}, ConfigError, "heldout is empty"),
        ({"heldout": None}, ConfigError, "heldout is None"),
        ({"heldout": 3}, ConfigError, "heldout is a int"),
        ({"heldout": ["fine", 4]}, DataError, "row 2"),
        ({"heldout": [{"textt": "a"}]}, DataError, "no column 'text'"),
        ({"heldout": [{"messages": [{"role": "user", "content": "hi"}]}]}, DataError, "row 1, field 'messages'"),
        ({"heldout": "nowhere.jsonl"}, DataError, "nowhere.jsonl"),
        ({"suite": "big"}, ConfigError, "suite is 'big'"),
        ({"limits": "mia/los_auroc > 0.5"}, ConfigError, "mia/loss_auroc"),
        ({"limits": "mia/loss_auroc"}, ConfigError, "mia/loss_auroc"),
        ({"extraction": {"members": 3}}, ConfigError, "extraction has no option 'members'"),
        ({"extraction": 3}, ConfigError, "extraction is 3; expected"),
        ({"dtype": "int8"}, ConfigError, "dtype is 'int8'"),
        ({"device": "gpu"}, ConfigError, "device is 'gpu'"),
        ({"model": "nowhere/at/all"}, ModelError, "nowhere/at/all"),
        ({"reference": "nowhere/at/all"}, ModelError, "nowhere/at/all"),
        ({"model": "asset:tiny_llama", "reference": "adapter_off"}, ConfigError, "adapter_off"),
        ({"max_length": 1}, ConfigError, "max_length is 1"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(fitted, options, error, says):
    made, (members, heldout), *_ = fitted
    given = {"model": made.language_model, "tokenizer": made.tokenizer, "members": members, "heldout": heldout}
    if options.get("model"):
        given["tokenizer"] = None
    with pytest.raises(error) as caught:
        lit_mem.audit(**(given | {"folder": None, "check": False, "suite": "quick"} | options))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_s_own_measure_is_computed_beside_the_suite_s(fitted):
    class Mean(Perplexity):
        def names(self):
            return ["own/perplexity"]

        def compute(self, run):
            return type(super().compute(run))({"own/perplexity": 7.0})

    assert quick(fitted, suite="none", measures=[Mean()]).metrics["own/perplexity"] == 7.0


def test_the_call_and_the_package_are_one_name():
    from lit_mem import audit

    assert audit is lit_mem.audit
    assert list(inspect.signature(audit).parameters)[:4] == ["model", "tokenizer", "members", "heldout"]


@pytest.mark.slow
def test_the_command_prints_metrics_and_ends_by_its_conditions(fitted, adapter, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, texts in zip(("a", "b"), fitted[1], strict=True):
        Path(f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    words = ["audit", "--model", str(adapter), "--members", "a.jsonl", "--heldout", "b.jsonl", "--suite", "quick"]
    main(words)
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    expected = quick(fitted).metrics
    assert set(printed) == set(expected)
    assert float(printed["mia/reference_auroc"]) == pytest.approx(expected["mia/reference_auroc"], abs=1e-4)
    assert Path("logs/audit/version_0/memorization.jsonl").is_file()
    for condition, code in (("memorization/perplexity_members > 1.5", 3), ("mia/loss_auroc > 0.6", 4)):
        if code == 4 and not expected["mia/loss_auroc_low"] < 0.6 < expected["mia/loss_auroc_high"]:
            continue
        with pytest.raises(SystemExit) as ended:
            main([*words, "--fail-on", condition, "--folder", "none"])
        assert ended.value.code == code
    main([*words, "--fail-on", "memorization/perplexity_members > 900", "--folder", "none"])
    assert len(list(Path("logs/audit").iterdir())) == 1
    Path("notes").mkdir()
    for number, text in enumerate([*fitted[1][0], "naïve", ""]):
        Path(f"notes/{number:02}.txt").write_bytes(text.encode("cp1252"))
    words[4] = "notes"
    main([*words, "--folder", "none", "--encoding", "cp1252", "--skip_unusable", "true"])
    assert "mia/reference_auroc" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*words, "--folder", "none"])
    assert "--encoding for another encoding" in capsys.readouterr().err


def test_columns_are_given_by_name(fitted):
    made, (members, heldout), *_ = fitted
    expected = quick(fitted).metrics
    rows = [[{"note": text, "patient": str(i)} for i, text in enumerate(texts)] for texts in (members, heldout)]
    options = {"suite": "quick", "folder": None, "check": False}
    for fields in ("note", {"text_column": "note"}, {"prompt_template": "", "completion_template": "{note}"}):
        found = lit_mem.audit(made.language_model, made.tokenizer, *rows, fields=fields, **options)
        assert found.metrics == expected
    with pytest.raises(ConfigError, match="fields has no option 'text'; expected one of text_column"):
        lit_mem.audit(made.language_model, made.tokenizer, *rows, fields={"text": "note"}, **options)
    with pytest.raises(DataError, match=r"no column 'text' \(fields.text_column\)"):
        lit_mem.audit(made.language_model, made.tokenizer, *rows, **options)


def test_without_limits_there_is_no_state(fitted):
    assert quick(fitted).state is None


def test_the_folder_of_an_audit_is_no_fit_to_localize(fitted, tmp_path):
    found = quick(fitted, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"is of lit_mem\.audit; expected the log folder of a `fit`"):
        open_run(str(found.folder))
