"""The range of a number: accepted values, and one-line errors for others."""

import math

import numpy as np
import pytest

from lit_mem.data.canaries import Traps
from lit_mem.errors import ConfigError, DataError, check_range
from lit_mem.types import Sampling


@pytest.mark.parametrize(
    ("value", "limits", "message"),
    [
        (1, {"at_least": 2}, "a.b is 1; expected at least 2"),
        (0.0, {"above": 0}, "a.b is 0.0; expected above 0"),
        (1, {"at_least": 0, "below": 1}, "a.b is 1; expected at least 0 and below 1"),
        (1.5, {"above": 0, "at_most": 1}, "a.b is 1.5; expected above 0 and at most 1"),
        (0, {"at_least": 1, "or_null": True}, "a.b is 0; expected at least 1, or null"),
        (0, {"at_least": 1, "hint": " (leave it out)"}, "a.b is 0; expected at least 1 (leave it out)"),
        (None, {"at_least": 1}, "a.b is None; expected a finite number and at least 1"),
        (True, {"at_least": 1}, "a.b is True; expected a finite number and at least 1"),
        ("3", {"at_least": 1}, "a.b is 3; expected a finite number and at least 1"),
        (math.nan, {"at_least": 0, "at_most": 1}, "a.b is nan; expected a finite number and at least 0 and at most 1"),
        (math.inf, {"above": 0}, "a.b is inf; expected a finite number and above 0"),
        (-math.inf, {"below": 0}, "a.b is -inf; expected a finite number and below 0"),
        (math.nan, {}, "a.b is nan; expected a finite number"),
    ],
)
def test_what_is_out_of_range_is_one_line(value, limits, message):
    with pytest.raises(ConfigError) as caught:
        check_range("a.b", value, **limits)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        (2, {"at_least": 2}),
        (1, {"at_most": 1}),
        (5e-324, {"above": 0}),
        (np.nextafter(1.0, 0.0), {"at_least": 0, "below": 1}),
        (np.int64(3), {"at_least": 3}),
        (np.float32(0.5), {"above": 0, "below": 1}),
        (None, {"at_least": 1, "or_null": True}),
        (-7, {}),
    ],
)
def test_what_is_within_range_passes(value, limits):
    check_range("a.b", value, **limits)


def test_the_kind_of_error_is_the_callers():
    with pytest.raises(DataError, match=r"^row 3 is 9; expected at most 8$"):
        check_range("row 3", 9, at_most=8, kind=DataError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampling(temperature=math.nan).check("x"), "x.temperature is nan"),
        (lambda: Sampling(temperature=math.inf).check("x"), "x.temperature is inf"),
        (lambda: Traps(temperatures=[1.0, math.nan]), r"data.canaries.temperatures\[1\] is nan"),
        (lambda: Traps(perplexities=[math.nan, 10.0]), r"data.canaries.perplexities is \[nan, 10.0\]"),
        (lambda: Traps(perplexities=[1.0, math.nan]), r"data.canaries.perplexities is \[1.0, nan\]"),
    ],
)
def test_nan_that_compares_with_no_limit_is_rejected(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
