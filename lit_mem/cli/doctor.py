"""`lit-mem doctor`: versions, devices, extras and missing packages, as plain text for a bug report.

It imports no library but torch, so it is quick and works when another library is broken.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Sequence

from lit_mem import __version__, program
from lit_mem.cli import machine, packages


def main(words: Sequence[str]) -> None:
    """Print the bug report.

    Args:
        words: the command-line arguments after `doctor`, which takes no options.

    Raises:
        SystemExit: with code 1, a required package is missing or broken.
    """
    description = (
        "Print versions, devices, extras and missing packages, for a bug report. Exit code 1: no run can work."
    )
    argparse.ArgumentParser(prog=f"{program.name()} doctor", description=description).parse_args(words)
    if _report():
        sys.exit(1)


def _report() -> list[str]:
    """Print each section as soon as it is known, since importing torch may be slow or crash; return the problems."""
    needs = packages.needs()
    where = "an installed package" if packages.project_file() is None else "a checkout"
    _section(f"lit_mem {__version__}", [f"from {where}", f"Python {platform.python_version()} on {_system()}"])
    _section("Required", map(packages.line, needs[packages.REQUIRED]))
    _section("Extras", [packages.extra_line(name, each) for name, each in needs.items() if name != packages.REQUIRED])
    _section("Also installed", packages.others(needs))
    _section("Cache folder", [machine.cache()])
    _section("Environment", machine.variables())
    torch, broken = machine.torch_or_problem()
    _section("Devices", machine.devices(torch))
    problems = [*packages.problems(needs), *broken]
    _section("Problems", problems or ["none"])
    return problems


def _system() -> str:
    return f"{platform.system()} {platform.machine()}"


def _section(title: str, lines: Iterable[str]) -> None:
    print("\n".join([title, *(f"  {line}" for line in lines)]), flush=True)  # noqa: T201  (the output of the command)
