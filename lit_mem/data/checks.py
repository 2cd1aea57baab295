"""Are attack metrics valid? Members and held-out rows must come from one source and share no text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from lit_mem.data.digests import digests, matches_of, numbered, repeats_of
from lit_mem.data.minhash import EXACT_UP_TO, method, near_matches_of, sketched
from lit_mem.data.overlap import Matches, near_matches
from lit_mem.data.row_texts import RowTexts
from lit_mem.data.shift import Shift, text_shift

if TYPE_CHECKING:
    from datasets import Dataset

_EXAMPLES: Final = 3
_SHIFT_MARGIN: Final = 0.55
_WIDE: Final = 0.65
_MANY_REPEATS: Final = 0.05

Verdict = Literal["shift", "slight", "cannot tell", "below", "not measured"]


@dataclass(frozen=True)
class TrustReport:
    """Findings about the two sets of texts; contains origins of rows, never a text.

    Attributes:
        n_members: rows of the fine-tuning set.
        n_heldout: rows never trained on.
        repeats_exact: members that repeat an earlier member's text. They are trained on more often, and so memorized
            first.
        repeats_normalized: the same, ignoring case, space and punctuation; includes the exact ones.
        shared_exact: held-out rows whose text equals a member's.
        shared_normalized: the same, ignoring case, space and punctuation; includes the exact ones.
        shared_near: held-out rows with a nearly equal member; includes the ones above.
        shared_groups: groups (patients, documents) with rows in both sets.
        shared_group_rows: held-out rows of these groups.
        near_jaccard: similarity from which rows count as near duplicates.
        grouped: whether any two rows share a group, so that the classifier keeps groups together.
        shift: how well a text-only classifier separates the sets; None with too few rows.
        examples: for each kind above, origins of up to three pairs: "dev.json:3 = train.json:17".
        near_method: how near duplicates were found: "exact", or MinHash and its parameters for many texts (see
            `lit_mem.data.minhash`).
    """

    n_members: int
    n_heldout: int
    repeats_exact: int
    repeats_normalized: int
    shared_exact: int
    shared_normalized: int
    shared_near: int
    shared_groups: int
    shared_group_rows: int
    near_jaccard: float
    grouped: bool
    shift: Shift | None
    examples: dict[str, list[str]]
    near_method: str = "exact"

    @property
    def verdict(self) -> Verdict:
        """What the classifier says about the two sets.

        - "shift": the whole interval is above 0.55. The margin above 0.5 is there because a
          difference that even a classifier trained on it barely finds (AUROC 0.55) cannot be what
          lifts an attack, which never saw the labels, to the 0.6 to 0.9 of a model that memorizes.
        - "slight": above 0.5, not above 0.55.
        - "cannot tell": the interval covers 0.5, as expected for one source. With few rows it also
          covers large differences.
        - "below": the whole interval is below 0.5. Rows of different sets come in similar pairs: what
          a classifier learns of a member it finds again in a held-out row.
        - "not measured": too few rows.
        """
        if self.shift is None:
            return "not measured"
        if self.shift.low > _SHIFT_MARGIN:
            return "shift"
        if self.shift.high < 0.5:
            return "below"
        return "slight" if self.shift.low > 0.5 else "cannot tell"

    @property
    def warnings(self) -> list[str]:
        """One line for each finding that invalidates the attack metrics; may be empty."""
        lines = []
        if self.shared_near:
            lines.append(
                f"{self.shared_near} of {self.n_heldout} held-out rows have the text of a member "
                f"({self.shared_exact} exactly, {self.shared_normalized} ignoring case and "
                f"punctuation, {self.shared_near} nearly{self._such_as('near')}): the model was "
                "trained on that text, so attacks that find it are counted as wrong and seem too "
                "weak."
            )
        if self.shared_groups:
            lines.append(
                f"{self.shared_groups} groups have rows in both sets, {self.shared_group_rows} of "
                f"{self.n_heldout} held-out rows{self._such_as('group')}: what is learned of a "
                "group shows in its held-out rows too, so attacks seem too weak. Split by group."
            )
        if self.verdict == "shift":
            hint = (
                ""
                if self.grouped
                else " If several rows come from one document or patient, set group_column: otherwise "
                "its rows are recognised by each other, which looks like a difference."
            )
            lines.append(
                f"A text-only classifier separates members from held-out rows ({self._interval()}; 0.5 expected): "
                "the sets do not come from one source, so an attack may detect that difference instead of "
                f"memorization, and seem too strong.{hint}"
            )
        if self.verdict == "below":
            lines.append(
                f"A text-only classifier separates members from held-out rows with reversed sign ({self._interval()}; "
                "0.5 expected): held-out rows resemble single members more than each other, as when rows of one "
                "document or rewritten texts are in both sets, so attacks may seem too weak. Split by group. By chance "
                "alone this happens in 1 of 40 cases."
            )
        if self.repeats_exact >= _MANY_REPEATS * self.n_members and self.repeats_exact:
            lines.append(
                f"{self.repeats_exact} of {self.n_members} members repeat an earlier one"
                f"{self._such_as('repeat')}: they are trained on several times an epoch, so "
                "memorization seems stronger than it is for texts that occur once."
            )
        return lines

    def public_warnings(self) -> list[str]:
        """The same without examples of rows, which name files."""
        return replace(self, examples={}).warnings

    def summary(self) -> list[str]:
        """Lines for the log: the counts, whether or not there is a warning."""
        high = self.shift.high if self.shift else 1.0
        meaning = {
            "shift": "the sets differ",
            "slight": "the sets differ slightly, too little to matter",
            "cannot tell": "not separable by text alone, as expected"
            if high <= _WIDE
            else f"no difference found, but so few rows leave an AUROC of up to {high:.2f} possible",
            "below": "below 0.5, which does not rule out a problem: rows of both sets come in similar pairs, or chance",
            "not measured": "",
        }[self.verdict]
        classifier = f"{self._interval()}: {meaning}" if self.shift else "not measured, too few rows"
        return [
            f"Members: {self.n_members} rows, of which {self.repeats_exact} repeat an earlier one "
            f"({self.repeats_normalized} ignoring case and punctuation){self._such_as('repeat')}.",
            f"Held out: {self.n_heldout} rows, of which {self.shared_exact} have a member's text "
            f"exactly, {self.shared_normalized} ignoring case and punctuation, "
            f"{self.shared_near} nearly "
            f"(Jaccard >= {self.near_jaccard:g}{self._method()}){self._such_as('near')}.",
            f"Groups in both sets: {self.shared_groups}{self._such_as('group')}.",
            f"Text-only classifier of members against held-out: {classifier}.",
        ]

    def to_json(self, scored: dict[str, int] | None = None) -> str:
        """The findings as JSON, for the report of the run.

        Args:
            scored: how many `members` and `heldout` are scored, `of_members` and `of_heldout`.
        """
        found = asdict(self) | {"shift": self.shift and self.shift._asdict(), "verdict": self.verdict}
        found |= {} if scored is None else {"scored": scored}
        return json.dumps(found | {"warnings": self.warnings, "summary": self.summary()}, indent=1) + "\n"

    def _interval(self) -> str:
        if self.shift is None:
            return ""
        auroc, low, high = self.shift
        return f"AUROC {auroc:.3f}, 95 % interval {low:.3f} to {high:.3f}"

    def _method(self) -> str:
        return "" if self.near_method == "exact" else f", by {self.near_method}"

    def _such_as(self, kind: str) -> str:
        return f", such as {', '.join(self.examples[kind])}" if self.examples.get(kind) else ""


def check_trust(
    train: Dataset,
    heldout: Dataset,
    near_jaccard: float = 0.7,
    classifier_rows: int = 2000,
    seed: int = 0,
) -> TrustReport:
    """Check the two sets of a corpus.

    Args:
        train: (M,) members, with the columns of `Corpus`; prompt and completion count as one text.
        heldout: (N,) held-out rows, likewise.
        near_jaccard: see `check_texts`.
        classifier_rows: see `check_texts`.
        seed: see `check_texts`.
    """
    members, others = _columns(train), _columns(heldout)
    return check_texts(
        members[0],
        others[0],
        groups=(members[1], others[1]),
        origins=(members[2], others[2]),
        near_jaccard=near_jaccard,
        classifier_rows=classifier_rows,
        seed=seed,
    )


def _columns(rows: Dataset) -> tuple[RowTexts, RowTexts, RowTexts]:
    return RowTexts(rows), RowTexts(rows, "group"), RowTexts(rows, "origin")


def check_texts(
    members: Sequence[str],
    heldout: Sequence[str],
    groups: tuple[Sequence[str], Sequence[str]] | None = None,
    origins: tuple[Sequence[str], Sequence[str]] | None = None,
    near_jaccard: float = 0.7,
    classifier_rows: int = 2000,
    seed: int = 0,
) -> TrustReport:
    """Check for what invalidates attack metrics: shared text or groups, and a distribution shift.

    Args:
        members: (M,) texts of the fine-tuning set.
        heldout: (N,) texts never trained on.
        groups: the (M,) and the (N,) names of their groups; None: every row is its own group.
        origins: the (M,) and the (N,) origins of the rows, for messages; None: row numbers.
        near_jaccard: in (0, 1], similarity of three-word runs from which texts are near duplicates. More than 50 000
            texts are compared by MinHash (`lit_mem.data.minhash`).
        classifier_rows: the classifier uses at most this many random rows per set.
        seed: seed of that sample and its halves.

    Returns:
        The counts, with `warnings` and `summary()`. Counts of an empty set are 0.

    Raises:
        ConfigError: `near_jaccard` is not in (0, 1].
    """
    named = origins or (_numbered("members", members), _numbered("heldout", heldout))
    exact = len(members) + len(heldout) <= EXACT_UP_TO
    sketches = [sketched(side, None if exact else near_jaccard, "Checking texts") for side in (members, heldout)]
    texts, forms = numbered(*(one.exact for one in sketches)), numbered(*(one.forms for one in sketches))
    again = repeats_of(texts[0])
    if exact:
        near = near_matches(list(members), list(heldout), near_jaccard)
    else:
        near = near_matches_of(sketches[0], sketches[1], (members, heldout), near_jaccard)
    of_members, of_heldout = groups or (None, None)
    grouped, in_group = False, Matches()
    if of_members is not None and of_heldout is not None:
        names = numbered(digests(of_members), digests(of_heldout))
        in_group = matches_of(*names)
        grouped = len(np.unique(np.concatenate(names))) < len(of_members) + len(of_heldout)
    return TrustReport(
        n_members=len(members),
        n_heldout=len(heldout),
        repeats_exact=len(again),
        repeats_normalized=len(repeats_of(forms[0])),
        shared_exact=len(matches_of(*texts)),
        shared_normalized=len(matches_of(*forms)),
        shared_near=len(near),
        shared_groups=len(set(in_group.values())),
        shared_group_rows=len(in_group),
        near_jaccard=near_jaccard,
        grouped=grouped,
        shift=text_shift(members, heldout, of_members, of_heldout, classifier_rows, seed),
        examples={
            "repeat": _pairs(again, named[0], named[0]),
            "near": _pairs(near, named[1], named[0]),
            "group": _pairs(in_group, named[1], named[0]),
        },
        near_method="exact" if exact else method(near_jaccard),
    )


def _numbered(side: str, rows: Sequence[str]) -> list[str]:
    return [f"{side}:{number}" for number in range(1, len(rows) + 1)]


def _pairs(found: Matches, one: Sequence[str], other: Sequence[str]) -> list[str]:
    return [f"{one[i]} = {other[j]}" for i, j in list(found.items())[:_EXAMPLES]]
