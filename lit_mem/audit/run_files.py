"""What a run outside Lightning leaves in its folder, for the report."""

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
    """Rename the folder of an earlier run to `<folder>_1`, or the next number that is free, so that none is mixed in.

    Raises:
        OSError: it cannot be renamed.
    """
    if (folder / record.FILE).is_file():
        number = next(n for n in count(1) if not folder.with_name(f"{folder.name}_{n}").exists())
        folder.rename(folder.with_name(f"{folder.name}_{number}"))


class RunFiles:
    """The folder of a run; only rank zero writes.

    Args:
        folder: made if it is not there, for its owner alone.

    Raises:
        OSError: it cannot be made.
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
        """Write what is measured.

        Args:
            config: options by section, as the Lightning door has them: `model`, `data`, `memorization`.
            command: "fit" or "audit".
            trust: what the checks of the texts found; None: none were made.
            scored: how many texts are scored.
            facts: finds what the run is of.
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
        """Write what a pass says of each person, where rows share one.

        Raises:
            OSError: it cannot be written.
        """
        write_persons(self.folder, result)

    def examples(self, result: PassResult, records: Mapping[int, Record], text: bool = False) -> Path:
        """Write the per-example numbers of a pass as parquet.

        Args:
            result: of the pass.
            records: what is known of the examples, by example id.
            text: with the texts, which are what the run may not leak.
        """
        run = result.run
        path = self.folder / "examples" / f"{file_name(run)}.parquet"
        write(path, example_table(result.rows, records, run.epoch, run.step, text))
        return path
