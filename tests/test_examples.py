"""Each lesson runs offline as it is, in an empty folder, is short, and ends with its report; so does the notebook."""

import ast
import json
import runpy
from pathlib import Path

import pytest
import torch
import yaml
from datasets import Dataset, DatasetDict
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM

from lit_mem import assets
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.cli import main as cli
from lit_mem.cli.starter import own_data
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOK = EXAMPLES / "first_run.ipynb"
OWN_DATA = ROOT / "configs" / "own_data.yaml"


def run(name, tmp_path, monkeypatch, *words):
    """The names that a lesson leaves, run as its user runs it, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name, *words])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def report_of(folder):
    assert (folder / "report.html").stat().st_size > 10_000
    return json.loads((folder / "report.json").read_text("utf-8"))


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_lesson_is_short_says_what_it_teaches_and_names_each_step(path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 80
    assert len([line for line in (ast.get_docstring(ast.parse(text)) or "").splitlines() if line]) == 3
    steps = [line for line in text.splitlines() if line.startswith("# ")]
    assert [line.split(".")[0] for line in steps] == [f"# {i}" for i in range(1, len(steps) + 1)]
    assert len(steps) >= 5


def test_the_table_of_lessons_has_each_of_them():
    table = (EXAMPLES / "README.md").read_text("utf-8")
    for path in [*SCRIPTS, NOTEBOOK]:
        assert f"]({path.name})" in table


@pytest.mark.slow
def test_the_lesson_of_a_lightning_module_exports_an_adapter_of_plain_peft(tmp_path, monkeypatch, capsys):
    made = run("own_lightning_module.py", tmp_path, monkeypatch)
    folder = Path(made["trainer"].log_dir)
    found = report_of(folder)
    assert found["kind"] == "run"
    assert (made["memorization"].stop, made["trainer"].current_epoch) == (["standard"], 1)
    assert f"{folder}/report.html" in capsys.readouterr().out
    ids = torch.tensor([made["tokenizer"](made["members"][0])["input_ids"]])
    tuned = made["trainer"].lightning_module.model.eval()
    place = folder / "checkpoints" / "last-adapter"
    base = AutoModelForCausalLM.from_pretrained(assets.path("tiny_llama"))
    with torch.no_grad():
        expected, untuned = tuned(ids).logits, base(ids).logits
        assert (expected - untuned).abs().max() > 0.1
        assert torch.equal(PeftModel.from_pretrained(base, place)(ids).logits, expected)
        assert torch.equal(AutoPeftModelForCausalLM.from_pretrained(place)(ids).logits, expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator")
@pytest.mark.parametrize("name", ["hf_trainer.py", "trl_sft.py"])
def test_the_lessons_of_trainers(name, tmp_path, monkeypatch):
    made = run(name, tmp_path, monkeypatch, "out")
    assert report_of(tmp_path / "out" / "memorization")["kind"] == "run"
    assert (tmp_path / "out" / "memorization" / "memorization.jsonl").is_file()
    if name == "trl_sft.py":
        name = "mia/reference_auroc"
        history = [line[name] for line in made["trainer"].state.log_history if name in line and line["step"] > 0]
        assert len(history) >= 3
        assert made["best"][f"eval_{name}"] == pytest.approx(min(history), abs=1e-4)
    else:
        assert made["trainer"].state.epoch < 4  # the threshold ended it


@pytest.mark.slow
def test_the_audit_of_a_finished_model(tmp_path, monkeypatch, trainer, capsys):
    made = run("audit_finished_model.py", tmp_path, monkeypatch)
    result, texts = made["result"], made["texts"]
    assert result.state == "over"
    assert report_of(result.folder)["kind"] == "run"
    module = CausalLM(adapter_path=made["adapter"])
    sets = DatasetDict({name: Dataset.from_dict({"text": rows}) for name, rows in texts.items()})
    data = TextDataModule(sets, add_eos=False, check=False)
    t = trainer([Memorization(extraction=ExtractionOptions()), BaseModel()])
    t.validate(module, data, verbose=False)
    found = {name: float(value) for name, value in t.callback_metrics.items()}
    assert result.metrics["mia/reference_auroc"] > 0.85
    for name, value in result.metrics.items():
        if not name.startswith(("time/", "correlation/")):
            assert value == pytest.approx(found[name], abs=2e-5), name


def cells(kind):
    return [c for c in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if c["cell_type"] == kind]


def test_the_notebook_is_kept_without_outputs():
    assert len(cells("code")) + len(cells("markdown")) == 10
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells("code"))


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for cell in cells("code"):
        exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    folder = Path(names["whole"].log_dir)
    assert report_of(folder)["kind"] == "run"
    assert names["table"].index.tolist() == [0, 1, 2, 3, 4]
    assert names["table"]["mia/reference_auroc"].iloc[0] == 0.5
    assert (names["whole"].current_epoch, names["stopped"].current_epoch) == (4, 1)
    states = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith(("same", "changed"))]
    assert states
    assert set(states) == {"same"}


def test_the_configuration_of_ones_own_data_is_what_init_writes():
    assert OWN_DATA.read_text("utf-8") == own_data()
    keys = [line for line in OWN_DATA.read_text("utf-8").splitlines() if line.strip() and not line.startswith("#")]
    values = [line for line in keys if not line.rstrip().endswith(":") and not line.strip().startswith("#")]
    assert [line for line in values if "  # " not in line] == []
    assert max(map(len, keys)) <= 120


@pytest.fixture
def fit(tmp_path, monkeypatch, capsys):
    """`lit-mem fit --config own_data` in an empty folder: (what it printed, the record's lines)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lit-mem"])

    def fitted(*words):
        cli.main(["fit", "--config", "own_data", "--trainer.accelerator", "cpu", *words])
        record = tmp_path / "logs" / "lit_mem" / "version_0" / "memorization.jsonl"
        return capsys.readouterr(), [json.loads(line) for line in record.read_text("utf-8").splitlines()]

    return fitted


def test_ones_own_file_takes_one_option(fit, tmp_path):
    texts = [f"Zebediah{i // 2} took lithium {i * 37 % 91} days and developed rash number {i}." for i in range(60)]
    rows = [{"text": text, "person": f"zz{i // 2}"} for i, text in enumerate(texts)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quick = ["--memorization.suite", "quick", "--memorization.stop", "[mia/strongest_auroc > 0.7]"]
    quick += ["--trainer.max_epochs", "1"]
    said, record = fit("--data.source.train", "mine.jsonl", *quick)
    assert [line["epoch"] for line in record] == [0, 1]
    assert record[0]["members"] + record[0]["heldout"] == 60
    assert record[0]["heldout"] == 30  # half of few rows; whole persons
    assert "'person'" in said.err
    assert "report logs/lit_mem/version_0" in said.err
    assert "Zebediah" not in said.err + said.out


def test_a_preset_and_the_suite_without_prompts_is_one_line_that_says_so(fit, capsys):
    with pytest.raises(SystemExit) as ended:
        fit("--memorization.suite", "quick", "--data.check", "false")
    assert ended.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: memorization.stop")
    assert "extraction/exact_rate" in line
    assert "suite quick" in line


@pytest.mark.slow
def test_the_configuration_of_ones_own_data_runs_as_it_is(fit, tmp_path):
    _, record = fit()
    assert (record[0]["members"], record[0]["heldout"]) == (109, 101)
    assert record[0]["metrics"]["mia/reference_auroc"] == 0.5
    assert record[-1]["metrics"]["mia/strongest_auroc"] > 0.7
    assert record[-1]["epoch"] < yaml.safe_load(OWN_DATA.read_text())["trainer"]["max_epochs"]
    cli.main(["report", "logs/lit_mem/version_0"])
    assert report_of(tmp_path / "logs" / "lit_mem" / "version_0")["kind"] == "run"
