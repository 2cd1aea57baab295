"""No training text leaks from a default run: every byte that it writes or prints is searched for every input text.

The search covers runs of five words, with any separators, and runs of sixteen token ids, as integers of any width or
as text, in files and in compressed or pickled content.
"""

import gzip
import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lit_mem import assets
from lit_mem.audit.subgroups import Subgroups
from lit_mem.audit.table import ScoreTable
from lit_mem.types import Record, TokenScores

ROOT = Path(__file__).parents[2]
WORDS, IDS = 5, 16
WORD, NUMBER = re.compile(rb"[0-9A-Za-z]+"), re.compile(rb"-?\d+")


class Search:
    """The search terms: all runs of words and of token ids of the texts."""

    def __init__(self, texts, tokenizer):
        self.texts = texts
        self.words, self.ids = {}, {}
        for text in texts:
            for run in runs(words(text.encode()), WORDS):
                self.words.setdefault(run, set()).add(text)
            for run in runs(tokenizer(text, add_special_tokens=False)["input_ids"], IDS):
                self.ids.setdefault(run, set()).add(text)

    def within(self, content, depth=0):
        """The texts of which a run is in the bytes, or in content packed in them."""
        found = set().union(*(self.words[run] for run in runs(words(content), WORDS) if run in self.words))
        numbers = [int(number) for number in NUMBER.findall(content) if len(number) < 8]
        found |= self.texts_of(numbers)
        for width in "248":
            for start in range(int(width)):
                whole = content[start : start + (len(content) - start) // int(width) * int(width)]
                array = np.frombuffer(whole, f"<i{width}")
                found |= self.texts_of(array[self.near_known(array)].tolist())
        for part in unpacked(content) if depth < 3 else ():
            found |= self.within(part, depth + 1)
        for sequence in pickled(content):
            found |= self.texts_of(sequence)
        return found

    def texts_of(self, ids):
        return set().union(*(self.ids[run] for run in runs(ids, IDS) if run in self.ids))

    def near_known(self, array):
        """Of integers, those in runs of sixteen known token ids; other data has almost none."""
        if len(array) < IDS:
            return slice(0)
        known = np.convolve((array >= 0) & (array < 2048), np.ones(IDS), "full") >= IDS
        return np.convolve(known, np.ones(IDS), "valid")[: len(array)] > 0

    def in_folder(self, folder):
        """By file, the texts found in it, or in its name."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        found = {path: self.within(path.read_bytes()) | self.within(str(path).encode()) for path in files}
        return {path: texts for path, texts in found.items() if texts}


def words(content):
    return [word.lower() for word in WORD.findall(content)]


def runs(sequence, length):
    return (tuple(sequence[i : i + length]) for i in range(len(sequence) - length + 1))


def unpacked(content):
    """Unpacked content of a file: members of an archive, a gzip stream, columns of a parquet file."""
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    elif content.startswith(b"\x1f\x8b"):
        yield gzip.decompress(content)
    elif content.startswith(b"PAR1"):
        table = pq.read_table(io.BytesIO(content))
        yield json.dumps(table.to_pydict(), default=str).encode()
        yield json.dumps([str(column.to_pylist()) for column in table.columns]).encode()


def pickled(content):
    """All sequences of integers in a checkpoint."""
    if not content.startswith(b"PK"):
        return
    level = [torch.load(io.BytesIO(content), weights_only=True)]
    while level:
        inner = []
        for value in level:
            if isinstance(value, torch.Tensor) and not value.is_floating_point():
                yield value.flatten().tolist()
            elif isinstance(value, dict):
                inner += [*value.values(), list(value.keys())]
            elif isinstance(value, list | tuple):
                yield [each for each in value if isinstance(each, int)]
                inner += value
        level = inner


@pytest.fixture(scope="module")
def leaky(quickstart_run, tokenizer):
    """A default run, with one callback that writes texts: (folder, output, words in plots, search)."""
    run = quickstart_run
    rows = {}
    for split in ("train", "heldout"):
        lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines()
        rows |= {f"{split}.jsonl:{n}": json.loads(line)["text"] for n, line in enumerate(lines, start=1)}
    table = pq.read_table(run.folder / "asked_for" / "start.parquet", columns=["origin"])
    texts = [rows[origin] for origin in table["origin"].to_pylist()]
    assert len(texts) == 32
    return run.folder, run.out + run.err, run.drawn, Search(texts, tokenizer)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_search_finds_every_text_where_texts_were_requested(leaky):
    """A premise of the tests below."""
    folder, _, _, search = leaky
    found = search.in_folder(folder / "asked_for")
    assert len(found) == 3
    for texts in found.values():
        assert texts == set(search.texts)


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    "hide",
    [
        lambda text, ids: b"\x00\xff" + " ".join(text.split()[3:8]).encode() + b"\x01",
        lambda text, ids: json.dumps({"a": text[:60].upper()}).encode(),
        lambda text, ids: "\n".join(text.split()[:6]).encode(),
        lambda text, ids: gzip.compress(text.encode()),
        lambda text, ids: saved({"state": {"note": text}}),
        lambda text, ids: b"abc" + np.array(ids[3:19], "<i8").tobytes() + b"\x00" * 5,
        lambda text, ids: b"\x07" + np.array(ids[1:20], "<i4").tobytes(),
        lambda text, ids: np.array(ids[:16], "<u2").tobytes(),
        lambda text, ids: saved({"ids": torch.tensor(ids)}),
        lambda text, ids: saved([{"ids": list(ids)}]),
        lambda text, ids: f"step: {list(ids[2:18])}".encode(),
        lambda text, ids: ("a,b\n" + "\n".join(f"{i}" for i in ids)).encode(),
    ],
)  # fmt: skip
def test_the_search_finds_what_is_hidden(leaky, tokenizer, hide):
    search = leaky[3]
    text = search.texts[7]
    assert text in search.within(hide(text, tokenizer(text, add_special_tokens=False)["input_ids"]))


@pytest.mark.slow
def test_the_search_finds_nothing_where_there_is_nothing(leaky):
    search = leaky[3]
    other = "Another report altogether, of a man who had neither drug nor rash nor fever at any time in the year"
    assert not search.within(other.encode() + saved({"a": torch.arange(5000), "b": other}) + bytes(5000))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_no_file_of_a_run_holds_a_training_text(leaky):
    folder, _, _, search = leaky
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert {".ckpt", ".safetensors", ".csv", ".yaml", ".parquet", ".json"} <= {path.suffix for path in written}
    found = search.in_folder(folder)
    assert not {path: texts for path, texts in found.items() if path.parent.name != "asked_for"}


@pytest.mark.slow
def test_nothing_that_is_printed_or_drawn_holds_one(leaky):
    _, output, drawn, search = leaky
    assert "Data case_reports: 16 members" in output
    assert len(drawn) > 20
    assert not search.within(output.encode())
    assert not search.within("\n".join(drawn).encode())


@pytest.mark.slow
def test_no_temporary_file_is_left_and_nothing_lies_in_the_home_folder(leaky):
    folder = leaky[0]
    assert [path for name in ("temporary", "home") for path in (folder / name).rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_run_writes_what_the_security_document_says_and_nothing_else(leaky):
    """Its table lists every file by pattern, and states which of them are written by default."""
    folder = leaky[0]
    patterns = dict(documented())
    always = {pattern for pattern, when in patterns.items() if when == "every run"}
    written = [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "asked_for"
    ]
    matched = {name: [pattern for pattern in patterns if re.fullmatch(regex(pattern), name)] for name in written}
    assert {name: fits for name, fits in matched.items() if len(fits) != 1} == {}
    assert {fits[0] for name, fits in matched.items()} == always


def test_no_slice_is_named_by_a_piece_of_the_text():
    """Such as a completion with few distinct values, whose column is kept; unless two options allow it."""
    texts = ["He had a severe rash after the second dose.", "She had a mild fever after the first dose."]
    records = [Record(texts[i % 2], attributes={"answer": texts[i % 2], "sex": "MF"[i % 2]}) for i in range(8)]
    ids = torch.arange(8)
    mask = torch.ones(8, 2, dtype=torch.bool)
    scores = TokenScores(torch.zeros(8, 2), mask, mask, ids, ids < 4)
    table = ScoreTable(ids, ids < 4, {})
    numbered = {"answer=(value 1)", "answer=(value 2)"}
    for columns, show, names in (
        (None, False, numbered | {"sex=F", "sex=M"}),
        (["answer"], False, numbered),
        (["answer"], True, {f"answer={text}" for text in texts}),
    ):
        groups = Subgroups(columns, length=False, duplicates=False, bins=2, max_groups=12, show_text=show)
        groups.observe(scores, {"records": records})
        assert {str(part) for part in groups.of(table)} == names


def documented():
    """(pattern of a path, when it is written) of each row of the table of files."""
    section = (ROOT / "SECURITY.md").read_text().split("## What is written where")[1].split("\n## ")[0]
    for line in section.splitlines():
        if line.startswith("| `"):
            path, when = [cell.strip() for cell in line.strip("|").split(" | ")][:2]
            for name in path.split(", "):
                yield name.strip("`"), when


def regex(pattern):
    """A regular expression for the files of a pattern, below the folders of this run."""
    for name, place in (("$LIT_MEM_CACHE", "cache"), ("logs", "work/logs")):
        pattern = pattern.replace(name, place, 1) if pattern.startswith(name) else pattern
    return re.sub(
        r"<[^>]*>", "[^/]+", re.escape(pattern).replace(r"\*", "[^/]+").replace(r"\<", "<").replace(r"\>", ">")
    )


def test_the_table_of_files_is_read():
    assert len(list(documented())) > 10
    assert re.fullmatch(regex("logs/<name>/version_<n>/metrics.csv"), "work/logs/quickstart/version_0/metrics.csv")
    assert not re.fullmatch(regex("logs/<name>/version_<n>/metrics.csv"), "work/logs/quickstart/version_0/metrics_csv")
    assert os.sep == "/"
