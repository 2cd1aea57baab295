"""The parser of commands that start without slow imports."""

from __future__ import annotations

import argparse
from typing import NoReturn

from lit_mem import program
from lit_mem.errors import ConfigError


class PlainParser(argparse.ArgumentParser):
    """Argument parser that raises one-line errors, as the parser of the other commands does.

    Args:
        command: the command, after the program's name.
        description: description for `--help`.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"{program.name()} {command}", description=description, allow_abbrev=False)
        self._command = command

    def error(self, message: str) -> NoReturn:
        """Raise the error, with the command as prefix.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self._command}: {message}")
