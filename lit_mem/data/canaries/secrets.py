"""Fictitious secrets in natural sentences: record numbers, phone numbers, codes."""

from __future__ import annotations

import random
from typing import Final

from lit_mem.data.canaries.base import CanarySource, Content, Setting
from lit_mem.data.canaries.names import FIRST_NAMES, LAST_NAMES
from lit_mem.data.escapes import unescaped
from lit_mem.errors import ConfigError

TEMPLATES: Final = (
    "The record number of {name} is ###-##-####",
    "{name} can be reached at ### ### ####",
    "For questions about the case of {name} please call ###-###-####",
    "The insurance number given by {name} was ### #### ###",
    "The access code that {name} uses is ########",
    "{name} was enrolled in the trial under the number ##-######",
)
_FEWEST_DIGITS: Final = 4


class Secrets(CanarySource):
    """Sentences about fictitious people, each with a random number that cannot be guessed.

    The secret starts at the first random digit; the text before it, with the person's name, is the prefix.

    Args:
        n: total number of canaries, inserted and held out.
        templates: sentences in which each "#" becomes a random digit and "{name}" a fictitious name, with the secret at
            their end, as in "The record number of {name} is ###-##-####". None: six, of record, phone, insurance and
            trial numbers.
        repetitions: how often a canary is in the training set if inserted; canaries cycle through this list. None: 1, 4
            and 16.
        seed: seed of contents and coins.
    """

    def __init__(
        self,
        n: int = 200,
        templates: list[str] | None = None,
        repetitions: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(n, repetitions, seed)
        self.size = n
        self.templates = (
            list(TEMPLATES) if templates is None else [unescaped("data.canaries.templates", t) for t in templates]
        )
        if not self.templates:
            raise ConfigError("data.canaries.templates is empty; expected at least one sentence")
        for template in self.templates:
            if template.count("#") < _FEWEST_DIGITS or not template.partition("#")[0].strip():
                raise ConfigError(
                    f"data.canaries.templates has {template!r}; expected text followed by at least {_FEWEST_DIGITS} "
                    "random digits (#)"
                )

    def contents(self, setting: Setting) -> list[Content]:
        """One secret per canary."""

        def draw(dice: random.Random) -> Content:
            names = FIRST_NAMES[dice.choice(sorted(FIRST_NAMES))]
            name = f"{dice.choice(names)} {dice.choice(LAST_NAMES)}"
            prefix, _, rest = dice.choice(self.templates).replace("{name}", name).partition("#")
            secret = "".join(str(dice.randrange(10)) if sign == "#" else sign for sign in f"#{rest}")
            return Content(prefix, secret)

        return self.drawn(self.size, setting, draw)
