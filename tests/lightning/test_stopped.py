"""An interruption during generation loses no metrics of the scoring pass; generation shows its progress."""

import csv
import io
import time
from contextlib import redirect_stderr

import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from lit_mem.callbacks import Extraction, MembershipInference, Perplexity, Slices
from lit_mem.extraction.base import ExtractionMeasure
from lit_mem.extraction.exact import ExactMatch
from lit_mem.generation.decoding import decode
from lit_mem.lightning.generation_bar import generation_bar
from lit_mem.report.history import read_history

pytestmark = pytest.mark.filterwarnings("ignore:Experiment logs directory .* exists and is not empty")


@pytest.fixture(scope="module")
def data(data):
    """As elsewhere, with few texts: the end of a pass is tested here."""
    return lambda **options: data(**({"train_size": 12, "heldout_size": 10} | options))


class Stops(ExtractionMeasure):
    """Raises in the n-th use, like Ctrl-C or an error."""

    def __init__(self, error, at=1):
        self.error, self.left = error, at

    def __call__(self, continuation):
        return 0.0

    def over(self, continuations):
        self.left -= 1
        if not self.left:
            raise self.error
        return [0.0] * len(continuations)


def rows(logger):
    with open(f"{logger.log_dir}/metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def callbacks(measure, base=False):
    # Extraction first, so that the others would be computed after it
    return [Extraction(4, 4, measures={"exact_rate": measure}, base=base), Perplexity(), MembershipInference()]


@pytest.mark.parametrize(
    ("error", "raised", "stage"),
    [
        (KeyboardInterrupt(), SystemExit, "validate"),
        pytest.param(SystemExit(143), SystemExit, "test", marks=pytest.mark.slow),
        pytest.param(RuntimeError("out of memory"), RuntimeError, "validate", marks=pytest.mark.slow),
    ],
    ids=["Ctrl-C", "SIGTERM", "error"],
)
def test_what_was_scored_is_written_and_printed(stage, error, raised, module, data, trainer, tmp_path, capsys):
    whole, stopped = (CSVLogger(str(tmp_path), name) for name in ("whole", "stopped"))
    for logger, measure in ((whole, ExactMatch()), (stopped, Stops(error))):
        torch.manual_seed(0)
        run = getattr(trainer([*callbacks(measure), Slices(min_size=2)], logger=logger), stage)
        if logger is whole:
            run(module(), data(), verbose=False)
        else:
            capsys.readouterr()
            with pytest.raises(raised):
                run(module(), data(), verbose=False)
    (expected,), (found,) = rows(whole), rows(stopped)  # a complete run has one row too
    rest = {name for name in expected if name.startswith(("extraction/", "slice/", "time/"))}
    assert any(name.startswith("slice/") for name in rest)
    # Bit-identical: a run that resumes from here logs this row again.
    assert found == {name: value for name, value in expected.items() if name not in rest}
    loss = f"{'test' if stage == 'test' else 'val'}/loss"
    assert loss in found
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines() if "/" in line)
    assert float(printed[loss]) == pytest.approx(found[loss], abs=1e-4)
    assert printed.keys() == found.keys() - {"epoch", "step"}


@pytest.mark.slow
def test_in_a_fit_it_is_the_row_of_that_validation(module, data, trainer, tmp_path):
    logger = CSVLogger(str(tmp_path), "fit")
    with pytest.raises(SystemExit):
        trainer(callbacks(Stops(KeyboardInterrupt(), at=3)), logger=logger, max_epochs=3).fit(module(), data())
    found = [row for row in rows(logger) if "val/loss" in row]
    # Before training; after epoch 1; interrupted in the validation after epoch 2, which has no extraction.
    assert [(row["epoch"], "extraction/exact_rate" in row) for row in found] == [(0, True), (1, False)]
    assert found[1]["mia/reference_auroc"] != found[0]["mia/reference_auroc"]


@pytest.mark.slow
def test_before_training_it_is_the_row_of_no_epoch(module, data, trainer, tmp_path):
    logger = CSVLogger(str(tmp_path), "fit")
    with pytest.raises(SystemExit):
        trainer(callbacks(Stops(KeyboardInterrupt())), logger=logger).fit(module(), data())
    (row,) = rows(logger)
    assert "epoch" not in row
    assert row["mia/reference_auroc"] == pytest.approx(0.5)
    (validation,) = read_history(tmp_path / "fit" / "version_0" / "metrics.csv").validations
    assert (validation.epoch, validation.step) == (0, 0)
    other = CSVLogger(str(tmp_path), "part")
    few = trainer(callbacks(Stops(KeyboardInterrupt())), logger=other, num_sanity_val_steps=1)
    with pytest.raises(SystemExit):
        few.fit(module(), data(scoring_tokens=200))
    assert not (tmp_path / "part" / "version_0" / "metrics.csv").exists() or rows(other) == []


@pytest.mark.parametrize("eos", [None, 2])
@pytest.mark.parametrize("budget", [4096, 60])
def test_decoding_reports_each_token_once(eos, budget, base, examples):
    prompts, lengths = [e.input_ids[:6] for e in examples[:7]], [1, 9, 4, 4, 12, 2, 7]
    written = []
    found = decode(base, prompts, lengths, eos, token_budget=budget, advance=written.append)
    assert sum(written) == sum(lengths)
    assert len(written) > 5
    assert all(n >= 0 for n in written)
    assert [d.ids.tolist() for d in found] == [
        d.ids.tolist() for d in decode(base, prompts, lengths, eos, token_budget=budget)
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("terminal", "enabled", "shown"), [(True, True, True), (False, True, False), (True, False, False)]
)
def test_a_bar_is_shown_on_a_terminal_only(terminal, enabled, shown, trainer):
    bars = [TQDMProgressBar()] if enabled else []
    t = trainer(bars, enable_progress_bar=enabled)
    screen = Terminal() if terminal else io.StringIO()
    with redirect_stderr(screen), generation_bar(t, "Extraction", 40) as advance:
        time.sleep(0.15)  # tqdm draws at most ten times a second
        advance(30)
    assert ("30/40" in screen.getvalue()) == shown
    assert bool(screen.getvalue()) == shown


@pytest.mark.slow
def test_rich_bars_of_lightning_stay_right(module, data, trainer):
    bar = RichProgressBar(console_kwargs={"force_terminal": True, "file": Terminal()})
    seen = {}

    class Looks(ExactMatch):
        def over(self, continuations):
            seen.update({task.description: (task.completed, task.total) for task in bar.progress.tasks})
            return super().over(continuations)

    t = trainer([*callbacks(Looks(), base=True), bar], enable_progress_bar=True, max_epochs=2)
    t.fit(module(), data())
    ours = {name: done for name, done in seen.items() if "Extraction" in name}
    assert ours
    assert all(done == total for done, total in ours.values())
