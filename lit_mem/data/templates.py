"""Read a template: from the option itself, or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lit_mem.data.escapes import unescaped
from lit_mem.errors import ConfigError

_FILE: Final = "file:"


def template_of(option: str, given: str) -> str:
    r"""The text of a template.

    Args:
        option: the option with the template, for messages.
        given: the text, in which `\n` and `\t` are a line break and a tab; or "file:" and the path of a file,
            relative to the working directory, whose content is used without a final line break.

    Raises:
        ConfigError: the file is missing, cannot be read, is not UTF-8 or is empty.

    >>> template_of("prompt_template", "Question: {question}")
    'Question: {question}'
    """
    # Braces or white space after the colon mean a literal template.
    path = given.removeprefix(_FILE)
    if path == given or not path or path != path.strip() or set(path) & set("{}\n"):
        return unescaped(option, given)
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{option}: {path}: found byte 0x{error.object[error.start]:02x} at offset {error.start}; expected UTF-8"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{option}: {path} cannot be read ({reason}); expected a template file, relative to {Path.cwd()}"
        ) from error
    text = text.replace("\r\n", "\n").removesuffix("\n")
    if not text.strip():
        raise ConfigError(f"{option}: {path} is empty; expected a template, such as 'Question: {{question}}'")
    return text
