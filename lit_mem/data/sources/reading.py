"""How files are read: the options that all sources of files share."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

from lit_mem.errors import ConfigError

_TABS: Final = ("\\t", "tab")
"""What a shell passes for a tab, beside the character."""


@dataclass(frozen=True)
class Reading:
    r"""Options of files of text: json, csv and tsv, notes.

    Attributes:
        delimiter: what stands between the columns of a csv or tsv file; None: seen from its header. "\t" is a tab.
        encoding: of the bytes, by Python's name for it; never guessed.
        skip_unusable: leave out rows that cannot be used, with a warning that counts and names them.
        section: where these options stand, for messages; "" for a command whose own they are.

    Raises:
        ConfigError: `delimiter` is no single character that can be one, or there is no such encoding.

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
            "".encode(self.encoding)  # Raises for codecs of bytes, such as zlib.
        except (LookupError, ValueError) as error:
            raise ConfigError(
                f"{self.option('encoding')} is {self.encoding!r}, which is no encoding of texts; expected one that "
                "Python knows, such as utf-8, cp1252 or utf-16"
            ) from error
        object.__setattr__(self, "encoding", codec.name)

    def option(self, name: str) -> str:
        """One of these options as a configuration or command line spells it."""
        return f"{self.section}.{name}" if self.section else f"--{name}"

    @property
    def skipping(self) -> str:
        """What is said where rows that cannot be used end a run."""
        return f"{self.option('skip_unusable')}{': true' if self.section else ''} leaves them out"
