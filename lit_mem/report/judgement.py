"""A run against its limits, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lit_mem.audit.judging import Rule, State, explained, judge, judge_all, settled_by
from lit_mem.audit.thresholds import Threshold
from lit_mem.functional.planning import Scored
from lit_mem.report.history import History, Validation

NAMES: Final[dict[State, str]] = {
    "within": "within",
    "undecided": "undecided",
    "not measured": "not measured",
    "over": "crossed",
}
"""What report.json calls the states of `judge`."""


def verdict(
    rules: Sequence[Rule],
    history: History,
    best: Mapping[str, Any] | None = None,
    scored: Scored | None = None,
    subject: str = "model",
) -> dict[str, Any]:
    """Each limit at the last and at the worst epoch, and the verdict.

    Args:
        rules: of the run.
        history: of the run; what was measured before training is not judged.
        best: the checkpoint that the run names its best, as the report lists it.
        scored: how many texts were scored; None: not known.
        subject: "model", "adapter" or "checkpoint".

    Returns:
        `state`: "within" (the last validation), "crossed before" (within at the last, over at an earlier one),
        "crossed" (over at the last), "undecided" (the limit lies within the interval), "not measured" or "no limits";
        `text`: a few sentences; `limits`: a row each.
    """
    rows = [_row(rule, threshold, history, scored) for rule in rules for threshold in rule.limits]
    if not rows:
        return {"state": "no limits", "text": _no_limits(history, subject), "limits": rows}
    if not history.trained:
        return {"state": "not measured", "text": "The run ended before anything was measured.", "limits": rows}
    last = history.trained[-1]
    states = [judge_all(rules, validation.metrics)[0] for validation in history.trained]
    state = NAMES[states[-1]]
    if states[-1] == "within" and "over" in states:
        state = "crossed before"
    text = _text(state, states, rules, history, scored, subject)
    if state != "within" and best is not None:
        text += _of_best(judge_all(rules, best["metrics"])[0], best, last)
    caveats = dict.fromkeys(rule.limits.caveat(len(history.trained)) for rule in rules)
    return {"state": state, "text": text + "".join(caveats), "limits": rows}


def _no_limits(history: History, subject: str) -> str:
    if history.audit:
        return (
            f"No limit was given for this audit, so the {subject} neither passed nor failed. The metrics below are "
            "what was measured. To judge it, give the report a limit, such as --fail-on "
            '"mia/reference_auroc > 0.7".'
        )
    return (
        "This run had no memorization limits, so it neither passed nor failed. The metrics below are what was "
        "measured. To set a limit, use the option memorization.stop, as in "
        '--memorization.stop "mia/reference_auroc > 0.7".'
    )


def _row(rule: Rule, threshold: Threshold, history: History, scored: Scored | None) -> dict[str, Any]:
    name = threshold.name
    measured = [v for v in history.trained if v.get(name) is not None]
    worst = (max if threshold.above else min)(measured, key=lambda v: v.metrics[name]) if measured else None
    crossed = [v for v in measured if judge(threshold, v.metrics).state == "over"]
    last = judge(threshold, history.trained[-1].metrics if history.trained else {})
    return {
        "set_by": rule.set_by,
        "counted": rule.counted,
        "limit": str(threshold),
        "metric": name,
        "above": threshold.above,
        "bound": threshold.limit,
        "stops_at": threshold.cautious_name() if rule.limits.lower_bound else name,
        "last": last.value,
        "last_low": last.low,
        "last_high": last.high,
        "worst": worst.metrics[name] if worst else None,
        "worst_epoch": worst.epoch if worst else None,
        "first_crossed": crossed[0].epoch if crossed else None,
        "state": NAMES[last.state],
        "settled_by": settled_by(last, scored) if last.state == "undecided" else None,
    }


def _text(
    state: str,
    states: Sequence[State],
    rules: Sequence[Rule],
    history: History,
    scored: Scored | None,
    subject: str,
) -> str:
    last = history.trained[-1]
    judged = [judge(threshold, last.metrics) for rule in rules for threshold in rule.limits]
    chosen = [one for one in judged if one.state == states[-1]] or judged
    values = explained(list(dict.fromkeys(chosen)), scored)
    n = len(judged)
    at = "" if history.audit else f"after epoch {last.epoch} " if last.epoch else "before training "
    count = "its limit" if n == 1 else f"all {n} of its limits"
    which = "its limit" if n == 1 else f"its {n} limits"
    over = [v.epoch for v, one in zip(history.trained, states, strict=True) if one == "over"]
    if state == "within":
        return _sentence(f"{at}the {subject} is within {count} on memorization{_so_far(states, history)}: {values}.")
    if state == "crossed before":
        return _sentence(f"{at}the {subject} is within {count}, but it was over after epoch {over[0]}: {values}.")
    if state == "crossed":
        since = f", and was first over after epoch {over[0]}" if over[0] != last.epoch else ""
        some = "its limit" if n == 1 else f"{len(chosen)} of its {n} limits"
        return _sentence(f"{at}the {subject} memorizes more than its limits allow. It is over {some}{since}: {values}.")
    before = f" It was over after epoch {over[0]}." if over else ""
    whether = _sentence(f"{at}it is undecided whether the {subject} is within {which}")
    if state == "undecided":
        return f"{whether}, as the limit lies within the 95 % interval: {values}.{before}"
    blank = ", ".join(dict.fromkeys(one.threshold.name for one in judged if one.state == "not measured"))
    return f"{whether}: {blank} was not measured{'' if history.audit else ' at this epoch'}.{before}"


def _so_far(states: Sequence[State], history: History) -> str:
    """The earlier validations of a run that is within its limits now and was never over."""
    n, within = len(states), states.count("within")
    if n == 1:
        return ""
    since = "" if history.whole else f" from epoch {history.trained[0].epoch} on"
    if within == n:
        return f", and it was so at each of the {n} validations{since}"
    return f", as at {within} of the {n} validations{since}; the others are undecided"


def _of_best(state: State, best: Mapping[str, Any], last: Validation) -> str:
    which = f"{best['name']}, from epoch {best['epoch']}"
    if state == "within":
        return f" The run kept a checkpoint that is within every limit: {which}."
    if state == "undecided" and best["epoch"] != last.epoch:
        return f" The checkpoint {which}, is undecided too."
    return ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
