"""The command line: Lightning's own, with this project's defaults and errors of one line."""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import pickle
import sys
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import transformers
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from lit_mem.errors import CheckpointError, ConfigError, LitMemError
from lit_mem.files import atomic, modes
from lit_mem.files.untrusted import panics_raised
from lit_mem.functional.plain_text import printable
from lit_mem.lightning import closing
from lit_mem.lightning.auditing import audit_of, callbacks_of, measures
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.baseline import Baseline
from lit_mem.lightning.console import Console
from lit_mem.lightning.csv_logger import AtomicCSVLogger
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.find_checkpoint import find_checkpoint
from lit_mem.lightning.last_line import audited
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.module import CausalLM
from lit_mem.lightning.parser import OneLineParser, readable
from lit_mem.lightning.rules import check_names
from lit_mem.lightning.run_folder import claim_given_versions, expanded, known_folder, release, restrict_run, run_folder
from lit_mem.lightning.section import BAREBONES, NAME, UNMEASURED, is_default, lists_measures
from lit_mem.lightning.signals import (
    STOPPED_BY,
    EndOnSigterm,
    ended_by_sigterm,
    refused_write,
    stop_code,
    writers_are_heard_once,
)
from lit_mem.lightning.stopped import metric_lines
from lit_mem.lightning.table import EpochTable
from lit_mem.models.checkpoint import own_content
from lit_mem.report.chain import write_origin
from lit_mem.report.history import is_run

log = logging.getLogger(__name__)

SPECIAL_CHECKPOINTS = ("best", "last", "hpc", "registry")
"""What is understood as `--ckpt_path` beside a path."""

COMMANDS: dict[str, str] = {
    "privacy": "lit_mem.cli.privacy",
    "report": "lit_mem.cli.report",
    "sweep": "lit_mem.cli.sweep",
    "where": "lit_mem.cli.localize",
}
"""Subcommands that are no Lightning run, each with the module whose `main` takes the words after it."""

REFUSALS = {"lightning.": "", "torch.optim.": "model.optimizer: ", "torch.utils.data.": "data: "}
"""Modules that check what a user chose, with what to put before their complaints."""


class RunConfig(SaveConfigCallback):
    """Saves the configuration in the run's folder.

    Attributes:
        taken: a folder that the user has named for this run and that holds another; None if there is none.
    """

    taken: Path | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Save it once; have all checkpoints lie in the same folder.

        Raises:
            ConfigError: another run's logs lie in this run's folder.
        """
        self._refuse_taken(trainer.strategy.broadcast(self.taken))
        if trainer.loggers:
            self._save(trainer)
        for keeper in trainer.checkpoint_callbacks if stage == "fit" else ():
            if isinstance(keeper, ModelCheckpoint) and keeper.dirpath is None:
                keeper.dirpath = str(run_folder(trainer) / "checkpoints")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save it where there is no logger too, if this run writes anything else."""
        if known_folder(trainer) is not None:
            self._save(trainer)

    def claim(self, trainer: pl.Trainer) -> None:
        """Claim the folders of versions that the user has set, before any logger opens a file there.

        Raises:
            ConfigError: one holds a run. With several processes `setup` raises it, on all of them.
        """
        self.taken = claim_given_versions(trainer)
        if self.taken is not None:
            trainer.loggers = []  # nothing is to be written there until then
        if trainer.world_size == 1:
            self._refuse_taken(self.taken)

    def _refuse_taken(self, folder: Path | None) -> None:
        if folder is not None:
            raise ConfigError(
                f"trainer.logger: {folder} already holds a run (its {self.config_filename}); expected a version that "
                "is free, or none: each run then gets the next one"
            )

    def _save(self, trainer: pl.Trainer) -> None:
        if self.already_saved:
            return
        path = run_folder(trainer) / self.config_filename
        if trainer.is_global_zero:
            # Whole or not at all: what is cut off a configuration would be defaults when it is used again.
            atomic.write_text(path, self.parser.dump(self.config, skip_none=False))
        self.already_saved = True

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave beside it what the run was started from, which is known by now."""
        self.on_train_start(trainer, pl_module)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, where there is no check before training; private training has a folder by now."""
        if known_folder(trainer) is not None:
            self._save(trainer)
        self._keep_origin(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same, where there is only a validation."""
        if trainer.state.fn == "validate":
            self._keep_origin(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The same in a test."""
        self._keep_origin(trainer)

    def _keep_origin(self, trainer: pl.Trainer) -> None:
        folder = known_folder(trainer)
        if folder is not None and trainer.is_global_zero:
            command = "fit" if trainer.state.fn is None else trainer.state.fn.value
            write_origin(folder, command, trainer.ckpt_path, trainer.global_step)


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
            parser_class=OneLineParser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            seed_everything_default=0,
            trainer_defaults={
                "logger": loggers,
                "num_sanity_val_steps": -1,
                "enable_model_summary": False,  # the module says in one line what is trained
                "callbacks": [self.baseline, EndOnSigterm(), BaseModel()],
            },
            parser_kwargs={
                "description": "Fine-tune a causal language model and watch what it memorizes. Beside the commands "
                "below: sweep (many runs, one table), report (a run or sweep as a page), where (which weights hold "
                "it), privacy (what private runs spent together); each has a --help of its own."
            },
            args=args if args is None else list(args),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What is measured, as one section."""
        parser.add_lightning_class_args(Memorization, NAME)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, without prediction."""
        commands = LightningCLI.subcommands()
        return {name: skip | {"weights_only", "verbose"} for name, skip in commands.items() if name != "predict"}

    def _parse_ckpt_path(self) -> None:
        """Refuse a checkpoint that cannot be read, before anything is built.

        Lightning would take hyper-parameters from it here; ours hold none, so that configuration and command
        line always say what runs.
        """
        given = self.config[self.config.subcommand].get("ckpt_path")
        if given is None or str(given).partition(":")[0] in SPECIAL_CHECKPOINTS or "://" in str(given):
            return
        _check_checkpoint(Path(given))

    def before_instantiate_classes(self) -> None:
        """Measure once, and only where something is logged; reject NaN, which spoils what it touches."""
        config = self.config[self.subcommand]
        untouched = is_default(config[NAME], self._parser(self.subcommand).get_defaults()[NAME])
        if config.trainer.barebones or (untouched and lists_measures(config.trainer.callbacks)):
            config[NAME].suite = "none"  # what is listed is all that there is, as in configurations of earlier versions
        for name, value in leaves("", self.config[self.subcommand].as_dict(), lists=True):
            if isinstance(value, float) and math.isnan(value):
                raise ConfigError(f"{name} is nan; expected a number")

    def instantiate_classes(self) -> None:
        """Build all that the configuration names; what a constructor refused is not lost among what else was tried."""
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
        """Replace the CSV logger by one that writes every row at once, and none by half."""
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (MisconfigurationException, ValueError, TypeError) as error:
            raise ConfigError(f"trainer: {error}") from error
        for callback in callbacks_of(trainer):
            if isinstance(callback, Memorization):
                callback.attach(trainer)
        trainer.loggers = [
            AtomicCSVLogger(expanded(each.save_dir), each.name, each._version, each._prefix, 1)
            if isinstance(each, CSVLogger) else each
            for each in trainer.loggers
        ]  # fmt: skip
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        options = self.config_init[subcommand]
        if not measures(self.trainer):
            log.warning(BAREBONES if self.trainer.barebones else UNMEASURED)
        if options.get("ckpt_path") in ("last", "best"):
            path = find_checkpoint(self.trainer, options.ckpt_path)
            _check_checkpoint(path)
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
                log.warning("Stopped by %s%s.", STOPPED_BY[code], self._how_to_go_on() if subcommand == "fit" else "")
                sys.exit(code)
            refused = refused_write(error, str(known_folder(self.trainer) or "the run's folder"))
            if refused is not None and not isinstance(error, LitMemError):
                raise refused from error
            raise

    def _how_to_go_on(self) -> str:
        keepers = [keeper for keeper in self.trainer.checkpoint_callbacks if isinstance(keeper, ModelCheckpoint)]
        paths = [keeper.last_model_path for keeper in keepers] + [str(self.trainer.ckpt_path or "")]
        path = next((path for path in paths if path and Path(path).exists()), None)
        return f"; the same command with --ckpt_path {path} goes on" if path else " before the first checkpoint"

    def _run_from(self, checkpoint: str | None, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except CheckpointError as error:
            if checkpoint is None:  # it is of `model.adapter_path`, or of this model itself
                raise
            raise CheckpointError(f"ckpt_path {checkpoint}: {error}") from error

    def before_fit(self) -> None:
        """Refuse to watch what nothing logs; hand the hyper-parameters to the callback that logs them."""
        for callback in callbacks_of(self.trainer):
            monitor = getattr(callback, "monitor", None)
            if isinstance(callback, EarlyStopping | ModelCheckpoint) and monitor not in (None, "epoch", "step"):
                check_names([monitor], self.trainer, type(callback).__name__)
        config = self.parser.dump(self.config, format="json", skip_none=False, skip_link_targets=False)
        self.baseline.hyper_parameters = hyper_parameters(json.loads(config)["fit"])

    def before_validate(self) -> None:
        """Have verdicts logged after the metrics, not before."""
        audit_of(self.trainer).log_at_once = False

    def before_test(self) -> None:
        """Likewise."""
        self.before_validate()

    def after_validate(self) -> None:
        """Print every metric, a line each, and what they come to."""
        self._print_figures("valid")

    def after_test(self) -> None:
        """Print every metric, a line each, and what they come to."""
        self._print_figures("test")

    def _print_figures(self, label: str) -> None:
        # Lightning's own table has a column for each loader, and cuts long names.
        callbacks, folder = callbacks_of(self.trainer), known_folder(self.trainer)
        if not self.trainer.is_global_zero:
            return
        figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        columns = next((callback.columns for callback in callbacks if isinstance(callback, EpochTable)), None)
        # Scripts read standard output: it has the metrics and nothing else.
        print("\n".join(metric_lines(figures)), flush=True)  # noqa: T201  (what the command is for)
        for line in closing.table(figures, label, columns):
            log.info("%s", line)
        audit_of(self.trainer).log_verdicts()
        recorded = folder is not None and is_run(folder)
        sentence = closing.sentence(figures)
        lines, conditions = audited(self.trainer)
        dry = getattr(self.trainer, "fast_dev_run", False)
        without = "trainer.fast_dev_run" if dry else "trainer.logger is false"
        steps = closing.next_steps(None if folder is None else str(folder), recorded, conditions, without)
        for line in [*([sentence] if sentence else []), *lines, *steps]:
            log.info("%s", line)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        # A checkpoint from a URL would be unpickled with code in it otherwise.
        kwargs = super()._prepare_subcommand_kwargs(subcommand) | {"weights_only": True}
        return kwargs if subcommand == "fit" else kwargs | {"verbose": False}


def _check_checkpoint(path: Path) -> None:
    """Refuse a checkpoint that cannot be read.

    Raises:
        CheckpointError: this one cannot.
    """
    if not path.exists():
        raise CheckpointError(f"ckpt_path {path} does not exist")
    if path.is_dir():
        if not (path / ".metadata").is_file():
            raise CheckpointError(f"ckpt_path {path} is a folder; expected a .ckpt file or a sharded checkpoint")
        return
    if not path.is_file():
        raise CheckpointError(f"ckpt_path {path} is a pipe or a device; expected a .ckpt file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"ckpt_path {path} is no checkpoint, or one that was cut short")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch writes checksums, and takes what does not match them for weights
        if broken is not None:
            raise zipfile.BadZipFile(f"{broken} is not what was written there")
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"ckpt_path {path} holds pickled objects; expected tensors and plain values only, as reading others "
            "could run code"
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"ckpt_path {path} is damaged: {_first_line(error)}") from error
    try:
        own_content(content)
    except CheckpointError as error:
        raise CheckpointError(f"ckpt_path {path}: {error}") from error


def hyper_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration belongs on TensorBoard's HParams page: flat names, plain values."""
    trainer = {key: config["trainer"].get(key) for key in ("max_epochs", "precision", "accumulate_grad_batches")}
    flat: dict[str, Any] = {}
    for section, part in (("model", config["model"]), ("data", config["data"]), ("trainer", trainer)):
        for name, value in leaves(section, part):
            if value is not None:
                flat[name] = value if isinstance(value, int | float | str) else str(value)
    return flat | {"seed_everything": config.get("seed_everything")}


def leaves(name: str, value: Any, lists: bool = False) -> Iterator[tuple[str, Any]]:
    """The plain values of a configuration with their names, as a user would write them.

    Args:
        name: of the value.
        value: part of a configuration.
        lists: take lists apart too.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(name if key == "init_args" else f"{name}.{key}".removeprefix("."), inner, lists)
    elif lists and isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from leaves(f"{name}[{i}]", inner, lists)
    else:
        yield name.removesuffix(".class_path"), value


def _quieten() -> None:
    """Messages of this package to the console; of the libraries, only what a user can act on."""
    # torchrun sets the first, Slurm the second, Lightning's own launcher only the third.
    named = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    rank = int(next((value for value in named if value), "0"))
    logger = logging.getLogger("lit_mem")
    if not logger.handlers:
        logger.addHandler(Console())
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
    for name in ("utilities.rank_zero", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").addFilter(_worth_saying)
    transformers.utils.logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _worth_saying(record: logging.LogRecord) -> bool:
    """No advertisement, and nothing that `_run_subcommand` says better."""
    unwanted = ("💡 Tip", "TPU available", "Detected KeyboardInterrupt", "Received SIGTERM")
    return not any(text in record.getMessage() for text in unwanted)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    A mistake of the user's is one line on standard error and exit code 2. Ctrl-C and SIGTERM end a run with a line that
    says how to go on from its last checkpoint, and exit code 130 or 143.

    Args:
        args: words of the command line after the program's name; None: `sys.argv`.
    """
    _quieten()
    try:
        with ended_by_sigterm(), writers_are_heard_once(), panics_raised("a tokenizer or another file"):
            modes.mask()  # a mistake in it is found before anything is written
            words = list(sys.argv[1:] if args is None else args)
            if words and words[0] in COMMANDS:
                importlib.import_module(COMMANDS[words[0]]).main(words[1:])
            else:
                MemorizationCLI(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = _mistake(error)
        if line is None or os.environ.get("LIT_MEM_DEBUG"):
            raise
        print(f"error: {printable(line)}", file=sys.stderr)  # noqa: T201  (the one place that complains)
        sys.exit(2)


def _mistake(error: Exception) -> str | None:
    """What to tell the user who can mend it; None for a bug of ours, which keeps its traceback."""
    text = str(error)
    if isinstance(error, LitMemError | MisconfigurationException):
        return text
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return f"out of memory; lower data.batch_size, data.max_length or data.scoring_tokens ({_first_line(error)})"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    if last.line is None or not last.line.startswith("raise "):
        return None  # it crashed; nobody refused anything
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return next((before + text for start, before in REFUSALS.items() if module.startswith(start)), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
