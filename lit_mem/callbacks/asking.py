"""Asking models to continue texts, without generating what is known already."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_mem.extraction.decoding import Decoded, decode
from lit_mem.extraction.prompts import Prompt
from lit_mem.guards import evaluation_mode
from lit_mem.types import MemorizationModule, Sampling


@dataclass(frozen=True)
class Candidate:
    """An example that may be asked.

    Attributes:
        prompt: its text, cut in two.
        member: whether it is in the fine-tuning set.
        hit: (n,) bool on the CPU, the scoring pass's greedy hits of the suffix.
        logprob: (n,) float32 on the CPU, its log-probabilities.
    """

    prompt: Prompt
    member: bool
    hit: Tensor
    logprob: Tensor


class Asker:
    """Continues prompts with the tuned model and with its base.

    Args:
        eos: id of the token that ends a text, None if there is no such.
        sampling: None decodes greedily.
        token_budget: most tokens in a decoding batch.
    """

    def __init__(self, eos: int | None, sampling: Sampling | None, token_budget: int) -> None:
        self.eos, self.sampling, self.token_budget = eos, sampling, token_budget
        self._base_answers: dict[tuple[int, int, bytes], Decoded] = {}

    def tuned(self, asked: dict[int, Candidate], model: nn.Module) -> dict[int, Decoded]:
        """Answers of the tuned model by example id; what the scoring pass proves is not generated again."""
        known = {i: self.known_length(candidate) for i, candidate in asked.items()}
        open_ids = [i for i, candidate in asked.items() if known[i] < len(candidate.hit)]
        with evaluation_mode(model):
            answers = self._decode(
                model,
                [asked[i].prompt.input_ids[: asked[i].prompt.cut + known[i]] for i in open_ids],
                [len(asked[i].hit) - known[i] for i in open_ids],
                open_ids,
            )
        rest = dict(zip(open_ids, answers, strict=True))
        whole = {}
        for i, candidate in asked.items():
            ids, logprob = candidate.prompt.suffix[: known[i]], candidate.logprob[: known[i]]
            if i in rest:
                ids, logprob = torch.cat([ids, rest[i].ids]), torch.cat([logprob, rest[i].logprob])
            whole[i] = Decoded(ids, logprob)
        return whole

    def known_length(self, candidate: Candidate) -> int:
        """How many suffix tokens greedy decoding is known to write; 0 when sampling."""
        if self.sampling is not None:
            return 0
        misses = (~candidate.hit).nonzero()
        return int(misses[0]) if len(misses) else len(candidate.hit)

    def base(self, asked: dict[int, Candidate], module: MemorizationModule) -> dict[int, Decoded]:
        """Answers of the frozen base model by example id, each generated once in a run."""
        keys = {i: _key(i, candidate.prompt) for i, candidate in asked.items()}
        new = [i for i in asked if keys[i] not in self._base_answers]
        if new:
            with module.reference_context() as model:
                answers = self._decode(
                    model,
                    [asked[i].prompt.input_ids[: asked[i].prompt.cut] for i in new],
                    [len(asked[i].hit) for i in new],
                    new,
                )
            self._base_answers.update({keys[i]: answer for i, answer in zip(new, answers, strict=True)})
        return {i: self._base_answers[keys[i]] for i in asked}

    def _decode(self, model: nn.Module, prompts: list[Tensor], lengths: list[int], ids: list[int]) -> list[Decoded]:
        return decode(model, prompts, lengths, self.eos, self.sampling, self.token_budget, keys=ids)


def _key(example_id: int, prompt: Prompt) -> tuple[int, int, bytes]:
    """The same text under the same id, cut at the same place: other data is never answered from the cache."""
    digest = hashlib.blake2b(prompt.input_ids.numpy().tobytes(), digest_size=16).digest()
    return example_id, prompt.cut, digest
