"""Rebuild a finished run from its log folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch.callbacks import Callback

from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.module import CausalLM
from lit_mem.lightning.parser import OneLineParser
from lit_mem.models.checkpoint import read_content
from lit_mem.report.files import callbacks_of, read_config


@dataclass(frozen=True)
class Run:
    """The module and data of a run, built from its configuration.

    Attributes:
        folder: its log folder.
        config: its configuration, as plain values.
        module: module with the untrained adapter; see `load_weights`.
        data: the run's own texts, with the same split.
    """

    folder: Path
    config: Mapping[str, Any]
    module: CausalLM
    data: TextDataModule

    def checkpoint(self, which: str) -> Path:
        """Path of the checkpoint "best", "last", or the given path.

        Raises:
            CheckpointError: it does not exist.
        """
        if which not in ("best", "last"):
            if not Path(which).is_file():
                raise CheckpointError(f"--checkpoint {which} is not a file; expected best, last or a .ckpt file")
            return Path(which)
        folder = self.folder / "checkpoints"
        path = folder / f"{which}.ckpt"
        if not path.is_file():
            there = ", ".join(sorted(other.name for other in folder.glob("*.ckpt")))
            raise CheckpointError(
                f"{folder} has no {which}.ckpt" + (f" (it has {there})" if there else "")
                + "; expected a run with checkpoints, or --checkpoint with the path of one"
            )  # fmt: skip
        return path

    def checkpoints(self) -> list[Path]:
        """All checkpoints of the run.

        Raises:
            CheckpointError: there is none.
        """
        found = sorted((self.folder / "checkpoints").glob("*.ckpt"))
        if not found:
            raise CheckpointError(f"{self.folder / 'checkpoints'} has no .ckpt file; expected a run with checkpoints")
        return found

    def callback(self, name: str) -> Mapping[str, Any] | None:
        """Options of the run's first callback of a class of this package; None without one."""
        for path, options in callbacks_of(self.config):
            if path.startswith("lit_mem.") and path.endswith(f".{name}"):
                return options
        return None

    def examine(self, callback: Callback, accelerator: str | None = None) -> None:
        """Validate with a callback that examines the model, in the run's precision, on one device.

        Args:
            callback: see `lit_mem.localize.examination.Examination`.
            accelerator: accelerator to use; None: the run's.
        """
        options = self.config.get("trainer") or {}
        trainer = pl.Trainer(
            accelerator=accelerator or options.get("accelerator") or "auto",
            devices=1,
            precision=options.get("precision"),
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=sys.stderr.isatty(),
            enable_model_summary=False,
            inference_mode=False,  # influence needs gradients
        )
        trainer.validate(self.module, datamodule=self.data, verbose=False)


def open_run(folder: str) -> Run:
    """Build a run's module and data from its config.yaml.

    Raises:
        ConfigError: the folder has no such file, or it is not the configuration of a run.
        DataError: it is not valid YAML.
    """
    path = Path(folder, "config.yaml")
    if not path.is_file():
        raise ConfigError(
            f"{folder} has no config.yaml; expected the log folder of a run, such as logs/lit_mem/version_0"
        )
    _, config = read_config(path)
    if not {"model", "data"} <= config.keys():
        raise ConfigError(f"{path} lacks model or data; expected the configuration of a run")
    if "door" in config:
        raise ConfigError(f"{path} is of {config['door']}; expected the log folder of a `fit` of this package's model")
    parser = OneLineParser()
    parser.add_lightning_class_args(CausalLM, "model", subclass_mode=False)
    parser.add_lightning_class_args(TextDataModule, "data", subclass_mode=False)
    try:
        parsed: Namespace = parser.parse_object({key: config[key] for key in ("model", "data")})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    built = parser.instantiate_classes(parsed)
    built.data.check = False  # its findings were reported when the run started
    return Run(Path(folder), config, built.model, built.data)


def load_weights(module: CausalLM, path: Path) -> None:
    """Load a checkpoint's trained weights into a module.

    Raises:
        CheckpointError: it cannot be read, or belongs to another base or adapter.
    """
    content = read_content(path, mmap=True)
    try:
        module.on_load_checkpoint(content)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    module.load_state_dict(content["state_dict"], strict=False)
