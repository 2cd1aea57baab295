"""Recommend a setting: the lowest held-out perplexity with memorization under a limit, and the trade-off curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lit_mem.audit.judging import State, judge
from lit_mem.audit.thresholds import Threshold
from lit_mem.errors import ConfigError
from lit_mem.functional.interval import student_interval

if TYPE_CHECKING:
    import pandas as pd

UTILITY = "val/perplexity"
_SCALE = "_scale"


def guidance(
    frame: pd.DataFrame, axes: Sequence[str], limit: str, scales: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Compare all settings and epochs by means over seeds.

    An epoch counts only if every seed of the setting has reached it, so that all means are over the same seeds.

    Args:
        frame: table of the sweep.
        axes: axes of the sweep.
        limit: such as "mia/reference_auroc > 0.6": the condition to avoid.
        scales: by trial, a key that is equal for trials whose perplexities can be compared; None: all can.

    Returns:
        metric (its name), limit (the number), best (values by axis, with epoch; None if nothing under the
        limit has a lower perplexity than the model before training), state (of the best, by the interval: "within" or
        "undecided"; absent without a best), front (points for which no other is lower in both perplexity and
        memorization), note.

    Raises:
        ConfigError: the metric was never logged.
    """
    threshold = Threshold.parse(limit)
    found: dict[str, Any] = {
        "metric": threshold.name, "limit": threshold.limit, "best": None, "front": [], "note": "",
    }  # fmt: skip
    frame = frame.assign(**{_SCALE: frame["trial"].map(scales) if scales else ""}) if len(frame) else frame
    trained = frame[frame["epoch"] > 0] if len(frame) else frame
    if not len(trained):
        return found | {"note": "no trial has finished an epoch"}
    missing = [name for name in (UTILITY, threshold.name) if name not in trained]
    if missing:
        logged = ", ".join(sorted(name for name in trained if "/" in name and not name.startswith(("slice/", "time/"))))
        raise ConfigError(f"limit: no trial logged {missing[0]}; expected one of {logged}")
    several = "; perplexities of different texts or models cannot be compared" if frame[_SCALE].nunique() > 1 else ""
    before = _before_training(frame, axes)
    keys = [*axes, "epoch"]
    grouped = trained.dropna(subset=[UTILITY, threshold.name]).groupby(keys, dropna=False)
    means = grouped[[UTILITY, threshold.name]].mean()
    means["seeds"] = grouped["seed"].nunique()
    means["before"] = grouped[_SCALE].first().map(before).fillna(float("inf"))
    most = means.groupby(level=list(axes), dropna=False)["seeds"].transform("max") if axes else means["seeds"].max()
    means = means[means["seeds"] == most].reset_index()
    sign = 1.0 if threshold.above else -1.0
    means = means.sort_values([UTILITY, threshold.name], ascending=[True, threshold.above], kind="stable")
    lowest = float("inf")
    for row in means.to_dict("records"):
        if sign * row[threshold.name] < lowest:
            lowest = sign * row[threshold.name]
            found["front"].append(_point(row, keys, threshold.name))
    under = means[~means[threshold.name].map(threshold.passed_by)]
    if len(under):
        gained = under[under[UTILITY] < under["before"]]
        # A single row (Series) would convert integers to floats.
        best = (gained if len(gained) else under).head(1).to_dict("records")[0]
        if len(gained):
            found["best"] = _point(best, keys, threshold.name)["values"]
            found["state"] = _state(threshold, trained, {key: best[key] for key in keys})
            found["note"] = (
                f"{UTILITY} {best[UTILITY]:.4g} and {threshold.name} {best[threshold.name]:.4g}, means of "
                f"{int(best['seeds'])} seeds; chosen among {len(means)} settings and epochs by these means, so "
                f"somewhat optimistic{several}"
            )
        else:
            found["note"] = (
                f"no setting and epoch that avoids {limit} is better than the model before training: the lowest "
                f"{UTILITY} is {best[UTILITY]:.4g}, against {best['before']:.4g} before training{several}"
            )
    else:
        found["note"] = f"no setting and epoch avoids {limit}"
    return found


def _state(threshold: Threshold, trained: pd.DataFrame, at: Mapping[str, Any]) -> State:
    """State of one setting and epoch: by Student's interval over its seeds; with one seed, by its logged interval."""
    for key, value in at.items():
        trained = trained[trained[key].isna() if value != value else trained[key] == value]  # NaN: the axis is null
    name = threshold.name
    values = trained[name].dropna().tolist()
    if len(values) > 1:
        mean, low, high = student_interval(values)
        return judge(threshold, {name: mean, f"{name}_low": low, f"{name}_high": high}).state
    names = [each for each in (name, f"{name}_low", f"{name}_high") if each in trained]
    return judge(threshold, dict(trained[names].iloc[0]) if len(trained) else {}).state


def _before_training(frame: pd.DataFrame, axes: Sequence[str]) -> pd.Series[float]:
    """By scale, the lowest mean held-out perplexity of a setting before its first step.

    The lowest, since an adapter with random initialization, such as a prompt, starts from a worse model than the base.
    """
    start = frame[frame["epoch"] == 0].dropna(subset=[UTILITY])
    return start.groupby([*axes, _SCALE], dropna=False)[UTILITY].mean().groupby(level=_SCALE).min()


def _point(row: dict[Any, Any], keys: Sequence[str], metric: str) -> dict[str, Any]:
    values = {key: row[key].item() if hasattr(row[key], "item") else row[key] for key in keys}
    return {"values": values, "perplexity": float(row[UTILITY]), "memorization": float(row[metric])}
