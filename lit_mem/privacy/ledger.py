"""The ledger of spent privacy: a step is written down, and on the disk, before it is taken.

A run that is killed and goes on from an older checkpoint takes steps a second time, and both times tell of the texts.
The checkpoint does not know of the first; the ledger does.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_mem.atomic import naming, sync_names
from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.privacy.accountant import Steps, merged, number_of_steps


class Ledger:
    """A file of lines in JSON: one for each start of a run, with what its steps are, then one for each step.

    A start: `{"start": <id>, "texts": N, "noise_multiplier": σ, "sample_rate": q}`; a step: `{"step": <number>}`,
    counted over all starts. A line that was cut short counts as a step, unless no start stands before it.

    Args:
        path: of the file, which need not exist.

    Attributes:
        id: of the first start; "" before there is one.
        texts: how many texts the steps were drawn from; 0 before there is a start.
        history: the steps.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id, self.texts = "", 0
        self.history: tuple[Steps, ...] = ()
        self._size, self._torn = 0, False
        if path.exists():
            self._read()

    @property
    def steps(self) -> int:
        """How many steps are written down."""
        return number_of_steps(self.history)

    def _read(self) -> None:
        with naming(self.path):
            written = self.path.read_bytes()
        content, self._size = written.decode("utf-8", errors="replace"), len(written)
        self._torn = bool(content) and not content.endswith("\n")
        history: list[Steps] = []
        now: Steps | None = None
        for number, line in enumerate(content.removesuffix("\n").split("\n"), start=1):
            row = _row(line)
            if row is not None and "start" in row:
                try:
                    now = Steps(float(row["noise_multiplier"]), float(row["sample_rate"]), 1)
                    self.id, self.texts = self.id or str(row["start"]), int(row["texts"])
                except (KeyError, TypeError, ValueError) as error:
                    raise self._damaged(number, "a start without its numbers") from error
            elif now is not None:
                history.append(now)
                if row is not None and row.get("step") != len(history):
                    raise self._damaged(number, f"step {row.get('step')}, expected {len(history)}: lines are missing")
            elif row is not None or number > 1:
                raise self._damaged(number, "no start of a run")
        if now is None and content and not self._torn:
            raise self._damaged(1, "no start of a run")
        self.history = merged(history)

    def _damaged(self, number: int, found: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}, line {number}: found {found}; this is no privacy ledger, or a damaged one, and what was "
            "spent cannot be told from it"
        )

    def check(self, texts: int) -> None:
        """Refuse to go on with another number of texts.

        Raises:
            ConfigError: its steps were drawn from other texts.
        """
        if self.steps and self.texts != texts:
            raise ConfigError(
                f"the privacy ledger {self.path} is of {self.texts} training texts, and here are {texts}; a budget is "
                "one training set's: expected the same set, or another model.privacy.ledger"
            )

    def start(self, texts: int, noise_multiplier: float, sample_rate: float) -> None:
        """Say what the steps from here on are.

        Raises:
            CheckpointError: another run is writing to this ledger.
            OSError: it cannot be written.
        """
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        name = secrets.token_hex(8)
        self._write({"start": name, "texts": texts, "noise_multiplier": noise_multiplier, "sample_rate": sample_rate})
        sync_names(self.path.parent)
        self.id, self.texts = self.id or name, texts
        self._now = Steps(noise_multiplier, sample_rate, 1)

    def charge(self) -> None:
        """Write down one step, before it is taken; it is on the disk when this returns.

        Raises:
            CheckpointError: another run is writing to this ledger.
            OSError: it cannot be written.
        """
        self._write({"step": self.steps + 1})
        self.history = merged([*self.history, self._now])

    def _write(self, row: dict[str, Any]) -> None:
        line = ("\n" if self._torn else "") + json.dumps(row) + "\n"
        with naming(self.path), self.path.open("ab") as file:
            if file.tell() != self._size:
                raise CheckpointError(
                    f"another run is writing to the privacy ledger {self.path}; expected one at a time"
                )
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
            self._size, self._torn = file.tell(), False


def _row(line: str) -> dict[str, Any] | None:
    """What a line says; None for one that was cut short."""
    with suppress(ValueError):
        row = json.loads(line)
        if isinstance(row, dict):
            return row
    return None
