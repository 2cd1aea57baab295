"""How memorization decreases when parts of a trained adapter are turned off, from scoring passes only."""

from __future__ import annotations

import logging
import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, TypedDict

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from tqdm import tqdm  # type: ignore[import-untyped]  # it has no types

from lit_mem.attacks.reference import ReferenceRatio
from lit_mem.audit.known import Known
from lit_mem.audit.measure import Pass
from lit_mem.audit.measures.extraction import Extraction
from lit_mem.errors import MetricError
from lit_mem.extraction.ngram import NgramRate
from lit_mem.functional.auroc import auroc
from lit_mem.lightning.module import CausalLM
from lit_mem.lightning.module_subject import ModuleSubject
from lit_mem.localize.examination import Examination
from lit_mem.localize.parts import Part, Parts
from lit_mem.localize.replay import Replay
from lit_mem.types import Needs, TokenScores

log = logging.getLogger(__name__)

METRICS: Final = ("auroc", "perplexity_members", "ngram_rate")


class Metrics(TypedDict):
    """Memorization metrics of a model.

    Keys:
        auroc: AUROC of the reference attack, in [0, 1].
        perplexity_members: over all tokens of the members; None if not finite.
        ngram_rate: mean over the prompted members; None if none was prompted.
    """

    auroc: float
    perplexity_members: float | None
    ngram_rate: float | None


class Ablation(Examination):
    """Scores every batch with the whole adapter, then with each part of it turned off.

    Reference scores are computed once (or read from the run's cache). A pass with a part of layer l off starts at layer
    l, reusing the outputs of lower layers from the batch's first pass. If the first batch shows that this is not
    bit-exact for a model, all passes are whole.

    Attributes:
        parts: parts of the adapter, once the model is built.
        metrics: metrics by the part that was off; None: with the whole adapter.
        sizes: number of members and held-out texts scored.
    """

    needs = Needs(reference=True)

    def __init__(self, checkpoint: Path, rows: int | None = None, extraction: dict[str, Any] | None = None) -> None:
        super().__init__(checkpoint, rows)
        self._options = extraction
        self.parts: Parts
        self.metrics: dict[Part | None, Metrics] = {}
        self.sizes: tuple[int, int] = (0, 0)
        self._replay: Replay | None = None
        self._tried = False
        self._tables: dict[Part | None, _Table] = {}
        self._extraction: dict[Part | None, Extraction] = {}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load the checkpoint's weights; find the adapter's parts."""
        super().on_validation_start(trainer, pl_module)
        assert isinstance(pl_module, CausalLM)
        self.parts = Parts(pl_module.language_model)
        keys: list[Part | None] = [None, *self.parts.all()]
        self._tables = {key: _Table() for key in keys}
        log.info(
            "Each text is scored with each of %d parts of the adapter turned off%s.",
            len(keys) - 1, "" if self._options is None else ", and each prompted member is continued as often",
        )  # fmt: skip
        if self._options is not None:
            for key in keys:
                measure = Extraction(**self._options, n_heldout=0, base=False, measures={"ngram_rate": NgramRate()})
                subject = ModuleSubject(trainer, pl_module)
                measure.open(subject, Known(), fresh=False)
                measure.ends = subject.ends
                measure.begin(subject)
                self._extraction[key] = measure
        self._replay = self._replayed(pl_module.language_model)
        self._tried = False

    def _replayed(self, model: nn.Module) -> Replay | None:
        stack = model.get_submodule(self.parts.stack) if self.parts.stack else None
        return Replay(list(stack)) if isinstance(stack, nn.ModuleList) else None

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Record the outputs of the layers."""
        if self._replay is not None:
            self._replay.record()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the batch with each part turned off."""
        assert isinstance(pl_module, CausalLM)
        assert isinstance(outputs, TokenScores)
        if self._replay is not None:
            self._replay.stop()
        self._take(None, outputs, batch)
        with trainer.precision_plugin.forward_context():  # callbacks run without autocast
            if self._replay is not None and not self._tried:
                self._tried = True
                self._try(self._replay, pl_module, batch)
            for part in self.parts.all():
                scores = self._without(part, pl_module, batch)
                assert outputs.reference is not None
                self._take(part, scores.with_reference(outputs.reference), batch)
        if self._replay is not None:
            self._replay.clear()

    def _without(self, part: Part, module: CausalLM, batch: Any) -> TokenScores:
        with self.parts.off(part):
            with nullcontext() if self._replay is None else self._replay.below(self.parts.lowest(part)):
                return module.score(batch, Needs())

    def _try(self, replay: Replay, module: CausalLM, batch: Any) -> None:
        """Disable the shorter passes if any of them differs from a whole one."""
        for layer in self.parts.layers:
            with self.parts.off(Part(layer)):
                whole = module.score(batch, Needs())
            try:
                same = torch.equal(self._without(Part(layer), module, batch).logprob, whole.logprob)
            except (RuntimeError, TypeError, AttributeError, LookupError):
                same = False  # a higher layer depends on a side effect of a skipped one
            if not same:
                log.info("Passes that start at a layer are not bit-exact for this model: all passes are whole.")
                replay.clear()
                self._replay = None
                return

    def _take(self, key: Part | None, scores: TokenScores, batch: Any) -> None:
        self._tables[key].add(scores)
        if self._extraction and bool(scores.member.any()):
            self._extraction[key].observe(scores, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the metrics.

        Raises:
            MetricError: no text was scored, or scores are not finite.
        """
        assert isinstance(pl_module, CausalLM)
        # One generation per part; the progress bar is shown only on a terminal.
        bar = tqdm(self._tables.items(), "Generating without a part", disable=None if self._extraction else True)
        for key, table in bar:
            rate: float | None = None
            if self._extraction:
                with nullcontext() if key is None else self.parts.off(key):
                    run = Pass(ModuleSubject(trainer, pl_module))
                    rate = self._extraction[key].compute(run).metrics.get("extraction/ngram_rate")
            self.metrics[key] = table.metrics(rate)
            self.sizes = table.sizes()


class _Table:
    """Scores of each text under one variant of the model."""

    def __init__(self) -> None:
        self._attack = ReferenceRatio()
        self._score: list[Tensor] = []
        self._member: list[Tensor] = []
        self._logprob: list[Tensor] = []
        self._n_tokens: list[Tensor] = []

    def add(self, scores: TokenScores) -> None:
        counted = scores.n_tokens > 0  # texts without scored tokens have no score
        self._score.append(self._attack(scores)[counted])
        self._member.append(scores.member.cpu()[counted])
        self._logprob.append(scores.total_logprob[counted])
        self._n_tokens.append(scores.n_tokens[counted])

    def sizes(self) -> tuple[int, int]:
        member = torch.cat(self._member)
        return int(member.sum()), int((~member).sum())

    def metrics(self, ngram_rate: float | None) -> Metrics:
        if not self._member:
            raise MetricError("no text was scored; expected members and held-out texts")
        member = torch.cat(self._member)
        area = auroc(torch.cat(self._score), member).value
        loss = -(torch.cat(self._logprob)[member].sum() / torch.cat(self._n_tokens)[member].sum()).item()
        perplexity = math.exp(loss) if loss < 700 else None
        return {"auroc": area, "perplexity_members": perplexity, "ngram_rate": ngram_rate}
