"""Files of a run in `output_dir`, their permissions, and no text in them."""

import json
import re

import pyarrow.parquet as pq
import pytest

from lit_mem.cli.report import main as report
from tests.hf.test_trainers_texts import rows_of


def pieces(texts):
    """Runs of 5 words, by which a leak could be recognized."""
    found = set()
    for text in texts:
        words = re.findall(r"\w+", text)
        found |= {" ".join(words[i : i + 5]) for i in range(0, len(words) - 4, 3)}
    return found


@pytest.mark.slow
def test_the_record_of_a_run(sft, callback, member_texts, heldout_texts, capfd, tmp_path):
    rows = [rows_of("pair", texts) for texts in (member_texts, heldout_texts)]
    made = sft(
        *rows, callback(suite="standard", check=True, examples=True, stop="mia/reference_auroc > 0.99"), max_length=128
    )
    made.train()
    folder = tmp_path / "out" / "memorization"
    report([str(folder.parent)])
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == [
        "annex.md", "checks.json", "config.yaml", "examples/epoch_0001_step_000004.parquet", "examples/start.parquet",
        "facts.json", "memorization.jsonl", "report.html", "report.json", "run.json",
    ]  # fmt: skip
    assert {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in [folder, folder / "examples"]} == {"0o700"}
    table = pq.read_table(folder / "examples" / "epoch_0001_step_000004.parquet")
    assert table.num_rows == 28
    assert "text" not in table.column_names
    found = json.loads((folder / "report.json").read_text())
    assert [one["epoch"] for one in found["validations"]] == [0, 1]
    assert found["examples"] is not None
    out = capfd.readouterr()
    console = re.sub(r"\s+", " ", " ".join(re.findall(r"\w+", out.out + out.err)))
    files = [path for path in folder.rglob("*") if path.is_file()]
    written = {path: " ".join(re.findall(r"\w+", path.read_bytes().decode("utf-8", "replace"))) for path in files}
    for piece in pieces([*member_texts, *heldout_texts]):
        assert piece not in console
        assert not [path for path, content in written.items() if piece in content]


def test_the_folder_and_the_reference_can_be_chosen(trainer, callback, tmp_path):
    folder = tmp_path / "elsewhere"
    trainer(callback(folder=folder, reference=None), max_steps=1).train()
    assert (folder / "memorization.jsonl").is_file()
    assert json.loads((folder / "config.yaml").read_text())["model"]["reference"]["kind"] == "none"
    assert "mia/reference_auroc" not in (folder / "memorization.jsonl").read_text()
    assert not (tmp_path / "out" / "memorization").exists()
