"""Figures as a CSV file that has whole rows only, whatever ends the run."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from lit_mem.files import atomic


class AtomicCSVLogger(CSVLogger):
    """Lightning's CSV logger, but for how the file is written.

    Where a figure is new, Lightning empties `metrics.csv` and writes it again: a run that is killed there, or finds no
    room on the disk, loses every row before. Here the new file takes over in one step, and rows that could not be
    added whole are taken back.
    """

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """What writes the file; made when it is first asked for."""
        if self._experiment is None:
            self._experiment = _Writer(log_dir=self.log_dir)
        return cast("ExperimentWriter", self._experiment)


class _Writer(ExperimentWriter):
    """Writes `metrics.csv` and `hparams.yaml` in a folder."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self._path = Path(self.metrics_file_path)
        self._length = 0  # of the file, in bytes, as far as it is whole

    def save(self) -> None:
        """Add what was logged since."""
        if not self.metrics:
            return
        keys = sorted({key for row in self.metrics for key in row}.union(self.metrics_keys))
        if keys != self.metrics_keys or not self._path.is_file():
            whole = _lines([dict(zip(keys, keys, strict=True)), *self._rows(), *self.metrics], keys)
            atomic.write_text(self._path, whole)
            length = len(whole.encode())
        else:
            length = self._add(_lines(self.metrics, keys).encode())
        # In one go: an interruption between the two would write rows twice, or not at all.
        self.metrics_keys, self._length, self.metrics = keys, length, []

    def _rows(self) -> list[dict[str, Any]]:
        whole = self._path.read_bytes()[: self._length] if self._path.is_file() else b""
        return list(csv.DictReader(io.StringIO(whole.decode(), newline="")))

    def _add(self, data: bytes) -> int:
        """Write at the end of what is whole, in one piece; returns the new length."""
        with atomic.naming(self._path), self._path.open("r+b", buffering=0) as file:
            file.seek(self._length)
            try:
                done = 0
                while done < len(data):
                    done += file.write(data[done:])
            except BaseException:
                file.truncate(self._length)
                raise
        return self._length + len(data)

    def log_hparams(self, params: dict[str, Any]) -> None:
        """Record hyper-parameters."""
        self.hparams.update(params)
        with atomic.whole(Path(self.log_dir, self.NAME_HPARAMS_FILE)) as part:
            save_hparams_to_yaml(part, self.hparams)


def _lines(rows: Iterable[Mapping[str, Any]], keys: list[str]) -> str:
    text = io.StringIO(newline="")
    csv.DictWriter(text, keys).writerows(rows)
    return text.getvalue()
