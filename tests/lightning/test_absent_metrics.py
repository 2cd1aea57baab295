"""A custom module whose scores lack the input of some metrics: one warning, and thresholds on them are rejected."""

import logging
import re
import warnings
from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lit_mem.audit.measure import with_ends
from lit_mem.callbacks import (
    Extractability,
    MembershipInference,
    MemorizationCheckpoint,
    MemorizationEarlyStopping,
    SpanExtraction,
)
from lit_mem.errors import ConfigError
from lit_mem.extraction import ExtractionStrength
from lit_mem.lightning.base_model import BaseModel
from lit_mem.types import Record, Span, TokenScores

LACKING = ("ez_mia", "min_k_plus_plus", "reference", "wbc", "zlib")


class Bare(pl.LightningModule):
    """Returns the minimum that `TokenScores` requires; with `whole` the reference and the moments too."""

    def __init__(self, whole=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.whole = whole

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        ids, mask = torch.arange(20), torch.ones(20, 3, dtype=torch.bool)
        logprob = -torch.rand(20, 3, generator=torch.Generator().manual_seed(1))
        more = {"mean": logprob, "std": -logprob, "reference": 2 * logprob, "reference_hit": mask}
        more = more | {"batch": batch} if self.whole else {}
        return TokenScores(logprob, mask, mask, ids, ids % 2 == 0, **more)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def ran(callbacks, folder, module=None, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*many workers|.*smaller than the logging interval|.*GPU available")
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, callbacks=callbacks, default_root_dir=folder, max_epochs=1,
            enable_progress_bar=False, enable_model_summary=False,
            enable_checkpointing=any(isinstance(c, MemorizationCheckpoint) for c in callbacks), **options,
        )  # fmt: skip
        record = Record("a b c", spans=[Span("name", 1, 3)])
        loader = DataLoader([{"records": [record] * 20}], batch_size=None)
        try:
            trainer.fit(module or Bare(), loader, loader)
        except ConfigError as error:
            return trainer, error
    return trainer, None


def test_one_warning_names_the_attacks_and_what_they_lack(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "lit_mem"):
        trainer, error = ran([MembershipInference()], tmp_path)
    assert error is None
    (line,) = [r for r in caplog.records if r.name.startswith("lit_mem") and r.levelno == logging.WARNING]
    for name in LACKING:
        assert f"{name} (" in line.getMessage()
    assert "`mean` and `std`" in line.getMessage()
    assert "validation_step" in line.getMessage()
    measured = {name for name in trainer.callback_metrics if name.endswith("_auroc")}
    assert measured == {"mia/loss_auroc", "mia/min_k_auroc", "mia/combined_auroc", "mia/strongest_auroc"}


@pytest.mark.parametrize("name", ["reference", "min_k_plus_plus", "ez_mia", "wbc"])
@pytest.mark.parametrize("lower_bound", [False, True])
@pytest.mark.parametrize("kind", [MemorizationEarlyStopping, MemorizationCheckpoint])
def test_a_threshold_on_what_cannot_be_measured_is_rejected_before_training(name, lower_bound, kind, tmp_path):
    stop = kind(thresholds=[f"mia/{name}_auroc > 0.7"], lower_bound=lower_bound)
    trainer, error = ran([stop, MembershipInference()], tmp_path)
    assert trainer.global_step == 0
    assert re.match(
        rf"{kind.__name__}(\.thresholds)?: 'mia/{name}_auroc{'_low' * lower_bound}' is not measured", str(error)
    )
    assert "mia/loss_auroc" in str(error)
    assert "\n" not in str(error)


def test_without_a_check_before_training_it_is_rejected_at_the_first_validation(tmp_path):
    stop = MemorizationEarlyStopping(["mia/wbc_auroc > 0.7"])
    trainer, error = ran([MembershipInference(), stop], tmp_path, num_sanity_val_steps=0)
    assert trainer.current_epoch == 0
    assert "'mia/wbc_auroc' is not measured" in str(error)


def test_the_monitor_of_the_best_checkpoint_is_checked_too(tmp_path):
    trainer, error = ran([MembershipInference(), MemorizationCheckpoint(monitor="mia/wbc_auroc")], tmp_path)
    assert trainer.global_step == 0
    assert str(error).startswith("MemorizationCheckpoint: 'mia/wbc_auroc' is not measured")


@pytest.mark.parametrize(
    ("callback", "name"),
    [(Extractability, "extraction/extraction_strength_base"), (SpanExtraction, "extraction/span_rate_base_heldout")],
)
def test_metrics_of_the_base_model_are_named_too(callback, name, tmp_path, caplog):
    measures = {"measures": {"extraction_strength": ExtractionStrength()}} if callback is Extractability else {}
    trainer, error = ran([callback(**measures), MemorizationEarlyStopping([f"{name} > 0.5"])], tmp_path)
    assert trainer.global_step == 0
    assert f"{name!r} is not measured: the scores hold no greedy hits of a reference" in str(error)
    assert [r.levelno for r in caplog.records if "no greedy hits" in r.getMessage()] == [logging.WARNING]


def test_ranks_without_spans_leave_out_the_same(caplog):
    with_span, without = (SpanExtraction() for _ in range(2))
    scores = Bare().validation_step(None, 0)
    with_span.observe(scores, {"records": [Record("a b c", spans=[Span("name", 1, 3)])] * 20})
    without.observe(scores, {"records": [Record("a b c")] * 20})
    names = ("extraction/span_rate_base", "extraction/span_rate_base_heldout")
    assert set(with_span.absent) == set(without.absent) == set(with_ends(names))


def test_of_the_base_model_attacks_are_left_out_too(tmp_path):
    class NoTexts(Bare):
        def validation_step(self, batch, batch_idx):
            return replace(super().validation_step(batch, batch_idx), batch=None)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*many workers|.*GPU available")
        trainer = pl.Trainer(
            accelerator="cpu", logger=False, callbacks=[BaseModel(), MembershipInference()], default_root_dir=tmp_path,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip
        trainer.validate(NoTexts(whole=True), DataLoader([{}], batch_size=None), verbose=False)
    of_base = {name for name in trainer.callback_metrics if name.endswith("_auroc_base")}
    assert of_base == {"mia/loss_auroc_base", "mia/min_k_auroc_base"}
    assert "mia/zlib_auroc" not in trainer.callback_metrics


def test_a_callback_that_served_a_bare_module_measures_all_of_the_next(tmp_path):
    measure, base = MembershipInference(), SpanExtraction()
    ran([measure, base], tmp_path)
    assert {name for name in LACKING if f"mia/{name}_auroc" in measure.absent} == set(LACKING)
    stop = MemorizationEarlyStopping(["mia/wbc_auroc > 1.5"])
    trainer, error = ran([measure, base, stop], tmp_path, Bare(whole=True))
    assert error is None
    assert measure.absent == base.absent == {}
    assert {f"mia/{name}_auroc" for name in LACKING} <= trainer.callback_metrics.keys()
