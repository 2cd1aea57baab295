"""The command line: Lightning's own, with this project's defaults and errors of one line."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import transformers
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mem.callbacks.baseline import Baseline
from lit_mem.data.datamodule import TextDataModule
from lit_mem.errors import CheckpointError, ConfigError, LitMemError
from lit_mem.module import CausalLM

SPECIAL_CHECKPOINTS = ("best", "last", "hpc", "registry")
"""What Lightning understands as `--ckpt_path` beside a path."""


class RunConfig(SaveConfigCallback):
    """Saves the configuration beside the logs; without a logger there is no folder of this run to save it in."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save it once.

        Raises:
            ConfigError: another run's logs lie in this run's folder.
        """
        if not trainer.loggers:
            return
        try:
            super().setup(trainer, pl_module, stage)
        except RuntimeError as error:
            raise ConfigError(
                f"the log folder {trainer.log_dir} already holds a run (its config.yaml); "
                "give the loggers another version or none"
            ) from error


class MemorizationCLI(LightningCLI):
    """`fit`, `validate` and `test` of a `CausalLM` on a `TextDataModule`.

    Beyond Lightning's defaults: TensorBoard and CSV logs in one folder under `logs/`, and a whole validation
    before training, so that every curve starts at its baseline.
    """

    def __init__(self, args: Sequence[str] | None = None) -> None:
        loggers = [
            {
                "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                "init_args": {"save_dir": "logs", "name": "lit_mem", "default_hp_metric": False},
            },
            {
                "class_path": "lightning.pytorch.loggers.CSVLogger",
                "init_args": {"save_dir": "logs", "name": "lit_mem"},
            },
        ]
        self.baseline = Baseline()
        super().__init__(
            CausalLM,
            TextDataModule,
            save_config_callback=RunConfig,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            trainer_defaults={"logger": loggers, "num_sanity_val_steps": -1, "callbacks": [self.baseline]},
            parser_kwargs={"description": "Fine-tune a causal language model and watch what it memorizes."},
            args=args if args is None else list(args),
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, without prediction."""
        commands = LightningCLI.subcommands()
        return {name: skip | {"weights_only", "verbose"} for name, skip in commands.items() if name != "predict"}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Nothing is linked: the data module asks the model for its tokenizer."""

    def _parse_ckpt_path(self) -> None:
        """Refuse a checkpoint that cannot be read, before anything is built.

        Lightning would take hyper-parameters from it here; ours hold none, so that configuration and command
        line always say what runs.
        """
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path is None or str(path).startswith(SPECIAL_CHECKPOINTS) or "://" in str(path):
            return
        if not Path(path).exists():
            raise CheckpointError(f"ckpt_path {path} does not exist")
        if Path(path).is_file():
            try:
                torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except Exception as error:  # torch raises many kinds for what is not a checkpoint
                line = str(error).strip().partition("\n")[0][:200]
                raise CheckpointError(f"ckpt_path {path} is not a checkpoint that can be read safely: {line}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Give the CSV logger the folder of the TensorBoard logger, which it would otherwise count past."""
        trainer = super().instantiate_trainer(**kwargs)
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        aligned = []
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger) and boards and logger.name == boards[0].name:
                logger = CSVLogger(boards[0].save_dir, logger.name, boards[0].version, flush_logs_every_n_steps=1)
            aligned.append(logger)
        trainer.loggers = aligned
        return trainer

    def before_fit(self) -> None:
        """Hand the hyper-parameters to the callback that logs them."""
        config = self.parser.dump(self.config, format="json", skip_none=False, skip_link_targets=False)
        self.baseline.hyper_parameters = hyper_parameters(json.loads(config)["fit"])

    def after_validate(self) -> None:
        """Print every figure, a line each."""
        self._print_figures()

    def after_test(self) -> None:
        """Print every figure, a line each."""
        self._print_figures()

    def _print_figures(self) -> None:
        # Lightning's own table has a column for each loader, and cuts long names.
        if self.trainer.is_global_zero:
            figures = self.trainer.callback_metrics
            width = max(map(len, figures), default=0)
            for name in sorted(figures):
                print(f"{name.ljust(width)}  {float(figures[name]):.4f}")  # noqa: T201

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # A checkpoint from a URL would be unpickled with code in it otherwise.
        kwargs = super()._prepare_subcommand_kwargs(subcommand) | {"weights_only": True}
        return kwargs if subcommand == "fit" else kwargs | {"verbose": False}


def hyper_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration belongs on TensorBoard's HParams page: flat names, plain values."""
    trainer = {key: config["trainer"].get(key) for key in ("max_epochs", "precision", "accumulate_grad_batches")}
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if key != "init_args" else prefix, inner)
        elif value is not None:
            flat[prefix.removesuffix(".class_path")] = value if isinstance(value, int | float | str) else str(value)

    for section, part in (("model", config["model"]), ("data", config["data"]), ("trainer", trainer)):
        walk(section, part)
    return flat | {"seed_everything": config.get("seed_everything")}


def _quieten() -> None:
    """Messages of this package to the console; of the libraries, only what a user can act on."""
    rank = int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    logger = logging.getLogger("lit_mem")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    # Texts are encoded before training and lie in memory: worker processes would only slow them down.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    # Calls that Lightning and peft themselves make.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", category=FutureWarning, message="`is_gradient_checkpointing` is deprecated")
    warnings.filterwarnings("ignore", message=".*jsonargparse.*deprecat.*")
    # The CSV logger meets the files that TensorBoard has just put into their common folder.
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    transformers.utils.logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _no_advertisement(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(("💡 Tip", "TPU available"))


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; a mistake of the user's is one line on standard error and exit code 2.

    Args:
        args: words of the command line after the program's name; None: `sys.argv`.
    """
    _quieten()
    try:
        MemorizationCLI(args)
    except (LitMemError, MisconfigurationException) as error:
        if os.environ.get("LIT_MEM_DEBUG"):
            raise
        line = " ".join(str(error).split())
        sys.exit(_complain(line))


def _complain(line: str) -> int:
    print(f"error: {line}", file=sys.stderr)  # noqa: T201  (the one place that speaks to the user directly)
    return 2
