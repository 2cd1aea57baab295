"""Subgroups: metrics compared with plain loops over each, the most exposed one reported, skipped ones logged."""

import logging
import math

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from lit_mem.attacks.loss import Loss
from lit_mem.attacks.reference import ReferenceRatio
from lit_mem.audit.loop import Audit
from lit_mem.audit.measure import Result
from lit_mem.audit.subgroup import Slice, TooSmall, verdict
from lit_mem.audit.table import ExampleTable
from lit_mem.callbacks import Extractability, MembershipInference, Perplexity, Slices
from lit_mem.errors import ConfigError
from lit_mem.functional.auroc import auroc
from lit_mem.lightning.auditing import latest_metrics
from lit_mem.lightning.measure_callback import Measure
from lit_mem.lightning.rules import Limits, check_limits, passed
from lit_mem.plots.subgroups import subgroups_plot
from lit_mem.types import Record, TokenScores


@pytest.fixture(autouse=True)
def _heard(caplog):
    logger = logging.getLogger("lit_mem")
    logger.propagate = True
    caplog.set_level(logging.INFO, logger="lit_mem")


# -- the bundled corpus, through a fit -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(module, data, trainer):
    """A module that has memorized a little, its data, the logged metrics, and the log's lines."""
    torch.manual_seed(1)
    model, corpus = module(dropout=0.0, targets=["all-linear"]), data(train_size=40, heldout_size=40)
    attacks = {"loss": Loss(), "reference": ReferenceRatio()}
    callbacks = [Slices(min_size=3), Perplexity(), MembershipInference(attacks), Extractability()]
    lines = []
    handler = logging.Handler(logging.INFO)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("lit_mem")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    t = trainer(callbacks, max_epochs=1)
    t.fit(model, corpus)
    logger.removeHandler(handler)
    logger.setLevel(level)
    return model.eval(), corpus, {k: float(v) for k, v in t.callback_metrics.items()}, lines


def groups_by_hand(examples):
    """Name -> ids, for sex, age, and length, cut by NumPy."""
    groups = {}
    for name, of in (("age", lambda e: e.record.attributes["age"]), ("length", lambda e: int(e.scored.sum()))):
        values = np.array([of(e) for e in examples])
        edges = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
        bins = np.searchsorted(edges, values, side="left")
        for each in set(bins.tolist()):
            inside = values[bins == each]
            low, high = int(inside.min()), int(inside.max())
            label = f"{low}-{high}" if low < high else f"{low}"
            groups[f"{name}/{label}"] = [e for e, b in zip(examples, bins, strict=True) if b == each]
    for sex in "FM":
        groups[f"sex/{sex}"] = [e for e in examples if e.record.attributes["sex"] == sex]
    return groups


def test_metrics_are_those_of_a_plain_loop_over_each_subgroup(fitted, base):
    model, corpus, logged, _ = fitted
    examples = [*corpus.members, *corpus.heldout]
    loss, of_base, hits, n_tokens = {}, {}, {}, {}
    for e in examples:
        keep = e.scored[1:]
        with torch.no_grad():
            logits, base_logits = (m(input_ids=e.input_ids[None]).logits[0, :-1] for m in (model.language_model, base))
        losses = [
            torch.nn.functional.cross_entropy(x[keep], e.input_ids[1:][keep]).item() for x in (logits, base_logits)
        ]
        (loss[e.example_id], of_base[e.example_id]), n_tokens[e.example_id] = losses, int(keep.sum())
        hits[e.example_id] = (logits.argmax(-1) == e.input_ids[1:])[keep].double().mean().item()
    groups = groups_by_hand(examples)
    assert len(groups) == 10
    for name, group in groups.items():
        members = [e.example_id for e in group if e.member]
        assert min(len(members), len(group) - len(members)) >= 3, name
        labels = [e.member for e in group]
        scores = {
            "loss": [-loss[e.example_id] for e in group],
            "reference": [of_base[e.example_id] - loss[e.example_id] for e in group],
        }
        for attack, score in scores.items():
            metrics = [logged[f"slice/{name}/{attack}_auroc{end}"] for end in ("", "_low", "_high")]
            assert metrics[0] == pytest.approx(roc_auc_score(labels, score), abs=1e-4)
            assert metrics == pytest.approx(auroc(torch.tensor(score), torch.tensor(labels)), abs=1e-4)
        share = sum(hits[i] for i in members) / len(members)
        assert logged[f"slice/{name}/exact_memorization"] == pytest.approx(share, abs=1e-5)
        total = sum(loss[i] * n_tokens[i] for i in members) / sum(n_tokens[i] for i in members)
        assert logged[f"slice/{name}/perplexity_members"] == pytest.approx(math.exp(total), rel=1e-4)
    sliced = {tuple(key.split("/")[1:3]) for key in logged if key.startswith("slice/")}
    assert sliced == {tuple(name.split("/")) for name in groups}  # `id` gives none, nor does `duplicates`: all are 0


def test_the_fit_says_what_is_left_out_and_at_its_end_who_is_exposed(fitted):
    lines = fitted[3]
    assert not any("No slices by" in line for line in lines)  # `id` is unique by example, which is not worth a message
    verdicts = [line for line in lines if line.startswith(("Most exposed", "No slice stands out"))]
    assert len(verdicts) == 1
    assert "10 slices were compared" in verdicts[0]


# -- made-up scores, through Lightning's validation --------------------------------------------------------------


class Given(Measure):
    """Returns the given per-example columns, like attacks and extraction measures."""

    def __init__(self, columns):
        self.columns = columns
        self._table = ExampleTable(list(columns))

    def names(self):
        return [f"{name}_auroc" if name.startswith("mia/") else name for name in self.columns]

    def begin(self, subject):
        self._table.reset()

    def observe(self, scores, batch):
        rows = scores.example_id
        self._table.update(rows, scores.member, {name: values[rows] for name, values in self.columns.items()})

    def compute(self, run):
        return Result(rows=self._table.compute())


class Scorer(pl.LightningModule):
    """Scores without a model: only ids, members and records matter here."""

    def validation_step(self, batch, batch_idx):
        ones = torch.ones(batch["input_ids"].shape)
        return TokenScores(-ones, ones.bool(), ones.bool(), batch["example_id"], batch["member"], batch=batch)

    test_step = validation_step


def batches(member, records=None, n_tokens=None):
    """One loader whose batches have examples 0, 1, ... in threes."""
    made = []
    for i in range(len(member)):
        width = 4 if n_tokens is None else n_tokens[i]
        batch = {
            "input_ids": torch.zeros(1, width, dtype=torch.long),
            "example_id": torch.tensor([i]),
            "member": member[i : i + 1],
        }
        made.append(batch if records is None else batch | {"records": [records[i]]})
    return DataLoader(made, batch_size=None)


def attribute_records(**columns):
    n = len(next(iter(columns.values())))
    said = [{name: values[i] for name, values in columns.items() if values[i] is not None} for i in range(n)]
    return [Record("a secret text", attributes=each) for each in said]


@pytest.fixture
def validated(trainer):
    """Runs one validation over synthetic scores; returns the metrics of the slices."""

    def run(slices, columns, member, records=None, n_tokens=None, stage="validate", **kwargs):
        t = trainer([slices, Given(columns)], **kwargs)
        getattr(t, stage)(Scorer(), batches(member, records, n_tokens), verbose=False)
        assert {k for k in latest_metrics(t) if k.startswith("slice/")} == set(slices.metrics)
        return dict(slices.metrics)

    return run


N = 120
MEMBER = torch.arange(N) % 2 == 0
SEX = ["F" if i % 3 == 0 else "M" for i in range(N)]
SCORE = torch.linspace(0, 1, N).double()[torch.randperm(N, generator=torch.Generator().manual_seed(3))]


def test_an_example_with_several_values_is_in_several_slices(validated):
    kinds = [("adverse", "potential"), ("adverse",), ("adverse",), ("potential", "potential")]
    events = [kinds[i % 7 % 4] for i in range(N)]
    records = attribute_records(event_types=events)
    metrics = validated(Slices(min_size=5), {"mia/loss": SCORE, "extraction/rate": SCORE}, MEMBER, records)
    for event in ("adverse", "potential"):
        keep = torch.tensor([event in each for each in events])
        area = roc_auc_score(MEMBER[keep], SCORE[keep])
        assert metrics[f"slice/event_types/{event}/loss_auroc"] == pytest.approx(area)
        rate = SCORE[keep & MEMBER].mean().item()
        assert metrics[f"slice/event_types/{event}/rate"] == pytest.approx(rate)


def test_only_those_measured_count_and_the_interval_is_scipys_for_zeros_and_ones(validated):
    hit = (SCORE > 0.7).double()
    prompted = torch.arange(N) < 90
    score = SCORE.clone()
    score[5:25] = torch.nan
    columns = {"mia/probe": score, "extraction/exact": hit.where(prompted, torch.nan), "extraction/exact_base": hit}
    metrics = validated(Slices(min_size=10), columns, MEMBER, attribute_records(sex=SEX))
    for sex in "FM":
        mine = torch.tensor([s == sex for s in SEX])
        judged = mine & ~score.isnan()
        assert metrics[f"slice/sex/{sex}/probe_auroc"] == pytest.approx(roc_auc_score(MEMBER[judged], score[judged]))
        hits = hit[mine & prompted & MEMBER]
        expected = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="exact")
        assert metrics[f"slice/sex/{sex}/exact"] == pytest.approx(hits.mean().item())
        assert metrics[f"slice/sex/{sex}/exact_low"] == pytest.approx(expected.low)
        assert metrics[f"slice/sex/{sex}/exact_high"] == pytest.approx(expected.high)
        assert metrics[f"slice/sex/{sex}/exact_base"] == pytest.approx(hit[mine & MEMBER].mean().item())
        assert f"slice/sex/{sex}/exact_base_low" not in metrics


def test_slices_too_small_are_named_once_with_their_counts_and_not_logged(validated, caplog):
    sex = ["X" if i in (0, 2, 5) else SEX[i] for i in range(N)]
    prompted = torch.arange(N) < 60
    columns = {"mia/loss": SCORE, "mia/zlib": SCORE, "extraction/rate": SCORE.where(prompted, torch.nan)}
    slices = Slices(min_size=18, length=False)
    metrics = validated(slices, columns, MEMBER, attribute_records(sex=sex))
    assert not any(name.startswith("slice/sex/X") for name in metrics)
    assert "slice/sex/F/loss_auroc" in metrics
    assert "slice/sex/F/rate" not in metrics
    said = [r.getMessage() for r in caplog.records if "too small" in r.getMessage()]
    prompted_f = sum(s == "F" for i, s in enumerate(sex) if i < 60 and i % 2 == 0)
    assert said == [
        "Slices too small, with fewer than 18 members or (second number) non-members, for loss, zlib: sex=(value 3) "
        f"(2 / 1); for rate: sex=F ({prompted_f}), sex=(value 3) (2)."
    ]
    validated(slices, columns, MEMBER, attribute_records(sex=sex))
    assert sum("too small" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.parametrize("records", [True, False])
def test_an_unknown_column_is_rejected_and_the_known_ones_are_named(validated, records):
    given = attribute_records(sex=SEX, age=[float(i) for i in range(N)]) if records else None
    message = r"names 'sexx', which no validated text has; " + (
        "expected one of age, sex" if records else "the data has no columns"
    )
    with pytest.raises(ConfigError, match=message):
        validated(Slices(["sexx", "sex"]), {"mia/loss": SCORE}, MEMBER, given)


def test_a_named_column_is_sliced_whatever_it_holds_and_others_are_not(validated, caplog):
    records = attribute_records(sex=SEX, city=[f"city {i // 2 % 20}" for i in range(N)])
    options = {"length": False, "duplicates": False, "min_size": 2}
    metrics = validated(Slices(["city"], **options), {"mia/loss": SCORE}, MEMBER, records)
    assert {name.split("/")[1] for name in metrics} == {"city"}
    assert "No slices by" not in caplog.text
    metrics = validated(Slices(**options), {"mia/loss": SCORE}, MEMBER, records)
    assert {name.split("/")[1] for name in metrics} == {"sex"}
    assert sum("No slices by city: a single value, or too many" in r.getMessage() for r in caplog.records) == 1


def test_without_records_there_are_slices_by_length_and_a_line(validated, caplog):
    n_tokens = [3 + i % 8 for i in range(N)]
    metrics = validated(Slices(min_size=2), {"mia/loss": SCORE}, MEMBER, None, n_tokens)
    keep = torch.tensor([n in (3, 4) for n in n_tokens])
    assert metrics["slice/length/3-4/loss_auroc"] == pytest.approx(roc_auc_score(MEMBER[keep], SCORE[keep]))
    assert {name.split("/")[2] for name in metrics} == {"3-4", "5-6", "7-8", "9-10"}
    assert sum("No slices by attribute" in r.getMessage() for r in caplog.records) == 1


def test_duplicates_are_none_one_or_more_and_give_way_to_a_column_of_that_name(validated):
    records = [
        Record("t", attributes={"duplicates": "yes" if i % 2 else "no"}, duplicates=i // 2 % 4) for i in range(N)
    ]
    options = {"length": False, "min_size": 2}
    columns = {"extraction/rate": SCORE}
    metrics = validated(Slices([], **options), columns, MEMBER, records)
    assert {name.split("/")[2] for name in metrics} == {"0", "1", "2_or_more"}
    many = torch.tensor([r.duplicates > 1 for r in records])
    assert metrics["slice/duplicates/2_or_more/rate"] == pytest.approx(SCORE[many & MEMBER].mean().item())
    metrics = validated(Slices(**options), columns, MEMBER, records)
    assert {tuple(name.split("/")[1:3]) for name in metrics} == {
        ("duplicates", "no"), ("duplicates_2", "0"), ("duplicates_2", "1"), ("duplicates_2", "2_or_more"),
    }  # fmt: skip


def test_members_with_so_many_copies_are_judged_against_all_non_members(validated):
    records = [Record("t", duplicates=i // 2 % 4 if i % 2 == 0 else 0) for i in range(N)]
    metrics = validated(Slices([], length=False, min_size=2), {"mia/loss": SCORE}, MEMBER, records)
    for value, wanted in (("0", [0]), ("1", [1]), ("2_or_more", [2, 3])):
        keep = torch.tensor([r.duplicates in wanted for r in records]) | ~MEMBER
        expected = roc_auc_score(MEMBER[keep], SCORE[keep])
        assert metrics[f"slice/duplicates/{value}/loss_auroc"] == pytest.approx(expected)


def test_attacks_and_measures_can_be_chosen_and_must_exist(validated):
    columns = {"mia/loss": SCORE, "mia/zlib": SCORE, "extraction/a": SCORE, "extraction/a_base": SCORE,
               "extraction/b": SCORE, "verbatim/a": SCORE}  # fmt: skip
    records = attribute_records(sex=SEX)
    options = {"length": False, "duplicates": False, "min_size": 2}
    metrics = validated(Slices(attacks=["zlib"], measures=["a"], **options), columns, MEMBER, records)
    kinds = {name.split("/", 3)[3] for name in metrics}
    assert kinds == {"zlib_auroc", "zlib_auroc_low", "zlib_auroc_high", "a", "a_low", "a_high", "a_base"}
    metrics = validated(Slices(attacks=[], measures=["verbatim/a"], **options), columns, MEMBER, records)
    assert {name.split("/", 3)[3] for name in metrics} == {"verbatim/a", "verbatim/a_low", "verbatim/a_high"}
    for wrong, name in (({"attacks": ["los"]}, "mia/los_auroc"), ({"measures": ["c"]}, "extraction/c")):
        slices = Slices(**wrong)
        with pytest.raises(ConfigError, match=f"Slices.{next(iter(wrong))}: nothing logs '{name}'"):
            Audit([slices, MembershipInference(), Extractability()]).open(None, fresh=True)


def test_there_is_one_such_callback_to_a_run():
    slices = Slices()
    with pytest.raises(ConfigError, match="Slices and Slices both log 'slice/"):
        Audit([slices, Slices(["sex"])])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_size": 1}, "min_size is 1; expected at least 2"),
        ({"bins": 1}, "bins is 1"),
        ({"max_groups": 0}, "max_groups is 0"),
        ({"columns": [], "length": False, "duplicates": False}, "columns is empty"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        Slices(**options)


def test_a_threshold_on_a_slice_is_taken(trainer):
    slices = Slices(min_size=2)
    t = trainer([slices, Given({"mia/loss": SCORE})])
    limits = Limits(["slice/sex/F/loss_auroc > 0.1"])
    check_limits(limits, t, "Stop")
    t.validate(Scorer(), batches(MEMBER, attribute_records(sex=SEX)), verbose=False)
    assert passed(limits, t, "Stop")


def test_measures_beyond_0_and_1_are_left_out_with_a_line(validated, caplog):
    columns = {"extraction/rate": SCORE, "extraction/bits": SCORE * 9}
    metrics = validated(Slices(min_size=2), columns, MEMBER, attribute_records(sex=SEX))
    assert "slice/sex/F/rate" in metrics
    assert not any("bits" in name for name in metrics)
    assert "No slices of extraction/bits" in caplog.text


def test_nothing_to_slice_is_logged(trainer, caplog):
    t = trainer([Slices()])
    t.validate(Scorer(), batches(MEMBER, attribute_records(sex=SEX)), verbose=False)
    assert "No slices: no other measure" in caplog.text


def test_texts_are_not_kept_and_long_values_are_cut(validated):
    slices = Slices(min_size=2)
    records = attribute_records(sex=SEX, story=["once upon a time " * 50 + str(i) for i in range(N)])
    validated(slices, {"mia/loss": SCORE}, MEMBER, records)
    kept = repr(slices._subgroups._known.compute())
    assert "secret" not in kept
    assert kept.count("once upon a time") < 6 * N


def test_other_data_with_the_same_ids_is_sorted_anew(validated):
    slices = Slices(min_size=2, length=False)
    validated(slices, {"mia/loss": SCORE}, MEMBER, attribute_records(sex=SEX))
    metrics = validated(slices, {"mia/loss": SCORE}, MEMBER, attribute_records(ward=SEX[::-1]), stage="test")
    keep = torch.tensor([s == "F" for s in SEX[::-1]])
    assert {name.split("/")[1] for name in metrics} == {"ward"}
    assert metrics["slice/ward/F/loss_auroc"] == pytest.approx(roc_auc_score(MEMBER[keep], SCORE[keep]))


def test_a_partial_check_before_training_makes_no_slices(trainer):
    slices = Slices(["rare"], min_size=2)

    class Fits(Scorer):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def training_step(self, batch, batch_idx):
            assert slices.metrics == {}  # and a column missing from these few examples is not an error yet
            return self.weight**2

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = batches(MEMBER, attribute_records(rare=[None, None, *SEX[2:]]))
    t = trainer([slices, Given({"mia/loss": SCORE})], max_epochs=1, num_sanity_val_steps=2)
    t.fit(Fits(), batches(MEMBER[:2]), loader)
    assert "slice/rare/F/loss_auroc" in slices.metrics


# -- who stands out ------------------------------------------------------------------------------------------------


def part(table, keep, value):
    return Slice("sex", value, f"slice/sex/{value}", table.where(keep))


def table_of(score, member):
    table = ExampleTable(["mia/loss"])
    table.update(torch.arange(len(score)), member, {"mia/loss": score})
    return table.compute()


def test_the_worst_subgroup_is_logged_with_the_number_compared(validated, caplog):
    # All female members score above all non-members; among males there is no difference.
    exposed = torch.tensor([s == "F" for s in SEX])
    score = torch.where(exposed & MEMBER, SCORE + 2, SCORE)
    validated(Slices(min_size=2, length=False), {"mia/loss": score}, MEMBER, attribute_records(sex=SEX), stage="test")
    overall = roc_auc_score(MEMBER, score)
    low = binomtest(20, 20).proportion_ci(0.975, method="wilson").low
    assert (
        f"Most exposed: sex=F, AUROC of loss 1.000 [{low:.3f}, 1.000] (20 members, 20 non-members) against "
        f"{overall:.3f} on all texts; 2 slices were compared" in caplog.text
    )


def test_the_worst_subgroup_by_extraction_is_logged_if_it_is_significant(validated, caplog):
    copied = torch.tensor([i % 4 == 0 for i in range(N)])
    hit = (copied & (torch.arange(N) % 8 == 0)).double()  # 15 of the 30 members with copies, and no others
    records = [Record("t", duplicates=3 * int(copied[i])) for i in range(N)]
    columns = {"mia/loss": SCORE, "extraction/exact_rate": hit}
    slices = Slices([], length=False, min_size=10)
    validated(slices, columns, MEMBER, records, stage="test")
    ends = binomtest(15, 30).proportion_ci(0.975, method="exact")
    assert (
        f"Most extracted: duplicates=2 or more, whole suffix of 50.0% [{ends.low:.1%}, {ends.high:.1%}] of 30 members "
        "against 25.0% of all; 2 slices were compared" in caplog.text
    )
    caplog.clear()
    columns["extraction/exact_rate"] = (torch.arange(N) % 8 < 4).double()  # half of either
    validated(slices, columns, MEMBER, records, stage="test")
    assert "Most extracted" not in caplog.text


def test_a_perfect_score_on_few_texts_does_not_stand_out_from_a_nearly_perfect_one():
    member = torch.arange(200) % 2 == 0
    score = member.double()
    score[100] = -1.0
    table = table_of(score, member)
    few = part(table, torch.arange(200) < 20, "F")
    overall = roc_auc_score(member, score)
    low = binomtest(10, 10).proportion_ci(0.95, method="wilson").low
    assert few.exposure("mia/loss").area == pytest.approx((1.0, low, 1.0))
    assert verdict([few], "loss", "mia/loss", overall).startswith("No slice stands out; the highest is sex=F")
    assert verdict([few], "loss", "mia/loss", 0.6).startswith("Most exposed: sex=F")


def false_alarms(n_slices, shift, trials, n=30):
    """How often one of several disjoint slices of one distribution, n members and n others each, is reported."""
    generator = torch.Generator().manual_seed(0)
    member = torch.arange(2 * n * n_slices) % 2 == 0
    alarms = 0
    for _ in range(trials):
        score = torch.randn(len(member), generator=generator, dtype=torch.float64) + shift * member
        table = table_of(score, member)
        parts = [part(table, torch.arange(len(member)) // (2 * n) == k, str(k)) for k in range(n_slices)]
        overall = auroc(score, member).value
        alarms += verdict(parts, "loss", "mia/loss", overall).startswith("Most")
    return alarms / trials


@pytest.mark.slow
def test_among_many_equal_slices_one_is_rarely_significant():
    """At an AUROC of 0.95, where symmetric intervals would report one in half of the cases."""
    assert false_alarms(10, 2**0.5 * 1.6449, 60) < 0.06


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("n_slices", [10, 20])
@pytest.mark.parametrize("quantile", [0.0, 0.8416, 1.2816, 1.6449])  # AUROC 0.5, 0.8, 0.9, 0.95
def test_among_many_equal_slices_one_is_significant_in_under_5_percent_of_cases(n_slices, quantile):
    assert false_alarms(n_slices, 2**0.5 * quantile, 300) < 0.04  # 0 to 2 % are expected


def test_long_lists_of_small_slices_are_cut_short():
    small = TooSmall(30)
    table = table_of(SCORE, MEMBER)
    for i in range(40):
        small.add("loss", part(table, MEMBER, str(i)), "1 / 2")
    assert small.line().endswith("sex=11 (1 / 2) and 28 more.")
    assert TooSmall(30).line() is None


# -- the plot ------------------------------------------------------------------------------------------------------


def test_the_plot_has_a_row_a_slice_the_most_exposed_on_top():
    table = table_of(SCORE, MEMBER)
    masks = {"$x^2": torch.arange(N) < 40, "a long value " * 5: torch.arange(N) >= 40, "M": torch.arange(N) % 3 > 0}
    rows = [part(table, keep, value).exposure("mia/loss") for value, keep in masks.items()]
    many = [rows[0]._replace(value=str(i), area=auroc(SCORE + i / 50 * MEMBER, MEMBER)) for i in range(20)]
    plot = subgroups_plot({"sex": rows, "none": [], "city": many}, 0.6, "loss")
    plot.draw_without_rendering()
    first, second = plot.axes
    labels = [tick.get_text() for tick in first.get_yticklabels()]
    expected = sorted(rows, key=lambda row: -row.area.value)
    assert [label.rsplit("(", 1)[1] for label in labels] == [f"{r.n_members} / {r.n_nonmembers})" for r in expected]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first row on top
    assert "$x^2  (20 / 20)" in labels
    assert max(map(len, labels)) < 45
    assert len(second.get_yticks()) == 15
    assert second.get_yticklabels()[0].get_text().startswith("19 ")
    assert "15 most exposed of 20" in second.get_title(loc="left")
    subgroups_plot({}, 0.6, "loss").draw_without_rendering()


def test_loggers_that_show_pictures_get_one(validated):
    pictures = []

    class Pictures(pl.loggers.logger.DummyLogger):
        def log_metrics(self, metrics, step=None):
            pass

        def log_image(self, key, images, step=None):
            pictures.append(key)

    records = attribute_records(sex=SEX)
    validated(Slices(min_size=2), {"mia/loss": SCORE}, MEMBER, records, logger=Pictures())
    validated(Slices(min_size=2, plots=False), {"mia/loss": SCORE}, MEMBER, records, logger=Pictures())
    assert pictures == ["slice/exposure"]
