"""The options of a run's texts, which decide what is trained on and what is scored."""

from __future__ import annotations

from dataclasses import dataclass

from lit_mem.data.canaries.base import CanarySource
from lit_mem.data.deduplicate import Deduplicate
from lit_mem.errors import ConfigError


@dataclass(frozen=True)
class DataOptions:
    """Options of `lit_mem.data.prepare`; each is described at the option of `TextDataModule` of that name.

    Attributes:
        canary_source: its option `canaries`.

    Raises:
        ConfigError: an option is out of range.
    """

    max_length: int = 512
    add_eos: bool = True
    deduplicate: Deduplicate = "none"
    train_size: int | None = None
    heldout_size: int | None = None
    members_size: int | None = None
    heldout_fraction: float = 0.2
    seed: int = 0
    check: bool = True
    spans_column: str | None = "spans"
    canary_source: CanarySource | None = None
    show_groups: bool = False

    def __post_init__(self) -> None:
        positive(train_size=self.train_size, heldout_size=self.heldout_size, members_size=self.members_size)
        if self.seed < 0:
            raise ConfigError(f"data.seed is {self.seed}; expected 0 or more")
        if self.max_length < 2:
            raise ConfigError(
                f"data.max_length is {self.max_length}; expected 2 or more: the first token is never scored"
            )
        if not 0 < self.heldout_fraction < 1:
            raise ConfigError(f"data.heldout_fraction is {self.heldout_fraction}; expected a number between 0 and 1")


def positive(**sizes: int | None) -> None:
    """Check that each size of `data` is 1 or more, or None.

    Raises:
        ConfigError: one is not.
    """
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ConfigError(f"data.{name} is {size}; expected 1 or more")
