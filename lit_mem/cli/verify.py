"""`lit-mem verify report.json`: whether a report and the files that it lists are unchanged."""

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
"""Exit code if a file was changed or is missing."""


def main(words: Sequence[str]) -> None:
    """Print one line per file: same, changed or missing.

    Args:
        words: the command-line arguments after `verify`.

    Raises:
        ConfigError: an option is invalid, or there is no such file.
        DataError: the file is not a report that can be checked.
        SystemExit: with code 3, a file was changed or is missing.
    """
    options = _parser().parse_args(list(words))
    report = Path(options.report)
    if report.is_dir():
        report = report / "report.json"
    if not report.is_file():
        raise ConfigError(f"verify: there is no file {report}; expected a report.json written by lit-mem report")
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
        "Check a run's report against itself and against the files that it lists: the record, the configuration, the "
        "exported weights. Prints one line per file: same, changed or missing. Exit code 0 if all are the same, 3 if "
        "one is not, 2 if the report cannot be read.",
    )
    parser.add_argument("report", metavar="REPORT", help="report.json, or the folder that contains it")
    parser.add_argument("--folder", metavar="DIR", help="folder of the run, if the report is elsewhere")
    parser.add_argument("--adapter", metavar="DIR", help="folder of the adapter, if outside the run's folder")
    return parser
