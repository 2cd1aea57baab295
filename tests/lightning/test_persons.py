"""Persons in a fit: the metrics of pandas, stable pseudonyms across passes and a resume, and the section's options."""

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import roc_auc_score

from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.callbacks import MembershipInference, Persons, SpanExtraction
from lit_mem.data.sources.given import Given
from lit_mem.errors import ConfigError
from lit_mem.files import record
from lit_mem.lightning.auditing import per_example
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.memorization import Memorization

pytestmark = pytest.mark.slow

FEW = ExtractionOptions(n_members=6, n_heldout=6, base=False)


def texts(names, set_name):
    return [{"text": f"Patient {i} of {set_name} took drug {i} twice.", "group": name} for i, name in enumerate(names)]


def corpus(people=lambda i: f"person {i // 2}", **options):
    sets = {name: texts([people(i) if name == "train" else f"other {people(i)}" for i in range(12)], name)
            for name in ("train", "heldout")}  # fmt: skip
    return TextDataModule(Given(_Sets(sets)), batch_size=4, max_length=32, check=False, **options)


class _Sets(dict):
    """Splits of rows, like a `DatasetDict`."""


@pytest.fixture
def fit(module, trainer, tmp_path):
    def run(name, data, epochs, ckpt_path=None, **options):
        torch.manual_seed(0)
        t = trainer(
            [Memorization(extraction=FEW, **options)],
            max_epochs=epochs,
            logger=CSVLogger(tmp_path, name=name, version=0),
            enable_checkpointing=True,
        )
        model = module(targets=["all-linear"], lr_schedule="constant")
        t.fit(model, data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
        return t, tmp_path / name / "version_0"

    return run


def persons(folder):
    return {path.stem: pq.read_table(path).to_pandas() for path in (folder / "persons").glob("*.parquet")}


@pytest.mark.slow
def test_a_fit_measures_persons_in_each_pass_and_a_resumed_one_calls_them_the_same(fit):
    data = corpus()
    t, folder = fit("whole", data, 1)
    rows = per_example(t, t.lightning_module)
    who = {one.example_id: one.record.group for one in [*data.train, *data.heldout]}
    frame = pd.DataFrame({"who": [who[i] for i in rows.example_id.tolist()], "member": rows.member.numpy()})
    frame["score"] = rows["mia/reference"].numpy()
    means = frame.groupby("who").mean()
    lines, _ = record.read(folder / record.FILE)
    assert [line.step for line in lines] == [0, 3]
    area = lines[-1].metrics["user/inference_auroc"]
    assert area == pytest.approx(roc_auc_score(means.member == 1, means.score))
    assert lines[0].metrics["user/inference_auroc"] == 0.5
    tables = persons(folder)
    assert set(tables) == {"start", "epoch_0001_step_000003"}
    called = [set(table["person"]) for table in tables.values()]
    assert called[0] == called[1]
    assert len(called[0]) == 12
    _, further = fit("more", corpus(), 2, ckpt_path=folder / "checkpoints" / "last.ckpt")
    (table,) = persons(further).values()
    assert set(table["person"]) == called[0]
    other = persons(fit("other", corpus(), 1)[1])["start"]
    assert not set(other["person"]) & called[0]


def test_names_are_shown_where_the_data_says_so(fit):
    _, folder = fit("shown", corpus(show_groups=True), 1)
    assert set(persons(folder)["start"]["person"]) == {f"{of}person {i}" for of in ("", "other ") for i in range(6)}


def test_a_threshold_on_persons_that_are_not_named_is_rejected_before_training(fit, tmp_path):
    with pytest.raises(ConfigError, match=r"'user/inference_auroc' is not measured: no two rows") as caught:
        fit("none", corpus(lambda i: f"person {i}"), 1, stop=["user/inference_auroc > 0.9"])
    assert "\n" not in str(caught.value)
    t, folder = fit("quiet", corpus(lambda i: f"person {i}"), 1)
    assert not [name for name in t.callback_metrics if name.startswith("user/")]
    assert not (folder / "persons").exists()


def test_a_threshold_on_persons_ends_training(fit):
    t, _ = fit("stopped", corpus(), 3, stop=["user/inference_auroc > 0.1"])
    assert t.current_epoch == 1


def test_as_an_entry_of_callbacks(module, trainer):
    listed = [MembershipInference(combined=False), SpanExtraction(), Persons(fprs=[0.2])]
    t = trainer(listed)
    t.validate(module(), corpus(), verbose=False)
    assert set(listed[-1].metrics) == {
        f"user/{name}{end}" for name in ("inference_auroc", "inference_tpr_at_fpr_0.2") for end in ("", "_low", "_high")
    }
    assert len(listed[-1].result.persons.rows) == 12
