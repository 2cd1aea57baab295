"""Continuations of texts by models, without generating what the scoring pass already shows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from lit_mem.extraction.prompts import Prompt
from lit_mem.functional.ends import End
from lit_mem.generation.decoding import Decoded, decode
from lit_mem.guards import evaluation_mode
from lit_mem.types import Sampling, States


@dataclass(frozen=True)
class Candidate:
    """An example that may be prompted.

    Attributes:
        prompt: its text, cut in two.
        member: whether it is in the fine-tuning set.
        hit: (n,) bool on the CPU, greedy hits of the suffix in the scoring pass.
        logprob: (n,) float32 on the CPU, their log-probabilities.
        base_hit: the same as `hit` under the frozen base model; None if it was not scored.
        base_logprob: the same as `logprob` under it; None if it was not scored.
    """

    prompt: Prompt
    member: bool
    hit: Tensor
    logprob: Tensor
    base_hit: Tensor | None = None
    base_logprob: Tensor | None = None


class HasReference(Protocol):
    """Holds the frozen reference model."""

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The reference as a callable model; in eval mode, without gradients."""
        ...

    def tuned_is_reference(self) -> bool:
        """Whether the tuned model gives bit-identical scores; False if not known."""
        ...


@contextmanager
def no_bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A null progress bar."""
    yield lambda tokens: None


class Prompter:
    """Continues prompts with the tuned model and with its base.

    Args:
        eos: ids of the tokens that end a text; None without any.
        sampling: sampling options; None decodes greedily.
        token_budget: maximum number of tokens in a decoding batch.

    Attributes:
        bar: makes a progress bar from a title and the maximum number of tokens; a context that gives a function to
            call with the number of tokens generated since the last call.
    """

    def __init__(self, eos: End, sampling: Sampling | None, token_budget: int) -> None:
        self.eos, self.sampling, self.token_budget = eos, sampling, token_budget
        self.bar: Callable[[str, int], AbstractContextManager[Callable[[int], None]]] = no_bar
        self._base_answers: dict[tuple[int, int, bytes], Decoded] = {}

    def tuned(
        self,
        prompted: dict[int, Candidate],
        model: nn.Module,
        states: Callable[[int], States | None] | None = None,
    ) -> dict[int, Decoded]:
        """Continuations of the tuned model by example id; only what the scoring pass does not show is generated.

        Args:
            prompted: the examples.
            model: the tuned model, or one that is identical, such as its base before training.
            states: called at most once with the id of each example, when it enters a batch: the model's keys and
                values of the text's first tokens, at least all but the last before the suffix's first miss; None if
                they are not known.
        """
        scored = {i: (c.hit, c.logprob) for i, c in prompted.items()}
        with evaluation_mode(model):
            return self._answers(prompted, scored, model, "Extraction", states)

    def base(
        self, prompted: dict[int, Candidate], holder: HasReference, tuned: dict[int, Decoded] | None = None
    ) -> dict[int, Decoded]:
        """Continuations of the frozen base model by example id, each generated once per run.

        Args:
            prompted: the examples.
            holder: holds the reference.
            tuned: current continuations of the tuned model; reused if both models are identical, as before training.
        """
        keys = {i: _key(i, candidate.prompt) for i, candidate in prompted.items()}
        new = {i: candidate for i, candidate in prompted.items() if keys[i] not in self._base_answers}
        if new:
            if tuned is not None and holder.tuned_is_reference():
                answers = {i: tuned[i] for i in new}
            else:
                scored = {
                    i: (c.base_hit, c.base_logprob)
                    for i, c in new.items()
                    if c.base_hit is not None and c.base_logprob is not None
                }
                with holder.reference_context() as model:
                    answers = self._answers(new, scored, model, "Extraction (base)")
            self._base_answers.update({keys[i]: answer for i, answer in answers.items()})
        return {i: self._base_answers[keys[i]] for i in prompted}

    def known_length(self, hit: Tensor) -> int:
        """Number of suffix tokens that greedy decoding is known to reproduce, from (n,) bool hits; 0 when sampling."""
        if self.sampling is not None:
            return 0
        misses = (~hit).nonzero()
        return int(misses[0]) if len(misses) else len(hit)

    def _answers(
        self,
        prompted: dict[int, Candidate],
        scored: dict[int, tuple[Tensor, Tensor]],
        model: nn.Module,
        what: str,
        states: Callable[[int], States | None] | None = None,
    ) -> dict[int, Decoded]:
        """Continuations by example id.

        Args:
            prompted: the examples.
            scored: known hits and log-probabilities of suffixes under the model.
            model: the model.
            what: title of the progress bar.
            states: gives its keys and values of texts, where known.
        """
        known = {i: self.known_length(scored[i][0]) if i in scored else 0 for i in prompted}
        open_ids = [i for i, candidate in prompted.items() if known[i] < len(candidate.prompt.suffix)]
        lengths = [len(prompted[i].prompt.suffix) - known[i] for i in open_ids]
        with self.bar(what, sum(lengths)) as advance:
            decoded = decode(
                model,
                [prompted[i].prompt.input_ids[: prompted[i].prompt.cut + known[i]] for i in open_ids],
                lengths,
                self.eos,
                self.sampling,
                self.token_budget,
                keys=open_ids,
                states=None if states is None else lambda k: states(open_ids[k]),
                advance=advance,
            )
        answers = dict(zip(open_ids, decoded, strict=True))
        for i, n in known.items():
            if n:
                ids, logprob = prompted[i].prompt.suffix[:n], scored[i][1][:n]
                if i in answers:
                    ids, logprob = torch.cat([ids, answers[i].ids]), torch.cat([logprob, answers[i].logprob])
                answers[i] = Decoded(ids, logprob)
        return answers


def _key(example_id: int, prompt: Prompt) -> tuple[int, int, bytes]:
    """Cache key: example id, cut and content of the text."""
    digest = hashlib.blake2b(prompt.input_ids.numpy().tobytes(), digest_size=16).digest()
    return example_id, prompt.cut, digest
