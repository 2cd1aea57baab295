"""Convert a pass to a line of the run's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lit_mem.audit.judging import Rule
from lit_mem.audit.loop import Audit, known_of
from lit_mem.audit.table import joined
from lit_mem.files.record import Line


def line_of(
    audit: Audit, metrics: Mapping[str, float], rules: Sequence[Rule], logged_step: int, complete: bool = True
) -> Line | None:
    """The record line of the pass that an audit has finished, or was interrupted in.

    Args:
        audit: the audit that ran the pass.
        metrics: all known metrics of the pass.
        rules: the thresholds in force.
        logged_step: the step under which loggers store the metrics.
        complete: whether every measure was computed.

    Returns:
        None if the pass is not recorded: a check over some of the texts, or one that repeats a validation.
    """
    result = audit.result
    if result is None or result.run.resumed_check or not result.run.complete:
        return None
    run = result.run
    tables = [one.rows for measure, one in result.results.items() if one.rows is not None and not measure.of_canaries]
    rows = joined(tables)
    return Line(
        run.stage,
        epoch=run.epoch,
        step=run.step,
        logged_step=logged_step,
        complete=complete,
        members=int(rows.member.sum()) if tables else None,
        heldout=int((~rows.member).sum()) if tables else None,
        metrics={name: float(metrics[name]) for name in sorted(metrics)},
        absent=dict(known_of(audit.measures).absent),
        stop=[rule.recorded() for rule in rules],
    )
