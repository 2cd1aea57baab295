"""`Memorization(members=…, heldout=…)` on a LightningModule and data loaders without any lit_mem code."""

import csv
import inspect
import json
import runpy
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import FSDPStrategy
from peft import LoraConfig, PeftModel, get_peft_model
from torch.utils.data import DataLoader

import lit_mem
from lit_mem import assets
from lit_mem import callbacks as listed
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.data.sources.given import TwoSets
from lit_mem.errors import ConfigError, MetricError
from lit_mem.files.record import FILE, read
from lit_mem.lightning.auditing import audit_of, latest_metrics, measures
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.found_model import model_in
from lit_mem.lightning.memorization import Memorization
from lit_mem.lightning.run_folder import known_folder
from lit_mem.lightning.section import OF_TEXTS
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer
from lit_mem.report.run_report import run_report

LENGTH = 48


def texts_of(split, n):
    lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines[:n]]


MEMBERS, HELDOUT = texts_of("train", 12), texts_of("heldout", 10)


class Plain(pl.LightningModule):
    """A typical module: a model, a tokenizer, a loss."""

    def __init__(self, tokenizer, full=False):
        super().__init__()
        self.tokenizer = tokenizer
        self.net = load_base("asset:tiny_llama").requires_grad_(True)
        if not full:
            self.net = get_peft_model(self.net, LoraConfig(r=4, lora_dropout=0.2, target_modules=["v_proj", "o_proj"]))

    def training_step(self, batch, batch_idx):
        loss = self.net(**batch).loss
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=5e-3)


class Validated(Plain):
    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.net(**batch).loss * 0 + 7)


class LogsLate(Plain):
    def validation_step(self, batch, batch_idx):
        return self.net(**batch).loss

    def on_validation_epoch_end(self):
        self.log("val/loss", 7.0, prog_bar=True)


class WithSteps(Plain):
    def validation_step(self, batch, batch_idx):
        return self.net(**batch).loss

    test_step = validation_step


class Configured(Plain):
    def __init__(self):
        super().__init__(load_tokenizer("asset:tiny_llama"))


class Manual(Plain):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.net(**batch).loss)
        optimizer.step()


@pytest.fixture(scope="module")
def loaders(tokenizer):
    """Loaders of a training set, shuffled, and of a validation set."""

    def collate(rows):
        ids = [torch.tensor(tokenizer(row)["input_ids"][:LENGTH]) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(ids, True, padding_value=-100)
        return {"input_ids": padded.clamp(min=0), "attention_mask": (padded >= 0).long(), "labels": padded}

    def of(module):
        train = DataLoader(MEMBERS, 4, shuffle=True, collate_fn=collate)
        validates = type(module).validation_step is not pl.LightningModule.validation_step
        return [train, DataLoader(HELDOUT, 5, collate_fn=collate)] if validates else [train]

    return of


def own(suite="quick", **options):
    return Memorization(suite, **({"members": MEMBERS, "heldout": HELDOUT, "max_length": LENGTH} | options))


@pytest.fixture
def fit(trainer, loaders, tokenizer, tmp_path):
    """Fits a module from one seed; returns the trainer and the module."""

    def run(kind=Plain, callbacks=(), logged=True, ckpt=None, full=False, **options):
        torch.manual_seed(3)
        made = kind(tokenizer, full)
        options = {"max_epochs": 2, "num_sanity_val_steps": 2} | options
        t = trainer(list(callbacks), logger=CSVLogger(str(tmp_path)) if logged else False, **options)
        t.fit(made, *loaders(made), ckpt_path=ckpt, weights_only=ckpt is not None)
        return t, made

    return run


def record_of(t):
    lines, _ = read(known_folder(t) / FILE)
    return lines


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", [Plain, pytest.param(Validated, marks=pytest.mark.slow)])
def test_it_measures_before_training_and_after_each_epoch(fit, kind):
    t, _ = fit(kind, [own()])
    lines = record_of(t)
    assert [(line.stage, line.epoch, line.step) for line in lines] == [("fit", 0, 0), ("fit", 1, 3), ("fit", 2, 6)]
    areas = [line.metrics["mia/reference_auroc"] for line in lines]
    assert areas[0] == 0.5
    assert areas[2] > 0.6
    assert float(t.callback_metrics["mia/reference_auroc"]) == pytest.approx(areas[2])
    assert lines[2].metrics["time/train"] > 0
    assert (lines[2].members, lines[2].heldout) == (12, 10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "steps"),
    [
        (Plain, {"max_steps": 4, "max_epochs": -1}, [0, 3, 4]),
        (Validated, {"max_epochs": 1, "val_check_interval": 1}, [0, 1, 2, 3]),
        (Validated, {"check_val_every_n_epoch": 2}, [0, 6]),
        (Validated, {"limit_val_batches": 0}, [0, 3, 6]),
    ],
)
def test_it_measures_where_the_trainer_validates(fit, kind, options, steps):
    t, _ = fit(kind, [own(log="all")], **options)
    lines = record_of(t)
    assert [line.step for line in lines] == steps
    with open(Path(t.logger.log_dir) / "metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["mia/min_k_auroc_low"]]
    assert [(int(row["step"]), float(row["val/perplexity"])) for row in rows] == [
        (line.logged_step, pytest.approx(line.metrics["val/perplexity"])) for line in lines
    ]


@pytest.mark.parametrize("options", [{"num_sanity_val_steps": 0}, {"num_sanity_val_steps": -1}])
@pytest.mark.slow
def test_the_check_before_training_changes_nothing_of_that(fit, options):
    t, _ = fit(Validated, [own()], **options)
    assert [line.step for line in record_of(t)] == [0, 3, 6]


@pytest.mark.parametrize(
    "kind", [Plain, pytest.param(Validated, marks=pytest.mark.slow), pytest.param(Manual, marks=pytest.mark.slow)]
)
def test_training_is_the_same_without_it(fit, trained, kind):
    _, plain = fit(kind, logged=False)
    after = torch.get_rng_state()
    extraction = ExtractionOptions(n_members=3, n_heldout=3)
    _, measured = fit(kind, [own("standard", extraction=extraction)])
    assert torch.equal(torch.get_rng_state(), after)
    assert same(trained(plain), trained(measured))


@pytest.mark.slow
def test_full_training_is_compared_with_a_copy_of_its_start(fit, trained):
    _, plain = fit(logged=False, full=True)
    t, measured = fit(callbacks=[own()], full=True)
    first, *_, last = (line.metrics["mia/reference_auroc"] for line in record_of(t))
    assert first == 0.5
    assert last > 0.5
    assert same(trained(plain), trained(measured))
    assert not [name for name, _ in measured.named_parameters() if "reference" in name]


@pytest.mark.slow
def test_numbers_are_those_of_causal_lm_and_of_an_audit(module, trainer, tokenizer, loaders):
    made = module(rank=4)
    made.configure_model()
    with torch.no_grad():
        for name, p in made.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3)
    options = ExtractionOptions(n_members=4, n_heldout=4)
    data = TextDataModule(TwoSets(MEMBERS, HELDOUT), max_length=LENGTH, add_eos=False, check=False)
    theirs = trainer([Memorization(extraction=options)])
    theirs.validate(made, data, verbose=False)
    foreign = Validated(tokenizer)
    foreign.net = made.language_model
    ours = trainer([own("standard", extraction=options)])
    ours.validate(foreign, loaders(foreign)[1], verbose=False)
    audited = lit_mem.audit(
        made.language_model, tokenizer, MEMBERS, HELDOUT, max_length=LENGTH, extraction=options, folder=None
    ).metrics
    found = [
        {name: value for name, value in metrics.items() if not name.startswith("time/")}
        for metrics in (latest_metrics(theirs), latest_metrics(ours), audited)
    ]
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert {"mia/combined_auroc", "extraction/exact_rate_base", "val/perplexity_base", "val/loss"} <= found[0].keys()
    assert found[1] == pytest.approx(found[0], rel=1e-6, nan_ok=True)
    assert found[1] == pytest.approx(found[2], rel=1e-6, nan_ok=True)


def test_limits_end_training_and_lightnings_own_callbacks_see_the_metrics(fit, tmp_path):
    best = ModelCheckpoint(tmp_path / "own", filename="{epoch}", monitor="mia/reference_auroc", mode="min")
    stop = EarlyStopping("val/perplexity", patience=9)
    t, _ = fit(callbacks=[stop, best, own(stop="mia/reference_auroc > 0.5")], max_epochs=4)
    assert t.current_epoch == 1
    assert stop.best_score == pytest.approx(record_of(t)[1].metrics["val/perplexity"])
    assert best.best_model_score == pytest.approx(record_of(t)[1].metrics["mia/reference_auroc"])
    assert [type(one) for one in t.checkpoint_callbacks] == [ModelCheckpoint]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Plain, Validated])
def test_checkpoints_hold_the_module_and_the_adapter_lies_beside_them(fit, kind, tokenizer):
    t, made = fit(kind, [own(stop="mia/reference_auroc > 0.999")], enable_checkpointing=True)
    folder = known_folder(t) / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{which}{form}" for which in ("best", "safe", "last") for form in (".ckpt", "-adapter")
    )
    saved = torch.load(folder / "last.ckpt", weights_only=True)
    assert same(saved["state_dict"], made.state_dict())
    loaded = PeftModel.from_pretrained(load_base("asset:tiny_llama"), folder / "last-adapter")
    ids = torch.tensor([tokenizer(MEMBERS[0])["input_ids"][:9]])
    made.eval()
    assert torch.equal(loaded.eval()(ids).logits, made.net(ids).logits)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", [Plain, Validated])
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_resumed_run_goes_on_with_and_without_it_alike(fit, trained, kind):
    def callback():
        return own(stop=["mia/reference_auroc > 0.5"], patience=3)

    half, _ = fit(kind, [callback()], max_epochs=1, enable_checkpointing=True)
    last = half.checkpoint_callbacks[0].last_model_path
    rest, resumed = fit(kind, [callback()], ckpt=last, max_epochs=4, enable_checkpointing=True)
    assert [line.step for line in record_of(half)] == [0, 3]
    assert [line.step for line in record_of(rest)] == [6, 9]  # the third in a row over the limit
    _, plain = fit(kind, ckpt=last, logged=False, max_epochs=3)
    assert same(trained(plain), trained(resumed))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Validated, LogsLate])
def test_a_loss_that_the_module_logs_stays_its_own(fit, kind):
    t, _ = fit(kind, [own()], max_epochs=1)
    assert float(t.callback_metrics["val/loss"]) == 7
    last = record_of(t)[-1].metrics
    assert last["val/loss"] == pytest.approx(torch.tensor(last["val/perplexity"]).log().item())


@pytest.mark.slow
def test_other_callbacks_of_this_package_work_in_any_order(fit):
    measure, table = listed.PerExampleTable(), listed.EpochTable()
    t, _ = fit(callbacks=[measure, listed.Baseline(), table, own()], max_epochs=1)
    names = sorted(path.name for path in (known_folder(t) / "examples").iterdir())
    assert names == ["epoch_0001_step_000003.parquet", "start.parquet"]
    assert len(measures(t)) == len({type(one) for one in measures(t)})
    assert t.callbacks.count(table) == 1


@pytest.mark.slow
def test_the_report_reads_the_run(fit):
    t, _ = fit(callbacks=[own(stop="mia/reference_auroc > 0.999")])
    assert [row["epoch"] for row in run_report(known_folder(t))["validations"]] == [0, 1, 2]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
def test_the_example_prints_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example = Path(lit_mem.__file__).parents[1] / "examples" / "own_lightning_module.py"
    assert len(example.read_text().splitlines()) < 40
    t = runpy.run_path(str(example))["trainer"]
    lines = record_of(t)
    assert lines[0].metrics["mia/reference_auroc"] == 0.5
    assert lines[-1].metrics["mia/reference_auroc"] > 0.7
    table = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "0.500 [" in line]
    assert table == ["start"]


@pytest.mark.slow
def test_bf16_is_that_of_the_trainer(module, trainer, tokenizer, loaders):
    made = module(rank=4)
    made.configure_model()
    data = TextDataModule(TwoSets(MEMBERS, HELDOUT), max_length=LENGTH, add_eos=False, check=False)
    foreign, found = Validated(tokenizer), []
    foreign.net = made.language_model
    for callback, each, rows in ((Memorization("quick"), made, data), (own(), foreign, loaders(foreign)[1])):
        t = trainer([callback], precision="bf16-mixed")
        t.validate(each, rows, verbose=False)
        found.append({k: v for k, v in latest_metrics(t).items() if not k.startswith("time/")})
    assert found[1] == pytest.approx(found[0], rel=1e-6, nan_ok=True)


class Two(Plain):
    def __init__(self, tokenizer, full=False):
        super().__init__(tokenizer, full)
        self.teacher = load_base("asset:tiny_llama")


class KeepsBase(Plain):
    def __init__(self, tokenizer, full=False):
        super().__init__(tokenizer, full)
        self.base = self.net.get_base_model()
        self.net = torch.compile(self.net)


class NoTokenizer(Plain):
    def __init__(self, tokenizer, full=False):
        super().__init__(tokenizer, full)
        del self.tokenizer


class Model(Plain):
    def __init__(self, tokenizer, full=False):
        super().__init__(tokenizer, full)
        self.net = torch.nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Two, {}, r"Memorization\.model is None, but Two has 2 causal language models \(net, teacher\)"),
        (Model, {}, r"Memorization\.model is None, but Model has no causal language model"),
        (Plain, {"model": "nett"}, r"Memorization\.model is 'nett', but Plain\.nett is missing"),
        (Plain, {"model": torch.nn.Linear(1, 1)}, r"model is a Linear that is not among the submodules of Plain"),
        (NoTokenizer, {}, r"Memorization\.tokenizer is None, and NoTokenizer has no attribute tokenizer"),
        (Plain, {"members": []}, "members is empty"),
    ],
)
def test_what_is_missing_is_one_line_before_training(fit, kind, options, message):
    with pytest.raises(ConfigError, match=message):
        fit(kind, [own(**options)], logged=False)


@pytest.mark.slow
def test_one_of_several_models_is_chosen_by_name(fit):
    t, _ = fit(Two, [own(model="net")], max_epochs=1)
    assert record_of(t)[-1].metrics["mia/reference_auroc"] > 0.5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_base_under_its_adapter_is_no_second_model_and_compiled_ones_are_unwrapped(tokenizer):
    module = KeepsBase(tokenizer)
    assert model_in(module, None) is module.net._orig_mod
    assert model_in(module, "net") is module.net._orig_mod
    assert model_in(module, "base") is model_in(module, module.base) is module.base


def test_a_misspelt_limit_is_rejected_before_training(fit):
    with pytest.raises(ConfigError, match="did you mean 'mia/reference_auroc'"):
        fit(callbacks=[own(stop="mia/referense_auroc > 0.5")], logged=False)


def test_sets_go_together():
    with pytest.raises(ConfigError, match=r"^Memorization\.heldout is None, but members is given"):
        Memorization(members=MEMBERS)
    with pytest.raises(ConfigError, match=r"^Memorization\.members is None, but heldout is given"):
        Memorization(heldout=MEMBERS)
    with pytest.raises(ConfigError, match=r"^Memorization\.members is None, but model or tokenizer"):
        Memorization(model="net")


@pytest.mark.parametrize("kind", [Plain, Validated])
def test_without_texts_one_line_names_what_to_give(fit, kind):
    with pytest.raises(
        ConfigError, match=r"validation_step.*; return such scores, or use Memorization\(members=..., held"
    ):
        fit(kind, [Memorization("quick")], logged=False)


def test_weights_in_parts_are_rejected(tokenizer):
    t = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    t.strategy.__class__ = type("FSDPStrategy", (FSDPStrategy,), {})
    with pytest.raises(ConfigError, match=r"^trainer\.strategy is FSDPStrategy.*expected ddp"):
        own().prepare(t)


@pytest.mark.slow
def test_a_text_without_a_finite_loss_ends_the_run(fit, tokenizer):
    class Broken(Plain):
        def on_train_batch_end(self, *args):
            with torch.no_grad():
                next(p for p in self.parameters() if p.requires_grad).fill_(torch.nan)

    with pytest.raises(MetricError, match=r"loss on .* is nan.*: lower the learning rate"):
        fit(Broken, [own()], logged=False, max_epochs=1)


@pytest.mark.slow
def test_without_a_reference_attacks_that_need_one_are_left_out(fit):
    t, _ = fit(callbacks=[own(reference=None)], max_epochs=1)
    assert "mia/loss_auroc" in record_of(t)[-1].metrics
    assert "mia/reference_auroc" not in record_of(t)[-1].metrics


def test_options_of_texts_are_not_in_the_section_of_a_configuration():
    options = inspect.signature(Memorization).parameters.values()
    assert set(OF_TEXTS) == {one.name for one in options if one.kind is one.KEYWORD_ONLY}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_users_own_command_line_takes_files_and_names_of_attributes(tmp_path, tokenizer):
    for name, rows in (("members", MEMBERS), ("heldout", HELDOUT)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    options = {name: str(tmp_path / f"{name}.jsonl") for name in ("members", "heldout")}
    options |= {"model": "net", "tokenizer": "tokenizer", "max_length": LENGTH, "suite": "quick", "reference": "auto"}
    entry = {"class_path": "lit_mem.Memorization", "init_args": options}
    cli = LightningCLI(Configured, run=False, args={"trainer": {"callbacks": [entry], "logger": False}})
    (callback,) = (one for one in cli.trainer.callbacks if isinstance(one, Memorization))
    module = Configured()
    callback.setup(cli.trainer, module, "validate")
    subject = audit_of(cli.trainer).own.start(cli.trainer, module, audit_of(cli.trainer).audit)
    assert subject.language_model is module.net
    assert audit_of(cli.trainer).own.scored[:2] == (12, 10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", ["validate", "test"])
def test_other_commands_measure_too(trainer, tokenizer, loaders, command, tmp_path):
    made = WithSteps(tokenizer)
    t = trainer([own()], logger=CSVLogger(str(tmp_path)))
    (found,) = getattr(t, command)(made, loaders(made)[1], verbose=False)
    stage = "val" if command == "validate" else "test"
    assert {f"{stage}/perplexity", f"{stage}/loss", f"{stage}/perplexity_base", "mia/loss_auroc_base"} <= found.keys()
    assert [(line.stage, line.step) for line in record_of(t)] == [(command, 0)]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", [Plain, Validated])
def test_a_dry_run_leaves_nothing(fit, kind, tmp_path):
    fit(kind, [own()], fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_no_text_is_written(fit):
    t, _ = fit(callbacks=[own()], max_epochs=1)
    for path in Path(known_folder(t)).rglob("*"):
        if path.is_file():
            found = path.read_bytes()
            assert not [text for text in [*MEMBERS, *HELDOUT] if text[:40].encode() in found]
