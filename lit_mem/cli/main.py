"""Entry point of the command line: dispatches a command, prints one-line errors, sets the exit code."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence

from lit_mem.cli import commands, console
from lit_mem.cli.commands import COMMANDS
from lit_mem.cli.trainer_cli import MemorizationCLI
from lit_mem.files import modes
from lit_mem.files.untrusted import panics_raised
from lit_mem.functional.plain_text import printable
from lit_mem.lightning.signals import ended_by_sigterm, writer_errors_silenced


def main(args: Sequence[str] | None = None, ready: Callable[[], None] = lambda: None) -> None:
    """Run the command line.

    A user error is one line on standard error and exit code 2. Ctrl-C and SIGTERM end a run with a line that says how
    to resume from its last checkpoint, and exit code 130 or 143.

    Args:
        args: command-line arguments after the program's name; None: `sys.argv`.
        ready: called once everything is imported and configured, before the command does its work.
    """
    console.set_up()
    try:
        with ended_by_sigterm(), writer_errors_silenced(), panics_raised("a tokenizer or another file"):
            modes.mask()  # reports an invalid value before anything is written
            words = list(sys.argv[1:] if args is None else args)
            commands.check(words)
            if commands.shown(words):
                sys.exit(0)
            command = COMMANDS.get(words[0])
            if command is not None and command.module is not None:
                run = importlib.import_module(command.module).main
                ready()
                run(words[1:])
            else:
                MemorizationCLI(args, ready)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        line = console.mistake(error)
        if line is None or os.environ.get("LIT_MEM_DEBUG"):
            raise
        print(f"error: {printable(line)}", file=sys.stderr)  # noqa: T201  (the one place that prints errors)
        sys.exit(2)
