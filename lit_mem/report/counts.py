"""How much of the data was tested, and the size of a model beside its data; null for what was not recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lit_mem.files.facts import Facts, SetFacts
from lit_mem.functional.planning import Scored
from lit_mem.report.history import History


def counts_of(
    facts: Facts | None, history: History, scored: Scored | None, persons: Mapping[str, Any] | None
) -> dict[str, int | float | None]:
    """Whole numbers, and three ratios.

    Args:
        facts: of the run; None: not recorded.
        history: of the run.
        scored: how many texts were scored; None: not known.
        persons: the part of the report on persons; None: there is none.

    Returns:
        members, heldout: texts of each set. members_scored, heldout_scored: of these. persons, heldout_persons: whom
        the texts are of; persons_scored: those of the training set with a text that was scored. tokens: of the
        training set. trained, parameters: of the model. trained_per_token, trained_per_text, trained_per_person:
        parameters trained for each. validations: how often the model was measured after training began. epochs: that
        it was trained for by the last.
    """
    members = SetFacts() if facts is None else facts.members
    heldout = SetFacts() if facts is None else facts.heldout
    trained = None if facts is None else facts.trained
    rows, others = (None, None) if scored is None else (scored.of_members, scored.of_heldout)
    rows, others = members.rows if rows is None else rows, heldout.rows if others is None else others
    last = history.last
    return {
        "members": rows,
        "members_scored": None if scored is None else scored.members,
        "heldout": others,
        "heldout_scored": None if scored is None else scored.heldout,
        "persons": members.persons,
        "persons_scored": None if persons is None else persons["n_members"],
        "heldout_persons": heldout.persons,
        "tokens": members.tokens,
        "trained": trained,
        "parameters": None if facts is None else facts.parameters,
        "trained_per_token": ratio(trained, members.tokens),
        "trained_per_text": ratio(trained, rows),
        "trained_per_person": ratio(trained, members.persons),
        "validations": len([v for v in history.validations if v.epoch > 0 or history.audit]),
        "epochs": None if history.audit or last is None else last.epoch,
    }


def ratio(number: int | None, of: int | None) -> float | None:
    """A number divided by another; None where one is not known, or the other is 0.

    >>> ratio(10, 4), ratio(None, 4), ratio(10, 0)
    (2.5, None, None)
    """
    return None if number is None or not of else number / of
