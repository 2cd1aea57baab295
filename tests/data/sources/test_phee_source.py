import hashlib
import http.server
import json
import threading
from functools import partial

import pytest

from lit_mem.data.sources import phee
from lit_mem.data.sources.phee import PHEE
from lit_mem.data.sources.phee_patients import age_of, sex_of
from lit_mem.errors import DataError
from lit_mem.files.places import cache_folder


def entity(*texts):
    return {
        "text": [list(text) for text in texts],
        "start": [[0] for _ in texts],
        "entity_id": ["T1"],
    }


def row(row_id, context, subject=None, types=("Adverse_event",)):
    events = [{"event_id": "E1", "event_type": kind} for kind in types]
    if subject is not None:
        events[0]["Subject"] = subject
    annotations = [{"events": events}]
    return {"id": row_id, "context": context, "is_mult_event": False, "annotations": annotations}


ROWS = {
    "train": [
        row("11_1", " A made-up man\nhad a rash. ", {"Age": entity(["41", "years"], ["old"])}),
        row("11_2", "Nothing was found.", types=("Adverse_event", "Potential_therapeutic_event")),
        row("12_1", "She got well.", {"Gender": entity(["She"]), "Age": entity(["9 days"])}),
    ],
    "dev": [row("21_1", "He had hives.", {"Gender": entity(["He"])})],
    "test": [row("31_1", "It went away.")],
}


def write(folder, **instead):
    folder.mkdir(exist_ok=True)
    for split, rows in {**ROWS, **instead}.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.json").write_text(lines)
    return folder


def test_reads_the_schema(tmp_path):
    corpus = PHEE(str(write(tmp_path / "mini"))).load()
    assert corpus.train[0] == {
        "prompt": "",
        "completion": "A made-up man had a rash.",
        "group": "11",
        "origin": "train.json:1",
        "id": "11_1",
        "event_types": ["Adverse_event"],
        "sex": "",
        "age": "41 years; old",
        "patient_sex": "",
        "patient_age": 41.0,
        "spans": [],  # the generated offsets are invalid
    }
    assert list(corpus.train["group"]) == ["11", "11", "12"]
    assert corpus.train[1]["event_types"] == ["Adverse_event", "Potential_therapeutic_event"]
    assert (corpus.train[2]["sex"], corpus.train[2]["age"]) == ("She", "9 days")
    assert list(corpus.heldout["origin"]) == ["dev.json:1"]
    assert list(corpus.test["completion"]) == ["It went away."]


def leaf(context, *entities, shift=0):
    """An annotation as PHEE has it: fragments and their offsets in the context."""
    starts = [[context.index(fragment) + shift for fragment in fragments] for fragments in entities]
    return {"text": [list(fragments) for fragments in entities], "start": starts, "entity_id": ["T1"]}


CONTEXT = " \tA black man\r\nof 41 years with gout, given aspirin (2 g)\nand ibuprofen, had a rash of both arms. "


def annotated(row_id, *events):
    return {"id": row_id, "context": CONTEXT, "annotations": [{"events": list(events)}]}


def test_spans_are_the_annotated_pieces_of_the_sentence(tmp_path):
    def part(*entities):
        return leaf(CONTEXT, *entities)

    drugs = part(["aspirin"], ["ibuprofen"])
    event = {
        "event_id": "E1",
        "event_type": "Adverse_event",
        "Trigger": part(["had"]),
        "Subject": {
            **part(["A black man\r\nof 41 years"]),
            "Age": part(["41 years"]),
            "Gender": part(["man"]),
            "Race": part(["black"]),
        },
        "Treatment": {
            **part(["aspirin (2 g)\nand ibuprofen"]),
            "Drug": drugs,
            "Dosage": part(["2 g"]),
            "Disorder": part(["gout"]),
            "Combination": [{"event_type": "Combination", "Trigger": part(["and"]), "Drug": drugs}],
        },
        "Effect": part(["rash", "arms"]),
    }
    again = {"event_id": "E2", "event_type": "Adverse_event", "Effect": part(["rash"])}
    folder = write(tmp_path / "mini", train=[annotated("11_1", event, again)])
    (found,) = PHEE(str(folder)).load().train
    text = found["completion"]
    assert text == "A black man of 41 years with gout, given aspirin (2 g) and ibuprofen, had a rash of both arms."
    assert [(span["type"], text[span["start"] : span["end"]]) for span in found["spans"]] == [
        ("subject", "A black man of 41 years"),
        ("race", "black"),
        ("sex", "man"),
        ("age", "41 years"),
        ("disorder", "gout"),
        ("drug", "aspirin"),
        ("dosage", "2 g"),
        ("drug", "ibuprofen"),
        ("effect", "rash"),
        ("effect", "arms"),
    ]
    assert (found["patient_sex"], found["patient_age"]) == ("male", 41.0)


def test_pieces_whose_offsets_lead_elsewhere_are_left_out_and_counted(tmp_path, caplog):
    good = leaf(CONTEXT, ["rash"])
    wrong = [
        leaf(CONTEXT, ["rash"], shift=1),
        leaf(CONTEXT, ["rash"], shift=-len(CONTEXT)),  # right, if counted from the end
        leaf(CONTEXT, [CONTEXT[:4]]),  # starts in the space that is stripped
        {"text": [["rash"]], "start": [[]]},
        {"text": [["rash"]]},
        {"text": [["rash"]], "start": [["7"]]},
        {"text": [[" "]], "start": [[0]]},
        {"text": [[""]], "start": [[0]]},
        {"text": "rash", "start": 7},
        "rash",
    ]
    events = [{"event_id": "E1", "event_type": "Adverse_event", "Effect": effect} for effect in [good, *wrong]]
    folder = write(tmp_path / "mini", train=[annotated("11_1", *events)], dev=[annotated("21_1", events[1])])
    corpus = PHEE(str(folder)).load()
    at = corpus.train[0]["completion"].index("rash")
    assert list(corpus.train["spans"]) == [[{"type": "effect", "start": at, "end": at + 4}]]
    assert list(corpus.heldout["spans"]) == [[]]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["PHEE: 11 of 12 annotated spans are skipped: their offsets do not match their text."]


def test_right_offsets_are_not_spoken_of(tmp_path, caplog):
    event = {"event_id": "E1", "event_type": "Adverse_event", "Effect": leaf(CONTEXT, ["rash"])}
    rows = {split: [annotated(f"{n}1_1", event)] for n, split in enumerate(ROWS, start=1)}
    PHEE(str(write(tmp_path / "mini", **rows))).load()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("sexes", "expected"),
    [
        ([], ""),
        (["woman"], "female"),
        (["Women"], "female"),
        (["girl", "her"], "female"),
        (["old lady"], "female"),
        (["He", "his"], "male"),
        (["human"], ""),
        (["woman", "boy"], ""),
        (["4 males and 1 female"], ""),
        (["transgender female"], ""),
        (["pregnant"], ""),
        (["mand"], ""),
    ],
)
def test_the_sex_that_the_wording_settles(sexes, expected):
    assert sex_of(sexes) == expected


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ([], None),
        (["50-year-old"], 50),
        (["64 year old"], 64),
        (["58-yr-old"], 58),
        (["36-y-o"], 36),
        (["60 yrs of age"], 60),
        (["71-year"], 71),
        (["a 51-year-old"], 51),
        (["aged 80 years"], 80),
        (["6.9-year-old"], 6.9),
        (["4(1/2)-year-old"], 4.5),
        (["28 month-old child"], 28 / 12),
        (["6-week-old", "infant"], 6 * 7 / 365.25),
        (["11-day-old"], 11 / 365.25),
        (["Sixty-year-old"], 60),
        (["sixty-five-year-old"], 65),
        (["eight-year old"], 8),
        (["sixteen years"], 16),
        (["44-year-old", "44 years"], 44),
        (["44-year-old", "20-year-old"], None),
        (["44-year-old", "aged 70"], None),
        (["10-15 years"], None),
        (["ten-fifteen years"], None),
        (["two three years"], None),
        (["16 years and younger"], None),
        (["over the age of 50"], None),
        (["aged 25 and 45"], None),
        (["mean gestational age 27 weeks"], None),
        (["elderly"], None),
        (["6"], None),
        (["few years"], None),
    ],
)
def test_the_age_that_the_wording_gives(ages, expected):
    assert age_of(ages) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("bad", "parts"),
    [
        (row("11-1", "x"), ["'id'", "'1234567_1'"]),
        (row(11, "x"), ["'id'", "found int"]),
        (row("11_1", "x"), ["'id'", "repeats line 1"]),
        (row("12_1", "  "), ["'context'", "only whitespace"]),
        (row("12_1", None), ["'context'", "null"]),
        ({"id": "12_1", "context": "x"}, ["'annotations'", "nothing"]),
        ({**row("12_1", "x"), "annotations": {}}, ["'annotations'", "found dict", "a list"]),
        ({**row("12_1", "x"), "annotations": [{}]}, ["'annotations'", "'events'"]),
        ({**row("12_1", "x"), "annotations": [{"events": [{}]}]}, ["'event_type'"]),
        (row("12_1", "x", {"Age": {"text": "9"}}), ["Subject.Age.text", "found str"]),
        ({"context": "x", "annotations": []}, ["'id'", "missing"]),
    ],
)
def test_bad_rows_are_named(tmp_path, bad, parts):
    folder = write(tmp_path / "mini", train=[*ROWS["train"][:1], bad])
    with pytest.raises(DataError) as caught:
        PHEE(str(folder)).load()
    message = str(caught.value)
    assert [part for part in ["train.json", "1 of 2 rows", "line 2", *parts] if part not in message] == []


def test_absent_files_are_named(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        PHEE(str(tmp_path / "nowhere")).load()
    folder = write(tmp_path / "mini")
    (folder / "dev.json").unlink()
    with pytest.raises(DataError, match=r"dev\.json: no such file"):
        PHEE(str(folder)).load()


class _Server(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A local site with the mini corpus, that PHEE takes for the real one."""
    folder = write(tmp_path / "site")
    _Server.asked = []
    handler = partial(_Server, directory=str(folder))
    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    sums = {s: hashlib.sha256((folder / f"{s}.json").read_bytes()).hexdigest() for s in ROWS}
    monkeypatch.setattr(phee, "_URL", f"http://127.0.0.1:{site.server_port}/{{split}}.json")
    monkeypatch.setattr(phee, "_SHA256", sums)
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder
    site.shutdown()
    site.server_close()
    thread.join()


def test_downloads_once(server, tmp_path):
    assert len(PHEE().load().train) == 3
    assert len(PHEE().load().train) == 3
    assert _Server.asked == ["/train.json", "/dev.json", "/test.json"]
    names = sorted(path.name for path in (tmp_path / "cache" / "phee").iterdir())
    assert names == ["dev.json", "test.json", "train.json"]


def test_a_damaged_file_is_fetched_again(server, tmp_path, caplog):
    PHEE().load()
    (tmp_path / "cache" / "phee" / "dev.json").write_text("half a fi")
    assert len(PHEE().load().heldout) == 1
    assert "damaged" in caplog.text
    assert _Server.asked[3:] == ["/dev.json"]


def test_another_content_is_rejected_and_not_kept(server, tmp_path):
    write(server, train=ROWS["dev"])
    with pytest.raises(DataError, match=r"found sha256 [0-9a-f]{64}, expected"):
        PHEE().load()
    assert list((tmp_path / "cache" / "phee").iterdir()) == []


def test_processes_at_once_leave_whole_files(server, tmp_path):
    sizes, threads = [], []
    for _ in range(6):
        threads.append(threading.Thread(target=lambda: sizes.append(len(PHEE().load().train))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [3] * 6
    assert len(list((tmp_path / "cache" / "phee").iterdir())) == 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/{split}.json", "{absent}"])
def test_without_a_network_it_says_what_to_do(server, tmp_path, monkeypatch, url):
    if url == "{absent}":
        (server / "train.json").unlink()
    else:
        monkeypatch.setattr(phee, "_URL", url)
    with pytest.raises(DataError, match="cannot be downloaded") as caught:
        PHEE().load()
    message = str(caught.value)
    assert str(tmp_path / "cache" / "phee") in message
    assert "`folder`" in message
    assert list((tmp_path / "cache" / "phee").iterdir()) == []


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("LIT_MEM_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder("phee") == tmp_path / ".cache" / "lit_mem" / "phee"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder("phee") == tmp_path / "x" / "lit_mem" / "phee"
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "own"))
    assert cache_folder("phee") == tmp_path / "own" / "phee"


def test_a_cache_that_cannot_be_written_is_said(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be written"):
        PHEE().load()
