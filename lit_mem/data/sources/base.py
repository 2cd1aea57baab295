"""The data source interface: where texts come from, before tokenization."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Corpus:
    """The splits of one corpus, as text.

    Every split is a `datasets.Dataset` with at least these columns:

    - prompt (str): text that is not trained on; "" for plain language modelling.
    - completion (str): text that is trained on and scored; never empty after stripping.
    - group (str): rows of one group (a patient, a document) stay on one side of every split; the row's `origin` if
      the data has no groups.
    - origin (str): where the row came from, for messages and logs: "train.json:17". It contains no file name that is
      not in the configuration, since one of many files in a folder may be named after a person: "notes:17" is the
      17th file in path order, "corpus:3:17" line 17 of the third.

    Other columns are kept unchanged.

    Attributes:
        train: the fine-tuning set, whose rows are the members.
        heldout: rows never trained on, the non-members; None to have them split off from `train`.
        test: a second set of non-members for the command `test`; None to use `heldout`.
        name: name of the corpus in logs.
        trains: whether the members are trained on; False in an audit.
    """

    train: Dataset
    heldout: Dataset | None
    test: Dataset | None
    name: str
    trains: bool = True


class Source(ABC):
    """A source of texts: one file per kind, set in a configuration by its class path."""

    @abstractmethod
    def load(self) -> Corpus:
        """Read and check every row.

        Raises:
            DataError: a file is missing or a row is invalid; the message names file and row.
        """
