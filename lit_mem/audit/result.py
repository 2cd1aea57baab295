"""What an audit returns."""

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
    """What an audit found.

    Attributes:
        records: what is known of the scored examples, by example id.
        rules: the limits that it was given.
        scored: how many texts were scored, of how many.
        folder: with the record, for `lit-mem report`; None: nothing was written.
    """

    records: dict[int, Record] = field(default_factory=dict)
    rules: list[Rule] = field(default_factory=list)
    scored: Scored | None = None
    folder: Path | None = None

    @property
    def state(self) -> State | None:
        """By all limits: "within", "undecided", "not measured" or "over"; None without limits."""
        return judged_by(self.rules, self.metrics)[0] if self.rules else None

    @property
    def judged(self) -> list[Judged]:
        """The judgements that the state comes from."""
        return judged_by(self.rules, self.metrics)[1]

    @property
    def verdict(self) -> str:
        """The model against its limits, in a sentence; "" without limits."""
        if not self.rules:
            return ""

        def scored(name: str) -> Scored | None:
            return None if self.scored is None else judged_texts(name, self.scored)

        return verdict_line(*judged_by(self.rules, self.metrics), "", scored)

    def to_table(self, text: bool = False) -> Any:
        """All per-example numbers as a `pyarrow.Table`, a row an example, null where not measured.

        Args:
            text: with a column of the texts.
        """
        return example_table(self.rows, self.records, self.run.epoch, self.run.step, text)

    def to_pandas(self, text: bool = False) -> Any:
        """The same as a `pandas.DataFrame`."""
        return self.to_table(text).to_pandas()

    def to_parquet(self, path: str | os.PathLike[str], text: bool = False) -> None:
        """Write the same to a file; it confirms guesses (SECURITY.md), so give it the access that the texts have."""
        write(Path(path), self.to_table(text))

    def __str__(self) -> str:
        """A table of the main metrics, and what they say."""
        lines = [*table(self.metrics, "audit"), sentence(self.metrics), self.verdict]
        return "\n".join(one for one in lines if one)
