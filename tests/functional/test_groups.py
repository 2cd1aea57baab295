"""Groups by attributes, their labels, and names for these: properties over arbitrary values."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.functional.groups import groups_of, has_groups, number_labels, safe_names, shortened

numbers = st.lists(
    st.one_of(st.integers(-50, 50).map(float), st.floats(allow_nan=False, width=32)), min_size=1, max_size=60
)
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["a b", "a_b", "a/b", "a  b", "A b", "a-b", " a b", ".", "..", "", "/", "<18", ">18", "é", "é"]),
)


@given(numbers, st.integers(2, 6), st.integers(2, 6))
def test_groups_of_numbers_are_intervals_that_share_no_number(values, bins, most):
    labels = number_labels(values, bins, most)
    held = {label: {v for v, mine in zip(values, labels, strict=True) if mine == label} for label in labels}
    distinct = len(set(values))
    assert len(held) == distinct if distinct <= most else len(held) <= bins
    ordered = sorted(held.values(), key=min)
    assert all(max(low) < min(high) for low, high in itertools.pairwise(ordered))


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=60), st.integers(2, 6))
def test_edges_of_whole_numbers_are_the_lowest_and_highest_there(values, bins):
    for value, label in zip(values, number_labels(values, bins, 2), strict=True):
        low, _, high = re.fullmatch(r"(-?\d+)(-| to )?(-?\d+)?", label).groups()
        low, high = int(low), int(high if high is not None else low)
        assert low <= value <= high
        assert {low, high} <= set(values)


@pytest.mark.slow
@pytest.mark.exhaustive
@given(st.lists(st.floats(0, 1), min_size=40, max_size=100, unique=True), st.integers(2, 6))
def test_groups_without_ties_are_numpys_quantile_groups(values, bins):
    edges = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    expected = np.searchsorted(edges, values, side="left")
    labels = number_labels(values, bins, 2)
    assert len(set(zip(labels, expected.tolist(), strict=True))) == bins == len(set(labels))
    assert max(Counter(labels).values()) - min(Counter(labels).values()) <= 1


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([], []),
        ([7.0], ["7"]),
        ([0.0] * 9 + [1.0, 2.0, 3.0], ["0"] * 9 + ["1-3"] * 3),
        ([1.0, 17.0, 18.0, 40.0, 41.0, 90.0], ["1-17", "1-17", "18", "40-41", "40-41", "90"]),
        ([-5.0, -1.0, 0.0, 2.0, 3.0, 4.0, 5.0, 6.0], ["-5 to -1"] * 2 + ["0-2"] * 2 + ["3-4"] * 2 + ["5-6"] * 2),
        ([0.5, 2 / 3, 18.0, 1e-7, 40.25], ["1e-07 to 0.5", "0.6667", "18", "1e-07 to 0.5", "40.25"]),
        ([0.1, 0.1 + 1e-9, 0.3, math.inf, 0.5], ["0.1-0.100000001", "0.1-0.100000001", "0.3", "inf", "0.5"]),
    ],
)  # fmt: skip
def test_quarters_are_labelled_by_what_they_hold(values, labels):
    assert number_labels(values, bins=4, most=2) == labels


def test_few_numbers_are_groups_of_their_own():
    assert number_labels([1, 3, 2, 3, 1.5], bins=2, most=4) == ["1", "3", "2", "3", "1.5"]


def test_each_kind_of_value_falls_into_its_groups():
    values = ["F", ("b", "a", "b"), None, 50.0, "50", " 7 ", math.nan, "", (), "unknown", "007", 50]
    expected = [("F",), ("b", "a"), (), ("50",), ("50",), ("7",), (), (), (), ("unknown",), ("007",), ("50",)]
    assert groups_of(values, bins=2, most=4) == expected


def test_numbers_written_as_texts_are_binned_beside_other_texts():
    groups = groups_of(["unknown", *map(str, range(100))], bins=4, most=12)
    assert Counter(groups) == {("unknown",): 1} | dict.fromkeys([("0-24",), ("25-49",), ("50-74",), ("75-99",)], 25)


@pytest.mark.parametrize(
    ("values", "worth"),
    [
        (["F", "M", "F", None], True),
        (["F", "F", None], False),  # one group
        ([None, None], False),
        ([], False),
        ([f"id-{i}" for i in range(8)], False),  # an identifier, though of few values
        ([f"text {i % 20}" for i in range(100)], False),  # free text
        ([float(i) for i in range(1000)], False),  # a row number
        ([i + 0.5 for i in range(1000)], True),  # a measurement
        ([float(i % 80) for i in range(1000)], True),  # an age
        ([str(i % 80) for i in range(1000)], True),  # an age, as a csv file has it
        ([("a", "b"), ("a",), ("b", "c"), ("c",)], True),
        ([(f"tag {i}", f"tag {i + 1}") for i in range(50)], False),
    ],
)
def test_columns_worth_groups(values, worth):
    assert has_groups(values, most=12) == worth


@given(st.lists(texts, max_size=30))
def test_names_are_safe_and_no_two_are_the_same(values):
    names = safe_names(values)
    assert set(names) == set(values)
    assert len(set(names.values())) == len(set(values))
    for name in names.values():
        assert re.fullmatch(r"[\w.-]+", name)
        assert name not in (".", "..")
        assert len(name) < 60


@given(st.lists(texts, max_size=30), st.randoms(use_true_random=False))
def test_names_do_not_depend_on_order(values, random):
    names = safe_names(values)
    random.shuffle(values)
    assert safe_names(values) == names


@pytest.mark.slow
@given(st.lists(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9_.-]{0,20}[A-Za-z0-9]\Z"), max_size=10))
def test_a_safe_text_keeps_its_name(values):
    assert safe_names([*values, "a b", "a/b"]).items() >= {value: value for value in values}.items()


def test_names_stay_readable():
    names = safe_names(["女性", "Straße 1/2", "≥65", "<=17", "2 or more", "?", "w" * 300, "a b", "a/b", "a_b"])
    assert [names[v] for v in ("女性", "Straße 1/2", "≥65", "<=17", "2 or more", "?", "a_b")] == [
        "女性", "Straße_1_2", "ge_65", "le_17", "2_or_more", "_", "a_b",
    ]  # fmt: skip
    assert all(re.fullmatch(r"a_b_[0-9a-f]{6}", names[v]) for v in ("a b", "a/b"))
    assert names["w" * 300] == "w" * 40


def test_a_lone_surrogate_has_a_name_too():
    assert len(set(safe_names(["\ud800", "\ud801"]).values())) == 2


def test_a_mark_that_is_taken_is_not_given_again():
    marked = safe_names(["a b", "a/b"])
    names = safe_names(["a b", "a/b", *marked.values()])
    assert len(set(names.values())) == 4


@given(st.text(max_size=300), st.text(max_size=300))
def test_long_texts_are_cut_and_stay_apart(a, b):
    assert len(shortened(a)) <= 80
    assert (shortened(a) == shortened(b)) == (a == b)
    assert shortened(("x", a)) == ("x", shortened(a))
    if len(a) <= 80:
        assert shortened(a) == a
