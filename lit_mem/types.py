"""The types that every room shares. Torch only: nothing here may import another room but errors.

Shape letters used throughout the package: B examples in a batch, T tokens in the longest of them, N examples
in a whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict, runtime_checkable

from torch import Tensor, nn

from lit_mem.errors import MetricError, check_range

IGNORED = -100
"""The label of a token that is neither trained on nor scored (Hugging Face's convention)."""


class Span(NamedTuple):
    """A telling piece of a text: a name, a date, a drug.

    Attributes:
        kind: what it is, as the data calls it.
        start: position in `input_ids` of its first token.
        end: position after its last token; every position from `start` to it is scored, or none is.
    """

    kind: str
    start: int
    end: int


class Windows(NamedTuple):
    """How a text that is longer than the model is given at once is read: see `lit_mem.scoring.windows`.

    Attributes:
        tokens: most tokens of a window.
        stride: how far a window's end lies behind that of the one before, at most.
        head: how many of the text's first tokens stand in front of each window: 1 for a BOS token, or 0.
        length: tokens of the text.
    """

    tokens: int
    stride: int
    head: int
    length: int


class Record:
    """What is known of an example beside its tokens.

    A plain class, so that Lightning, which takes collections and dataclasses apart to move the tensors in them, hands
    it on as it is.

    Attributes:
        text: the text that is scored, as far as `input_ids` reaches.
        origin: where it came from: "train.jsonl:17".
        attributes: what else the data says of it, by column: a text, a number, or several texts.
        spans: its telling pieces.
        duplicates: how many other members have the same text but for case, spacing and punctuation.
        prompt: the text before it, which is not scored.
        prompt_spans: telling pieces of what is not scored: of a prompt, of turns that are not the assistant's.
        group: name of the person or document that it is of; `origin` where the data names none, "" where nothing is
            known. For memory alone: what is written or logged has a keyed hash in its place.
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
        seed: of the generators that draw, one for each prompt.
    """

    temperature: float = 1.0
    top_k: int | None = None
    seed: int = 0

    def check(self, option: str) -> None:
        """Refuse what cannot be drawn from; `option` is where it was set.

        Raises:
            ConfigError: temperature or top_k is out of range.
        """
        check_range(f"{option}.temperature", self.temperature, above=0, hint=f" (greedy: leave {option} out)")
        check_range(f"{option}.top_k", self.top_k, at_least=1, or_null=True)


@dataclass(frozen=True)
class Needs:
    """What of `TokenScores` is computed only if someone reads it.

    Attributes:
        reference: the frozen reference model's scores.
        moments: mean and deviation of the next-token log-probability.
        sampling: the schemes under which tokens may be drawn.
    """

    reference: bool = False
    moments: bool = False
    sampling: frozenset[Sampling] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        """What either needs."""
        return Needs(self.reference or other.reference, self.moments or other.moments, self.sampling | other.sampling)


class Batch(TypedDict):
    """Examples that go through the model together.

    A TypedDict because Lightning moves dictionaries between devices, and cannot move a frozen dataclass.

    Keys:
        input_ids: (B, T) int64, padded on the right.
        labels: (B, T) int64, `input_ids` where the token is trained on, `IGNORED` elsewhere (padding, prompts,
            the first token, which nothing precedes).
        scored: (B, T) bool, the tokens that measures read: those trained on, but for an end-of-text token that was
            appended. That token is no part of the text, and what an un-tuned model thinks of it would only add noise
            to every comparison with the reference. Where this key is absent, all labels are scored.
        example_id: (B,) int64, unique over members and non-members together.
        member: (B,) bool, True where the example is in the fine-tuning set.
        records: B of what else is known; absent where the data says nothing more.
        canary: (B,) int64, in batches of canaries and in no others: how often each stands in the training set where its
            coin (`member`) put it there. Only what measures canaries reads such a batch.
        windows: B times how a text is read that is too long to be read at once; None for one that is read whole. Absent
            where all are, as in training, whose rows are windows themselves.
        at_once: how many tokens of windows, padding included, go through the model together; in each batch of a set
            that has such texts, and in no other.
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
    """Whether a batch is one of canaries, which belong to no set of texts."""
    return isinstance(batch, Mapping) and "canary" in batch


@dataclass(frozen=True)
class TokenScores:
    """What one forward pass says of every token; all that the loss-based measures need.

    Position t holds the score of token t given all tokens before it, so position 0 is never scored.

    Attributes:
        logprob: (B, T) float32, log p(x_t | x_<t) in nats under the tuned model; 0 where `mask` is False.
        hit: (B, T) bool, whether greedy decoding would have chosen x_t; False where `mask` is False.
        mask: (B, T) bool, the scored positions.
        example_id: (B,) int64.
        member: (B,) bool.
        reference: (B, T) float32, the same as `logprob` under the frozen reference model, or None.
        reference_hit: (B, T) bool, the same as `hit` under the frozen reference model, or None.
        mean: (B, T) float32, the mean μ_t = Σ_v p(v) log p(v) of the log-probability of a token drawn from the tuned
            model's own next-token distribution, in nats, at most 0; 0 where `mask` is False. None if nobody needs it.
        std: (B, T) float32, its standard deviation σ_t, at least 0, likewise.
        sampled: for each sampling scheme needed (B, T) float32, the log-probability of x_t under it: tempered, and
            normalised over the top k; -inf for a token outside them; 0 where `mask` is False.
        batch: the batch that was scored, or None where it was not kept.
        ends: (B, T) bool, where a token stands at which decoding stops; None where it is not known.
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

    def with_reference(self, reference: Tensor, hit: Tensor | None = None) -> TokenScores:
        """The same scores with the reference model's (B, T) log-probabilities (and greedy hits) beside them."""
        return replace(self, reference=reference, reference_hit=hit)

    def records(self, who: str) -> Sequence[Record]:
        """What else is known of the B examples.

        Raises:
            MetricError: the batch does not say; `who` needs it, for the message.
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
        # Some accelerators have no float64, hence the move first.
        return self.logprob.cpu().double().sum(dim=1)


class Prober(Protocol):
    """What an attack may use that computes more than the scoring pass."""

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer of the model."""
        ...

    @property
    def language_model(self) -> nn.Module:
        """The Hugging Face model (or its peft wrapper) that is being tuned; in eval mode while an attack uses it."""
        ...

    def score(self, batch: Batch) -> TokenScores:
        """One more forward pass of the tuned model, without reference scores."""
        ...

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """Yields the frozen reference, in eval mode and without gradients.

        Raises:
            ModelError: there is no reference.
        """
        ...

    def forward_context(self) -> AbstractContextManager[None]:
        """Context that sets the precision of the model, to enter around each forward pass."""
        ...

    def texts(self, member: bool) -> Mapping[int, Tensor]:
        """(T,) int64 token ids of every validated member, or of every held-out text, by example id, on every rank.

        Raises:
            ConfigError: the data module does not give them.
        """
        ...

    def population(self, references: Sequence[str]) -> Callable[[Batch], Sequence[Tensor]]:
        """Load reference models; what is returned scores a batch under each: (B, T) float32 log-probabilities.

        Args:
            references: folders of adapters saved by peft for the same base, or ids or folders of whole models.
        """
        ...


@runtime_checkable
class MemorizationModule(Protocol):
    """What the callbacks need of a LightningModule beside `validation_step` returning `TokenScores`.

    Loss-based callbacks read nothing but those scores. Extraction also generates, so it needs `tokenizer`,
    `language_model` and `reference_context`.
    """

    tokenizer: Any

    @property
    def language_model(self) -> nn.Module:
        """The Hugging Face model (or its peft wrapper) that is being tuned."""
        ...

    def reference_context(self) -> Any:
        """A context manager that yields the frozen reference as a module to call."""
        ...
