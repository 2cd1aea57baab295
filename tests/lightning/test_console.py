"""In a program without logging configuration, messages on the validity of metrics are shown once."""

import logging
import subprocess
import sys
from contextlib import contextmanager

import pytest
from lightning.fabric.utilities.rank_zero import rank_zero_only

from lit_mem.audit.messages import FallbackConsole
from lit_mem.callbacks import Perplexity
from lit_mem.lightning.console import show_messages

LOG = logging.getLogger("lit_mem.lightning.datamodule")
TRUST = ("Data case_reports: 24", "Members: 24 rows", "Held out: 20 rows", "Text-only classifier", "Model asset:")


@contextmanager
def nothing_set_up():
    """As in a plain script: pytest's own handlers are removed while the body runs."""
    root = logging.getLogger()
    before, level = root.handlers, root.level
    root.handlers = []
    try:
        yield
    finally:
        root.handlers = before
        root.setLevel(level)


def test_a_fit_in_python_shows_the_lines(module, data, trainer, capsys):
    with nothing_set_up():
        trainer([Perplexity()], max_epochs=1).fit(module(), data(check=True))
        lines = capsys.readouterr().err.splitlines()
        for start in TRUST:
            assert len([line for line in lines if line.startswith(start)]) == 1, start


def test_it_shows_each_message_once_however_often_it_is_called(capsys):
    with nothing_set_up():
        for _ in range(3):
            show_messages()
        LOG.info("counted %d", 7)
        LOG.debug("not shown")
        assert capsys.readouterr().err == "counted 7\n"


@pytest.mark.parametrize("level", [logging.WARNING, logging.INFO])
def test_what_the_program_sets_up_is_left_alone(level, capsys):
    """With a root logger configured before: messages reach it, from its own level on."""
    with nothing_set_up():
        logging.basicConfig(level=level, format="root: %(message)s", stream=sys.stderr)
        show_messages()
        LOG.info("trust")
        LOG.warning("careful")
        shown = ["root: trust"] if level == logging.INFO else []
        assert capsys.readouterr().err.splitlines() == [*shown, "root: careful"]
        assert logging.getLogger("lit_mem").handlers == []


def test_what_the_program_sets_up_later_takes_over(capsys):
    with nothing_set_up():
        show_messages()
        logging.basicConfig(format="root: %(message)s", stream=sys.stderr)
        LOG.info("trust")
        assert capsys.readouterr().err == "root: trust\n"


def test_a_handler_of_the_package_logger_is_kept(capsys):
    with nothing_set_up():
        mine = logging.NullHandler()
        logging.getLogger("lit_mem").addHandler(mine)
        show_messages()
        LOG.warning("careful")
        assert logging.getLogger("lit_mem").handlers == [mine]
        assert capsys.readouterr().err == ""


def test_other_ranks_show_errors_only(monkeypatch, capsys):
    with nothing_set_up():
        monkeypatch.setattr(rank_zero_only, "rank", 1)
        show_messages()
        LOG.warning("careful")
        LOG.error("wrong")
        assert capsys.readouterr().err == "wrong\n"


def test_control_characters_are_written_out(capsys):
    with nothing_set_up():
        show_messages()
        LOG.info("a\x1b[31mb")
        assert "\x1b" not in capsys.readouterr().err


def test_under_pytest_nothing_is_changed(caplog):
    show_messages()
    assert not any(isinstance(handler, FallbackConsole) for handler in logging.getLogger("lit_mem").handlers)
    with caplog.at_level(logging.INFO, "lit_mem"):
        LOG.info("trust")
    assert [record.getMessage() for record in caplog.records] == ["trust"]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_plain_script_shows_the_lines(tmp_path):
    script = """
import lightning.pytorch as pl
from lit_mem.callbacks import MembershipInference
from lit_mem.data import TextDataModule
from lit_mem.data.sources import CaseReports
from lit_mem.lightning.module import CausalLM
trainer = pl.Trainer(max_epochs=1, num_sanity_val_steps=-1, callbacks=[MembershipInference()], accelerator="cpu")
data = TextDataModule(CaseReports(), train_size=24, heldout_size=20, max_length=64)
trainer.fit(CausalLM("asset:tiny_llama"), data)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    for start in TRUST:
        assert len([line for line in done.stderr.splitlines() if line.startswith(start)]) == 1, start
