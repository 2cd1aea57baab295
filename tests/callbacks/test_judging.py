import logging
import math
import re

import pytest
import torch

from lit_mem.callbacks import MembershipInference, MemorizationCheckpoint, MemorizationEarlyStopping, Perplexity
from lit_mem.callbacks.judging import judge, settled_by, together
from lit_mem.callbacks.planned_stop import planned_stop
from lit_mem.callbacks.thresholds import Threshold
from lit_mem.functional.planning import Scored, needed_to_settle, planned_interval, stops_at

LEFT, RIGHT = "mia/a_auroc > 0.7", "mia/a_auroc < 0.7"


def metrics(value, low=None, high=None, name="mia/a_auroc"):
    ends = {f"{name}_low": low, f"{name}_high": high} if low is not None else {}
    return {name: value} | ends


@pytest.mark.parametrize(
    ("text", "seen", "state"),
    [
        (LEFT, metrics(0.6, 0.5, 0.7), "within"),  # the high end is at most the limit
        (LEFT, metrics(0.6, 0.5, 0.71), "undecided"),
        (LEFT, metrics(0.747, 0.6, 0.86), "undecided"),
        (LEFT, metrics(0.8, 0.7, 0.9), "undecided"),  # the low end is not above it
        (LEFT, metrics(0.8, 0.71, 0.9), "over"),
        (RIGHT, metrics(0.8, 0.7, 0.9), "within"),
        (RIGHT, metrics(0.8, 0.69, 0.9), "undecided"),
        (RIGHT, metrics(0.6, 0.5, 0.7), "undecided"),
        (RIGHT, metrics(0.6, 0.5, 0.69), "over"),
        (LEFT, metrics(0.747), "over"),  # no interval: by the value
        (LEFT, metrics(0.7), "within"),
        (RIGHT, metrics(0.6), "over"),
        (LEFT, metrics(0.747, math.nan, math.nan), "over"),
        (LEFT, {}, "not measured"),
        (LEFT, metrics(math.nan, 0.1, 0.2), "not measured"),
        ("canary/auroc > 0.7", metrics(0.8, 0.6, 0.9, "canary/auroc"), "undecided"),
        ("slice/sex/F/ngram_rate > 0.7", metrics(0.8, 0.6, 0.9, "slice/sex/F/ngram_rate"), "undecided"),
        ("mia/a_auroc_low > 0.7", metrics(0.8, 0.6, 0.9), "within"),
    ],
)
def test_the_whole_interval_decides(text, seen, state):
    assert judge(Threshold.parse(text), seen).state == state


@pytest.mark.parametrize(
    ("states", "one_is_enough", "all_at_once"),
    [
        (["within", "over"], "over", "within"),
        (["undecided", "over"], "over", "undecided"),
        (["within", "undecided"], "undecided", "within"),
        (["not measured", "undecided"], "not measured", "undecided"),
        (["not measured", "over"], "over", "not measured"),
        (["over", "over"], "over", "over"),
        ([], "within", "within"),
    ],
)
def test_states_of_several_thresholds(states, one_is_enough, all_at_once):
    assert together(states) == one_is_enough
    assert together(states, "all") == all_at_once


def undecided(value=0.747, members=25, heldout=25, name="mia/a_auroc", limit=0.7):
    low, high = planned_interval(value, members, heldout)
    found = judge(Threshold(name, True, limit), metrics(value, low, high, name))
    assert found.state == "undecided"
    return found


def numbers(text):
    return [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?= (?:held|members|and))", text)]


def test_what_would_settle_it_is_the_planned_number_of_texts():
    needed = needed_to_settle(0.747, 0.7, Scored(25, 25, 3000, 3000))
    assert numbers(settled_by(undecided(), Scored(25, 25, 3000, 3000)))[:2] == [needed.heldout, needed.members]


def test_members_that_are_too_few_are_named():
    needed = needed_to_settle(0.747, 0.7, Scored(95, 25, 95, 25))
    text = settled_by(undecided(members=95), Scored(95, 25, 95, 25))
    assert numbers(text)[:3] == [95, needed.members, needed.heldout]


@pytest.mark.parametrize(
    ("judged", "scored"),
    [(undecided(), None), (undecided(name="canary/auroc"), Scored(25, 25, 3000, 3000)), (undecided(), Scored(0, 0))],
)
def test_without_counts_it_is_how_many_times_as_many(judged, scored):
    times = ((0.747 - judged.low) / (0.747 - 0.7)) ** 2
    assert f"{times:.2g} times" in settled_by(judged, scored)


def test_a_value_at_the_limit_is_not_settled_by_any_number():
    assert not numbers(settled_by(undecided(0.7), Scored(25, 25)).partition(";")[0])
    assert "too near" in settled_by(undecided(0.70001), Scored(25, 25))


@pytest.mark.parametrize(("sign", "above"), [(">", True), ("<", False)])
def test_before_training_the_value_is_named_at_which_a_threshold_acts(sign, above):
    text = planned_stop(Threshold.parse(f"mia/a_auroc {sign} 0.7"), Scored(25, 25))
    low, high = planned_interval(0.7, 25, 25)
    for number in (low, high, stops_at(0.7, 25, 25, above)):
        assert f"{number:.3f}" in text
    assert "never acts" in planned_stop(Threshold.parse("mia/a_auroc > 0.95"), Scored(5, 5))


def lines(caplog):
    return [record for record in caplog.records if record.name == "lit_mem.callbacks.last_line"]


@pytest.fixture
def listening(caplog):
    caplog.set_level(logging.INFO, "lit_mem")
    return caplog


def test_a_fit_ends_with_the_state_of_its_last_validation(module, data, trainer, listening):
    stop = MemorizationEarlyStopping(["mia/reference_auroc > 0.99", "val/perplexity > 1000"], lower_bound=True)
    membership = MembershipInference(figures=False)
    run = trainer([stop, Perplexity(), membership], max_epochs=1)
    run.fit(module(), data())
    (record,) = lines(listening)
    value, low = (membership.figures[f"mia/reference_auroc{end}"] for end in ("", "_low"))
    judged = judge(Threshold.parse("mia/reference_auroc > 0.99"), membership.figures)
    assert f"{value:.3f} [{low:.3f}, " in record.getMessage()
    assert " after epoch 1" in record.getMessage()
    assert record.levelno == (logging.INFO if judged.state == "within" else logging.WARNING)
    assert record is listening.records[-1]
    (planned,) = [r.getMessage() for r in listening.records if r.name == "lit_mem.callbacks.early_stopping"]
    assert planned == planned_stop(Threshold.parse("mia/reference_auroc > 0.99"), Scored(20, 20, 24, 20))


@pytest.mark.parametrize(
    ("limit", "head", "level"),
    [
        ("val/perplexity > 1000", "Within", logging.INFO),
        ("val/perplexity > 1", "Over", logging.WARNING),
        ("mia/loss_auroc > 0.45", "Undecided", logging.WARNING),
    ],
)
def test_each_state_has_its_line(module, data, trainer, listening, tmp_path, limit, head, level):
    keep = MemorizationCheckpoint([limit], dirpath=str(tmp_path))
    trainer([keep, Perplexity(), MembershipInference(figures=False)], max_epochs=1).fit(module(), data())
    (record,) = lines(listening)
    assert (record.getMessage().split()[0].strip(","), record.levelno) == (head, level)


def test_without_limits_there_is_no_line(module, data, trainer, listening, tmp_path):
    trainer([MemorizationCheckpoint(dirpath=str(tmp_path)), Perplexity()], max_epochs=1).fit(module(), data())
    assert not lines(listening)


def test_two_callbacks_with_limits_say_it_once(module, data, trainer, listening, tmp_path):
    keep = MemorizationCheckpoint(["val/perplexity > 1000"], dirpath=str(tmp_path))
    stops = [MemorizationEarlyStopping(["val/perplexity > 1000"]), MemorizationEarlyStopping(["val/loss > 99"])]
    trainer([*stops, keep, Perplexity()], max_epochs=1).fit(module(), data())
    (record,) = lines(listening)
    assert record.getMessage().count("val/perplexity is") == record.getMessage().count("val/loss is") == 1


def test_a_threshold_at_the_safe_end_judges_no_other_than_one_at_the_value(module, data, trainer, listening):
    texts = []
    for lower_bound in (False, True):
        listening.clear()
        stop = MemorizationEarlyStopping(["mia/loss_auroc > 0.999"], lower_bound=lower_bound)
        torch.manual_seed(0)
        trainer([stop, MembershipInference(figures=False)], max_epochs=1).fit(module(), data())
        texts.append(lines(listening)[0].getMessage())
    assert texts[0] == texts[1]
