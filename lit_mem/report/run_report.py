"""The report of one run as plain data, of which the page and the JSON file are two forms."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.judging import Rule
from lit_mem.audit.thresholds import Limits, Threshold
from lit_mem.errors import DataError
from lit_mem.files.facts import read_facts
from lit_mem.files.software import versions
from lit_mem.report.annex import Filing, annex_of
from lit_mem.report.answer import answer
from lit_mem.report.chain import read_run
from lit_mem.report.checkpoints import kept_checkpoints
from lit_mem.report.example_rows import HOW, example_report, last_table
from lit_mem.report.exposed import not_covered, worst_for
from lit_mem.report.files import read_config, read_json
from lit_mem.report.gate import check_known, gate, not_passed
from lit_mem.report.judgement import verdict
from lit_mem.report.key_metrics import key_rows
from lit_mem.report.limits import run_rules
from lit_mem.report.localize import read_localized
from lit_mem.report.persons import persons_of
from lit_mem.report.private_training import private_training
from lit_mem.report.setup import setup_of
from lit_mem.report.subgroups import subgroups_of
from lit_mem.report.subject import audit_of, scored_of, scored_text, set_sizes
from lit_mem.report.trust import trust

SCHEMA: Final = 2


def run_report(
    folder: Path,
    with_text: bool = False,
    fail_on: Iterable[Threshold] = (),
    filing: Filing = Filing(),  # noqa: B008  (never changed)
) -> dict[str, Any]:
    """Read a run's log folder.

    Args:
        folder: holds `memorization.jsonl` or `metrics.csv`, and most often `config.yaml`.
        with_text: include texts of the most exposed members.
        fail_on: conditions that fail the report where the last validation meets them.
        filing: what the person who files the report states.

    Raises:
        DataError: a file of the folder is damaged.
        ConfigError: a condition is on a metric that was never logged.
    """
    text, config = read_config(folder / "config.yaml")
    history, origin = read_run(folder, config)
    wanted = list(fail_on)
    check_known(wanted, history.names, "the run")
    audit = audit_of(origin, config) if history.audit else None
    checks = _checks(folder / "checks.json")
    # The limits of an audit are those that it was given: thresholds of `validate`'s configuration are for training.
    rules = run_rules(folder, config, history)
    if audit:
        given = [rule for rule in rules if audit["command"] == "audit"]
        rules = [_of_fail_on(wanted)] if wanted else given
    attack = _attack([t.name for rule in rules for t in rule.limits], history.names)
    kept = [] if audit else kept_checkpoints(folder, history, rules)
    table = last_table(folder, config)
    examples = None if table is None else example_report(table, attack, with_text)
    scored = scored_of(checks, folder / "checks.json", examples)
    best = next((row for row in kept if row["name"] == "best"), None)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "run",
        "name": f"{folder.resolve().parent.name}/{folder.resolve().name}",
        "audit": audit,
        "scored": None if scored is None else scored._asdict() | {"text": scored_text(scored)},
        "setup": setup_of(config, set_sizes(scored, checks, config.get("data") or {}), audit),
        "verdict": verdict(rules, history, best, scored, audit["of"] if audit else "model"),
        "persons": persons_of(folder, history.last),
        "subgroups": subgroups_of(history.last, attack),
        "attack": attack,
        "key_metrics": key_rows(history, attack, best),
        "validations": [{"epoch": v.epoch, "step": v.step, "metrics": v.metrics} for v in history.validations],
        "checkpoints": kept,
        "examples": examples,
        "trust": trust(checks, config, history),
        "privacy": private_training(folder, config, history),
        "where": read_localized(folder),
        "notes": [*history.notes, *([HOW] if table is None else [])],
        "gate": gate(wanted, not_passed(wanted, history.last, scored=scored, audit=history.audit)),
        "config": config,
        "config_text": text,
        "versions": versions(),
    }
    judged_by = rules if audit or not wanted else [*rules, _of_fail_on(wanted)]
    found = answer(judged_by, history, scored, best)
    found |= {"worst": worst_for(history.last, report["persons"], attack)}
    report["answer"] = found | {"not_covered": not_covered(history, scored, checks)}
    report["annex"] = annex_of(report, history, read_facts(folder), scored, filing)
    return report


def _of_fail_on(wanted: Iterable[Threshold]) -> Rule:
    return Rule("--fail-on", Limits([str(threshold) for threshold in wanted]), "any")


def _attack(limits: list[str], names: set[str]) -> str | None:
    """The attack that the run is judged by: that of its limits, else the reference attack, else the first."""
    found = [match[1] for name in limits if (match := re.match(r"mia/(.+)_auroc", name))]
    logged = sorted(match[1] for name in names if (match := re.fullmatch(r"mia/(.+)_auroc", name)))
    return next((one for one in [*found, "reference", *logged] if one in logged), None)


def _checks(path: Path) -> dict[str, Any] | None:
    """What the checks of the data found before training; None without their file."""
    found = read_json(path)
    if found is None:
        return None
    if not isinstance(found, dict) or not {"summary", "warnings"} <= set(found):
        raise DataError(f"{path}: there is no summary and warnings; expected what the data module writes")
    return found
