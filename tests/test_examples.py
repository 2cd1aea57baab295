"""Each example runs offline unchanged, is short, and gives the metrics of a Lightning run."""

import runpy
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from lit_mem.audit.suite import ExtractionOptions
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, tmp_path, monkeypatch):
    """The variables of an example, run as by a user, in a separate folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [name])
    return runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_under_forty_lines(path):
    assert len(path.read_text().splitlines()) < 40


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_audit_of_a_finished_model(tmp_path, monkeypatch, trainer, capsys):
    made = run("audit_finished_model.py", tmp_path, monkeypatch)
    result, texts = made["result"], made["texts"]
    assert result.state == "over"
    assert (result.folder / "memorization.jsonl").is_file()
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
