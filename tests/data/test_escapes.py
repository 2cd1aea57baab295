r"""Templates as a shell passes them: `\n` in two characters."""

import json
import logging
import re

import pytest

from lit_mem.data.canaries import Lines, Secrets, Setting
from lit_mem.data.escapes import unescaped
from lit_mem.data.sources import HubDataset, TextFiles


@pytest.mark.parametrize("source", [TextFiles, HubDataset])
def test_the_template_as_the_help_spells_it_has_a_line_break(source):
    """The oracle is the help itself, whose example is put together from its lines."""
    spelt = re.search(r'"(Question:\s+\{question\}.*?)"', source.__doc__, re.DOTALL)[1]
    spelt = re.sub(r"\s+", " ", spelt)
    assert "\n" not in spelt
    assert r"\n" in spelt
    fields = source("x", prompt_template=spelt, completion_template=" {answer}").fields
    assert list(fields.templates[0].fill({"question": ["Why?"]}, 1)) == ["Question: Why?\nAnswer:"]


@pytest.mark.parametrize(
    ("spelt", "meant", "said"),
    [
        ("a\nb\tc", "a\nb\tc", []),
        (r"a\nb", "a\nb", [r"\n as a line break"]),
        (r"a\tb\n\nc", "a\tb\n\nc", [r"\n as a line break", r"\t as a tab"]),
        (r"\\nabla {q} \\tau", r"\nabla {q} \tau", []),
        (r"\d \\ \x \\", r"\d \\ \x \\", []),
        ("", "", []),
    ],
)
def test_what_is_read_as_a_line_break_or_tab_is_logged(spelt, meant, said, caplog):
    with caplog.at_level(logging.INFO, "lit_mem"):
        assert unescaped("data.source.prompt_template", spelt) == meant
    assert len(caplog.messages) == bool(said)
    for part in said:
        assert part in caplog.messages[0]
        assert caplog.messages[0].startswith("data.source.prompt_template: ")


def test_canaries_have_line_breaks_too(tokenizer, tmp_path):
    made = Secrets(2, templates=[r"{name}\nNumber: ####"]).make(Setting(tokenizer))
    assert all("\nNumber: " in canary.content.text for canary in made)
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"who": w, "what": w * 2}) + "\n" for w in "ab"))
    lines = Lines(str(tmp_path / "c.jsonl"), prompt_template=r"{who}:\n", completion_template="{what}")
    assert {canary.content.text for canary in lines.make(Setting(tokenizer))} == {"a:\naa", "b:\nbb"}


def test_values_of_columns_are_left_as_they_are(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"q": r"C:\new\temp", "a": r"\n"}) + "\n")
    source = TextFiles(str(tmp_path / "a.jsonl"), prompt_template=r"{q}\n", completion_template="{a}")
    (row,) = source.load().train
    assert (row["prompt"], row["completion"]) == ("C:\\new\\temp\n", r"\n")
