"""All that the report of one run says, as plain data: the page and the JSON file are two forms of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from lit_mem.callbacks.thresholds import Threshold
from lit_mem.errors import DataError
from lit_mem.report.example_rows import HOW, example_report, last_table
from lit_mem.report.files import read_config, read_json
from lit_mem.report.gate import check_known, failures
from lit_mem.report.glossary import explained, key_figures
from lit_mem.report.history import History, Validation, read_history
from lit_mem.report.judgement import rules_of, verdict
from lit_mem.report.numbers import shown
from lit_mem.report.where import read_where

SCHEMA: Final = 1
_PACKAGES: Final = ("lit_mem", "torch", "lightning", "transformers", "peft", "opacus", "datasets", "matplotlib")
_CHECKPOINTS: Final = ("best", "safe", "last")


def run_report(folder: Path, with_text: bool = False, fail_on: Iterable[Threshold] = ()) -> dict[str, Any]:
    """Read a run's log folder.

    Args:
        folder: holds `metrics.csv`, and most often `config.yaml`.
        with_text: give texts of the most exposed members.
        fail_on: conditions that the last validation is not to meet.

    Raises:
        DataError: a file of the folder is damaged.
        ConfigError: a condition is on a figure that was never logged.
    """
    history = read_history(folder / "metrics.csv")
    check_known(fail_on, history.names, "the run")
    text, config = read_config(folder / "config.yaml")
    rules = list(rules_of(config))
    attack = _attack([t.name for _, limits, _ in rules for t in limits.thresholds], history.names)
    kept = _checkpoints(folder, history)
    table = last_table(folder, config)
    conditions = list(fail_on)
    best = next((row for row in kept if row["name"] == "best"), None)
    return {
        "schema": SCHEMA,
        "kind": "run",
        "name": f"{folder.resolve().parent.name}/{folder.resolve().name}",
        "setup": setup_of(config),
        "verdict": verdict(rules, history, best),
        "attack": attack,
        "key_figures": _key_figures(history, attack, best),
        "validations": [{"epoch": v.epoch, "step": v.step, "figures": v.figures} for v in history.validations],
        "checkpoints": kept,
        "examples": None if table is None else example_report(table, attack, with_text),
        "trust": _trust(folder, config, history),
        "privacy": _privacy(folder, config, history),
        "where": read_where(folder / "where.json"),
        "notes": [*history.notes, *([HOW] if table is None else [])],
        "gate": {"conditions": [str(c) for c in conditions], "failed": failures(conditions, history.last)},
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


def setup_of(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """What was trained on what, a row a part; empty without a configuration."""
    model, data, trainer = (config.get(part) or {} for part in ("model", "data", "trainer"))
    if not model and not data:
        return []
    rows = {
        "Model": _words(model.get("model_id"), model.get("revision") and f"revision {model['revision']}"),
        "Adapter": _component(model.get("adapter")),
        "Reference": _words(
            (model.get("reference") or {}).get("model_id") or (model.get("reference") or {}).get("kind")
        ),
        "Data": _component(data.get("source")),
        "Members": _words(data.get("train_size") if data.get("train_size") is not None else "all"),
        "Held-out texts": _words(data.get("heldout_size") if data.get("heldout_size") is not None else "all"),
        "Length": _words(data.get("max_length") and f"at most {data['max_length']} tokens"),
        "Batch size": _words(data.get("batch_size")),
        "Optimizer": _component(model.get("optimizer"), ("lr", "weight_decay")),
        "Epochs": _words(trainer.get("max_epochs") and f"at most {trainer['max_epochs']}"),
        "Private training": _words("off" if not model.get("privacy") else "on, differential privacy"),
        "Canaries": _component(data.get("canaries")),
        "Seed": _words(config.get("seed_everything")),
    }
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
    told = ", ".join(f"{k} {'+'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in options.items())
    return f"{name} ({told})" if told else name


def _attack(limits: list[str], names: set[str]) -> str | None:
    """The attack that the run is judged by: that of its limits, else the paper's, else the first."""
    found = [match[1] for name in limits if (match := re.match(r"mia/(.+)_auroc", name))]
    logged = sorted(match[1] for name in names if (match := re.fullmatch(r"mia/(.+)_auroc", name)))
    return next((one for one in [*found, "reference", *logged] if one in logged), None)


def _checkpoints(folder: Path, history: History) -> list[dict[str, Any]]:
    rows = []
    for name in _CHECKPOINTS:
        path = folder / "checkpoints" / f"{name}-adapter" / "lit_mem.json"
        told = read_json(path)
        if not isinstance(told, dict) or "epoch" not in told:
            continue
        at = next((v for v in history.validations if v.step == told.get("global_step", 0) - 1), None)
        at = at or next((v for v in reversed(history.validations) if v.epoch == told["epoch"]), None)
        where = f"checkpoints/{name}-adapter"
        rows.append(
            {"name": name, "folder": where, "figures": at.figures if at else {}}
            | {k: told.get(k) for k in ("epoch", "global_step")}
        )
    return rows


def _key_figures(history: History, attack: str | None, best: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    rows = []
    start, last = history.start, history.last

    def at(validation: Validation | None, name: str) -> float | None:
        return None if validation is None else validation.get(name)

    for name in key_figures(history.names, attack, _strongest(last)):
        title, meaning = explained(name)
        rows.append(
            {
                "figure": name,
                "title": title,
                "meaning": meaning,
                "start": at(start, name),
                "best": best["figures"].get(name) if best else None,
                "last": at(last, name),
                "last_low": at(last, f"{name}_low"),
                "last_high": at(last, f"{name}_high"),
            }
        )
    return rows


def _strongest(last: Validation | None) -> str | None:
    """The attack with the highest AUROC of the last validation."""
    areas = {} if last is None else {n: last.get(n) for n in last.figures if re.fullmatch(r"mia/.+_auroc", n)}
    found = max(((value, name) for name, value in areas.items() if value is not None), default=None)
    return None if found is None else found[1].removeprefix("mia/").removesuffix("_auroc")


def _trust(folder: Path, config: Mapping[str, Any], history: History) -> dict[str, Any]:
    """Can the attacks be believed? What the run found before training."""
    start = history.start
    before = []
    for name in sorted(start.figures if start is not None else ()):
        if start is None or not re.fullmatch(r"mia/.+_auroc", name):
            continue
        low, high = start.get(f"{name}_low"), start.get(f"{name}_high")
        if low is None or high is None:
            reading = "no interval"
        elif start.get(name) == start.get(name.removesuffix("auroc") + "balanced_accuracy") == 0.5:  # all scores tied
            reading = "0.5 by construction: nothing is tuned yet"
        elif low <= 0.5 <= high:
            reading = "as it should be: guessing"
        elif low > 0.5:
            reading = "members stood out before training: the attack measures that too"
        else:
            reading = "members were harder before training: the attack is held back by that"
        before.append({"figure": name, "value": start.get(name), "low": low, "high": high, "reading": reading})
    repeats = None if history.last is None else history.last.get("memorization/members_duplicates")
    return {
        "checks_on": (config.get("data") or {}).get("check"),
        "checks": _checks(folder / "checks.json"),
        "repeated_members": repeats,
        "before_training": before,
    }


def _checks(path: Path) -> dict[str, Any] | None:
    """What the data module found out about the two sets before training; None where it left nothing."""
    told = read_json(path)
    if told is None:
        return None
    if not isinstance(told, dict) or not {"summary", "warnings"} <= set(told):
        raise DataError(f"{path}: there is no summary and warnings; expected what the data module writes")
    return told


def _privacy(folder: Path, config: Mapping[str, Any], history: History) -> dict[str, Any] | None:
    """What differentially private training has spent; None without it."""
    figures: dict[str, float | None] = {}
    for validation in history.validations:
        for name in ("privacy/epsilon", "privacy/delta", "privacy/noise_multiplier", "audit/epsilon_lower_bound"):
            if validation.get(name) is not None:
                figures[name] = validation.get(name)
    ledger = folder / "privacy.jsonl"
    if not figures and not ledger.is_file() and not (config.get("model") or {}).get("privacy"):
        return None
    steps = None
    if ledger.is_file():
        steps = sum('"step"' in line for line in ledger.read_text("utf-8", errors="replace").splitlines())
    epsilon, delta = figures.get("privacy/epsilon"), figures.get("privacy/delta")
    if epsilon is None:
        told = "Privacy spent: not measured."
    else:
        told = f"What this run tells of any single text is bounded by ε = {shown(epsilon)} at δ = {shown(delta)}."
    return {"text": told, "figures": figures, "steps": steps}
