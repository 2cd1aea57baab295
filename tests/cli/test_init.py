"""`init`: what it prints about a file and what it never shows, and a configuration that the real command line runs."""

import csv
import gzip
import json
import logging
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lit_mem import assets
from lit_mem.cli.commands import COMMANDS
from lit_mem.cli.light import run_light
from lit_mem.cli.main import main
from lit_mem.cli.starter import batch_size, max_length
from lit_mem.cli.trainer_cli import MemorizationCLI
from lit_mem.data.columns import Lengths
from lit_mem.data.heldout_share import heldout_fraction
from lit_mem.data.token_lengths import TokenLengths
from lit_mem.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
TINY = "asset:tiny_llama"
WORDS = ["fever", "rash", "nausea", "cough", "vertigo", "oedema", "anaemia"]


def note(i):
    return f"Zebediah{i} took lithium {i * 37 % 91} days and developed {WORDS[i % 7]} with {WORDS[i // 7 % 7]}."


def notes(n=40):
    span = [{"type": "name", "start": 0, "end": 8}]
    return [
        {"note": note(i), "patient_id": f"zz{i // 2}", "age": None if i % 5 == 0 else 20 + i % 9, "spans": span}
        for i in range(n)
    ]


def alpaca(n=40):
    return [
        {"instruction": f"Tell of case {i}", "input": "" if i % 2 else "In short.", "output": note(i)} for i in range(n)
    ]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def table(path, rows):
    """Spans as the JSON that a csv file has."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)


def floats(path, rows):
    """Patients' numbers as pandas makes them where one was missing."""
    pq.write_table(pa.Table.from_pylist([row | {"patient_id": float(i // 2)} for i, row in enumerate(rows)]), path)


WRITERS = {
    "notes.jsonl": lines,
    "notes.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "notes.csv": table,
    "notes.parquet": floats,
    "notes.txt": lambda path, rows: path.write_text("\n".join(row["note"] for row in rows)),
    "notes.jsonl.gz": lambda path, rows: path.write_bytes(
        gzip.compress("\n".join(json.dumps(row) for row in rows).encode())
    ),
}


@pytest.fixture
def init(monkeypatch, tmp_path, capsys):
    """Runs `init` in an empty folder: (what it printed, the configuration)."""
    monkeypatch.chdir(tmp_path)

    def run(*words, output="notes.yaml"):
        assert run_light(["init", *words, *([] if "--model" in words else ["--model", TINY])])
        return capsys.readouterr().out, yaml.safe_load(Path(output).read_text("utf-8"))

    return run


@pytest.fixture
def rejected(monkeypatch, tmp_path, capsys):
    """Runs a failing `init`: its error line."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            run_light(["init", *words])
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        return line

    return run


@pytest.fixture
def parsed(monkeypatch):
    """The data module that the real command line makes of a configuration, once its texts are read and encoded."""

    def parse(file="notes.yaml"):
        made = []
        monkeypatch.setattr(sys, "argv", ["train.py"])
        monkeypatch.setattr(MemorizationCLI, "_run_from", lambda self, checkpoint, subcommand: made.append(self))
        main(["fit", "--config", file, "--trainer.accelerator", "cpu", "--trainer.logger", "false"])
        logging.getLogger("lit_mem").handlers.clear()  # it holds the last standard error
        (cli,) = made
        cli.datamodule.tokenizer_id = TINY
        cli.datamodule.setup("fit")
        return cli.datamodule

    return parse


@pytest.mark.parametrize(
    "name", [n if n in ("notes.jsonl", "notes.csv") else pytest.param(n, marks=pytest.mark.slow) for n in WRITERS]
)
def test_each_format_becomes_a_configuration_that_reads_its_texts(name, init, parsed, tmp_path):
    rows = notes()
    WRITERS[name](tmp_path / name, rows)
    out, made = init(name)
    source = made["data"]["source"]["init_args"]
    plain = name.endswith(".txt")
    assert source["train"] == name
    assert source["text_column"] == ("text" if plain else "note")
    assert source["group_column"] == (None if plain else "patient_id")
    assert made["data"]["heldout_fraction"] == 0.5
    assert made["data"]["batch_size"] == 8
    assert made["model"]["model_id"] == TINY
    assert made["data"].get("spans_column") == (None if plain else "spans")
    assert "Zebediah" not in out
    assert "Zebediah" not in Path("notes.yaml").read_text()
    if not plain:
        ages = {row["age"] for row in rows} - {None}
        assert re.search(rf"^age +number +20% +{len(ages)} ", out, re.MULTILINE)
        assert re.search(r"^note +text +0% +40 +10, 10, 10 +text$", out, re.MULTILINE)
        assert not re.search(r"\bzz\d", out)
    data = parsed()
    assert len(data.train) + len(data.heldout) == len(rows)
    assert made["trainer"]["log_every_n_steps"] <= len(data.train) / 8  # Lightning warns where an epoch has fewer steps
    longest = max(len(example.input_ids) for example in [*data.train, *data.heldout])
    assert f"{longest} (longest)" in out
    assert longest <= made["data"]["max_length"] == data.max_length
    assert bool(data.train[0].record.spans) != plain


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("name", [*WRITERS, "alpaca.jsonl"])
def test_each_configuration_runs_as_it_is(name, init, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    if name in WRITERS:
        WRITERS[name](tmp_path / name, notes())
    else:
        lines(tmp_path / name, alpaca())
    init(name, "--output", "first.yaml", output="first.yaml")
    main(["fit", "--config", "first.yaml", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"])
    *_, last = (tmp_path / "logs/lit_mem/version_0/memorization.jsonl").read_text().splitlines()
    assert 0 <= json.loads(last)["metrics"]["mia/reference_auroc"] <= 1


def test_columns_of_instructions_become_templates(init, parsed, tmp_path):
    lines(tmp_path / "notes.jsonl", alpaca())
    out, made = init("notes.jsonl")
    source = made["data"]["source"]["init_args"]
    assert source["prompt_template"] == "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
    assert source["completion_template"] == "{output}"
    assert "text_column" not in source
    assert [line.split()[-1] for line in out.splitlines()[2:5]] == ["prompt", "prompt", "completion"]
    records = {example.record.text: example.record.prompt for example in parsed().train}
    assert set(records) <= {note(i) for i in range(40)}
    assert all(prompt.endswith("### Response:\n") for prompt in records.values())


def test_held_out_texts_of_a_file_of_their_own(init, parsed, tmp_path):
    rows = notes(60)
    lines(tmp_path / "notes.jsonl", rows[:40])
    lines(tmp_path / "other.jsonl", [*rows[41:60], rows[0], rows[1] | {"note": rows[1]["note"].upper()}])
    out, made = init("notes.jsonl", "other.jsonl")
    assert made["data"]["source"]["init_args"]["heldout"] == "other.jsonl"
    assert "heldout_fraction" not in made["data"]
    assert "Held out: 21 rows, 1 with a text of the training file, 2 ignoring case" in out
    assert "Groups in both files: 1." in out
    data = parsed()
    assert (len(data.train), len(data.heldout)) == (40, 21)
    lines(tmp_path / "plain.jsonl", [{"note": row["note"]} for row in rows[40:]])
    out, made = init("notes.jsonl", "plain.jsonl", "--force")
    assert made["data"]["source"]["init_args"]["group_column"] is None
    assert "plain.jsonl has no column 'patient_id'" in out


def test_names_that_yaml_would_read_otherwise_stay_what_they_are(init, parsed, tmp_path):
    column, file = 'no: "x"\n#é', "a b: {c} # 'd'.jsonl"
    rows = [{column: row["note"], "1e3_user": row["patient_id"]} for row in notes()]
    lines(tmp_path / file, rows)
    out, made = init(file, "--output", "notes.yaml")
    source = made["data"]["source"]["init_args"]
    assert (source["train"], source["text_column"], source["group_column"]) == (file, column, "1e3_user")
    assert len(out.splitlines()) == len(init(file, "--force", "--output", "notes.yaml")[0].splitlines())
    assert len(parsed().train) == 20


@pytest.mark.slow
def test_a_column_of_that_name_that_marks_nothing_is_left_unread(init, parsed, tmp_path):
    for wrong in ("three", [{"type": "name", "start": 5, "end": 500}], [{"type": "", "start": 0, "end": 1}]):
        lines(tmp_path / "notes.jsonl", [row | {"spans": wrong} for row in notes()])
        assert init("notes.jsonl", "--force")[1]["data"]["spans_column"] is None
    assert not parsed().train[0].record.spans
    outside = [{"type": "name", "start": 5, "end": 500}]
    lines(tmp_path / "notes.jsonl", [{"note": row["note"], "phi": outside} for row in notes()])
    assert "spans_column" not in init("notes.jsonl", "--force")[1]["data"]
    lines(tmp_path / "notes.jsonl", [{"note": row["note"], "phi": row["spans"]} for row in notes()])
    assert init("notes.jsonl", "--force")[1]["data"]["spans_column"] == "phi"
    assert [span.kind for span in parsed().train[0].record.spans] == ["name"]


def test_the_file_is_for_its_owner_and_overwritten_only_by_force(init, rejected, tmp_path):
    lines(tmp_path / "notes.jsonl", notes())
    init("notes.jsonl")
    assert stat.S_IMODE(os.stat("notes.yaml").st_mode) == 0o600
    Path("notes.yaml").write_text("mine")
    assert "notes.yaml already exists; use --force" in rejected("notes.jsonl")
    assert Path("notes.yaml").read_text() == "mine"
    init("notes.jsonl", "--force")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert "expected a .yaml file" in rejected("notes.jsonl", "--output", "notes.jsonl", "--force")
    os.rename("notes.jsonl", "notes2.yaml")
    os.symlink("notes2.yaml", "notes3.yaml")
    assert "is an input file" in rejected("notes2.yaml", "--output", "notes3.yaml", "--force")
    assert "the folder a does not exist" in rejected("notes.jsonl", "--output", "a/b.yaml")


CHATS = {
    "messages": [{"role": "user", "content": "Zebediah?"}, {"role": "assistant", "content": "Zebediah."}],
    "conversations": [{"from": "human", "value": "Zebediah?"}, {"from": "gpt", "value": "Zebediah."}],
}


@pytest.mark.parametrize("column", CHATS)
def test_conversations_get_a_configuration_of_theirs(column, init, tmp_path, capsys):
    rows = [{"id": f"c{i}", "patient_id": f"p{i // 3}", column: CHATS[column]} for i in range(30)]
    lines(tmp_path / "notes.jsonl", rows)
    written = init("notes.jsonl")[1]["data"]
    assert written["source"]["class_path"] == "lit_mem.data.sources.ChatFiles"
    assert written["source"]["init_args"] == {
        "train": "notes.jsonl", "heldout": None, "form": "auto", "group_column": "patient_id",
    }  # fmt: skip
    assert written["chat"] == {"loss": "assistant", "template": "asset:chatml"}  # the bundled model has none
    text = "".join(
        f"<|im_start|>{who}\n{what}<|im_end|>\n" for who, what in (("user", "Zebediah?"), ("assistant", "Z."))
    )
    assert written["max_length"] >= len(text) // 3
    assert "Zebediah" not in Path("notes.yaml").read_text() + capsys.readouterr().out


def test_a_column_of_texts_goes_before_one_of_conversations(init, tmp_path):
    lines(tmp_path / "notes.jsonl", [{"messages": CHATS["messages"], "text": note(i)} for i in range(30)])
    assert init("notes.jsonl")[1]["data"]["source"]["init_args"]["text_column"] == "text"


@pytest.mark.parametrize(
    ("content", "words", "found"),
    [
        (None, ["notes.jsonl"], "notes.jsonl: no such file"),
        ("", ["notes.jsonl"], "is empty"),
        ('{"text": "secret one two"}\n' * 9, ["notes.jsonl"], "has 9 rows; expected at least 10"),
        ('{"age": 5}\n' * 20, ["notes.jsonl"], "no text column"),
        (
            '{"text": "secret one two"}\n' * 20 + '{"text": null}',
            ["notes.jsonl"],
            "(--skip_unusable skips them): line 21, field 'text': found null",
        ),
        ('{"text": "secret one two"}\n' * 20 + "[3]", ["notes.jsonl"], "line 21, found list, expected an object"),
        ("a;b\n" + "1;2\n" * 20, ["notes.csv"], "no text column"),
        ('{"text": "secret one two"}\n' * 20, ["notes.jsonl", "--model", "./none"], "./none, which does not exist"),
        ('{"text": "secret one two"}\n' * 20, ["notes.jsonl", "--model", "asset:x"], "no bundled asset 'x'"),
        ('{"text": "secret one two"}\n' * 20, ["notes.jsonl", "--modle", "x"], "init: unrecognized arguments: --modle"),
        (None, [], "init: the following arguments are required: FILE"),
    ],
)
def test_what_cannot_be_used_is_one_line(content, words, found, rejected, tmp_path):
    if content is not None:
        (tmp_path / words[0]).write_text(content)
    line = rejected(*words)
    assert found in line
    assert "secret" not in line
    assert not list(tmp_path.glob("*.yaml"))


def test_the_same_held_out_texts_and_a_prompt_without_space_for_its_completion_are_rejected(rejected, tmp_path):
    lines(tmp_path / "notes.jsonl", notes())
    lines(tmp_path / "same.jsonl", notes())
    assert "every text is also in the training file" in rejected("notes.jsonl", "same.jsonl", "--model", TINY)
    lines(tmp_path / "notes.jsonl", [{"prompt": "word " * 600, "completion": note(i)} for i in range(20)])
    assert re.search(r"longest prompt has \d+ tokens, .* at most 512", rejected("notes.jsonl", "--model", TINY))


def test_a_model_that_is_not_cached_is_estimated_and_the_bundled_one_is_used(init, tmp_path, monkeypatch):
    lines(tmp_path / "notes.jsonl", notes())
    out, made = init("notes.jsonl", "--model", "nobody/nothing")
    assert "estimated" in out
    assert made["model"]["model_id"] == "nobody/nothing"
    size = max(len(note(i).encode()) for i in range(40))
    assert made["data"]["max_length"] >= size / 3
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("lit_mem.cli.init.is_here", lambda model_id: False)
    assert run_light(["init", "notes.jsonl", "--force"])
    assert yaml.safe_load(Path("notes.yaml").read_text())["model"]["model_id"] == TINY
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert run_light(["init", "notes.jsonl", "--force"])
    assert yaml.safe_load(Path("notes.yaml").read_text())["model"]["model_id"] == "HuggingFaceTB/SmolLM2-135M"


PLACES = {
    "folder": [f"{{}}{i}.txt" for i in range(40)],
    "persons": [f"p{i // 2}/{{}}{i}.txt" for i in range(40)],
    "sets": [f"{'train' if i < 25 else 'validation'}/{{}}{i}.txt" for i in range(40)],
}


@pytest.mark.parametrize("form", PLACES)
def test_a_folder_of_notes_becomes_a_configuration(form, init, parsed, tmp_path):
    for i, path in enumerate(PLACES[form]):
        file = tmp_path / "notes" / path.format("Zebediah")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{note(i)}\nSecond line.\n")
    out, made = init("notes/")
    source = made["data"]["source"]["init_args"]
    assert source["train"] == "notes/"
    assert source["group_column"] == ("folder" if form == "persons" else None)
    assert ("heldout_fraction" in made["data"]) == (form != "sets")
    assert "Zebediah" not in out + Path("notes.yaml").read_text()
    data = parsed()
    assert (len(data.train), len(data.heldout)) == ((25, 15) if form == "sets" else (20, 20))
    assert all(example.record.text.endswith("Second line.\n") for example in data.train)


@pytest.mark.parametrize(
    ("name", "content", "words", "options"),
    [
        ("notes.tsv", lambda rows: "who\tnote\n" + "".join(f"{i}\t{row}\n" for i, row in enumerate(rows)), [], {}),
        ("notes.csv", lambda rows: ";note\n" + "".join(f"{i};{row}\n" for i, row in enumerate(rows)), [], {}),
        ("notes.csv", lambda rows: "a:note\n" + "".join(f"{i}:{row}\n" for i, row in enumerate(rows)),
         ["--delimiter", ":"], {"delimiter": ":"}),
        ("notes.csv", lambda rows: ("note\n" + "".join(f"{row} é\n" for row in rows)).encode("cp1252"),
         ["--encoding", "cp1252"], {"encoding": "cp1252"}),
        ("notes.jsonl", lambda rows: '{"note": null}\n' + "".join(json.dumps({"note": row}) + "\n" for row in rows),
         ["--skip_unusable"], {"skip_unusable": True}),
    ],
)  # fmt: skip
def test_options_of_reading_go_into_the_configuration(name, content, words, options, init, parsed, tmp_path):
    made = content([note(i) for i in range(40)])
    (tmp_path / name).write_bytes(made if isinstance(made, bytes) else made.encode())
    source = init(name, *words)[1]["data"]["source"]["init_args"]
    assert source["text_column"] == "note"
    assert {key: source[key] for key in ("delimiter", "encoding", "skip_unusable") if key in source} == options
    data = parsed()
    assert len(data.train) + len(data.heldout) == 40


def test_a_pattern_and_marks_of_another_program(init, parsed, tmp_path):
    for part in range(2):
        rows = [{"text": note(i), "label": [[0, 8, "name"]]} for i in range(20 * part, 20 * part + 20)]
        lines(tmp_path / f"part{part}.jsonl", rows)
    _, made = init("part*.jsonl", output="texts.yaml")
    assert made["data"]["source"]["init_args"]["train"] == "part*.jsonl"
    assert made["data"]["spans_column"] == "label"
    data = parsed("texts.yaml")
    assert {span.kind for example in data.train for span in example.record.spans} == {"name"}


@pytest.mark.parametrize(
    ("lengths", "prompt", "positions", "expected"),
    [
        ((20, 30, 31), 0, None, 32),
        ((20, 30, 33), 0, None, 48),
        ((200, 400, 512), 0, None, 512),
        ((200, 400, 513), 0, None, 512),  # 95 % of them
        ((200, 900, 5000), 0, None, 1024),
        ((900, 3000, 5000), 0, None, 2048),
        ((200, 900, 5000), 0, 600, 600),
        ((200, 400, 3000), 1000, None, 1024),  # every prompt leaves space for a completion
    ],
)
def test_the_longest_example(lengths, prompt, positions, expected):
    assert max_length(TokenLengths(Lengths(*lengths), prompt, True, positions), "m") == expected


def test_a_prompt_as_long_as_what_the_model_reads():
    full = TokenLengths(Lengths(9, 9, 600), 511, True, 512)
    with pytest.raises(ConfigError, match="511 tokens, and m is trained on at most 512"):
        max_length(full, "m")


def test_a_split_of_any_size_leaves_both_sides_texts():
    for n in range(10, 500):
        held = heldout_fraction(n) * n
        assert held >= min(100, n / 2) - 3  # rounded to whole percents
        assert held <= n / 2 + 3
    assert heldout_fraction(10**6) == 0.1
    assert [batch_size(n) * n <= 2048 for n in (32, 300, 700, 2048)] == [True] * 4


def test_warnings_show_every_character_of_a_file_name(init, tmp_path, capsys):
    kind = pa.map_(pa.string(), pa.int64())
    columns = pa.table({"text": [note(i) for i in range(20)], "more": pa.array([[("a", 1)]] * 20, kind)})
    pq.write_table(columns, tmp_path / "a\x1b[31m.parquet")
    assert run_light(["init", "a\x1b[31m.parquet", "--output", "notes.yaml", "--model", TINY])
    found = capsys.readouterr()
    assert "column 'more' has an unsupported type" in found.err
    assert "\x1b" not in found.out + found.err + Path("notes.yaml").read_text()
    source = yaml.safe_load(Path("notes.yaml").read_text())["data"]["source"]["init_args"]
    assert source["train"] == "a\x1b[31m.parquet"


def test_it_is_among_the_commands_and_runs_through_both_entries(init, tmp_path, monkeypatch, capsys):
    lines(tmp_path / "notes.jsonl", notes())
    init("notes.jsonl")
    first = Path("notes.yaml").read_bytes()
    assert COMMANDS["init"].module == "lit_mem.cli.init"
    main(["init", "notes.jsonl", "--model", TINY, "--force"])
    logging.getLogger("lit_mem").handlers.clear()
    assert Path("notes.yaml").read_bytes() == first
    assert not run_light(["fit"])
    with pytest.raises(SystemExit) as ended:
        run_light(["init", "--help"])
    assert ended.value.code == 0
    assert "--force" in capsys.readouterr().out


@pytest.mark.slow
def test_it_loads_neither_torch_nor_lightning(tmp_path):
    file = assets.path("case_reports") / "train.jsonl"
    script = (
        "import sys, runpy; sys.argv = ['train.py', 'init', *sys.argv[1:]]\n"
        f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')\n"
        "print(*({'torch', 'lightning', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(file), "--output", "x.yaml", "--model", TINY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, timeout=600)
    assert done.stdout.splitlines()[-1] == ""
    made = yaml.safe_load((tmp_path / "x.yaml").read_text())
    assert made["data"]["source"]["init_args"]["group_column"] == "group"
    assert made["data"]["source"]["init_args"]["text_column"] == "text"
