"""The privacy ledger: every step is recorded on disk before it is taken.

A run that is killed and resumed from an older checkpoint takes some steps twice, and both reveal information about the
texts. The checkpoint does not contain the first ones; the ledger does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.files import modes
from lit_mem.files.atomic import naming, sync_names
from lit_mem.privacy.accountant import Steps, merged, number_of_steps
from lit_mem.privacy.ledger_lines import Start, link, new_id, row_of, start_of

LEDGER: Final = "privacy.jsonl"
"""Its name in a run's folder and beside an exported adapter."""


class Ledger:
    """A JSON lines file: one line per start of a run, with the parameters of its steps, then one per step.

    A start: `{"start": <id>, "texts": N, "noise_multiplier": σ, "sample_rate": q, "corpus": <digest>}`, with
    `"taken": n` if n of its steps are copied from another ledger; a step: `{"step": <number>}`, counted over all
    starts. Each line ends with `"chain"`, the SHA-256 of the previous hash and its own content. A truncated line counts
    as a step, unless there is no start before it.

    Args:
        path: path of the file, which may not exist yet.

    Attributes:
        id: id of the first start; "" if there is none.
        starts: starts in file order.
        chain: hash of the last line, "" for an empty ledger.
        unchained: number of the last line without a hash, written by an earlier version; 0 if all have one.

    Raises:
        CheckpointError: a line was changed, removed, added or moved, or is invalid; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.starts: list[Start] = []
        self.chain, self.unchained = "", 0
        self._links: set[str] = set()
        self._size, self._torn = 0, False
        if path.exists():
            self._read()

    @property
    def id(self) -> str:
        """Id of the first start; "" if there is none."""
        return self.starts[0].id if self.starts else ""

    @property
    def history(self) -> tuple[Steps, ...]:
        """The steps, in file order."""
        return merged(start.steps for start in self.starts)

    @property
    def steps(self) -> int:
        """Number of recorded steps."""
        return number_of_steps(start.steps for start in self.starts)

    @property
    def texts(self) -> int:
        """Number of texts that the last steps were drawn from; 0 without a start."""
        return self.starts[-1].texts if self.starts else 0

    @property
    def unaccounted(self) -> bool:
        """Whether a start began from weights without a ledger of their training."""
        return any(start.unaccounted for start in self.starts)

    def holds(self, chain: str) -> bool:
        """Whether a line has this hash, so that everything up to it is unchanged."""
        return chain in self._links

    def _read(self) -> None:
        with naming(self.path):
            content = self.path.read_bytes()
        self._size = len(content)
        if not content:
            return
        self._torn = not content.endswith(b"\n")
        for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
            row = row_of(line)
            self._follow(number, line, row)
            if row is not None and "start" in row:
                try:
                    self.starts.append(start_of(row))
                except (KeyError, TypeError, ValueError, OverflowError) as error:
                    raise self._damaged(number, "a start without its numbers") from error
            elif self.starts:
                self._count()
                if row is not None and row.get("step") != self.steps:
                    raise self._damaged(number, f"step {row.get('step')}, expected {self.steps}: lines are missing")
            elif row is not None or number > 1:
                raise self._damaged(number, "no start of a run")
        if not self.starts and not self._torn:
            raise self._damaged(1, "no start of a run")

    def _follow(self, number: int, line: bytes, row: dict[str, Any] | None) -> None:
        """Verify a line's hash; a line without one, truncated or old, is included in the next line's."""
        given = None if row is None else row.pop("chain", None)
        if given is None and row is not None and "taken" in row:  # no version wrote these without a hash
            raise self._damaged(number, "a line without its hash (chain)")
        if row is None or (given is None and not self._links):
            self.unchained = self.unchained if row is None else number
            self.chain = link(self.chain, b"without a hash: " + line)
            return
        if given is None:
            raise self._damaged(number, "a line without its hash (chain)")
        self.chain = link(self.chain, json.dumps(row).encode())
        if given != self.chain:
            raise self._damaged(
                number, "another hash (chain) than that of its content and the previous lines: a line was changed, "
                "removed, added or moved"
            )  # fmt: skip
        self._links.add(self.chain)

    def _count(self) -> None:
        last = self.starts[-1]
        self.starts[-1] = last._replace(steps=last.steps._replace(number=last.steps.number + 1))

    def _damaged(self, number: int, found: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}, line {number}: found {found}; the file is not a privacy ledger or is damaged, so the spent "
            "budget is unknown"
        )

    def check(self, texts: int) -> None:
        """Reject a different number of texts.

        Raises:
            ConfigError: its own steps were drawn from another number of texts.
        """
        own = [start.texts for start in self.starts if not start.copied]
        if self.steps and own and own[-1] != texts:
            raise ConfigError(
                f"the privacy ledger {self.path} is for {own[-1]} training texts, but there are {texts}; a budget "
                "belongs "
                "to one training set: expected the same set, or another model.privacy.ledger"
            )

    def start(
        self, texts: int, noise_multiplier: float, sample_rate: float, corpus: str = "", unaccounted: bool = False
    ) -> None:
        """Record a start with the parameters of its steps.

        Raises:
            CheckpointError: another run is writing to this ledger.
            OSError: it cannot be written.
        """
        self._begin(Start(new_id(), texts, Steps(noise_multiplier, sample_rate, 0), corpus, unaccounted))

    def copy(self, starts: Iterable[Start]) -> None:
        """Record steps taken earlier, one line per start.

        Raises:
            CheckpointError: another run is writing to this ledger.
            OSError: it cannot be written.
        """
        for start in starts:
            self._begin(start._replace(copied=True))

    def _begin(self, start: Start) -> None:
        with naming(self.path):
            modes.make_folder(self.path.parent)
            modes.make_file(self.path)
        noise, rate, number = start.steps
        row = {"start": start.id, "texts": start.texts, "noise_multiplier": noise, "sample_rate": rate}
        row |= {"corpus": start.corpus} if start.corpus else {}
        row |= {"unaccounted": True} if start.unaccounted else {}
        self._write(row | ({"taken": number} if start.copied else {}))
        sync_names(self.path.parent)
        self.starts.append(start)

    def charge(self) -> None:
        """Record one step, before it is taken; it is on disk when this returns.

        Raises:
            CheckpointError: another run is writing to this ledger.
            OSError: it cannot be written.
        """
        self._write({"step": self.steps + 1})
        self._count()

    def _write(self, row: dict[str, Any]) -> None:
        content = json.dumps(row)
        chain = link(self.chain, content.encode())
        line = ("\n" if self._torn else "") + json.dumps(row | {"chain": chain}) + "\n"
        with naming(self.path), self.path.open("ab") as file:
            if file.tell() != self._size:
                raise CheckpointError(
                    f"another run is writing to the privacy ledger {self.path}; expected one at a time"
                )
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
            self._size, self._torn = file.tell(), False
        self.chain = chain
        self._links.add(chain)
