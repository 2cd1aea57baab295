"""`--data.source.help` lists the classes that an option takes; with the name of one it shows its options."""

import sys

import pytest

from lit_mem.cli import main as cli


@pytest.fixture
def shown(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["lit-mem"])
        with pytest.raises(SystemExit) as ended:
            cli.main(["fit", *words])
        assert ended.value.code == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("option", "names", "hidden"),
    [
        (
            "data.source",
            {"CaseReports", "ChatFiles", "HubDataset", "PHEE", "TextFiles"},
            {"TwoSets", "Source"},
        ),
        ("model.adapter", {"FullFineTuning", "IA3", "LoRA", "Peft", "PromptTuning"}, {"Adapter", "RecordedAdapter"}),
        ("data.canaries", {"Lines", "Secrets", "Traps"}, {"CanarySource"}),
        ("model.optimizer", {"AdamW", "SGD"}, set()),
        ("trainer.logger", {"CSVLogger", "TensorBoardLogger"}, set()),
    ],
)
def test_without_a_class_those_that_can_be_named_are_listed(option, names, hidden, shown):
    listed = {line.split()[0] for line in shown(f"--{option}.help").splitlines() if line.startswith("  ")}
    assert names <= listed
    assert not hidden & listed
    assert not [name for name in listed if name.startswith(("_", "LazyInstance"))]


@pytest.mark.parametrize("words", [["--data.source.help", "TextFiles"], ["--data.source.help=TextFiles"]])
def test_with_a_class_its_options_are_shown(words, shown):
    out = shown(*words)
    assert "--data.source.text_column" in out
    assert "Classes that" not in out
