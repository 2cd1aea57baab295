"""Files of a run or a sweep as plain values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_mem.errors import DataError
from lit_mem.files import untrusted


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a configuration file, and its content; empty where there is none.

    Raises:
        DataError: it is not YAML, or beyond the limits of `lit_mem.files.untrusted`.
    """
    if not path.is_file():
        return "", {}
    text, config = untrusted.read_yaml(path)
    return text, config if isinstance(config, dict) else {}


def read_json(path: Path) -> Any:
    """The content of a JSON file; None where there is none.

    Raises:
        DataError: it is not JSON, or beyond the limits of `lit_mem.files.untrusted`.
    """
    return untrusted.read_json(path) if path.is_file() else None


def read_parquet(path: Path) -> Any:
    """The `pyarrow.Table` of a parquet file.

    Raises:
        DataError: it cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: is not a parquet file that can be read ({str(error).splitlines()[0]})") from None


def newest_table(folder: Path) -> Path | None:
    """Of a folder with a parquet file a pass (`lit_mem.audit.example_file`) that of the last pass; None without one."""
    found = sorted(folder.glob("epoch_*_step_*.parquet"), key=_order)
    others = [folder / f"{name}.parquet" for name in ("test", "validate", "start")]
    return next(iter([*found[-1:], *(path for path in others if path.is_file())]), None)


def _order(path: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", path.stem))


def callbacks_of(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Class path and options of each callback that a run's configuration names; of `memorization`, its `Extraction`.

    >>> list(callbacks_of({"trainer": {"callbacks": [{"class_path": "a.B", "init_args": {"c": 1}}, "?"]}}))
    [('a.B', {'c': 1})]
    """
    callbacks = (config.get("trainer") or {}).get("callbacks") or []
    for entry in callbacks if isinstance(callbacks, list) else [callbacks]:
        if isinstance(entry, Mapping):
            yield str(entry.get("class_path", "")), entry.get("init_args") or {}
    section = config.get("memorization")
    if isinstance(section, Mapping) and section.get("suite") != "none":
        extraction = section.get("extraction")
        if section.get("suite") != "quick" and isinstance(extraction, Mapping):
            yield "lit_mem.callbacks.Extraction", extraction
