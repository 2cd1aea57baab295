import csv
import importlib.util
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
import sklearn.metrics

import lit_mem.report
from lit_mem.cli import main as cli
from lit_mem.errors import DataError
from lit_mem.functional.numbers import shown
from lit_mem.report.history import History, Validation, read_history
from lit_mem.report.localize import read_localized
from lit_mem.report.sweep_report import sweep_report
from lit_mem.report.trust import trust

spec = importlib.util.spec_from_file_location("made_reports", Path(__file__).parent / "made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

SCRIPT = (Path(lit_mem.report.__file__).parent / "templates" / "page.js").read_text("utf-8")
SCHEMA = json.loads((Path(lit_mem.report.__file__).parent / "schema.json").read_text())


def no_constant(name):
    raise AssertionError(f"{name} is not JSON")


def report(folder, *words):
    """Run the command in this process; returns the page and the data."""
    cli.main(["report", str(folder), *words])
    return read(folder)


def read(folder):
    data = json.loads((folder / "report.json").read_text(), parse_constant=no_constant)
    jsonschema.Draft202012Validator(SCHEMA).validate(data)
    return (folder / "report.html").read_text(), data


class Page(HTMLParser):
    """Tags, ids, references and the words that a reader sees, of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.ids, self.used, self.outside, self.words = [], [], [], [], []
        self.cells, self.scripts, self._open = [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        if "id" in attrs:
            self.ids.append(attrs["id"])
        for name, value in attrs.items():
            if name in ("src", "srcset", "action", "data") or (name.endswith("href") and not value.startswith("#")):
                self.outside.append((tag, name, value))
            self.used += re.findall(r"url\(#([^)]*)\)", value or "")
            self.used += [value[1:]] if name.endswith("href") and value.startswith("#") else []
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "script":
            self.scripts.append((attrs.get("type"), ""))
        self._open.append(tag)

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" in self._open:
            kind, text = self.scripts[-1]
            self.scripts[-1] = kind, text + data
        elif "style" not in self._open:
            self.words.append(data)
        if self.cells and {"td", "th"} & set(self._open):
            self.cells[-1] += data.strip()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = made.write_run(tmp_path_factory.mktemp("report") / "quick" / "version_0", text=True)
    made.write_where(folder)
    return folder


@pytest.fixture(scope="module")
def done(run):
    return report(run)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return made.write_sweep(tmp_path_factory.mktemp("report") / "matrices")


@pytest.fixture(scope="module")
def sweep_done(sweep):
    return report(sweep)


def test_the_schema_itself_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_numbers_are_those_of_metrics_csv(run, done):
    html, data = done
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/perplexity"]]
    assert [v["epoch"] for v in data["validations"]] == [0, 1, 2, 3]
    for row, validation in zip(rows, data["validations"], strict=True):
        for name, cell in row.items():
            if name not in ("epoch", "step") and not name.startswith("train/"):
                value = float(cell) if cell else math.nan
                assert validation["metrics"].get(name) == (None if math.isnan(value) else value), name
    page = Page(html)
    for value in [*made.PERPLEXITY, *made.MEMBERS, *made.AUROC]:
        assert shown(value) in page.cells, value


def test_what_was_not_measured_is_never_a_zero(done):
    html, data = done
    by_name = {row["metric"]: row for row in data["key_metrics"]}
    assert by_name["mia/loss_auroc"]["last"] is None  # NaN
    assert by_name["extraction/exact_rate"]["last"] is None  # blank at the last epoch
    assert data["validations"][1]["metrics"]["extraction/exact_rate"] == 0.0
    assert "not measured" in html


def test_the_verdict_is_that_of_the_run_s_own_limit(done):
    html, data = done
    (limit,) = data["verdict"]["limits"]
    assert data["verdict"]["state"] == "crossed before"  # 0.7019 after epoch 2, 0.6512 after the last
    assert (limit["last"], limit["worst"], limit["worst_epoch"], limit["first_crossed"]) == (0.6512, 0.7019, 2, 2)
    assert data["verdict"]["text"] in Page(html).text


@pytest.mark.parametrize(
    ("limits", "state"),
    [
        ("mia/reference_auroc > 0.72", "within"),  # 0.7119 at most, after epoch 2
        (
            "mia/reference_auroc > 0.67",
            "crossed before",
        ),  # 0.6612 at most, but 0.6919 at least before
        ("mia/reference_auroc > 0.65", "undecided"),  # 0.6412 to 0.6612
        ("mia/reference_auroc > 0.66", "undecided"),  # though the value, 0.6512, is within
        ("mia/reference_auroc > 0.64", "crossed"),
        ("mia/reference_auroc < 0.66", "undecided"),
        ("mia/reference_auroc < 0.64", "within"),
        ("mia/reference_auroc < 0.69", "crossed"),
        ("memorization/perplexity_members < 2.9", "crossed"),  # no interval: by the value, 2.8342
        ("memorization/perplexity_members < 2.8", "within"),
        ("mia/loss_auroc > 0.9", "not measured"),
        ("'mia/loss_auroc > 0.9', mia/reference_auroc > 0.64", "crossed"),
        ("'mia/loss_auroc > 0.9', mia/reference_auroc > 0.65", "not measured"),
        ("", "no limits"),
    ],
)
@pytest.mark.parametrize("lower_bound", [False, True])
def test_verdicts(tmp_path, limits, state, lower_bound):
    _, data = report(made.write_run(tmp_path / "run", limits=limits, lower_bound=lower_bound, table=False))
    assert data["verdict"]["state"] == state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limits", "state"),
    [
        ("mia/reference_auroc > 0.64, memorization/perplexity_members < 2.8", "within"),
        ("mia/reference_auroc > 0.64, memorization/perplexity_members < 2.9", "crossed"),
        ("mia/reference_auroc > 0.65, memorization/perplexity_members < 2.9", "undecided"),
        ("mia/loss_auroc > 0.9, memorization/perplexity_members < 2.8", "within"),
        ("mia/loss_auroc > 0.9, memorization/perplexity_members < 2.9", "not measured"),
    ],
)
def test_limits_that_count_together_are_over_only_if_all_are(tmp_path, limits, state):
    folder = made.write_run(tmp_path / "run", limits=limits, table=False)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("stop_when: any", "stop_when: all"))
    _, data = report(folder)
    assert data["verdict"]["state"] == state


def test_a_limit_that_stops_training_at_the_safe_end_is_judged_by_the_whole_interval(tmp_path):
    folder = made.write_run(tmp_path / "run", limits="mia/reference_auroc > 0.65", lower_bound=True, table=False)
    _, data = report(folder)
    (limit,) = data["verdict"]["limits"]
    assert (limit["metric"], limit["stops_at"]) == ("mia/reference_auroc", "mia/reference_auroc_low")
    assert (limit["last"], limit["last_low"], limit["last_high"]) == pytest.approx((0.6512, 0.6412, 0.6612))
    assert (limit["state"], limit["first_crossed"]) == ("undecided", 1)  # 0.6558 after epoch 1
    assert "with 1 threshold on AUROCs at 3 validations, noise" in data["verdict"]["text"]
    assert re.search(r"about [\d,.]+ times as many texts", limit["settled_by"])


def test_what_would_settle_a_limit_is_a_number_of_texts_where_the_run_says_how_many_were_scored(tmp_path):
    folder = made.write_run(tmp_path / "run", limits="mia/reference_auroc > 0.655", table=False)
    made.write_checks(folder, scored={"members": 300, "of_members": 9000, "heldout": 300, "of_heldout": 400})
    html, data = report(folder)
    (limit,) = data["verdict"]["limits"]
    # To be 0.0038 instead of 0.01 wide to the right: (0.01 / 0.0038)^2 times 300 texts, except for the logit.
    found = re.search(r"about ([\d,]+) held-out texts and ([\d,]+) members", limit["settled_by"])
    assert int(found[1].replace(",", "")) == pytest.approx(300 * (0.01 / 0.0038) ** 2, rel=0.02)
    assert found[1] == found[2]
    assert data["scored"]["text"] == "300 of 9,000 members scored, 300 of 400 held-out texts"
    assert html.count(data["scored"]["text"]) == 2
    setup = {row["what"]: row["value"] for row in data["setup"]}
    assert (setup["Members"], setup["Held-out texts"]) == ("9,000, 300 of them scored", "400, 300 of them scored")


def test_no_number_of_texts_is_made_up(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    text = (folder / "config.yaml").read_text()
    _, data = report(folder)
    setup = {row["what"]: row["value"] for row in data["setup"]}
    assert data["scored"] is None
    assert setup["Members"].startswith("60; ")  # data.train_size
    assert "not recorded" in setup["Members"]
    assert "Held-out texts" not in setup
    (folder / "config.yaml").write_text(text.replace("train_size: 60", "train_size: null"))
    html, data = report(folder)
    assert "Members" not in {row["what"] for row in data["setup"]}
    assert "<dd>all" not in html


@pytest.mark.parametrize(
    "scored", [{"members": 1}, [], {"members": -1, "of_members": 1, "heldout": 1, "of_heldout": 1}]
)
def test_counts_of_another_form_are_one_line(tmp_path, capsys, scored):
    folder = made.write_run(tmp_path / "run", table=False)
    made.write_checks(folder, scored=scored)
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder)])
    assert stop.value.code == 2
    assert "checks.json: scored is" in capsys.readouterr().err


def test_the_best_checkpoint_is_judged_by_the_same_limits(tmp_path):
    folder = made.write_run(tmp_path / "run", limits="mia/reference_auroc > 0.69", epochs=2, table=False)
    for name, epoch in (("best", 1), ("last", 2)):
        made.write_adapter(folder, name, epoch)
    _, data = report(folder)
    assert data["verdict"]["state"] == "crossed"  # 0.6919 at least
    assert {row["name"]: row["state"] for row in data["checkpoints"]} == {"best": "within", "last": "crossed"}
    assert "best, from epoch 1" in data["verdict"]["text"]


def test_the_roc_is_sklearns(run, done):
    rows = pq.read_table(run / "examples" / "epoch_0003_step_000030.parquet").to_pydict()
    label = np.array(rows["set"]) == "member"
    for one in done[1]["examples"]["attacks"]:
        score = np.array(rows[f"mia/{one['name']}"])
        fpr, tpr, _ = sklearn.metrics.roc_curve(label, score, drop_intermediate=False)
        assert one["auroc"] == pytest.approx(sklearn.metrics.roc_auc_score(label, score))
        corners = list(zip(one["roc"]["fpr"], one["roc"]["tpr"], strict=True))
        assert set(corners) <= set(zip(fpr, tpr, strict=True))
        ends = np.array(corners)
        for point in zip(fpr, tpr, strict=True):  # what is left out lies between two that are kept
            on = [bool(abs(np.linalg.det([b - a, point - a])) < 1e-12 and (a <= point).all() and (point <= b).all())
                  for a, b in pairwise(ends)]  # fmt: skip
            assert any(on)
        assert sum(one["histogram"]["members"]) == label.sum()


def test_a_thinned_roc_keeps_its_ends_and_stays_on_the_curve():
    from lit_mem.report.example_rows import _corners

    rng = np.random.default_rng(0)
    label = np.arange(40_000) % 2 == 0
    fpr, tpr, _ = sklearn.metrics.roc_curve(label, rng.normal(label * 0.5, 1), drop_intermediate=False)
    few = _corners(fpr.tolist(), tpr.tolist())
    assert len(few) <= 300
    assert (few[0], few[-1]) == (0, len(fpr) - 1)
    x = np.geomspace(1e-3, 1, 50)
    assert np.interp(x, fpr[few], tpr[few]) == pytest.approx(np.interp(x, fpr, tpr), abs=0.02)


def test_the_most_exposed_are_the_members_with_the_highest_scores(run, done):
    rows = pq.read_table(run / "examples" / "epoch_0003_step_000030.parquet").to_pydict()
    scores = sorted(
        (s for s, kind in zip(rows["mia/reference"], rows["set"], strict=True) if kind == "member"), reverse=True
    )
    exposed = done[1]["examples"]["exposed"]
    at = exposed["columns"].index("mia/reference")
    assert [row[at] for row in exposed["rows"]] == pytest.approx(scores[:20], rel=0.05)


def test_the_correlation_is_scipys(run, done):
    (one,) = done[1]["examples"]["scatters"]
    rows = pd.read_parquet(run / "examples" / "epoch_0003_step_000030.parquet").dropna()
    rows = rows[rows["set"] == "member"]
    expected = scipy.stats.spearmanr(rows["perplexity"], rows["extraction/ngram_rate"]).statistic
    assert one["spearman"] == pytest.approx(expected)


@pytest.mark.slow
def test_no_text_without_its_option(run, done):
    html, _ = done
    assert "secret text" not in html + (run / "report.json").read_text()
    try:
        html, data = report(run, "--text", "true")
        assert "secret text" in html
        assert data["examples"]["exposed"]["columns"][-1] == "text"
    finally:
        report(run)


def test_names_of_the_data_are_no_markup(tmp_path, drawn):
    folder = made.write_run(tmp_path / "a", origin="<script>alert(1)</script>\x1b[31m")
    (folder / "config.yaml").write_text(
        made.CONFIG.format(limits="", lower_bound="false").replace("asset:tiny_llama", "'</pre><img src=x>$x$'")
    )
    html, _ = report(folder)
    page = Page(html)
    assert [text for kind, text in page.scripts if kind is None] == [SCRIPT]
    assert "img" not in page.tags
    assert "<script>alert(1)</script>\\x1b[31m:" in page.text


@pytest.mark.parametrize("kind", ["done", "sweep_done"])
def test_the_page_needs_nothing_else_and_its_plots_can_be_read_aloud(kind, request):
    html, _ = request.getfixturevalue(kind)
    page = Page(html)
    assert page.outside == [("link", "href", "data:,")]
    assert [text for kind, text in page.scripts if kind is None] == [SCRIPT]
    assert "@import" not in html
    assert not re.search(r"(?<!xmlns:xlink=\")https?://", html)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.used) <= set(page.ids)
    n = page.tags.count("svg")
    assert n >= 5
    assert html.count('role="img"') == n == page.tags.count("desc")
    assert page.tags.count("figure") == n == html.count("Data of this plot")
    assert "mathdefault" not in html
    assert not re.findall(r"(?:fill|stroke): #", html)  # each colour is one of the page's


@pytest.mark.slow
def test_the_same_run_gives_the_same_page_at_the_same_time(run, drawn, monkeypatch):
    monkeypatch.setattr("lit_mem.cli.report.now", lambda: "2026-01-01T00:00:00+00:00")
    assert report(run) == report(run)


def test_a_killed_run_is_reported_up_to_its_last_validation(tmp_path):
    folder = made.write_run(tmp_path / "run", epochs=1, table=False)
    with (folder / "metrics.csv").open("a") as file:
        file.write("1,0.2")
    html, data = report(folder)
    assert len(data["validations"]) == 2
    assert data["examples"] is None
    assert "PerExampleTable" in Page(html).text
    assert any("is truncated" in note for note in data["notes"])


@pytest.mark.parametrize(
    ("area", "low", "high", "accuracy", "reading"),
    [
        (0.5, 0.444, 0.556, 0.5, "0.5 by construction: nothing is tuned yet"),  # all tied: no threshold is better
        (0.5, 0.5, 0.5, 0.5, "0.5 by construction: nothing is tuned yet"),  # the same in records of earlier versions
        (0.5, 0.453, 0.547, 0.525, "as expected: guessing"),
        (0.52, 0.473, 0.567, 0.53, "as expected: guessing"),
        (
            0.6,
            0.55,
            0.65,
            0.6,
            "above 0.5 before training: members score higher by themselves, and the attack measures that too",
        ),
        (
            0.4,
            0.35,
            0.45,
            0.5,
            "below 0.5 before training: members score lower by themselves, which hides memorization",
        ),
    ],
)
def test_the_attacks_before_training_are_read_by_interval_and_ties(area, low, high, accuracy, reading):
    values = {"auroc": area, "auroc_low": low, "auroc_high": high, "balanced_accuracy": accuracy}
    start = Validation(0, 0, {f"mia/reference_{end}": value for end, value in values.items()})
    found = trust(None, {}, History([start]))["before_training"]
    assert [row["reading"] for row in found] == [reading]


def test_a_run_that_was_killed_before_it_measured_anything(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    (folder / "metrics.csv").write_text("")
    html, data = report(folder)
    assert data["verdict"]["state"] == "not measured"
    assert "Nothing was measured" in html


def test_a_run_without_configuration(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    (folder / "config.yaml").unlink()
    _, data = report(folder)
    assert data["verdict"]["state"] == "no limits"


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: None, "there is no folder"),
        (lambda folder: folder.mkdir(), "neither a run's log folder"),
        (lambda folder: made.write_run(folder) and (folder / "metrics.csv").unlink(), "nor metrics.csv"),
        (
            lambda folder: made.write_run(folder) and (folder / "metrics.csv").write_text("epoch,val/loss\n0,x\n"),
            "row 2",
        ),
        (lambda folder: made.write_run(folder) and (folder / "config.yaml").write_text("a: [1"), "config.yaml"),
        (lambda folder: made.write_run(folder) and (folder / "where.json").write_text("{}"), "where.json"),
        (lambda folder: made.write_run(folder) and (folder / "checks.json").write_text("[]"), "checks.json"),
        (lambda folder: made.write_sweep(folder) and (folder / "sweep.json").write_text("{}"), "sweep.json"),
        (lambda folder: made.write_sweep(folder) and (folder / "results.parquet").write_text("x"), "results.parquet"),
    ],
)
def test_a_folder_that_cannot_be_reported_is_one_line(tmp_path, capsys, prepare, said):
    prepare(tmp_path / "folder")
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(tmp_path / "folder")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert said in error
    assert not (tmp_path / "folder" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["mia/reference_auroc > 0.68"], None, ""),  # over at epoch 2, not at the last
        (
            ["mia/reference_auroc > 0.6"],
            3,
            "failed: mia/reference_auroc is 0.651 [0.641, 0.661] at epoch 3; fails on mia/reference_auroc > 0.6",
        ),
        (["mia/reference_auroc > 0.65"], 4, "undecided: mia/reference_auroc is 0.651 [0.641, 0.661] at epoch 3; "),
        (["mia/reference_auroc > 0.66"], 4, "times as many texts would settle it"),
        (["mia/reference_auroc < 0.65"], 4, "undecided: "),
        (["mia/reference_auroc_low > 0.65"], None, ""),  # an end of the interval, named in the condition
        (["val/perplexity > 3", "mia/reference_auroc > 0.65"], 4, "undecided: "),
        (["val/perplexity < 2", "mia/reference_auroc > 0.6"], 3, "mia/reference_auroc"),
        (["[val/perplexity < 2, mia/reference_auroc > 0.6]"], 3, "mia/reference_auroc"),
        (["mia/loss_auroc > 0.6"], 3, "mia/loss_auroc is not measured"),  # NaN
        (["extraction/exact_rate > 0.6"], 3, "extraction/exact_rate is not measured"),  # blank at the last epoch
        (["mia/refrence_auroc > 0.6"], 2, "did you mean mia/reference_auroc"),
        (["mia/reference_auroc = 0.6"], 2, "--fail-on: threshold"),
    ],
)
def test_fail_on(tmp_path, capsys, words, code, said):
    folder = made.write_run(tmp_path / "run", table=False)
    options = [option for word in words for option in ("--fail-on", word)]
    if code is None:
        cli.main(["report", str(folder), *options])
    else:
        with pytest.raises(SystemExit) as stop:
            cli.main(["report", str(folder), *options])
        assert stop.value.code == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == (0 if code is None else 1)
    if code != 2:
        _, data = read(folder)
        assert bool(data["gate"]["failed"]) == (code == 3)
        assert bool(data["gate"]["undecided"]) == (code == 4)


def test_a_condition_that_fails_counts_more_than_one_that_is_undecided(tmp_path, capsys):
    folder = made.write_run(tmp_path / "run", table=False)
    words = ["--fail-on", "mia/reference_auroc > 0.65", "--fail-on", "val/perplexity > 2"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder), *words])
    assert stop.value.code == 3
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["failed", "undecided"]
    html, data = read(folder)
    assert (len(data["gate"]["failed"]), len(data["gate"]["undecided"])) == (1, 1)
    assert html.count('<span class="tag warn">undecided</span>') == 1


def test_it_can_be_written_elsewhere_and_says_where(tmp_path, capsys):
    folder = made.write_run(tmp_path / "run", table=False)
    cli.main(["report", str(folder), "--out", str(tmp_path / "there" / "now")])
    line, *paths = capsys.readouterr().out.splitlines()
    assert line.startswith("Can I release it? Within its limits")
    there = tmp_path / "there" / "now"
    assert list(map(Path, paths)) == [there / "report.html", there / "annex.md", there / "report.json"]
    assert all(Path(path).is_file() for path in paths)
    assert not (folder / "report.html").exists()


def test_private_training_has_its_epsilon(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    lines = (folder / "metrics.csv").read_text().splitlines()
    first, *rest = [
        f"{line},{extra}"
        for line, extra in zip(lines, ["privacy/epsilon,privacy/delta", ",1e-5", *["2.25,"] * 6], strict=True)
    ]
    (folder / "metrics.csv").write_text("\n".join([first, *rest]) + "\n")
    html, data = report(folder)
    assert data["privacy"]["metrics"] == {"privacy/epsilon": 2.25, "privacy/delta": 1e-5}
    assert "ε = 2.250" in html


def test_several_validations_an_epoch_are_kept_apart(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss,mia/a_auroc\n0,4,1.0,0.5\n0,9,0.9,\n0,9,,0.6\n")
    history = read_history(tmp_path / "metrics.csv")
    assert [(v.epoch, v.step, v.metrics) for v in history.validations] == [
        (1, 4, {"val/loss": 1.0, "mia/a_auroc": 0.5}),
        (1, 9, {"val/loss": 0.9, "mia/a_auroc": 0.6}),
    ]
    (tmp_path / "metrics.csv").write_text("epoch,step,val/loss\n0,4,low\n")
    with pytest.raises(DataError, match="row 2, column val/loss"):
        read_history(tmp_path / "metrics.csv")


def test_the_file_of_localize_comes_before_that_of_earlier_versions(tmp_path):
    folder = made.write_run(tmp_path / "run", table=False)
    made.write_where(folder)
    found = json.loads((folder / "where.json").read_text())
    (folder / "localize.json").write_text(json.dumps(found | {"checkpoint": "another.ckpt"}))
    html, data = report(folder)
    assert data["where"]["checkpoint"] == "another.ckpt"
    assert "<h2>Where memorization is</h2>" in html
    (folder / "localize.json").write_text("{}")
    with pytest.raises(DataError, match=r"localize\.json: there is no members"):
        read_localized(folder)


def test_where_memorization_is_has_a_table_of_layers_and_matrices(done):
    page = Page(done[0])
    assert {"q_proj", "v_proj", "all layers", "whole layer", "0.610", "0.580", "0.790"} <= set(page.cells)


def test_a_sweep_s_means_and_intervals_are_scipys(sweep, sweep_done):
    _, data = sweep_done
    rows = pq.read_table(sweep / "results.parquet").to_pylist()
    (row,) = [one for one in data["configurations"] if one["values"] == {"matrices": "v", "rank": 4}]
    values = [r["mia/reference_auroc"] for r in rows if (r["matrices"], r["rank"], r["epoch"]) == ("v", 4, 3)]
    assert len(values) == 3
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    found = row["metrics"]["mia/reference_auroc"]
    assert (found["mean"], found["low"], found["high"]) == pytest.approx((np.mean(values), low, high))
    heat = next(one for one in data["heat_maps"] if one["metric"] == "mia/reference_auroc")
    assert (heat["row"], heat["column"], heat["columns"]) == ("matrices", "rank", ["1", "4", "16"])
    assert dict((name, cells) for name, cells in heat["rows"])["v"][1]["value"] == pytest.approx(np.mean(values))


def test_the_front_has_what_nothing_beats_in_both(sweep_done):
    _, data = sweep_done
    points = data["front"]["points"]
    assert len(points) == 9
    sides = ("perplexity", "memorization")
    for one in points:
        beaten = any(
            max(o[x] - one[x] for x in sides) <= 0
            and min(o[x] - one[x] for x in sides) < 0  # better in one, worse in none
            for o in points
        )
        assert one["on_front"] != beaten


def test_a_sweep_has_findings_guidance_and_failures(sweep_done):
    html, data = sweep_done
    page = Page(html)
    assert data["verdict"]["text"].startswith(
        "26 of 27 trials are done, 1 failed. Findings on this model and data: 1 holds (1 finding, by its 95 % interval"
    )
    for text in ("Value and output matrices", "matrices v, rank 4", "out of memory <b>here</b>", "t0027"):
        assert text in page.text
    assert "b" not in page.tags


def test_an_undecided_finding_has_the_seeds_that_would_decide_it(tmp_path):
    folder = made.write_sweep(tmp_path / "sweep")
    found = json.loads((folder / "findings.json").read_text())
    ends = {"verdict": "undecided", "low": -0.01, "n_findings": 8, "level": 1 - 0.05 / 8}
    one = found["findings"][0] | ends
    found["findings"] = [one | {"seeds_to_decide": 17}, one | {"more_than_seeds": 1000}]
    (folder / "findings.json").write_text(json.dumps(found))
    html, data = report(folder)
    assert [each["seeds_to_decide"] for each in data["findings"]] == [17, None]
    assert {(each["n_findings"], each["level"]) for each in data["findings"]} == {(8, 0.99375)}
    for text in ("99.375 % interval", "8 findings", "17 seeds", "more than 1,000 seeds"):
        assert text in Page(html).text
    assert "2 undecided (8 findings" in data["verdict"]["text"]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"findings": {}},
        {"findings": [], "guidance": {"limit": "a > 1"}},
        {"findings": [{"verdict": "holds", "low": 0.1, "high": 0.2}]},  # at 95 % each, as earlier versions wrote
    ],
)
def test_findings_of_another_form_give_one_line(content, tmp_path):
    folder = made.write_sweep(tmp_path / "sweep")
    (folder / "findings.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"findings\.json: is not as this version writes it"):
        sweep_report(folder)


@pytest.mark.slow
def test_a_recommended_setting_that_is_undecided_is_marked(tmp_path):
    folder = made.write_sweep(tmp_path / "sweep")
    found = json.loads((folder / "findings.json").read_text())
    for state in ("within", "undecided"):
        found["guidance"]["state"] = state
        (folder / "findings.json").write_text(json.dumps(found))
        html, data = report(folder)
        assert data["guidance"]["state"] == state
        assert ('<span class="tag warn">undecided</span>' in html) == (state == "undecided")


def test_a_sweep_that_has_only_begun(tmp_path):
    folder = made.write_sweep(tmp_path / "sweep")
    (folder / "results.parquet").unlink()
    (folder / "findings.json").unlink()
    found = json.loads((folder / "sweep.json").read_text())
    for trial in found["trials"]:
        trial |= {"status": "pending", "error": None}
    (folder / "sweep.json").write_text(json.dumps(found))
    _, data = report(folder)
    assert data["verdict"]["state"] == "unfinished"
    assert data["front"] is None


@pytest.mark.slow
def test_a_trial_of_a_sweep_can_be_undecided_too(tmp_path, capsys):
    folder = made.write_sweep(tmp_path / "sweep")
    path = folder / "results.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["mia/reference_auroc_low"] = row["mia/reference_auroc"] - 0.01
        row["mia/reference_auroc_high"] = row["mia/reference_auroc"] + 0.01
    pq.write_table(pa.Table.from_pylist(rows), path)
    last = {row["trial"]: row["mia/reference_auroc"] for row in rows if row["epoch"] == 3}
    over = {trial for trial, value in last.items() if value - 0.01 > 0.64}
    undecided = {trial for trial, value in last.items() if value - 0.01 <= 0.64 < value + 0.01}
    assert over
    assert undecided
    where = folder / "trials" / min(undecided)
    where.mkdir(parents=True)
    made.write_checks(where, scored={"members": 20, "of_members": 9000, "heldout": 20, "of_heldout": 20})
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder), "--fail-on", "mia/reference_auroc > 0.64"])
    assert stop.value.code == 3
    lines = [line.split(": ") for line in capsys.readouterr().err.splitlines()]
    assert {parts[1] for parts in lines if parts[0] == "failed"} == over
    assert {parts[1] for parts in lines if parts[0] == "undecided"} == undecided
    counted = {parts[1] for parts in lines if "20 members and 20 held-out texts were scored" in parts[-1]}
    assert counted == {min(undecided)}
    limit = max(last.values()) + 0.005
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(folder), "--fail-on", f"mia/reference_auroc > {limit}"])
    assert stop.value.code == 4
    read(folder)


@pytest.mark.slow
def test_fail_on_a_sweep_names_the_trial(sweep, capsys):
    rows = pq.read_table(sweep / "results.parquet").to_pylist()
    over = {r["trial"] for r in rows if r["epoch"] == 3 and r["mia/reference_auroc"] > 0.65}
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(sweep), "--fail-on", "mia/reference_auroc > 0.65"])
    assert stop.value.code == 3
    lines = capsys.readouterr().err.splitlines()
    assert over
    assert {line.split(": ")[1] for line in lines} == over
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(sweep), "--fail-on", "mia/other_auroc > 0.65"])
    assert stop.value.code == 2
    cli.main(["report", str(sweep), "--fail-on", "mia/reference_auroc > 0.9"])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_fit_leaves_what_its_checks_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["train.py"])
    words = "--model.model_id asset:tiny_llama --data.train_size 24 --data.heldout_size 24 --data.batch_size 8"
    cli.main(
        [
            "fit",
            *words.split(),
            "--trainer.max_epochs",
            "1",
            "--trainer.accelerator",
            "cpu",
            "--trainer.log_every_n_steps",
            "1",
        ]
    )
    (folder,) = (tmp_path / "logs" / "lit_mem").iterdir()
    html, data = report(folder)
    checks = data["trust"]["checks"]
    assert (checks["n_members"], checks["shared_exact"], checks["verdict"]) == (24, 0, "cannot tell")
    assert checks["summary"][0] in Page(html).text
