"""`lit-mem privacy FOLDER...`: what several private runs have spent together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lit_mem import program
from lit_mem.errors import ConfigError
from lit_mem.functional.plain_text import printable
from lit_mem.lightning.parser import OneLineParser
from lit_mem.privacy.accountant import Kind, epsilon, merged, number_of_steps
from lit_mem.privacy.carried import ONLY_LATER
from lit_mem.privacy.ledger import LEDGER, Ledger
from lit_mem.privacy.ledger_lines import Start
from lit_mem.privacy.summed import by_start, together


class Spending(NamedTuple):
    """What some starts have spent.

    Attributes:
        name: of the ledger or training set.
        texts: the most training texts of a start.
        steps: of all of them, each once.
        epsilon: ε of all their steps.
    """

    name: str
    texts: int
    steps: int
    epsilon: float


def main(words: Sequence[str]) -> None:
    """Print a line for each ledger, for each training set, and for all together.

    Raises:
        ConfigError: there is no ledger at a path, or an option is wrong.
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
        _print("Training sets may share texts: of a text that is in several, the last line holds.")
    for ledger in ledgers:
        if ledger.unchained:
            _print(f"{ledger.path}: unchained up to line {ledger.unchained}; changes there cannot be seen")
        if ledger.unaccounted:
            _print(f"{ledger.path}: {ONLY_LATER}")


def ledgers_at(paths: Iterable[str]) -> list[Path]:
    """The files of ledgers: the paths themselves, or all below a folder.

    Raises:
        ConfigError: there is none.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        below = [path] if path.is_file() else sorted(path.rglob(LEDGER))
        if not below:
            raise ConfigError(
                f"privacy: there is no {LEDGER} at {path}; expected a ledger, or a folder with some below"
            )
        found |= dict.fromkeys(below)
    return list(found)


def spendings(
    ledgers: Sequence[Ledger], delta: float | None = None, kind: Kind = "prv"
) -> tuple[float, list[Spending], list[Spending]]:
    """Of each ledger, and added up: of each training set, and, where there are several, of all.

    Args:
        ledgers: at least one.
        delta: δ; None: 1 / (10 N) for the most texts N of any.
        kind: which accountant.
    """
    starts = together(ledgers)
    if not starts:
        raise ConfigError("privacy: no ledger holds a start of a run")
    delta = 1 / (10 * max(start.texts for start in starts)) if delta is None else delta

    def of(name: str, some: Sequence[Start]) -> Spending:
        # Sorted, so that steps of one kind are added up first: the accountant then composes few kinds.
        history = merged(sorted(start.steps for start in some))
        texts = max((start.texts for start in some), default=0)
        return Spending(name, texts, number_of_steps(history), epsilon(history, delta, kind))

    each = [of(str(ledger.path), ledger.starts) for ledger in ledgers]
    corpora = dict.fromkeys(start.corpus for start in starts)
    sets = [of(_name(corpus), [s for s in starts if s.corpus == corpus]) for corpus in corpora]
    return delta, each, [*sets, of("All together", starts)] if len(sets) > 1 else sets


def without_copies(ledgers: Iterable[Ledger]) -> list[Ledger]:
    """Those that hold a step which no other does; of several that hold the same, the one with the shortest path."""
    found, most = [], dict[tuple[str, float, float], int]()
    for ledger in sorted(ledgers, key=lambda each: (-each.steps, len(each.path.parts), str(each.path))):
        numbers = {kind: start.steps.number for kind, start in by_start(ledger.starts).items()}
        if any(number > most.get(kind, -1) for kind, number in numbers.items()):
            found.append(ledger)
        most |= {kind: max(number, most.get(kind, -1)) for kind, number in numbers.items()}
    return sorted(found, key=lambda each: str(each.path))


def _name(corpus: str) -> str:
    return f"Training set {corpus.partition(':')[2][:8]}" if corpus else "Training set not known"


def _print(line: str) -> None:
    print(printable(line))  # noqa: T201  (what the command is for)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog=f"{program.name()} privacy",
        description="Add up what private runs have spent. Several runs on the same texts are one spending: each step "
        "counts once, whichever ledgers have it.",
    )
    parser.add_argument(
        "paths", nargs="+", type=str, help="ledgers (privacy.jsonl), or folders of runs, adapters, sweeps"
    )
    parser.add_argument(
        "--delta", type=float | None, default=None, help="default: 1 / (10 N), N the most texts of a run"
    )
    parser.add_argument("--accountant", type=Kind, default="prv", help="prv (tighter) or rdp (quicker)")
    return parser
