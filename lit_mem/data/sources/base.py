"""The contract of a data source: where texts come from, before any tokenizer sees them."""

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

    - prompt (str): text that is given and not trained on; "" for plain language modelling.
    - completion (str): text that is trained on and scored; never empty after stripping.
    - group (str): rows of one group (a patient, a document) stay on one side of every split; the
      row's own `origin` where the data names no group.
    - origin (str): where the row came from, for messages and logs: "train.json:17". It names no file that the
      configuration does not name, as one of many in a folder may be called after a person: "notes:17" is the
      17th file in the order of paths, "corpus:3:17" line 17 of the third.

    Further columns are kept as they are.

    Attributes:
        train: the fine-tuning set, whose rows are the members.
        heldout: rows never trained on, the non-members; None to have them split off from `train`.
        test: a second set of non-members for the command `test`; None to use `heldout` there too.
        name: what the corpus is called in logs.
        trains: whether the members are trained on; False in an audit.
    """

    train: Dataset
    heldout: Dataset | None
    test: Dataset | None
    name: str
    trains: bool = True


class Source(ABC):
    """A place that texts come from: one small file a source, named in a config by its path."""

    @abstractmethod
    def load(self) -> Corpus:
        """Read and check every row.

        Raises:
            DataError: a file is absent or a row is not what was expected; the message names file
                and row.
        """
