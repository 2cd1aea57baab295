"""The types that every room shares. Torch only: nothing here may import another room.

Shape letters used throughout the package: B examples in a batch, T tokens in the longest of them, N examples
in a whole set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

from torch import Tensor, nn

IGNORED = -100
"""The label of a token that is neither trained on nor scored (Hugging Face's convention)."""


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
    """

    input_ids: Tensor
    labels: Tensor
    scored: NotRequired[Tensor]
    example_id: Tensor
    member: Tensor


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
    """

    logprob: Tensor
    hit: Tensor
    mask: Tensor
    example_id: Tensor
    member: Tensor
    reference: Tensor | None = None

    def with_reference(self, reference: Tensor) -> TokenScores:
        """The same scores with the reference model's (B, T) log-probabilities beside them."""
        return replace(self, reference=reference)

    @property
    def n_tokens(self) -> Tensor:
        """(B,) int64 on the CPU, how many tokens of each example were scored."""
        return self.mask.cpu().sum(dim=1)

    @property
    def total_logprob(self) -> Tensor:
        """(B,) float64 on the CPU, the sum of log-probabilities of each example in nats."""
        # Some accelerators have no float64, hence the move first.
        return self.logprob.cpu().double().sum(dim=1)


@runtime_checkable
class MemorizationModule(Protocol):
    """What the callbacks need of a LightningModule beside `validation_step` returning `TokenScores`.

    Loss-based callbacks read nothing but those scores. Extraction also generates, so it needs the three
    members below.
    """

    tokenizer: Any

    @property
    def language_model(self) -> nn.Module:
        """The Hugging Face model (or its peft wrapper) that is being tuned."""
        ...

    def reference_context(self) -> Any:
        """A context manager that yields the frozen reference as a module to call."""
        ...
