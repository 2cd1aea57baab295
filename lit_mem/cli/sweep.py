"""`lit-mem sweep --config sweeps/rank`: many runs, one table."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lit_mem import program
from lit_mem.audit.thresholds import Threshold
from lit_mem.errors import ConfigError, LitMemError, check_range
from lit_mem.files import atomic, modes, shipped
from lit_mem.lightning.config_option import SweepOption
from lit_mem.lightning.one_line import CommandParser
from lit_mem.privacy.carried import of_several
from lit_mem.report.certainty import line, together
from lit_mem.sweep import results
from lit_mem.sweep.findings import findings
from lit_mem.sweep.guidance import UTILITY, guidance
from lit_mem.sweep.spec import Trial, check_folder, scales, trials
from lit_mem.sweep.trial import state

log = logging.getLogger(__name__)


def main(words: Sequence[str]) -> None:
    """Run the trials that are not done yet, and write the tables.

    Raises:
        LitMemError: an option is invalid.
    """
    given = parser().parse_args(list(words))
    wanted = trials(_plain(given.axes), given.seeds, _plain(given.set), given.seed_options, given.samples)
    Threshold.parse(given.limit)
    for file in given.run:
        if shipped.find(file) is None:
            names = ", ".join(shipped.names("run"))
            raise ConfigError(
                f"run: there is no file {file}; expected a file, or one of the shipped configurations: {names}"
            )
    for name, least in (("parallel", 1), ("retries", 0)):
        check_range(name, given[name], at_least=least, or_null=True)
    folder = Path(given.out or Path("logs", "sweeps", given.name))
    check_folder(folder, wanted, given.run)
    if given.dry_run:
        for trial in wanted:
            _say(f"{trial.name}: {' '.join(trial.words())}")
        return
    from lit_mem.sweep.extra import import_ray

    import_ray(given.address)
    modes.make_folder(folder)
    modes.restrict(folder)
    _Sweep(given, folder, wanted, words).run()


def parser() -> CommandParser:
    """Options of a sweep."""
    made = CommandParser(prog=f"{program.name()} sweep", description=__doc__, default_env=False)
    made.config_option = SweepOption
    made.add_argument("--config", action="config")
    made.add_argument("--name", type=str, required=True, help="name of the sweep, and of its folder below logs/sweeps")
    made.add_argument("--run", type=list[str], required=True, help="configurations of `fit`, as for one run")
    made.add_argument("--set", type=dict[str, Any], default={}, help="options of every trial, by their full names")
    made.add_argument("--axes", type=dict[str, Any], required=True, help="options to vary; see docs/guides/sweeps.md")
    made.add_argument("--seeds", type=list[int], default=[0, 1, 2], help="seeds; each combination runs with every seed")
    made.add_argument(
        "--seed_options", type=list[str], default=["seed_everything", "data.seed"], help="options that a seed sets"
    )
    made.add_argument("--samples", type=int, default=1, help="number of draws from axes that have a range")
    made.add_argument("--question", type=str, default="", help="name of the paper's finding to test")
    made.add_argument(
        "--limit",
        type=str,
        default="mia/reference_auroc > 0.6",
        help="threshold that the recommended setting must not cross",
    )
    made.add_argument("--out", type=str | None, default=None, help="output folder; an existing sweep is resumed")
    made.add_argument(
        "--address", type=str | None, default=None, help="address of a Ray cluster with access to the same folders"
    )
    made.add_argument(
        "--parallel", type=int | None, default=None, help="concurrent trials (default: one per GPU, or one)"
    )
    made.add_argument("--retries", type=int, default=1, help="how often a crashed trial is retried")
    made.add_argument("--dry_run", type=bool, default=False, help="list the trials without running them")
    return made


class _Sweep:
    def __init__(self, given: Namespace, folder: Path, wanted: Sequence[Trial], words: Sequence[str]) -> None:
        self.given, self.folder, self.wanted = given, folder, wanted
        self.summary = {
            "name": given.name,
            "question": given.question,
            "command": f"{program.command()} sweep {shlex.join(words)}",
            "run": list(given.run),
            "limit": given.limit,
        }

    def run(self) -> None:
        from lit_mem.lightning.signals import STOPPED_BY, stop_code  # loads Lightning
        from lit_mem.sweep import runner

        left = [trial for trial in self.wanted if self._state(trial).get("status") != "done"]
        done = len(self.wanted) - len(left)
        _say(
            f"Sweep {self.given.name}: {len(self.wanted)} trials{f', of which {done} are done' if done else ''}, "
            f"in {self.folder}"
        )
        if left:
            if self.given.address is not None:
                log.info(
                    "Trials run on the Ray cluster at %s; its settings control who can connect.", self.given.address
                )
            runner.quieten()
            try:
                runner.run_all(
                    [self._job(trial) for trial in left],
                    self._ended,
                    address=self.given.address,
                    parallel=self.given.parallel,
                    retries=self.given.retries,
                )
            except (KeyboardInterrupt, SystemExit) as error:
                self._write()
                signal = STOPPED_BY.get(stop_code(error) or 0, "an exit")
                log.warning("Stopped by %s; run the same command to resume.", signal)
                raise
        frame = self._write()
        states = [self._state(trial).get("status", "pending") for trial in self.wanted]
        self._conclude(frame)
        if any(status != "done" for status in states):
            failed = states.count("failed")
            log.warning(
                "%d of %d trials failed, %d did not finish; run the same command to retry them.",
                failed, len(states), len(states) - failed - states.count("done"),
            )  # fmt: skip
            sys.exit(1)

    def _state(self, trial: Trial) -> dict[str, Any]:
        return state(self.folder / "trials" / trial.name)

    def _job(self, trial: Trial) -> dict[str, Any]:
        return {
            "name": trial.name,
            "folder": str((self.folder / "trials" / trial.name).absolute()),
            "run": list(self.given.run),
            "values": trial.values,
            "seed": trial.seed,
            "options": trial.options,
            "words": trial.words(),
            "cwd": os.getcwd(),
            "path": [entry or os.getcwd() for entry in sys.path],
        }

    def _ended(self, name: str) -> None:
        """Print one line and write the tables so far, so that finished trials are kept."""
        self._write()
        trial = next(trial for trial in self.wanted if trial.name == name)
        ended = self._state(trial)
        done = sum(self._state(each).get("status") == "done" for each in self.wanted)
        if ended.get("status") != "done":
            _say(f"{name}: failed: {ended.get('error')} ({self.folder / 'trials' / name / 'log.txt'})")
            return
        rows = [row for run in results.attempts(self.folder / "trials" / name) for row in results.validations(run)]
        shown = ", ".join(
            f"{metric} {rows[-1][metric]:.4g}"
            for metric in (UTILITY, Threshold.parse(self.given.limit).name)
            if rows and metric in rows[-1]
        )
        _say(f"{name}: {shown} ({ended.get('seconds', 0):.0f} s; {done} of {len(self.wanted)} done)")

    def _write(self) -> Any:
        frame = results.table(self.folder, self.wanted)
        results.write(self.folder, frame)
        summary = results.summary(self.folder, self.wanted, self.summary)
        atomic.write_text(self.folder / "sweep.json", json.dumps(summary, indent=1) + "\n")
        return frame

    def _conclude(self, frame: Any) -> None:
        axes = list(self.wanted[0].values)
        found = findings(self.given.question, frame, axes)
        try:
            advice = guidance(frame, axes, self.given.limit, scales(self.wanted))
        except LitMemError as error:
            advice = {"metric": "", "limit": None, "best": None, "front": [], "note": str(error)}
        content: dict[str, Any] = {"schema": 1, "findings": [each.as_json() for each in found], "guidance": advice}
        atomic.write_text(self.folder / "findings.json", json.dumps(content, indent=1) + "\n")
        lines = content["findings"]
        if lines:
            _say(together(lines))
        for each in lines:
            _say(line(each))
        if added := of_several(self.folder):
            _say(added)
        if advice["best"] is not None:
            values = ", ".join(f"{key} {value}" for key, value in advice["best"].items())
            _say(f"Best without {self.given.limit}: {values}: {advice['note']}")
        elif advice["note"]:
            _say(f"Guidance: {advice['note']}")
        _say(f"Table: {self.folder / 'results.parquet'}, results.csv; curves: tensorboard --logdir {self.folder}")


def _plain(value: Any) -> Any:
    """Undo the parser's conversion of class-like values to namespaces."""
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201  (what the command is for)
