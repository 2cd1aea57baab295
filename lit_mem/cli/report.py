"""`lit-mem report DIR`: a run or a sweep as one page, and as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from lit_mem import program
from lit_mem.audit.thresholds import meaning
from lit_mem.errors import ConfigError, DataError
from lit_mem.files import atomic, modes
from lit_mem.files.record import FILE, IN_OUTPUT_DIR
from lit_mem.functional.numbers import as_json
from lit_mem.functional.plain_text import printable
from lit_mem.lightning.parser import OneLineParser
from lit_mem.report.gate import conditions
from lit_mem.report.history import METRICS, is_run

FAILED: Final = 3
"""Exit code of a report where a condition of `--fail-on` holds, or its metric was not measured."""
UNDECIDED: Final = 4
"""Exit code where none holds and one is undecided: the limit lies within the metric's interval."""


def main(words: list[str]) -> None:
    """Write `report.html` and `report.json`, and say what they say in a line.

    Args:
        words: of the command line after `report`.

    Raises:
        ConfigError: the folder holds neither run nor sweep, or an option is wrong.
        DataError: a file of the folder is damaged.
        SystemExit: with code 3, a condition of `--fail-on` holds or was not measured; else with code 4, one is
            undecided.
    """
    options = _parser().parse_args(words)
    folder = _measured(Path(options.folder))
    out = folder if options.out is None else Path(options.out)
    report = make(folder, options.text, options.fail_on or [])
    from lit_mem.report.page import page

    html, data = page(report), json.dumps(as_json(report), allow_nan=False, ensure_ascii=False, indent=1)
    with atomic.naming(out):
        modes.make_folder(out)
    atomic.write_text(out / "report.html", html)
    atomic.write_text(out / "report.json", data + "\n")
    if said := meaning(options.fail_on or []):
        print(f"--fail-on: {said}.")  # noqa: T201
    print(printable(report["verdict"]["text"]))  # noqa: T201  (the output of the command)
    for name in ("report.html", "report.json"):
        print(out / name)  # noqa: T201
    for failed in report["gate"]["failed"]:
        print(f"failed: {printable(failed['line'])}", file=sys.stderr)  # noqa: T201
    for undecided in report["gate"]["undecided"]:
        print(f"undecided: {printable(undecided['line'])}", file=sys.stderr)  # noqa: T201
    if report["gate"]["failed"]:
        sys.exit(FAILED)
    if report["gate"]["undecided"]:
        sys.exit(UNDECIDED)


def make(folder: Path, with_text: bool = False, fail_on: list[str] | None = None) -> dict[str, Any]:
    """What the report of a folder says.

    Raises:
        ConfigError: it holds neither run nor sweep, or a condition is wrong.
        DataError: a file in it is damaged.
    """
    wanted = conditions(fail_on or [])
    try:
        return _made(folder, with_text, wanted)
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Values of the right form are expected in what others may have written; those of another end here.
        raise DataError(
            f"report: a file of {folder} is not as this version writes it ({type(error).__name__}; LIT_MEM_DEBUG=1 "
            "shows where); expected the folder of a run or a sweep"
        ) from error


def _measured(folder: Path) -> Path:
    """The folder of the record: of the `output_dir` of one of Hugging Face's trainers, the one in it."""
    return folder / IN_OUTPUT_DIR if is_run(folder / IN_OUTPUT_DIR) and not is_run(folder) else folder


def _made(folder: Path, with_text: bool, wanted: list[Any]) -> dict[str, Any]:
    if (folder / "sweep.json").is_file():
        from lit_mem.report.sweep_report import sweep_report

        return sweep_report(folder, wanted)
    if is_run(folder):
        from lit_mem.report.run_report import run_report

        return run_report(folder, with_text, wanted)
    if not folder.is_dir():
        raise ConfigError(f"report: there is no folder {folder}")
    if (folder / "config.yaml").is_file():
        raise ConfigError(
            f"report: {folder} has no {FILE} and has no {METRICS}; the run ended before it measured anything"
        )
    raise ConfigError(
        f"report: {folder} is neither a run's log folder ({FILE} or {METRICS}) nor a sweep's (sweep.json)"
    )


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog=f"{program.name()} report", description="Write a run or a sweep as one HTML page and as JSON."
    )
    parser.add_argument("folder", metavar="DIR", type=str, help="log folder of a run, or folder of a sweep")
    parser.add_argument("--out", type=str, default=None, metavar="FOLDER", help="where to write (default: DIR)")
    parser.add_argument(
        "--fail-on",
        action="append",
        type=str,
        default=None,
        metavar="CONDITION",
        help="such as 'mia/strongest_auroc > 0.7', or the preset strict or standard, which is printed with what it "
        "stands for; judged at the last epoch by the metric's 95 % interval, if it has one: exit code 0 if the whole "
        "interval is within the limit, 3 if all of it is over or the metric was not measured, 4 (undecided) if the "
        "limit lies within the interval; may be given several times, or "
        "as a list",
    )
    parser.add_argument(
        "--text",
        type=bool,
        default=False,
        help="show the texts of the most exposed members, if PerExampleTable wrote them (default: false)",
    )
    return parser
