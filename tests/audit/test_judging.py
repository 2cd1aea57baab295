import logging
import math
import re

import pytest
import torch
from lightning.pytorch import LightningDataModule

from lit_mem.audit.judging import judge, judged_texts, settled_by, together
from lit_mem.audit.stopping import planned_stop
from lit_mem.audit.thresholds import Threshold
from lit_mem.callbacks import MembershipInference, MemorizationCheckpoint, MemorizationEarlyStopping, Perplexity
from lit_mem.functional.interval import clopper_pearson
from lit_mem.functional.planning import (
    Scored,
    needed_to_settle,
    planned_interval,
    stops_at,
    times_as_many_of_rate,
)
from lit_mem.lightning.planned_stop import scored_for

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


def test_where_the_number_of_members_is_not_known_none_is_claimed():
    needed = needed_to_settle(0.747, 0.7, Scored(25, 25))
    assert needed == needed_to_settle(0.747, 0.7, Scored(25, 25, 10**6, 10**6))
    text = settled_by(undecided(), Scored(25, 25))
    assert "members available" not in text
    assert numbers(text) == [needed.heldout, needed.members, 25, 25]


def test_the_combined_attack_is_judged_on_half_of_the_texts():
    name = "mia/combined_auroc"
    assert judged_texts("mia/a_auroc", Scored(25, 25, 90, 91)) == Scored(25, 25, 90, 91)
    assert judged_texts(name, Scored(25, 24, 91, None)) == Scored(13, 12, 46, None)
    half = needed_to_settle(0.747, 0.7, Scored(25, 25, 1500, 1500))
    text = settled_by(undecided(name=name), Scored(50, 50, 3000, 3000))
    assert numbers(text) == [2 * half.heldout, 2 * half.members, 50, 50]
    few = needed_to_settle(0.747, 0.7, Scored(25, 25, 25, 25))
    assert numbers(settled_by(undecided(name=name), Scored(50, 50, 50, 50)))[:3] == [
        50,
        2 * few.members,
        2 * few.heldout,
    ]
    text = planned_stop(Threshold.parse(f"{name} > 0.7"), Scored(51, 50))
    for number in (*planned_interval(0.7, 26, 25), stops_at(0.7, 26, 25)):
        assert f"{number:.3f}" in text


def rate(value, units, name="extraction/exact_rate", limit=0.01, above=True):
    low, high = clopper_pearson(value, units)
    return judge(Threshold(name, above, limit), metrics(value, low, high, name))


@pytest.mark.parametrize(
    ("value", "units", "limit", "state"),
    [
        (0.0, 100, 0.01, "undecided"),
        (0.0, 369, 0.01, "within"),
        (0.0, 367, 0.01, "undecided"),
        (0.1, 100, 0.01, "over"),
    ],
)
def test_a_rate_is_judged_by_its_interval_of_zero_too(value, units, limit, state):
    assert rate(value, units, limit=limit).state == state


@pytest.mark.parametrize(("value", "units", "limit"), [(0.0, 100, 0.01), (0.02, 100, 0.05), (0.3, 87.4, 0.25)])
def test_what_would_settle_a_rate_is_enough_units_and_no_more(value, units, limit):
    judged = rate(value, units, limit=limit)
    assert judged.state == "undecided"
    factor = times_as_many_of_rate(value, (judged.low, judged.high), limit)
    assert rate(value, factor * units * 1.001, limit=limit).state != "undecided"
    assert rate(value, factor * units * 0.999, limit=limit).state == "undecided"
    assert f"{factor:.2g} times as many texts" in settled_by(judged, None)


@pytest.mark.parametrize(
    ("name", "units"), [("user/extracted_share", "persons"), ("canary/extraction_rate", "canaries")]
)
def test_what_is_counted_is_named(name, units):
    assert f"times as many {units} " in settled_by(rate(0.0, 100, name), None)


@pytest.mark.parametrize(
    ("value", "seen", "limit"), [(0.75, (0.6, 0.9), 0.7), (3.0, (1.0, 5.0), 4.0), (0.2, (0, 1), 0)]
)
def test_an_interval_of_another_kind_is_none_of_a_rate(value, seen, limit):
    assert times_as_many_of_rate(value, seen, limit) is None


@pytest.mark.slow
def test_the_texts_behind_a_metric_are_counted_in_its_own_column(module, data, trainer):
    membership = MembershipInference(plots=False)
    texts = data(members_size=17, heldout_size=19)
    run = trainer([membership])
    run.validate(module(), texts, verbose=False)
    assert scored_for("mia/combined_auroc", run) == scored_for("mia/loss_auroc", run) == Scored(17, 19, 24, 600)
    rows = membership.examples
    judged = rows.member[~rows["mia/combined"].isnan()]
    used = judged_texts("mia/combined_auroc", Scored(17, 19))
    assert used[:2] == (int(judged.sum()), int((~judged).sum()))
    rows.columns["mia/loss"] = rows["mia/loss"].masked_fill(
        rows.member, math.nan
    )  # as for an attack that could not score them
    assert scored_for("mia/loss_auroc", run)[:2] == (0, 19)
    assert scored_for("canary/auroc", run) is None


class Own(LightningDataModule):
    """A custom data module with attributes of the same names."""

    def __init__(self, loaders):
        super().__init__()
        self.loaders, self.train, self.members, self.heldout = loaders, ["a text"], ["a text"], ["another"]
        self.scored_texts = ["a text"]

    def val_dataloader(self):
        return self.loaders


@pytest.mark.slow
def test_a_data_module_of_the_users_own_says_nothing_of_its_texts(module, data, trainer):
    texts, model = data(tokenizer="asset:tiny_llama"), module()
    texts.setup("validate")
    run = trainer([MembershipInference(plots=False)])
    run.validate(model, Own(texts.val_dataloader()), verbose=False)
    assert scored_for("mia/loss_auroc", run) == Scored(20, 20)


@pytest.mark.slow
def test_texts_are_counted_for_undecided_judgements_only(monkeypatch, module, data, trainer, listening):
    names = []
    monkeypatch.setattr("lit_mem.lightning.last_line.scored_for", lambda name, trainer: names.append(name))
    stop = MemorizationEarlyStopping(["mia/loss_auroc > 0.45", "val/perplexity > 1000", "val/loss > 99"], "all")
    trainer([stop, Perplexity(), MembershipInference(plots=False)], max_epochs=1, num_sanity_val_steps=0).fit(
        module(), data()
    )
    assert set(names) <= {"mia/loss_auroc"}


@pytest.mark.parametrize(
    ("judged", "scored"),
    [(undecided(), None), (undecided(name="canary/auroc"), Scored(25, 25, 3000, 3000)), (undecided(), Scored(0, 0))],
)
def test_without_counts_it_is_how_many_times_as_many(judged, scored):
    times = ((0.747 - judged.low) / (0.747 - 0.7)) ** 2
    assert f"{times:.2g} times" in settled_by(judged, scored)


def test_a_value_at_the_limit_is_not_settled_by_any_number():
    assert not numbers(settled_by(undecided(0.7), Scored(25, 25)).partition(";")[0])
    assert "too close" in settled_by(undecided(0.70001), Scored(25, 25))


@pytest.mark.slow
@pytest.mark.parametrize(("sign", "above"), [(">", True), ("<", False)])
def test_before_training_the_value_is_named_at_which_a_threshold_acts(sign, above):
    text = planned_stop(Threshold.parse(f"mia/a_auroc {sign} 0.7"), Scored(25, 25))
    low, high = planned_interval(0.7, 25, 25)
    for number in (low, high, stops_at(0.7, 25, 25, above)):
        assert f"{number:.3f}" in text
    assert "never acts" in planned_stop(Threshold.parse("mia/a_auroc > 0.95"), Scored(5, 5))


def lines(caplog):
    return [record for record in caplog.records if record.name == "lit_mem.lightning.last_line"]


@pytest.fixture
def listening(caplog):
    caplog.set_level(logging.INFO, "lit_mem")
    return caplog


def test_a_fit_ends_with_the_state_of_its_last_validation(module, data, trainer, listening):
    stop = MemorizationEarlyStopping(["mia/reference_auroc > 0.99", "val/perplexity > 1000"], lower_bound=True)
    membership = MembershipInference(plots=False)
    run = trainer([stop, Perplexity(), membership], max_epochs=1)
    run.fit(module(), data())
    (record,) = lines(listening)
    value, low = (membership.metrics[f"mia/reference_auroc{end}"] for end in ("", "_low"))
    judged = judge(Threshold.parse("mia/reference_auroc > 0.99"), membership.metrics)
    assert f"{value:.3f} [{low:.3f}, " in record.getMessage()
    assert " after epoch 1" in record.getMessage()
    assert record.levelno == (logging.INFO if judged.state == "within" else logging.WARNING)
    assert record is listening.records[-1]
    (planned,) = [r.getMessage() for r in listening.records if r.name == "lit_mem.lightning.early_stopping"]
    assert planned == planned_stop(Threshold.parse("mia/reference_auroc > 0.99"), Scored(20, 20, 24, 20))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "head", "level"),
    [
        ("val/perplexity > 1000", "Within", logging.INFO),
        pytest.param("val/perplexity > 1", "Over", logging.WARNING, marks=pytest.mark.slow),
        pytest.param("mia/loss_auroc > 0.45", "Undecided", logging.WARNING, marks=pytest.mark.slow),
    ],
)
def test_each_state_has_its_line(module, data, trainer, listening, tmp_path, limit, head, level):
    keep = MemorizationCheckpoint([limit], dirpath=str(tmp_path))
    trainer([keep, Perplexity(), MembershipInference(plots=False)], max_epochs=1, num_sanity_val_steps=0).fit(
        module(), data()
    )
    (record,) = lines(listening)
    assert (record.getMessage().split()[0].strip(","), record.levelno) == (head, level)


@pytest.mark.slow
def test_without_limits_there_is_no_line(module, data, trainer, listening, tmp_path):
    trainer([MemorizationCheckpoint(dirpath=str(tmp_path)), Perplexity()], max_epochs=1, num_sanity_val_steps=0).fit(
        module(), data()
    )
    assert not lines(listening)


@pytest.mark.slow
def test_two_callbacks_with_limits_say_it_once(module, data, trainer, listening, tmp_path):
    keep = MemorizationCheckpoint(["val/perplexity > 1000"], dirpath=str(tmp_path))
    stops = [MemorizationEarlyStopping(["val/perplexity > 1000"]), MemorizationEarlyStopping(["val/loss > 99"])]
    trainer([*stops, keep, Perplexity()], max_epochs=1, num_sanity_val_steps=0).fit(module(), data())
    (record,) = lines(listening)
    assert record.getMessage().count("val/perplexity is") == record.getMessage().count("val/loss is") == 1


@pytest.mark.slow
def test_a_threshold_at_the_safe_end_judges_no_other_than_one_at_the_value(module, data, trainer, listening):
    texts = []
    for lower_bound in (False, True):
        listening.clear()
        stop = MemorizationEarlyStopping(["mia/loss_auroc > 0.999"], lower_bound=lower_bound)
        torch.manual_seed(0)
        trainer([stop, MembershipInference(plots=False)], max_epochs=1, num_sanity_val_steps=0).fit(module(), data())
        texts.append(lines(listening)[0].getMessage())
    assert texts[0] == texts[1]
