r"""`\n` and `\t` in a template as passed by a shell: two characters each."""

from __future__ import annotations

import logging
import re
from typing import Final

log = logging.getLogger(__name__)

_ESCAPE: Final = re.compile(r"(\\\\|\\)([nt])")
_MEANT: Final = {r"\n": "\n", r"\t": "\t", r"\\n": r"\n", r"\\t": r"\t"}


def unescaped(option: str, template: str) -> str:
    r"""A template with `\n` and `\t` replaced by line breaks and tabs; a doubled backslash is a literal one.

    Neither plain shell quotes nor YAML's single quotes turn `\n` into a line break. Changes are logged.

    Args:
        option: the option with the template, for the log.
        template: a text with columns in braces.

    >>> unescaped("t", r"Question: {q}\nAnswer:"), unescaped("t", r"\\nabla {q}")
    ('Question: {q}\nAnswer:', '\\nabla {q}')
    """
    found = sorted({match[0] for match in _ESCAPE.finditer(template) if len(match[1]) == 1})
    if found:
        meant = " and ".join(f"{spelt} as a {'line break' if spelt[1] == 'n' else 'tab'}" for spelt in found)
        log.info("%s: %s is read (write \\%s for a backslash and a letter).", option, meant, found[0])
    return _ESCAPE.sub(lambda match: _MEANT[match[0]], template)
