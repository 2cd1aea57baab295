"""Presets expand to thresholds in every interface."""

import pytest

from lit_mem.audit.judging import Rule, judge_all
from lit_mem.audit.thresholds import PRESETS, Limits, meaning, parsed
from lit_mem.errors import ConfigError
from lit_mem.report.gate import conditions
from lit_mem.report.limits import rules_of

STANDARD = ["mia/strongest_auroc > 0.7", "extraction/exact_rate > 0.05"]


def test_a_preset_is_its_thresholds():
    assert list(PRESETS["standard"]) == STANDARD
    limits = Limits(["standard", "val/loss > 3", STANDARD[0]], lower_bound=True)
    assert [str(one) for one in limits] == [*STANDARD, "val/loss > 3"]  # each once
    assert limits.meaning == f"standard stands for {'; '.join(STANDARD)}"
    assert Limits(["val/loss > 3"]).meaning == meaning([]) == ""


def test_strict_is_stricter_on_the_same_metrics():
    strict, standard = (parsed([name]) for name in ("strict", "standard"))
    assert [one.name for one in strict] == [one.name for one in standard]
    assert all(a.limit < b.limit and a.above and b.above for a, b in zip(strict, standard, strict=True))


def test_the_record_and_the_gate_have_the_thresholds():
    rule = Rule("memorization.stop", Limits(["standard"]), "any")
    assert list(rule.recorded().thresholds) == STANDARD
    assert [str(one) for one in conditions(["standard", "[strict, 'a > 1']"])] == [
        *STANDARD, *PRESETS["strict"], "a > 1"
    ]  # fmt: skip
    (of_config,) = rules_of({"memorization": {"stop": "standard"}})
    assert [str(one) for one in of_config.limits] == STANDARD


@pytest.mark.parametrize("text", ["lenient", "Standard"])
def test_another_name_is_one_line_that_names_both(text):
    with pytest.raises(ConfigError, match="is not strict or standard"):
        parsed([text])


@pytest.mark.parametrize(
    ("exact", "state"), [((0.0, 0.0, 0.036), "within"), ((0.0, 0.0, 0.0711), "undecided"), ((0.2, 0.13, 0.29), "over")]
)
def test_a_rate_is_judged_by_its_interval(exact, state):
    ends = dict(zip(("", "_low", "_high"), exact, strict=True))
    metrics = {f"extraction/exact_rate{end}": value for end, value in ends.items()}
    metrics |= {"mia/strongest_auroc": 0.55, "mia/strongest_auroc_low": 0.5, "mia/strongest_auroc_high": 0.62}
    assert judge_all([Rule("x", Limits(["standard"]), "any")], metrics)[0] == state
