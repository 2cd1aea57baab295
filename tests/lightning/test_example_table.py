"""The per-example files: complete, written atomically, and without any texts by default."""

import csv
import math
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from lit_mem.callbacks import Correlation, Extraction, MembershipInference, Movers, Perplexity
from lit_mem.errors import ConfigError
from lit_mem.lightning.example_table import PerExampleTable

pytestmark = pytest.mark.slow


def measuring():
    return [Perplexity(), MembershipInference(plots=False), Extraction(n_members=6, n_heldout=4)]


@pytest.fixture(scope="module")
def make(module, data, trainer):
    """Makes a trainer, a module and its data."""

    def run(callbacks, folder, logger=CSVLogger, **kwargs):
        torch.manual_seed(1)
        logger = logger(folder, name="run", version=0) if logger else False
        return (
            trainer(callbacks, logger=logger, **({"max_epochs": 2} | kwargs)),
            module(),
            data(heldout_size=8, members_size=24, batch_size=8, max_length=32),
        )

    return run


@pytest.fixture(scope="module")
def fitted(make, tmp_path_factory):
    """The folder of a run of two epochs, its data, and the metrics logged last."""
    folder = tmp_path_factory.mktemp("fit")
    # The table comes first: it must see the columns of measures listed after it.
    t, model, corpus = make([PerExampleTable(), Correlation(), Movers(), *measuring()], folder)
    t.fit(model, corpus)
    return folder / "run" / "version_0", corpus, {k: float(v) for k, v in t.callback_metrics.items()}


def read(path):
    return pq.read_table(path).to_pydict()


def test_a_file_a_validation(fitted):
    folder, *_ = fitted
    files = ["epoch_0001_step_000003.parquet", "epoch_0002_step_000006.parquet", "start.parquet"]
    assert sorted(os.listdir(folder / "examples")) == files
    for name, epoch, step in zip(files, (1, 2, 0), (3, 6, 0), strict=True):
        table = read(folder / "examples" / name)
        assert set(table["epoch"]) == {epoch}
        assert set(table["step"]) == {step}
        assert pq.read_schema(folder / "examples" / name).equals(pq.read_schema(folder / "examples" / files[0]))


def test_rows_are_the_validated_examples(fitted):
    folder, corpus, _ = fitted
    table = read(folder / "examples" / "epoch_0002_step_000006.parquet")
    expected = {e.example_id: e for e in [*corpus.members, *corpus.heldout]}
    assert table["example_id"] == sorted(expected)
    for i, origin, part, n_tokens, duplicates in zip(
        *(table[name] for name in ("example_id", "origin", "set", "n_tokens", "duplicates")), strict=True
    ):
        assert origin == expected[i].record.origin
        assert part == ("member" if expected[i].member else "heldout")
        assert n_tokens == int(expected[i].scored.sum())
        assert duplicates == expected[i].record.duplicates
    prompted = [i for i, rate in enumerate(table["extraction/ngram_rate"]) if rate is not None]
    assert sorted(table["set"][i] for i in prompted) == ["heldout"] * 4 + ["member"] * 6
    assert not any(v is not None and math.isnan(v) for c in table.values() for v in c if isinstance(v, float))


def test_logged_metrics_can_be_computed_from_the_file(fitted):
    folder, _, logged = fitted
    table = read(folder / "examples" / "epoch_0002_step_000006.parquet")
    label = [part == "member" for part in table["set"]]
    attacks = [name for name in table if name.startswith("mia/")]
    assert {"mia/loss", "mia/reference", "mia/combined"} <= set(attacks)
    for attack in attacks:
        judged = [(s, m) for s, m in zip(table[attack], label, strict=True) if s is not None]
        score, of_member = zip(*judged, strict=True)
        assert logged[f"{attack}_auroc"] == pytest.approx(roc_auc_score(of_member, score), abs=1e-6)
        assert (len(judged) < len(label)) == (attack == "mia/combined")  # evaluated on the half it was not fitted on
    rates = [r for r, member in zip(table["extraction/ngram_rate"], label, strict=True) if member and r is not None]
    assert logged["extraction/ngram_rate"] == pytest.approx(sum(rates) / len(rates), abs=1e-6)
    pairs = [(p, r) for p, r, member in zip(table["perplexity"], table["mia/reference"], label, strict=True) if member]
    rho = spearmanr(*zip(*pairs, strict=True)).statistic
    assert logged["correlation/perplexity_vs_reference"] == pytest.approx(rho, abs=1e-6)
    tokens = [(n, math.log(p) * n) for p, n, m in zip(table["perplexity"], table["n_tokens"], label, strict=True) if m]
    loss = sum(total for _, total in tokens) / sum(n for n, _ in tokens)
    assert logged["memorization/perplexity_members"] == pytest.approx(math.exp(loss), rel=1e-5)


def holds(folder, text):
    """Whether the text's first words occur in any file below the folder, packed columns included."""
    start = " ".join(text.split()[:4])
    for path in folder.rglob("*"):
        if path.is_file() and start.encode() in path.read_bytes():
            return True
        if path.suffix == ".parquet" and any(start in str(value) for c in read(path).values() for value in c):
            return True
    return False


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("text", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_texts_are_written_only_on_request(make, tmp_path, text):
    callbacks = [PerExampleTable(text=text), Movers(), Correlation(), *measuring()[:2]]
    t, model, corpus = make(callbacks, tmp_path, TensorBoardLogger, max_epochs=1)
    t.fit(model, corpus)
    assert (tmp_path / "run" / "version_0" / "examples" / "start.parquet").exists()
    examples = [*corpus.members, *corpus.heldout]
    assert {holds(tmp_path, e.record.text) for e in examples} == {text}
    table = read(tmp_path / "run" / "version_0" / "examples" / "start.parquet")
    assert ("text" in table) == text
    if text:
        written = dict(zip(table["example_id"], table["text"], strict=True))
        assert written == {e.example_id: e.record.text for e in examples}


def without_records(batch, dataloader_idx):
    return {key: value for key, value in batch.items() if key != "records"}


def test_missing_texts_are_an_error(make, tmp_path):
    t, model, corpus = make([PerExampleTable(text=True), Perplexity()], tmp_path)
    corpus.on_after_batch_transfer = without_records
    with pytest.raises(ConfigError, match=r"PerExampleTable.text is true, but the batches carry no `records`"):
        t.fit(model, corpus)


def test_without_records_what_is_not_known_is_null(make, tmp_path):
    t, model, corpus = make([PerExampleTable(), Perplexity()], tmp_path)
    corpus.on_after_batch_transfer = without_records
    t.validate(model, corpus, verbose=False)
    table = read(tmp_path / "run" / "version_0" / "examples" / "validate.parquet")
    assert set(table["origin"]) == set(table["duplicates"]) == {None}
    assert len(table["perplexity"]) == 32


@pytest.mark.slow
def test_validate_and_test_have_their_own_files(make, tmp_path):
    folder = tmp_path / "elsewhere"
    t, model, corpus = make([PerExampleTable(str(folder)), Perplexity()], tmp_path, logger=None)
    t.validate(model, corpus, verbose=False)
    t.test(model, corpus, verbose=False)
    assert sorted(os.listdir(folder)) == ["test.parquet", "validate.parquet"]
    table = read(folder / "test.parquet")
    ids = {i for i, part in zip(table["example_id"], table["set"], strict=True) if part == "heldout"}
    assert ids == {e.example_id for e in corpus.test}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_every_n_validations_also_over_a_resume(make, tmp_path):
    folder = tmp_path / "examples"
    table = PerExampleTable(str(folder), every_n_validations=2)
    t, model, corpus = make([table, Perplexity()], tmp_path, logger=None, max_epochs=3)
    t.fit(model, corpus)
    t.save_checkpoint(tmp_path / "three.ckpt")
    assert sorted(os.listdir(folder)) == ["epoch_0002_step_000006.parquet", "start.parquet"]
    for path in folder.iterdir():
        path.unlink()
    table = PerExampleTable(str(folder), every_n_validations=2)
    t, model, corpus = make([table, Perplexity()], tmp_path, logger=None, max_epochs=5)
    t.fit(model, corpus, ckpt_path=tmp_path / "three.ckpt")
    assert os.listdir(folder) == ["epoch_0004_step_000012.parquet"]


@pytest.mark.slow
def test_a_partial_validation_before_training_and_a_dry_run_write_nothing(make, tmp_path):
    options = {"num_sanity_val_steps": 1, "limit_val_batches": 2}
    t, model, corpus = make([PerExampleTable(), Perplexity()], tmp_path, **options, max_epochs=1)
    corpus.scoring_tokens = 200
    t.fit(model, corpus)
    assert os.listdir(tmp_path / "run" / "version_0" / "examples") == ["epoch_0001_step_000003.parquet"]
    t, model, corpus = make([PerExampleTable(), Perplexity()], tmp_path / "dry", fast_dev_run=True)
    t.fit(model, corpus)
    assert not (tmp_path / "dry").exists()


def test_a_run_killed_in_mid_write_leaves_whole_files_only(make, tmp_path, monkeypatch):
    folder = tmp_path / "examples"
    t, model, corpus = make([PerExampleTable(str(folder)), Perplexity()], tmp_path, logger=None)
    t.validate(model, corpus, verbose=False)
    before = (folder / "validate.parquet").read_bytes()

    def killed(table, file):
        file.write(b"PAR1 half a file")
        file.flush()
        os.link(next(folder.glob(".*")), folder / "left behind")  # as left by a kill
        raise SystemExit

    monkeypatch.setattr(pq, "write_table", killed)
    with pytest.raises(SystemExit):
        t.validate(model, corpus, verbose=False)
    assert (folder / "left behind").read_bytes() == b"PAR1 half a file"
    assert (folder / "validate.parquet").read_bytes() == before
    assert sorted(os.listdir(folder)) == ["left behind", "validate.parquet"]


@pytest.mark.slow
def test_a_failed_write_is_one_line_and_costs_no_other_log(make, tmp_path, monkeypatch):
    t, model, corpus = make([PerExampleTable(), *measuring()[:2]], tmp_path)
    write = pq.write_table

    def full(table, file):
        write(table, file)
        if "epoch_0002" in str(file.name):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(ConfigError) as error:
        t.fit(model, corpus)
    path = tmp_path / "run" / "version_0" / "examples" / "epoch_0002_step_000006.parquet"
    assert str(error.value) == (
        f"PerExampleTable.folder: {path} cannot be written (No space left on device); set it to a writable folder"
    )
    assert sorted(os.listdir(path.parent)) == ["epoch_0001_step_000003.parquet", "start.parquet"]
    rows = list(csv.DictReader((path.parent.parent / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows if row["mia/reference_auroc"]] == ["0", "1"]


def test_a_folder_that_is_a_file_is_an_error(make, tmp_path):
    Path(tmp_path / "taken").write_text("")
    t, model, corpus = make([PerExampleTable(str(tmp_path / "taken")), Perplexity()], tmp_path)
    with pytest.raises(ConfigError, match=r"PerExampleTable.folder: .*taken/start.parquet cannot be written"):
        t.fit(model, corpus)


@pytest.mark.slow
def test_without_a_folder_nothing_is_written_and_a_message_says_so(make, tmp_path, caplog):
    t, model, corpus = make([PerExampleTable(), Perplexity()], tmp_path, logger=None)
    with caplog.at_level("INFO", "lit_mem"):
        t.fit(model, corpus)
    assert "No table of examples is written: there is no logger" in caplog.text
    assert not list(tmp_path.rglob("*.parquet"))


def test_requested_texts_need_a_folder(make, tmp_path):
    t, model, corpus = make([PerExampleTable(text=True), Perplexity()], tmp_path, logger=None)
    with pytest.raises(ConfigError, match=r"PerExampleTable\.folder is not set, and no logger"):
        t.fit(model, corpus)


def test_every_n_validations_must_be_positive():
    with pytest.raises(ConfigError, match=r"PerExampleTable\.every_n_validations is 0"):
        PerExampleTable(every_n_validations=0)
