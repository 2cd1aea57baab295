"""The core runs where there is no trainer: importing it loads none."""

import subprocess
import sys

import pytest

CORE = [
    "lit_mem.audit",
    "lit_mem.audit.loop",
    "lit_mem.audit.measures",
    "lit_mem.audit.thresholds",
    "lit_mem.attacks",
    "lit_mem.models.building",
    "lit_mem.models.scored",
]
SCRIPT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print("\\n".join(sys.modules))
"""


@pytest.fixture(scope="module")
def loaded():
    done = subprocess.run([sys.executable, "-c", SCRIPT, *CORE], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_no_trainer_is_loaded(loaded):
    assert set(CORE) <= loaded
    assert not {"lightning", "torchmetrics"} & {name.partition(".")[0] for name in loaded}
    assert "transformers.trainer" not in loaded
