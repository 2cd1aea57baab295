"""Ray is an extra, and is loaded when a sweep starts."""

from __future__ import annotations

import os

from lit_mem.errors import ConfigError


def import_ray() -> None:
    """Load Ray, with its telemetry off: a run on sensitive text talks to nobody.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one draws boxes whatever it is told
    os.environ.setdefault("RAY_worker_niceness", "0")  # trials are what the machine is there for
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # trials have loggers of their own
    try:
        import ray.tune  # noqa: F401  (only to name the extra when it is absent)
    except ImportError as error:
        raise ConfigError("a sweep needs the extra: pip install 'lit_mem[sweep]'") from error
