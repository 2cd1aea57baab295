"""Replace words of a text with proposals of a masked language model."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Final

import torch
from torch import Tensor

from lit_mem.adapters.loaded_weights import check_loaded
from lit_mem.errors import ModelError
from lit_mem.functional.words import word_places
from lit_mem.guards import preserved_random_state
from lit_mem.models.hub import load_model, load_tokenizer

_PROPOSALS: Final = 20
_TOKENS_AT_ONCE: Final = 2048
_WORD_START: Final = ("Ġ", "▁")  # word-start markers of byte-level and SentencePiece vocabularies


class WordReplacer:
    """A masked language model and its tokens that are whole words.

    Its weights must be safetensors, and its code part of transformers. It stays on the device it was last used on.

    Args:
        model_id: hub id or local folder of a masked language model with a fast tokenizer.

    Raises:
        ModelError: it cannot be loaded, lacks weights, or its vocabulary has no words.
    """

    def __init__(self, model_id: str) -> None:
        from transformers import AutoModelForMaskedLM

        option = "Neighbourhood.masked_lm"
        # Inference tensors, which Lightning's validation would create here, could not be moved freely.
        with preserved_random_state(), torch.inference_mode(False):
            self.tokenizer: Any = load_tokenizer(model_id, option=option)
            # Sizes that differ from the configuration are rejected below, by name.
            self.model, info = load_model(
                AutoModelForMaskedLM, model_id, option, dtype=torch.float32, ignore_mismatched_sizes=True
            )
        check_loaded(self.model, f"{option} {model_id!r}", info)
        if self.tokenizer.mask_token_id is None or not self.tokenizer.is_fast:
            raise ModelError(f"the tokenizer of {model_id!r} has no mask token or is not fast; expected BERT's")
        self.model.requires_grad_(False).eval()
        self._words = self._vocabulary()
        self._ids: dict[str, list[int]] = defaultdict(list)
        for token, word in self._words.items():
            self._ids[word.casefold()].append(token)
        if len(self._ids) < 2:
            raise ModelError(f"the vocabulary of {model_id!r} has {len(self._ids)} whole words; expected 2 or more")
        limits = [self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 512)]
        self._limit = int(min(limits)) - 2  # some models start positions at 2

    def _vocabulary(self) -> dict[int, str]:
        """Tokens that are whole words, as text."""
        special = set(self.tokenizer.all_special_ids)
        tokens = {i: token for token, i in self.tokenizer.get_vocab().items() if i not in special}
        marked = any(token.startswith(_WORD_START) for token in tokens.values())
        starts = [i for i, t in tokens.items() if (t.startswith(_WORD_START) if marked else not t.startswith("##"))]
        texts = self.tokenizer.batch_decode([[i] for i in sorted(starts)])
        words = {i: text.strip() for i, text in zip(sorted(starts), texts, strict=True)}
        return {i: word for i, word in words.items() if [place.group() for place in word_places(word)] == [word]}

    def versions(self, text: str, count: int, share: float, generator: torch.Generator) -> list[str]:
        """`count` versions of a text, each with a random share of the words, at least one, replaced.

        The chosen words of a version are masked together. Each replacement is drawn from the 20 most likely whole
        words, by their probability, excluding the word itself in any casing; it is capitalized if the word is. Words
        beyond the masked model's context are not replaced.

        Args:
            text: any text.
            count: number of versions, drawn independently; versions of short texts may coincide.
            share: share of the words, rounded.
            generator: on the CPU; the only source of randomness.

        Returns:
            `count` texts; none if there are no words in the text.
        """
        words = self._words_in_reach(text)
        if not words:
            return []
        size = max(1, round(share * len(words)))
        chosen = [
            [words[i] for i in sorted(torch.randperm(len(words), generator=generator)[:size].tolist())]
            for _ in range(count)
        ]
        versions = []
        for places, logits in zip(chosen, self._proposals(text, chosen), strict=True):
            version = text
            drawn = [self._draw(word.group(), row, generator) for word, row in zip(places, logits, strict=True)]
            for word, new in reversed(list(zip(places, drawn, strict=True))):
                version = version[: word.start()] + new + version[word.end() :]
            versions.append(version)
        return versions

    def _words_in_reach(self, text: str) -> list[re.Match[str]]:
        encoded = self.tokenizer(text, truncation=True, max_length=self._limit, return_offsets_mapping=True)
        reach = max((end for _, end in encoded["offset_mapping"]), default=0)
        return [word for word in word_places(text) if word.end() <= reach]

    def _proposals(self, text: str, chosen: list[list[re.Match[str]]]) -> list[Tensor]:
        """For each version, (n, V) float32 logits on the CPU at its n masked words in order."""
        masked = [_masked(text, places, self.tokenizer.mask_token) for places in chosen]
        encoded = self.tokenizer([text for text, _ in masked], truncation=True, max_length=self._limit)
        width = max(len(ids) for ids in encoded["input_ids"])
        found: list[Tensor] = []
        step = max(1, _TOKENS_AT_ONCE // width)
        for first in range(0, len(masked), step):
            found += self._logits(masked[first : first + step])
        return found

    @torch.no_grad()
    def _logits(self, masked: list[tuple[str, list[int]]]) -> list[Tensor]:
        encoded = self.tokenizer(
            [text for text, _ in masked],
            truncation=True,
            max_length=self._limit,
            padding=True,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        offsets = encoded.pop("offset_mapping")
        logits = self.model(**encoded.to(self.model.device)).logits
        is_mask = encoded["input_ids"].cpu() == self.tokenizer.mask_token_id
        rows = []
        for row, (_, places) in enumerate(masked):
            # By offset, since the text itself may contain the mask token.
            start, end = offsets[row].unbind(-1)
            at = [int((is_mask[row] & (start <= place) & (place < end)).nonzero()[0]) for place in places]
            rows.append(logits[row, at].float().cpu())
        return rows

    def _draw(self, word: str, logits: Tensor, generator: torch.Generator) -> str:
        """Draw a replacement for a word."""
        allowed = torch.full_like(logits, -torch.inf)
        ids = list(self._words)
        allowed[ids] = logits[ids]
        allowed[self._ids.get(word.casefold(), [])] = -torch.inf
        best = allowed.topk(min(_PROPOSALS, len(allowed)))
        pick = torch.multinomial(best.values.softmax(dim=0), 1, generator=generator)
        new = self._words[int(best.indices[pick])]
        return new[:1].upper() + new[1:] if word[:1].isupper() else new


def _masked(text: str, places: list[re.Match[str]], mask: str) -> tuple[str, list[int]]:
    """The text with mask tokens in these places, and the start of each."""
    parts, starts, last = [], [], 0
    for word in places:
        parts += [text[last : word.start()], mask]
        starts.append(sum(map(len, parts)) - len(mask))
        last = word.end()
    return "".join([*parts, text[last:]]), starts
