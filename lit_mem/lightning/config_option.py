"""The option `--config`: a file, or the name of a configuration that ships."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile

from lit_mem.errors import ConfigError
from lit_mem.files import shipped


class ConfigOption(ActionConfigFile):  # type: ignore[misc]  # the library has no types for mypy
    """Takes names of `lit_mem.files.shipped` beside what the library takes: paths, and YAML as it is.

    Attributes:
        kind: which of them help and messages list.
    """

    kind: shipped.Kind = "run"

    def __init__(self, **options: Any) -> None:
        names = ", ".join(shipped.names(self.kind))
        super().__init__(**options | {"help": f"a YAML or JSON file, or the name of one that ships: {names}"})

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file.

        Raises:
            ConfigError: there is no file, and no configuration of this name.
        """
        super().__call__(parser, cfg, self._path(str(values)), option_string)

    def _path(self, given: str) -> str:
        if (found := shipped.find(given)) is not None:
            return str(found)
        if Path(given).exists() or not re.fullmatch(r"[\w./ -]+", given):  # a pipe, say; an address or YAML
            return given
        names = ", ".join(shipped.names(self.kind))
        raise ConfigError(f"config: {given} does not exist; expected a file, or a configuration that ships: {names}")


class SweepOption(ConfigOption):
    """The same for `sweep`."""

    kind = "sweep"
