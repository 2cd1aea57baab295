"""Cut a text into prefix and suffix."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from lit_mem.errors import ConfigError
from lit_mem.functional.ends import End, as_ends, is_end
from lit_mem.functional.runs import consecutive
from lit_mem.types import IGNORED


@dataclass(frozen=True)
class Prompt:
    """A text cut in two.

    Attributes:
        input_ids: (T,) int64, the text up to the end of the suffix: its first end token, or the end of the trained
            run.
        cut: number of tokens in the prefix; the suffix is the remaining tokens, at least one.
    """

    input_ids: Tensor
    cut: int

    @property
    def suffix(self) -> Tensor:
        """(T - cut,) int64."""
        return self.input_ids[self.cut :]


def check_prefix(prefix: float, option: str) -> None:
    """Reject a length that is neither a share nor a number of tokens; `option` names the option in the message.

    Raises:
        ConfigError: it is negative, or a number of tokens that is not whole.
    """
    if not 0 <= prefix < math.inf or (prefix >= 1 and prefix != int(prefix)):
        raise ConfigError(f"{option} is {prefix}; expected a share below 1 or a whole number of tokens")


def cut_prompt(input_ids: Tensor, labels: Tensor, prefix: int | float, eos: End) -> Prompt | None:
    """Cut a text after a share, or a number, of its trained tokens.

    Untrained tokens (a BOS token, a prompt before a completion) are always part of the prefix, and do not count. If a
    text is trained on in several runs (the assistant turns of a conversation), the suffix ends with the run that is
    cut, so that it contains no other speaker's text.

    Args:
        input_ids: (T,) int64, right padding allowed.
        labels: (T,) int64, `IGNORED` where a token is not trained on.
        prefix: a float in [0, 1): the share of trained tokens in the prefix, rounded down; an int: their number.
        eos: ids of the tokens at which decoding stops. One at the end of the text is not part of it, and the suffix
            ends before the first one in it.

    Returns:
        The prompt, or None if no token is left for the suffix.
    """
    trained = (labels != IGNORED).nonzero().flatten()
    ended = is_end(input_ids, as_ends(eos))
    if len(trained) and ended[trained[-1]]:
        trained = trained[:-1]
    # The product may fall a rounding error short of a whole number, as 0.29 x 100 does.
    given = int(prefix * len(trained) + 1e-9) if isinstance(prefix, float) else prefix
    if given >= len(trained):
        return None
    run = consecutive(trained[given:])[0]
    cut, stop = int(run[0]), int(run[-1]) + 1
    inside = ended[cut:stop].nonzero()
    if len(inside):
        stop = cut + int(inside[0])
    return None if cut == 0 or stop == cut else Prompt(input_ids[:stop], cut)
