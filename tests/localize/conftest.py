"""Small finished runs to examine."""

import sys
from unittest import mock

import pytest
import yaml

from lit_mem.cli import main as cli

CONFIG = {
    "seed_everything": 0,
    "trainer": {
        "max_epochs": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "callbacks": [
            {"class_path": "lit_mem.callbacks.MembershipInference", "init_args": {"plots": False}},
            {"class_path": "lit_mem.callbacks.Perplexity"},
            {"class_path": "lit_mem.callbacks.Extraction", "init_args": {"n_members": 4, "base": False}},
            {"class_path": "lit_mem.callbacks.MemorizationCheckpoint"},
        ],
    },
    "model": {
        "model_id": "asset:tiny_llama",
        "adapter": {
            "class_path": "lit_mem.adapters.LoRA",
            "init_args": {"rank": 4, "targets": ["q", "down"], "layers": [1, 3]},
        },
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.01}},
        "lr_schedule": "constant",
    },
    "data": {
        "source": {"class_path": "lit_mem.data.sources.CaseReports"},
        "batch_size": 4,
        "train_size": 16,
        "heldout_size": 14,
        "max_length": 48,
        "check": False,
    },
}


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """Runs a fit with a changed configuration and returns the log folder."""

    def fit(**model):
        folder = tmp_path_factory.mktemp("run")
        config = {**CONFIG, "model": {**CONFIG["model"], **model}}
        logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(folder)}}
        config["trainer"] = {**CONFIG["trainer"], "logger": [logger]}
        path = folder / "run.yaml"
        path.write_text(yaml.safe_dump(config))
        words = ["fit", "--config", str(path)]
        with mock.patch.object(sys, "argv", ["train.py", *words]):  # Lightning warns of two command lines
            cli.main()
        return folder / "lightning_logs" / "version_0"

    return fit


@pytest.fixture(scope="session")
def run_dir(fitted):
    return fitted()
