"""Compare installed libraries with the requirements, from their metadata, without importing them."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import lit_mem

REQUIRED: Final = ""
"""Key of the required libraries; other keys are extras."""

MALICIOUS: Final = {"lightning": ("2.6.2", "2.6.3")}
"""Releases on PyPI that stole credentials (GHSA-w37p-236h-pfx3)."""

_OTHERS: Final = (
    "comet-ml", "deepspeed", "flash-attn", "huggingface-hub", "mlflow", "pyarrow", "pytorch-lightning", "tokenizers",
    "trl", "vllm", "wandb", "xformers",
)  # fmt: skip
"""Shown if installed, since a bug may be theirs."""


class Need(NamedTuple):
    """A required library.

    Attributes:
        name: name of its distribution.
        versions: expected versions, such as ">=2.7"; "" for any.
        found: the installed version; None if not installed.
    """

    name: str
    versions: str
    found: str | None

    @property
    def met(self) -> bool:
        """Whether an expected version is installed."""
        return self.found is not None and _within(self.found, self.versions)


def project_file() -> Path | None:
    """The `pyproject.toml` of a checkout; None in an installed package."""
    path = Path(lit_mem.__file__).parents[1] / "pyproject.toml"
    try:
        return path if _project(path).get("name") == "lit_mem" else None
    except (OSError, ValueError):
        return None


def needs() -> dict[str, list[Need]]:
    """Libraries that every run needs, under `REQUIRED`, and those of each extra."""
    found: dict[str, list[Need]] = {REQUIRED: []}
    for extra, requirement in _requirements():
        need = _read(requirement)
        found.setdefault(extra, [])
        if need.name != "lit_mem":
            found[extra].append(need)
    return found


def _requirements() -> Iterable[tuple[str, str]]:
    """(extra, requirement), from a checkout or from the metadata of the installed package."""
    if (file := project_file()) is not None:
        project = _project(file)
        yield from ((REQUIRED, each) for each in project["dependencies"])
        yield from ((name, each) for name, all_of in project["optional-dependencies"].items() for each in all_of)
        return
    for line in metadata.requires("lit_mem") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra *== *["']([\w.-]+)["']""", marker)
        yield extra[1] if extra else REQUIRED, requirement


def _project(file: Path) -> dict[str, Any]:
    return dict(tomllib.loads(file.read_text("utf-8")).get("project", {}))


def _read(requirement: str) -> Need:
    name = re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]
    versions = requirement.strip().removeprefix(name).rpartition("]")[2]  # after extras, as in ray[tune]>=2.52
    return Need(name, versions.replace(" ", ""), version(name))


def version(name: str) -> str | None:
    """The installed version; None if not installed, or its metadata cannot be read."""
    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, OSError, ValueError, KeyError, TypeError):
        return None


def _within(found: str, versions: str) -> bool:
    """Whether a version matches a specifier; True if the library that compares them is missing."""
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    return SpecifierSet(versions).contains(found, prereleases=True)


def line(need: Need) -> str:
    """One library: its version, and the command to install an expected one if it does not match."""
    if need.met:
        return f"{need.name} {need.found}"
    return f"{need.name} {need.found or 'missing'}; expected {need.versions or 'any'}: {_pip(need)}"


def extra_line(name: str, each: Sequence[Need]) -> str:
    """One extra: what is installed, what is missing, and how to install it."""
    lacking = [need for need in each if not need.met]
    installed = ", ".join(f"{need.name} {need.found}" for need in each if need.met)
    if not lacking:
        return f"{name}: {installed}"
    wanted = ", ".join(f"{need.name}{need.versions}" + f" (found {need.found})" * bool(need.found) for need in lacking)
    return f"{name}: {f'{installed}; ' if installed else ''}missing {wanted}: pip install 'lit_mem[{name}]'"


def others(known: Mapping[str, Sequence[Need]]) -> list[str]:
    """Other installed libraries with their versions; ["none"] if there are none."""
    shown = {need.name for each in known.values() for need in each}
    found = {name: version(name) for name in _OTHERS if name not in shown}
    return [f"{name} {number}" for name, number in found.items() if number] or ["none"]


def problems(known: Mapping[str, Sequence[Need]]) -> list[str]:
    """Problems with required libraries, one line each."""
    found = [line(need) for need in known[REQUIRED] if not need.met]
    for name, bad in MALICIOUS.items():
        if version(name) in bad:
            found.append(
                f"{name} {version(name)} is a malicious release (GHSA-w37p-236h-pfx3): uninstall it, and replace every "
                "key and token that was on this machine"
            )
    return found


def _pip(need: Need) -> str:
    return f"pip install '{need.name}{need.versions}'"
