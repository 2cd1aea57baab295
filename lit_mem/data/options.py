"""Options of a run's data: what is trained on and what is scored."""

from __future__ import annotations

from dataclasses import dataclass, field

from lit_mem.data.canaries.base import CanarySource
from lit_mem.data.chat.options import Chat
from lit_mem.data.chunk_options import Chunk
from lit_mem.data.deduplicate import Deduplicate
from lit_mem.data.detectors import Detector
from lit_mem.errors import check_range


@dataclass(frozen=True)
class DataOptions:
    """Options of `lit_mem.data.prepare`; see the option of `TextDataModule` with the same name.

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
    heldout_fraction: float | None = 0.2
    seed: int = 0
    check: bool = True
    spans_column: str | None = "spans"
    canary_source: CanarySource | None = None
    show_groups: bool = False
    chat: Chat = field(default_factory=Chat)
    deidentified_marks: bool = False
    detector: Detector | None = None
    chunk: Chunk | None = None

    def __post_init__(self) -> None:
        positive(train_size=self.train_size, heldout_size=self.heldout_size, members_size=self.members_size)
        check_range("data.seed", self.seed, at_least=0)
        check_range("data.max_length", self.max_length, at_least=2, hint=": the first token is never scored")
        if self.chunk is not None:
            self.chunk.sizes(self.max_length)
        check_range("data.heldout_fraction", self.heldout_fraction, above=0, below=1, or_null=True)


def positive(**sizes: int | None) -> None:
    """Check that each size of `data` is at least 1, or None.

    Raises:
        ConfigError: a size is below 1.
    """
    for name, size in sizes.items():
        check_range(f"data.{name}", size, at_least=1, or_null=True)
