"""Import only what is used of torchmetrics.

Lightning needs two classes of torchmetrics. The package imports all of its metrics with them, and scipy's signal
processing for one of these, which takes as long as importing torch. A package that is deferred here runs its own
`__init__` on the first access to any other name, so every name can be used as before.

Which names need no other is a fact of one release. With another release nothing is deferred.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any, Final

RELEASE: Final = "1.9."
"""Start of the version of torchmetrics to which `PACKAGES` applies."""

PACKAGES: Final[Mapping[str, Mapping[str, Callable[[], Any]]]] = {
    "torchmetrics": {
        "_logger": lambda: logging.getLogger("torchmetrics"),
        # `metric` and `utilities` import each other, and can only be imported in this order.
        "Metric": lambda: import_module("torchmetrics.utilities.checks").Metric,
        "MetricCollection": lambda: import_module("torchmetrics.collections").MetricCollection,
    },
    "torchmetrics.functional": {},
    "torchmetrics.functional.text": {},
}
"""Deferred packages, parents first, each with the names that need none of the others, and where they are."""

_loading = threading.RLock()


class _Deferred(ModuleType):
    """A package whose `__init__` has not run yet."""

    def __getattr__(self, name: str) -> Any:
        """Read a name: one of `PACKAGES`, else one that the package's own `__init__` makes."""
        if name in PACKAGES[self.__name__]:
            return PACKAGES[self.__name__][name]()
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        load(self)
        return getattr(self, name)


def defer() -> None:
    """Defer the packages, unless they are imported already or are of another release."""
    try:
        known = version("torchmetrics").startswith(RELEASE)
    except PackageNotFoundError:
        return
    if not known or "torchmetrics" in sys.modules:
        return
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return
        module = sys.modules[name] = module_from_spec(spec)
        module.__class__ = _Deferred
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)


def load(package: ModuleType) -> None:
    """Run the `__init__` of a deferred package, as an import would have done."""
    with _loading:
        if not isinstance(package, _Deferred):
            return
        package.__class__ = ModuleType  # type: ignore[assignment]  # from here on an ordinary module
        assert package.__spec__ is not None
        assert package.__spec__.loader is not None
        package.__spec__.loader.exec_module(package)
