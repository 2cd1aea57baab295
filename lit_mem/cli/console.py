"""Console output of the command line: which messages are shown, and one-line user errors."""

from __future__ import annotations

import logging
import os
import traceback
import warnings

import torch
import transformers
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lit_mem.audit.messages import Console
from lit_mem.errors import LitMemError, first_line

_CHECKED_ELSEWHERE = {"lightning.": "", "torch.optim.": "model.optimizer: ", "torch.utils.data.": "data: "}
"""Modules that validate a user's choices, with the prefix for their messages."""


def set_up() -> None:
    """Show lit_mem's messages on the console; from libraries, only those that a user can act on."""
    # torchrun sets the first, Slurm the second, Lightning's own launcher only the third.
    named = (os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"))
    rank = int(next((value for value in named if value), "0"))
    logger = logging.getLogger("lit_mem")
    if not logger.handlers:
        logger.addHandler(Console())
        logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.ERROR)
    # Texts are encoded before training and kept in memory: worker processes would only slow loading down.
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    # Calls made by Lightning and peft themselves.
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", category=FutureWarning, message="`is_gradient_checkpointing` is deprecated")
    warnings.filterwarnings("ignore", message=".*jsonargparse.*deprecat.*")
    # The CSV logger finds the files that TensorBoard has just written to the shared folder.
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
    for name in ("utilities.rank_zero", "trainer.connectors.signal_connector"):
        logging.getLogger(f"lightning.pytorch.{name}").addFilter(_worth_saying)
    transformers.utils.logging.disable_progress_bar()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _worth_saying(record: logging.LogRecord) -> bool:
    """Filter out advertisements, and messages that the command line replaces."""
    unwanted = ("💡 Tip", "TPU available", "Detected KeyboardInterrupt", "Received SIGTERM")
    return not any(text in record.getMessage() for text in unwanted)


def mistake(error: Exception) -> str | None:
    """The message of a user error; None for a bug in lit_mem, which keeps its traceback."""
    text = str(error)
    if isinstance(error, LitMemError | MisconfigurationException):
        return text
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return f"out of memory; lower data.batch_size, data.max_length or data.scoring_tokens ({first_line(error)})"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    if last.line is None or not last.line.startswith("raise "):
        return None  # a crash, not a rejected value
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    module = frame.f_globals.get("__name__", "")
    return next((before + text for start, before in _CHECKED_ELSEWHERE.items() if module.startswith(start)), None)
