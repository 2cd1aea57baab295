"""The examples run offline unchanged, and give the metrics of a Lightning run on the same weights and texts."""

import runpy
from pathlib import Path

import lightning.pytorch as pl
import pytest
from datasets import Dataset, DatasetDict

from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["hf_trainer", "trl_sft"])
def test_an_example_gives_the_numbers_of_a_lightning_run(name, tmp_path, monkeypatch):
    path = EXAMPLES / f"{name}.py"
    monkeypatch.setattr("sys.argv", [path.name, str(tmp_path / "out")])
    made = runpy.run_path(str(path), run_name="__main__")
    trained = made["trainer"]
    trained.evaluate()
    measured = next(one for one in trained.callback_handler.callbacks if hasattr(one, "live")).live.metrics
    assert measured["mia/reference_auroc"] > 0.6
    trained.save_model(str(tmp_path / "adapter"))
    tokenizer = trained.processing_class
    rows = {}
    for split in ("train", "heldout"):
        if name == "trl_sft":
            data = trained.train_dataset if split == "train" else trained.eval_dataset
            kept = [
                {"prompt": row["prompt"], "completion": row["completion"]} for row in made["rows"](split == "heldout")
            ]
            assert len(kept) == len(data)
        else:
            ids = made["rows"](split == "heldout")["input_ids"]
            kept = [{"text": tokenizer.decode(one, skip_special_tokens=True)} for one in ids]
            assert [tokenizer(row["text"])["input_ids"] for row in kept] == list(ids)
        rows[split] = Dataset.from_list(kept)
    module = CausalLM(model_id="asset:tiny_llama", adapter_path=str(tmp_path / "adapter"))
    data = TextDataModule(DatasetDict(rows), add_eos=name == "trl_sft", max_length=128, check=False)
    callbacks = [Memorization(extraction=ExtractionOptions()), BaseModel()]
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    t = pl.Trainer(accelerator="cpu", logger=False, callbacks=callbacks, default_root_dir=tmp_path, **quiet)
    t.validate(module, data, verbose=False)
    theirs = {key: float(value) for key, value in t.callback_metrics.items()}
    for key, value in measured.items():
        if not key.startswith(("time/", "correlation/", "slice/")):
            assert value == pytest.approx(theirs[key], abs=2e-5), key
