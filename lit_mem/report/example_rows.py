"""What a report shows of the per-example table of a run's last validation: ROC curves, histograms, exposed members."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import DataError
from lit_mem.report.files import callbacks_of, newest_table, read_parquet

HOW: Final = (
    "No per-example table was written, so there are no ROC curves, histograms or exposed examples. To get them, add "
    "lit_mem.callbacks.PerExampleTable to trainer.callbacks, or set examples of an audit or of a MemorizationCallback; "
    "the files confirm guessed texts (see SECURITY.md)."
)
_DIGITS: Final = 2  # of a single example's value: more would identify the example
_MOST_POINTS: Final = 300
_EXPOSED: Final = 20


def last_table(run: Path, config: Mapping[str, Any]) -> Path | None:
    """The newest per-example file of a run, or None."""
    folders = [run / "examples"]
    for path, options in callbacks_of(config):
        if path.endswith("PerExampleTable") and options.get("folder"):
            folders.append(Path(options["folder"]))
    return next((found for folder in folders if (found := newest_table(folder)) is not None), None)


def example_report(path: Path, attack: str | None, with_text: bool) -> dict[str, Any]:
    """What the report shows of a per-example table.

    Args:
        path: the file.
        attack: by which members are ranked; None: the first in the file.
        with_text: include the texts of the most exposed members, if the file has them.

    Raises:
        DataError: the file cannot be read, or lacks its columns.
    """
    table = read_parquet(path)
    missing = [name for name in ("example_id", "set", "epoch") if name not in table.column_names]
    if missing:
        raise DataError(f"{path}: there is no column {missing[0]}; expected a file of PerExampleTable")
    columns: dict[str, list[Any]] = table.to_pydict()
    member = [one == "member" for one in columns["set"]]
    attacks = [name for name in columns if name.startswith("mia/")]
    first = f"mia/{attack}" if f"mia/{attack}" in attacks else next(iter(attacks), None)
    attacks.sort(key=lambda name: (name != first, name))
    return {
        "file": path.name,
        "epoch": columns["epoch"][0] if columns["epoch"] else None,
        "n_members": sum(member),
        "n_heldout": len(member) - sum(member),
        "attacks": [one for name in attacks if (one := _attack(name, columns[name], member)) is not None],
        "scatters": _scatters(columns, member),
        "exposed": _exposed(columns, member, first, with_text),
        "text": "text" in columns,
    }


def _attack(name: str, values: list[float | None], member: list[bool]) -> dict[str, Any] | None:
    """ROC curve and histogram of an attack; None where a set has no score."""
    import torch

    from lit_mem.functional.auroc import auroc
    from lit_mem.functional.histogram import histogram
    from lit_mem.functional.roc import roc_curve

    kept = [(v, m) for v, m in zip(values, member, strict=True) if v is not None and math.isfinite(v)]
    score, is_member = torch.tensor([v for v, _ in kept], dtype=torch.float64), torch.tensor([m for _, m in kept])
    if not kept or not is_member.any() or is_member.all():
        return None
    area = auroc(score, is_member)
    fpr, tpr = roc_curve(score, is_member)
    few = _corners(fpr.tolist(), tpr.tolist())
    return {
        "name": name.removeprefix("mia/"),
        "auroc": area.value,
        "auroc_low": area.low,
        "auroc_high": area.high,
        "n_members": int(is_member.sum()),
        "n_heldout": int((~is_member).sum()),
        "roc": {
            "fpr": [fpr[i].item() for i in few],
            "tpr": [tpr[i].item() for i in few],
            "thinned": len(few) < len(fpr),
        },
        "histogram": histogram(score[is_member], score[~is_member])._asdict(),
    }


def _corners(fpr: list[float], tpr: list[float]) -> list[int]:
    """Indices of the points that draw a ROC curve: its corners, at most about 300 of them."""
    last = len(fpr) - 1
    bent = [i for i in range(1, last) if _turn(fpr, tpr, i) != 0]
    corners = [0, *bent, last]
    if len(corners) <= _MOST_POINTS:
        return corners
    # On log axes the small rates are the wide part: one corner for each step of the logarithm.
    floor = math.log(min(x for x in fpr if x > 0))
    kept = dict[int, int]()
    for i in corners:
        kept[-1 if fpr[i] <= 0 else int((_MOST_POINTS - 3) * (math.log(fpr[i]) - floor) / max(-floor, 1e-9))] = i
    return sorted({0, *kept.values(), last})


def _turn(x: list[float], y: list[float], i: int) -> float:
    turn = (x[i] - x[i - 1]) * (y[i + 1] - y[i]) - (y[i] - y[i - 1]) * (x[i + 1] - x[i])
    return 0.0 if abs(turn) < 1e-15 else turn


def _few_digits(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _scatters(columns: dict[str, list[Any]], member: list[bool]) -> list[dict[str, Any]]:
    """Perplexity against each extraction measure, the paper's first; rounded, and in an order that names no row."""
    names = [n for n in columns if n.startswith("extraction/") and not n.endswith("_base")]
    names.sort(key=lambda name: name != "extraction/ngram_rate")
    found = []
    for name in names if "perplexity" in columns else []:
        rows = zip(columns["perplexity"], columns[name], member, strict=True)
        points = [(x, y, m) for x, y, m in rows if x is not None and y is not None and math.isfinite(x)]
        if points:
            drawn = sorted((m, _few_digits(x), _few_digits(y)) for x, y, m in points)
            found.append(
                {
                    "measure": name,
                    "member": [m for m, _, _ in drawn],
                    "perplexity": [x for _, x, _ in drawn],
                    "value": [y for _, _, y in drawn],
                    "spearman": _spearman([p[:2] for p in points if p[2]]),
                }
            )
    return found


def _spearman(pairs: list[Any]) -> float | None:
    import torch

    from lit_mem.functional.rank_correlation import spearman

    if len(pairs) < 3:
        return None
    both = torch.tensor(pairs, dtype=torch.float64)
    return spearman(both[:, 0], both[:, 1])


def _exposed(columns: dict[str, list[Any]], member: list[bool], by: str | None, with_text: bool) -> dict[str, Any]:
    """The members of the highest scores of one attack; from the scores of two, the base model's often follow."""
    rates = ("extraction/ngram_rate", "extraction/exact_rate", "extraction/span_rate")
    first = () if by is None else (by,)
    shown: list[str] = [n for n in ("example_id", "origin", "duplicates", *first, *rates) if n in columns]
    shown += ["text"] if with_text and "text" in columns else []
    if by is None:
        return {"by": None, "columns": shown, "rows": []}
    ranked = [i for i, m in enumerate(member) if m and columns[by][i] is not None and not math.isnan(columns[by][i])]
    ranked.sort(key=lambda i: -columns[by][i])
    rows = [[_few_digits(columns[n][i]) for n in shown] for i in ranked[:_EXPOSED]]
    return {"by": by, "columns": shown, "rows": rows}
