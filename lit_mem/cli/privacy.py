"""`lit-mem privacy FOLDER...`: the privacy budget that several private runs have spent together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lit_mem import program
from lit_mem.errors import ConfigError
from lit_mem.functional.plain_text import printable
from lit_mem.lightning.one_line import CommandParser
from lit_mem.privacy.accountant import Kind, epsilon, merged, number_of_steps
from lit_mem.privacy.carried import ONLY_LATER
from lit_mem.privacy.ledger import LEDGER, Ledger
from lit_mem.privacy.ledger_lines import Start
from lit_mem.privacy.summed import by_start, together


class Spending(NamedTuple):
    """The privacy budget spent by some starts of runs.

    Attributes:
        name: the ledger or training set.
        texts: largest number of training texts of a start.
        steps: steps of all of them, each counted once.
        epsilon: ε of all these steps.
    """

    name: str
    texts: int
    steps: int
    epsilon: float


def main(words: Sequence[str]) -> None:
    """Print a line per ledger, per training set, and for all together.

    Raises:
        ConfigError: there is no ledger at a path, or an option is invalid.
        CheckpointError: a ledger is damaged; its line is named.
    """
    given = _parser().parse_args(list(words))
    if given.delta is not None and not 0 < given.delta < 1:
        raise ConfigError(f"delta is {given.delta}; expected a number between 0 and 1")
    ledgers = without_copies([Ledger(path) for path in ledgers_at(given.paths)])
    delta, each, sets = spendings(ledgers, given.delta, given.accountant)
    for one in [*each, *sets]:
        _print(
            f"{one.name}: {one.steps} steps, of {one.texts} texts at most: epsilon <= {one.epsilon:.4g} at delta "
            f"{delta:.3g}"
        )
    if len(sets) > 1:
        _print("Training sets may share texts: for a text in several sets, use the last line.")
    for ledger in ledgers:
        if ledger.unchained:
            _print(f"{ledger.path}: unchained up to line {ledger.unchained}; changes there cannot be seen")
        if ledger.unaccounted:
            _print(f"{ledger.path}: {ONLY_LATER}")


def ledgers_at(paths: Iterable[str]) -> list[Path]:
    """The files of ledgers: the paths themselves, or all ledgers below a folder.

    Raises:
        ConfigError: there is none.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        below = [path] if path.is_file() else sorted(path.rglob(LEDGER))
        if not below:
            raise ConfigError(
                f"privacy: there is no {LEDGER} at {path}; expected a ledger, or a folder that contains ledgers"
            )
        found |= dict.fromkeys(below)
    return list(found)


def spendings(
    ledgers: Sequence[Ledger], delta: float | None = None, kind: Kind = "prv"
) -> tuple[float, list[Spending], list[Spending]]:
    """δ, the spending of each ledger, and the totals: per training set and, if there are several, overall.

    Args:
        ledgers: at least one.
        delta: δ; None: 1 / (10 N) with N the largest number of training texts.
        kind: accountant to use.
    """
    starts = together(ledgers)
    if not starts:
        raise ConfigError("privacy: no ledger records the start of a run")
    delta = 1 / (10 * max(start.texts for start in starts)) if delta is None else delta

    def of(name: str, some: Sequence[Start]) -> Spending:
        # Sorted, so that equal steps are merged first and the accountant composes few kinds.
        history = merged(sorted(start.steps for start in some))
        texts = max((start.texts for start in some), default=0)
        return Spending(name, texts, number_of_steps(history), epsilon(history, delta, kind))

    each = [of(str(ledger.path), ledger.starts) for ledger in ledgers]
    corpora = dict.fromkeys(start.corpus for start in starts)
    sets = [of(_name(corpus), [s for s in starts if s.corpus == corpus]) for corpus in corpora]
    return delta, each, [*sets, of("All together", starts)] if len(sets) > 1 else sets


def without_copies(ledgers: Iterable[Ledger]) -> list[Ledger]:
    """Ledgers that hold a step found in no other; of several with the same steps, the one with the shortest path."""
    found, most = [], dict[tuple[str, float, float], int]()
    for ledger in sorted(ledgers, key=lambda each: (-each.steps, len(each.path.parts), str(each.path))):
        numbers = {kind: start.steps.number for kind, start in by_start(ledger.starts).items()}
        if any(number > most.get(kind, -1) for kind, number in numbers.items()):
            found.append(ledger)
        most |= {kind: max(number, most.get(kind, -1)) for kind, number in numbers.items()}
    return sorted(found, key=lambda each: str(each.path))


def _name(corpus: str) -> str:
    return f"Training set {corpus.partition(':')[2][:8]}" if corpus else "Unknown training set"


def _print(line: str) -> None:
    print(printable(line))  # noqa: T201  (what the command is for)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=f"{program.name()} privacy",
        description="Add up the privacy budget spent by private runs. Runs on the same texts share one budget: each "
        "step counts once, however many ledgers contain it.",
    )
    parser.add_argument(
        "paths", nargs="+", type=str, help="ledgers (privacy.jsonl), or folders of runs, adapters, sweeps"
    )
    parser.add_argument(
        "--delta", type=float | None, default=None, help="default: 1 / (10 N), N the largest number of texts of a run"
    )
    parser.add_argument("--accountant", type=Kind, default="prv", help="prv (tighter) or rdp (quicker)")
    return parser
