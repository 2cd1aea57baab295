"""`lit-mem doctor`: versions, devices, extras and what is missing, as plain text for a bug report.

Of libraries it imports torch alone, so that it is quick, and works where another one is broken.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterable, Sequence

from lit_mem import __version__, program
from lit_mem.cli import machine, packages


def main(words: Sequence[str]) -> None:
    """Print the report.

    Args:
        words: of the command line after `doctor`; it has no options.

    Raises:
        SystemExit: with code 1, something is broken without which nothing runs.
    """
    description = "Print versions, devices, extras and what is missing, for a bug report; exit code 1: no run can work."
    argparse.ArgumentParser(prog=f"{program.name()} doctor", description=description).parse_args(words)
    if _report():
        sys.exit(1)


def _report() -> list[str]:
    """Print each section as soon as it is known: torch may take long, or end the process; returns the problems."""
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
