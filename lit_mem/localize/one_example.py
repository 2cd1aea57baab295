"""One chosen text of a run, cut into prefix and suffix."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from pathlib import Path

import lightning.pytorch as pl

from lit_mem.data.encoding import Encoded
from lit_mem.errors import ConfigError
from lit_mem.extraction.prompts import Prompt, check_prefix, cut_prompt
from lit_mem.functional.ends import end_tokens
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.module import CausalLM
from lit_mem.localize.examination import Examination
from lit_mem.types import IGNORED


class OneExample(Examination):
    """Looks at what a model makes of one text; of the others, none but two are scored.

    Args:
        checkpoint: whose weights are looked at.
        example_id: of a training or a held-out text.
        prefix: where it is cut, as in `lit_mem.callbacks.Extraction`.
        option: that chose the example, for messages.

    Attributes:
        example: the text, once the data is read.
        prompt: the same, cut.
        train: the training texts, each once.
    """

    def __init__(self, checkpoint: Path, example_id: int, prefix: float, option: str) -> None:
        check_prefix(prefix, "--prefix")
        super().__init__(checkpoint, rows=1)
        self.example_id, self.prefix, self.option = example_id, prefix, option
        self.example: Encoded
        self.prompt: Prompt
        self.train: list[Encoded] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the example and cut it.

        Raises:
            ConfigError: there is no such, or no token is left for its suffix.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, TextDataModule)
        assert isinstance(pl_module, CausalLM)
        if data.documents:
            raise ConfigError(
                f"{self.option}: {data.documents} texts of this run are trained on in windows (data.chunk), and a text "
                "is looked at in one piece here; expected a run without data.chunk"
            )
        self.train = list({example.example_id: example for example in data.train}.values())
        known = {example.example_id: example for example in [*self.train, *data.heldout]}
        if self.example_id not in known:
            raise ConfigError(
                f"{self.option} is {self.example_id}, and this run has no such text; its ids go from {min(known)} to "
                f"{max(known)}"
            )
        self.example = known[self.example_id]
        ids = self.example.input_ids
        labels = ids.masked_fill(~self.example.scored, IGNORED)
        given = float(self.prefix) if self.prefix < 1 else int(self.prefix)
        self._cut = partial(cut_prompt, ids, labels, given)
        prompt = self._cut(end_tokens(pl_module))
        if prompt is None:
            raise ConfigError(
                f"--prefix is {self.prefix:g}: of example {self.example_id} ({int(self.example.scored.sum())} tokens) "
                "nothing is left for a suffix"
            )
        self.prompt = prompt
        super().setup(trainer, pl_module, stage)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look."""
        assert isinstance(pl_module, CausalLM)
        # Only now is the model there, which may stop at more tokens than the tokenizer knows of.
        self.prompt = self._cut(end_tokens(pl_module)) or self.prompt
        with trainer.precision_plugin.forward_context():  # callbacks get no autocast by themselves
            self.look(pl_module)

    @abstractmethod
    def look(self, module: CausalLM) -> None:
        """Do what is to be done, with the checkpoint's weights and in the run's precision."""


def origin_of(example: Encoded) -> str:
    """Where a text came from; "" where the data does not say."""
    return "" if example.record is None else example.record.origin
