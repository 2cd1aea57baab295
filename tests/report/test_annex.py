"""The annex: page, Markdown and JSON agree, missing records are shown as not recorded, and no text is in it."""

import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import lit_mem.attacks
import lit_mem.report
from lit_mem.attacks.base import Attack
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.cli import main as cli
from lit_mem.files.facts import Facts, SetFacts, write_facts
from lit_mem.files.hashes import Hashed
from lit_mem.report.attacks import MEMBERSHIP, NEVER, not_tried, tried
from lit_mem.report.contexts import CONTEXTS, matter_most
from lit_mem.report.markdown import _said

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
SCHEMA = json.loads((Path(lit_mem.report.__file__).parent / "schema.json").read_text())

FACTS = Facts(
    "2026-01-02T03:04:05+00:00", {"torch": "2.13.0"}, "/home/me/models/secret_place/llama", None,
    {"light": "0123456789abcdef", "full": "fedcba9876543210"}, 4000, 50_000, SetFacts(60, 1000, 20, "ab" * 32),
    SetFacts(60, None, 10, "cd" * 32), "texts", "ee" * 16, "12345678",
    [Hashed("adapter_model.safetensors", 3, "12" * 32)],
)  # fmt: skip


def report(folder, *words):
    cli.main(["report", str(folder), *words])
    data = json.loads((folder / "report.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    return (folder / "report.html").read_text(), (folder / "annex.md").read_text(), data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = made.write_run(tmp_path_factory.mktemp("annex") / "quick" / "version_0", text=True)
    made.write_persons(folder)
    counts = {"members": 40, "of_members": 60, "heldout": 60, "of_heldout": 60}
    made.write_checks(folder, scored=counts, examples={"near": ["patient_jones.txt:3"]})
    write_facts(folder, lambda: FACTS)
    return folder


@pytest.fixture(scope="module")
def done(run):
    return report(run, "--release", "api", "--author", "Ada <b>L.</b>")


class Text(HTMLParser):
    """The text of a page, and that of each cell of its tables."""

    def __init__(self, html):
        super().__init__()
        self.cells, self.words, self._open = [], [], 0
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        if tag in ("td", "th"):
            self.cells.append("")
            self._open += 1

    def handle_endtag(self, tag):
        self._open -= tag in ("td", "th")

    def handle_data(self, data):
        self.words.append(data)
        if self._open:
            self.cells[-1] += data


def spaced(text):
    return " ".join(str(text).split())


def test_page_and_markdown_say_what_json_says(done):
    html, text, data = done
    shown = {"page": Text(html), "Markdown": Text(MarkdownIt().enable("table").render(text))}
    for section in data["annex"]["sections"]:
        for name, page in shown.items():
            assert section["title"] in page.text, name
            for line in section["text"]:
                assert spaced(line) in page.text, (name, line)
            for cell in [cell for row in section["rows"] for cell in row if cell]:
                assert spaced(cell) in {spaced(one) for one in page.cells}, (name, cell)
    for name, page in shown.items():
        for one in data["files"]:
            assert {one["path"], one["sha256"]} <= set(page.cells), name
        assert data["digest"] in page.text, name
        assert data["written"] in page.text, name


def test_every_section_names_paragraphs_and_all_four_are_answered(done):
    html, text, data = done
    answered = [section["paragraphs"] for section in data["annex"]["sections"]]
    assert {number for one in answered for number in one} == {43, 46, 55, 58}
    assert len(re.findall(r"^\*Answers paragraphs? [\d, and]+ of the opinion\.\*$", text, re.M)) == len(answered) + 1
    assert html.count('<p class="note">Answers paragraph') == len(answered) + 1
    assert text.startswith("# Can I release it?")


def test_counts_are_of_persons_as_well_as_of_texts(done):
    counts = done[2]["annex"]["counts"]
    assert (counts["members"], counts["members_scored"], counts["persons"], counts["persons_scored"]) == (
        60,
        40,
        20,
        14,
    )
    assert (counts["heldout"], counts["heldout_scored"], counts["heldout_persons"]) == (60, 60, 10)
    assert (counts["trained_per_token"], counts["trained_per_person"]) == (4000 / 1000, 4000 / 20)
    assert counts["trained_per_text"] == 4000 / 60
    assert (counts["validations"], counts["epochs"]) == (3, 3)


def test_what_was_stated_recorded_and_hashed(done):
    annex = done[2]["annex"]
    assert (annex["release"], annex["author"], annex["started"]) == ("api", "Ada <b>L.</b>", FACTS.started)
    assert annex["base"] == {"name": "llama", "revision": None, "fingerprint": FACTS.fingerprint}
    assert annex["data"]["members"] == FACTS.members.digest
    assert annex["software"] == {"torch": "2.13.0"}
    of_adapter = [one for one in done[2]["files"] if one["of"] == "adapter"]
    assert of_adapter == [{"of": "adapter"} | FACTS.adapter[0]._asdict()]
    of_run = {one["path"] for one in done[2]["files"] if one["of"] == "run"}
    assert {"config.yaml", "metrics.csv", "facts.json", "checks.json"} <= of_run
    assert "persons/epoch_0003_step_000030.parquet" in of_run
    assert not [path for path in of_run if path.startswith("examples/")]  # its hash would confirm a guessed text


def test_no_text_path_row_or_person_is_in_the_document(done, run):
    _, text, data = done
    annex = json.dumps(data["annex"])
    for found in (text, annex):
        assert "secret text" not in found
        assert "secret_place" not in found
        assert "/home/me" not in found
        assert "patient_jones" not in found
        assert str(run) not in found
        for row in data["persons"]["rows"]:
            assert row[0] not in found


def test_markup_in_what_a_person_gives_is_shown_and_not_obeyed(done):
    html, text, _ = done
    assert "Ada <b>L.</b>" not in html
    assert "<b>" not in text


@settings(max_examples=200, deadline=None)
@example("__0__")
@example("a_b *c* `d` [e](f) <i> |g| &amp; ~~h~~ \\")
@given(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=40))
def test_any_name_reads_in_markdown_as_it_is(name):
    rendered = MarkdownIt().enable("table").render(f"| head | second |\n| --- | --- |\n| by {_said(name)} end | x |\n")
    assert Text(rendered).cells == ["head", "second", f"by {name} end", "x"]


# -- old records, and what was not stated --------------------------------------------------------------------


def test_an_old_record_gives_an_annex_with_what_it_lacks(tmp_path):
    html, text, data = report(made.write_run(tmp_path / "run", table=False))
    annex = data["annex"]
    assert [annex[name] for name in ("release", "author", "started", "software", "base", "data")] == [None] * 6
    assert annex["counts"]["tokens"] is annex["counts"]["trained_per_token"] is None
    rows = {row[0]: row[1] for section in annex["sections"] for row in section["rows"] if len(row) == 2}
    for name in ("started", "base model", "parameters trained", "digest of the training set", "software that measured"):
        assert rows[name] == "not recorded"
    assert rows["by whom"] == "not stated"
    assert "not recorded" in text
    assert "not recorded" in html


def test_facts_of_another_form_are_one_line(tmp_path, capsys):
    folder = made.write_run(tmp_path / "run", table=False)
    (folder / "facts.json").write_text('{"schema": 1}')
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder)])
    assert stop.value.code == 2
    assert str(folder / "facts.json") in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "words",
    [["--release", "weigths"], ["--author", ""], ["--author", "a\nb"], ["--adapter", "no"]],  # codespell:ignore
)
def test_options_that_do_not_fit_are_named(words, tmp_path, capsys):
    folder = made.write_run(tmp_path / "run", table=False)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder), *words])
    assert stop.value.code == 2
    assert words[0] in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "report.json").exists()


def test_the_weights_that_are_named_are_hashed(tmp_path):
    folder, weights = made.write_run(tmp_path / "run", table=False), tmp_path / "weights"
    weights.mkdir()
    (weights / "adapter_model.safetensors").write_bytes(b"abc")
    _, _, data = report(folder, "--adapter", str(weights))
    (found,) = [one for one in data["files"] if one["of"] == "adapter"]
    assert found["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_exported_weights_are_among_the_files(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    made.write_adapter(folder, "best", 1)
    assert "checkpoints/best-adapter/lit_mem.json" in {one["path"] for one in report(folder)[2]["files"]}


def test_a_sweep_has_no_annex(tmp_path, capsys):
    folder = made.write_sweep(tmp_path / "sweep")
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder), "--release", "api"])
    assert stop.value.code == 2
    assert "--release" in capsys.readouterr().err
    assert not (folder / "report.json").exists()
    cli.main(["report", str(folder)])
    data = json.loads((folder / "report.json").read_text())
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    assert data["schema"] == 1
    assert not {"answer", "annex", "digest", "files"} & data.keys()
    assert not (folder / "annex.md").exists()


# -- attacks and contexts ------------------------------------------------------------------------------------


def test_every_attack_of_the_library_has_its_line():
    def snake(name):
        return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()

    named = {"ReferenceRatio": "reference", "WindowComparison": "wbc", "OfflineLiRA": "lira", "OfflineRMIA": "rmia"}
    named |= {"ReCaLL": "recall", "ConReCaLL": "con_recall"}
    classes = [name for name in lit_mem.attacks.__all__ if getattr(lit_mem.attacks, name) is not Attack]
    assert {named.get(name, snake(name)) for name in classes} | {"combined", *default_attacks()} == set(MEMBERSHIP)
    assert [one.name for one in tried({"mia/strongest_auroc", "mia/loss_auroc"})] == ["loss"]


names = st.sets(
    st.sampled_from(
        [f"mia/{name}_auroc" for name in [*MEMBERSHIP, "mine"]]
        + ["mia/loss_auroc_base", "mia/loss_auroc_low", "extraction/exact_rate", "extraction/span_rate", "val/loss"]
        + ["user/inference_auroc", "canary/auroc", "audit/epsilon_lower_bound", "extraction/discoverable"]
    )
)


@given(names)
def test_each_attack_was_either_tried_or_not(logged):
    yes, no = tried(logged), not_tried(logged)
    every = [one.name for one in [*yes, *no]]
    assert len(every) == len(set(every))
    assert set(NEVER) <= set(no)
    assert all(one.why for one in no)
    assert not [one for one in yes if one.why]
    assert set(MEMBERSHIP) <= set(every)
    for name in [*MEMBERSHIP, "mine"]:
        assert (name in {one.name for one in yes}) == (f"mia/{name}_auroc" in logged)


def test_the_classes_of_the_opinion_are_all_there():
    kinds = {one.kind for one in [*tried({"mia/loss_auroc"}), *not_tried({"mia/loss_auroc"})]} - {"other"}
    assert kinds == {
        "attribute inference", "membership inference", "exfiltration", "regurgitation", "model inversion",
        "reconstruction",
    }  # fmt: skip


def test_what_an_attack_lacks_is_its_reason():
    (found,) = [one for one in not_tried(set(), {"mia/wbc_auroc": "there is no reference"}) if one.name == "wbc"]
    assert found.why == "there is no reference"


@pytest.mark.parametrize("release", [None, *CONTEXTS])
def test_what_matters_most_is_measured_or_said_to_be_missing(release):
    logged = {"mia/loss_auroc", "mia/loss_tpr_at_fpr_0.01", "extraction/exact_rate", "user/inference_auroc"}
    measured, lacking = matter_most(release, logged)
    assert set(measured) <= logged
    assert measured
    assert lacking
    assert matter_most(release, set())[0] == []
    assert matter_most(None, logged) == matter_most("weights", logged)
