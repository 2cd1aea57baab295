"""A nested option of which YAML gives one field has its class's own defaults in all others.

jsonargparse completes a mapping with the fields of the parameter's default. A default that is an instance with other
values than its class has, as `Sampling(top_k=40)`, would silently stay in force besides what the user wrote.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback

import lit_mem
from lit_mem.adapters.base import Adapter
from lit_mem.attacks.base import Attack
from lit_mem.data.canaries.base import CanarySource
from lit_mem.data.sources.base import Source
from lit_mem.extraction import Discoverable, ExtractionMeasure, ScoredMeasure
from lit_mem.lightning.checkpointed import CheckpointedModule
from lit_mem.lightning.scoring_module import ScoringModule
from lit_mem.types import Sampling

CONTRACTS = (Callback, Attack, ExtractionMeasure, ScoredMeasure, Adapter, Source, CanarySource)
MODULES = (LightningModule, LightningDataModule)


def package_classes() -> list[type]:
    for module in pkgutil.walk_packages(lit_mem.__path__, "lit_mem."):
        importlib.import_module(module.name)
    found, queue = set(), [*CONTRACTS, *MODULES]
    while queue:
        for cls in queue.pop().__subclasses__():
            if cls.__module__.startswith("lit_mem.") and cls not in found:
                found.add(cls)
            queue.append(cls)
    found -= {ScoringModule, CheckpointedModule}  # what YAML builds is CausalLM
    return sorted((cls for cls in found if not inspect.isabstract(cls)), key=lambda cls: cls.__qualname__)


CLASSES = package_classes()


def arms(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, taken out of unions, lists and dictionaries."""
    if get_origin(annotation) in (Union, types.UnionType, list, dict, tuple):
        for arm in get_args(annotation):
            yield from arms(arm)
    else:
        yield annotation


def parameters(cls: type) -> list[tuple[str, Any, Any]]:
    """Name, annotation and default of each parameter of a constructor."""
    if cls.__init__ is object.__init__:
        return []
    hints = get_type_hints(cls.__init__)
    signature = inspect.signature(cls.__init__).parameters
    return [(name, hints.get(name), p.default) for name, p in signature.items() if name != "self" and name in hints]


def nested(cls: type) -> list[tuple[str, type]]:
    """Options of a class that are dataclasses."""
    return [(n, arm) for n, hint, _ in parameters(cls) for arm in arms(hint) if dataclasses.is_dataclass(arm)]


def another(annotation: Any, default: Any) -> Any:
    """A value of the type that is not the default; None for dictionaries and classes."""
    if any(get_origin(arm) is dict for arm in (annotation, *get_args(annotation))):
        return None
    kinds = list(arms(annotation))
    for kind in kinds:
        if get_origin(kind) is Literal:
            return next(choice for choice in get_args(kind) if choice != default)
    if bool in kinds:
        return not default
    if float in kinds:
        return 0.25 if default != 0.25 else 0.5
    if int in kinds:
        return 7 if default != 7 else 8
    return "another" if str in kinds else None


def own_defaults(option: type) -> dict[str, Any]:
    return {f.name: f.default for f in dataclasses.fields(option)}


NESTED = [(cls, name, option) for cls in CLASSES for name, option in nested(cls)]


def test_the_walk_meets_what_is_configured_in_yaml():
    names = {cls.__name__ for cls in CLASSES}
    assert {"CausalLM", "TextDataModule", "Extraction", "Discoverable", "LoRA", "PHEE", "Secrets", "EzMia"} <= names
    met = {(cls.__name__, name) for cls, name, _ in NESTED}
    assert {("CausalLM", "reference"), ("CausalLM", "loss"), ("CausalLM", "privacy"), ("Extraction", "sampling")} <= met
    assert ("Discoverable", "sampling") in met


@pytest.mark.parametrize(("cls", "name", "option"), NESTED, ids=lambda x: getattr(x, "__name__", x))
def test_one_field_of_a_nested_option_leaves_the_class_defaults_in_the_others(cls, name, option):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(cls, "it", skip=set())
    hints = get_type_hints(option)
    for field, default in own_defaults(option).items():
        value = another(hints[field], default)
        if value is None:
            continue  # a class, or a dictionary of such: the outer walk has them
        config = parser.parse_object({"it": {"class_path": cls.__name__, "init_args": {name: {field: value}}}})
        read = vars(config.it.init_args[name])
        assert read == own_defaults(option) | {field: value}, f"{cls.__name__}.{name}.{field}"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_default_that_is_an_instance_is_what_its_class_makes_without_options(cls):
    for name, _, default in parameters(cls):
        if isinstance(default, int | float | str | tuple | list | dict | None) or default is inspect.Parameter.empty:
            continue
        if isinstance(default, type):  # a class that is to be called, as `optimizer: OptimizerCallable = AdamW`
            continue
        if hasattr(default, "lazy_get_init_args"):
            assert vars(default.lazy_get_init_args()) == {}, f"{cls.__name__}.{name}"
        else:
            assert default == type(default)(), f"{cls.__name__}.{name}"


def test_the_scheme_of_discoverable_is_the_one_that_yaml_gives():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Discoverable, "it")
    for given, expected in (
        ({}, Sampling(top_k=40)),
        ({"sampling": {"temperature": 0.7}}, Sampling(temperature=0.7)),
        ({"sampling": {"temperature": 0.7, "top_k": 40}}, Sampling(temperature=0.7, top_k=40)),
    ):
        made = parser.instantiate_classes(parser.parse_object({"it": given})).it
        assert made.sampling == expected
        assert made.needs.sampling == {expected}
