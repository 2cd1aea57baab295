"""Commands that load neither torch nor Lightning, so that they start at once; of other commands, the help."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from lit_mem.audit.messages import Console
from lit_mem.cli import commands
from lit_mem.cli.commands import COMMANDS, HELP
from lit_mem.errors import LitMemError
from lit_mem.files import modes
from lit_mem.functional.plain_text import printable


def run_light(words: Sequence[str]) -> bool:
    """Run such a command, or show its help; False if torch is needed.

    A user error is one line on standard error and exit code 2, as for the other commands.

    Args:
        words: the command-line arguments after the program's name.

    Raises:
        SystemExit: with code 2 after a user error, 130 after Ctrl-C.
    """
    words = list(words)
    command = COMMANDS.get(words[0]) if words else None
    needed = words and words[0].startswith("-") and words[0] not in (*HELP, "--version")
    if needed or (command is not None and not command.light and (command.module is None or not set(HELP) & {*words})):
        return False
    logger, lines = logging.getLogger("lit_mem"), Console(logging.WARNING)
    logger.addHandler(lines)
    try:
        commands.check(words)
        if commands.shown(words):
            return True
        assert command is not None
        assert command.module is not None
        modes.mask()  # reports an invalid value before anything is written
        importlib.import_module(command.module).main(words[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except (LitMemError, OSError) as error:
        if os.environ.get("LIT_MEM_DEBUG") or (isinstance(error, OSError) and error.filename is None):
            raise
        line = str(error) if isinstance(error, LitMemError) else f"{error.filename}: {error.strerror}"
        print(f"error: {printable(line)}", file=sys.stderr)  # noqa: T201  (the one place that prints errors here)
        sys.exit(2)
    finally:
        logger.removeHandler(lines)
    return True
