"""`lit-mem verify report.json`: whether a report, and the files that it names, are what they were."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lit_mem.cli.plain_parser import PlainParser
from lit_mem.errors import ConfigError
from lit_mem.functional.plain_text import printable
from lit_mem.report.verify import verify

DIFFERENT: Final = 3
"""Exit code where a file was changed or is missing."""


def main(words: Sequence[str]) -> None:
    """Print a line for each file: same, changed or missing.

    Args:
        words: of the command line after `verify`.

    Raises:
        ConfigError: an option is wrong, or there is no such file.
        DataError: the file is no report that can be checked.
        SystemExit: with code 3, a file was changed or is missing.
    """
    options = _parser().parse_args(list(words))
    report = Path(options.report)
    if report.is_dir():
        report = report / "report.json"
    if not report.is_file():
        raise ConfigError(f"verify: there is no file {report}; expected report.json as lit-mem report writes it")
    folders = {"folder": options.folder, "adapter": options.adapter}
    for name, folder in folders.items():
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(f"--{name}: there is no folder {folder}")
    found = verify(report, *(None if folder is None else Path(folder) for folder in folders.values()))
    for one in found:
        note = f" ({one.note})" if one.note else ""
        print(f"{one.state:<8}{printable(one.path)}{note}")  # noqa: T201  (what the command is for)
    if any(one.state != "same" for one in found):
        sys.exit(DIFFERENT)


def _parser() -> PlainParser:
    parser = PlainParser(
        "verify",
        "Check a report of a run against itself and against the files that it names: the record, the "
        "configuration, the exported weights. Prints a line a file: same, changed or missing. Exit code 0 if all are "
        "the same, 3 if one is not, 2 if the report cannot be read.",
    )
    parser.add_argument("report", metavar="REPORT", help="report.json, or the folder that it lies in")
    parser.add_argument("--folder", metavar="DIR", help="folder of the run, if the report lies elsewhere")
    parser.add_argument("--adapter", metavar="DIR", help="folder of the audited or named adapter, if outside of it")
    return parser
