"""A run's answer and annex in Markdown, from the report as JSON has it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from lit_mem.functional.plain_text import printable
from lit_mem.report.answer import headline

_MARKUP: Final = re.compile(r"[\\`*|<>&~$#]|(?<![^\W_])_|_(?![^\W_])|\](?=[(\[:])|!(?=\[)")
"""Characters that are markup in CommonMark or in a table; an underscore within a word is not."""


def annex_markdown(report: Mapping[str, Any]) -> str:
    """The document.

    Args:
        report: of a run, sealed.
    """
    annex = report["annex"]
    lines = [
        f"# {_said(headline(report['answer']))}",
        f"Annex to the memorization report {_said(report['name'])}, in the order of {_said(annex['standard'])}. "
        "It documents tests; it does not decide whether the model is anonymous or may be released.",
    ]
    for number, section in enumerate(annex["sections"], start=1):
        lines += _section(number, section)
    lines += _files(len(annex["sections"]) + 1, report)
    return "\n\n".join(lines) + "\n"


def answers(paragraphs: Sequence[int]) -> str:
    """Which paragraphs of the opinion a section answers.

    >>> answers([43]), answers([46, 58])
    ('paragraph 43', 'paragraphs 46 and 58')
    """
    several = "s" if len(paragraphs) > 1 else ""
    return f"paragraph{several} {' and '.join(map(str, paragraphs))}"


def _section(number: int, section: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {number}. {_said(section['title'])}"
    yield f"*Answers {answers(section['paragraphs'])} of the opinion.*"
    yield from map(_said, section["text"])
    if section["rows"]:
        yield _table(section["columns"], section["rows"])


def _files(number: int, report: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {number}. Files, and how to check them"
    yield "*Answers paragraph 58 of the opinion.*"
    if not report["files"]:
        yield "There are no files to check."
    else:
        rows = [[one["path"], one["of"], f"{one['bytes']:,}", one["sha256"]] for one in report["files"]]
        yield _table(("file", "of the", "bytes", "SHA-256"), rows)
    yield f"Written {_said(report['written'])}. SHA-256 of the content of report.json:"
    yield f"`{_said(report['digest'])}`"
    yield "`lit-mem verify report.json` shows which of them are unchanged."


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_said(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _said(text: str) -> str:
    """A text with its markup escaped."""
    return _MARKUP.sub(_escaped, printable(text))


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    return f"&#{ord(sign)};" if sign in "<>&|" else f"\\{sign}"
