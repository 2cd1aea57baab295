"""Changes since the last validation and exposed members, compared with plain loops over a real fit's scores."""

import logging
import re

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_mem.attacks.reference import ReferenceRatio
from lit_mem.audit.measure import Result
from lit_mem.audit.measures.movers import exposed
from lit_mem.audit.table import ScoreTable
from lit_mem.callbacks import MembershipInference, Movers
from lit_mem.errors import ConfigError
from lit_mem.functional.roc import tpr_at_fpr
from lit_mem.lightning.auditing import per_example
from lit_mem.lightning.measure_callback import Measure
from lit_mem.types import Record

LINE = re.compile(r"Moved most since the last validation \((?P<column>\S+)\): (?P<moves>.+)")


@pytest.fixture(autouse=True)
def heard(caplog):
    logging.getLogger("lit_mem").propagate = True
    caplog.set_level(logging.INFO, "lit_mem")
    return caplog


def lines(caplog):
    return [
        LINE.fullmatch(r.getMessage())["moves"] for r in caplog.records if r.name == "lit_mem.audit.measures.movers"
    ]


class Look(pl.Callback):
    """Keeps each validation's scores of members and its metrics."""

    def __init__(self, prefix="memorization/"):
        self.prefix = prefix
        self.scores, self.metrics = [], []

    def on_validation_end(self, trainer, pl_module):
        members = per_example(trainer, pl_module).members()
        self.scores.append(dict(zip(members.example_id.tolist(), members["mia/reference"].tolist(), strict=True)))
        self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith(self.prefix)})


def reference():
    return MembershipInference({"reference": ReferenceRatio()}, fprs=[0.1], plots=False)


@pytest.fixture
def fit(module, data, trainer):
    def run(callbacks, max_epochs=3, ckpt_path=None, scoring_tokens=2048, **kwargs):
        torch.manual_seed(1)
        corpus = data(members_size=24, batch_size=8, max_length=24, scoring_tokens=scoring_tokens)
        t = trainer([*callbacks, reference()], max_epochs=max_epochs, **kwargs)
        t.fit(module(targets=["all-linear"], lr_schedule="constant"), corpus, ckpt_path=ckpt_path)
        return t, corpus

    return run


def loud(*args, **kwargs):
    return Movers(*args, console=True, **kwargs)


def by_hand(before, now, origins, top):
    moves = sorted(((abs(now[i] - before[i]), -i) for i in now), reverse=True)
    return ", ".join(f"{origins[-i]} {now[-i] - before[-i]:+#.2g}" for _, i in moves[:top])


def test_lines_and_metrics_are_those_of_a_plain_loop(fit, caplog):
    look = Look("")
    _, corpus = fit([loud(top=4, fpr=0.1), look])
    origins = {e.example_id: e.record.origin for e in corpus.members}
    logged = lines(caplog)
    assert len(logged) == 3  # none at the start
    assert "memorization/largest_move" not in look.metrics[0]
    for k in (1, 2, 3):
        before, now = look.scores[k - 1], look.scores[k]
        assert logged[k - 1] == by_hand(before, now, origins, 4)
        assert re.fullmatch(r"(train\.jsonl:\d+ [+-][\d.e-]+(, |$)){4}", logged[k - 1])
        largest = max(abs(now[i] - before[i]) for i in now)
        assert look.metrics[k]["memorization/largest_move"] == pytest.approx(largest, rel=1e-6)
        share = look.metrics[k]["memorization/exposed_share"]
        assert share == look.metrics[k]["mia/reference_tpr_at_fpr_0.1"]
        assert look.metrics[k]["memorization/members_duplicates"] == 0


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_resumed_run_goes_on(fit, caplog, tmp_path):
    class Save(pl.callbacks.Checkpoint):
        def on_validation_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "validated.ckpt")

    whole = Look()
    fit([loud(), whole])
    logged = lines(caplog)
    half, _ = fit([loud(), Save()], max_epochs=2)
    half.save_checkpoint(tmp_path / "ended.ckpt")  # Lightning validates first when resuming from here
    for name in ("validated.ckpt", "ended.ckpt"):
        caplog.clear()
        rest = Look()
        fit([loud(), rest], ckpt_path=tmp_path / name)
        assert rest.metrics[-1] == whole.metrics[-1]
        assert ["memorization/largest_move" in check for check in rest.metrics[:-1]] == [False] * (name == "ended.ckpt")
        assert lines(caplog) == logged[-1:]


def test_scores_of_another_column_are_not_gone_on_from():
    assert Movers("mia/loss").state_key != Movers("mia/reference").state_key


@pytest.mark.slow
def test_a_partial_validation_before_training_is_no_start(fit, caplog):
    look = Look()
    fit([loud(), look], max_epochs=2, num_sanity_val_steps=1, scoring_tokens=100)
    assert ["memorization/largest_move" in metrics for metrics in look.metrics] == [False, False, True]
    assert len(lines(caplog)) == 1


@pytest.mark.slow
def test_nothing_moves_outside_a_fit(fit, trainer, caplog):
    movers = loud(fpr=0.1)
    t, corpus = fit([movers], max_epochs=1)
    kept, caplog.records[:] = movers.state_dict(), []
    t.validate(t.lightning_module, corpus, verbose=False)
    assert not lines(caplog)
    assert "memorization/exposed_share" in t.callback_metrics
    assert "memorization/largest_move" not in t.callback_metrics
    assert all(torch.equal(value, kept[name]) for name, value in movers.state_dict().items())


class Given(Measure):
    """Returns given scores by example id."""

    def __init__(self, column="mia/reference", names=()):
        self.column, self.known = column, list(names)

    def names(self):
        return self.known

    def compute(self, run):
        columns = {} if self.scores is None else {self.column: torch.tensor(self.scores, dtype=torch.float64)}
        return Result(rows=ScoreTable(torch.arange(len(self.member)), torch.tensor(self.member), columns))


@pytest.fixture
def validate(audited):
    """Runs a validation of a fit on given scores and records; returns the metrics by short name."""

    def run(movers, member, scores, records=None, names=()):
        measure = Given(names=names)
        measure.member, measure.scores = member, scores
        batch = {"example_id": torch.arange(len(member)), "member": torch.tensor(member)}
        batch |= {"records": records} if records is not None else {}
        result = audited([movers, measure], (None, batch), stage="fit").results[movers]
        ends = {name + end for name in result.intervals for end in ("_low", "_high")}
        return {name.removeprefix("memorization/"): v for name, v in result.metrics.items() if name not in ends}

    return run


MEMBER = [True] * 4 + [False] * 4
RECORDS = [Record("SECRET", f"a.jsonl:{i}", duplicates=copies) for i, copies in enumerate([2, 0, 0, 1, 5, 5, 5, 5])]


def test_duplicates_among_the_exposed_and_among_all(validate):
    # At one non-member in four the threshold is above 0.5: members 0 and 2 reach it, of which 0 is duplicated.
    metrics = validate(Movers(fpr=0.25), MEMBER, [0.8, 0.4, 0.7, 0.5, 0.9, 0.5, 0.1, 0.0], RECORDS)
    assert metrics == {"exposed_share": 0.5, "exposed_duplicates": 0.5, "members_duplicates": 0.5}
    nobody = validate(Movers(fpr=0.25), MEMBER, [0.0, 0.0, 0.0, 0.0, 0.9, 0.5, 0.1, 0.0], RECORDS)
    assert nobody == {"exposed_share": 0.0, "members_duplicates": 0.5}
    too_few = validate(Movers(fpr=0.2), MEMBER, [0.8, 0.4, 0.7, 0.5, 0.9, 0.5, 0.1, 0.0], RECORDS)
    assert too_few == {"members_duplicates": 0.5}
    without = validate(Movers(fpr=0.25), MEMBER, [0.8, 0.4, 0.7, 0.5, 0.9, 0.5, 0.1, 0.0])
    assert without == {"exposed_share": 0.5}


def test_what_fell_is_named_too_and_ties_by_id(validate, caplog):
    movers = loud(top=3)
    validate(movers, MEMBER, [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0], RECORDS)
    metrics = validate(movers, MEMBER, [1.5, -0.92, 0.5, 1.0, 9.0, 9.0, 9.0, 9.0], RECORDS)
    assert lines(caplog) == ["a.jsonl:1 -1.9, a.jsonl:0 +0.50, a.jsonl:2 -0.50"]
    assert metrics["largest_move"] == pytest.approx(1.92)
    assert "SECRET" not in caplog.text


def test_where_nothing_moved_nothing_is_named(validate, caplog):
    movers = loud()
    for _ in range(2):
        metrics = validate(movers, MEMBER, [1.0] * 8, RECORDS)
    assert metrics["largest_move"] == 0
    assert not lines(caplog)


def test_without_an_origin_the_example_id_is_named_on_one_line(validate, caplog):
    records = [Record("SECRET"), Record("SECRET", "a\nb"), *RECORDS[2:]]
    movers = loud()
    for scores in ([0.0] * 8, [2.0, 1.0] + [0.0] * 6):
        validate(movers, MEMBER, scores, records)
    assert lines(caplog) == ["example 0 +2.0, a b +1.0"]


def test_a_pass_that_did_not_measure_the_column_is_skipped(validate, caplog):
    movers = loud()
    names = ["mia/reference_auroc"]
    validate(movers, MEMBER, [0.0] * 8, RECORDS, names)
    assert validate(movers, MEMBER, None, RECORDS, names) == {}
    validate(movers, MEMBER, [3.0, float("nan")] + [0.0] * 6, RECORDS, names)
    assert lines(caplog) == ["a.jsonl:0 +3.0"]


def test_an_unknown_column_is_reported_with_the_known_ones(validate):
    with pytest.raises(ConfigError, match=r"Movers.column: .*'mia/los' is not a per-example column.*mia/reference"):
        validate(Movers("mia/los"), MEMBER, [0.0] * 8)


@pytest.mark.parametrize("options", [{"top": 0}, {"fpr": 0.0}, {"fpr": 1.0}])
def test_invalid_options_are_rejected(options):
    with pytest.raises(ConfigError, match=f"Movers.{next(iter(options))} is"):
        Movers(**options)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), max_size=40), st.integers(1, 12))
def test_the_exposed_are_those_that_the_tpr_counts(rows, one_in):
    score = torch.tensor([float(s) for s, _ in rows], dtype=torch.float64)
    member = torch.tensor([m for _, m in rows], dtype=torch.bool)
    fpr = 1 / (one_in + 1)
    named = exposed(score, member, fpr)
    others = [s for s, m in rows if not m]
    if not member.any() or len(others) < one_in + 1:
        assert named is None
        return
    loop = [m and sum(o >= s for o in others) <= len(others) * fpr + 1e-9 for s, m in rows]
    assert named.tolist() == loop
    assert (named.sum() / member.sum()).item() == pytest.approx(tpr_at_fpr(score, member, fpr))


@pytest.mark.slow
def test_the_console_is_quiet_and_tensorboard_has_the_table(fit, caplog, tmp_path):
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    look = Look("")
    _, corpus = fit([Movers(top=3), look], logger=TensorBoardLogger(tmp_path, name="", version=""))
    assert not lines(caplog)
    events = EventAccumulator(str(tmp_path), size_guidance={"tensors": 0})
    events.Reload()
    tables = [
        event.tensor_proto.string_val[0].decode() for event in events.Tensors("memorization/moved_most/text_summary")
    ]
    origins = {e.example_id: e.record.origin for e in corpus.members}
    first, last = look.scores[-2], look.scores[-1]
    rows = [row.split("|")[1:3] for row in tables[-1].splitlines()[2:]]
    assert ", ".join(f"{name.strip()} {move.strip()}" for name, move in rows) == by_hand(first, last, origins, 3)
    assert not any(e.record.text in table for table in tables for e in corpus.members)
