"""The guide's code for TRL runs unchanged, with the bundled model instead of one from the Hub."""

import re
from pathlib import Path

import pytest
from datasets import Dataset

from lit_mem import assets
from lit_mem.files import record
from lit_mem.models.hub import load_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "start" / "hugging_face.md"


def test_the_code_for_canaries_runs(member_texts):
    code = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]
    names = {"train": Dataset.from_dict({"text": member_texts}), "tokenizer": load_tokenizer("asset:tiny_llama")}
    exec(code, names)
    assert len(names["train"]) == len(member_texts) + len(names["canaries"].texts) > len(member_texts)
    assert names["callback"].texts.canaries is names["canaries"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_code_for_trl_runs(tmp_path, monkeypatch, member_texts, heldout_texts):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]
    assert '"HuggingFaceTB/SmolLM2-135M"' in code
    monkeypatch.chdir(tmp_path)
    names = {
        "train": Dataset.from_dict({"text": member_texts}),
        "heldout": Dataset.from_dict({"text": heldout_texts}),
    }
    code = code.replace("HuggingFaceTB/SmolLM2-135M", str(assets.path("tiny_llama")))
    exec(code.replace('SFTConfig("out", ', 'SFTConfig("out", use_cpu=True, '), names)
    lines = record.read(tmp_path / "out" / "memorization" / record.FILE)[0]
    assert [line.step for line in lines] == [0, 2, 4, 6]
    best = min(lines[1:], key=lambda line: line.metrics["mia/reference_auroc"])
    assert names["trainer"].state.best_global_step == best.step
