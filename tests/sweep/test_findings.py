"""Slopes and differences compared with their closed forms, and the recommended setting."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.errors import ConfigError
from lit_mem.sweep.findings import findings, last_epochs
from lit_mem.sweep.guidance import guidance

METRIC = "mia/reference_auroc"


def frame(cells, **columns):
    """Rows of (axes, seed, value), one epoch each."""
    rows = [
        {"trial": f"t{i}", "seed": seed, **axes, "epoch": 1, "step": 5, METRIC: value, **columns}
        for i, (axes, seed, value) in enumerate(cells)
    ]
    return pd.DataFrame(rows)


def test_rank_slopes_and_bends():
    # A gain that halves with each doubling: 0.08, 0.04, 0.02, 0.01.
    values = {1: 0.5, 2: 0.58, 4: 0.62, 8: 0.64, 16: 0.65}
    noise = {0: 0.0, 1: 0.001, 2: -0.001}
    table = frame([({"rank": r}, s, v * (1 + noise[s])) for r, v in values.items() for s in noise])
    more, less = findings("rank", table, ["rank"])
    slope = np.polyfit(range(5), list(values.values()), 1)[0]
    assert more.estimate == pytest.approx(slope)
    assert (more.verdict, more.n_seeds) == ("holds", 3)
    # Halves of three ranks each: (0.62 - 0.5) / 2 minus (0.65 - 0.62) / 2.
    assert less.estimate == pytest.approx(0.06 - 0.015)
    assert less.verdict == "holds"
    assert {(each.n_findings, each.level) for each in (more, less)} == {(2, 0.975)}
    falling = table.assign(**{METRIC: -table[METRIC]})
    assert [found.verdict for found in findings("rank", falling, ["rank"])] == ["does not hold", "does not hold"]


def test_matrices_at_each_size_on_their_own():
    auroc = {"small": {"q": 0.5, "k": 0.52, "v": 0.6, "o": 0.7}, "large": {"q": 0.7, "k": 0.5, "v": 0.6, "o": 0.61}}
    table = frame(
        [
            ({"matrices": m, "size": size}, s, v + s / 1000 * (m in "vo"))
            for size, each in auroc.items()
            for m, v in each.items()
            for s in (0, 1, 2)
        ]
    )
    found = {(each.statement): each for each in findings("matrices", table, ["matrices", "size"])}
    assert len(found) == 4
    assert {(each.n_findings, each.level) for each in found.values()} == {(4, 1 - 0.05 / 4)}
    lead = found["Value and output memorize more than query and key (size small)"]
    assert lead.estimate == pytest.approx((0.601 + 0.701) / 2 - 0.51)
    assert lead.verdict == "holds"
    each = found["Value and output each memorize more than both query and key (size large)"]
    assert each.estimate == pytest.approx(0.601 - 0.7)
    assert each.verdict == "does not hold"


def test_a_matrix_that_failed_decides_nothing():
    table = frame([({"matrices": m}, s, 0.5 + s / 10) for m in "qkv" for s in range(3)])
    assert findings("matrices", table, ["matrices"]) == []


def test_perplexity_reads_the_correlations_that_were_logged():
    table = frame([({"x": "a"}, s, 0.6) for s in range(3)])
    table["correlation/perplexity_vs_ngram_rate"] = [-0.5, -0.45, -0.52]
    table["correlation/perplexity_base_vs_ngram_rate"] = [0.5, -0.45, 0.1]
    tuned, base = findings("perplexity", table, ["x"])
    assert (tuned.verdict, base.verdict) == ("holds", "undecided")
    assert tuned.estimate == pytest.approx(0.49)
    assert "under the tuned model" in tuned.statement
    assert "under the base model" in base.statement


def test_the_last_epoch_counts_and_a_question_of_one_s_own_has_no_findings():
    table = pd.concat([frame([({"rank": 1}, 0, 0.9)]).assign(epoch=0, step=0), frame([({"rank": 1}, 0, 0.6)])])
    assert last_epochs(table)[METRIC].tolist() == [0.6]
    assert findings("adapters", table, ["rank"]) == []
    assert findings("rank", table.iloc[:0], ["rank"]) == []


# -- guidance ----------------------------------------------------------------------------------------------


def table_of(points):
    """Points (setting, epoch, seed, perplexity, auroc)."""
    rows = [
        {"trial": f"{a}{s}", "seed": s, "a": a, "epoch": e, "step": e, "val/perplexity": p, METRIC: m}
        for a, e, s, p, m in points
    ]
    return pd.DataFrame(rows, columns=["trial", "seed", "a", "epoch", "step", "val/perplexity", METRIC])


@pytest.mark.slow
@settings(deadline=None)  # the first call imports pandas
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(50, 60)), min_size=1, max_size=12))
def test_the_front_has_exactly_the_points_that_nothing_beats(points):
    table = table_of([(f"s{i}", 1, 0, float(p), m / 100) for i, (p, m) in enumerate(points)])
    guide = guidance(table, ["a"], f"{METRIC} > 0.55")
    exact = [(float(p), m / 100) for p, m in points]
    beaten = [any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in exact) for p in exact]
    expected = sorted({p for p, lost in zip(exact, beaten, strict=True) if not lost})
    assert [(point["perplexity"], point["memorization"]) for point in guide["front"]] == expected
    allowed = [p for p in exact if not p[1] > 0.55]
    if allowed:
        best = int(guide["best"]["a"][1:])
        assert exact[best] == min(allowed)
    else:
        assert guide["best"] is None
        assert guide["note"] == f"no setting and epoch avoids {METRIC} > 0.55"


def test_means_are_over_the_seeds_and_an_epoch_that_a_seed_lacks_does_not_count():
    table = table_of(
        [
            ("x", 1, 0, 3.0, 0.5),
            ("x", 1, 1, 4.0, 0.6),
            ("x", 2, 0, 1.0, 0.5),
            ("y", 1, 0, 5.0, 0.4),
            ("y", 1, 1, 5, 0.4),
        ]
    )
    guide = guidance(table, ["a"], f"{METRIC} > 0.58")
    assert guide["best"] == {"a": "x", "epoch": 1}
    assert json.dumps(guide["best"]) == '{"a": "x", "epoch": 1}'  # integers are kept
    assert (guide["metric"], guide["limit"]) == (METRIC, 0.58)
    assert [(p["perplexity"], p["memorization"]) for p in guide["front"]] == [(3.5, pytest.approx(0.55)), (5.0, 0.4)]
    assert "means of 2 seeds" in guide["note"]


def test_what_is_no_better_than_the_untuned_model_is_not_recommended():
    table = table_of([("x", 0, 0, 3.0, 0.5), ("y", 0, 0, 9.0, 0.5), ("x", 1, 0, 2.0, 0.9), ("y", 1, 0, 3.1, 0.5)])
    guide = guidance(table, ["a"], f"{METRIC} > 0.6")
    assert guide["best"] is None
    assert guide["note"].endswith("the lowest val/perplexity is 3.1, against 3 before training")
    assert guidance(table, ["a"], f"{METRIC} > 0.95")["best"] == {"a": "x", "epoch": 1}


def test_what_is_gained_is_judged_on_the_same_texts():
    table = table_of([("x", 0, 0, 3.0, 0.5), ("y", 0, 0, 9.0, 0.5), ("x", 1, 0, 2.9, 0.9), ("y", 1, 0, 8.0, 0.5)])
    assert guidance(table, ["a"], f"{METRIC} > 0.6")["best"] is None
    guide = guidance(table, ["a"], f"{METRIC} > 0.6", {"x0": "this corpus", "y0": "that one"})
    assert guide["best"] == {"a": "y", "epoch": 1}
    assert guide["note"].endswith("perplexities of different texts or models cannot be compared")


def test_a_limit_from_below_and_one_on_nothing_that_is_logged():
    table = table_of([("x", 1, 0, 3.0, 0.5), ("y", 1, 0, 2.0, 0.4)])
    assert guidance(table, ["a"], f"{METRIC} < 0.45")["best"] == {"a": "x", "epoch": 1}
    with pytest.raises(ConfigError, match=r"limit: no trial logged mia/los_auroc; expected one of mia/reference_auroc"):
        guidance(table, ["a"], "mia/los_auroc > 0.5")
    assert guidance(table.iloc[:0], ["a"], f"{METRIC} > 1")["note"] == "no trial has finished an epoch"


def test_the_best_setting_is_undecided_where_the_limit_lies_within_its_interval():
    rows = [("x", 1, 0, 3.0, 0.50), ("x", 1, 1, 3.0, 0.54), ("x", 1, 2, 3.0, 0.52)]
    _, high = scipy.stats.t.interval(0.95, 2, 0.52, scipy.stats.sem([0.50, 0.54, 0.52]))
    for limit, state in ((high + 0.001, "within"), (high - 0.001, "undecided"), (0.5201, "undecided")):
        guide = guidance(table_of(rows), ["a"], f"{METRIC} > {limit}")
        assert (guide["best"], guide["state"]) == ({"a": "x", "epoch": 1}, state)


def test_a_setting_that_leaves_an_option_out_has_a_state_too():
    for empty in (None, math.nan):
        table = table_of([(empty, 1, 0, 3.0, 0.52), (8.0, 1, 0, 3.5, 0.52)])
        found = guidance(table, ["a"], f"{METRIC} > 0.55")
        assert found["state"] == "within"
        assert found["best"]["a"] != 8.0


def test_with_one_seed_the_interval_over_its_texts_decides():
    table = table_of([("x", 1, 0, 3.0, 0.52)])
    assert guidance(table, ["a"], f"{METRIC} > 0.55")["state"] == "within"  # no interval: by the value
    table = table.assign(**{f"{METRIC}_low": 0.48, f"{METRIC}_high": 0.56})
    assert guidance(table, ["a"], f"{METRIC} > 0.55")["state"] == "undecided"
    assert guidance(table, ["a"], f"{METRIC} > 0.57")["state"] == "within"
    assert "state" not in guidance(table, ["a"], f"{METRIC} > 0.5")  # nothing is recommended
