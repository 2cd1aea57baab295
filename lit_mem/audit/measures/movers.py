"""Members whose memorization changed most since the last validation, and the share of members exposed."""

from __future__ import annotations

import logging
from typing import Any, Final

import torch
from torch import Tensor

from lit_mem.audit.gather import Gathered
from lit_mem.audit.known import Known
from lit_mem.audit.measure import Measure, Pass, Result, Table, with_ends
from lit_mem.audit.measures.correlation import check_columns
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ScoreTable
from lit_mem.errors import check_range
from lit_mem.functional.plain_text import printable
from lit_mem.functional.roc import tpr_interval
from lit_mem.types import Batch, TokenScores

log = logging.getLogger(__name__)

_SHARE: Final = "memorization/exposed_share"


class Movers(Measure):
    """The members whose score changed most since the last validation, and the share of members exposed.

    A table in TensorBoard (`memorization/moved_most`) lists the members whose score rose or fell most, by their origin
    and never by their text; with `console`, a line in the console does too. The first complete validation of a fit,
    which may be the one before training, is the baseline.

    A member is exposed if at most `fpr` of the non-members reach its score: an attacker who tolerates that
    false-positive rate identifies it.

    Logged:
    - `memorization/largest_move`: the largest change, in the score's unit (nats per token for `mia/reference`);
    - `memorization/exposed_share`: the share of members that are exposed, which is the attack's TPR at `fpr`, with
      its interval `_low` and `_high` (`functional.roc.tpr_interval`); left out with fewer than 1 / `fpr` non-members;
    - `memorization/exposed_duplicates`: the share of exposed members that occur in the fine-tuning set more than
      once, up to case, spacing and punctuation; left out if none is exposed;
    - `memorization/members_duplicates`: the same share of all validated members, for comparison.

    The last two are left out if the batches carry no records.

    Args:
        column: the per-example score to follow, higher = more memorized.
        top: number of members listed.
        fpr: tolerated false-positive rate.
        console: list them in the console too.
    """

    def __init__(self, column: str = "mia/reference", top: int = 5, fpr: float = 0.01, console: bool = False) -> None:
        check_range("Movers.top", top, at_least=1)
        check_range("Movers.fpr", fpr, above=0, below=1)
        self.column, self.top, self.fpr, self.console = column, top, fpr, console
        self.reads = (column,)
        self._last: dict[int, float] = {}
        self._members: Gathered[int, tuple[str, int]] = Gathered()

    @property
    def state_key(self) -> str:
        """State key by column: scores of another column cannot be compared."""
        return f"{type(self).__qualname__}{dict(column=self.column)!r}"

    def state_dict(self) -> dict[str, Any]:
        """The last validation's scores, for a resumed run."""
        return {
            "example_id": torch.tensor(list(self._last), dtype=torch.int64),
            "score": torch.tensor(list(self._last.values()), dtype=torch.float64),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the last validation's scores."""
        self._last = dict(zip(state_dict["example_id"].tolist(), state_dict["score"].tolist(), strict=True))

    def names(self) -> list[str]:
        """Exposure, and the largest change."""
        names = (*with_ends(["exposed_share"]), "exposed_duplicates", "members_duplicates", "largest_move")
        return [f"memorization/{name}" for name in names]

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Reset the scores for a new run; in a resumed run, `load_state_dict` follows."""
        if fresh:
            self._last = {}

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass, except the last scores."""
        self._members.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep the origins of the members."""
        if "records" not in batch:
            return
        rows = zip(batch["example_id"].tolist(), batch["member"].tolist(), batch["records"], strict=True)
        for example_id, member, record in rows:
            if member:
                self._members[example_id] = (record.origin, record.duplicates)

    def compute(self, run: Pass) -> Result:
        """Exposure, and in a fit the largest changes.

        Raises:
            ConfigError: the column is unknown.
        """
        known = self._members.compute()
        check_columns([self.column], run, "Movers.column")
        if self.column not in run.rows.columns:  # measured in other passes
            return Result()
        rows = run.rows.where(run.rows[self.column].isfinite())
        duplicates = {i: copies > 0 for i, (_, copies) in known.items()}
        metrics = _exposure(rows, self.column, self.fpr, duplicates)
        intervals, tables = {}, {}
        if _SHARE in metrics:
            intervals[_SHARE] = tpr_interval(rows[self.column], rows.member, self.fpr)
        if run.stage == "fit" and run.complete and rows.member.any():
            moves = self._moves(rows.members())
            if moves and not run.checking:  # the check of a resumed run repeats the last validation
                metrics["memorization/largest_move"] = abs(next(iter(moves.values())))
                first = self._first(moves, {i: origin for i, (origin, _) in known.items()})
                if first:
                    tables["memorization/moved_most"] = Table(("member", self.column), first)
                if first and self.console:
                    line = ", ".join(f"{name} {move}" for name, move in first)
                    log.info("Moved most since the last validation (%s): %s", self.column, line)
        return Result(metrics, tables=tables, intervals=intervals)

    def _moves(self, members: ScoreTable) -> dict[int, float]:
        """Change of each member's score since the last validation, by example id, largest first."""
        now = dict(zip(members.example_id.tolist(), members[self.column].tolist(), strict=True))
        last, self._last = self._last, now
        moves = {i: score - last[i] for i, score in now.items() if i in last}
        return dict(sorted(moves.items(), key=lambda move: (-abs(move[1]), move[0])))

    def _first(self, moves: dict[int, float], origins: dict[int, str]) -> list[tuple[str, str]]:
        """The first few members that changed: origin and change."""
        first = [(i, move) for i, move in moves.items() if move][: self.top]
        return [(printable(origins.get(i, ""), 80) or f"example {i}", f"{move:+#.2g}") for i, move in first]


def exposed(score: Tensor, member: Tensor, fpr: float) -> Tensor | None:
    """(N,) bool, the members above the threshold of `tpr_at_fpr`; None with too few non-members.

    Args:
        score: (N,) finite float, higher = more member-like.
        member: (N,) bool.
        fpr: false-positive rate, in (0, 1).
    """
    others = score[~member].sort().values
    # The product may fall a rounding error short of 1, as 49 x (1 / 49) does.
    if not member.any() or len(others) * fpr < 1 - 1e-9:
        return None
    reached = len(others) - torch.searchsorted(others, score)  # non-members with an equal or higher score
    return member & (reached / len(others) <= fpr + 1e-12)


def _exposure(rows: ScoreTable, column: str, fpr: float, duplicates: dict[int, bool]) -> dict[str, float]:
    metrics = {}
    if duplicates:
        metrics["memorization/members_duplicates"] = sum(duplicates.values()) / len(duplicates)
    named = exposed(rows[column], rows.member, fpr)
    if named is not None:
        metrics[_SHARE] = (named.sum() / rows.member.sum()).item()
        known = [duplicates[i] for i in rows.example_id[named].tolist() if i in duplicates]
        if known:
            metrics["memorization/exposed_duplicates"] = sum(known) / len(known)
    return metrics
