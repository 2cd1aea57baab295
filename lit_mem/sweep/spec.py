"""The specification of a sweep: axes of options, and the resulting trials."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lit_mem.errors import ConfigError, DataError, check_range
from lit_mem.files.untrusted import read_json

Options = Mapping[str, Any]
"""Values by full option name, as on the command line: {"model.adapter.init_args.rank": 4}."""

_SCALE = ("data.source", "data.max_length", "model.model_id")
"""Options that change the texts or tokens that perplexity is computed on."""

FORMS = (
    "{option: NAME, values: [...]}, {option: NAME, uniform or loguniform: [low, high]}, or the options of each value: "
    "{VALUE: {NAME: ...}, ...}"
)


@dataclass(frozen=True)
class Point:
    """One value of an axis.

    Attributes:
        value: value for display and sorting.
        options: options that it sets.
    """

    value: str | int | float
    options: Options


@dataclass(frozen=True)
class Draw:
    """An axis whose values are sampled.

    Attributes:
        option: the option to set.
        low: smallest value.
        high: largest value.
        log: sample uniformly on a log scale.
    """

    option: str
    low: float
    high: float
    log: bool

    def point(self, uniform: float) -> Point:
        """The value at a quantile in [0, 1) between low and high, rounded to six digits."""
        if self.log:
            value = math.exp(math.log(self.low) + uniform * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + uniform * (self.high - self.low)
        value = float(f"{value:.6g}")
        return Point(value, {self.option: value})


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
        name: name of the trial and its folder, derived from values and seed, so that it is the same at every start.
        values: values by axis.
        seed: its seed.
        options: options that override the run's configuration.
    """

    name: str
    values: dict[str, str | int | float]
    seed: int
    options: dict[str, Any]

    def words(self) -> list[str]:
        """The options as command-line arguments."""
        return [f"--{name}={_spelled(value)}" for name, value in self.options.items()]


def trials(
    axes: Mapping[str, Any],
    seeds: Sequence[int],
    fixed: Options,
    seed_options: Sequence[str],
    samples: int = 1,
) -> list[Trial]:
    """Every combination of the axes' values, with every seed.

    Args:
        axes: by the name shown in tables; each in one of the forms of `FORMS`.
        seeds: each combination is run with each of them.
        fixed: options of all trials.
        seed_options: options that are set to the seed.
        samples: number of samples of axes with a range instead of a list of values.

    Raises:
        ConfigError: an axis is malformed, or two trials would be the same.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds is {list(seeds)}; expected different numbers, at least one")
    check_range("samples", samples, at_least=1)
    read = {label: axis_of(label, axis) for label, axis in axes.items()}
    grids = {label: axis for label, axis in read.items() if isinstance(axis, list)}
    draws = {label: axis for label, axis in read.items() if isinstance(axis, Draw)}
    generator = np.random.default_rng(0)
    drawn = [{label: draw.point(generator.random()) for label, draw in draws.items()} for _ in range(samples)]
    made: dict[str, Trial] = {}
    for cell in itertools.product(*grids.values()):
        for sample in drawn if draws else [{}]:
            points = dict(zip(grids, cell, strict=True)) | sample
            points = {label: points[label] for label in axes}
            options = dict(fixed)
            for label, point in points.items():
                for name, value in point.options.items():
                    if name in options and name not in fixed:
                        raise ConfigError(f"axes.{label} sets {name}, which another axis sets too")
                    options[name] = value
            values = {label: point.value for label, point in points.items()}
            for seed in seeds:
                name = _name(values, seed)
                if name in made:
                    raise ConfigError(f"axes: two trials have the name {name}; rename their values")
                made[name] = Trial(name, values, seed, options | dict.fromkeys(seed_options, seed))
    return list(made.values())


def scales(wanted: Sequence[Trial]) -> dict[str, str]:
    """By trial name, a key that is equal for trials whose perplexities can be compared."""
    given = {trial.name: {k: v for k, v in trial.options.items() if k.startswith(_SCALE)} for trial in wanted}
    return {name: json.dumps(options, sort_keys=True, default=str) for name, options in given.items()}


def axis_of(label: str, axis: Any) -> list[Point] | Draw:
    """Parse an axis in any of its forms.

    Raises:
        ConfigError: it is malformed.
    """
    where = f"axes.{label}"
    if not re.fullmatch(r"[\w.-]+", label):
        raise ConfigError(f"{where}: the name must consist of letters, digits and _ . -")
    if not isinstance(axis, Mapping) or not axis:
        raise ConfigError(f"{where} is {axis!r}; expected {FORMS}")
    if "option" not in axis:
        wrong = next((value for value, options in axis.items() if not isinstance(options, Mapping)), None)
        if wrong is not None:
            raise ConfigError(f"{where}.{wrong} is {axis[wrong]!r}; expected {FORMS}")
        return [Point(value if isinstance(value, int | float) else str(value), o) for value, o in axis.items()]
    option, rest = str(axis["option"]), {key: value for key, value in axis.items() if key != "option"}
    if len(rest) != 1 or not isinstance(given := next(iter(rest.values())), list) or not given:
        raise ConfigError(f"{where} is {dict(axis)!r}; expected {FORMS}")
    kind = next(iter(rest))
    if kind == "values":
        return [Point(_shown(value), {option: value}) for value in given]
    if kind not in ("uniform", "loguniform"):
        raise ConfigError(f"{where} has {kind!r}; expected {FORMS}")
    numbers = [value for value in given if isinstance(value, int | float) and math.isfinite(value)]
    ordered = len(given) == len(numbers) == 2 and numbers[0] < numbers[1]
    if not ordered or (kind == "loguniform" and numbers[0] <= 0):
        above = ", both above 0" if kind == "loguniform" else ""
        raise ConfigError(f"{where}.{kind} is {given}; expected two numbers, the smaller first{above}")
    return Draw(option, float(numbers[0]), float(numbers[1]), kind == "loguniform")


def _shown(value: Any) -> str | int | float:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return value


def _name(values: Mapping[str, str | int | float], seed: int) -> str:
    shown = {label: f"{value:g}" if isinstance(value, float) else value for label, value in values.items()}
    parts = [f"{label}={value}" for label, value in (shown | {"seed": seed}).items()]
    return "_".join(re.sub(r"[^\w.,=+-]+", "-", part) for part in parts)


def _spelled(value: Any) -> str:
    """As YAML, of which JSON is a subset."""
    return value if isinstance(value, str) else json.dumps(value)


def check_folder(folder: Path, wanted: Sequence[Trial], run: Sequence[str]) -> None:
    """Reject a folder in which a trial of the same name was run with other options.

    Raises:
        ConfigError: an option differs; the message names it.
    """
    for trial in wanted:
        path = folder / "trials" / trial.name / "trial.json"
        if not path.is_file():
            continue
        try:
            before = read_json(path)
            options, files = dict(before["options"]), list(before["run"])
        except (DataError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is damaged; remove its folder to run this trial again") from error
        if files != list(run):
            raise ConfigError(f"{path}: run was {files}, and is {list(run)} now; expected the same, or another out")
        for name in sorted({*options, *trial.options}):
            if options.get(name) != trial.options.get(name):
                raise ConfigError(
                    f"{path}: {name} was {options.get(name)!r}, and is {trial.options.get(name)!r} now; expected the "
                    "same, or another out folder"
                )
