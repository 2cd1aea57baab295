"""What was found in a set of conversations while they were encoded: how much is trained on, and what is lost."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from lit_mem.data.chat.turns import Turn
from lit_mem.data.cut_texts import CutTexts

log = logging.getLogger(__name__)


class ChatFacts:
    """Counts over a set of conversations.

    Args:
        name: of the set, for messages.
        max_length: tokens of the longest example.

    Attributes:
        conversations: how many there are.
        turns: of the assistant's that carry the loss.
        texts: how long they are, uncut.
        trained: tokens of these that are trained on.
        cut: turns that `max_length` cuts, in part or whole.
        endless: turns after which the template writes no end, or whose end its own mask leaves out.
        checked: conversations whose prompts were compared.
        other_prompts: of these, those that are prompted with another text than stands before the turn in training.
    """

    def __init__(self, name: str, max_length: int) -> None:
        self.name, self.texts = name, CutTexts(max_length)
        self.conversations = self.turns = self.trained = self.cut = self.endless = 0
        self.checked = self.other_prompts = 0

    def add(self, tokens: int, trained: int, cut: int, turns: Sequence[Turn], ends_trained: bool) -> None:
        """Count one conversation.

        Args:
            tokens: in it, uncut.
            trained: of these, what is trained on.
            cut: turns that are cut.
            turns: that carry the loss.
            ends_trained: whether the ends of turns are trained on.
        """
        self.conversations += 1
        self.turns += len(turns)
        self.texts.add(tokens)
        self.trained += trained
        self.cut += cut
        self.endless += sum(turn.stop == turn.end for turn in turns) if ends_trained else len(turns)

    def prompts(self, agree: bool) -> None:
        """Count one conversation whose prompts were compared with what stands before its turns."""
        self.checked += 1
        self.other_prompts += not agree

    def report(self) -> None:
        """Log the counts, and a warning for each finding that changes what is learned."""
        log.info(
            "Conversations (%s): %d with %d turns of the assistant's; %.1f %% of their tokens carry the loss.",
            self.name, self.conversations, self.turns, 100 * self.trained / max(1, self.texts.tokens),
        )  # fmt: skip
        self.texts.warn(f"{self.name} conversations", f"; {self.cut} of {self.turns} turns are cut, in part or whole")
        if self.endless:
            log.warning(
                "%d of %d turns of the assistant's in the %s conversations have no end that is trained on: the model "
                "does not learn to stop there. Expected a chat template that ends turns, inside its mask if it has "
                "one.",
                self.endless, self.turns, self.name,
            )  # fmt: skip
        if self.other_prompts:
            log.warning(
                "In %d of the first %d %s conversations the chat template gives the model another text before a turn "
                "that it is to write than stands before that turn in training.",
                self.other_prompts, self.checked, self.name,
            )  # fmt: skip
