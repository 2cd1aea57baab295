"""Last lines printed by `validate` and `test`: a table row, a sentence, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Final

from lit_mem import program
from lit_mem.audit.row import COLUMNS, heading, row
from lit_mem.functional.numbers import rate_shown

_RATES: Final = {
    "extraction/exact_rate": "members whose whole suffix was extracted, among those prompted,",
    "extraction/span_rate": "marked spans of members extracted",
    "user/extracted_share": "persons with at least one extracted piece",
}


def table(metrics: Mapping[str, float], label: str, columns: Sequence[str] | None = None) -> list[str]:
    """The header and the row of `EpochTable` for one pass.

    Args:
        metrics: its metrics.
        label: text of the first column.
        columns: metric names of the columns; None: the default ones. In a test, `test/…` replaces `val/…`.
    """
    names = {name: here(name, metrics) for name in columns or COLUMNS}
    shown = {name: here for name, here in names.items() if here in metrics}
    if not shown:
        return []
    named = {name: metrics[here] for name, here in shown.items()}
    ends = {name: value for name, value in metrics.items() if name.endswith(("_low", "_high"))}
    return [heading(list(shown)), row(label, list(shown), ends | named)]


def metric_lines(metrics: Mapping[str, float]) -> list[str]:
    """A line for each metric, `name  value`, in alphabetical order."""
    width = max(map(len, metrics), default=0)
    return [f"{name.ljust(width)}  {float(metrics[name]):.4f}" for name in sorted(metrics)]


def sentence(metrics: Mapping[str, float]) -> str:
    """A one-sentence summary of the metrics; "" if none of the usual ones was measured."""
    parts = []
    loss, perplexity = _value("val/loss", metrics), metrics.get("memorization/perplexity_members")
    if loss is not None:
        parts.append(f"held-out loss is {loss:.3f} nats per token")
    if perplexity is not None:
        heldout = _value("val/perplexity", metrics)
        beside = "" if heldout is None else f", on held-out texts {heldout:.2f}"
        parts.append(f"perplexity of members is {perplexity:.2f}{beside}")
    for attack in ("strongest", "reference", "loss"):
        name = f"mia/{attack}_auroc"
        if name in metrics:
            ends = [f"{metrics[f'{name}_{end}']:.3f}" for end in ("low", "high") if f"{name}_{end}" in metrics]
            interval = f" [{', '.join(ends)}]" if ends else ""
            parts.append(f"AUROC of the {attack} attack is {metrics[name]:.3f}{interval}, where 0.5 is chance level")
            break
    for name, what in _RATES.items():
        if name in metrics:
            rate = rate_shown(metrics[name], metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))
            parts.append(f"the rate of {what} is {rate}")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def next_steps(
    folder: str | None,
    has_report: bool,
    conditions: Sequence[str] = (),
    without: str = "trainer.logger is false",
) -> list[str]:
    """Path of the run's files, and the command that makes a report of them.

    Args:
        folder: folder of the run; None if it has none.
        has_report: whether there is a record to make a report of.
        conditions: training's thresholds, such as "mia/reference_auroc > 0.7", passed on to the command.
        without: why there is no folder.
    """
    if folder is None:
        return [f"No run folder: {without}."]
    lines = [f"Run: {folder}"]
    if has_report:
        options = "".join(f" --fail-on {shlex.quote(condition)}" for condition in conditions)
        what = "Next, with training's thresholds as conditions" if conditions else "Next"
        lines.append(f"{what}: {program.command()} report {shlex.quote(folder)}{options}")
    return lines


def here(name: str, metrics: Mapping[str, float]) -> str:
    """The name under which a pass logs a metric: in a test, `test/…` replaces `val/…`."""
    test = name.replace("val/", "test/", 1) if name.startswith("val/") else name
    return name if name in metrics else test


def _value(name: str, metrics: Mapping[str, float]) -> float | None:
    return metrics.get(here(name, metrics))
