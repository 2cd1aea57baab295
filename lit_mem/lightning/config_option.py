"""The option `--config`: a file, or the name of a bundled configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile

from lit_mem.errors import ConfigError
from lit_mem.files import shipped


class ConfigOption(ActionConfigFile):  # type: ignore[misc]  # the library has no types for mypy
    """Accepts names of `lit_mem.files.shipped` in addition to paths and inline YAML.

    Attributes:
        kind: which of them help and messages list.
    """

    kind: shipped.Kind = "run"

    def __init__(self, **options: Any) -> None:
        names = ", ".join(shipped.names(self.kind))
        super().__init__(**options | {"help": f"a YAML or JSON file, or the name of a bundled one: {names}"})

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file.

        Raises:
            ConfigError: there is no such file or bundled configuration.
        """
        super().__call__(parser, cfg, self._path(str(values)), option_string)

    def _path(self, given: str) -> str:
        if (found := shipped.find(given)) is not None:
            return str(found)
        if Path(given).exists() or not re.fullmatch(r"[\w./ -]+", given):  # such as a pipe, a URL or inline YAML
            return given
        names = ", ".join(shipped.names(self.kind))
        raise ConfigError(f"config: {given} does not exist; expected a file, or a bundled configuration: {names}")


class SweepOption(ConfigOption):
    """The same for `sweep`."""

    kind = "sweep"
