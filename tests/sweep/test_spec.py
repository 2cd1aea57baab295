"""Trials generated from axes."""

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.errors import ConfigError
from lit_mem.sweep.spec import axis_of, check_folder, trials

CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "sweeps").glob("*.yaml"))
RANK = {"option": "model.adapter.init_args.rank", "values": [1, 4]}
TARGETS = {"q": {"model.adapter.init_args.targets": ["q"]}, "v+o": {"model.adapter.init_args.targets": ["v", "o"]}}


def test_every_combination_with_every_seed():
    made = trials({"rank": RANK, "matrices": TARGETS}, [0, 3], {"trainer.max_epochs": 2}, ["seed_everything"])
    assert [(t.values["rank"], t.values["matrices"], t.seed) for t in made] == list(
        itertools.product([1, 4], ["q", "v+o"], [0, 3])
    )
    assert made[3].name == "rank=1_matrices=v+o_seed=3"
    assert made[3].options == {
        "trainer.max_epochs": 2,
        "model.adapter.init_args.rank": 1,
        "model.adapter.init_args.targets": ["v", "o"],
        "seed_everything": 3,
    }
    assert made[3].words() == [
        "--trainer.max_epochs=2",
        "--model.adapter.init_args.rank=1",
        '--model.adapter.init_args.targets=["v", "o"]',
        "--seed_everything=3",
    ]


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True), max_size=4
    ),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_as_many_as_the_product_and_each_a_folder_of_its_own(axes, seeds):
    made = trials({a: {"option": f"o.{a}", "values": v} for a, v in axes.items()}, seeds, {}, ["seed"])
    expected = len(seeds)
    for values in axes.values():
        expected *= len(values)
    assert len({t.name for t in made}) == len(made) == expected
    assert len({json.dumps(t.options, sort_keys=True) for t in made}) == expected
    assert all(re.fullmatch(r"[\w.,=+-]+", t.name) for t in made)


@settings(deadline=None)
@given(st.integers(1, 20), st.booleans())
def test_draws_lie_in_their_range_and_come_again(samples, log):
    axes = {"lr": {"option": "lr", ("loguniform" if log else "uniform"): [1e-4, 1e-2]}, "rank": RANK}
    made = trials(axes, [0, 1], {}, ["seed"], samples)
    assert made == trials(axes, [0, 1], {}, ["seed"], samples)
    assert len(made) == 2 * 2 * samples
    assert all(1e-4 <= t.values["lr"] <= 1e-2 and t.options["lr"] == t.values["lr"] for t in made)
    # Settings are compared on the same samples.
    assert len({t.values["lr"] for t in made}) == samples


def test_draws_fill_their_range_evenly_on_its_scale():
    made = trials({"lr": {"option": "lr", "loguniform": [1e-4, 1e-2]}}, [0], {}, ["seed"], 400)
    below = sum(t.values["lr"] < 1e-3 for t in made)
    assert 160 < below < 240  # half of them; on a linear scale it would be 9 %


@pytest.mark.parametrize(
    ("axis", "complaint"),
    [
        ([1, 2], r"axes.rank is \[1, 2\]; expected"),
        ({}, "axes.rank is {}; expected"),
        ({"option": "x"}, "expected {option: NAME"),
        ({"option": "x", "values": []}, "expected {option: NAME"),
        ({"option": "x", "values": 3}, "expected {option: NAME"),
        ({"option": "x", "values": [1], "uniform": [0, 1]}, "expected {option: NAME"),
        ({"option": "x", "range": [0, 1]}, "axes.rank has 'range'; expected"),
        ({"option": "x", "uniform": [1, 1]}, r"uniform is \[1, 1\]; expected two numbers, the smaller first$"),
        ({"option": "x", "uniform": [0, float("nan")]}, "expected two numbers"),
        ({"option": "x", "uniform": [0, 1, 2]}, "expected two numbers"),
        ({"option": "x", "loguniform": [0, 1]}, "both above 0"),
        ({"small": 3}, "axes.rank.small is 3; expected"),
    ],
)
def test_axes_of_other_forms(axis, complaint):
    with pytest.raises(ConfigError, match=complaint):
        axis_of("rank", axis)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"seeds": []}, r"seeds is \[\]; expected different numbers"),
        ({"seeds": [1, 1]}, r"seeds is \[1, 1\]"),
        ({"samples": 0}, "samples is 0"),
        ({"axes": {"a/b": RANK}}, "axes.a/b: the name"),
        ({"axes": {"a": RANK, "b": RANK}}, "axes.b sets model.adapter.init_args.rank, which another axis sets too"),
        ({"axes": {"a": {"x y": {"o": 1}, "x-y": {"o": 2}}}}, "two trials have the name a=x-y_seed=0"),
    ],
)
def test_sweeps_that_cannot_be(options, complaint):
    given = {"axes": {"rank": RANK}, "seeds": [0], "fixed": {}, "seed_options": ["seed"], "samples": 1} | options
    with pytest.raises(ConfigError, match=complaint):
        trials(**given)


def test_no_folder_serves_two_sweeps(tmp_path):
    before = trials({"rank": RANK}, [0], {"trainer.max_epochs": 2}, ["seed"])
    for trial in before:
        folder = tmp_path / "trials" / trial.name
        folder.mkdir(parents=True)
        (folder / "trial.json").write_text(json.dumps({"options": trial.options, "run": ["a.yaml"]}))
    check_folder(tmp_path, before, ["a.yaml"])
    check_folder(tmp_path, trials({"rank": RANK}, [0, 1], {"trainer.max_epochs": 2}, ["seed"]), ["a.yaml"])
    with pytest.raises(ConfigError, match=r"trainer.max_epochs was 2, and is 3 now; expected the same, or another out"):
        check_folder(tmp_path, trials({"rank": RANK}, [0], {"trainer.max_epochs": 3}, ["seed"]), ["a.yaml"])
    with pytest.raises(ConfigError, match=r"run was \['a.yaml'\], and is \['b.yaml'\] now"):
        check_folder(tmp_path, before, ["b.yaml"])
    (folder / "trial.json").write_text("{")
    with pytest.raises(ConfigError, match="is damaged"):
        check_folder(tmp_path, before, ["a.yaml"])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_ready_sweeps_have_three_seeds_and_runs_that_are_there(path):
    spec = yaml.safe_load(path.read_text())
    made = trials(spec["axes"], spec["seeds"], spec.get("set", {}), ["seed_everything", "data.seed"])
    assert len(spec["seeds"]) >= 3
    assert len(made) >= 3
    assert spec["name"] == path.stem
    assert all((path.parents[2] / run).is_file() for run in spec["run"])
