"""A configuration as flat names and plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def hyper_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a fit's configuration shown on TensorBoard's HParams page: flat names, plain values."""
    trainer = {key: config["trainer"].get(key) for key in ("max_epochs", "precision", "accumulate_grad_batches")}
    flat: dict[str, Any] = {}
    for section, part in (("model", config["model"]), ("data", config["data"]), ("trainer", trainer)):
        for name, value in leaves(section, part):
            if value is not None:
                flat[name] = value if isinstance(value, int | float | str) else str(value)
    return flat | {"seed_everything": config.get("seed_everything")}


def leaves(name: str, value: Any, lists: bool = False) -> Iterator[tuple[str, Any]]:
    """The plain values of a configuration with their dotted names.

    Args:
        name: dotted name of the value.
        value: part of a configuration.
        lists: whether to flatten lists too.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(name if key == "init_args" else f"{name}.{key}".removeprefix("."), inner, lists)
    elif lists and isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from leaves(f"{name}[{i}]", inner, lists)
    else:
        yield name.removesuffix(".class_path"), value
