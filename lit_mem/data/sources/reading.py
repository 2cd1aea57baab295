"""Options of reading files, shared by all file sources."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

from lit_mem.errors import ConfigError

_TABS: Final = ("\\t", "tab")
"""Spellings of a tab as passed by a shell."""


@dataclass(frozen=True)
class Reading:
    r"""Options of text files: json, csv and tsv, notes.

    Attributes:
        delimiter: delimiter of a csv or tsv file; None: detected from its header. "\t" is a tab.
        encoding: encoding by its Python name; never guessed.
        skip_unusable: skip unusable rows, with a warning that counts and lists them.
        section: section of these options, for messages; "" for options of a command.

    Raises:
        ConfigError: `delimiter` is not a valid single character, or the encoding is unknown.

    >>> Reading(delimiter="tab").delimiter, Reading(encoding="cp1252").encoding
    ('\t', 'cp1252')
    """

    delimiter: str | None = None
    encoding: str = "utf-8"
    skip_unusable: bool = False
    section: str = "data.source"

    def __post_init__(self) -> None:
        sign = "\t" if self.delimiter in _TABS else self.delimiter
        if sign is not None and (len(sign) != 1 or sign in '"\r\n\0' or sign.isalnum()):
            raise ConfigError(
                f"{self.option('delimiter')} is {self.delimiter!r}; expected one character, such as ';' or '\\t'"
            )
        object.__setattr__(self, "delimiter", sign)
        try:
            codec = codecs.lookup(self.encoding)
            "".encode(self.encoding)  # Raises for bytes codecs, such as zlib.
        except (LookupError, ValueError) as error:
            raise ConfigError(
                f"{self.option('encoding')} is {self.encoding!r}, which is not a text encoding; expected one that "
                "Python supports, such as utf-8, cp1252 or utf-16"
            ) from error
        object.__setattr__(self, "encoding", codec.name)

    def option(self, name: str) -> str:
        """The name of an option as in a configuration or command line."""
        return f"{self.section}.{name}" if self.section else f"--{name}"

    @property
    def skipping(self) -> str:
        """Hint for an error about unusable rows."""
        return f"{self.option('skip_unusable')}{': true' if self.section else ''} skips them"
