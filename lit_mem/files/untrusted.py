"""Parse untrusted files into plain values, with limits on size, depth and time, and one-line errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import ConfigError, DataError, LitMemError, ModelError

LARGEST: Final = 64 * 2**20
"""Maximum bytes of a JSON file; parsing takes about ten times as much memory."""
LARGEST_CONFIG: Final = 4 * 2**20
"""Maximum bytes of the configuration of a model or an adapter."""
LARGEST_YAML: Final = 2**20
"""Maximum bytes of a YAML file; Python parses 10,000 in about a tenth of a second."""
DEEPEST: Final = 100
"""Maximum nesting of lists and objects; libraries that walk such values recurse once per level."""
_MOST_NODES: Final = 200_000
"""Maximum values of a YAML file, after expanding aliases."""


def read_json(path: Path, kind: type[LitMemError] = DataError, largest: int = LARGEST) -> Any:
    """The content of a JSON file.

    Args:
        path: path of the file.
        kind: exception class to raise.
        largest: maximum size in bytes.

    Raises:
        LitMemError: of class `kind`, naming the file: it is not valid JSON, or exceeds `largest` or `DEEPEST`.
        OSError: it cannot be read.
    """
    return parse_json(read_text(path, kind, largest), str(path), kind)


def parse_json(text: str, where: str, kind: type[LitMemError] = DataError) -> Any:
    """Parse a JSON text; `where` names it in the message.

    >>> parse_json('{"a": [1]}', "file")
    {'a': [1]}
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise kind(f"{where}: nested too deeply; expected at most {DEEPEST} levels") from None
    except ValueError as error:
        raise kind(f"{where}: invalid JSON ({error})") from None
    level: list[Any] = [found]
    for _ in range(DEEPEST + 1):
        level = [value for value in level if isinstance(value, dict | list)]
        if not level:
            return found
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
    raise kind(f"{where}: nested too deeply; expected at most {DEEPEST} levels")


def read_yaml(path: Path, kind: type[LitMemError] = DataError) -> tuple[str, Any]:
    """The text of a YAML file, and its content.

    Raises:
        LitMemError: of class `kind`, naming the file: it is not valid YAML, or exceeds the limits of `check_yaml`.
        OSError: it cannot be read.
    """
    import yaml

    text = read_text(path, kind, LARGEST_YAML, errors="replace")
    check_yaml(text, str(path), kind)
    try:
        return text, yaml.safe_load(text)
    except Exception as error:  # a tag on a malformed value raises many exception types
        raise kind(f"{path}: invalid YAML ({_line(error)})") from None


def check_yaml(text: str, where: str, kind: type[LitMemError] = ConfigError) -> None:
    """Reject YAML that expands to a large or deeply nested value.

    Raises:
        LitMemError: of class `kind`: invalid, nested too deeply, recursive, or with aliases that expand too much.
    """
    import yaml

    sizes: dict[str, int] = {}
    open_ones: list[tuple[str | None, int]] = []  # anchor, and number of values before it
    count = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                if event.anchor not in sizes:
                    raise kind(f"{where}: alias {event.anchor[:40]!r} is used inside or before its own anchor")
                count += sizes[event.anchor]
            elif isinstance(event, yaml.ScalarEvent):
                count += 1
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            elif isinstance(event, yaml.CollectionStartEvent):
                open_ones.append((event.anchor, count))
                count += 1
                if len(open_ones) > DEEPEST:
                    raise kind(f"{where}: nested too deeply; expected at most {DEEPEST} levels")
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = open_ones.pop()
                if anchor is not None:
                    sizes[anchor] = count - before
            if count > _MOST_NODES:
                raise kind(f"{where}: its aliases expand to over {_MOST_NODES:,} values; expected fewer")
    except (yaml.YAMLError, RecursionError) as error:
        raise kind(f"{where}: invalid YAML ({_line(error)})") from None


@contextmanager
def panics_raised(what: str) -> Iterator[None]:
    """Turn a panic in a Rust library, which `except Exception` does not catch, into a ModelError.

    Args:
        what: what the body works with, for the message, such as "the tokenizer of model_id './llama'".

    Raises:
        ModelError: the body panicked. Text that the library quotes is removed from the message.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{what} is damaged: native code panicked with: {_line(error).partition('`')[0]}") from None


def read_text(path: Path, kind: type[LitMemError], largest: int, errors: str = "strict") -> str:
    """The text of a file in UTF-8.

    Raises:
        LitMemError: of class `kind`, naming the file: it is over `largest` bytes, or not UTF-8.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise kind(f"{path}: over {largest:,} bytes; expected fewer")
    try:
        return content.decode("utf-8", errors)
    except UnicodeDecodeError as error:
        raise kind(f"{path}: found byte 0x{content[error.start]:02x}; expected UTF-8 text") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).replace('in "<unicode string>",', "at")[:200]
