"""The Hugging Face integration does not load Lightning."""

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_neither_the_callback_nor_the_audit_loads_lightning():
    script = "import sys, lit_mem, lit_mem.hf, lit_mem.audit.run\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {"lit_mem.hf.callback", "lit_mem.audit.run", "transformers.trainer"} <= set(loaded)
    assert not {"lightning", "torchmetrics"} & {name.partition(".")[0] for name in loaded}
