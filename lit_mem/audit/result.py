"""The result of an audit."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_mem.audit.closing import sentence, table
from lit_mem.audit.example_file import example_table, write
from lit_mem.audit.judging import Judged, Rule, State, judged_by, judged_texts, verdict_line
from lit_mem.audit.loop import PassResult
from lit_mem.functional.planning import Scored
from lit_mem.types import Record


@dataclass
class AuditResult(PassResult):
    """The result of an audit.

    Attributes:
        records: metadata of the scored examples, by example id.
        rules: the limits passed to the audit.
        scored: number of texts scored, and of those available.
        folder: folder with the record, for `lit-mem report`; None if nothing was written.
    """

    records: dict[int, Record] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    scored: Scored | None = None
    folder: Path | None = None

    @property
    def state(self) -> State | None:
        """State by all limits: "within", "undecided", "not measured" or "over"; None without limits."""
        return judged_by(self.rules, self.metrics)[0] if self.rules else None

    @property
    def judged(self) -> list[Judged]:
        """The judgements that determine the state."""
        return judged_by(self.rules, self.metrics)[1]

    @property
    def verdict(self) -> str:
        """A sentence that judges the model against its limits; "" without limits."""
        if not self.rules:
            return ""

        def scored(name: str) -> Scored | None:
            return None if self.scored is None else judged_texts(name, self.scored)

        return verdict_line(*judged_by(self.rules, self.metrics), "", scored)

    def to_table(self, text: bool = False) -> Any:
        """All per-example scores as a `pyarrow.Table`, one row per example, null where not measured.

        Args:
            text: include a column of the texts.
        """
        return example_table(self.rows, self.records, self.run.epoch, self.run.step, text)

    def to_pandas(self, text: bool = False) -> Any:
        """The same as a `pandas.DataFrame`."""
        return self.to_table(text).to_pandas()

    def to_parquet(self, path: str | os.PathLike[str], text: bool = False) -> None:
        """Write the same to a file; it can confirm guesses (SECURITY.md), so protect it like the texts."""
        write(Path(path), self.to_table(text))

    def __str__(self) -> str:
        """A table of the main metrics, and a summary."""
        lines = [*table(self.metrics, "audit"), sentence(self.metrics), self.verdict]
        return "\n".join(one for one in lines if one)
