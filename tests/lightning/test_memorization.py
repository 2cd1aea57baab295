"""One callback, or one section: the same metrics as measures listed one by one, and the same weights."""

from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lit_mem import callbacks as listed
from lit_mem.attacks import Loss, ReferenceRatio
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.measure import Measure, Result
from lit_mem.audit.measures import Extractability
from lit_mem.audit.suite import suite
from lit_mem.data.canaries import Secrets
from lit_mem.errors import ConfigError
from lit_mem.files.record import FILE, read
from lit_mem.lightning.auditing import latest_metrics, measures
from lit_mem.lightning.last_line import rules_in
from lit_mem.lightning.memorization import Memorization
from lit_mem.types import Needs


@pytest.fixture(scope="module")
def data(data):
    """As elsewhere, with fewer texts."""
    return lambda **options: data(**({"train_size": 12, "batch_size": 3, "heldout_size": 10} | options))


def logged(logger):
    lines, _ = read(Path(logger.log_dir) / FILE)
    return [
        {name: value for name, value in line.metrics.items() if not name.startswith("time/")} | {"step": line.step}
        for line in lines
    ]


@pytest.fixture(scope="module")
def runs(module, data, trainer, trained, tmp_path_factory):
    """A fit with the section's callback, with measures listed one by one, and with none: rows and trained weights."""
    options = {"n_members": 5, "n_heldout": 5}
    by_name = {
        "section": [Memorization(extraction=ExtractionOptions(**options))],
        "listed": [
            listed.Perplexity(), listed.MembershipInference(), listed.Extraction(**options), listed.Extractability(),
            listed.SpanExtraction(), listed.Correlation(), listed.Movers(),
            listed.Slices(
                attacks=["reference"], measures=["ngram_rate", "exact_rate", "exact_memorization", "span_rate"]
            ),
            listed.Baseline(),
        ],
        "none": [],
    }  # fmt: skip
    found = {}
    for name, callbacks in by_name.items():
        torch.manual_seed(3)
        logger = CSVLogger(str(tmp_path_factory.mktemp(name)))
        t = trainer(callbacks, logger=logger, max_epochs=1, num_sanity_val_steps=2 if name == "section" else -1)
        made = module()
        t.fit(made, data())
        found[name] = SimpleNamespace(rows=logged(logger), weights=trained(made), trainer=t)
    return found


@pytest.mark.slow
def test_it_logs_what_the_measures_log_that_are_listed(runs):
    assert len(runs["section"].rows) == 2  # before training, and after the epoch
    assert runs["section"].rows == runs["listed"].rows


def test_it_leaves_training_alone(runs):
    for name, weights in runs["none"].weights.items():
        assert torch.equal(weights, runs["section"].weights[name])


def test_before_training_the_model_is_its_reference(runs):
    start, *rest = runs["section"].rows
    assert (start["step"], start["mia/reference_auroc"]) == (0, 0.5)
    assert all(row["mia/reference_auroc"] > 0.5 for row in rest)


@pytest.mark.slow
def test_it_brings_what_is_not_there(module, data, trainer, tmp_path):
    own = listed.EpochTable(["val/loss"])
    t = trainer([own, Memorization("quick", stop=["val/loss > 99"])], max_epochs=1, default_root_dir=tmp_path)
    t.fit(module(), data())
    names = [type(callback).__name__ for callback in t.callbacks]
    assert names.count("EpochTable") == names.count("MemorizationEarlyStopping") == names.count("Stopwatch") == 1
    assert own in t.callbacks
    assert "MemorizationCheckpoint" not in names  # trainer.enable_checkpointing is false
    t.fit(module(), data())
    assert [type(callback).__name__ for callback in t.callbacks] == names


@pytest.mark.slow
def test_it_keeps_checkpoints_in_place_of_lightnings_own(module, data, trainer, tmp_path):
    t = trainer([Memorization("quick")], max_epochs=1, default_root_dir=tmp_path, enable_checkpointing=True)
    t.fit(module(), data())
    assert [type(keeper).__name__ for keeper in t.checkpoint_callbacks] == ["MemorizationCheckpoint"]
    own = ModelCheckpoint(str(tmp_path / "own"), filename="{epoch}")
    t = trainer([own, Memorization("quick")], max_epochs=1, default_root_dir=tmp_path)
    t.fit(module(), data())
    assert own in t.checkpoint_callbacks
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["epoch=0.ckpt"]


@pytest.mark.parametrize(
    ("stop", "epochs"),
    [(["mia/reference_auroc > 0.5"], 1), pytest.param(["mia/reference_auroc > 1"], 3, marks=pytest.mark.slow)],
)
def test_it_stops_the_run(stop, epochs, module, data, trainer):
    t = trainer([Memorization("quick", stop=stop)], max_epochs=3)
    t.fit(module(), data())
    assert t.current_epoch == epochs


def test_a_misspelt_threshold_is_rejected_before_training(module, data, trainer):
    t = trainer([Memorization("quick", stop=["mia/referense_auroc > 0.5"])])
    with pytest.raises(ConfigError, match="did you mean 'mia/reference_auroc'"):
        t.fit(module(), data())
    assert t.global_step == 0


@pytest.mark.slow
def test_messages_and_the_record_name_the_options_of_the_section(module, data, trainer):
    with pytest.raises(ConfigError, match=r"^memorization\.patience is 0; expected at least 1"):
        Memorization("quick", stop=["val/loss > 9"], patience=0)
    t = trainer([Memorization("quick", stop=["mia/reference_auroc > 0.99"])], max_epochs=1)
    t.fit(module(), data())
    assert [rule.set_by for rule in rules_in(t)] == ["memorization.stop"]
    misspelt = trainer([Memorization("quick", stop=["mia/referense_auroc > 0.7"])], max_epochs=1)
    with pytest.raises(ConfigError, match=r"^memorization\.stop: .*mia/referense_auroc"):
        misspelt.fit(module(), data())


@pytest.mark.slow
def test_canaries_are_measured_where_there_are_some(module, data, trainer):
    t = trainer([Memorization("quick")])
    t.validate(module(), data(canaries=Secrets(8, repetitions=[1])), verbose=False)
    assert {"canary/auroc", "audit/epsilon_lower_bound"} <= set(latest_metrics(t))
    assert len(measures(t)) == len(suite("quick")) + 3  # and the stopwatch


@pytest.mark.slow
def test_a_listed_measure_takes_the_place_of_the_suites(module, data, trainer):
    own = listed.MembershipInference({"loss": Loss()}, combined=False)
    t = trainer([own, Memorization("quick")])
    t.validate(module(), data(), verbose=False)
    areas = {name for name in latest_metrics(t) if name.startswith("mia/") and name.endswith("_auroc")}
    assert areas == {"mia/loss_auroc", "mia/strongest_auroc"}


class Longest(Measure):
    """Scored tokens of the longest text."""

    def names(self):
        return ["mine/longest"]

    def begin(self, subject):
        self.found = 0

    def observe(self, scores, batch):
        self.found = max(self.found, int(scores.n_tokens.max()))

    def compute(self, run):
        return Result({"mine/longest": float(self.found)})


def test_a_measure_of_the_users_own_is_logged_and_can_stop_the_run(module, data, trainer):
    t = trainer([Memorization("none", measures=[Longest()], stop=["mine/longest > 1"])], max_epochs=2)
    corpus = data()
    t.fit(module(), corpus)
    longest = max(int(example.scored.sum()) for example in [*corpus.members, *corpus.heldout])
    assert latest_metrics(t)["mine/longest"] == longest
    assert t.current_epoch == 1


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_resumed_run_generates_in_the_same_validations(module, data, trainer, tmp_path):
    def callback():
        options = ExtractionOptions(n_members=3, n_heldout=0, base=False, every_n_validations=2)
        return Memorization(extraction=options)

    whole, rest = CSVLogger(str(tmp_path), "whole"), CSVLogger(str(tmp_path), "rest")
    torch.manual_seed(3)
    trainer([callback()], logger=whole, max_epochs=4).fit(module(lr_schedule="constant"), data())
    torch.manual_seed(3)
    first = trainer([callback()], max_epochs=1, default_root_dir=tmp_path, enable_checkpointing=True)
    first.fit(module(lr_schedule="constant"), data())
    last = first.checkpoint_callbacks[0].last_model_path
    trainer([callback()], logger=rest, max_epochs=4, enable_checkpointing=True).fit(
        module(lr_schedule="constant"), data(), ckpt_path=last, weights_only=True
    )
    assert logged(rest)[-3:] == logged(whole)[-3:]
    assert ["extraction/ngram_rate" in row for row in logged(whole)] == [True, False, True, False, True]


def test_suites_hold_what_they_say():
    def names(made):
        return [type(one).__name__ for one in made]

    assert "Extraction" not in names(suite("quick", extraction=ExtractionOptions()))
    assert "Extraction" not in names(suite("standard", extraction=None))
    (sliced,) = [one for one in suite("standard", {"r": ReferenceRatio()}, None) if type(one).__name__ == "Slices"]
    assert (sliced.attacks, sliced.measures) == (["r"], ["exact_memorization", "span_rate"])
    assert suite("none") == []


class Own(pl.LightningModule):
    """A custom module, which builds its model and tokenizer in `__init__`, as is common."""

    def __init__(self, made):
        super().__init__()
        self.tokenizer, self.language_model = made.tokenizer, made.language_model
        self._made = [made]  # not a submodule

    def reference_context(self):
        return self._made[0].reference_context()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        return self._made[0].score(batch, Needs(reference=True, moments=True, sampling=SAMPLING))


SAMPLING = frozenset(Extractability().needs.sampling)


@pytest.mark.slow
def test_a_module_that_sets_its_model_up_in_init_is_measured(module, data, trainer):
    made = module()
    made.configure_model()
    options = ExtractionOptions(n_members=4, n_heldout=4)
    found = []
    for each in (made, Own(made)):
        t = trainer([Memorization(extraction=options)])
        t.validate(each, data(), verbose=False)
        found.append({k: v for k, v in latest_metrics(t).items() if k.startswith(("mia/", "extraction/"))})
    assert "extraction/exact_rate_base" in found[0]
    assert found[1] == found[0]
