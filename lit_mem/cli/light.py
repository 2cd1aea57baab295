"""Commands that load neither torch nor Lightning, so that they start at once."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

from lit_mem.audit.messages import Console
from lit_mem.errors import LitMemError
from lit_mem.files import modes
from lit_mem.functional.plain_text import printable

COMMANDS: Final[dict[str, str]] = {
    "doctor": "lit_mem.cli.doctor",  # works when a library that other commands load is broken
    "init": "lit_mem.cli.init",
    "verify": "lit_mem.cli.verify",
}
"""Maps each command to the module whose `main` takes its arguments."""


def run_light(words: Sequence[str]) -> bool:
    """Run one of these commands; False if the first word is none of them.

    A user error is one line on standard error and exit code 2, as for the other commands.

    Args:
        words: the command-line arguments after the program's name.

    Raises:
        SystemExit: with code 2 after a user error, 130 after Ctrl-C.
    """
    if not words or words[0] not in COMMANDS:
        return False
    logger, lines = logging.getLogger("lit_mem"), Console(logging.WARNING)
    logger.addHandler(lines)
    try:
        modes.mask()  # reports an invalid value before anything is written
        importlib.import_module(COMMANDS[words[0]]).main(list(words[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (LitMemError, OSError) as error:
        if os.environ.get("LIT_MEM_DEBUG") or (isinstance(error, OSError) and error.filename is None):
            raise
        line = str(error) if isinstance(error, LitMemError) else f"{error.filename}: {error.strerror}"
        print(f"error: {printable(line)}", file=sys.stderr)  # noqa: T201  (the one place that prints errors here)
        sys.exit(2)
    finally:
        logger.removeHandler(lines)
    return True
