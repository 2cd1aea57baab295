"""Judge a model against its limits; console, report, sweep and gate all use this judgement."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from lit_mem.audit.thresholds import Limits, Threshold
from lit_mem.files.record import Stop
from lit_mem.functional.numbers import shown
from lit_mem.functional.planning import Scored, needed_to_settle, times_as_many, times_as_many_of_rate

State = Literal["within", "undecided", "not measured", "over"]
"""From best to worst."""

_ORDER: tuple[State, ...] = ("within", "undecided", "not measured", "over")
_HEADS: Final[dict[State, str]] = {
    "within": "Within the limits",
    "undecided": "Undecided",
    "not measured": "Not measured",
    "over": "Over the limits",
}
_MANY_TIMES = 1000
_UNITS: Final = {"user/": "persons", "canary/": "canaries"}
_HALVED = "mia/combined_auroc"


@dataclass(frozen=True)
class Judged:
    """A metric against a limit.

    Attributes:
        threshold: the limit.
        state: "within" or "over" if the whole 95 % interval lies on that side of the limit, "undecided" if the limit
            lies in the interval; decided by the value if the metric has no interval. "not measured" without a value.
        value: value of the metric; None if it was not measured.
        low: lower end of the interval; None without one.
        high: upper end.
    """

    threshold: Threshold
    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """The metric, its value, its interval and the limit."""
        ends = "" if self.low is None or self.high is None else f" [{shown(self.low)}, {shown(self.high)}]"
        bound = "at most" if self.threshold.above else "at least"
        return f"{self.threshold.name} is {shown(self.value)}{ends}, the limit is {bound} {shown(self.threshold.limit)}"


class Rule(NamedTuple):
    """Thresholds that are combined by "any" or "all".

    Attributes:
        set_by: the option that set them, such as `memorization.stop` or `MemorizationEarlyStopping.thresholds`.
        limits: the thresholds.
        counted: "any": one threshold over its limit is enough; "all": every one must be over.
    """

    set_by: str
    limits: Limits
    counted: str

    def recorded(self) -> Stop:
        """The form in which the record stores it."""
        texts = [f"{one.name} {'>' if one.above else '<'} {one.limit!r}" for one in self.limits]
        return Stop(self.set_by, texts, self.counted, self.limits.lower_bound)

    @classmethod
    def of_record(cls, stop: Stop) -> Rule:
        """Restore from a line of the record.

        Raises:
            ConfigError: a threshold is malformed.
        """
        return cls(stop.set_by, Limits(list(stop.thresholds), stop.lower_bound), stop.stop_when)


def judge(threshold: Threshold, metrics: Mapping[str, float]) -> Judged:
    """Judge one validation against one threshold.

    Args:
        threshold: such as `mia/reference_auroc > 0.7`.
        metrics: metrics of the validation by name; `<name>_low` and `<name>_high` are the interval of `<name>`.
    """

    def measured(name: str) -> float | None:
        value = metrics.get(name)
        return None if value is None or math.isnan(value) else value

    value, low, high = (measured(threshold.name + end) for end in ("", "_low", "_high"))
    if value is None:
        return Judged(threshold, "not measured")
    if low is None or high is None:
        return Judged(threshold, "over" if threshold.passed_by(value) else "within", value)
    nearest, furthest = (low, high) if threshold.above else (high, low)
    over, maybe = threshold.passed_by(nearest), threshold.passed_by(furthest)
    return Judged(threshold, "over" if over else "undecided" if maybe else "within", value, low, high)


def together(states: Iterable[State], counted: str = "any") -> State:
    """Combine the states of several thresholds.

    Args:
        states: state of each threshold.
        counted: "any": the worst state; "all": the best state, since all limits must be exceeded at once.
    """
    ranked = [_ORDER.index(state) for state in states]
    return _ORDER[(min if counted == "all" else max)(ranked, default=0)]


def judged_texts(name: str, scored: Scored) -> Scored:
    """Number of texts that a metric is computed from: all scored ones, or half of them for `mia/combined_auroc`.

    Args:
        name: name of the metric.
        scored: number of scored texts.

    Source: the other half is used for fitting, the smaller one if a set is odd (`functional.combine`).
    """
    if name != _HALVED:
        return scored
    return Scored(*(None if n is None else n - n // 2 for n in scored))  # type: ignore[arg-type]


def settled_by(judged: Judged, scored: Scored | None) -> str:
    """What would settle an undecided judgement, as a clause of a sentence.

    Args:
        judged: a judgement that is "undecided".
        scored: number of texts scored for the `mia/` metrics; None if not known.
    """
    value, low, high, limit = judged.value, judged.low, judged.high, judged.threshold.limit
    if value is None or low is None or high is None or value == limit:
        return "the value equals the limit, which no number of texts can settle"
    of_all = judged.threshold.is_auroc and judged.threshold.name.startswith("mia/")
    if of_all and scored is not None and scored.members and scored.heldout and 0 <= value <= 1:
        part = judged_texts(judged.threshold.name, scored)
        needed = needed_to_settle(value, limit, part, (low, high))
        if needed is None:
            return "the value is too close to the limit for a million texts to settle it"
        times = 1 if part is scored else 2
        members, heldout = times * needed.members, times * needed.heldout
        now = f"{scored.members:,} members and {scored.heldout:,} held-out texts were scored"
        if times > 1:
            now += ", and the metric is computed from half of them"
        if part.of_members is not None and needed.members > max(part.members, part.of_members):
            n = max(scored.members, scored.of_members or 0)
            both = f"about {members:,} members and {heldout:,} held-out texts"
            return f"settling it takes more than the {n:,} members available: {both}; {now}"
        if needed != (part.members, part.heldout):
            more = f" and {members:,} members" if needed.members > part.members else ""
            return f"about {heldout:,} held-out texts{more} would settle it if the value stays; {now}"
    factor = None if of_all else times_as_many_of_rate(value, (low, high), limit)
    if factor is None:
        factor = times_as_many(value, low if limit < value else high, limit)
    units = next((units for start, units in _UNITS.items() if judged.threshold.name.startswith(start)), "texts")
    if factor > _MANY_TIMES:
        return f"the value is too close to the limit to be settled by more {units}"
    return f"about {factor:.2g} times as many {units} would settle it if the value stays"


def explained(judged: Sequence[Judged], scored: Scored | None) -> str:
    """Each judgement in words, with what would settle the undecided ones."""
    parts = [f"{one} ({settled_by(one, scored)})" if one.state == "undecided" else str(one) for one in judged]
    return "; ".join(parts)


def judge_all(rules: Sequence[Rule], metrics: Mapping[str, float]) -> tuple[State, list[Judged]]:
    """State of a pass by all rules, and each judgement once, even if several rules share a threshold."""
    found = [[judge(threshold, metrics) for threshold in rule.limits] for rule in rules]
    pairs = zip(found, rules, strict=True)
    state = together(together([one.state for one in judged], rule.counted) for judged, rule in pairs)
    return state, list(dict.fromkeys(one for judged in found for one in judged))


def judged_by(rules: Sequence[Rule], metrics: Mapping[str, float]) -> tuple[State, list[Judged]]:
    """State of a pass by all rules, and the judgements that determine it."""
    state, every = judge_all(rules, metrics)
    return state, [one for one in every if one.state == state] or every


def verdict_line(state: State, judged: Sequence[Judged], when: str, scored: Callable[[str], Scored | None]) -> str:
    """One sentence that judges a pass.

    Args:
        state: overall state.
        judged: the judgements that determine it.
        when: such as " after epoch 3".
        scored: gives the number of texts that a metric was computed from, by its name.
    """
    parts = []
    for one in judged:
        parts.append(explained([one], scored(one.threshold.name) if one.state == "undecided" else None))
    why = ", since the limit lies within the 95 % interval" if state == "undecided" else ""
    return f"{_HEADS[state]}{when}{why}: {'; '.join(parts)}."
