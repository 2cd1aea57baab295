"""Per-person metrics compared with pandas' groups, scikit-learn's AUROC and SciPy's intervals."""

import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.known import Known
from lit_mem.audit.loop import known_of
from lit_mem.audit.measure import Measure, Result, with_ends
from lit_mem.audit.measures import Persons
from lit_mem.audit.person import ByPerson
from lit_mem.audit.suite import suite
from lit_mem.audit.table import ScoreTable
from lit_mem.audit.thresholds import Limits
from lit_mem.data.groups import Groups
from lit_mem.errors import ConfigError
from lit_mem.functional.auroc import auroc
from lit_mem.types import Record, TokenScores
from tests.shared_fixtures import PlainSubject

SCORE, SUFFIX, SPANS = "mia/reference", "extraction/exact_rate", "spans_written"


class Columns(Measure):
    """Returns the columns of attacks and extraction."""

    def __init__(self, table, promised=()):
        self.table, self.promised = table, list(promised)

    def names(self):
        return ["mia/reference_auroc", *self.promised]

    def compute(self, run):
        return Result(rows=self.table)


def people(seed=0, n=60, named=12, prompted=0.7):
    """Rows of persons, each on one side, with gaps; as a frame and as a table."""
    rng = np.random.default_rng(seed)
    person = rng.integers(0, named, n)
    frame = pd.DataFrame(
        {
            "person": [f"p{i}" for i in person],
            "member": person % 2 == 0,
            SCORE: np.round(rng.normal(person % 3, 1), 1),  # with ties
            SUFFIX: np.where(rng.random(n) < prompted, rng.random(n) < 0.2, np.nan).astype(float),
            SPANS: np.where(rng.random(n) < 0.5, rng.integers(0, 3, n), np.nan),
        }
    )
    frame.loc[rng.random(n) < 0.1, SCORE] = np.nan  # as the attack `combined` leaves half
    return frame


def table_of(frame):
    columns = {name: torch.tensor(frame[name].to_numpy()) for name in (SCORE, SUFFIX, SPANS) if name in frame}
    return ScoreTable(torch.arange(len(frame)), torch.tensor(frame["member"].to_numpy()), columns)


def batch_of(frame):
    ids, member = torch.arange(len(frame)), torch.tensor(frame["member"].to_numpy())
    records = [Record("text", group=person) for person in frame["person"]]
    ones = torch.ones(len(frame), 2)
    batch = {"input_ids": ones.long(), "example_id": ids, "member": member, "records": records}
    return TokenScores(-ones, ones.bool(), ones.bool(), ids, member, batch=batch), batch


def with_groups(groups):
    return type("Subject", (PlainSubject,), {"groups": staticmethod(lambda: groups)})


def measured(audited, frame, measure=None, promised=(), **options):
    measure = measure or Persons()
    given = Columns(table_of(frame), promised)
    found = audited([given, measure], batch_of(frame), **options)
    return found.results[measure]


# -- against other libraries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_user_inference_is_sklearns_of_pandas_means(audited, seed):
    frame = people(seed)
    metrics = measured(audited, frame).metrics
    means = frame.groupby("person").agg(score=(SCORE, "mean"), member=("member", "first")).dropna()
    area = [metrics[f"user/inference_auroc{end}"] for end in ("", "_low", "_high")]
    assert area[0] == pytest.approx(roc_auc_score(means.member, means.score))
    assert area == pytest.approx(auroc(torch.tensor(means.score.to_numpy()), torch.tensor(means.member.to_numpy())))


@pytest.mark.parametrize("seed", range(4))
def test_shares_are_those_of_pandas_with_scipys_exact_interval(audited, seed):
    frame = people(seed, n=40, named=20, prompted=0.3)
    metrics = measured(audited, frame).metrics
    frame["tried"] = frame[SUFFIX].notna() | frame[SPANS].notna()
    frame["got"] = (frame[SUFFIX] == 1) | (frame[SPANS] > 0)
    persons = frame.groupby("person").agg(tried=("tried", "any"), got=("got", "any"), member=("member", "first"))
    for part, side in (("", persons.member), ("_heldout", ~persons.member)):
        got = persons.got[side & persons.tried]
        interval = binomtest(int(got.sum()), len(got)).proportion_ci(method="exact")
        found = [metrics[f"user/extracted_share{part}{end}"] for end in ("", "_low", "_high")]
        assert found == pytest.approx([got.mean(), interval.low, interval.high])


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 15))
def test_sums_by_person_are_those_of_pandas(seed, n, named):
    frame = people(seed, n, named)
    persons = ByPerson(table_of(frame), dict(enumerate(frame["person"])))
    by = frame.groupby("person", sort=False)
    assert persons.names == list(by.groups)
    assert persons.member.tolist() == by["member"].first().tolist()
    assert persons.scored(SCORE).tolist() == by[SCORE].count().tolist()
    for found, expected in ((persons.mean, "mean"), (persons.highest, "max")):
        np.testing.assert_allclose(found(SCORE).numpy(), by[SCORE].agg(expected).to_numpy(), rtol=1e-12, atol=1e-12)
    assert persons.extracted()[0].tolist() == (by[SUFFIX].sum() + by[SPANS].sum()).tolist()


def test_the_table_has_each_person_once_and_the_most_exposed_first(audited):
    frame = people(1)
    counts = frame.groupby(["member", "person"]).size()
    groups = Groups(dict(counts[True] + 3), dict(counts[False]), shown=True)
    measure = Persons()
    measure.open(with_groups(groups), Known(), True)
    table = measured(audited, frame, measure).persons
    assert table.column == SCORE
    by = frame.groupby("person")
    for row in table.rows:
        rows = by.get_group(row.person)
        assert row.member == rows["member"].iloc[0]
        assert (row.rows, row.rows_scored) == (len(rows) + 3 * row.member, rows[SCORE].count())
        assert (row.highest, row.mean) == pytest.approx((rows[SCORE].max(), rows[SCORE].mean()))
        tried = rows[SUFFIX].notna() | rows[SPANS].notna()
        assert row.extracted == (rows[SUFFIX].sum() + rows[SPANS].sum() if tried.any() else None)
    assert len(table.rows) == len(by)
    keys = [(not row.member, -row.extracted, -row.highest) for row in table.rows]
    assert keys == sorted(keys)


def test_a_suffix_at_several_prefix_lengths_is_one_piece():
    columns = {f"extraction/exact_rate_prefix_{n}": torch.tensor([float(n > 4), 0.0]).double() for n in (4, 8, 16)}
    columns |= {"extraction/exact_rate_prefix_8_base": torch.ones(2).double()}
    persons = ByPerson(ScoreTable(torch.arange(2), torch.ones(2).bool(), columns), {0: "a", 1: "a"})
    assert persons.extracted()[0].tolist() == [1]


def test_who_has_rows_on_both_sides_is_a_member(audited, caplog):
    """Also if their training rows were not scored, as groups list them."""
    frame = pd.DataFrame({"person": list("aabbccdd"), "member": [True] * 3 + [False] * 5, SCORE: np.arange(8.0)})
    persons = ByPerson(table_of(frame), dict(enumerate(frame["person"])), Groups({"a": 2, "b": 1, "d": 4}, {"c": 2}))
    assert (persons.names, persons.member.tolist(), persons.both) == (["a", "b", "c"], [True, True, False], 2)
    assert persons.mean(SCORE).tolist() == [0.5, 2.0, 4.5]
    with caplog.at_level(logging.INFO, "lit_mem"):
        assert measured(audited, frame).metrics["user/inference_auroc"] == 0.0
    assert "1 persons have rows on both sides" in caplog.text


@pytest.mark.parametrize(("n_others", "measured_at"), [(9, []), (10, [0.1]), (100, [0.1, 0.01])])
def test_the_rate_at_a_low_false_positive_rate_needs_as_many_persons(audited, n_others, measured_at):
    person = [*["m0", "m1"] * 2, *[f"h{i}" for i in range(n_others)]]
    frame = pd.DataFrame({"person": person, "member": [name[0] == "m" for name in person]})
    frame[SCORE] = np.where(frame.member, 1.0, 0.0)
    metrics = measured(audited, frame).metrics
    expected = [f"user/inference_tpr_at_fpr_{fpr:g}" for fpr in measured_at]
    assert [name for name in metrics if "tpr" in name] == with_ends(expected)
    assert all(metrics[name] == 1.0 for name in expected)


# -- where there are no persons, and what cannot be measured ----------------------------------------------------


def rejected(measure, name="user/inference_auroc"):
    with pytest.raises(ConfigError) as caught:
        known_of([measure]).check(Limits([f"{name} > 0.7"]).names(), "limits")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_is_said_where_each_row_is_a_group_of_its_own(audited, caplog):
    frame = people(0)
    frame["person"] = [f"train.jsonl:{i}" for i in range(len(frame))]
    for groups in (Groups.of(frame["person"][:30], frame["person"][30:]), None):
        measure = Persons()
        measure.open(with_groups(groups), Known(), True)
        assert bool(measure.names()) == (groups is None)
        with caplog.at_level(logging.DEBUG, "lit_mem"):
            found = measured(audited, frame, measure)
        assert (dict(found.metrics), found.persons, found.verdict, caplog.text) == ({}, None, (), "")
        assert measure.names() == []
        assert measure.state_dict() == {}
        assert "group_column" in rejected(measure)


def test_a_module_of_ones_own_need_not_count_its_groups(audited):
    measure = Persons()
    assert "user/inference_auroc" in measured(audited, people(0), measure).metrics
    assert measure.names()
    nameless = people(0).assign(person="")
    assert not measured(audited, nameless, Persons()).metrics


def test_without_persons_held_out_there_is_no_attack_and_the_shares_stay(audited):
    measure = Persons()
    measure.open(with_groups(Groups({"p0": 5, "p2": 3, "p4": 2}, {})), Known(), True)
    frame = people(3)
    frame.loc[~frame.member, "person"] = ""
    metrics = measured(audited, frame, measure).metrics
    assert set(metrics) == {f"user/extracted_share{end}" for end in ("", "_low", "_high")}
    assert "identify no persons" in rejected(measure)


def test_a_pass_that_generates_nothing_has_no_share_beside_those_that_do(audited):
    frame = people(0).drop(columns=SUFFIX)
    promised = [f"{SUFFIX}{part}" for part in ("", "_heldout")]
    found = measured(audited, frame, promised=promised)
    assert {name.rpartition("_auroc")[0] for name in found.metrics if "tpr" not in name} == {"user/inference"}
    assert {row.extracted for row in found.persons.rows} == {None}
    assert "user/extracted_share" in measured(audited, frame).metrics  # only spans are ever tried


def test_what_is_never_tried_is_not_promised(audited):
    measure = Persons()
    measured(audited, people(0).drop(columns=[SUFFIX, SPANS]), measure)
    assert all(name.startswith("user/inference") for name in measure.names())
    assert "no spans are marked" in rejected(measure, "user/extracted_share")


def test_a_check_over_a_few_batches_says_nothing(audited):
    found = measured(audited, people(0), complete=False, checking=True)
    assert (dict(found.metrics), found.persons) == ({}, None)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1])
def test_rates_are_between_0_and_1(fpr):
    with pytest.raises(ConfigError, match=r"Persons\.fprs contains"):
        Persons(fprs=[fpr])


def test_a_column_that_nothing_gives_is_rejected(audited):
    with pytest.raises(ConfigError, match=r"Persons\.column"):
        measured(audited, people(0), Persons("mia/luck"))


@pytest.mark.parametrize(("name", "there"), [("quick", False), ("standard", True), ("full", True)])
def test_suites(name, there):
    made = suite(name, extraction=ExtractionOptions())
    assert [one.column for one in made if isinstance(one, Persons)] == ["mia/reference"] * there
    alone = suite(name, extraction=ExtractionOptions(), compares=False)
    assert [one.column for one in alone if isinstance(one, Persons)] == ["mia/loss"] * there


# -- names ------------------------------------------------------------------------------------------------------


def hashes(audited, measure, frame):
    return {row.person for row in measured(audited, frame, measure).persons.rows}


def test_a_hash_replaces_a_name_and_is_the_same_in_each_pass_of_a_run(audited):
    frame, measure, subject = people(0), Persons(), with_groups(None)
    measure.open(subject, Known(), True)
    first = hashes(audited, measure, frame)
    assert first == hashes(audited, measure, frame)
    assert len(first) == frame["person"].nunique()
    assert not first & set(frame["person"])
    resumed = Persons()
    resumed.open(subject, Known(), True)  # as Lightning does before it loads a checkpoint's state
    resumed.load_state_dict(measure.state_dict())
    assert hashes(audited, resumed, frame) == first
    measure.open(subject, Known(), True)
    assert not hashes(audited, measure, frame) & first
    measure.open(subject, Known(), False)
    kept = hashes(audited, measure, frame)
    assert kept == hashes(audited, measure, frame)


def test_names_are_shown_only_on_request(audited):
    frame = people(0)
    counts = frame.groupby(["member", "person"]).size()
    for shown in (False, True):
        measure = Persons()
        measure.open(with_groups(Groups(dict(counts[True]), dict(counts[False]), shown)), Known(), True)
        assert (hashes(audited, measure, frame) == set(frame["person"])) == shown


def test_the_random_state_of_training_is_not_touched(audited):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    measure = Persons()
    measure.open(SimpleNamespace(groups=lambda: None), Known(), True)
    measured(audited, people(0), measure)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
