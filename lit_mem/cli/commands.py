"""Every command: what it does, where it is, and the usage that lists all of them.

It imports neither torch nor Lightning, so that `--help` is shown at once.
"""

from __future__ import annotations

import argparse
import difflib
from typing import Final, NamedTuple

from lit_mem import __version__, program
from lit_mem.errors import ConfigError
from lit_mem.files import shipped


class Command(NamedTuple):
    """A command.

    Attributes:
        does: its line in the usage.
        module: the module whose `main` takes its arguments; None: a command of Lightning's trainer.
        light: whether it runs without torch and Lightning; of the others only the help does.
    """

    does: str
    module: str | None = None
    light: bool = False


COMMANDS: Final[dict[str, Command]] = {
    "init": Command("write a first configuration for a file of texts", "lit_mem.cli.init", light=True),
    "fit": Command("fine-tune a model and measure what it memorizes"),
    "validate": Command("measure on the validation set without training"),
    "test": Command("measure on the test set without training"),
    "audit": Command("measure a finished model or adapter", "lit_mem.cli.audit"),
    "sweep": Command("train many runs and write one table", "lit_mem.cli.sweep"),
    "report": Command("write a run or a sweep as one page", "lit_mem.cli.report"),
    "verify": Command("check whether the files of a report are unchanged", "lit_mem.cli.verify", light=True),
    "localize": Command("show which weights store memorized text", "lit_mem.cli.localize"),
    "where": Command("the earlier name of localize", "lit_mem.cli.localize"),
    "privacy": Command("add up the privacy budget of private runs", "lit_mem.cli.privacy"),
    # It must work when a library that other commands load is broken.
    "doctor": Command("print versions and devices, for a bug report", "lit_mem.cli.doctor", light=True),
}
"""Every command, by name: the command line dispatches on this table, and its usage is made from it."""

PURPOSE: Final = "Fine-tune a causal language model and watch what it memorizes."

HELP: Final = ("-h", "--help")


def usage() -> argparse.ArgumentParser:
    """The parser of the words before the command, for its help only."""
    parser = argparse.ArgumentParser(prog=program.name(), description=PURPOSE, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    names = ", ".join(shipped.names("run"))
    parser.add_argument(
        "-c", "--config", help=f"of fit, validate and test: a YAML or JSON file, or the name of a bundled one: {names}"
    )
    parser.add_argument(
        "--print_config",
        nargs="?",
        metavar="=flags",
        help="of fit, validate and test: print the configuration after applying all other arguments, and exit; flags: "
        "skip_default, skip_unset",
    )
    commands = parser.add_subparsers(title="commands", description="Each has its own --help.")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.does, add_help=False)
    return parser


def shown(words: list[str]) -> bool:
    """Print the usage or the version, if the first word requests it, and return whether it did."""
    if words and words[0] in HELP:
        usage().print_help()
        return True
    if words and words[0] == "--version":
        print(f"{program.name()} {__version__}")  # noqa: T201  (what the option is for)
        return True
    return False


def check(words: list[str]) -> None:
    """Reject a missing or unknown command. Options before the command are left to the trainer's parser.

    Raises:
        ConfigError: there is no such command.
    """
    names = ", ".join(COMMANDS)
    if not words:
        raise ConfigError(f"no command is given; expected one of {names}; {program.command()} --help describes them")
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        close = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"{program.command()} --help describes them"
        raise ConfigError(f"found command {words[0]}; expected one of {names}; {hint}")
