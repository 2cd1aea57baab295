"""The examples of a run by set, and facts about all of them for models, attacks and plots."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from torch import Tensor

from lit_mem.data.chunks import longest_read
from lit_mem.data.encoding import Encoded
from lit_mem.data.examples import Examples, prompts_of_records, texts_of_records
from lit_mem.data.groups import Groups

if TYPE_CHECKING:
    from lit_mem.data.texts import Texts


def extent(*sets: Sequence[Encoded]) -> tuple[int, int]:
    """Length in tokens of the longest text (per window if split), and the highest token id; 0 if empty."""
    found = [_extent(examples) for examples in sets]
    return max(longest for longest, _ in found), max(highest for _, highest in found)


def _extent(examples: Sequence[Encoded]) -> tuple[int, int]:
    if isinstance(examples, Examples):
        lengths, windows = examples.lengths.tolist(), examples.values("windows")
        read = (length if one is None else one.tokens for length, one in zip(lengths, windows, strict=True))
        return max(read, default=0), int(examples.highest_ids.max(initial=0))
    longest = max((longest_read(example) for example in examples), default=0)
    return longest, max((int(example.input_ids.max()) for example in examples), default=0)


def token_ids(examples: Sequence[Encoded]) -> Mapping[int, Tensor]:
    """(T,) int64 token ids by example id, in the order of the examples."""
    if isinstance(examples, Examples):
        return _TokenIds(examples)
    return {example.example_id: example.input_ids for example in examples}


class _TokenIds(Mapping[int, Tensor]):
    """Token ids of packed examples, created on access."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._places = {example_id: i for i, example_id in enumerate(examples.numbers("example_id").tolist())}

    def __getitem__(self, example_id: int) -> Tensor:
        return self._examples[self._places[example_id]].input_ids

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class WholeTextsOf(Collection[str]):
    """Prompt and text of each example as one text, created on each read; examples without a record are skipped.

    Args:
        examples: the examples; a text in consecutive windows occurs once.
    """

    def __init__(self, examples: Sequence[Encoded]) -> None:
        self._examples = examples

    def __iter__(self) -> Iterator[str]:
        return (prompt + text for prompt, text in _said(self._examples))

    def __len__(self) -> int:
        return sum(1 for _ in _said(self._examples))

    def __contains__(self, text: object) -> bool:
        return any(one == text for one in self)


def _said(examples: Sequence[Encoded]) -> Iterator[tuple[str, str]]:
    before = None
    for prompt, text in zip(prompts_of_records(examples), texts_of_records(examples), strict=True):
        if prompt is not None and text is not None and before != (prompt, text):
            yield prompt, text  # a long text is trained on in windows, each with its record
        before = prompt, text


class ExampleSets:
    """The examples of a run; all sets are empty until they are prepared.

    Attributes:
        train: the training set.
        members: the members that are scored.
        heldout: the held-out texts.
        test: the test texts, once a test has run.
        canaries: canaries, which belong to no other set.
        rows: the rows that they were made from.
        documents: number of training texts that are split into windows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.train: Sequence[Encoded] = []
        self.members: Sequence[Encoded] = []
        self.heldout: Sequence[Encoded] = []
        self.test: Sequence[Encoded] = []
        self.canaries: Sequence[Encoded] = []
        self.rows: Texts | None = None
        self.documents = 0

    def every_example(self) -> Iterator[Encoded]:
        """The examples of all sets; scored members are among the training set.

        Canaries come first as scored; inserted ones are also in the training set, trained on in full.
        """
        return chain(self.canaries, self.train, self.heldout, self.test)

    def extent(self) -> tuple[int, int]:
        """What a model must support: the longest text in tokens, and the highest token id; 0 before `setup`."""
        return extent(self.train, self.heldout, self.test, self.canaries)

    def texts(self, member: bool) -> Mapping[int, Tensor]:
        """Texts that attacks may prepend to others: whole sets, not a rank's share of them.

        The loaders distribute the sets over ranks; this does not, so every rank has all of them and, since a dictionary
        keeps its order, in the same order.

        Args:
            member: whether to return the validated members (the probe), or the held-out texts; while testing, the test
                texts.

        Returns:
            (T,) int64 token ids by example id, including the appended end-of-text token; empty before `setup`.
        """
        examples = self.members if member else self.test if self._testing() else self.heldout
        return token_ids(examples)

    def every_text(self) -> Iterator[str]:
        """Prompts and texts of all sets, scored or not, so that no shown value reveals one."""
        for examples in (self.train, self.heldout, self.test):
            for both in _said(examples):
                yield from both

    def all_texts(self, member: bool) -> Collection[str]:
        """All texts of one side, untruncated part only, each after its prompt; for members, all trained texts.

        Args:
            member: the training texts without inserted canaries; or the held-out texts, while testing the test texts.
        """
        if not member:
            return WholeTextsOf(self.test if self._testing() else self.heldout)
        canaries = {canary.example_id for canary in self.canaries}
        if isinstance(self.train, Examples) and canaries:
            ids = self.train.numbers("example_id").tolist()
            return WholeTextsOf(self.train.select([i for i, one in enumerate(ids) if one not in canaries]))
        return WholeTextsOf(self.train)

    def groups(self) -> Groups | None:
        """Rows per person or document, of members and of the texts compared with them; None: unknown."""
        return None if self.rows is None else self.rows.groups(self._testing())

    @property
    def largest_group(self) -> int:
        """Maximum training rows of one person or document, as far as groups are known."""
        return 1 if self.rows is None else self.rows.largest_group

    def _testing(self) -> bool:
        """Whether members are compared with the test texts instead of the held-out ones."""
        return False
