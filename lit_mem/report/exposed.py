"""For whom a model is worst: persons, subgroups and repeated texts, as recorded by a run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lit_mem.functional.numbers import percent, rate_shown, shown
from lit_mem.functional.planning import Scored
from lit_mem.report.attacks import NEVER, not_tried
from lit_mem.report.history import History, Validation
from lit_mem.report.intervals import bracketed, ends_of

NOT_RECORDED = (
    "Not recorded: no two texts are known to be of one person (group_column), and no subgroup was measured (suite "
    "standard or full, with enough texts), so an average may hide one person or subgroup."
)


def worst_for(last: Validation | None, persons: Mapping[str, Any] | None, attack: str | None) -> list[str]:
    """A sentence each, without names of persons; a single `NOT_RECORDED` where nothing was recorded.

    Args:
        last: the last validation; None: there is none.
        persons: the part of the report on persons; None: there is none.
        attack: that the run is judged by; None: there is none.
    """
    found = [*_of_persons(persons), *(() if last is None else _of_rows(last, attack))]
    return found or [NOT_RECORDED]


def not_covered(history: History, scored: Scored | None, checks: Mapping[str, Any] | None) -> list[str]:
    """What an answer does not cover, a sentence each; the annex lists all of it.

    Args:
        history: of the run.
        scored: how many texts were scored, if that is known.
        checks: what the checks of the data found; None: there are none.
    """
    off = [one.name for one in not_tried(history.names, history.absent) if one not in NEVER]
    own = f", and {len(off)} attacks of lit_mem that were off" if off else ""
    found = [f"Not tried: {', '.join(one.name for one in NEVER)}{own} (see the annex)."]
    if scored is None:
        found.append("How many of the training texts were scored is not recorded.")
    elif scored.of_members is not None and scored.of_members > scored.members:
        n = scored.of_members - scored.members
        found.append(f"{n:,} of {scored.of_members:,} training texts, which were not scored.")
    if checks is None:
        found.append(
            "Whether members and held-out texts are comparable: the data was not checked, or that was not recorded."
        )
    elif checks["warnings"]:
        n = len(checks["warnings"])
        found.append(
            f"The checks of the data gave {n} warning{'s' * (n > 1)}, so the numbers may be too low or too high."
        )
    if not history.whole:
        found.append("The first part of the run, whose record is missing.")
    return found


def _of_persons(persons: Mapping[str, Any] | None) -> Iterator[str]:
    if persons is None:
        return
    yield str(persons["text"])
    columns = list(persons["columns"])
    pieces = [row[columns.index("pieces extracted")] for row in persons["rows"] if "pieces extracted" in columns]
    most = max((n for n in pieces if n is not None), default=0)
    if most:
        what = "marked piece or suffix" if most == 1 else "marked pieces or suffixes"
        yield f"Of the most exposed person, {most:,} {what} {'was' if most == 1 else 'were'} extracted."


def _of_rows(last: Validation, attack: str | None) -> Iterator[str]:
    if (subgroup := worst_subgroup(last.metrics, attack)) is not None:
        name, value, n = subgroup
        interval = bracketed(*ends_of(name, last.metrics))
        of_all = last.get(f"mia/{attack}_auroc")
        beside = "" if of_all is None else f"; of all texts it is {shown(of_all)}"
        yield (
            f"The most exposed of {n} subgroups is {_subgroup(name)}: its AUROC is {shown(value)}{interval}{beside}. "
            "The highest of several overestimates by chance."
        )
    if (most := most_extracted(last.metrics)) is not None:
        name, value = most
        rate = rate_shown(value, *ends_of(name, last.metrics))
        yield (
            f"Of the members of {_subgroup(name)}, {rate} have their whole suffix extracted; of all members prompted, "
            f"{percent(last.metrics['extraction/exact_rate'])}."
        )
    share = last.get("memorization/exposed_share")
    if share is not None:
        yield f"{percent(share)} of the scored members score above almost every held-out text."
    exposed, all_of = (last.get(f"memorization/{who}_duplicates") for who in ("exposed", "members"))
    if exposed is not None and all_of is not None:
        yield (
            f"Of these members, {percent(exposed)} have their text more than once in the training set; "
            f"of all scored members, {percent(all_of)}."
        )


def worst_subgroup(metrics: Mapping[str, float], attack: str | None) -> tuple[str, float, int] | None:
    """The metric of the subgroup with the highest AUROC, that AUROC, and how many subgroups there are.

    Args:
        metrics: of a validation.
        attack: whose AUROC; None: any.

    >>> worst_subgroup({"slice/sex/F/loss_auroc": 0.6, "slice/sex/M/loss_auroc": 0.7}, "loss")
    ('slice/sex/M/loss_auroc', 0.7, 2)
    """
    return _highest(metrics, rf"{'.+' if attack is None else re.escape(attack)}_auroc")


def most_extracted(metrics: Mapping[str, float]) -> tuple[str, float] | None:
    """The metric of the subgroup with the highest rate of whole suffixes extracted, and that rate.

    Args:
        metrics: of a validation.

    Returns:
        None where no subgroup's rate is above that of all members.

    >>> most_extracted({"slice/duplicates/1/exact_rate": 0.5, "extraction/exact_rate": 0.1})
    ('slice/duplicates/1/exact_rate', 0.5)
    """
    overall, most = metrics.get("extraction/exact_rate"), _highest(metrics, "exact_rate")
    if overall is None or most is None:
        return None
    name, rate, _ = most
    return (name, rate) if rate > overall else None


def _highest(metrics: Mapping[str, float], metric: str) -> tuple[str, float, int] | None:
    """The highest of a metric of the subgroups, by a pattern of its last part: its name, its value, of how many."""
    found = {n: v for n, v in metrics.items() if re.fullmatch(rf"slice/.+/.+/{metric}", n) and v == v}
    if not found:
        return None
    name = max(sorted(found), key=lambda one: found[one])
    return name, found[name], len(found)


def _subgroup(name: str) -> str:
    """Column and value of a metric of a subgroup.

    >>> _subgroup("slice/age/18-33/reference_auroc")
    'age = 18-33'
    """
    column, _, value = name.removeprefix("slice/").rpartition("/")[0].partition("/")
    return f"{column} = {value}"
