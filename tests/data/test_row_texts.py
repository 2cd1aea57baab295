"""Contiguous rows equal the original rows."""

import json
import random

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value, concatenate_datasets

from lit_mem.data.row_texts import contiguous

FEATURES = Features(
    {
        "text": Value("string"),
        "number": Value("float64"),
        "label": ClassLabel(names=["a", "b"]),
        "marks": List({"type": Value("string"), "start": Value("int64")}),
        "mixed": Value("string"),
    }
)


@pytest.fixture(scope="module")
def rows():
    dice = random.Random(0)
    made = [
        {
            "text": dice.choice(["", "皮疹", "rash"]),
            "number": dice.choice([None, 1.5]),
            "label": dice.choice([0, 1, None]),
            "marks": dice.choice([None, [], [{"type": "x", "start": i}]]),
            "mixed": json.dumps({"i": i}),
        }
        for i in range(50)
    ]
    whole = Dataset.from_list(made, features=FEATURES)
    return concatenate_datasets([whole, whole.select(range(7))])  # in two chunks


@pytest.mark.parametrize("places", [[], [3], [5, 5, 1], list(range(0, 57, 2)), list(range(57))[::-1]])
def test_they_are_the_same_rows(rows, places):
    part = rows.select(places)
    found = contiguous(part.select_columns(["text", "marks", "label", "number"]))
    assert found.features == part.select_columns(["text", "marks", "label", "number"]).features
    assert found[:] == part.select_columns(["text", "marks", "label", "number"])[:]
    assert contiguous(part).to_list() == part.to_list()
    assert found._indices is None


def test_whole_datasets_are_left_alone(rows):
    assert contiguous(rows) is rows
