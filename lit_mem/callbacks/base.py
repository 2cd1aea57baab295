"""What the measuring callbacks share: they read the validation loop's `TokenScores` and log once it ends."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_mem.callbacks.stopped import written_if_stopped
from lit_mem.console import show_messages
from lit_mem.divergence import not_finite, refuse_not_finite
from lit_mem.errors import ConfigError
from lit_mem.functional.ends import end_tokens
from lit_mem.functional.plain_text import markdown_table
from lit_mem.guards import preserved_random_state
from lit_mem.metrics.examples import ScoreTable, joined
from lit_mem.report.figures import any_script
from lit_mem.types import Batch, Needs, TokenScores, holds_canaries

log = logging.getLogger(__name__)

NO_BASE = "the TokenScores of validation_step have no reference_hit, so nothing is measured of the base model"


class Measure(Callback, ABC):
    """One kind of measurement, computed from every validation (or test) pass.

    It observes: whatever a subclass does, the global random state is as before. In the sanity check before
    training it measures as well, which gives the figures of the untrained model (see `Baseline`).

    Attributes:
        needs: what it reads of `TokenScores` that is computed only if someone reads it.
        generates: whether it generates text, which takes long: what the others measure is computed before that.
        of_canaries: whether it measures canaries, and nothing else; the others never see one.
        metric_prefixes: how names begin that this callback logs and cannot list before it has seen the data.
        ends: ids of the tokens at which the model's decoding stops.
        figures: what the last pass measured, by name.
        examples: what the last pass measured of single examples, a row each, by name; None if it does not say. An
            example that was not asked has NaN.
        absent: metrics that it would log and cannot in this run, by name, with what they lack.
    """

    needs: Needs = Needs()
    generates: bool = False
    of_canaries: bool = False
    metric_prefixes: tuple[str, ...] = ()
    ends: frozenset[int] = frozenset()
    figures: Mapping[str, float] = MappingProxyType({})
    examples: ScoreTable | None = None
    absent: Mapping[str, str] = MappingProxyType({})
    _finished: bool = False
    _not_finite: str | None = None

    @abstractmethod
    def metric_names(self) -> list[str]:
        """Names that this callback logs, so that a threshold on a misspelt one is refused at once."""

    @abstractmethod
    def begin(self) -> None:
        """Forget the last pass."""

    @abstractmethod
    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Take in one batch. It may ask the model, on each rank as often as it needs; it may not gather over ranks."""

    @abstractmethod
    def results(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """The pass's figures by name; computed on every rank. A figure that cannot be measured is left out."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a trainer that logs nothing, and a second callback that would log under the same names.

        Raises:
            ConfigError: it is one, or there is one.
        """
        show_messages()
        self.absent = {}
        if trainer.barebones:
            raise ConfigError(
                f"trainer.barebones is true: nothing is logged, so {type(self).__name__} can log no figures; "
                "leave one of them out"
            )
        if stage == "fit" and trainer.limit_val_batches == 0 and self is measures(trainer)[0]:
            log.warning(
                "trainer.limit_val_batches is 0: nothing is measured, no threshold can stop the run, and only what "
                "needs no validation writes a checkpoint."
            )
        for other in measures(trainer):
            if other is not self and (shared := sorted(set(self.metric_names()) & set(other.metric_names()))):
                raise ConfigError(f"{type(self).__name__} and {type(other).__name__} both log {shared[0]!r}")

    def leave_out(self, names: Iterable[str], reason: str) -> None:
        """Go without metrics whose input the module does not give, with one warning; thresholds on them are rejected.

        Args:
            names: of the metrics, as they are logged.
            reason: which they are, and what they lack.
        """
        self.absent = {**self.absent, **dict.fromkeys(names, reason)}
        log.warning("%s: %s.", type(self).__name__, reason)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let a run that `max_steps` ends amid an epoch end with a validation, as one that `max_time` ends does."""
        if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start over."""
        self._finished = False
        self._not_finite = None
        self.ends = end_tokens(pl_module)
        self.begin()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Read the scores that `validation_step` returned.

        Raises:
            ConfigError: it returned something else.
        """
        if not isinstance(outputs, TokenScores):
            raise ConfigError(
                f"{type(self).__name__} reads the TokenScores that validation_step returns, "
                f"but {type(pl_module).__name__}.validation_step returned {type(outputs).__name__}"
            )
        if holds_canaries(batch) != self.of_canaries:
            return
        self._not_finite = self._not_finite or not_finite(outputs, batch)
        with preserved_random_state(), in_step(pl_module):
            self.observe(outputs, batch)

    def finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute figures and examples of the pass, once; earlier than its own turn if another callback reads them.

        Raises:
            MetricError: a text had no loss that is a number.
        """
        if not self._finished:
            self._finished = True
            refuse_not_finite(self._not_finite, trainer, pl_module)
            scored = [m for m in measures(trainer) if not m.generates and not isinstance(m, Relation)]
            whole = not partial_check(trainer)
            keep = written_if_stopped(trainer, pl_module, scored, whole) if self.generates else nullcontext()
            with preserved_random_state(), keep:
                self.figures = self.results(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute and log; early enough for whatever monitors these names, in any order of callbacks."""
        self.finish(trainer, pl_module)
        # Every rank has computed the same from all rows, so the mean over ranks changes nothing.
        pl_module.log_dict(dict(self.figures), sync_dist=True)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As in validation."""
        self.on_validation_start(trainer, pl_module)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As in validation."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """As in validation."""
        self.on_validation_epoch_end(trainer, pl_module)


class Relation(Measure):
    """A measure of what other measures found: it reads their per-example numbers."""


def per_example(trainer: pl.Trainer, pl_module: pl.LightningModule) -> ScoreTable:
    """All per-example numbers of the pass that just ended, a row for each validated example, NaN where not measured.

    Every rank must call it, and has the same rows.
    """
    tables = []
    for measure in measures(trainer):
        if not isinstance(measure, Relation):
            measure.finish(trainer, pl_module)
            if measure.examples is not None:
                tables.append(measure.examples)
    return joined(tables)


def whole_check(trainer: pl.Trainer) -> bool:
    """Whether Lightning's check before training runs over all validation batches, so that its figures count."""
    return bool(trainer.num_sanity_val_batches == trainer.num_val_batches)


def partial_check(trainer: pl.Trainer) -> bool:
    """Whether this pass is a check before training over some of the batches, of which no counts are worth telling."""
    return bool(trainer.sanity_checking) and not whole_check(trainer)


def means_by_set(table: ScoreTable, columns: Iterable[str], room: str) -> dict[str, float]:
    """Each column's mean over members, `<room>/<column>`, and over held-out texts, `…_heldout`; a set may be absent."""
    sets = (("", table.members()), ("_heldout", table.nonmembers()))
    return {f"{room}/{c}{part}": rows[c].mean().item() for c in columns for part, rows in sets if len(rows)}


def in_step(module: Any) -> AbstractContextManager[None]:
    """While ranks ask a module different numbers of times; where its base is spread over them, one waits for another.

    Every rank must enter, and may not gather anything within (see `lit_mem.sharding.Lockstep`).
    """
    context: AbstractContextManager[None] = getattr(module, "lockstep", nullcontext)()
    return context


def callbacks_of(trainer: pl.Trainer) -> list[Callback]:
    """The trainer's callbacks."""
    # Lightning sets this attribute without declaring it.
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def measures(trainer: pl.Trainer) -> list[Measure]:
    """Those of the trainer's callbacks that measure."""
    return [callback for callback in callbacks_of(trainer) if isinstance(callback, Measure)]


def latest_figures(trainer: pl.Trainer) -> dict[str, float]:
    """What the validation that just ended logged, by name.

    `trainer.callback_metrics` keeps a figure's last value through validations that did not measure it (extraction
    every n validations), and keeps it in float32, where 0.6 is above 0.6.
    """
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for measure in measures(trainer):
        for name in [*measure.metric_names(), *(n for n in figures if n.startswith(measure.metric_prefixes))]:
            figures.pop(name, None)
        figures.update(measure.figures)
    return figures


def log_figure(trainer: pl.Trainer, name: str, figure: Any) -> None:
    """Give a matplotlib figure to every logger that shows pictures; others go without."""
    from lightning.pytorch.loggers import TensorBoardLogger

    if not trainer.is_global_zero or partial_check(trainer):
        return
    step = _step(trainer)
    with any_script():
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(name, figure, global_step=step)
            elif hasattr(logger, "log_image"):
                logger.log_image(name, [_picture(figure)], step=step)


def _step(trainer: pl.Trainer) -> int:
    """Where Lightning puts the scalars of this validation."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def log_table(trainer: pl.Trainer, name: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Give a table to TensorBoard; it must hold no training text."""
    from lightning.pytorch.loggers import TensorBoardLogger

    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.add_text(name, markdown_table(header, rows), global_step=_step(trainer))


def _picture(figure: Any) -> Any:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
