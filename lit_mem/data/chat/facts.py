"""Statistics of a set of conversations while encoding: how much is trained on, and what is truncated."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lit_mem.data.chat.turns import Turn
from lit_mem.data.cut_texts import CutTexts

log = logging.getLogger(__name__)


class ChatFacts:
    """Counts over a set of conversations.

    Args:
        name: name of the set, for messages.
        max_length: maximum tokens of an example.

    Attributes:
        conversations: number of conversations.
        turns: assistant turns that carry the loss.
        texts: their untruncated lengths.
        trained: number of trained tokens.
        cut: turns that `max_length` truncates or drops.
        endless: turns without an end token in the template, or whose end its own mask misses.
        checked: conversations whose prompts were compared.
        other_prompts: of these, those whose prompt differs from the text before the turn in training.
    """

    def __init__(self, name: str, max_length: int) -> None:
        self.name, self.texts = name, CutTexts(max_length)
        self.conversations = self.turns = self.trained = self.cut = self.endless = 0
        self.checked = self.other_prompts = 0

    def add(self, tokens: int, trained: int, cut: int, turns: Sequence[Turn], ends_trained: bool) -> None:
        """Count one conversation.

        Args:
            tokens: number of tokens, untruncated.
            trained: number of trained tokens.
            cut: number of truncated turns.
            turns: turns that carry the loss.
            ends_trained: whether the ends of turns are trained on.
        """
        self.conversations += 1
        self.turns += len(turns)
        self.texts.add(tokens)
        self.trained += trained
        self.cut += cut
        self.endless += sum(turn.stop == turn.end for turn in turns) if ends_trained else len(turns)

    def prompts(self, agree: bool) -> None:
        """Count one conversation whose prompts were compared with the text before its turns."""
        self.checked += 1
        self.other_prompts += not agree

    def report(self) -> None:
        """Log the counts, and a warning for each finding that affects training."""
        log.info(
            "Conversations (%s): %d with %d assistant turns; %.1f %% of their tokens carry the loss.",
            self.name, self.conversations, self.turns, 100 * self.trained / max(1, self.texts.tokens),
        )  # fmt: skip
        self.texts.warn(f"{self.name} conversations", f"; {self.cut} of {self.turns} turns are truncated or dropped")
        if self.endless:
            log.warning(
                "%d of %d assistant turns in the %s conversations have no end token that is trained on: the model "
                "does not learn to stop there. Expected a chat template that ends turns, inside its mask if it has "
                "one.",
                self.endless, self.turns, self.name,
            )  # fmt: skip
        if self.other_prompts:
            log.warning(
                "In %d of the first %d %s conversations the chat template prompts for a turn with another text than "
                "the text before that turn in training.",
                self.other_prompts, self.checked, self.name,
            )  # fmt: skip
