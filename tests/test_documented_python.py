"""Every block of Python in the pages runs, with what ships in place of what a reader has."""

import json
import re
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch.utils.data import DataLoader

from lit_mem import assets
from lit_mem.attacks import Attack
from lit_mem.models.hub import load_tokenizer
from lit_mem.types import TokenScores

DOCS = Path(__file__).parent.parent / "docs"
RUN_ELSEWHERE = {"start/hugging_face.md": 2}  # by tests/hf/test_documented_code.py
RUN_HERE = {"start/lightning.md": 2, "start/finished_model.md": 1, "reference/record.md": 1, "guides/adding.md": 1}


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def member_texts():
    return lines("train", 16)


@pytest.fixture(scope="module")
def heldout_texts():
    return lines("heldout", 12)


def lines(split, n):
    path = assets.path("case_reports") / f"{split}.jsonl"
    return [json.loads(line)["text"] for line in path.read_text().splitlines()[:n]]


def test_all_are_run():
    found = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    assert {page: len(blocks(page)) for page in found if blocks(page)} == RUN_HERE | RUN_ELSEWHERE


@pytest.mark.slow
def test_lightning_in_python(tmp_path, monkeypatch, member_texts):
    monkeypatch.chdir(tmp_path)
    rows = [json.dumps({"text": text, "patient": i}) for i, text in enumerate(member_texts)]
    Path("notes.jsonl").write_text("\n".join(rows))
    code = blocks("start/lightning.md")[0]
    assert "HuggingFaceTB/SmolLM2-135M" in code
    code = code.replace("HuggingFaceTB/SmolLM2-135M", "asset:tiny_llama").replace("max_epochs=5", "max_epochs=1")
    names = {}
    exec(code.replace("pl.Trainer(", "pl.Trainer(accelerator='cpu', logger=False, "), names)
    assert "mia/strongest_auroc" in names["trainer"].callback_metrics


@pytest.mark.slow
def test_an_own_module(tmp_path, monkeypatch, member_texts, heldout_texts):
    from transformers import AutoModelForCausalLM

    from lit_mem import Memorization

    monkeypatch.chdir(tmp_path)
    tokenizer = load_tokenizer("asset:tiny_llama")

    class MyModule(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = AutoModelForCausalLM.from_pretrained(assets.path("tiny_llama")).train()

        def training_step(self, texts, _):
            ids = tokenizer(texts, return_tensors="pt")["input_ids"]
            return self.model(input_ids=ids, labels=ids).loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-4)

    names = {
        "Memorization": Memorization, "pl": pl, "MyModule": MyModule, "tokenizer": tokenizer,
        "train_texts": member_texts, "other_texts": heldout_texts,
        "my_loader": DataLoader(member_texts[:4], batch_size=1),
    }  # fmt: skip
    code = blocks("start/lightning.md")[1].replace("max_epochs=5", "max_epochs=1")
    exec(code.replace("pl.Trainer(", "pl.Trainer(accelerator='cpu', logger=False, "), names)
    assert names["memorization"] is not None


def test_an_audit_and_its_record(tmp_path, monkeypatch, capsys, member_texts, heldout_texts):
    from lit_mem.models.base_models import load_base

    monkeypatch.chdir(tmp_path)
    names = {
        "model": load_base("asset:tiny_llama"), "tokenizer": load_tokenizer("asset:tiny_llama"),
        "members": member_texts, "heldout": heldout_texts,
    }  # fmt: skip
    exec(blocks("start/finished_model.md")[0], names)
    assert names["result"].state in ("within", "undecided", "not measured", "over")
    assert len(names["frame"]) == len(member_texts) + len(heldout_texts)
    capsys.readouterr()
    (record,) = tmp_path.rglob("memorization.jsonl")
    read = {"path": record}
    exec(blocks("reference/record.md")[0], read)
    assert [line.metrics["val/perplexity"] for line in read["lines"]] == [names["result"].metrics["val/perplexity"]]


def test_the_attack_of_the_guide(tmp_path, monkeypatch):
    code = blocks("guides/adding.md")[0]
    (tmp_path / "peaks.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    (snippet,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "guides/adding.md").read_text(), re.MULTILINE | re.DOTALL)
    from lit_mem.lightning.parser import OneLineParser

    parser = OneLineParser()
    parser.add_lightning_class_args(pl.Trainer, "trainer")
    parsed = parser.parse_string(yaml.safe_dump({"trainer": {"callbacks": yaml.safe_load(snippet)}}))
    (callback,) = parser.instantiate_classes(parsed).trainer.callbacks
    peaks = callback.attacks["peaks"]
    assert isinstance(peaks, Attack)
    logprob = torch.tensor([[0.0, -1.0, -3.0, -2.0, -9.0], [0.0, -4.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[False, True, True, True, True], [False, True, False, False, False], [False] * 5])
    scores = TokenScores(logprob, torch.zeros_like(mask), mask, torch.arange(3), torch.tensor([True, False, True]))
    assert peaks(scores).tolist() == [-2.0, -4.0, 0.0]  # of the three highest; of the only one; without a token
    sys.modules.pop("peaks", None)
