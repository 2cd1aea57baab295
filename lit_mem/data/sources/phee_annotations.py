"""PHEE's annotations of a sentence: its events, its subject as worded, and its sensitive spans."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Final

from lit_mem.data.sources.table import Table

_BREAKS: Final = re.compile(r"[\r\n]+")
_SPANS: Final = {
    ("Subject",): "subject",
    ("Subject", "Age"): "age",
    ("Subject", "Gender"): "sex",
    ("Subject", "Race"): "race",
    ("Subject", "Population"): "population",
    ("Subject", "Disorder"): "disorder",
    ("Treatment", "Drug"): "drug",
    ("Treatment", "Dosage"): "dosage",
    ("Treatment", "Freq"): "frequency",
    ("Treatment", "Route"): "route",
    ("Treatment", "Duration"): "duration",
    ("Treatment", "Time_elapsed"): "time_elapsed",
    ("Treatment", "Disorder"): "disorder",
    ("Treatment", "Combination", "Drug"): "drug",
    ("Effect",): "effect",
}


def sentence(context: str) -> str:
    """The text to train on; one row of PHEE has a line break inside its sentence."""
    return _BREAKS.sub(" ", context.strip())


class AnnotationError(ValueError):
    """Annotations are malformed; the message has what was found and expected."""


def _expect(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        found = "nothing" if value is Table.ABSENT or value is None else type(value).__name__
        raise AnnotationError(f"found {found}, expected {what}")
    return value


def events_of(annotations: Any) -> Iterator[dict[str, Any]]:
    """The events of a row, each with its type.

    Raises:
        AnnotationError: the annotations are malformed.
    """
    for annotation in _expect(annotations, list, "a list"):
        events = _expect(annotation, dict, "a list of objects").get("events")
        for event in _expect(events, list, "a list 'events' in each"):
            _expect(
                _expect(event, dict, "objects in 'events'").get("event_type"),
                str,
                "a text 'event_type' in each event",
            )
            yield event


def wordings(events: list[dict[str, Any]], name: str) -> list[str]:
    """The events' wordings of their subject: one string per entity, its fragments joined by spaces, each once."""
    said: dict[str, None] = {}
    for event in events:
        leaf = _expect(event.get("Subject", {}), dict, "an object 'Subject'").get(name)
        if leaf is None:
            continue
        form = f"lists of texts in Subject.{name}.text"
        for entity in _expect(_expect(leaf, dict, form).get("text"), list, form):
            fragments = [_expect(fragment, str, form) for fragment in _expect(entity, list, form)]
            said[" ".join(fragments)] = None
    return list(said)


def spans_of(events: list[dict[str, Any]], context: str, tally: Counter[str]) -> list[dict[str, Any]]:
    """Every annotated span, sorted by position; `tally` counts those with right and wrong offsets."""
    found: set[tuple[int, int, str]] = set()
    for path, kind in _SPANS.items():
        for fragment, start in (pair for event in events for leaf in _at(event, path) for pair in _fragments(leaf)):
            place = _place(context, fragment, start)
            tally["astray" if place is None else "right"] += 1
            if place is not None:
                found.add((*place, kind))
    return [{"type": kind, "start": start, "end": end} for start, end, kind in sorted(found)]


def _at(node: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """The values below a node of the annotations; a list of nodes is expanded."""
    if isinstance(node, list):
        for one in node:
            yield from _at(one, path)
    elif not path:
        yield node
    elif isinstance(node, dict) and node.get(path[0]) is not None:
        yield from _at(node[path[0]], path[1:])


def _fragments(leaf: Any) -> Iterator[tuple[Any, Any]]:
    """Text and offset of every fragment of every entity of a leaf; None for a missing one."""
    if not isinstance(leaf, dict):
        yield None, None
    elif "text" in leaf:
        for texts, starts in zip_longest(_listed(leaf["text"]), _listed(leaf.get("start"))):
            yield from zip_longest(_listed(texts), _listed(starts))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [None]


def _place(context: str, fragment: Any, start: Any) -> tuple[int, int] | None:
    """Position in the sentence of a fragment at an offset of the context; None if it does not match."""
    if not isinstance(fragment, str) or not fragment.strip() or type(start) is not int or start < 0:
        return None
    if not context.startswith(fragment, start):
        return None
    # The sentence is the context, left-stripped and with line breaks replaced.
    first, last = (len(_BREAKS.sub(" ", context[:at].lstrip())) for at in (start, start + len(fragment)))
    return (first, last) if sentence(context)[first:last] == _BREAKS.sub(" ", fragment) else None
