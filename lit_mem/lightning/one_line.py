"""Turn the command-line parser's errors into one line each.

It imports no trainer, so that the help of a command is shown at once.
"""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser, set_parsing_settings

from lit_mem.errors import ConfigError
from lit_mem.files.untrusted import LARGEST_YAML, check_yaml, read_text
from lit_mem.lightning.class_help import classes
from lit_mem.lightning.config_option import ConfigOption

set_parsing_settings(config_read_mode_fsspec_enabled=True)  # as Lightning does, so that all commands read the same


class CommandParser(ArgumentParser):  # type: ignore[misc]  # the library has no types for mypy
    """Reports errors in one line, where the library prints its usage and every type it tried."""

    config_option: type[ConfigOption] = ConfigOption
    """Reads configuration files."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an option; one that reads a configuration file also accepts names of bundled ones."""
        if kwargs.get("action") in ("config", ActionConfigFile):
            kwargs["action"] = self.config_option
        return super().add_argument(*args, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None, **kwargs: Any) -> Any:
        """Parse words; an option such as `--data.source.help` without a class lists those that it takes, and ends."""
        words = [str(word) for word in args or ()]
        for word, after in zip(words, [*words[1:], "-"], strict=False):
            bases = getattr(self._option_string_actions.get(word), "_help_types", ()) if word.endswith(".help") else ()
            if bases and after.startswith("-"):
                self._print_message(classes(word, bases) + "\n", sys.stdout)
                self.exit()
        return super().parse_args(args, namespace, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Reject an option.

        Raises:
            ConfigError: always.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        options = [name for name in parser._option_string_actions if name.startswith("--")]
        raise ConfigError(readable(message, options)) from ex

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a configuration file; errors inside name the file too."""
        if (file := Path(str(cfg_path))).is_file():
            check_yaml(read_text(file, ConfigError, LARGEST_YAML), str(cfg_path))
        try:
            return super().parse_path(cfg_path, *args, **kwargs)
        except ConfigError as error:
            raise ConfigError(f"{cfg_path}: {error}") from error
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise ConfigError(f"{cfg_path}: found byte 0x{byte:02x}; expected UTF-8 text") from error


def readable(message: str, options: Iterable[str] = ()) -> str:
    r"""Condense jsonargparse's tree of all types that it tried to one line.

    Args:
        message: jsonargparse's message.
        options: names that an unknown option may have meant.

    >>> readable('Parser key "data.seed":\n - Expected a <class \'int\'>\nGiven value type: str\nGiven value: many')
    'data.seed: found many; expected int'
    """
    keys, expected, rest, found, absent = dict[str, None](), dict[str, None](), list[str](), "", ""
    for raw in message.replace(". Got value: ", "\nGiven value: ").splitlines():
        line = raw.strip().removeprefix("- ")
        line = re.sub(r"^Type .* expects a function or a callable class: ", "", line)
        if match := re.match(r'Parser key "(.*?)"( element \d+)?: *(.*)', line):
            keys[match[1] + (match[2] or "")] = None
            line = match[3]
        if match := re.match(r"Expected a path but (\S+\.(?:ya?ml|json)) .* invalid$", line):
            absent = match[1]
        if match := re.match(r"Problem with given class_path '([\w.]+)':$", line):
            keys[match[1]] = None
            continue
        if not line or _NOISE.match(line):
            continue
        if match := re.match(r"Given value: (.*)", line):
            found = found or match[1]
        elif match := re.match(r"Expected an? (.*)", line):
            kind = re.sub(r"<(?:class|enum) '(?:[\w.]*\.)?(\w+)'>", r"\1", match[1])
            kind = re.sub(r"typing\.Literal\[(.*)\]", r"\1", kind)
            if not found:  # later lines are about the enclosing types
                expected["null" if kind == "NoneType" else kind] = None
        else:
            rest.append(line)
    if absent and not rest:
        rest = [f"file {absent} does not exist or cannot be read"]
    elif expected and not rest:
        rest = [f"found {found}; expected {' or '.join(expected)}" if found else f"expected {' or '.join(expected)}"]
    text = " ".join(": ".join([*keys, " ".join(rest)]).split()).replace('in "<unicode string>",', "at")
    return (text if len(text) <= 600 else f"{text[:600]} ...") + _near(message, options)


_NOISE = re.compile(
    r"Does not validate against|Subtypes: |Errors:|Given value type: |Not a valid subclass of |Subclass types expect|"
    r"a class path \(str\)|a dict |Expected a path but .* invalid$|Expected a dot import path|Unexpected import path"
)


def _near(text: str, options: Iterable[str]) -> str:
    """A suggestion for an unknown option, parameter or class."""
    word, names, paths = "", list[str](), re.findall(r"class_path '([\w.]+)\.(\w+)'", text)
    if match := re.search(r"unrecognized arguments: (--[\w.]+)", text):
        word, names = match[1], list(options)
    elif match := re.search(r"does not accept option '([\w.]+)'", text):
        word, names = match[1], [name.removeprefix("--") for name in options]
    elif (match := re.search(r"Option '(\w+)' is not accepted", text)) and paths:
        module, name = paths[-1]
        word, names = match[1], list(inspect.signature(getattr(import_module(module), name)).parameters)
    elif match := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", text):
        module = import_module(match[1])
        word, names = match[2], getattr(module, "__all__", dir(module))
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; expected one of {', '.join(names)}" if names and len(names) <= 30 else ""
