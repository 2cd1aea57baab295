"""Format a pass as a row of the console's table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COLUMNS: dict[str, tuple[str, str]] = {
    "val/loss": ("val/loss", "{:.3f}"),
    "val/perplexity": ("ppl held-out", "{:.2f}"),
    "memorization/perplexity_members": ("ppl members", "{:.2f}"),
    "mia/reference_auroc": ("AUROC reference", "{:.3f}"),
    "mia/strongest_auroc": ("AUROC strongest [95 %]", "{:.3f}"),
    "mia/reference_tpr_at_fpr_0.01": ("TPR@1%", "{:.3f}"),
    "extraction/ngram_rate": ("n-gram members", "{:.3f}"),
    "extraction/ngram_rate_heldout": ("n-gram held-out", "{:.3f}"),
    "extraction/exact_rate": ("exact", "{:.3f}"),
    "canary/exposure_mean": ("exposure", "{:.2f}"),
    "audit/epsilon_lower_bound": ("epsilon >=", "{:.2f}"),
    "privacy/epsilon": ("epsilon <=", "{:.2f}"),
}
"""Logged name -> heading and format, in display order."""


def heading(names: Sequence[str]) -> str:
    """Header line of the table with these columns."""
    return "  ".join(["epoch", *(_title(name) for name in names)])


def row(label: str, names: Sequence[str], metrics: Mapping[str, float]) -> str:
    """One row of the table; "-" where a metric was not measured."""
    cells = [_cell(name, metrics).rjust(len(_title(name))) for name in names]
    return "  ".join([label.rjust(5), *cells])


def _title(name: str) -> str:
    return COLUMNS.get(name, (name, ""))[0]


def _cell(name: str, metrics: Mapping[str, float]) -> str:
    if name not in metrics:
        return "-"
    form = COLUMNS.get(name, ("", "{:.4g}"))[1]
    cell = form.format(metrics[name])
    if f"{name}_low" in metrics and "[" in _title(name):
        cell += f" [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"
    return cell
