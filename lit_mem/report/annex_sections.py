"""The sections of an annex, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lit_mem.functional.numbers import shown
from lit_mem.report.answer import headline
from lit_mem.report.history import History
from lit_mem.report.intervals import interval

NOT_RECORDED: Final = "not recorded"
_NO_PERSONS: Final = "no two texts are known to be of one person (group_column)"
_MOST: Final = 40
_LIMITS: Final = (
    "These numbers are evidence of how the model resists the attacks that were tried, on the texts that were "
    "scored, and of nothing else. A low number does not prove that nothing can be learnt from the model.",
    "A state within the limits says that the limits, which the author of the run has chosen, were kept. It does not "
    "say that the model is anonymous, or that its release is lawful.",
    "Averages hide persons: extraction from one person's texts is a leak whatever the average is.",
    "Members are compared with held-out texts of the same kind. What the base model had seen before is not measured, "
    "nor is anything that happens to the model later, such as further training, merging or quantization.",
    "Intervals are 95 % intervals of one metric on one occasion. The best of several metrics or passes overestimates.",
)

_TO_ADD: Final = (
    "No measurement gives these, and this annex does not have them: the impact assessment, or why none was needed; the "
    "advice of the data-protection officer; where the texts come from, on what basis, and what was done to choose, "
    "reduce and pseudonymise them; what those who deploy the model, and the persons in the data, are informed of.",
)


def sections(annex: Mapping[str, Any], report: Mapping[str, Any], history: History) -> list[dict[str, Any]]:
    """All sections in order.

    Args:
        annex: the facts that they put into words.
        report: the other parts of the report.
        history: of the run.
    """
    return [
        _answer(report),
        _who(annex, report, history),
        _model(annex, report),
        _threat(annex),
        _tried(annex),
        _not_tried(annex),
        _scope(annex),
        _frequency(annex, history),
        _limits_kept(report),
        _results(report),
        _size(annex),
        _measures(report),
        _data(annex, report),
        _section("limits", "Limits of these numbers", (43, 55), _LIMITS),
        _section("to_add", "To be added before filing", (58,), _TO_ADD),
    ]


def _section(
    name: str,
    title: str,
    paragraphs: Sequence[int],
    text: Sequence[str] = (),
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    found = {"id": name, "title": title, "paragraphs": list(paragraphs), "text": list(text)}
    return found | {"columns": list(columns) if rows else [], "rows": [list(row) for row in rows]}


def _facts(rows: Mapping[str, Any]) -> list[list[str]]:
    """Two columns; an unknown value is shown as not recorded."""
    return [[name, NOT_RECORDED if value in (None, "") else str(value)] for name, value in rows.items()]


def _n(value: float | None) -> str:
    return NOT_RECORDED if value is None else shown(value)


def _answer(report: Mapping[str, Any]) -> dict[str, Any]:
    found = report["answer"]
    text = [headline(found), *(["Instead: " + found["instead"]] if found["instead"] else [])]
    rows = [["for whom it is worst", one] for one in found["worst"]]
    rows += [["not covered", one] for one in found["not_covered"]]
    rows += [["what would settle it", one] for one in found["settled_by"]]
    return _section("answer", "The question and the answer", (43, 55), text, ("", ""), rows)


def _who(annex: Mapping[str, Any], report: Mapping[str, Any], history: History) -> dict[str, Any]:
    audit = report["audit"]
    software = annex["software"]
    rows = {
        "run": report["name"],
        "what was done": "an audit of a finished model" if audit else "a training run, measured during training",
        "by whom": annex["author"] or "not stated",
        "started": annex["started"],
        "software that measured": None if software is None else ", ".join(f"{n} {v}" for n, v in software.items()),
        "software that wrote this": ", ".join(f"{n} {v}" for n, v in report["versions"].items()),
        "record": "complete" if history.whole else "its first part is missing",
    }
    return _section("who", "Who tested, when, and with what", (58,), (), ("", ""), _facts(rows))


def _model(annex: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    base, counts = annex["base"], annex["counts"]
    prints = {} if base is None else base["fingerprint"]
    setup = {row["what"]: row["value"] for row in report["setup"]}
    rows = {
        "base model": None if base is None else base["name"],
        "revision": "none" if base is not None and base["revision"] is None else base and base["revision"],
        "fingerprint of its weights": ", ".join(f"{name} {digest}" for name, digest in prints.items() if digest),
        "adapter": setup.get("Adapter") if report["audit"] is None else "see the files below",
        "parameters trained": _n(counts["trained"]),
        "parameters in all": _n(counts["parameters"]),
    }
    return _section("model", "What was tested", (58,), (), ("", ""), _facts(rows))


def _threat(annex: Mapping[str, Any]) -> dict[str, Any]:
    found = annex["threat_model"]
    rows = [[name, "measured"] for name in found["measured"][:_MOST]]
    rows += [[name, "not measured"] for name in found["not_measured"]]
    text = [
        f"Release: {found['release'] or 'not stated'}.",
        found["attacker"],
        found["also"],
        *(["The metrics that matter most for that, the most important first:"] if rows else []),
    ]
    return _section("threat", "Where the model goes, and who may attack it", (46, 58), text, ("metric", ""), rows)


def _tried(annex: Mapping[str, Any]) -> dict[str, Any]:
    rows = [[one["kind"], one["name"], one["words"]] for one in annex["tried"]]
    text = [] if rows else ["None: this run has no metric of an attack."]
    return _section(
        "tried", "Attacks that were tried", (55,), text, ("class", "attack", "what the attacker does"), rows
    )


def _not_tried(annex: Mapping[str, Any]) -> dict[str, Any]:
    rows = [[one["kind"], one["name"], one["words"], one["why"]] for one in annex["not_tried"]]
    columns = ("class", "attack", "what the attacker would do", "why not tried")
    return _section("not_tried", "Attacks that were not tried", (55,), (), columns, rows)


def _scope(annex: Mapping[str, Any]) -> dict[str, Any]:
    counts = annex["counts"]
    known = annex["software"] is not None  # else no count was made
    rows = {
        "texts trained on": _n(counts["members"]),
        "of these scored": _n(counts["members_scored"]),
        "held-out texts": _n(counts["heldout"]),
        "of these scored ": _n(counts["heldout_scored"]),
        "persons or documents trained on": _persons(counts["persons"], _NO_PERSONS if known else None),
        "of these with a text that was scored": _persons(counts["persons_scored"], _NO_PERSONS if known else None),
        "persons or documents held out": _persons(counts["heldout_persons"], _NO_PERSONS if known else None),
        "tokens trained on, prompts included": _n(counts["tokens"]),
    }
    text = ["Held-out texts are of the same kind and were not trained on; the attacks are judged against them."]
    return _section("scope", "How much was tested", (55, 58), text, ("", "number"), _facts(rows))


def _persons(n: float | None, otherwise: str | None) -> str | None:
    return otherwise if n is None else _n(n)


def _frequency(annex: Mapping[str, Any], history: History) -> dict[str, Any]:
    n, epochs = annex["counts"]["validations"], annex["counts"]["epochs"]
    if history.audit:
        text = [f"The finished model was measured {_times(n)}; nothing was trained."]
    else:
        text = [
            f"The model was measured {_times(n)} in {_n(epochs)} epoch{'s' * (epochs != 1)} of training"
            f"{', and once before' if history.start is not None else '; it was not measured before training'}."
        ]
    rows = [] if history.audit else [[str(v.epoch), shown(v.step)] for v in history.validations[-_MOST:]]
    return _section("frequency", "How often it was tested", (55,), text, ("epoch", "training step"), rows)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n:,} times"


def _limits_kept(report: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [
            row["limit"],
            shown(row["last"]),
            interval(row["last_low"], row["last_high"]),
            _state(row["state"]),
            row["set_by"],
        ]
        for row in report["verdict"]["limits"]
    ]
    gate = report["gate"]
    rows += [
        [condition, *_of_condition(condition, gate), "--fail-on"]
        for condition in gate["conditions"]
        if condition not in {row["limit"] for row in report["verdict"]["limits"]}
    ]
    text = [report["verdict"]["text"]]
    columns = ("fails if", "value", "95 % interval", "state", "set by")
    return _section("limits_kept", "The limits, and whether the model is within them", (43, 55), text, columns, rows)


def _of_condition(condition: str, gate: Mapping[str, Any]) -> tuple[str, str, str]:
    for state in ("failed", "undecided"):
        for one in gate[state]:
            if one["condition"] == condition:
                return shown(one["value"]), interval(one["low"], one["high"]), "over" if state == "failed" else state
    return "", "", "within"


def _state(state: str) -> str:
    return "over" if state == "crossed" else str(state)


def _results(report: Mapping[str, Any]) -> dict[str, Any]:
    rows = [
        [row["title"], shown(row["last"]), interval(row["last_low"], row["last_high"]), row["metric"]]
        for row in report["key_metrics"]
        if row["last"] is not None
    ]
    text = ["Of single texts, and under “user/” of persons. docs/reference/metrics.md of lit_mem defines each."]
    return _section("results", "Results", (55, 58), text, ("metric", "value", "95 % interval", "logged as"), rows)


def _size(annex: Mapping[str, Any]) -> dict[str, Any]:
    counts, known = annex["counts"], annex["software"] is not None
    rows = {
        "parameters trained per training token": _n(counts["trained_per_token"]),
        "parameters trained per training text": _n(counts["trained_per_text"]),
        "parameters trained per person": _persons(counts["trained_per_person"], _NO_PERSONS if known else None),
    }
    text = ["The more parameters are trained for each token, the more of a text they can hold."]
    return _section("size", "Parameters trained, beside the size of the data", (58,), text, ("", "ratio"), _facts(rows))


def _measures(report: Mapping[str, Any]) -> dict[str, Any]:
    privacy, data = report["privacy"], report["config"].get("data") or {}
    private = "none" if report["setup"] else None
    rows = {
        "differential privacy": private if privacy is None else privacy["text"],
        "repeated texts removed": "no" if data.get("deduplicate") == "none" else data.get("deduplicate"),
        "limits that stop training": ", ".join(row["limit"] for row in report["verdict"]["limits"]) or "none",
    }
    if report["audit"] is not None:
        rows = {"what was done in training": "not known to an audit"}
    return _section("measures", "Measures against memorization in training", (58,), (), ("", ""), _facts(rows))


def _data(annex: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    data, checks = annex["data"], report["trust"]["checks"] or {}
    text = [
        "The digests are HMAC-SHA256 of all texts and a salt, under a key that stays on the machine of the test. "
        "Without the key they cannot confirm a text, nor show whether two runs had the same texts. With key, salt and "
        "texts they can be recomputed."
    ]
    rows = {
        "digest of the training set": data and f"{data['members']} (of {data['of']})",
        "digest of the held-out texts": data and data["heldout"],
        "salt": data and data["salt"],
        "key": data and data["key"],
        "repeated texts in the training set": checks.get("repeats_normalized"),
        "held-out texts that are in the training set": checks.get("shared_normalized"),
        "held-out texts that nearly repeat one of the training set": checks.get("shared_near"),
        "warnings of the checks": len(checks["warnings"]) if "warnings" in checks else None,
    }
    return _section("data", "The data", (58,), text if data else (), ("", ""), _facts(rows))
