"""Resolving paths: files, folders and patterns, the sets in a folder, and names that are never shown."""

import gzip
import json
import logging
import os
from pathlib import Path

import datasets
import pytest

from lit_mem.data.sources import HubDataset, TextFiles
from lit_mem.data.sources.places import place_of
from lit_mem.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    return tmp_path


def put(files):
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def lines(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def read(path, **options):
    """Texts and origins of the members."""
    rows = TextFiles(path, **options).load().train
    return list(rows["completion"]), list(rows["origin"])


def rejected(make, *parts, kind=DataError):
    with pytest.raises(kind) as caught:
        make()
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []
    assert "Ann" not in message
    return message


NOTES = {"notes/Ann.txt": "One.\n\nTwo.\n", "notes/b/Bob.md": "Three.\n", "notes/b/c.txt.gz": gzip.compress(b"Four.")}


@pytest.mark.parametrize("path", ["notes", "notes/", "./notes", "notes/**/*.*"])
def test_each_file_of_a_folder_or_pattern_is_one_text_and_named_by_its_number(path):
    put(NOTES)
    texts, origins = read(path)
    assert texts == ["One.\n\nTwo.\n", "Three.\n", "Four."]
    assert origins == ["notes:1", "notes:2", "notes:3"]


def test_a_pattern_takes_matches_and_an_existing_name_is_not_a_pattern():
    put({**NOTES, "a[1].jsonl": lines("x"), "x1.jsonl": lines("y", "z")})
    assert read("notes/**/*.txt") == (["One.\n\nTwo.\n"], ["notes:1"])
    assert read("a[1].jsonl") == (["x"], ["a[1].jsonl:1"])
    assert read("[x]*.jsonl") == (["y", "z"], ["[x]*.jsonl:1", "[x]*.jsonl:2"])


def test_a_single_file_of_texts_has_one_a_line_and_one_of_markdown_is_one():
    put({"a.txt": "One.\nTwo.\n", "a.md": "# One\n\nTwo.\n", "only/a.txt": "One.\nTwo.\n"})
    assert read("a.txt") == (["One.", "Two."], ["a.txt:1", "a.txt:2"])
    assert read("only") == (["One.", "Two."], ["only:1", "only:2"])
    assert read("a.md") == (["# One\n\nTwo.\n"], ["a.md:1"])


WRITERS = {
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "parquet": lambda frame, path: frame.to_parquet(path),
    "arrow": lambda frame, path: frame.to_feather(path),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_several_files_of_rows_are_one_set(suffix):
    parts = [{"text": ["a", "b"], "n": [1, 2]}, {"text": ["c"], "n": [3.5]}, {"text": ["d"], "who": ["x"]}]
    Path("set").mkdir()
    for number, part in enumerate(parts):
        WRITERS[suffix](datasets.Dataset.from_dict(part).to_pandas(), f"set/Ann{number}.{suffix}")
    put({"set/README.md": "# About", "set/_SUCCESS": "", "set/.part.crc": "x"})
    rows = TextFiles("set").load().train
    assert rows["completion"][:] == ["a", "b", "c", "d"]
    assert len(set(rows["origin"])) == 4
    assert all(origin.startswith("set:") and "Ann" not in origin for origin in rows["origin"])
    assert [float(value) if value else None for value in rows["n"]] == [1, 2, 3.5, None]
    assert rows["who"][:] == [None, None, None, "x"]


def test_a_row_of_several_files_is_found_by_the_number_of_its_file():
    put({"set/Ann.jsonl": lines("a", "b"), "set/b.jsonl": "\n", "set/c.jsonl": '{"text": "c"}\n{"text": 5}\n{oops\n'})
    rejected(
        lambda: read("set"), "set: 2 of 5 rows", "file 3, line 2, field 'text': found int", "file 3, line 3, column 2"
    )
    texts, origins = read("set", skip_unusable=True)
    assert (texts, origins) == (["a", "b", "c"], ["set:1:1", "set:1:2", "set:3:1"])
    put({"set/Ann.jsonl": b"\xff"})
    rejected(lambda: read("set"), "set, file 1, line 1", "data.source.encoding")


def test_files_of_several_kinds_and_of_unlike_types_are_rejected(caplog):
    put({"a/Ann.txt": "x", "a/b.csv": "text\n", "b/Ann.pdf": "x", "b/c": "", "b/Bob.Ann": "", "b/README.md": ""})
    rejected(lambda: read("a"), "a: has 1 .txt, 1 .csv", "a/*")
    rejected(lambda: read("b"), "b: has no supported files", ".pdf")
    put({"b/one.txt": "One.", "b/two.txt": "Two."})
    with caplog.at_level(logging.WARNING, "lit_mem"):
        assert read("b")[0] == ["One.", "Two."]
    assert any("1 .pdf" in line and "skipped" in line for line in caplog.messages)
    assert not any("ann" in line.lower() or ".md" in line for line in caplog.messages)
    put({"b/README.md": "About."})
    assert read("b/*.md")[0] == ["About."]  # a pattern takes what it names
    put({"d/test/x.py": "", "d/a.txt": "a", "d/b.txt": "b"})
    assert read("d")[0] == ["a", "b"]  # no set, as nothing in it can be read
    Path("c").mkdir()
    for name, value in (("Ann", "x"), ("b", [1])):
        datasets.Dataset.from_dict({"text": ["a"], "n": [value]}).to_parquet(f"c/{name}.parquet")
    rejected(lambda: read("c"), "c: its files differ in the types of 'n'")


SETS = {
    "sub-folders": ["{}/one.txt", "{}/two.txt"],
    "deeper": ["data/{}/one.txt", "data/{}/x/two.txt"],
    "names of texts": ["{}.txt"],
    "names of rows": ["data/{}-00000-of-00002.jsonl", "{}-00001-of-00002.jsonl"],
}


@pytest.mark.parametrize("form", SETS)
@pytest.mark.parametrize("heldout", ["validation", "dev", "heldout", None])
def test_sets_of_a_folder_are_what_their_names_say(form, heldout):
    for name in ("train", "test", *([heldout] if heldout else [])):
        for number, path in enumerate(SETS[form]):
            path = f"corpus/{path.format(name)}"
            put({path: lines(f"{name} {number}") if path.endswith("jsonl") else f"{name} {number}"})
    put({"corpus/README.md": "# About", "corpus/LICENSE": ""})
    corpus = TextFiles("corpus").load()
    n = range(len(SETS[form]))
    assert corpus.train["completion"][:] == [f"train {i}" for i in n]
    assert corpus.test["completion"][:] == [f"test {i}" for i in n]
    if heldout is None:
        assert corpus.heldout is None
    else:
        assert corpus.heldout["completion"][:] == [f"{heldout} {i}" for i in n]
        assert not {*corpus.train["origin"]} & {*corpus.heldout["origin"]}
    assert corpus.train["origin"][0].startswith("corpus/train:1")
    assert TextFiles("corpus", heldout=f"corpus/{SETS[form][0].format('test')}").load().heldout.num_rows == 1
    rejected(lambda: place_of("corpus"), "corpus: is a folder with several sets", "train", "corpus/train")


def test_where_one_set_is_notes_a_lone_file_of_another_is_one_too():
    put({"c/train/a.txt": "a\na", "c/train/b.txt": "b\nb", "c/test/t.txt": "t\nt"})
    corpus = TextFiles("c").load()
    assert (corpus.train["completion"][:], corpus.test["completion"][:]) == (["a\na", "b\nb"], ["t\nt"])


def test_a_folder_with_a_test_set_and_no_training_set_is_not_trained_on():
    put({"c/ward/Ann.txt": "a", "c/ward/b.txt": "b", "c/test/c.txt": "c"})
    rejected(lambda: read("c"), "c: is a folder with a set 'test' but none named 'train'")


def test_members_and_held_out_texts_share_no_file():
    put({"c/Ann.txt": "a", "c/b.txt": "b", "c/d/e.txt": "e", "far/Ann.txt": "f"})
    os.symlink("c", "link")
    for heldout in ("c/b.txt", "c/d", "c/*.txt"):
        rejected(TextFiles("c", heldout=heldout).load, "heldout and train share", "of 3 files", kind=ConfigError)
    for heldout in ("link", "./c"):
        rejected(lambda heldout=heldout: TextFiles("c", heldout=heldout), "same file as train", kind=ConfigError)
    assert not {*TextFiles("c/Ann.txt", test="far/Ann.txt").load().train["origin"]} & {"far/Ann.txt:1"}
    assert TextFiles("c/*.txt", heldout="c/d").load().heldout.num_rows == 1


def test_linked_folders_are_read_once():
    put({"c/a.txt": "a", "far/b.txt": "b", "far/d.txt": "d"})
    os.symlink("../far", "c/far")
    os.symlink("..", "far/up")
    assert read("c")[0] == ["a", "b", "d"]


# -- saved folders ---------------------------------------------------------------------------------------------------


def saved(**sets):
    return datasets.DatasetDict({name: datasets.Dataset.from_dict({"text": texts}) for name, texts in sets.items()})


@pytest.mark.parametrize("kind", [TextFiles, HubDataset])
def test_folders_that_datasets_saved(kind):
    texts = [f"text {n}" for n in range(6)]
    saved(train=texts, validation=["held"], test=["far"]).save_to_disk("all")
    chosen = datasets.Dataset.from_dict({"text": texts}).select([4, 2]).with_format("numpy")
    chosen.save_to_disk("one")
    if kind is TextFiles:
        corpus = TextFiles("all").load()
        assert TextFiles("all/train").load().train["origin"][:2] == ["train:1", "train:2"]
    else:
        corpus = HubDataset("all", heldout_split="validation", test_split="test").load()
        part = HubDataset("all", train_split="train[:50%]", heldout_split="train[-2:]").load()
        assert part.train["completion"][:] == texts[:3]
        assert part.heldout["completion"][:] == texts[4:]
        rejected(HubDataset("all", train_split="dev").load, "no split 'dev'", "train, validation, test")
        rejected(HubDataset("all", train_split="train[:0%]").load, "is empty")
    sets = (corpus.train, corpus.heldout, corpus.test)
    assert [rows["completion"][:] for rows in sets] == [texts, ["held"], ["far"]]
    assert corpus.train["origin"][0] == "all/train:1"
    assert kind("one").load().train["completion"][:] == [texts[4], texts[2]]


def test_a_saved_folder_that_is_damaged_or_leads_elsewhere():
    saved(train=["a"]).save_to_disk("all")
    rejected(TextFiles("all", heldout="all/train").load, "share", kind=ConfigError)
    (data,) = Path("all/train").glob("*.arrow")
    data.write_bytes(data.read_bytes()[:-40])
    rejected(lambda: read("all"), "all/train", "that can be read")
    for content in ("[", "{}", '{"splits": []}', '{"splits": ["../all/train"]}', '{"splits": ["none"]}'):
        put({"all/dataset_dict.json": content})
        rejected(lambda: read("all"), "all: its dataset_dict.json")
    saved(a=["a"], b=["b"]).save_to_disk("two")
    rejected(lambda: read("two"), "two: is a folder of the sets a, b; expected one named train")
    datasets.Dataset.from_dict({"text": []}).save_to_disk("none")
    rejected(lambda: read("none"), "none: is not a folder of `datasets` that can be read")


# -- the hub source --------------------------------------------------------------------------------------------------


def test_notes_of_a_folder_are_whole_texts_through_the_hub_source_too():
    files = {f"notes/train/{name}.txt": f"First of {name}.\nSecond." for name in ("Ann", "Bob", "Cid", "Dan")}
    put({**files, "notes/test/Eve.txt": "First of Eve.\nSecond."})
    mine, hub = TextFiles("notes").load(), HubDataset("notes", test_split="test").load()
    assert hub.train.to_dict() == mine.train.to_dict()
    assert hub.test.to_dict() == mine.test.to_dict()
    assert hub.train["completion"][0] == "First of Ann.\nSecond."
    part = HubDataset("notes", train_split="train[:75%]", heldout_split="train[75%:]").load()
    assert [rows["origin"][:] for rows in (part.train, part.heldout)] == [
        [f"notes/train:{n}" for n in (1, 2, 3)], ["notes/train:4"],
    ]  # fmt: skip
    put({"notes/train/Ann.txt": b"caf\xe9"})
    rejected(HubDataset("notes").load, "file 1, line 1", "TextFiles.encoding")
    assert HubDataset("notes", skip_unusable=True).load().train.num_rows == 3
