"""Can I release it? One of three answers, with its reasons and what it does not cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lit_mem.audit.judging import Judged, Rule, State, explained, judge_all, judged_by, settled_by
from lit_mem.functional.planning import Scored
from lit_mem.report.history import History

QUESTION: Final = "Can I release it?"
WITHIN: Final = "within its limits"
OVER: Final = "over its limits"
UNKNOWN: Final = "undecided"

_ANSWERS: Final[dict[State, str]] = {
    "within": WITHIN, "over": OVER, "undecided": UNKNOWN, "not measured": UNKNOWN,
}  # fmt: skip
_ATTACKS: Final = "by the attacks that were tried"
_TRAINED: Final = "measure the trained model: this run was measured only before training"


def answer(
    rules: Sequence[Rule], history: History, scored: Scored | None, best: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The answer by the limits at the last validation.

    Args:
        rules: all limits, those of `--fail-on` too.
        history: of the run.
        scored: how many texts were scored; None: not known.
        best: the checkpoint that the run names its best, as the report lists it.

    Returns:
        question; answer: "within its limits", "over its limits" or "undecided"; text: why; missing: metrics that
        were not measured; settled_by: what would settle an undecided answer; instead: what to release in
        place of the last weights, or null.
    """
    last = history.last
    if not rules:
        return _made(UNKNOWN, "no limit was set", settled=[_how_to_set(history)])
    if last is None or not (history.audit or last.epoch):
        what = "nothing was measured" if last is None else "only the model before training was measured"
        missing = sorted({threshold.name for rule in rules for threshold in rule.limits})
        return _made(UNKNOWN, what, missing, ["measure it: lit-mem audit" if last is None else _TRAINED])
    state, chosen = judged_by(rules, last.metrics)
    missing = sorted({one.threshold.name for one in chosen if one.state == "not measured"})
    values = explained([one for one in chosen if one.state != "not measured"], scored)
    if state == "not measured":
        return _made(UNKNOWN, f"not measured: {', '.join(missing)}", missing, [_measure(n, history) for n in missing])
    if state == "undecided":
        settled = [f"{one.threshold.name}: {settled_by(one, scored)}" for one in chosen]
        return _made(UNKNOWN, f"a limit lies within the 95 % interval: {_plain(chosen)}", settled=settled)
    before = [v.epoch for v in history.trained if judge_all(rules, v.metrics)[0] == "over"]
    earlier = f". It was over after epoch {before[0]}" if state == "within" and before else ""
    at = "" if history.audit else f"after epoch {last.epoch} and "
    made = _made(_ANSWERS[state], f"{at}{_ATTACKS}: {values}{earlier}")
    if state == "over" and best is not None and judge_all(rules, best["metrics"])[0] == "within":
        made["instead"] = (
            f"The checkpoint {best['name']}, from epoch {best['epoch']}, is within every limit, {_ATTACKS}. It was "
            "chosen among several, so its metrics look better than they are."
        )
    return made


def headline(found: Mapping[str, Any]) -> str:
    """Question and answer as one line.

    >>> headline({"question": "Can I release it?", "answer": "undecided", "text": "no limit was set"})
    'Can I release it? Undecided: no limit was set.'
    """
    said = found["answer"][:1].upper() + found["answer"][1:]
    sign = ":" if found["answer"] == UNKNOWN else ","
    return f"{found['question']} {said}{sign} {found['text']}."


def _made(said: str, text: str, missing: Sequence[str] = (), settled: Sequence[str] = ()) -> dict[str, Any]:
    found = {"question": QUESTION, "answer": said, "text": text, "missing": list(missing), "settled_by": list(settled)}
    return found | {"instead": None}


def _plain(judged: Sequence[Judged]) -> str:
    return "; ".join(map(str, judged))


def _measure(name: str, history: History) -> str:
    lacks = history.absent.get(name)
    if lacks is not None:
        return f"{name}: this run cannot measure it ({lacks})"
    return f"{name}: a run or audit that measures it (docs/reference/metrics.md names the option)"


def _how_to_set(history: History) -> str:
    report = '--fail-on "mia/reference_auroc > 0.7" of lit-mem report judges this record'
    if history.audit:
        return f"set a limit: {report}"
    return f'set a limit: {report}; --memorization.stop "mia/reference_auroc > 0.7" sets one for the next run'
