"""Resolve a path: a file, or a folder or glob pattern of files that are read as one set."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from lit_mem import assets
from lit_mem.data.sources.absent import check_there
from lit_mem.data.sources.decoding import PACKED
from lit_mem.data.sources.saved import is_saved, saved_sets
from lit_mem.errors import DataError
from lit_mem.functional.plain_text import printable

log = logging.getLogger(__name__)

Kind = Literal["notes", "json", "csv", "parquet", "arrow"]

_KINDS: Final[dict[str, Kind]] = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet",
    ".arrow": "arrow", ".txt": "notes", ".md": "notes",
}  # fmt: skip
SUFFIXES: Final = tuple(_KINDS)
_UNPACKED: Final = (".parquet", ".arrow")
"""File types with internal compression."""
_BESIDE: Final = {"readme.md", "license.md", "license.txt", "dataset_info.json", "dataset_infos.json", "config.json"}
"""Files that describe a data folder, in lower case."""
_KNOWN: Final = {
    ".pdf", ".doc", ".docx", ".rtf", ".odt", ".html", ".htm", ".xml", ".yaml", ".yml", ".xls", ".xlsx", ".zip", ".tar",
    ".tar.gz", ".log", ".py", ".png", ".jpg",
}  # fmt: skip
"""Suffixes that may appear in messages; for others, part of a name may look like a suffix."""
_COMPANIONS: Final = (".ann", ".conf")
"""BRAT files; those with spans are read with their notes."""
_MAGIC: Final = re.compile(r"[*?]|\[.+?\]")
"""Characters that make a path a glob pattern."""
_SET_NAMES: Final = {
    "train": "train", "training": "train",
    "heldout": "heldout", "held_out": "heldout", "held-out": "heldout",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Files that form one set of rows.

    Attributes:
        path: the path given by the user, for messages.
        label: its name in `origin`; has no file name that is not in the configuration.
        files: files in path order; for a folder saved by `datasets`, the folder itself.
        kind: kind of the files; "saved" for such a folder.
        each: whether each file is one text.
    """

    path: str
    label: str
    files: tuple[Path, ...]
    kind: Kind | Literal["saved"]
    each: bool = False


def label_of(path: str) -> str:
    """The name in `origin` of a file, a folder, or the folder of a pattern.

    >>> label_of("a/notes.jsonl"), label_of("a/notes/"), label_of("a/notes/**/*.txt"), label_of("*.txt")
    ('notes.jsonl', 'notes', 'notes', '*.txt')
    """
    fixed = _fixed(path) if is_pattern(path) else Path(path)
    return printable((fixed.name if fixed != Path() else "") or path)


def located(path: str) -> str:
    """The path of a bundled asset ("asset:notes"), the file where it is one; another path as it is.

    Raises:
        ConfigError: there is no asset of this name.

    >>> located("asset:notes").endswith("notes.jsonl"), located("notes.jsonl")
    (True, 'notes.jsonl')
    """
    if not path.startswith(assets.PREFIX):
        return path
    folder = assets.path(path.removeprefix(assets.PREFIX))
    files = [file for file in folder.iterdir() if file.is_file()]
    return str(files[0] if len(files) == 1 else folder)


def is_pattern(path: str) -> bool:
    """Whether a path is a glob pattern and not an existing name."""
    return _MAGIC.search(path) is not None and not os.path.lexists(os.path.expanduser(path))


def place_of(path: str) -> Place:
    """The files of a path, as one set.

    Args:
        path: a file; a folder, read with its subfolders; or a glob pattern, such as "notes/**/*.txt".

    Raises:
        DataError: it has no supported file, files of several kinds, or is a folder of several sets.
    """
    check_there(path, is_pattern(path), SUFFIXES)
    if is_pattern(path):
        found = (Path(name) for name in glob.glob(os.path.expanduser(path), recursive=True))
        return _noted(_set(path, label_of(path), [file for file in found if file.is_file()]))
    file = Path(path).expanduser()
    if not file.is_dir():
        return Place(path, label_of(path), (file,), _kind_of(path, file), file.name.lower().endswith(_MARKDOWN))
    sets = sets_of(path)
    if len(sets) == 1:
        return next(iter(sets.values()))
    if sets:
        raise DataError(
            f"{path}: is a folder with several sets ({', '.join(sets)}); expected the path of one, such as "
            f"{os.path.join(path, next(iter(sets)))} or a glob pattern"
        )
    if is_saved(file):
        return Place(path, label_of(path), (file,), "saved")
    return _set(path, label_of(path), list(_below(file)))


def sets_of(path: str) -> dict[str, Place]:
    """The sets in a folder by name, as in hub datasets; empty if it is a single set, or not a folder.

    A set is a subfolder named train, validation (or valid, val, dev), heldout or test (or eval); or the files of rows
    whose name has such a word ("train-00000-of-00002.parquet"), and text files with exactly such a name ("train.txt").
    In a folder saved from a `DatasetDict`, each set by its name.

    Raises:
        DataError: files of a set are of several kinds, or no set is named train.
    """
    check_there(path, is_pattern(path), SUFFIXES)
    folder = Path(path).expanduser()
    if is_pattern(path) or not folder.is_dir() or is_saved(folder):
        return {}
    name = label_of(path)
    if (saved := saved_sets(path, folder)) is not None:
        return {key: Place(f"{path}/{key}", f"{name}/{key}", (folder / key,), "saved") for key in saved}
    parts: dict[str, list[Path]] = {}
    for file in _below(folder):
        parts.setdefault(_set_name(file.relative_to(folder)), []).append(file)
    parts = {name: files for name, files in parts.items() if any(_kind(file) for file in files)}
    others = [file for file in parts.pop("", []) if _kind(file)]
    if not parts:
        return {}
    if "train" not in parts:
        raise DataError(
            f"{path}: is a folder with a set {' and a set '.join(map(repr, parts))} but none named 'train'; expected "
            "one, or the path or glob pattern of the files to read"
        )
    if others:
        log.warning("%s: %d files that belong to no set (%s) are skipped.", path, len(others), ", ".join(parts))
    order = [key for key in dict.fromkeys(_SET_NAMES.values()) if key in parts]
    made = {key: _set(f"{path} ({key})", f"{name}/{key}", parts[key]) for key in order}
    if not any(place.each for place in made.values()):
        return made
    # If one set is a folder of notes, a single file of another set is a note too.
    return {key: _noted(place) for key, place in made.items()}


def _noted(place: Place) -> Place:
    return replace(place, each=place.kind == "notes")


def holds_notes(path: str) -> bool:
    """Whether a folder has notes, and no other rows; or one or more sets saved by `datasets`."""
    try:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            return False
    except (OSError, RuntimeError, ValueError):  # an unknown user, a name that is too long: reported where it is read
        return False
    if is_saved(folder) or saved_sets(path, folder) is not None:
        return True
    return {_kind(file) for file in _below(folder)} - {None} == {"notes"}


def suffix_of(file: Path) -> tuple[str, str]:
    """The suffix of the file format, and that of the compression, in lower case.

    >>> suffix_of(Path("a.JSONL.gz")), suffix_of(Path("a.csv"))
    (('.jsonl', '.gz'), ('.csv', ''))
    """
    suffix = file.suffix.lower()
    return (Path(file.stem).suffix.lower(), suffix) if suffix in PACKED else (suffix, "")


_MARKDOWN: Final = (".md", *(f".md{packed}" for packed in PACKED))


def _kind(file: Path) -> Kind | None:
    suffix, packed = suffix_of(file)
    return None if packed and suffix in _UNPACKED else _KINDS.get(suffix)


def _kind_of(path: str, file: Path) -> Kind:
    if (kind := _kind(file)) is None:
        raise DataError(
            f"{path}: unknown file type {''.join(suffix_of(file))!r}; expected one of {', '.join(SUFFIXES)} (all "
            f"except {' and '.join(_UNPACKED)} also with {' or '.join(PACKED)})"
        )
    return kind


def _set(path: str, label: str, files: Iterable[Path]) -> Place:
    """Files as one set: supported ones, of one kind; others are counted in the log."""
    chosen, others = list[Path](), Counter[str]()
    kinds: dict[Kind, Counter[str]] = {}
    for file in sorted(files, key=lambda file: file.as_posix()):
        kind, suffix = _kind(file), "".join(suffix_of(file))
        if kind is not None:
            chosen.append(file)
            kinds.setdefault(kind, Counter())[suffix] += 1
        elif suffix not in _COMPANIONS and not (file.name.startswith("_") and not suffix):  # Spark's _SUCCESS
            others[suffix if suffix in _KNOWN else "of another kind"] += 1
    if not chosen:
        what = f"no supported files (it has {_counted(others)})" if others else "no files"
        raise DataError(f"{path}: has {what}; expected files of one kind ({', '.join(SUFFIXES)})")
    suffixes = sum(kinds.values(), Counter[str]())
    if len(kinds) > 1:
        example = os.path.join(path, f"*{suffixes.most_common(1)[0][0]}") if Path(path).is_dir() else "a/*.txt"
        raise DataError(
            f"{path}: has {_counted(suffixes)}; expected files of one kind, or a glob pattern such as {example}"
        )
    if others:
        log.warning("%s: skipped unsupported files: %s.", path, _counted(others))
    (kind,) = kinds
    each = kind == "notes" and (len(chosen) > 1 or chosen[0].name.lower().endswith(_MARKDOWN))
    log.info("%s: %s%s.", path, _counted(suffixes), ", each of which is one text" if each else "")
    return Place(path, label, tuple(chosen), kind, each)


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))


def _below(folder: Path) -> Iterator[Path]:
    """All files below a folder except hidden and descriptive ones, following links; each folder once."""
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(at)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = (name for name in names if not name.startswith(".") and name.lower() not in _BESIDE)
        yield from (file for name in shown if (file := Path(at, name)).is_file())


def _set_name(file: Path) -> str:
    """The set that a file belongs to; "" if none."""
    for part in file.parts[:-1]:
        if part.lower() in _SET_NAMES:
            return _SET_NAMES[part.lower()]
    kind = _kind(file)
    if kind is None:
        return ""
    stem = file.name.lower().removesuffix("".join(suffix_of(file)))
    words = [stem] if kind == "notes" else re.split(r"[-._ 0-9]+", stem)
    return next((_SET_NAMES[word] for word in words if word in _SET_NAMES), "")


def _fixed(path: str) -> Path:
    """The folder that contains all matches of a pattern."""
    parts = Path(path).expanduser().parts
    return Path(*parts[: next(i for i, part in enumerate(parts) if _MAGIC.search(part))])
