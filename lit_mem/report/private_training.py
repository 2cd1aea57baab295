"""Private training in a report, and whether its ledger agrees with what the run has logged and saved."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.files.record import FILE
from lit_mem.functional.numbers import shown
from lit_mem.models.checkpoint import Spent, own_content, read_content
from lit_mem.privacy.accountant import epsilon
from lit_mem.privacy.carried import ONLY_LATER, adds_up, ledger_beside
from lit_mem.privacy.ledger import LEDGER, Ledger
from lit_mem.privacy.resumed import ledger_of
from lit_mem.report.history import METRICS, History

log = logging.getLogger(__name__)

HIGHEST: Final = "audit/epsilon_lower_bound_highest"
_METRICS: Final = (
    *("privacy/epsilon", "privacy/delta", "privacy/noise_multiplier", "audit/epsilon_lower_bound"),
    HIGHEST,
    *("privacy/epsilon_largest_group", "privacy/largest_group"),
)


def private_training(folder: Path, config: Mapping[str, Any], history: History) -> dict[str, Any] | None:
    """The privacy spent by differentially private training; None without it.

    Args:
        folder: of the run.
        config: its configuration.
        history: of the run.

    Returns:
        text, `metrics` (the last of each metric), `audited` (how many validations the highest bound of the audit is
        of), steps (of the ledger; None without one), warnings: where the ledger disagrees, or what it does not cover.
    """
    metrics: dict[str, float | None] = {}
    for validation in history.validations:
        for name in _METRICS:
            if validation.get(name) is not None:
                metrics[name] = validation.get(name)
    options = config.get("model") or {}
    privacy, adapter = options.get("privacy"), options.get("adapter_path")
    own = bool(privacy) or (folder / LEDGER).is_file()
    warnings: list[str] = []
    ledger, spent = None, _spent(folder / "checkpoints" / "last.ckpt") if own else None
    try:
        ledger = _ledger(folder, spent)
        if ledger is None and not own and adapter:
            ledger = ledger_beside(Path(adapter))
    except CheckpointError as error:
        warnings.append(f"Privacy ledger: {error}.")
    if not (metrics or own or ledger or warnings):
        return None
    if own and ledger is not None:
        file = METRICS if (folder / METRICS).is_file() else FILE
        warnings += _contradictions(ledger, privacy if isinstance(privacy, Mapping) else {}, metrics, file)
        if ledger.unchained:
            warnings.append(f"{ledger.path} is unchained up to line {ledger.unchained}: changes there cannot be seen.")
    if ledger is not None and ledger.unaccounted:
        warnings.append(ONLY_LATER)
    for warning in warnings:
        log.warning("%s", warning)
    steps = None if ledger is None else ledger.steps
    return {
        "text": _text(metrics, ledger, own, bool(warnings)),
        "metrics": metrics,
        "audited": sum(validation.get(HIGHEST) is not None for validation in history.validations),
        "steps": steps,
        "warnings": warnings,
    }


def _text(metrics: Mapping[str, float | None], ledger: Ledger | None, own: bool, doubtful: bool) -> str:
    found, delta = metrics.get("privacy/epsilon"), metrics.get("privacy/delta")
    if found is not None and doubtful:
        text = f"ε = {shown(found)} at δ = {shown(delta)} was logged; what it covers is limited as stated below."
    elif found is not None:
        text = f"What this run reveals of any single text is bounded by ε = {shown(found)} at δ = {shown(delta)}."
    elif ledger is not None and not own:
        delta = 1 / (10 * max(start.texts for start in ledger.starts)) if ledger.starts else None
        spent = None if delta is None else _epsilon(ledger, delta)
        text = f"The adapter was trained privately: ε = {shown(spent)} at δ = {shown(delta)}."
    else:
        text = "Privacy spent: not measured."
    return f"{text}{_of_group(metrics)} {adds_up()}"


def _of_group(metrics: Mapping[str, float | None]) -> str:
    """Of the person with the most rows, where persons are known."""
    rows, found = metrics.get("privacy/largest_group"), metrics.get("privacy/epsilon_largest_group")
    if rows is None:
        return ""
    if found is None:
        return f" Of a person with {shown(rows)} rows, the largest group, no bound was computed."
    return f" Of a person with {shown(rows)} rows, the largest group, the bound is ε = {shown(found)} at the same δ."


def _contradictions(
    ledger: Ledger, privacy: Mapping[str, Any], metrics: Mapping[str, float | None], file: str
) -> Iterator[str]:
    """Where the ledger differs from the configuration, and from the metrics logged in `file`."""
    noises = {start.steps.noise_multiplier for start in ledger.starts}
    for what, noise in (
        ("model.privacy.noise_multiplier of config.yaml", privacy.get("noise_multiplier")),
        (f"privacy/noise_multiplier of {file}", metrics.get("privacy/noise_multiplier")),
    ):
        if isinstance(noise, int | float) and not any(math.isclose(noise, one, rel_tol=1e-5) for one in noises):
            there = ", ".join(f"{one:g}" for one in sorted(noises))
            yield f"{ledger.path} has the noise multiplier {there}, and {what} is {noise:g}: one of them was changed."
    size = privacy.get("batch_size")
    rates = {start.steps.sample_rate * start.texts for start in ledger.starts}
    if isinstance(size, int) and not any(math.isclose(size, rate, rel_tol=1e-5) for rate in rates):
        there = ", ".join(f"{rate:g}" for rate in sorted(rates))
        yield f"{ledger.path} has steps of {there} texts, and model.privacy.batch_size of config.yaml is {size}."
    logged, delta = metrics.get("privacy/epsilon"), metrics.get("privacy/delta")
    if logged is not None and delta is not None:
        spent = _epsilon(ledger, delta, privacy.get("accountant", "prv"))
        # Metrics are in float32. The ledger may have more steps: after the last validation, or of a resumed run.
        if spent is not None and spent < logged * (1 - 1e-4):
            yield (
                f"{ledger.path} gives epsilon {spent:.4g}, and privacy/epsilon of {file} is {logged:.4g}: one of them "
                "was changed."
            )


def _epsilon(ledger: Ledger, delta: float, kind: Any = "prv") -> float | None:
    """None without Opacus."""
    try:
        return epsilon(ledger.history, delta, "rdp" if kind == "rdp" else "prv")
    except ConfigError:
        return None


def _ledger(folder: Path, spent: Spent | None) -> Ledger | None:
    """The run's ledger, compared with its last checkpoint.

    Raises:
        CheckpointError: it is damaged, or disagrees with the checkpoint.
    """
    given = folder / LEDGER
    if spent is not None:
        return ledger_of(spent, str(given) if given.is_file() else None, str(folder / "checkpoints" / "last.ckpt"))
    return Ledger(given) if given.is_file() else None


def _spent(path: Path) -> Spent | None:
    """The privacy spent by a checkpoint; None where it has none, or cannot be read."""
    try:
        return own_content(read_content(path, mmap=True)).get("privacy")
    except CheckpointError:  # a report does not check checkpoints
        return None
