"""Ray is an optional dependency, loaded when a sweep starts."""

from __future__ import annotations

import os
import secrets
from typing import Final

from lit_mem.errors import ConfigError

_TOKEN: Final = secrets.token_hex(32)
"""Token required to connect to this process's session; Ray's own would be stored readable in the home folder."""


def import_ray(address: str | None) -> None:
    """Load Ray with telemetry off, and a local session closed to other users.

    Args:
        address: address of a cluster to join; None: a local session of this process.

    Raises:
        ConfigError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output draws boxes regardless of its settings
    os.environ.setdefault("RAY_worker_niceness", "0")  # trials run at normal priority
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # trials have their own loggers
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C stops a sweep at once, and cleans up
    if address is None:
        # Read when Ray is loaded. With cluster support off (a flag that otherwise matters only on two systems) it uses
        # the loopback interface; it overrides `_node_ip_address="127.0.0.1"`.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    try:
        import ray.tune  # noqa: F401  (only to report a missing extra)
    except ImportError as error:
        raise ConfigError("a sweep needs the extra: pip install 'lit_mem[sweep]'") from error
