"""Uploads an exported model to the hub, if it is within its limits: the folder alone, into a private repository."""

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
"""Patterns of the files that are uploaded; nothing else in the folder is."""
_NAMES: Final = ("base_model_name_or_path", "base", "_name_or_path", "name_or_path")
"""Keys of JSON files under which a base may be named by its place on this machine."""


@dataclass(frozen=True)
class Push:
    """Where an exported model is uploaded to.

    Attributes:
        repo_id: such as "me/notes-adapter".
        public: whether the repository may be public; otherwise it is made private, and one that is public is refused.
        over_limits: upload a model that is over its limits, too.

    Raises:
        ConfigError: `repo_id` is no name of a repository.
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
    """Where a run uploads to, by its options; None: nowhere.

    Raises:
        ConfigError: `repo_id` is no name of a repository, or nothing is exported.
    """
    if repo_id is None:
        return None
    if not export:
        raise ConfigError("MemorizationCheckpoint.export is false; expected true with push_to_hub")
    return Push(repo_id, public, over_limits)


def push(folder: Path, to: Push, line: Line | None) -> bool:
    """Upload an exported folder, unless its limits or the repository do not allow it; log one line on what was done.

    No error is raised, so that what a run has written stays.

    Args:
        folder: of the export, its model card in it.
        to: where to.
        line: of the record, of the pass that measured these weights; None: there is none.

    Returns:
        Whether it was uploaded.
    """
    if (why := _refusal(to, line)) is not None:
        log.warning("Not pushed to %s: %s. The export is kept in %s.", to.repo_id, why, folder)
        return False
    try:
        url = _upload(folder, to)
    except Exception as error:
        log.error("Not pushed to %s: %s. The export is kept in %s.", to.repo_id, first_line(error).rstrip("."), folder)
        return False
    log.info("Pushed %s to %s.", folder, url)
    return True


def _refusal(to: Push, line: Line | None) -> str | None:
    """Why a model is not uploaded; None: it may be."""
    if to.over_limits:
        return None
    option = "; set push_over_limits to true to push it nevertheless"
    if line is None:
        return f"no validation has measured these weights{option}"
    state, judged = state_of(line)
    if state == "over":
        return f"the model is over its limits ({'; '.join(str(one) for one in judged if one.state == 'over')}){option}"
    return None


def _upload(folder: Path, to: Push) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api: Any = HfApi()
    url = api.create_repo(to.repo_id, private=not to.public, exist_ok=True)
    if not to.public and not api.repo_info(to.repo_id).private:
        raise ConfigError("the repository is public; expected a private one, or push_public true")
    operations = [CommitOperationAdd(name, content) for name, content in _contents(folder)]
    api.create_commit(to.repo_id, operations, commit_message="Upload an adapter and what lit_mem measured of it")
    return str(url)


def _contents(folder: Path) -> Iterator[tuple[str, str | bytes]]:
    """Name and content of each file that is uploaded; of a large one its path."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in _SENT):
            yield (
                name,
                _without_paths(path) if path.name in ("lit_mem.json",) or path.match("*config.json") else str(path),
            )


def _without_paths(path: Path) -> bytes:
    """A small file of JSON, in which a base on this machine is named without its path."""
    content = json.loads(path.read_text("utf-8"))
    for key in _NAMES:
        name = content.get(key)
        if isinstance(name, str) and is_local(name) and not name.startswith("asset:"):
            content[key] = public_name(name)
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
