"""The comparison of attacks: its draws are disjoint, and its intervals are correct."""

import math
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from benchmarks import attacks, paired_areas
from benchmarks.draws import Pool
from benchmarks.paired_areas import Scored, areas, contributions, differences, largest_deviate
from lit_mem.audit.measures.membership import default_attacks
from lit_mem.data.sources import PHEE
from lit_mem.data.sources.base import Corpus, Source

MEMBER = np.array([True] * 9 + [False] * 7)


def placements(score, member):
    """Each text's share of the other set that lies on its right side, by the definition."""
    members, others = score[member], score[~member]
    of_members = [np.mean([(x > y) + (x == y) / 2 for y in others]) for x in members]
    of_others = [np.mean([(x > y) + (x == y) / 2 for x in members]) for y in others]
    return np.array(of_members), np.array(of_others)


def variance_of_difference(one, other, member):
    """DeLong's, by its covariance matrix."""
    pairs = list(zip(placements(one, member), placements(other, member), strict=True))
    matrix = sum(np.cov(first, second) / len(first) for first, second in pairs)
    return matrix[0, 0] + matrix[1, 1] - 2 * matrix[0, 1]


def drawn(seed, names=("reference", "other"), member=MEMBER):
    """Scores that are correlated and have ties."""
    random = np.random.default_rng(seed)
    common = random.normal(size=len(member)) + member
    columns = {name: np.round(common + random.normal(size=len(member)), 1) for name in names}
    return Scored(columns, member, [f"text {seed} {i}" for i in range(len(member))])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(-4, 4), min_size=len(MEMBER), max_size=len(MEMBER)))
def test_what_texts_add_to_an_area_has_delongs_variance(values):
    score = np.array(values, dtype=float)
    area, added = contributions(score, MEMBER)
    assert area == pytest.approx(roc_auc_score(MEMBER, score))
    assert added.sum() == pytest.approx(0, abs=1e-12)
    expected = sum(np.var(each, ddof=1) / len(each) for each in placements(score, MEMBER))
    assert (added**2).sum() == pytest.approx(expected, abs=1e-12)


def test_one_difference_in_one_run_has_delongs_interval():
    run = drawn(0)
    found = differences([run], "reference")["other"]
    one, other = run.columns["other"], run.columns["reference"]
    assert found.value == pytest.approx(roc_auc_score(MEMBER, one) - roc_auc_score(MEMBER, other))
    half = norm.ppf(0.975) * math.sqrt(variance_of_difference(one, other, MEMBER))
    assert found.high - found.value == pytest.approx(half, rel=0.02)
    assert found.value - found.low == pytest.approx(half, rel=0.02)


def test_an_area_is_a_mean_over_runs_with_delongs_interval_on_the_logit_scale():
    runs = [drawn(seed) for seed in range(3)]
    found = areas(runs)["other"]
    values = [roc_auc_score(run.member, run.columns["other"]) for run in runs]
    assert found.runs == pytest.approx(values)
    parts = [placements(run.columns["other"], MEMBER) for run in runs]
    error = math.sqrt(sum(np.var(each, ddof=1) / len(each) for two in parts for each in two)) / 3
    area = np.mean(values)
    for end, sign in ((found.low, -1), (found.high, 1)):
        moved = math.log(area / (1 - area)) + sign * norm.ppf(0.975) * error / (area * (1 - area))
        assert end == pytest.approx(1 / (1 + math.exp(-moved)))


def test_a_text_that_is_in_two_runs_counts_once():
    run = drawn(1)
    again = Scored(run.columns, run.member, [f"{name}, another" for name in run.cluster])
    once, same, other = (differences(runs, "reference")["other"] for runs in ([run], [run, run], [run, again]))
    assert (same.low, same.high) == pytest.approx((once.low, once.high))
    assert other.high - other.value == pytest.approx((once.high - once.value) / math.sqrt(2))


def differences_of_both(runs):
    return differences(runs, "reference")


def test_attacks_are_compared_on_texts_that_both_could_judge():
    run = drawn(2)
    kept = np.arange(len(MEMBER)) % 2 == 0
    half = Scored(
        {"reference": run.columns["reference"], "other": np.where(kept, run.columns["other"], np.nan)},
        MEMBER,
        run.cluster,
    )
    alone = Scored({k: v[kept] for k, v in run.columns.items()}, MEMBER[kept], np.array(run.cluster)[kept].tolist())
    pairs = [
        *((found([half])["other"], found([alone])["other"]) for found in (differences_of_both, areas)),
        (areas([half])["reference"], areas([run])["reference"]),
    ]
    for found, expected in pairs:
        assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


@pytest.mark.parametrize("count", [1, 2, 10])
def test_the_largest_of_independent_deviates_is_sidaks_and_of_equal_ones_that_of_one(count):
    assert largest_deviate(np.eye(count)) == pytest.approx(norm.ppf((1 + 0.95 ** (1 / count)) / 2), abs=0.02)
    assert largest_deviate(4 * np.ones((count, count))) == pytest.approx(norm.ppf(0.975), abs=0.02)
    assert largest_deviate(np.zeros((count, count))) == 0


def test_an_attack_that_ranks_as_the_reference_does_differs_by_nothing():
    run = drawn(3)
    same = Scored({"reference": run.columns["reference"], "twice": 2 * run.columns["reference"]}, MEMBER, run.cluster)
    found = differences([same], "reference")["twice"]
    assert (found.value, found.low, found.high) == (0, 0, 0)


@pytest.mark.slow
def test_all_intervals_hold_at_once_in_95_of_100(monkeypatch):
    monkeypatch.setattr(paired_areas, "DRAWS", 4000)
    member = np.arange(160) < 80
    names = ("reference", "a", "b", "c", "d", "e")  # equally strong, so that every true difference is 0
    trials = 600
    wrong = 0
    for seed in range(trials):
        found = differences([drawn(2 * seed, names, member), drawn(2 * seed + 1, names, member)], "reference")
        wrong += any(each.low > 0 or each.high < 0 for each in found.values())
    # Three standard errors; what is estimated of the variance from 160 texts may add a little.
    assert wrong / trials == pytest.approx(0.05, abs=0.03)


# -- the texts -------------------------------------------------------------------------------------------------


class Few(Source):
    """Two rows per patient; the last row occurs twice."""

    def load(self):
        def rows(name, patients):
            texts = [f"patient {p}, visit {v}" for p in patients for v in (1, 2)] + ["patient 0, visit 1"]
            groups = [f"p{p}" for p in patients for _ in (1, 2)] + ["p0"]
            origin = [f"{name}:{i}" for i in range(len(texts))]
            return Dataset.from_dict(
                {"prompt": [""] * len(texts), "completion": texts, "group": groups, "origin": origin}
            )

        return Corpus(rows("train", range(12)), rows("heldout", range(12, 20)), None, "few")


def test_draws_share_no_patient_and_differ_by_seed():
    pool = Pool(Few(), reserved=0.25)
    assert len(pool.rows) == 40
    assert len(pool.reserved) == 5
    assert not set(pool.reserved) & set(pool.free)
    members, heldout = pool.draw(pool.free, [9, 8], "seed 0")
    assert [len(members), len(heldout)] == [9, 8]
    assert not set(members["group"]) & set(heldout["group"])
    assert not (set(members["group"]) | set(heldout["group"])) & set(pool.reserved)
    assert pool.draw(pool.free, [9, 8], "seed 0")[0]["completion"][:] == members["completion"][:]
    assert pool.draw(pool.free, [9, 8], "seed 1")[0]["completion"][:] != members["completion"][:]


def test_more_texts_than_there_are_end_in_one_line():
    pool = Pool(Few(), reserved=0.25)
    with pytest.raises(SystemExit, match="too few texts for 40 of separate groups"):
        pool.draw(pool.free, [20, 20], "seed 0")


def test_a_recipe_is_its_configurations():
    args = attacks.made_options().parse_args(["--config", "smollm2_phee", "--model", "folder"])
    recipe = attacks.Recipe(args)
    assert (recipe.model_id, recipe.source) == ("folder", PHEE)
    assert recipe.model["adapter"]["init_args"]["targets"] == ["v", "o"]
    assert recipe.model["optimizer"]["init_args"] == {"lr": 0.001}
    assert attacks.Recipe(SimpleNamespace(config="bundled", model=None, source="PHEE")).source is PHEE


@pytest.mark.slow
@pytest.mark.exhaustive
def test_every_attack_is_judged_and_what_was_computed_is_kept(tmp_path, monkeypatch, capsys):
    words = "--rows 12 --epochs 1 --repeats 2 --references 2 --probing lowercase --device cpu".split()
    made = attacks.main([*words, "--out", str(tmp_path)])
    names = {str(row[0]).strip("`") for row in made.rows}
    assert names == {
        *default_attacks(),
        "ez_mia_authors",
        "wbc_authors",
        "lira",
        "rmia",
        "rmia_a1",
        "lowercase",
        "combined",
    }
    assert "| attack | AUROC |" in capsys.readouterr().out
    rows = [pq.read_table(tmp_path / f"seed_{seed}.parquet") for seed in (0, 1)]
    assert rows[0]["origin"].to_pylist() != rows[1]["origin"].to_pylist()
    judged = attacks.scored(rows[0])
    found = areas([judged])["reference"].value
    assert found == pytest.approx(roc_auc_score(judged.member, rows[0]["mia/reference"].to_numpy()))
    monkeypatch.setattr(attacks, "score", None)  # a second time nothing is trained
    assert attacks.main([*words, "--out", str(tmp_path)]).rows == made.rows
    with pytest.raises(SystemExit, match="scores of other options"):
        attacks.main([*words, "--epochs", "2", "--out", str(tmp_path)])
