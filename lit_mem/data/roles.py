"""Which columns of a file are its texts, and which its groups: a guess by names and forms, and what else may be."""

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
"""Columns that are given, the last of which may be absent, and the one that is trained on."""
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
"""What columns sort rows by: ids of these are no groups of rows that belong together."""
_FEWEST_WORDS: Final = 3
_LONGEST_NAME: Final = 8
_FEWEST_GROUPS: Final = 5
_MOST_ROWS: Final = 20


@dataclass(frozen=True)
class Pair:
    """Columns that are given and a column that is trained on.

    Attributes:
        given: names of the columns before it.
        completion: name of the column that is trained on.
        prompt_template: as `TextFiles` takes it.
        completion_template: likewise.
    """

    given: tuple[str, ...]
    completion: str
    prompt_template: str
    completion_template: str


@dataclass(frozen=True)
class Roles:
    """What the columns are taken for.

    Attributes:
        text: the column of whole texts; None where there is a pair.
        pair: None where there are whole texts.
        texts: other columns of texts, the likeliest first.
        group: rows with the same value are of one person or document; None: no such column.
        groups: other columns that rows share values of, and that may name groups.
        unusable_groups: columns with the name of a group and values that name none in some rows.
        spans: the column that marks telling pieces.
        chat: the column of conversations, where no other holds texts.
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
        """What a column is used as, in a word; "" for none."""
        if self.pair and name in self.pair.given:
            return "prompt"
        used = {self.text: "text", self.group: "group", self.spans: "spans"}
        used |= {self.pair.completion: "completion"} if self.pair else {}
        used |= {self.chat.name: "conversations"} if self.chat else {}
        return used.get(name, "")


def roles_of(table: Table, columns: Sequence[Column]) -> Roles:
    """Take a guess.

    Args:
        table: the rows.
        columns: of the table.
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
    if pair is None and not names:  # short ones then, such as the lines of a list of names
        names = [column.name for column in columns if column.kind == "text" and not _words(column.name) & _PERSONS]
    text = names[0] if names and pair is None else None
    used = {text, spans, *((*pair.given, pair.completion) if pair else ())}
    group, groups, unusable = _groups(table, [column for column in columns if column.name not in used])
    others = tuple(name for name in names if name not in used)
    return Roles(text, pair, others, group, groups, unusable, spans)


def _pair(table: Table, by_name: Mapping[str, Column], marked: bool) -> Pair | None:
    """The first pair of columns that are there, as templates."""
    for given, last in _PAIRS:
        for way in (given, given[:-1]) if len(given) > 1 else (given,):
            columns = [by_name[name] for name in (*way, last) if name in by_name]
            if len(columns) == len(way) + 1 and _fit(table, columns, optional=len(way) > 1):
                return _templates(table, [column.name for column in columns], marked)
    return None


def _fit(table: Table, columns: Sequence[Column], optional: bool) -> bool:
    """Whether columns can fill templates; of the last but one, if it is `optional`, each row must have a value."""
    *given, last = columns
    if any(set("{}:!") & set(column.name) for column in columns) or last.kind != "text":
        return False
    if any(column.kind not in ("text", "number") for column in given):
        return False
    return not (optional and any(piece_of(value)[1] for value in table.column(given[-1].name)))


def _templates(table: Table, names: list[str], marked: bool) -> Pair:
    """Templates in the form that such data is known by.

    Args:
        table: the rows.
        names: columns that are given, and the one that is trained on.
        marked: whether spans are marked in it: then the completion is the column alone, as spans count from its start.
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
    """Whether white space parts most prompts from their completions already."""
    pairs = zip(table.column(given), table.column(last), strict=True)
    known = [(a, b) for a, b in pairs if isinstance(a, str) and isinstance(b, str) and a and b]
    return 2 * sum(a[-1].isspace() or b[0].isspace() for a, b in known) > len(known)


def _words(name: str) -> set[str]:
    """Of a column's name.

    >>> sorted(_words("patientId"))
    ['id', 'patient']
    """
    return set(re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def _groups(table: Table, columns: Sequence[Column]) -> tuple[str | None, tuple[str, ...], tuple[str, ...]]:
    """The column of groups, others that may be, and those that would be if no row lacked a group."""
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
    # The coarsest: a document of a person stands on one side if the person does.
    ranked = [column.name for kind in (persons, documents) for column in sorted(kind, key=lambda c: c.distinct)]
    return ranked[0] if ranked else None, (*ranked[1:], *others), tuple(unusable)
