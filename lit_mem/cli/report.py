"""`lit-mem report DIR`: a run or a sweep as one page and as JSON; for a run also an annex."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_mem import program
from lit_mem.audit.thresholds import meaning
from lit_mem.cli.exit_codes import FAILED, UNDECIDED
from lit_mem.errors import ConfigError, DataError
from lit_mem.files import atomic, modes
from lit_mem.files.facts import now, read_facts
from lit_mem.files.record import FILE, IN_OUTPUT_DIR
from lit_mem.functional.numbers import as_json
from lit_mem.functional.plain_text import printable
from lit_mem.lightning.one_line import CommandParser
from lit_mem.report.annex import Filing
from lit_mem.report.answer import headline
from lit_mem.report.gate import conditions
from lit_mem.report.history import METRICS, is_run
from lit_mem.report.markdown import annex_markdown
from lit_mem.report.sealed import files_of, files_of_adapter, recorded_adapter, seal, with_documents


def main(words: list[str]) -> None:
    """Write `report.html` and `report.json`, for a run also `annex.md`, and print a one-line summary.

    Args:
        words: the command-line arguments after `report`.

    Raises:
        ConfigError: the folder holds neither a run nor a sweep, or an option is invalid.
        DataError: a file of the folder is damaged.
        SystemExit: with code 3, a condition of `--fail-on` holds or was not measured; else with code 4, one is
            undecided.
    """
    options = _parser().parse_args(words)
    folder = _measured(Path(options.folder))
    out = folder if options.out is None else Path(options.out)
    if said := meaning(options.fail_on or []):
        print(f"--fail-on: {said}.")  # noqa: T201  (the output of the command)
    report = make(folder, options.text, options.fail_on or [], Filing(options.release, options.author))
    if report["kind"] == "run":
        report = seal(report, _files(folder, report, options.adapter), now())
        print(printable(headline(report["answer"])))  # noqa: T201  (the output of the command)
    else:
        given = [name for name in ("release", "author", "adapter") if options[name] is not None]
        if given:
            raise ConfigError(f"--{given[0]} applies to the annex of a run, but {folder} is a sweep")
        print(printable(report["verdict"]["text"]))  # noqa: T201
    for path in _write(out, report):
        print(path)  # noqa: T201
    for failed in report["gate"]["failed"]:
        print(f"failed: {printable(failed['line'])}", file=sys.stderr)  # noqa: T201
    for undecided in report["gate"]["undecided"]:
        print(f"undecided: {printable(undecided['line'])}", file=sys.stderr)  # noqa: T201
    if report["gate"]["failed"]:
        sys.exit(FAILED)
    if report["gate"]["undecided"]:
        sys.exit(UNDECIDED)


def _write(out: Path, report: Mapping[str, Any]) -> list[Path]:
    """Write all formats of a report.

    Raises:
        OSError: a file cannot be written.
    """
    from lit_mem.report.page import page

    documents = {"report.html": page(report)}
    if report["kind"] == "run":
        documents["annex.md"] = annex_markdown(report)
    with atomic.naming(out):
        modes.make_folder(out)
    for name, text in documents.items():
        atomic.write_text(out / name, text)
    if report["kind"] == "run":
        report = with_documents(report, out, list(documents))
    data = json.dumps(as_json(report), allow_nan=False, ensure_ascii=False, indent=1)
    atomic.write_text(out / "report.json", data + "\n")
    return [out / name for name in (*documents, "report.json")]


def _files(folder: Path, report: Mapping[str, Any], adapter: str | None) -> list[dict[str, Any]]:
    """Files of the run, and of the adapter: the one given, else the audited one.

    Raises:
        ConfigError: `--adapter` is not a folder.
        OSError: a file cannot be read.
    """
    if adapter is not None and not Path(adapter).is_dir():
        raise ConfigError(f"--adapter: there is no folder {adapter}")
    recorded = read_facts(folder)
    of_adapter = recorded_adapter(recorded.adapter if recorded is not None else ())
    return files_of(folder, report) + (of_adapter if adapter is None else files_of_adapter(Path(adapter)))


def make(
    folder: Path,
    with_text: bool = False,
    fail_on: list[str] | None = None,
    filing: Filing = Filing(),  # noqa: B008  (never changed)
) -> dict[str, Any]:
    """The report of a folder, as JSON values.

    Args:
        folder: the folder of a run or a sweep.
        with_text: include the texts of the most exposed members.
        fail_on: conditions that the last validation must not meet.
        filing: what the person who files a run's report states.

    Raises:
        ConfigError: it holds neither a run nor a sweep, or a condition is invalid.
        DataError: a file in it is damaged.
    """
    wanted = conditions(fail_on or [])
    try:
        return _made(folder, with_text, wanted, filing)
    except (AttributeError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # The files are untrusted: a value of an unexpected type ends here.
        raise DataError(
            f"report: a file of {folder} does not have the format of this version ({type(error).__name__}; "
            "LIT_MEM_DEBUG=1 shows where); expected the folder of a run or a sweep"
        ) from error


def _measured(folder: Path) -> Path:
    """The folder of the record: the run's folder, or the subfolder of a Hugging Face trainer's `output_dir`."""
    return folder / IN_OUTPUT_DIR if is_run(folder / IN_OUTPUT_DIR) and not is_run(folder) else folder


def _made(folder: Path, with_text: bool, wanted: list[Any], filing: Filing) -> dict[str, Any]:
    if (folder / "sweep.json").is_file():
        from lit_mem.report.sweep_report import sweep_report

        return sweep_report(folder, wanted)
    if is_run(folder):
        from lit_mem.report.run_report import run_report

        return run_report(folder, with_text, wanted, filing)
    if not folder.is_dir():
        raise ConfigError(f"report: there is no folder {folder}")
    if (folder / "config.yaml").is_file():
        raise ConfigError(
            f"report: {folder} has neither {FILE} nor {METRICS}; the run ended before it measured anything"
        )
    raise ConfigError(
        f"report: {folder} is neither a run's log folder ({FILE} or {METRICS}) nor a sweep's (sweep.json)"
    )


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=f"{program.name()} report",
        description="Write the report of a run or a sweep as one HTML page and as JSON.",
    )
    parser.add_argument("folder", metavar="DIR", type=str, help="log folder of a run, or folder of a sweep")
    parser.add_argument("--out", type=str, default=None, metavar="FOLDER", help="where to write (default: DIR)")
    parser.add_argument(
        "--fail-on",
        action="append",
        type=str,
        default=None,
        metavar="CONDITION",
        help="such as 'mia/strongest_auroc > 0.7', or the preset strict or standard, which is printed with its "
        "conditions; compared at the last epoch with the metric's 95 % interval, if it has one: exit code 0 if the "
        "interval is within the limit, 3 if it is beyond the limit or the metric was not measured, 4 (undecided) if "
        "the limit lies inside the interval; may be repeated, or given as a list",
    )
    parser.add_argument(
        "--text",
        type=bool,
        default=False,
        help="show the texts of the most exposed members, if PerExampleTable wrote them (default: false)",
    )
    parser.add_argument(
        "--release",
        type=str | None,
        default=None,
        metavar="WHERE",
        help="how the model is released, for the annex: weights (published), api (others may query it) or internal "
        "(used within one organisation) (default: not stated)",
    )
    parser.add_argument(
        "--author",
        type=str | None,
        default=None,
        metavar="NAME",
        help="who ran it, for the annex (default: not stated)",
    )
    parser.add_argument(
        "--adapter",
        type=str | None,
        default=None,
        metavar="FOLDER",
        help="the weights to be released, whose hashes go into the annex (default: those that the run exported or the "
        "audit used)",
    )
    return parser
