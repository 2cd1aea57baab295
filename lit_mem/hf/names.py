"""Names of metrics in the result of a trainer's `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import Trainer

from lit_mem.audit.known import Known

_TIME = "_runtime"


def monitored(trainer: Trainer) -> str | None:
    """The metric that `metric_for_best_model` names, without `eval_`; None without one."""
    name = trainer.args.metric_for_best_model
    return None if name is None else str(name).removeprefix("eval_")


def check_monitored(trainer: Trainer, known: Known) -> None:
    """Reject a misspelt `metric_for_best_model` before training.

    Raises:
        ConfigError: it has a namespace of these metrics, but no such metric exists.
    """
    name = monitored(trainer)
    spaces = {one.partition("/")[0] for one in [*known.metrics, *known.prefixes]}
    if name is not None and "/" in name and name.partition("/")[0] in spaces:
        known.check([name], "metric_for_best_model")


def evaluation_of(metrics: Mapping[str, float]) -> str:
    """Prefix of an evaluation's metrics: "eval", "eval_<name>" for one of several sets, or a custom one."""
    return next((name.removesuffix(_TIME) for name in metrics if name.endswith(_TIME)), "eval")


def prefixed(metrics: Mapping[str, float], evaluation: str) -> dict[str, float]:
    """Metrics under their names beside those of an evaluation; the same for each of several sets."""
    prefix = "eval" if evaluation.startswith("eval_") else evaluation
    return {f"{prefix}_{name}": value for name, value in metrics.items()}
