"""A push goes to a private repository, only for models within limits, and only with the export's own files."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from lit_mem.audit.push import Push, push, push_of
from lit_mem.errors import ConfigError
from tests.audit.test_card import LINE, METRICS, STOP

WITHIN = replace(LINE, stop=[replace(STOP, thresholds=["mia/reference_auroc > 0.9"])])
UNDECIDED = replace(LINE, stop=[replace(STOP, thresholds=["mia/reference_auroc > 0.8"])])


class Hub:
    """Records calls of `huggingface_hub.HfApi`; existing repositories have a visibility."""

    def __init__(self, existing=None, error=None):
        self.private, self.error, self.sent, self.calls = existing, error, {}, 0

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls += 1
        if self.error:
            raise self.error
        self.private = private if self.private is None else self.private
        return f"https://huggingface.co/{repo_id}"

    def repo_info(self, repo_id):
        return SimpleNamespace(private=self.private)

    def create_commit(self, repo_id, operations, *, commit_message):
        for one in operations:
            content = one.path_or_fileobj
            self.sent[one.path_in_repo] = content if isinstance(content, bytes) else Path(content).read_bytes()


@pytest.fixture
def hub(monkeypatch):
    """Replaces the Hub."""

    def make(**options):
        made = Hub(**options)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
        return made

    return make


@pytest.fixture
def folder(tmp_path):
    """An export, with unrelated files beside it."""
    path = tmp_path / "best-adapter"
    path.mkdir()
    place = str(tmp_path / "models" / "llama")
    contents = {
        "README.md": "# card", "adapter_model.safetensors": "weights", "tokenizer.json": "{}", "privacy.jsonl": "{}",
        "adapter_config.json": json.dumps({"base_model_name_or_path": place, "r": 4}),
        "lit_mem.json": json.dumps({"base": "asset:tiny_llama", "epoch": 1}), "chat_template.jinja": "{{ x }}",
        "best.ckpt": "optimizer", "1.parquet": "rows", "memorization.jsonl": "{}", "notes.txt": "a text",
    }  # fmt: skip
    for name, content in contents.items():
        (path / name).write_text(content)
    return path


def test_the_export_alone_goes_to_a_private_repository(hub, folder):
    api = hub()
    assert push(folder, Push("me/notes"), WITHIN)
    assert api.private is True
    assert set(api.sent) == {
        *("README.md", "adapter_model.safetensors", "tokenizer.json", "privacy.jsonl", "adapter_config.json"),
        *("lit_mem.json", "chat_template.jinja"),
    }
    assert json.loads(api.sent["adapter_config.json"]) == {"base_model_name_or_path": "llama", "r": 4}
    assert json.loads(api.sent["lit_mem.json"]) == {"base": "asset:tiny_llama", "epoch": 1}
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] != "llama"


@pytest.mark.parametrize(
    ("line", "why"),
    [(LINE, r"over its limits .*mia/reference_auroc is 0\.800"), (None, "not measured")],
)
def test_what_is_over_a_limit_or_unmeasured_is_not_pushed(line, why, hub, folder, caplog):
    api = hub()
    assert not push(folder, Push("me/notes"), line)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert re.search(f"Not pushed to me/notes: .*{why}.*push_over_limits", record.getMessage())
    assert "\n" not in record.getMessage()
    assert (api.calls, api.sent) == (0, {})
    assert push(folder, Push("me/notes", over_limits=True), line)


def test_what_is_undecided_or_has_no_limits_is_pushed(hub, folder):
    for line in (UNDECIDED, replace(LINE, stop=[]), replace(LINE, metrics=METRICS | {"mia/reference_auroc_low": 0.6})):
        hub()
        assert push(folder, Push("me/notes"), line)


def test_a_public_repository_must_be_requested(hub, folder, caplog):
    api = hub(existing=False)
    assert not push(folder, Push("me/notes"), WITHIN)
    assert "the repository is public" in caplog.text
    assert api.sent == {}
    assert push(folder, Push("me/notes", public=True), WITHIN)
    fresh = hub()
    assert push(folder, Push("me/notes", public=True), WITHIN)
    assert fresh.private is False


def test_an_error_of_the_hub_is_one_line_and_nothing_is_lost(hub, folder, caplog):
    hub(error=OSError("no network\nat all"))
    assert not push(folder, Push("me/notes"), WITHIN)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage() == f"Not pushed to me/notes: no network. The export is kept in {folder}."


def test_options_are_checked_before_the_run():
    assert push_of(None, False, False, False) is None
    assert push_of("me/notes", True, False, True) == Push("me/notes", public=True)
    with pytest.raises(ConfigError, match=r"export is false; expected true with push_to_hub"):
        push_of("me/notes", False, False, False)
    for name in ("a/b/c", "", "me/no tes", "-x"):
        with pytest.raises(ConfigError, match=r"push_to_hub is .*expected a repository such as me/notes: "):
            push_of(name, False, False, True)
