"""How certain the verdicts of a sweep are, in words, from findings as `findings.json` has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def level_shown(finding: Mapping[str, Any]) -> str:
    """The level of its interval.

    >>> level_shown({"level": 0.95}), level_shown({"level": 1 - 0.05 / 8}), level_shown({"level": 1 - 0.05 / 6})
    ('95 %', '99.375 %', '99.167 %')
    """
    return f"{100 * finding['level']:.5g} %"


def together(findings: Sequence[Mapping[str, Any]]) -> str:
    """One sentence on all findings of a sweep; empty without any.

    >>> together([{"level": 0.975, "n_findings": 2}] * 2)
    '2 findings, each by its 97.5 % interval: the chance of any wrong verdict among them is at most 5 %.'
    """
    if not findings:
        return ""
    number, level = findings[0]["n_findings"], level_shown(findings[0])
    which = "1 finding, by its" if number == 1 else f"{number} findings, each by its"
    return f"{which} {level} interval: the chance of any wrong verdict among them is at most 5 %."


def seeds_wanted(finding: Mapping[str, Any]) -> str:
    """How many seeds would decide an undecided finding; empty where it is decided, or the number is unknown.

    >>> seeds_wanted({"seeds_to_decide": 12, "more_than_seeds": None})
    '12 seeds would decide it if means and spread stay as they are'
    >>> seeds_wanted({"seeds_to_decide": None, "more_than_seeds": 1000})
    'it would take more than 1,000 seeds to decide it if means and spread stay as they are'
    """
    as_seen = "if means and spread stay as they are"
    if finding["seeds_to_decide"] is not None:
        return f"{finding['seeds_to_decide']:,} seeds would decide it {as_seen}"
    if finding["more_than_seeds"] is not None:
        return f"it would take more than {finding['more_than_seeds']:,} seeds to decide it {as_seen}"
    return ""


def line(finding: Mapping[str, Any]) -> str:
    """One finding as a line of the console.

    >>> print(line({"verdict": "holds", "statement": "More", "estimate": 0.25, "low": 0.1, "high": 0.4, "note": "slope",
    ...             "level": 0.975, "n_seeds": 3, "seeds_to_decide": None, "more_than_seeds": None}))
    holds: More (0.25, 97.5 % interval [0.1, 0.4], slope; 3 seeds)
    """
    span = ""
    if finding["low"] is not None:
        span = f", {level_shown(finding)} interval [{finding['low']:.3g}, {finding['high']:.3g}]"
    value = "" if finding["estimate"] is None else f"{finding['estimate']:.3g}{span}, "
    wanted = seeds_wanted(finding)
    text = f"{finding['verdict']}: {finding['statement']} ({value}{finding['note']}; {finding['n_seeds']} seeds"
    return f"{text}; {wanted})" if wanted else f"{text})"
