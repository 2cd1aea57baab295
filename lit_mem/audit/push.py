"""Upload an exported model to the Hub if it is within its limits: only the export folder, private by default."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from lit_mem.audit.card import state_of
from lit_mem.audit.card_facts import is_local, public_name
from lit_mem.errors import ConfigError, first_line
from lit_mem.files.record import Line

log = logging.getLogger(__name__)

_SENT: Final = (
    *("README.md", "*.safetensors", "*.safetensors.index.json", "*config.json", "lit_mem.json", "privacy.jsonl"),
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "*.tiktoken"),
    "*.jinja",
)
"""Patterns of the files that are uploaded; all others are skipped."""
_NAMES: Final = ("base_model_name_or_path", "base", "_name_or_path", "name_or_path")
"""Keys in JSON files that may hold a local path of the base model."""


@dataclass(frozen=True)
class Push:
    """Upload options of an exported model.

    Attributes:
        repo_id: such as "me/notes-adapter".
        public: whether the repository may be public; otherwise it is created private, and a public one is rejected.
        over_limits: also upload a model that is over its limits.

    Raises:
        ConfigError: `repo_id` is not a valid repository name.
    """

    repo_id: str
    public: bool = False
    over_limits: bool = False

    def __post_init__(self) -> None:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils._validators import validate_repo_id

        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise ConfigError(
                f"MemorizationCheckpoint.push_to_hub is {self.repo_id!r:.80}; expected a repository such as me/notes: "
                f"{first_line(error)}"
            ) from None


def push_of(repo_id: str | None, public: bool, over_limits: bool, export: bool) -> Push | None:
    """Upload options of a run; None if nothing is uploaded.

    Raises:
        ConfigError: `repo_id` is not a valid repository name, or nothing is exported.
    """
    if repo_id is None:
        return None
    if not export:
        raise ConfigError("MemorizationCheckpoint.export is false; expected true with push_to_hub")
    return Push(repo_id, public, over_limits)


def push(folder: Path, to: Push, line: Line | None) -> bool:
    """Upload an exported folder unless its limits or the repository forbid it; log one line about the outcome.

    No error is raised, so the run's own output stays intact.

    Args:
        folder: folder of the export, with its model card.
        to: destination.
        line: record of the pass that measured these weights; None without one.

    Returns:
        Whether it was uploaded.
    """
    if (why := _obstacle(to, line)) is not None:
        log.warning("Not pushed to %s: %s. The export is kept in %s.", to.repo_id, why, folder)
        return False
    try:
        url = _upload(folder, to)
    except Exception as error:
        log.error("Not pushed to %s: %s. The export is kept in %s.", to.repo_id, first_line(error).rstrip("."), folder)
        return False
    log.info("Pushed %s to %s.", folder, url)
    return True


def _obstacle(to: Push, line: Line | None) -> str | None:
    """Why a model must not be uploaded; None if it may be."""
    if to.over_limits:
        return None
    option = "; set push_over_limits to true to push it anyway"
    if line is None:
        return f"these weights were not measured by a validation{option}"
    state, judged = state_of(line)
    if state == "over":
        return f"the model is over its limits ({'; '.join(str(one) for one in judged if one.state == 'over')}){option}"
    return None


def _upload(folder: Path, to: Push) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api: Any = HfApi()
    url = api.create_repo(to.repo_id, private=not to.public, exist_ok=True)
    if not to.public and not api.repo_info(to.repo_id).private:
        raise ConfigError("the repository is public; expected a private one, or push_public: true")
    operations = [CommitOperationAdd(name, content) for name, content in _contents(folder)]
    api.create_commit(to.repo_id, operations, commit_message="Upload an adapter and its memorization metrics (lit_mem)")
    return str(url)


def _contents(folder: Path) -> Iterator[tuple[str, str | bytes]]:
    """Name and content of each uploaded file; for a large file, its path."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in _SENT):
            yield (
                name,
                _without_paths(path) if path.name in ("lit_mem.json",) or path.match("*config.json") else str(path),
            )


def _without_paths(path: Path) -> bytes:
    """Content of a small JSON file, with local paths of the base replaced by its name."""
    content = json.loads(path.read_text("utf-8"))
    for key in _NAMES:
        name = content.get(key)
        if isinstance(name, str) and is_local(name) and not name.startswith("asset:"):
            content[key] = public_name(name)
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
