"""Types shared by all packages. Depends on torch only: the one lit_mem module imported here is `errors`.

Shape letters used throughout the package: B examples in a batch, T tokens in the longest of them, N examples
in a whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, Protocol, TypeAlias, TypedDict, runtime_checkable

from lit_mem.errors import MetricError, check_range

if TYPE_CHECKING:
    from torch import Tensor, nn

IGNORED = -100
"""The label of a token that is neither trained on nor scored (Hugging Face's convention)."""


class Span(NamedTuple):
    """A sensitive span of a text, such as a name, a date or a drug.

    Attributes:
        kind: its type, as named in the data.
        start: position in `input_ids` of its first token.
        end: position after its last token; every position from `start` to it is scored, or none is.
    """

    kind: str
    start: int
    end: int


class Windows(NamedTuple):
    """How a text longer than the model's context is scored in windows: see `lit_mem.scoring.windows`.

    Attributes:
        tokens: maximum tokens per window.
        stride: maximum distance between the ends of consecutive windows.
        head: how many of the text's first tokens are prepended to each window: 1 for a BOS token, or 0.
        length: tokens of the text.
    """

    tokens: int
    stride: int
    head: int
    length: int


class Record:
    """What is known about an example besides its tokens.

    A plain class: Lightning takes collections and dataclasses apart to move the tensors in them, and passes this on
    unchanged.

    Attributes:
        text: the scored text, truncated where `input_ids` is.
        origin: where it came from, such as "train.jsonl:17".
        attributes: other columns of its row by name: a string, a number, or several strings.
        spans: its sensitive spans.
        duplicates: how many other members have the same text, ignoring case, spacing and punctuation.
        prompt: the preceding text, which is not scored.
        prompt_spans: sensitive spans in what is not scored: a prompt, or turns other than the assistant's.
        group: the person or document that it belongs to; `origin` where the data names none, "" if unknown. Kept in
            memory only: files and logs have a keyed hash in its place.
    """

    __slots__ = ("attributes", "duplicates", "group", "origin", "prompt", "prompt_spans", "spans", "text")

    def __init__(
        self,
        text: str,
        origin: str = "",
        attributes: Mapping[str, str | float | tuple[str, ...]] | None = None,
        spans: Sequence[Span] = (),
        duplicates: int = 0,
        prompt: str = "",
        prompt_spans: Sequence[Span] = (),
        group: str = "",
    ) -> None:
        self.text, self.origin, self.prompt, self.group = text, origin, prompt, group
        self.attributes = dict(attributes or {})
        self.spans, self.prompt_spans = tuple(spans), tuple(prompt_spans)
        self.duplicates = duplicates


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn when decoding is not greedy.

    Attributes:
        temperature: logits are divided by it.
        top_k: draw among the k likeliest tokens; None: among all.
        seed: of the random generators, one per prompt.
    """

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def check(self, option: str) -> None:
        """Validate the values; `option` is the option that set them.

        Raises:
            ConfigError: temperature or top_k is out of range.
        """
        check_range(f"{option}.temperature", self.temperature, above=0, hint=f" (greedy: leave {option} out)")
        check_range(f"{option}.top_k", self.top_k, at_least=1, or_null=True)


States: TypeAlias = "tuple[tuple[Tensor, Tensor], ...]"
"""Keys and values of a text's first n tokens: for each layer two tensors of (heads, n, head size)."""


@dataclass(frozen=True)
class Needs:
    """Optional parts of `TokenScores`, computed only if a measure reads them.

    Attributes:
        reference: the frozen reference model's scores.
        moments: mean and standard deviation of the next-token log-probability.
        sampling: the schemes under which tokens may be drawn.
        states: ids of examples whose keys and values are kept, if the model gives them.
    """

    reference: bool = False
    moments: bool = False
    sampling: frozenset[Sampling] = frozenset()
    states: frozenset[int] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        """The union of both."""
        return Needs(*(getattr(self, each.name) | getattr(other, each.name) for each in fields(Needs)))


class Batch(TypedDict):
    """Examples that are scored in one forward pass.

    A TypedDict because Lightning moves dictionaries between devices, and cannot move a frozen dataclass.

    Keys:
        input_ids: (B, T) int64, padded on the right.
        labels: (B, T) int64, `input_ids` where the token is trained on, `IGNORED` elsewhere (padding, prompts,
            the first token, which nothing precedes).
        scored: (B, T) bool, the tokens that measures read: those trained on, except for an appended end-of-text token.
            That token is not part of the text, and its score under an un-tuned model would only add noise to every
            comparison with the reference. If this key is absent, all labels are scored.
        example_id: (B,) int64, unique over members and non-members together.
        member: (B,) bool, True where the example is in the fine-tuning set.
        records: B records of what else is known; absent if the data has nothing more.
        canary: (B,) int64, only in batches of canaries: how often each is in the training set if its coin (`member`)
            includes it. Only measures of canaries read such a batch.
        windows: B entries: how a text that is too long for one forward pass is scored; None for one scored in one pass.
            Absent if no text needs windows, as in training, where each row is already a window.
        at_once: how many tokens of windows, padding included, share one forward pass; in every batch of a set that
            has such texts, and in no other.
    """

    input_ids: Tensor
    labels: Tensor
    scored: NotRequired[Tensor]
    example_id: Tensor
    member: Tensor
    records: NotRequired[list[Record]]
    canary: NotRequired[Tensor]
    windows: NotRequired[list[Windows | None]]
    at_once: NotRequired[int]


def holds_canaries(batch: Any) -> bool:
    """Whether a batch holds canaries, which are neither members nor held-out texts."""
    return isinstance(batch, Mapping) and "canary" in batch


@dataclass(frozen=True)
class TokenScores:
    """Scores of every token from one forward pass: all that the loss-based measures need.

    Position t holds the score of token t given all tokens before it, so position 0 is never scored.

    Attributes:
        logprob: (B, T) float32, log p(x_t | x_<t) in nats under the tuned model; 0 where `mask` is False.
        hit: (B, T) bool, whether greedy decoding would have chosen x_t; False where `mask` is False.
        mask: (B, T) bool, the scored positions.
        example_id: (B,) int64.
        member: (B,) bool.
        reference: (B, T) float32, like `logprob`, under the frozen reference model, or None.
        reference_hit: (B, T) bool, like `hit`, under the frozen reference model, or None.
        mean: (B, T) float32, the mean μ_t = Σ_v p(v) log p(v) of the log-probability of a token drawn from the tuned
            model's own next-token distribution, in nats, at most 0; 0 where `mask` is False. None if not needed.
        std: (B, T) float32, its standard deviation σ_t, at least 0, likewise.
        sampled: for each sampling scheme needed (B, T) float32, the log-probability of x_t under it: tempered, and
            normalised over the top k; -inf for a token outside them; 0 where `mask` is False.
        batch: the batch that was scored, or None where it was not kept.
        ends: (B, T) bool, whether the token is one at which decoding stops; None if unknown.
        states: keys and values by example id, as needed, if the model gives them; views of those of the whole batch.
    """

    logprob: Tensor
    hit: Tensor
    mask: Tensor
    example_id: Tensor
    member: Tensor
    reference: Tensor | None = None
    reference_hit: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    sampled: Mapping[Sampling, Tensor] = field(default_factory=dict)
    batch: Batch | None = None
    ends: Tensor | None = None
    states: Mapping[int, States] = field(default_factory=dict)

    def with_reference(self, reference: Tensor, hit: Tensor | None = None) -> TokenScores:
        """A copy with the reference model's (B, T) log-probabilities (and greedy hits)."""
        return replace(self, reference=reference, reference_hit=hit)

    def records(self, who: str) -> Sequence[Record]:
        """The records of the B examples.

        Raises:
            MetricError: the batch has no records; `who` names the measure that needs them.
        """
        if self.batch is None or "records" not in self.batch:
            raise MetricError(f"{who} needs the examples' texts, and the batches carry no `records`")
        return self.batch["records"]

    @property
    def n_tokens(self) -> Tensor:
        """(B,) int64 on the CPU, how many tokens of each example were scored."""
        return self.mask.cpu().sum(dim=1)

    @property
    def total_logprob(self) -> Tensor:
        """(B,) float64 on the CPU, the sum of log-probabilities of each example in nats."""
        # Some accelerators do not support float64: move to the CPU first.
        return self.logprob.cpu().double().sum(dim=1)


class Prober(Protocol):
    """What an attack may use to compute more than the scoring pass does."""

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer of the model."""

    @property
    def language_model(self) -> nn.Module:
        """The Hugging Face model (or its peft wrapper) that is being tuned; in eval mode while an attack uses it."""

    def score(self, batch: Batch) -> TokenScores:
        """One more forward pass of the tuned model, without reference scores."""

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """Yields the frozen reference, in eval mode and without gradients.

        Raises:
            ModelError: there is no reference.
        """

    def forward_context(self) -> AbstractContextManager[None]:
        """Context that sets the precision of the model, to enter around each forward pass."""

    def texts(self, member: bool) -> Mapping[int, Tensor]:
        """Token ids, (T,) int64, of all validated members or all held-out texts, by example id; the same on every rank.

        Raises:
            ConfigError: the data module does not provide them.
        """

    def population(self, references: Sequence[str]) -> Callable[[Batch], Sequence[Tensor]]:
        """Load reference models; the returned function scores a batch under each: (B, T) float32 log-probabilities.

        Args:
            references: folders of adapters saved by peft for the same base, or ids or folders of whole models.
        """


@runtime_checkable
class MemorizationModule(Protocol):
    """What the callbacks need of a LightningModule besides `validation_step` returning `TokenScores`.

    Loss-based callbacks read only those scores. Extraction also generates, so it needs `tokenizer`,
    `language_model` and `reference_context`.
    """

    tokenizer: Any

    @property
    def language_model(self) -> nn.Module:
        """The Hugging Face model (or its peft wrapper) that is being tuned."""

    def reference_context(self) -> Any:
        """A context manager that yields the frozen reference as a module to call."""
