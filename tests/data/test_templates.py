"""Templates from files."""

import pytest

from lit_mem.data.sources import TextFiles
from lit_mem.data.templates import template_of
from lit_mem.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("Q: {q}\nA:", "Q: why\nA:"),
        ("Q: {q}\nA:\n", "Q: why\nA:"),
        ("Q: {q}\r\nA:\n\n", "Q: why\nA:\n"),
        (r"\n {q}", r"\n why"),  # as it is: a file has line breaks of its own
        ("\ufeff{{{q}}}", "{why}"),
    ],
)
def test_the_content_of_a_file_is_the_template(here, content, prompt):
    (here / "prompt.txt").write_bytes(content.encode())
    (here / "a.jsonl").write_text('{"q": "why", "a": "so"}')
    rows = TextFiles("a.jsonl", prompt_template="file:prompt.txt", completion_template=" {a}").load().train
    assert (rows["prompt"][0], rows["completion"][0]) == (prompt, " so")


@pytest.mark.parametrize("given", ["file: {q}", "file:", "file: notes", "file:{q}", "my file:x", "file:a\nb"])
def test_a_template_that_starts_like_one_is_a_template(given):
    assert template_of("prompt_template", given) == given


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["prompt_template: p.txt cannot be read (No such file or directory)", "expected a template file"]),
        (b"", ["p.txt is empty"]),
        (b"\n\n", ["p.txt is empty"]),
        (b"caf\xe9", ["p.txt: found byte 0xe9 at offset 3; expected UTF-8"]),
        (b"{q", ["prompt_template is malformed"]),
        (b"{q!r}", ["found a format after 'q'"]),
    ],
)
def test_files_that_are_not_a_template_are_one_line(here, content, parts):
    if content is not None:
        (here / "p.txt").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        TextFiles("a.jsonl", prompt_template="file:p.txt", completion_template="{a}")
    message = str(caught.value)
    assert [part for part in parts if part not in message] == []
    assert "\n" not in message
