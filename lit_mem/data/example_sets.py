"""The examples of a run by set, and what a model, an attack or a plot needs to know of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor

from lit_mem.data.chunks import longest_read
from lit_mem.data.encoding import Encoded


def extent(examples: Sequence[Encoded]) -> tuple[int, int]:
    """The longest of the texts in tokens, one in windows by its window, and their highest token id; 0 without any."""
    longest = max((longest_read(example) for example in examples), default=0)
    return longest, max((int(example.input_ids.max()) for example in examples), default=0)


def token_ids(examples: Iterable[Encoded]) -> dict[int, Tensor]:
    """(T,) int64 token ids by example id: the examples' own tensors."""
    return {example.example_id: example.input_ids for example in examples}


class ExampleSets:
    """The examples of a run; all sets are empty until they are prepared.

    Attributes:
        train: what is trained on.
        members: the members that are scored.
        heldout: the held-out texts.
        test: the test texts, from a test on.
        canaries: which belong to no other set.
        documents: how many training texts are trained on in windows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.train: list[Encoded] = []
        self.members: list[Encoded] = []
        self.heldout: list[Encoded] = []
        self.test: list[Encoded] = []
        self.canaries: list[Encoded] = []
        self.documents = 0

    def every_example(self) -> list[Encoded]:
        """Those of all sets; members that are scored stand among those trained on."""
        return [*self.train, *self.heldout, *self.test, *self.canaries]

    def extent(self) -> tuple[int, int]:
        """What a model must be able to read: the longest text in tokens, and the highest token id; 0 before `setup`."""
        return extent(self.every_example())

    def texts(self, member: bool) -> dict[int, Tensor]:
        """What attacks that put other texts in front may take: whole sets, not a rank's share of them.

        The loaders deal the sets out over ranks; this does not, so every rank has all of them and, as a dictionary
        keeps its order, has them in the same one.

        Args:
            member: the validated members (the probe), or the held-out texts; while testing, the test texts.

        Returns:
            (T,) int64 token ids by example id, the appended end-of-text token included; empty before `setup`. These
            are the examples' own tensors: do not write to them.
        """
        examples = self.members if member else self.test if self._testing() else self.heldout
        return token_ids(examples)

    def every_text(self) -> Iterator[str]:
        """Prompts and texts of all sets, scored or not, so that no value is shown that gives one away."""
        texts = {example.example_id: example for example in [*self.train, *self.heldout, *self.test]}
        for example in texts.values():  # a long one is trained on in windows, each with its record
            if example.record is not None:
                yield from (example.record.prompt, example.record.text)

    def _testing(self) -> bool:
        """Whether members are compared with the test texts, not the held-out ones."""
        return False
