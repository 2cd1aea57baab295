"""One text of a run, cut into prefix and suffix."""

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
    """Examines a model on one text; at most two other texts are scored.

    Args:
        checkpoint: checkpoint whose weights are examined.
        example_id: id of a training or held-out text.
        prefix: where it is cut, as in `lit_mem.callbacks.Extraction`.
        option: option that selects the example, for messages.

    Attributes:
        example: the text, once the data is read.
        prompt: the text cut into prefix and suffix.
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
            ConfigError: there is no such text, or no token is left for its suffix.
        """
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, TextDataModule)
        assert isinstance(pl_module, CausalLM)
        if data.documents:
            raise ConfigError(
                f"{self.option}: {data.documents} texts of this run are trained on in windows (data.chunk), but texts "
                "are examined whole here; expected a run without data.chunk"
            )
        self.train = list({example.example_id: example for example in data.train}.values())
        known = {example.example_id: example for example in [*self.train, *data.heldout]}
        if self.example_id not in known:
            raise ConfigError(
                f"{self.option} is {self.example_id}, but this run has no such text; expected an id from {min(known)} "
                f"to {max(known)}"
            )
        self.example = known[self.example_id]
        ids = self.example.input_ids
        labels = ids.masked_fill(~self.example.scored, IGNORED)
        given = float(self.prefix) if self.prefix < 1 else int(self.prefix)
        self._cut = partial(cut_prompt, ids, labels, given)
        prompt = self._cut(end_tokens(pl_module))
        if prompt is None:
            raise ConfigError(
                f"--prefix is {self.prefix:g}: no suffix is left of example {self.example_id} "
                f"({int(self.example.scored.sum())} tokens); expected a shorter prefix"
            )
        self.prompt = prompt
        super().setup(trainer, pl_module, stage)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Examine the text."""
        assert isinstance(pl_module, CausalLM)
        # Only now is the model loaded, which may stop at more tokens than the tokenizer defines.
        self.prompt = self._cut(end_tokens(pl_module)) or self.prompt
        with trainer.precision_plugin.forward_context():  # callbacks run without autocast
            self.look(pl_module)

    @abstractmethod
    def look(self, module: CausalLM) -> None:
        """Examine the text, with the checkpoint's weights and in the run's precision."""


def origin_of(example: Encoded) -> str:
    """Origin of a text; "" if not known."""
    return "" if example.record is None else example.record.origin
