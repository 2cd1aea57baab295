"""docs/guides/clusters.md: its commands run as written, and its tables are what is computed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import scaling
from lit_mem.cli.main import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "guides" / "clusters.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    words
    for block in BLOCKS
    for line in block.replace("\\\n", " ").replace("$root", str(ROOT)).splitlines()
    if "train.py" in (words := [Path(w).name if w.endswith("train.py") else w for w in shlex.split(line)])
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_is_proper_shell(block):
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "words", [pytest.param(w, id=w[0], marks=[pytest.mark.slow] if i else []) for i, w in enumerate(COMMANDS)]
)
def test_the_options_of_a_command_are_known(words, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    options = [word for word in words[words.index("train.py") + 1 :] if word not in ("${resume[@]}", "&")]
    with pytest.raises(SystemExit) as stop:
        main([*options, "--print_config"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "num_nodes: 2" in printed
    assert re.search(r"devices: '?8", printed)


def test_both_ways_to_start_several_machines_are_tried():
    assert [words[0] for words in COMMANDS] == ["torchrun", "srun"]


@pytest.fixture(scope="module")
def memory():
    """What each part takes, and the peak of a device."""
    args = scaling.options().parse_args(["--no-check"])
    return scaling.parts(args), scaling.ways(args)


def numbers(row):
    """The columns of the row of a table of the page with this beginning."""
    (line,) = [line for line in TEXT.splitlines() if line.startswith(f"| {row} |")]
    return [float(cell) for cell in line.strip("|").split("|")[1:]]


@pytest.mark.parametrize(
    ("row", "computed"),
    [
        ("bfloat16, one GPU or `ddp`", "bfloat16, one device or ddp"),
        ("the same, the reference a copy", "the same, reference a copy"),
        ("4 bits, one GPU or `ddp`", "4 bits, one device or ddp"),
        ("`sharded` over 2", "sharded over 2"),
        *((f"over {k}", f"sharded over {k}") for k in (4, 8, 16)),
        ("base, bfloat16", "base, bfloat16"),
        ("training, 8 texts of 256 tokens", "training, 2048 tokens"),
        ("the same with `gradient_checkpointing: true`", "training, 2048 tokens, checkpointed"),
        ("scoring, `scoring_tokens: 8192`", "scoring, 8192 tokens"),
        ("extraction, 2 x 4096 tokens of keys and values", "extraction, 2 x 4096 tokens of keys and values"),
    ],
)
def test_memory_is_as_computed(memory, row, computed):
    table = next(table for table in memory if computed in [cells[0] for cells in table.rows])
    expected = [table.row(computed)[model] for model in ("7B", "13B", "70B")]
    assert numbers(row) == pytest.approx(expected, rel=0.02)
