"""A report as one HTML page that needs nothing else: no network, no files beside it, and no script to be read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.glossary import explained
from lit_mem.functional.numbers import NOT_MEASURED, ends_shown, shown
from lit_mem.functional.plain_text import printable
from lit_mem.report.answer import headline
from lit_mem.report.certainty import level_shown, seeds_wanted, together
from lit_mem.report.intervals import interval
from lit_mem.report.markdown import answers
from lit_mem.report.plots import Plot
from lit_mem.report.run_plots import run_plots

_TEMPLATES: Final = Path(__file__).parent / "templates"


def _interval_of(row: Mapping[str, Any]) -> str:
    """The interval cell of a row of metrics; of a rate of 0 how high it may be."""
    ends = row["last_low"], row["last_high"]
    return ends_shown(row["metric"], row["last"], *ends) or interval(*ends)


def page(report: Mapping[str, Any]) -> str:
    """The HTML of a report."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"shown": cell, "interval": lambda ends: interval(*ends), "interval_of": _interval_of}
    environment.filters |= {"together": together, "level_shown": level_shown, "seeds_wanted": seeds_wanted}
    environment.filters |= {"headline": headline, "answers": answers}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    script = (_TEMPLATES / "page.js").read_text("utf-8")
    kind = report["kind"]
    if kind == "sweep":
        from lit_mem.report.sweep_plots import sweep_plots

        plots: dict[str, list[Plot]] = sweep_plots(report)
    else:
        plots = run_plots(report)
    html: str = environment.get_template(f"{kind}.html").render(
        report=report,
        plots=plots,
        heat=heat_maps(report.get("where")) if kind == "run" else sweep_heat_maps(report["heat_maps"]),
        style=(_TEMPLATES / "style.css").read_text("utf-8"),
        script=script,
        script_hash=script_hash(script),
    )
    return html


def script_hash(script: str) -> str:
    """How a Content-Security-Policy names the one script that may run.

    >>> script_hash("")
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def cell(value: Any) -> str:
    """What a cell of a table shows."""
    if value is None:
        return NOT_MEASURED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return shown(value)
    return printable(str(value))


def heat_maps(where: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The tables of `localize`, each cell with how far the metric changes, as a share of the largest change."""
    from lit_mem.report.localize import METRICS

    maps = []
    for name, title in METRICS.items() if where else ():
        rows = where["layer_matrix"].get(name) if where else None
        if not where or rows is None:
            continue
        base = where["baseline"].get(name)
        by_matrix = [where["by_matrix"].get(str(m), {}).get(name) for m in where["matrices"]]
        table = [
            [*row, where["by_layer"].get(str(layer), {}).get(name)]
            for layer, row in zip(where["layers"], rows, strict=True)
        ]
        table.append([*by_matrix, None])
        changes = [abs(v - base) for row in table for v in row if v is not None and base is not None]
        widest = max(changes, default=0.0) or 1.0
        cells: list[list[dict[str, Any]]] = [
            [{"value": v, "share": 0.0 if v is None or base is None else abs(v - base) / widest} for v in row]
            for row in table
        ]
        cells[-1][-1]["blank"] = "–"  # nothing of the adapter would be left
        maps.append(
            {
                "title": title,
                "note": f"With the whole adapter on: {shown(base)}. The stronger the colour, the larger the change "
                "when that part is off.",
                "corner": "layer",
                "columns": [*where["matrices"], "whole layer"],
                "rows": list(zip([*map(str, where["layers"]), "all layers"], cells, strict=True)),
            }
        )
    return maps


def sweep_heat_maps(maps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tables of a sweep's first two axes, with their titles and intervals."""
    found = []
    for one in maps:
        title, meaning = explained(one["metric"])
        rows = [
            (label, [cell | {"ends": interval(cell["low"], cell["high"])} for cell in cells])
            for label, cells in one["rows"]
        ]
        found.append(
            {
                "title": f"{title}: {one['row']} by {one['column']}",
                "note": f"Mean over seeds: {meaning}. The stronger the colour, the higher.",
                "corner": f"{one['row']} \\ {one['column']}",
                "columns": one["columns"],
                "rows": rows,
            }
        )
    return found
