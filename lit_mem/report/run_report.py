"""All that the report of one run says, as plain data: the page and the JSON file are two forms of it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.judging import Rule
from lit_mem.audit.thresholds import Limits, Threshold
from lit_mem.errors import DataError
from lit_mem.report.chain import chain_of, read_run
from lit_mem.report.example_rows import HOW, example_report, last_table
from lit_mem.report.files import read_config, read_json
from lit_mem.report.gate import check_known, gate, not_passed
from lit_mem.report.glossary import explained, key_figures
from lit_mem.report.history import History, Validation
from lit_mem.report.judgement import NAMES, state_of, verdict
from lit_mem.report.limits import run_rules
from lit_mem.report.private_training import private_training
from lit_mem.report.subject import audit_of, base_of, scored_of, scored_text, set_sizes
from lit_mem.report.where import read_where

SCHEMA: Final = 1
_PACKAGES: Final = ("lit_mem", "torch", "lightning", "transformers", "peft", "opacus", "datasets", "matplotlib")
_CHECKPOINTS: Final = ("best", "safe", "last")


def run_report(folder: Path, with_text: bool = False, fail_on: Iterable[Threshold] = ()) -> dict[str, Any]:
    """Read a run's log folder.

    Args:
        folder: holds `memorization.jsonl` or `metrics.csv`, and most often `config.yaml`.
        with_text: give texts of the most exposed members.
        fail_on: conditions that the last validation is not to meet.

    Raises:
        DataError: a file of the folder is damaged.
        ConfigError: a condition is on a figure that was never logged.
    """
    text, config = read_config(folder / "config.yaml")
    history, origin = read_run(folder, config)
    wanted = list(fail_on)
    check_known(wanted, history.names, "the run")
    audit = audit_of(origin, config) if history.audit else None
    checks = _checks(folder / "checks.json")
    # The limits of an audit are those that it was given: a configuration's thresholds are for training.
    rules = [Rule("--fail-on", Limits([str(t) for t in wanted]), "any")] if audit and wanted else []
    rules = rules if audit else run_rules(folder, config, history)
    attack = _attack([t.name for rule in rules for t in rule.limits], history.names)
    kept = [] if audit else _checkpoints(folder, history, rules)
    table = last_table(folder, config)
    examples = None if table is None else example_report(table, attack, with_text)
    scored = scored_of(checks, folder / "checks.json", examples)
    best = next((row for row in kept if row["name"] == "best"), None)
    return {
        "schema": SCHEMA,
        "kind": "run",
        "name": f"{folder.resolve().parent.name}/{folder.resolve().name}",
        "audit": audit,
        "scored": None if scored is None else scored._asdict() | {"text": scored_text(scored)},
        "setup": setup_of(config, set_sizes(scored, checks, config.get("data") or {}), audit),
        "verdict": verdict(rules, history, best, scored, audit["of"] if audit else "model"),
        "attack": attack,
        "key_figures": _key_figures(history, attack, best),
        "validations": [{"epoch": v.epoch, "step": v.step, "figures": v.figures} for v in history.validations],
        "checkpoints": kept,
        "examples": examples,
        "trust": _trust(checks, config, history),
        "privacy": private_training(folder, config, history),
        "where": read_where(folder / "where.json"),
        "notes": [*history.notes, *([HOW] if table is None else [])],
        "gate": gate(wanted, not_passed(wanted, history.last, scored=scored, audit=history.audit)),
        "config": config,
        "config_text": text,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Of the packages that matter, as they are now."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def setup_of(
    config: Mapping[str, Any], sizes: tuple[str, str] = ("", ""), audit: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """What was trained on what, or audited with what, a row a part; empty without a configuration.

    Args:
        config: of the run.
        sizes: of members and held-out texts, in words.
        audit: what was audited; None: the run trained.
    """
    model, data, trainer = (config.get(part) or {} for part in ("model", "data", "trainer"))
    if not model and not data:
        return []
    rows = {
        "Model": _words(base_of(model), model.get("revision") and f"revision {model['revision']}"),
        "Adapter": _words(model.get("adapter_path")) or _component(model.get("adapter")),
        "Reference": _words(
            (model.get("reference") or {}).get("model_id") or (model.get("reference") or {}).get("kind")
        ),
        "Data": _component(data.get("source")),
        "Members": sizes[0],
        "Held-out texts": sizes[1],
        "Length": _words(data.get("max_length") and f"at most {data['max_length']} tokens"),
        "Batch size": _words(data.get("batch_size")),
        "Optimizer": _component(model.get("optimizer"), ("lr", "weight_decay")),
        "Epochs": _words(trainer.get("max_epochs") and f"at most {trainer['max_epochs']}"),
        "Private training": _words("off" if not model.get("privacy") else "on, differential privacy"),
        "Canaries": _component(data.get("canaries")),
        "Seed": _words(config.get("seed_everything")),
    }
    if audit is not None:  # nothing of this was done
        rows |= {"Optimizer": "", "Epochs": "", "Batch size": "", "Private training": "", "Canaries": ""}
        rows |= {"Checkpoint": audit["name"]} if audit["of"] == "checkpoint" else {}
        rows |= {"Adapter": ""} if audit["of"] == "model" else {}
    return [{"what": what, "value": value} for what, value in rows.items() if value]


def _words(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part is not None and part is not False and part != "")


def _component(entry: Any, only: tuple[str, ...] = ()) -> str:
    """A class of the configuration with its options, those at null left out."""
    if not isinstance(entry, Mapping):
        return _words(entry)
    name = str(entry.get("class_path", "")).rpartition(".")[2]
    options = {
        k: v
        for k, v in (entry.get("init_args") or {}).items()
        if v not in (None, {}, []) and v is not False and (not only or k in only)
    }
    found = ", ".join(f"{k} {'+'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in options.items())
    return f"{name} ({found})" if found else name


def _attack(limits: list[str], names: set[str]) -> str | None:
    """The attack that the run is judged by: that of its limits, else the paper's, else the first."""
    found = [match[1] for name in limits if (match := re.match(r"mia/(.+)_auroc", name))]
    logged = sorted(match[1] for name in names if (match := re.fullmatch(r"mia/(.+)_auroc", name)))
    return next((one for one in [*found, "reference", *logged] if one in logged), None)


def _checkpoints(folder: Path, history: History, rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """The checkpoints that a run, or one that it was resumed from, still holds."""
    rows, runs = [], chain_of(folder).folders
    for name in _CHECKPOINTS:
        for run, upto in runs:
            found = read_json(run / "checkpoints" / f"{name}-adapter" / "lit_mem.json")
            step = found.get("global_step") if isinstance(found, dict) else None
            if not isinstance(found, dict) or "epoch" not in found or (upto is not None and (step or 0) > upto):
                continue
            at = next((v for v in history.validations if v.step == (step or 0) - 1 and v.epoch > 0), None)
            at = at or next((v for v in reversed(history.validations) if v.epoch == found["epoch"]), None)
            metrics = at.figures if at else {}
            where = Path("checkpoints", f"{name}-adapter")
            where = where if run == folder else Path(os.path.relpath(run, folder), where)
            rows.append(
                {"name": name, "folder": where.as_posix(), "figures": metrics}
                | {"state": NAMES[state_of(rules, metrics)] if rules else "no limits"}
                | {"epoch": found["epoch"], "global_step": step}
            )
            break
    return rows


def _key_figures(history: History, attack: str | None, best: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    rows = []
    start, last = history.start, history.last

    def at(validation: Validation | None, name: str) -> float | None:
        return None if validation is None else validation.get(name)

    for name in key_figures(history.names, attack, _strongest(last)):
        if history.audit and name.endswith("_base"):
            continue  # has its own column
        title, meaning = explained(name)
        rows.append(
            {
                "figure": name,
                "title": title,
                "meaning": meaning,
                "start": at(start, name),
                "base": at(last, _of_base(name)) if history.audit else None,
                "best": best["figures"].get(name) if best else None,
                "last": at(last, name),
                "last_low": at(last, f"{name}_low"),
                "last_high": at(last, f"{name}_high"),
            }
        )
    return rows


def _of_base(name: str) -> str:
    """What the metric is called of the base model.

    >>> _of_base("extraction/ngram_rate_heldout"), _of_base("val/perplexity")
    ('extraction/ngram_rate_base_heldout', 'val/perplexity_base')
    """
    return f"{name.removesuffix('_heldout')}_base_heldout" if name.endswith("_heldout") else f"{name}_base"


def _strongest(last: Validation | None) -> str | None:
    """The attack with the highest AUROC of the last validation."""
    areas = {} if last is None else {n: last.get(n) for n in last.figures if re.fullmatch(r"mia/.+_auroc", n)}
    found = max(((value, name) for name, value in areas.items() if value is not None), default=None)
    return None if found is None else found[1].removeprefix("mia/").removesuffix("_auroc")


def _trust(checks: Mapping[str, Any] | None, config: Mapping[str, Any], history: History) -> dict[str, Any]:
    """Can the attacks be believed? What the run found before training, or what an audit found of the base."""
    start, last = history.start, history.last
    repeats = None if last is None else last.get("memorization/members_duplicates")
    return {
        "checks_on": (config.get("data") or {}).get("check"),
        "checks": checks,
        "repeated_members": repeats,
        "before_training": [] if start is None else _readings(start, r"mia/.+_auroc", "before training"),
        "of_base": [] if last is None or not history.audit else _readings(last, r"mia/.+_auroc_base", "in the base"),
    }


def _all_tied(validation: Validation, auroc: str) -> bool:
    """Whether an AUROC is 0.5 because all scores are the same, and not by chance."""
    accuracy = validation.get(auroc.removesuffix("auroc") + "balanced_accuracy")
    return validation.get(auroc) == 0.5 and accuracy in (0.5, None)


def _readings(validation: Validation, pattern: str, where: str) -> list[dict[str, Any]]:
    """What AUROCs say of a model that was not tuned."""
    rows = []
    for name in sorted(validation.figures):
        if not re.fullmatch(pattern, name):
            continue
        low, high = validation.get(f"{name}_low"), validation.get(f"{name}_high")
        if low is None or high is None:
            reading = "no interval"
        elif where == "before training" and _all_tied(validation, name):
            reading = "0.5 by construction: nothing is tuned yet"
        elif low <= 0.5 <= high:
            reading = "as it should be: guessing"
        elif low > 0.5:
            reading = f"members stood out {where}: the attack measures that too"
        else:
            reading = f"members were harder {where}: the attack is held back by that"
        rows.append({"figure": name, "value": validation.get(name), "low": low, "high": high, "reading": reading})
    return rows


def _checks(path: Path) -> dict[str, Any] | None:
    """What the data module found out about the two sets before training; None where it left nothing."""
    found = read_json(path)
    if found is None:
        return None
    if not isinstance(found, dict) or not {"summary", "warnings"} <= set(found):
        raise DataError(f"{path}: there is no summary and warnings; expected what the data module writes")
    return found
