"""Per-person results for persons with several rows, and membership inference by person."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

import torch

from lit_mem.audit.gather import Gathered, gathered
from lit_mem.audit.known import Known
from lit_mem.audit.measure import LEVEL, Measure, Pass, Result, with_ends
from lit_mem.audit.measures.correlation import check_columns
from lit_mem.audit.person import KEY_SIZE, ByPerson, has_suffixes
from lit_mem.audit.subject import Subject
from lit_mem.data.groups import Groups
from lit_mem.errors import ConfigError
from lit_mem.files.once import Once
from lit_mem.functional.auroc import auroc_interval
from lit_mem.functional.interval import Interval
from lit_mem.functional.rate import rate_interval
from lit_mem.functional.roc import tpr_at_fpr, tpr_interval
from lit_mem.types import Batch, TokenScores

log = logging.getLogger(__name__)

_AUROC: Final = "user/inference_auroc"
_TPR: Final = "user/inference_tpr_at_fpr_"
_SHARE: Final = "user/extracted_share"
_OF_EXTRACTION: Final = with_ends([_SHARE, f"{_SHARE}_heldout"])
_Metric: TypeAlias = tuple[str, float, Interval]
_ALONE: Final = "no two rows share a person (set group_column of the source to the column that identifies persons)"
_NO_OTHERS: Final = "the held-out texts identify no persons"
_UNTRIED: Final = "no suffix is compared whole (exact_rate), and no spans are marked in the data"


class Persons(Measure):
    """Exposure by person, or by document, if several rows share one: rows with the same value of `group_column`.

    Nothing is logged if each row is a group of its own.

    Logged:
    - `user/inference_auroc` with its 95 % interval `_auroc_low` and `_auroc_high` (DeLong's, over persons): how well an
      attack separates persons whose rows are members from persons whose rows are held out, by the mean score of a
      person's rows (Kandpal et al. 2023, "User Inference Attacks on Large Language Models", arXiv 2310.09266);
    - `user/inference_tpr_at_fpr_<rate>`, with enough persons among the held-out rows, with its interval `_low` and
      `_high`;
    - `user/extracted_share` and `user/extracted_share_heldout`, each with its Clopper-Pearson interval over persons,
      `_low` and `_high`: the share of persons with at least one marked span or suffix extracted token for token, among
      those for whom one was tried. It reads the results of `Extraction` (its `exact_rate`) and `SpanExtraction`.

    A person with rows on both sides is a member; their held-out rows are ignored. A table in the run's folder has one
    row per person (`lit_mem.audit.person.PersonRow`), with a keyed hash instead of the name unless `data.show_groups`
    is true. The key is drawn once per run, and is saved only in checkpoints.

    Args:
        column: the per-example score averaged over a person's rows, higher = more member-like; None: no attack.
        fprs: false-positive rates at which the true-positive rate is read; None: 0.1 and 0.01.
    """

    reads = ("mia/", "extraction/", "spans_written")

    def __init__(self, column: str | None = "mia/reference", fprs: list[float] | None = None) -> None:
        self.column, self.fprs = column, fprs if fprs is not None else [0.1, 0.01]
        if bad := [fpr for fpr in self.fprs if not 0 < fpr < 1]:
            raise ConfigError(f"Persons.fprs contains {bad[0]}; expected rates between 0 and 1")
        self._key = secrets.token_bytes(KEY_SIZE)  # independent of the training random state
        self._names: Gathered[int, str] = Gathered()
        self._groups: Groups | None = None
        self._alone = self._untried = False
        self._once = Once()

    @property
    def state_key(self) -> str:
        """A constant: a run needs only one key."""
        return "Persons"

    def state_dict(self) -> dict[str, Any]:
        """The key of the hashes, so that a resumed run uses the same pseudonyms; {} if there are no persons."""
        return {} if self._alone else {"key": torch.tensor(list(self._key), dtype=torch.uint8)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the key."""
        if "key" in state_dict:
            self._key = bytes(state_dict["key"].tolist())

    def names(self) -> list[str]:
        """All metrics not known to be absent."""
        return [name for name in self._every() if name not in self.absent]

    def _every(self) -> list[str]:
        return [*self._of_attack(), *_OF_EXTRACTION]

    def _of_attack(self) -> list[str]:
        if self.column is None:
            return []
        return [*with_ends([_AUROC]), *with_ends(f"{_TPR}{fpr:g}" for fpr in self.fprs)]

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Reset for other data; a new training run gets a new key."""
        self._alone = self._untried = False
        self._groups = subject.groups()
        self._names.reset()
        self._once.reset()
        if fresh:  # in a resumed run, load_state_dict follows
            self._key = secrets.token_bytes(KEY_SIZE)
        if self._groups is None:
            return
        if not self._groups.members:
            self._leave_out_all()
        elif not self._groups.others:
            self._quietly(self._of_attack(), _NO_OTHERS)

    def _leave_out_all(self) -> None:
        self._alone = True
        self._quietly(self._every(), _ALONE)

    def _quietly(self, names: Iterable[str], reason: str) -> None:
        """Mark metrics as absent without a message: most data has no persons."""
        self.absent = {**self.absent, **dict.fromkeys(names, reason)}

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep the persons of the batch's rows."""
        if self._alone or "records" not in batch:
            return
        for example_id, record in zip(batch["example_id"].tolist(), batch["records"], strict=True):
            if record.group and example_id not in self._names:
                self._names[example_id] = record.group

    def compute(self, run: Pass) -> Result:
        """Aggregate by person.

        Raises:
            ConfigError: the column of scores is unknown.
        """
        if self._alone:
            return Result()
        names = self._names.compute()
        self._key = gathered(self._key)[0]
        if not run.complete:
            return Result()  # a few batches do not represent all persons
        persons = ByPerson(run.rows, names, self._groups)
        if self._groups is None and max(persons.scored(None).tolist(), default=0) < 2:
            self._leave_out_all()
            return Result()
        if persons.both and self._once.first("both"):
            log.info("%d persons have rows on both sides; their held-out rows are ignored.", persons.both)
        column = self._measured(run)
        generated = has_suffixes(run.rows.columns) or not has_suffixes(run.known.columns)
        found = list(self._inference(persons, column))
        if generated:  # without suffixes the share would mean something else
            found += self._shares(persons, run)
        metrics = {name: value for name, value, _ in found}
        intervals = {name: interval for name, _, interval in found}
        table = persons.table(column, self._key, generated)
        lines = () if run.checking else ((logging.INFO, _sentence(persons, metrics, intervals)),)
        return Result(metrics, verdict=lines, persons=table, intervals=intervals)

    def _measured(self, run: Pass) -> str | None:
        """The column of scores, if measured in this pass."""
        if self.column is None:
            return None
        check_columns([self.column], run, "Persons.column")
        return self.column if self.column in run.rows.columns else None

    def _inference(self, persons: ByPerson, column: str | None) -> Iterator[_Metric]:
        if column is None:
            return
        mean = persons.mean(column)
        judged = mean.isfinite()
        score, member = mean[judged], persons.member[judged]
        if not member.any() or member.all():
            return
        yield _AUROC, *auroc_interval(score, member)
        for fpr in self.fprs:
            tpr = tpr_at_fpr(score, member, fpr)
            if tpr is not None:
                yield f"{_TPR}{fpr:g}", tpr, tpr_interval(score, member, fpr)
            elif self._once.first(f"{fpr:g}"):
                log.info(
                    "%s%g needs at least %d persons among the held-out rows, found %d: not logged.",
                    _TPR, fpr, round(1 / fpr), int((~member).sum()),
                )  # fmt: skip

    def _shares(self, persons: ByPerson, run: Pass) -> Iterator[_Metric]:
        written, tried = persons.extracted()
        if not tried.any() and not has_suffixes(run.known.columns) and not self._untried:
            self._untried = True
            self._quietly(_OF_EXTRACTION, _UNTRIED)
        for part, side in (("", persons.member), ("_heldout", ~persons.member)):
            chosen = (written > 0)[side & tried]
            if len(chosen):
                yield _SHARE + part, *rate_interval(chosen.double())


def _sentence(persons: ByPerson, metrics: Mapping[str, float], intervals: Mapping[str, Interval]) -> str:
    """Summary for the end of a run."""
    n_members = int(persons.member.sum())
    parts = [f"{n_members} with scored rows"]
    if _SHARE in metrics:
        written, tried = persons.extracted()
        n, of = (int((each & persons.member).sum()) for each in (written > 0, tried))
        parts.append(f"a span or a whole suffix was extracted from {n} of {of}")
    if _AUROC in metrics:
        value, (low, high) = metrics[_AUROC], intervals[_AUROC](LEVEL)
        n_others = len(persons) - n_members
        parts.append(f"user-inference AUROC {value:.3f} [{low:.3f}, {high:.3f}] against {n_others} held-out persons")
    return f"Persons in the training set: {'; '.join(parts)}."
