"""Guess the text and group columns of a file from names and contents, with alternatives."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lit_mem.data.columns import Column
from lit_mem.data.sources.fields import group_of, piece_of
from lit_mem.data.sources.table import Table

_TEXTS: Final = (
    "text", "texts", "note", "notes", "content", "body", "document", "narrative", "report", "sentence", "abstract",
    "transcription", "description", "summary", "review", "message", "comment", "article", "story", "passage",
)  # fmt: skip
_PAIRS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("instruction", "input"), "output"),
    (("instruction", "context"), "response"),
    (("instruction", "input"), "response"),
    (("question", "context"), "answer"),
    (("prompt",), "completion"),
    (("prompt",), "response"),
    (("question",), "answer"),
    (("query",), "response"),
    (("input",), "output"),
    (("source",), "target"),
    (("article",), "highlights"),
    (("document",), "summary"),
    (("dialogue",), "summary"),
)
"""Prompt columns, the last of which is optional, and the completion column."""
_PERSONS: Final = {
    "patient", "subject", "person", "user", "author", "customer", "client", "speaker", "member", "employee", "student",
    "participant", "mrn", "individual", "account", "owner", "username", "userid", "patientid",
}  # fmt: skip
_DOCUMENTS: Final = {
    "doc", "document", "docid", "report", "case", "article", "file", "filename", "thread", "session", "conversation",
    "dialogue", "visit", "encounter", "hadm", "stay", "admission", "episode", "url", "paper", "pmid", "book", "group",
    "folder",
}  # fmt: skip
_SORTS: Final = {
    "label", "class", "category", "topic", "type", "kind", "event", "lang", "language", "sex", "gender", "status",
    "code",
}  # fmt: skip
"""Words in names of row ids, which are not groups."""
_FEWEST_WORDS: Final = 3
_LONGEST_NAME: Final = 8
_FEWEST_GROUPS: Final = 5
_MOST_ROWS: Final = 20


@dataclass(frozen=True)
class Pair:
    """Prompt columns and a completion column.

    Attributes:
        given: names of the prompt columns.
        completion: name of the completion column.
        prompt_template: as for `TextFiles`.
        completion_template: as for `TextFiles`.
    """

    given: tuple[str, ...]
    completion: str
    prompt_template: str
    completion_template: str


@dataclass(frozen=True)
class Roles:
    """The guessed roles of the columns.

    Attributes:
        text: the column of whole texts; None if there is a pair.
        pair: prompt and completion columns; None for whole texts.
        texts: other text columns, most likely first.
        group: rows with the same value belong to one person or document; None: no such column.
        groups: other columns with repeated values that may be groups.
        unusable_groups: columns named like groups, with invalid values in some rows.
        spans: the column of sensitive spans.
        chat: the column of conversations, if no other column has texts.
    """

    text: str | None = None
    pair: Pair | None = None
    texts: tuple[str, ...] = ()
    group: str | None = None
    groups: tuple[str, ...] = ()
    unusable_groups: tuple[str, ...] = ()
    spans: str | None = None
    chat: Column | None = None

    def of(self, name: str) -> str:
        """The role of a column in one word; "" for none."""
        if self.pair and name in self.pair.given:
            return "prompt"
        used = {self.text: "text", self.group: "group", self.spans: "spans"}
        used |= {self.pair.completion: "completion"} if self.pair else {}
        used |= {self.chat.name: "conversations"} if self.chat else {}
        return used.get(name, "")


def roles_of(table: Table, columns: Sequence[Column]) -> Roles:
    """Guess the roles.

    Args:
        table: the rows.
        columns: columns of the table.
    """
    by_name = {column.name.strip().lower(): column for column in reversed(columns)}
    spans = next((c.name for c in columns if c.kind == "spans" and c.name == "spans"), None)
    spans = spans or next((c.name for c in columns if c.kind == "spans"), None)
    pair = _pair(table, by_name, spans is not None)
    texts = [c for c in columns if c.kind == "text" and c.words is not None and c.words.high >= _FEWEST_WORDS]
    known = {name: place for place, name in enumerate(_TEXTS)}
    place = len(_TEXTS)
    texts.sort(key=lambda c: (known.get(c.name.strip().lower(), place), -(c.words.median if c.words else 0)))
    names = [column.name for column in texts]
    chat = next((column for column in columns if column.kind == "conversations"), None)
    if chat is not None and pair is None and (not texts or texts[0].name.strip().lower() not in known):
        group, groups, unusable = _groups(table, [column for column in columns if column is not chat])
        return Roles(group=group, groups=groups, unusable_groups=unusable, chat=chat)
    if pair is None and not names:  # then accept short ones, such as a list of names
        names = [column.name for column in columns if column.kind == "text" and not _words(column.name) & _PERSONS]
    text = names[0] if names and pair is None else None
    used = {text, spans, *((*pair.given, pair.completion) if pair else ())}
    group, groups, unusable = _groups(table, [column for column in columns if column.name not in used])
    others = tuple(name for name in names if name not in used)
    return Roles(text, pair, others, group, groups, unusable, spans)


def _pair(table: Table, by_name: Mapping[str, Column], marked: bool) -> Pair | None:
    """The first existing pair of columns, as templates."""
    for given, last in _PAIRS:
        for way in (given, given[:-1]) if len(given) > 1 else (given,):
            columns = [by_name[name] for name in (*way, last) if name in by_name]
            if len(columns) == len(way) + 1 and _fit(table, columns, optional=len(way) > 1):
                return _templates(table, [column.name for column in columns], marked)
    return None


def _fit(table: Table, columns: Sequence[Column], optional: bool) -> bool:
    """Whether columns can fill templates; if `optional`, the second to last must have a value in each row."""
    *given, last = columns
    if any(set("{}:!") & set(column.name) for column in columns) or last.kind != "text":
        return False
    if any(column.kind not in ("text", "number") for column in given):
        return False
    return not (optional and any(piece_of(value)[1] for value in table.column(given[-1].name)))


def _templates(table: Table, names: list[str], marked: bool) -> Pair:
    """Templates in the usual format for such data.

    Args:
        table: the rows.
        names: prompt columns, and the completion column.
        marked: whether it has spans: then the completion is only the column, since spans count from its start.
    """
    *given, last = names
    first = given[0].strip().lower()
    before, after = "".join(f"{{{name}}}\n" for name in given), f"{{{last}}}"
    if first == "instruction":
        parts = [f"### {name.strip().capitalize()}:\n{{{name}}}\n\n" for name in given]
        before = "".join(parts) + "### Response:\n"
    elif first == "question":
        context = "".join(f"{name.strip().capitalize()}: {{{name}}}\n" for name in given[1:])
        before = f"{context}Question: {{{given[0]}}}\nAnswer:" + ("\n" if marked else "")
        after = after if marked else f" {after}"
    elif _parted(table, given[-1], last):
        before = before.removesuffix("\n")
    return Pair(tuple(given), last, before, after)


def _parted(table: Table, given: str, last: str) -> bool:
    """Whether most prompts and completions are already separated by white space."""
    pairs = zip(table.column(given), table.column(last), strict=True)
    known = [(a, b) for a, b in pairs if isinstance(a, str) and isinstance(b, str) and a and b]
    return 2 * sum(a[-1].isspace() or b[0].isspace() for a, b in known) > len(known)


def _words(name: str) -> set[str]:
    """The words of a column's name.

    >>> sorted(_words("patientId"))
    ['id', 'patient']
    """
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def _groups(table: Table, columns: Sequence[Column]) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """The group column, other candidates, and columns that would be groups if no row lacked a value."""
    n_rows = len(table.numbers)
    persons, documents, others, unusable = list[Column](), list[Column](), list[str](), list[str]()
    for column in columns:
        shared = 2 <= column.distinct < n_rows - column.empty
        if not shared or (column.words is not None and column.words.longest > _LONGEST_NAME):
            continue
        words = _words(column.name)
        few_rows = "id" in words and not words & _SORTS and column.distinct * _MOST_ROWS >= n_rows
        if not (words & (_PERSONS | _DOCUMENTS) or few_rows):
            if column.kind == "text" and not words & _SORTS and 1.5 * column.distinct <= n_rows <= 50 * column.distinct:
                others.append(column.name)
        elif any(group_of(value)[1] for value in table.column(column.name)):
            unusable.append(column.name)
        elif column.distinct < _FEWEST_GROUPS:
            others.append(column.name)
        else:
            (persons if words & _PERSONS else documents).append(column)
    # The coarsest one: keeping a person on one side keeps their documents there too.
    ranked = [column.name for kind in (persons, documents) for column in sorted(kind, key=lambda c: c.distinct)]
    return ranked[0] if ranked else None, (*ranked[1:], *others), tuple(unusable)
