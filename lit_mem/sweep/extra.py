"""Ray is an extra, and is loaded when a sweep starts."""

from __future__ import annotations

import os
import secrets
from typing import Final

from lit_mem.errors import ConfigError

_TOKEN: Final = secrets.token_hex(32)
"""What who connects to this process's session must have; Ray would keep one in the home folder, for all to read."""


def import_ray(address: str | None) -> None:
    """Load Ray, with its telemetry off, and closed to all others where it is a session of this process.

    Args:
        address: of a cluster to join; None: a session of this process.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one draws boxes whatever it is told
    os.environ.setdefault("RAY_worker_niceness", "0")  # trials are what the machine is there for
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # trials have loggers of their own
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends a sweep at once, and cleans up
    if address is None:
        # Read when Ray is loaded. Without clusters, which it has in name for two systems alone, it takes the loopback
        # interface for this machine's address; `_node_ip_address="127.0.0.1"` it replaces by another.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}
    try:
        import ray.tune  # noqa: F401  (only to name the extra when it is absent)
    except ImportError as error:
        raise ConfigError("a sweep needs the extra: pip install 'lit_mem[sweep]'") from error
