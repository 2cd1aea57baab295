"""The parser of commands that start without loading what takes long."""

from __future__ import annotations

import argparse
from typing import NoReturn

from lit_mem import program
from lit_mem.errors import ConfigError


class PlainParser(argparse.ArgumentParser):
    """Reports a mistake in one line, as the parser of the other commands does.

    Args:
        command: the word after the program's name.
        description: what it does, for `--help`.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"{program.name()} {command}", description=description, allow_abbrev=False)
        self._command = command

    def error(self, message: str) -> NoReturn:
        """Raise it, with the command in front.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self._command}: {message}")
