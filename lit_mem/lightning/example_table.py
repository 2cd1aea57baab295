"""Every per-example score of a run, as files for later analysis."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import lightning.pytorch as pl

from lit_mem.audit.example_file import example_table, file_name, write
from lit_mem.audit.gather import Gathered
from lit_mem.audit.measure import Pass, Result
from lit_mem.audit.measures.every_nth import EveryNth
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable
from lit_mem.errors import ConfigError, check_range
from lit_mem.lightning.measure_callback import Measure
from lit_mem.lightning.run_folder import run_folder
from lit_mem.types import Batch, Record, TokenScores

log = logging.getLogger(__name__)


class _Pass(NamedTuple):
    """Data of one pass to write."""

    name: str
    epoch: int
    step: int
    rows: ScoreTable
    records: dict[int, Record]


class PerExampleTable(EveryNth, Measure):
    """Writes one parquet file per validation, one row per example, for custom analyses.

    `start.parquet` is the validation before training (if it runs over all batches), followed by files such as
    `epoch_0003_step_000120.parquet`; `validate.parquet` and `test.parquet` are those of a run without training. Files
    are written atomically. A dry run (`fast_dev_run`) writes none, nor does a run with neither a folder nor a logger.

    Columns: example_id (int64), origin (of the example: "train.jsonl:17"), set ("member" or "heldout", which in a test
    is the test set), epoch (from 1; 0 before training), step (int64, training steps so far), duplicates (int64, number
    of other members with the same text), with `text` the text as it was scored, and every per-example score of the
    measures, by name: `perplexity`, `mia/reference`, `extraction/ngram_rate`. Values not measured, or not known, are
    null.

    The files can confirm guesses: `perplexity_base`, and sums such as log(perplexity) + `mia/reference`, can be
    computed by anyone with the text and the public base model, and each identifies one row. Protect them like the
    texts.

    Args:
        folder: folder of the files; None: `examples` in the run's folder.
        text: write the texts too. They are the sensitive data of the run: restrict access to the folder.
        every_n_validations: write only every n-th validation of a fit (and the one before training).
    """

    def __init__(self, folder: str | None = None, text: bool = False, every_n_validations: int = 1) -> None:
        check_range("PerExampleTable.every_n_validations", every_n_validations, at_least=1)
        self.folder, self.text, self.every_n_validations = folder, text, every_n_validations
        self._records: Gathered[int, Record] = Gathered()
        self._pass: _Pass | None = None
        self._target: Path | None = None

    @property
    def state_key(self) -> str:
        """State key by folder, as several tables may write to several folders."""
        return f"{type(self).__qualname__}{dict(folder=self.folder)!r}"

    reads = ("",)

    def names(self) -> list[str]:
        """None."""
        return []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Determine the folder; reset the count of validations for a new run.

        Raises:
            ConfigError: texts are to be written, but there is neither a folder nor a logger.
        """
        super().setup(trainer, pl_module, stage)
        self._target = None
        if stage == "fit" and trainer.global_step == 0:
            self.count_anew()
        if self._nowhere(trainer):
            if self.text:
                raise ConfigError("PerExampleTable.folder is not set, and no logger has a folder; set one of them")
            log.info("No table of examples is written: there is no logger, and PerExampleTable.folder is not set.")
        elif trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        elif self.folder is not None:
            self._target = Path(self.folder)
        else:
            self._target = run_folder(trainer) / "examples"

    def _nowhere(self, trainer: pl.Trainer) -> bool:
        return self.folder is None and not trainer.loggers

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass."""
        self._records.reset()
        self._pass = None

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Collect metadata of the examples.

        Raises:
            ConfigError: texts are to be written, but the batches have none.
        """
        if "records" not in batch:
            if self.text:
                raise ConfigError("PerExampleTable.text is true, but the batches carry no `records`, so no texts")
            return
        for example_id, record in zip(batch["example_id"].tolist(), batch["records"], strict=True):
            text = record.text if self.text else ""  # gathered only if they are written
            self._records[example_id] = Record(text, record.origin, duplicates=record.duplicates)

    def compute(self, run: Pass) -> Result:
        """Collect the rows on every rank; they are written after the pass has been logged."""
        name = self._name(run)
        if name is not None:
            self._pass = _Pass(name, run.epoch, run.step, run.rows, dict(self._records.compute()))
        return Result()

    def _name(self, run: Pass) -> str | None:
        """File name of this pass; None if it is not written."""
        if self._target is None:
            return None
        if run.checking:  # a resumed run may run the check again, in mid training
            return file_name(run) if run.complete and not run.step else None
        return file_name(run) if self.is_due(run) else None

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the file, after logging, so that a failure does not lose the logged metrics.

        Raises:
            ConfigError: the file cannot be written; on every rank, so that none hangs.
        """
        super().on_validation_end(trainer, pl_module)
        if self._pass is None:
            return
        problem = self._write(trainer, self._pass) if trainer.is_global_zero else None
        self._pass = None
        problem = trainer.strategy.broadcast(problem)
        if problem is not None:
            raise ConfigError(problem)

    def _write(self, trainer: pl.Trainer, this: _Pass) -> str | None:
        """Write the file; return an error message, or None."""
        folder = self._target
        assert folder is not None
        path = folder / f"{this.name}.parquet"
        try:
            write(path, example_table(this.rows, this.records, this.epoch, this.step, self.text))
        except OSError as error:
            reason = error.strerror or str(error)
            return f"PerExampleTable.folder: {path} cannot be written ({reason}); set it to a writable folder"
        return None
