"""The commands that run a trainer: Lightning's own `fit`, `validate` and `test`, with this project's defaults."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from lit_mem import __version__, program
from lit_mem.cli.checkpoint_file import check_checkpoint
from lit_mem.cli.commands import COMMANDS, PURPOSE
from lit_mem.cli.end_of_run import how_to_resume, print_metrics, print_next_steps
from lit_mem.cli.hyper_parameters import hyper_parameters, leaves
from lit_mem.cli.run_config import RunConfig
from lit_mem.errors import CheckpointError, ConfigError, LitMemError
from lit_mem.lightning.auditing import audit_of, measures
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.baseline import Baseline
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.find_checkpoint import find_checkpoint
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.lightning.parser import OneLineParser, readable
from lit_mem.lightning.rules import check_names
from lit_mem.lightning.run_folder import known_folder, release, restrict_run
from lit_mem.lightning.section import BAREBONES, NAME, OF_TEXTS, UNMEASURED, is_default, lists_measures
from lit_mem.lightning.signals import STOPPED_BY, EndOnSigterm, failed_write, stop_code

log = logging.getLogger(__name__)

SPECIAL_CHECKPOINTS: Final = ("best", "last", "hpc", "registry")
"""Values of `--ckpt_path` that are not paths."""

LOGGERS: Final = [
    {
        "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
        "init_args": {"save_dir": "logs", "name": "lit_mem", "default_hp_metric": False},
    },
    {
        "class_path": "lightning.pytorch.loggers.CSVLogger",
        "init_args": {"save_dir": "logs", "name": "lit_mem"},
    },
]
"""Default loggers: TensorBoard and CSV in one folder under `logs/`."""

DESCRIPTION: Final = f"{PURPOSE} Other commands: {', '.join(name for name in COMMANDS if COMMANDS[name].module)}."


class MemorizationCLI(LightningCLI):
    """`fit`, `validate` and `test` of a `CausalLM` on a `TextDataModule`.

    Beyond Lightning's defaults: TensorBoard and CSV logs in one folder under `logs/`, and a full validation
    before training, so that every curve starts at its baseline value.

    Args:
        args: command-line arguments after the program's name; None: `sys.argv`.
        ready: called once everything is built, before the trainer runs.
    """

    def __init__(self, args: Sequence[str] | None = None, ready: Callable[[], None] = lambda: None) -> None:
        self.baseline, self._ready = Baseline(), ready
        words = sys.argv[1:] if args is None else args
        self._first = words[0] if words else ""
        super().__init__(
            CausalLM,
            TextDataModule,
            save_config_callback=RunConfig,
            parser_class=OneLineParser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            trainer_defaults={
                "logger": deepcopy(LOGGERS),
                "num_sanity_val_steps": -1,
                "enable_model_summary": False,  # the module logs in one line what is trained
                "callbacks": [self.baseline, EndOnSigterm(), BaseModel()],
            },
            parser_kwargs={"prog": program.name(), "description": DESCRIPTION, "version": __version__},
            args=args if args is None else list(args),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the section `memorization`, which configures what is measured."""
        parser.callback_keys.append(NAME)
        parser.add_class_arguments(
            Memorization, NAME, fail_untyped=False, instantiate=True, sub_configs=True, skip=set(OF_TEXTS)
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's subcommands without `predict`."""
        commands = LightningCLI.subcommands()
        return {name: skip | {"weights_only", "verbose"} for name, skip in commands.items() if name != "predict"}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        """Only the command given needs its options, unless options before it hide which one that is."""
        if self._needs(subcommand):
            return super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self._subcommand_method_arguments[subcommand] = []
        return self.init_parser(**kwargs)

    def _needs(self, subcommand: str) -> bool:
        return self._first == subcommand or self._first not in self.subcommands()

    def _parse_ckpt_path(self) -> None:
        """Reject a checkpoint that cannot be read, before anything is built.

        Lightning would take hyper-parameters from it here. Our checkpoints hold none, so that configuration and
        command line always define the run.
        """
        given = self.config[self.config.subcommand].get("ckpt_path")
        if given is None or str(given).partition(":")[0] in SPECIAL_CHECKPOINTS or "://" in str(given):
            return
        check_checkpoint(Path(given))

    def before_instantiate_classes(self) -> None:
        """Turn the section off if measures are listed as callbacks or nothing is logged; reject NaN in options."""
        config = self.config[self.subcommand]
        untouched = is_default(config[NAME], self._parser(self.subcommand).get_defaults()[NAME])
        if config.trainer.barebones or (untouched and lists_measures(config.trainer.callbacks)):
            config[NAME].suite = "none"  # measure only what is listed, as in configurations of earlier versions
        for name, value in leaves("", self.config[self.subcommand].as_dict(), lists=True):
            if isinstance(value, float) and math.isnan(value):
                raise ConfigError(f"{name} is nan; expected a number")

    def instantiate_classes(self) -> None:
        """Build everything in the configuration; on failure, raise the constructor's own error, not the parser's."""
        try:
            super().instantiate_classes()
        except (ValueError, TypeError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None and not isinstance(cause, LitMemError | MisconfigurationException):
                cause = cause.__cause__
            if isinstance(cause, LitMemError | MisconfigurationException):
                raise ConfigError(str(cause)) from error
            if isinstance(cause, ValueError | TypeError | ImportError) and "Union subtypes" in str(error):
                raise ConfigError(readable(str(error))) from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Build the trainer and attach the measuring callback; an option that it rejects is a one-line error."""
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise ConfigError(f"trainer: {error}") from error
        for callback in callbacks_of(trainer):
            if isinstance(callback, Memorization):
                callback.attach(trainer)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        self._ready()
        options = self.config_init[subcommand]
        if not measures(self.trainer):
            log.warning(BAREBONES if self.trainer.barebones else UNMEASURED)
        if options.get("ckpt_path") in ("last", "best"):
            path = find_checkpoint(self.trainer, options.ckpt_path)
            check_checkpoint(path)
            log.info("The %s checkpoint is %s.", options.ckpt_path, path)
            options.ckpt_path = str(path)
        try:
            for callback in callbacks_of(self.trainer):
                if isinstance(callback, RunConfig):
                    callback.claim(self.trainer)
            self._run_from(options.ckpt_path, subcommand)
        except BaseException as error:
            restrict_run(self.trainer)
            release(self.trainer)
            code = stop_code(error)
            if code is not None:
                log.warning(
                    "Stopped by %s%s.", STOPPED_BY[code], how_to_resume(self.trainer) if subcommand == "fit" else ""
                )
                sys.exit(code)
            failed = failed_write(error, str(known_folder(self.trainer) or "the run's folder"))
            if failed is not None and not isinstance(error, LitMemError):
                raise failed from error
            raise

    def _run_from(self, checkpoint: str | None, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except CheckpointError as error:
            if checkpoint is None:  # the error concerns `model.adapter_path`, or this model itself
                raise
            raise CheckpointError(f"ckpt_path {checkpoint}: {error}") from error

    def before_fit(self) -> None:
        """Reject a monitor that is never logged; pass the hyper-parameters to the callback that logs them."""
        for callback in callbacks_of(self.trainer):
            monitor = getattr(callback, "monitor", None)
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and monitor not in (None, "epoch", "step"):
                check_names([monitor], self.trainer, type(callback).__name__)
        config = self.parser.dump(self.config, format="json", skip_none=False, skip_link_targets=False)
        self.baseline.hyper_parameters = hyper_parameters(json.loads(config)["fit"])

    def after_fit(self) -> None:
        """Log where the run's files are, and how to make a page of them."""
        print_next_steps(self.trainer)

    def before_validate(self) -> None:
        """Log the verdicts after the metrics."""
        audit_of(self.trainer).log_at_once = False

    def before_test(self) -> None:
        """Likewise."""
        self.before_validate()

    def after_validate(self) -> None:
        """Print every metric, one per line, and a summary."""
        print_metrics(self.trainer, "valid")

    def after_test(self) -> None:
        """Print every metric, one per line, and a summary."""
        print_metrics(self.trainer, "test")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # Otherwise a checkpoint from a URL would be unpickled, which can execute code.
        kwargs = super()._prepare_subcommand_kwargs(subcommand) | {"weights_only": True}
        return kwargs if subcommand == "fit" else kwargs | {"verbose": False}
