"""Persons in a report: from how many texts were extracted, how well an attack separates them, who is exposed most."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.person_file import FOLDER
from lit_mem.errors import DataError
from lit_mem.functional.numbers import percent, rate_shown, shown
from lit_mem.report.files import newest_table, read_parquet
from lit_mem.report.history import Validation
from lit_mem.report.intervals import bracketed, ends_of

_SHOWN: Final = 10
_NEEDED: Final = ("person", "set", "epoch", "rows", "rows_scored", "extracted")
_HIGHEST: Final = "_highest"


def persons_of(run: Path, last: Validation | None) -> dict[str, Any] | None:
    """What the report shows of persons: each value of `group_column`.

    Args:
        run: folder of the run.
        last: its last validation; None: there is none.

    Returns:
        text, file, epoch, n_members and n_heldout (persons of each side), by (the score; None: there is none), and the
        most exposed persons of the training set as `columns` and `rows`. None where the run has no file of persons.

    Raises:
        DataError: the file cannot be read, or lacks its columns.
    """
    path = newest_table(run / FOLDER)
    if path is None:
        return None
    table = read_parquet(path)
    if missing := [name for name in _NEEDED if name not in table.column_names]:
        raise DataError(f"{path}: there is no column {missing[0]}; expected a file of persons as a run writes it")
    columns: dict[str, list[Any]] = table.to_pydict()
    highest = next((name for name in columns if name.endswith(_HIGHEST)), None)
    members = [i for i, side in enumerate(columns["set"]) if side == "member"]  # the most exposed first
    names = ["person", "rows", "rows_scored", *([] if highest is None else [highest]), "extracted"]
    titles = {"rows_scored": "rows scored", highest: "highest score", "extracted": "pieces extracted"}
    tried = [columns["extracted"][i] for i in members if columns["extracted"][i] is not None]
    others = len(columns["set"]) - len(members)
    return {
        "text": _text(len(members), others, tried, {} if last is None else last.metrics),
        "file": path.name,
        "epoch": columns["epoch"][0] if columns["epoch"] else None,
        "n_members": len(members),
        "n_heldout": others,
        "by": None if highest is None else highest.removesuffix(_HIGHEST),
        "columns": [titles.get(name, name) for name in names],
        "rows": [[columns[name][i] for name in names] for i in members[:_SHOWN]],
    }


def _text(n_members: int, n_others: int, tried: list[int], metrics: Mapping[str, float]) -> str:
    """A few sentences."""
    parts = []
    if tried:
        n = sum(each > 0 for each in tried)
        of = "" if len(tried) == n_members else f" of whom any was tried ({n_members} have rows that were scored)"
        parts.append(
            f"{n} of {len(tried)} persons in the training set{of} have at least one marked span or whole suffix "
            f"extracted{_share('user/extracted_share', metrics)}" + _beside("user/extracted_share_heldout", metrics)
        )
    else:
        parts.append(f"{n_members} persons in the training set have rows that were scored; extraction: not measured")
    if "user/inference_auroc" in metrics:
        area = shown(metrics["user/inference_auroc"]) + bracketed(*ends_of("user/inference_auroc", metrics))
        parts.append(
            f"The user-inference AUROC is {area}: the chance that a person of the training set has a higher mean score "
            f"than one of {n_others} held-out persons; 0.5 is guessing"
        )
    else:
        parts.append("How well an attack separates persons: not measured")
    return ". ".join(parts) + "."


def _share(name: str, metrics: Mapping[str, float]) -> str:
    if name not in metrics:
        return ""
    high = metrics.get(f"{name}_high")
    if not metrics[name] and high is not None:
        return f", below {percent(high)}"
    return f", {rate_shown(metrics[name], metrics.get(f'{name}_low'), high)}"


def _beside(name: str, metrics: Mapping[str, float]) -> str:
    return "" if name not in metrics else f"; of held-out persons {_rate(name, metrics)}"


def _rate(name: str, metrics: Mapping[str, float]) -> str:
    return rate_shown(metrics[name], *ends_of(name, metrics))
