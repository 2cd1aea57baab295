"""The folder of a run: one per run, claimed before anything is written, for any logger.

Creating a folder fails if another process has created it, so two runs never share one. It is accessible only to its
owner (`files.modes`), which also protects files that libraries write into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_mem.files import facts, modes, record
from lit_mem.files.origin import CHECKS, CONFIG
from lit_mem.files.versions import free_versions

FileLogger = TensorBoardLogger | CSVLogger

NAME: Final = "lit_mem"
"""Name of the folder of runs if no logger has one."""

_WRITTEN: Final = (CONFIG, CHECKS, "checkpoints", "examples", "privacy.jsonl", record.FILE, facts.FILE)
"""Files that this package writes into a run's folder."""

_FOLDERS: WeakKeyDictionary[pl.Trainer, Path] = WeakKeyDictionary()
_MADE: WeakKeyDictionary[pl.Trainer, list[Path]] = WeakKeyDictionary()


def run_folder(trainer: pl.Trainer) -> Path:
    """The folder of the trainer's run, created if missing. All ranks must make the first call together.

    - With a TensorBoard or CSV logger: that logger's `<save_dir>/<name>/<version>`.
    - With other loggers only: `<save_dir>/<name>/<version>` too, as for Lightning's checkpoints (W&B: project
      and run id); `attempt_<n>` in it if an earlier run has used it.
    - Without a logger: the next free `<default_root_dir>/logs/lit_mem/version_<n>`.

    Raises:
        OSError: it cannot be created.
    """
    folder = _FOLDERS.get(trainer)
    if folder is None:
        found = _find(trainer) if trainer.is_global_zero else None
        folder = _FOLDERS[trainer] = Path(str(trainer.strategy.broadcast(found)))
    return folder


def known_folder(trainer: pl.Trainer) -> Path | None:
    """The folder of the trainer's run if `run_folder` has been called; None otherwise."""
    return _FOLDERS.get(trainer)


def root_of_runs(trainer: pl.Trainer) -> Path:
    """The folder whose subfolders are the runs of this trainer's loggers."""
    logger = _leading(trainer.loggers)
    if logger is None:
        return Path(trainer.default_root_dir, "logs", NAME)
    return root_of(logger, trainer.default_root_dir)


def root_of(logger: Any, default: str = ".") -> Path:
    """The parent folder of a logger's runs; in `default` if the logger has no folder on this machine."""
    place = str(logger.save_dir or default)
    place = default if "://" in place else expanded(place)
    # For these two loggers an empty name means no folder level.
    return Path(place, str(logger.name or ("" if isinstance(logger, FileLogger) else NAME)))


def expanded(place: str) -> str:
    """A path with `~` and `$VARIABLES` expanded, as in TensorBoard's logger."""
    return os.path.expanduser(os.path.expandvars(place))


def claim_versions(trainer: pl.Trainer) -> None:
    """Set the version of each logger without one to a new version whose folder this run has created.

    Call it before any logger opens a file. A CSV logger, which does not expand `~` and `$VARIABLES`, gets its folder
    with these expanded. Loggers with the same parent folder share a version; one that the user has set is unchanged,
    and shared too. The versions are set on rank zero only.

    Raises:
        OSError: the folder cannot be created.
    """
    for each in _file_loggers(trainer.loggers):
        if isinstance(each, CSVLogger):
            each._save_dir = each._root_dir = expanded(each._save_dir)
    if not _is_first(trainer):
        return
    by_root: dict[Path, list[FileLogger]] = {}
    for logger in _file_loggers(trainer.loggers):
        by_root.setdefault(root_of(logger), []).append(logger)
    for root, loggers in by_root.items():
        given = [logger._version for logger in loggers if logger._version is not None]
        for logger in [logger for logger in loggers if logger._version is None]:
            if not given:
                given.append(_claim_next(trainer, root))
            logger._version = given[0]
            if isinstance(logger, CSVLogger):
                _ = logger.experiment  # now, as it would warn about TensorBoard's files later
        for folder in dict.fromkeys(map(_folder_of, loggers)):
            if not _make(trainer, folder):
                modes.restrict(folder)


def claim_given_versions(trainer: pl.Trainer) -> Path | None:
    """Claim the folders of the versions that the user has set; acts on rank zero only.

    Returns:
        The first folder that already has a run; None without any.

    Raises:
        OSError: a folder cannot be created.
    """
    if not _is_first(trainer):
        return None
    given = [logger for logger in _file_loggers(trainer.loggers) if logger._version is not None]
    for folder in dict.fromkeys(map(_folder_of, given)):
        modes.make_folder(folder)
        modes.restrict(folder)
        try:
            (folder / CONFIG).touch(0o600, exist_ok=False)  # the folder may have been created for this run
        except FileExistsError:
            return folder
        _MADE.setdefault(trainer, []).append(folder)
    return None


def release(trainer: pl.Trainer) -> None:
    """Remove the folders created for a run that are still empty."""
    for folder in _MADE.pop(trainer, []):
        with suppress(OSError):
            if (folder / CONFIG).is_file() and not (folder / CONFIG).stat().st_size:
                (folder / CONFIG).unlink()
            folder.rmdir()  # fails if it is not empty


def restrict_run(trainer: pl.Trainer) -> None:
    """Set the permissions of all files in the run's folders, whoever wrote them; acts on rank zero only."""
    known = known_folder(trainer)
    if _is_first(trainer):
        for folder in {*_MADE.get(trainer, []), *([] if known is None else [known])}:
            modes.restrict_all(folder)


def _is_first(trainer: pl.Trainer) -> bool:
    # In spawned processes the global rank is not set before they are connected.
    return trainer.is_global_zero and trainer.local_rank == 0


def _file_loggers(loggers: Iterable[Any]) -> list[FileLogger]:
    """Loggers that write into their own folder on a local file system."""
    return [each for each in loggers if isinstance(each, FileLogger) and "://" not in str(each.save_dir)]


def _folder_of(logger: FileLogger) -> Path:
    version = logger.version
    return root_of(logger) / (version if isinstance(version, str) else f"version_{version}")


def _leading(loggers: Iterable[Any]) -> Any:
    """The logger whose folder is the run's: the first that writes files, else the first; None without any."""
    loggers = list(loggers)
    return next(iter([*_file_loggers(loggers), *loggers]), None)


def _find(trainer: pl.Trainer) -> str:
    logger = _leading(trainer.loggers)
    if _file_loggers([logger]):
        folder = _folder_of(logger)
        modes.make_folder(folder)
        modes.restrict(folder)
        return str(folder)
    root, version = root_of_runs(trainer), None if logger is None else logger.version
    if version is None or version == "":
        return str(root / f"version_{_claim_next(trainer, root)}")
    folder = root / (version if isinstance(version, str) else f"version_{version}")
    used = any((folder / name).exists() for name in _WRITTEN)
    if _make(trainer, folder) or not used:  # the logger itself may have created it, as MLflow's does
        return str(folder)
    return str(next(part for part in (folder / f"attempt_{n}" for n in count(1)) if _make(trainer, part)))


def _claim_next(trainer: pl.Trainer, root: Path) -> int:
    """Create the folder of the next version; returns its number."""
    modes.make_folder(root)
    made = next(folder for folder in free_versions(root) if _make(trainer, folder))
    return int(made.name.removeprefix("version_"))


def _make(trainer: pl.Trainer, folder: Path) -> bool:
    """Create a folder; False if it exists."""
    try:
        modes.make_folder(folder, fresh=True)
    except FileExistsError:
        return False
    _MADE.setdefault(trainer, []).append(folder)
    return True
