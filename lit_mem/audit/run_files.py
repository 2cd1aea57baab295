"""Files that a run outside Lightning writes to its folder, for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

from lit_mem.audit.example_file import example_table, file_name, write
from lit_mem.audit.loop import PassResult
from lit_mem.audit.person_file import write_persons
from lit_mem.audit.setting import write_config
from lit_mem.data.checks import TrustReport
from lit_mem.files import atomic, modes, origin, record
from lit_mem.files.facts import Facts, write_facts
from lit_mem.functional.planning import Scored
from lit_mem.types import Record


def put_aside(folder: Path) -> None:
    """Rename the folder of an earlier run to `<folder>_<n>` with the first free number, so that runs are not mixed.

    Raises:
        OSError: it cannot be renamed.
    """
    if (folder / record.FILE).is_file():
        number = next(n for n in count(1) if not folder.with_name(f"{folder.name}_{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}_{number}"))


class RunFiles:
    """The folder of a run; only rank zero writes.

    Args:
        folder: created if missing, readable by its owner only.

    Raises:
        OSError: it cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        with atomic.naming(folder):
            modes.make_folder(folder)
        modes.restrict(folder)
        self.folder = folder

    def describe(
        self,
        config: Mapping[str, Any],
        command: str,
        trust: TrustReport | None,
        scored: Scored | None,
        facts: Callable[[], Facts],
    ) -> None:
        """Write the configuration, origin, facts and data checks of the run.

        Args:
            config: options by section, as in a Lightning configuration: `model`, `data`, `memorization`.
            command: "fit" or "audit".
            trust: results of the data checks; None if none were made.
            scored: number of texts scored.
            facts: collects the provenance of the run.
        """
        write_config(self.folder, config)
        origin.write_origin(self.folder, command, None, 0)
        write_facts(self.folder, facts)
        if trust is not None:
            atomic.write_text(self.folder / origin.CHECKS, trust.to_json(None if scored is None else scored._asdict()))

    def add(self, line: record.Line) -> None:
        """Append a pass to the record.

        Raises:
            OSError: it cannot be written.
        """
        record.append(self.folder / record.FILE, line)

    def persons(self, result: PassResult) -> None:
        """Write the per-person results of a pass, if rows share persons.

        Raises:
            OSError: it cannot be written.
        """
        write_persons(self.folder, result)

    def examples(self, result: PassResult, records: Mapping[int, Record], text: bool = False) -> Path:
        """Write the per-example scores of a pass as parquet.

        Args:
            result: result of the pass.
            records: metadata of the examples, by example id.
            text: include the texts, which are the sensitive data of the run.
        """
        run = result.run
        path = self.folder / "examples" / f"{file_name(run)}.parquet"
        write(path, example_table(result.rows, records, run.epoch, run.step, text))
        return path
