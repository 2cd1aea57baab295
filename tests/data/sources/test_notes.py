"""Folders of notes: sub-folders, unreadable notes, and BRAT annotations next to them."""

import logging

import pytest

from lit_mem.data import TextDataModule
from lit_mem.data.sources import TextFiles
from lit_mem.data.sources.brat import AnnotationError, brat_spans
from lit_mem.errors import DataError

NOTE = "Ann Lee took\r\nlithium and aspirin; naïve to both.\n"


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def put(**files):
        for name, content in files.items():
            path = tmp_path / "notes" / name.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return put


def load(**options):
    return TextFiles("notes", **options).load().train


def test_sub_folders_are_groups_by_number(notes):
    notes(zoe__1_txt="a", zoe__2_txt="b", ann__1_txt="c", bob__x__1_txt="d")
    rows = load(group_column="folder")
    assert rows["completion"][:] == ["c", "d", "a", "b"]
    assert rows["group"][:] == ["1", "2", "3", "3"]
    notes(only_txt="e")
    assert len(set(load(group_column="folder")["group"])) == 4


def test_notes_of_one_folder_have_no_such_column(notes):
    notes(x__a_txt="a", x__b_txt="b")
    assert load().column_names == ["prompt", "completion", "group", "origin"]


def test_notes_that_cannot_be_used_are_counted_and_numbered(notes, caplog):
    notes(Ann_txt=b"caf\xe9", Bob_txt="", Cid_txt=" \n", Dan_txt="fine", Eve_txt="fine too", Fay_txt="a\0b")
    with pytest.raises(DataError) as caught:
        load()
    message = str(caught.value)
    parts = ["notes: 4 of 6 rows", "file 1, line 1: found byte 0xe9", "data.source.encoding", "file 2, field 'text'"]
    parts += ["file 6, field 'text': found a NUL", "data.source.skip_unusable: true"]
    assert [part for part in parts if part not in message] == []
    assert "Ann" not in message
    with caplog.at_level(logging.WARNING, "lit_mem"):
        rows = load(skip_unusable=True)
    assert rows["origin"][:] == ["notes:4", "notes:5"]
    (warning,) = [line for line in caplog.messages if "skipped" in line]
    assert "4 of 6 rows" in warning
    assert "Ann" not in warning
    assert load(encoding="cp1252", skip_unusable=True)["origin"][:] == ["notes:1", "notes:4", "notes:5"]


ANN = (
    "T1\tName 0 7\tAnn Lee\n"
    "T2\tDrug 14 21;26 33\tlithium aspirin\n"
    "T3\tPhrase 8 21\ttook lithium\n"
    "E1\tTake:T3\nR1\tBy Arg1:T1 Arg2:T2\nA1\tNegated T2\n#1\tAnnotatorNotes T1\tTom\n*\tEquiv T1 T2\n"
)


def test_brat_marks_a_note_beside_it_fragment_by_fragment(notes):
    notes(a_txt=NOTE, a_ann=ANN, b_txt="Not marked.", c_txt="Marked without any.", c_ann="")
    notes(annotation_conf="[entities]")
    rows = load()
    assert rows["completion"][0] == NOTE
    found = [(one["type"], NOTE[one["start"] : one["end"]]) for one in rows["spans"][0]]
    assert found == [("Name", "Ann Lee"), ("Drug", "lithium"), ("Drug", "aspirin"), ("Phrase", "took\r\nlithium")]
    assert rows["spans"][1:] == [None, []]
    data = TextDataModule(TextFiles("notes"), tokenizer="asset:tiny_llama", heldout_fraction=0.4, check=False)
    data.setup("fit")
    kinds = {span.kind for one in [*data.train, *data.heldout] for span in one.record.spans}
    assert kinds == {"Name", "Drug", "Phrase"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("T1\tName 0 x\tAnn", "line 1: malformed"),
        ("T1 Name 0 3 Ann", "line 1: malformed"),
        ("T1", "line 1: malformed"),
        ("\nT1\tName 5 3\tAnn", "line 2: found a span outside the note, which has 9 characters"),
        ("T1\tName 0 30\tAnn", "outside the note"),
        ("T1\tName 1 4\tAnn", "do not match its text"),
    ],
)
def test_marks_that_do_not_fit_are_named_by_line_without_their_text(line, problem, notes):
    with pytest.raises(AnnotationError, match=problem) as caught:
        brat_spans(line, "Ann went.")
    assert "Ann" not in str(caught.value)
    notes(a_txt="Ann went.", a_ann=line, b_txt="Other.", c_txt="Further.")
    with pytest.raises(DataError, match=rf"file 1, \.ann file, .*{problem.removeprefix('line 1: ')}"):
        load()
    assert load(skip_unusable=True)["origin"][:] == ["notes:2", "notes:3"]


def test_a_mark_without_its_text_counts_by_its_offsets():
    assert brat_spans("T1\tName 0 3", "Ann went.") == [{"type": "Name", "start": 0, "end": 3}]
