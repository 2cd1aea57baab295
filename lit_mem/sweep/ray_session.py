"""Ray for one sweep: a session of its own that nobody else can reach, or the cluster that the user names."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Any, Final

from lit_mem.errors import ConfigError
from lit_mem.files import atomic, modes

log = logging.getLogger(__name__)

_LONGEST: Final = 107 - len("/session_2026-01-31_23-59-59_123456_1234567/sockets/plasma_store")
"""Characters of the path of Ray's folder, as the name of a Unix socket has 107 at most (<sys/un.h>)."""
_SECONDS: Final = 10.0
"""Ray's processes may write for a moment after they were ended."""


@contextmanager
def private_session() -> Iterator[Path]:
    """Start Ray on this machine for the body; end it, and leave nothing of it, however the body ends.

    Ray opens its folders to all users (mode 777), and anyone who connects to its ports can run code. So its folder lies
    in one that is open to its owner alone, its ports are on the loopback interface, and they accept only who has the
    token that `import_ray` has drawn.

    Yields:
        A folder for the body's own files, which goes with the session.

    Raises:
        ConfigError: this version of Ray listens on other interfaces.
    """
    import ray

    root = Path(tempfile.mkdtemp(prefix="lit_mem_", dir=_short_folder()))  # mode 700
    try:
        with _connected(address="local", _temp_dir=str(root / "ray")):
            address = str(ray.util.get_node_ip_address())
            if not ip_address(address).is_loopback:
                raise ConfigError(
                    f"ray {ray.__version__} listens on {address}; expected the loopback interface: a version as in "
                    "constraints.txt, loaded by nothing before the sweep"
                )
            (root / "files").mkdir(0o700)
            yield root / "files"
    finally:
        _remove(root)


@contextmanager
def cluster(address: str, folder: Path) -> Iterator[Path]:
    """Connect to a Ray cluster for the body.

    Args:
        address: of the cluster; `auto`: the one that Ray finds.
        folder: for the body's own files, at a path that all machines see; removed at the end.

    Yields:
        The folder.
    """
    try:
        with _connected(address=address):
            modes.make_folder(folder)
            yield folder
    finally:
        _remove(folder)


@contextmanager
def _connected(**options: Any) -> Iterator[None]:
    """Have Ray for the body. SIGTERM ends it as before: Ray has a handler of its own, and loses another's exit code."""
    import ray

    before, received, main = signal.getsignal(signal.SIGTERM), [], threading.current_thread() is threading.main_thread()

    def handler(number: int, frame: FrameType | None) -> None:
        received.append(number)
        assert callable(before)
        before(number, frame)

    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **options)
        if main:
            signal.signal(signal.SIGTERM, handler if callable(before) else before)
        yield
    except SystemExit as error:
        if received or error.code == signal.SIGTERM:  # the latter by Ray's handler, while it starts
            raise SystemExit(128 + signal.SIGTERM) from error
        raise
    finally:
        ray.shutdown()
        if main and not received:
            signal.signal(signal.SIGTERM, before)


def _short_folder() -> str:
    """The system's folder for temporary files, or `/tmp` where the path of a socket in it would be too long."""
    usual = tempfile.gettempdir()
    return usual if len(f"{usual}/lit_mem_12345678/ray") <= _LONGEST else "/tmp"


def _remove(folder: Path) -> None:
    end = time.monotonic() + _SECONDS
    atomic.remove(folder)
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.1)
        atomic.remove(folder)
    if folder.exists():
        log.warning("Warning: %s cannot be removed whole; what is left there is Ray's, for you alone to read.", folder)
