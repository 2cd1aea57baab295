"""`python train.py privacy`: several runs on one training set share one budget."""

import json

import pytest

from lit_mem.cli.main import main
from lit_mem.cli.privacy import ledgers_at, spendings, without_copies
from lit_mem.errors import ConfigError
from lit_mem.privacy.accountant import Steps, epsilon
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.summed import export


@pytest.fixture
def runs(tmp_path):
    """Two runs on one training set and one on another; the first has exported an adapter."""
    for name, noise, rate, steps, corpus in (
        ("a", 1.0, 0.1, 30, "k:aaaaaaaaaa"), ("b", 1.5, 0.05, 40, "k:aaaaaaaaaa"), ("c", 2.0, 0.1, 20, "k:cccccccccc"),
    ):  # fmt: skip
        ledger = Ledger(tmp_path / name / "privacy.jsonl")
        ledger.start(100, noise, rate, corpus)
        for _ in range(steps):
            ledger.charge()
        if name == "a":
            (tmp_path / "a" / "checkpoints" / "best-adapter").mkdir(parents=True)
            export(ledger, tmp_path / "a" / "checkpoints" / "best-adapter" / "privacy.jsonl")
    return tmp_path


A, B, C = Steps(1.0, 0.1, 30), Steps(1.5, 0.05, 40), Steps(2.0, 0.1, 20)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ["prv", "rdp"])
def test_epsilon_is_of_all_steps_of_a_training_set_composed(kind, runs):
    ledgers = [Ledger(path) for path in ledgers_at([str(runs)])]
    assert len(ledgers) == 4
    delta, each, (first, second, all_of_them) = spendings(ledgers, kind=kind)
    assert delta == 1 / 1000
    assert [one.epsilon for one in each] == [epsilon([steps], delta, kind) for steps in (A, A, B, C)]
    assert (first.name, first.steps, first.texts) == ("Training set aaaaaaaa", 70, 100)
    assert first.epsilon == pytest.approx(epsilon([A, B], delta, kind), rel=1e-6)
    assert first.epsilon > max(epsilon([A], delta, kind), epsilon([B], delta, kind))
    assert (second.steps, second.epsilon) == (20, epsilon([C], delta, kind))
    assert (all_of_them.steps, all_of_them.epsilon) == (90, pytest.approx(epsilon([A, B, C], delta, kind), rel=1e-6))


def test_copies_are_not_listed(runs):
    path = runs / "a" / "checkpoints" / "best-adapter" / "privacy.jsonl"
    assert [ledger.path.parent.name for ledger in without_copies(map(Ledger, ledgers_at([str(runs)])))] == [
        "a",
        "b",
        "c",
    ]
    assert [ledger.path for ledger in without_copies(map(Ledger, ledgers_at([str(path)])))] == [path]
    run = runs / "a" / "privacy.jsonl"
    run.write_text("".join(run.read_text().splitlines(keepends=True)[:11]))  # the adapter has more steps than are left
    kept = without_copies([Ledger(path), Ledger(run)])
    assert [ledger.path for ledger in kept] == [path]
    assert spendings(kept)[2][0].steps == 30


def test_one_training_set_has_one_line(runs):
    _, _, sets = spendings([Ledger(path) for path in ledgers_at([str(runs / "a"), str(runs / "a" / "privacy.jsonl")])])
    assert [(one.name, one.steps) for one in sets] == [("Training set aaaaaaaa", 30)]


def test_the_command_prints_and_names_what_is_not_covered(runs, capsys):
    ledger = Ledger(runs / "c" / "privacy.jsonl")
    ledger.start(100, 2.0, 0.1, "k:cccccccccc", unaccounted=True)
    main(["privacy", str(runs / "a"), str(runs / "c"), "--accountant", "rdp", "--delta", "1e-5"])
    lines = capsys.readouterr().out.splitlines()
    total = epsilon([A, C], 1e-5, "rdp")
    assert f"All together: 50 steps, of 100 texts at most: epsilon <= {total:.4g} at delta 1e-05" in lines
    assert lines[-1].startswith(f"{runs / 'c' / 'privacy.jsonl'}: EPSILON COVERS ONLY")


def test_an_unchained_ledger_is_read_and_a_changed_one_is_rejected(runs, capsys):
    path = runs / "b" / "privacy.jsonl"
    chained = path.read_text()
    rows = [json.loads(line) for line in chained.splitlines()]
    path.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "chain"}) + "\n" for row in rows))
    main(["privacy", str(path)])
    assert f"{path}: unchained up to line 41" in capsys.readouterr().out
    path.write_text(chained.replace('"noise_multiplier": 1.5', '"noise_multiplier": 150'))
    with pytest.raises(SystemExit) as stop:
        main(["privacy", str(path)])
    assert stop.value.code == 2
    assert "b/privacy.jsonl, line 1: found another hash" in capsys.readouterr().err


def test_where_there_is_no_ledger_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no privacy\.jsonl at .*nowhere"):
        ledgers_at([str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("words", "found"), [(["--delta", "2"], "delta is 2.0"), (["--accountant", "gdp"], "found gdp")]
)
def test_wrong_options_are_rejected(words, found, runs, capsys):
    with pytest.raises(SystemExit):
        main(["privacy", str(runs), *words])
    assert found in capsys.readouterr().err
