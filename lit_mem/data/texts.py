"""The rows of a run by set: read, split and checked, before encoding."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from lit_mem.data.group_columns import without_groups
from lit_mem.data.groups import Groups
from lit_mem.data.remarks import on_scripts
from lit_mem.data.row_texts import EveryText, RowTexts
from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.chat_fields import HELD
from lit_mem.data.sources.fields import CONTRACT
from lit_mem.data.sources.given import as_source
from lit_mem.data.sources.table import listed
from lit_mem.errors import ConfigError, DataError

if TYPE_CHECKING:
    from datasets import Dataset

    from lit_mem.data.checks import TrustReport
    from lit_mem.data.options import DataOptions

log = logging.getLogger(__name__)

_SPANS: Final = "spans"


@dataclass(frozen=True)
class Texts:
    """The rows of a run, with the columns of `Corpus`.

    Attributes:
        train: (M,) members, the training rows.
        heldout: (N,) non-members, each text once.
        test: a second set of non-members from the source, or None.
        of_heldout: number of held-out rows, before subsampling and deduplication.
        trust: findings of the checks; None if `data.check` is false.
        remarks: other findings about the texts, one line each; already logged.
        dropped: columns that identify groups, removed from these rows.
        groups_shown: whether names of groups may be shown.
    """

    train: Dataset
    heldout: Dataset
    test: Dataset | None
    of_heldout: int
    trust: TrustReport | None = None
    remarks: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    groups_shown: bool = False

    @property
    def sets(self) -> list[Dataset]:
        """All existing sets, in the order of example ids."""
        return [rows for rows in (self.train, self.heldout, self.test) if rows is not None]

    def groups(self, test: bool = False) -> Groups:
        """Rows per person or document.

        Args:
            test: compare members with the test texts, if any, instead of the held-out ones.
        """
        others = self.test if test and self.test is not None else self.heldout
        return Groups.of(self.train["group"][:], others["group"][:], self.groups_shown)

    @cached_property
    def largest_group(self) -> int:
        """Maximum training rows of one person or document, as far as groups are known."""
        return max(Counter(self.train["group"][:]).values())

    def every(self) -> EveryText:
        """Each row's prompt and completion as one text, over all sets."""
        return EveryText(self.sets)


def checked_texts(source: Source | Corpus | Any, options: DataOptions) -> Texts:
    """Read a source, split it, check its validity, and log the findings.

    Args:
        source: a source of texts, or a corpus that was already read; see `lit_mem.data.sources.given`.
        options: options of the split, the checks and the columns.

    Raises:
        DataError: a row or split is invalid.
        ConfigError: a size exceeds the number of rows, or `spans_column` does not exist.
    """
    from lit_mem.data.split import split

    corpus = source if isinstance(source, Corpus) else as_source(source).load()
    if len({HELD in rows.column_names for rows in (corpus.train, corpus.heldout, corpus.test) if rows is not None}) > 1:
        raise DataError(f"{corpus.name}: one set has conversations and another texts; expected one kind of rows")
    train, heldout, of_heldout = split(corpus, options)
    to_train = " to train on" if corpus.trains else ""
    log.info("Data %s: %d members%s, %d held-out texts.", corpus.name, len(train), to_train, len(heldout))
    remark = on_scripts(chain(RowTexts(train, "completion"), RowTexts(heldout, "completion")))
    if remark is not None:
        log.info("%s", remark)
    trust = _checked(train, heldout, corpus.name, options.seed) if options.check else None
    if options.spans_column not in (None, _SPANS, *train.column_names):
        raise ConfigError(
            f"data.spans_column is {options.spans_column!r}, but {corpus.name} has no such column; "
            f"expected one of {listed([name for name in train.column_names if name not in CONTRACT])}"
        )
    test, dropped = corpus.test, list[str]()
    if not options.show_groups:
        train, heldout, test, dropped = without_groups(train, heldout, test, options.spans_column)
    remarks = () if remark is None else (remark,)
    return Texts(train, heldout, test, of_heldout, trust, remarks, tuple(dropped), options.show_groups)


def _checked(train: Dataset, heldout: Dataset, name: str, seed: int) -> TrustReport:
    from lit_mem.data.checks import check_trust

    report = check_trust(train, heldout, seed=seed)
    if report.shared_normalized == report.n_heldout:
        raise DataError(
            f"{name}: each of the {report.n_heldout} held-out texts is also a member's text, such as "
            f"{', '.join(report.examples['near'])}, so there is nothing to compare members with; expected texts "
            "that are not trained on (set data.check to false to run anyway)"
        )
    for line in report.summary():
        log.info("%s", line)
    for line in report.warnings:
        log.warning("%s", line)
    return report
