"""The measuring callback: a suite of measures, its outputs, and early stopping."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from torch import nn

from lit_mem.attacks.base import Attack
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.headline import Sent
from lit_mem.audit.loop import clash
from lit_mem.audit.measure import Measure, Stateful
from lit_mem.audit.measures.base_metrics import BaseMetrics
from lit_mem.audit.measures.heldout_loss import HeldOutLoss
from lit_mem.audit.measures.perplexity import Perplexity
from lit_mem.audit.subject_models import Reference
from lit_mem.audit.suite import Suite, of_canaries
from lit_mem.audit.suite import suite as measures_of
from lit_mem.data.chunk_options import Chunk
from lit_mem.data.sources.given_fields import Fields
from lit_mem.errors import ConfigError, check_range
from lit_mem.lightning import dashboard
from lit_mem.lightning.auditing import HasMeasures, audit_of, measures
from lit_mem.lightning.base_model import BaseModel
from lit_mem.lightning.baseline import Baseline
from lit_mem.lightning.checkpoint import MemorizationCheckpoint
from lit_mem.lightning.driven import pass_after_epoch, pass_before_training
from lit_mem.lightning.early_stopping import MemorizationEarlyStopping
from lit_mem.lightning.of_trainer import callbacks_of
from lit_mem.lightning.own_pass import OwnPass, OwnTexts, check_whole
from lit_mem.lightning.perplexity_drop import PerplexityDropWarning
from lit_mem.lightning.runs_audit import RunsAudit
from lit_mem.lightning.signals import EndOnSigterm
from lit_mem.lightning.stopwatch import Stopwatch
from lit_mem.lightning.table import EpochTable

_LIGHTNINGS_DEFAULT = 2
"""Lightning's default number of sanity-check batches."""


class Memorization(HasMeasures, RunsAudit):
    """Measures memorization before training and in every validation, logs it, keeps checkpoints, and stops the run.

    It adds the following callbacks if `trainer.callbacks` has none of their kind: a table in the console
    (`EpochTable`), a warning if only the members' perplexity falls (`PerplexityDropWarning`), timings (`Stopwatch`),
    checkpoints (`MemorizationCheckpoint`, unless `enable_checkpointing` is false) and, with `stop`,
    `MemorizationEarlyStopping`. Canaries are measured if `data.canaries` creates some.

    For any other LightningModule and data, pass texts: `members` and `heldout`. The callback then scores them itself
    with the module's language model, before training, in each validation, and, without validation, at the end of each
    training epoch. Training stays bit-identical. A `ModelCheckpoint` of your own replaces the default one.

    Args:
        suite: `quick` (no generation), `standard`, `full` (all slices, and unprompted generation) or `none`.
        stop: thresholds that stop training, such as "mia/strongest_auroc > 0.7"; or the preset `strict` or `standard`.
        stop_when: "any" threshold is exceeded, or "all" of them at once.
        lower_bound: if a metric has an interval, read its safe end, at a level spread over all thresholds and passes:
            noise alone stops at most 5 % of runs.
        patience: number of consecutive validations over the limits before training stops.
        attacks: membership inference attacks, by logged name; None: those that need no extra forward passes.
        extraction: how texts are prompted; null: nothing is generated.
        measures: further measures; each replaces those of the suite that would log the same names.
        log: metrics sent to loggers. `main`: those of `lit_mem.audit.headline.MAIN`, those that thresholds and
            monitors name, and those of custom measures; `all`: every one. The record, the report, the table,
            thresholds and monitors have all of them in both cases. With `main` and a logger, `Trainer.validate`
            returns the main ones; `trainer.callback_metrics` holds all.
        members: training texts, for a custom module: a list of strings, of `{prompt, completion}` rows or of
            conversations (`{messages}`), a `datasets.Dataset`, or the path of a file, folder or glob pattern
            (docs/guides/data.md). None: read the `lit_mem.types.TokenScores` that `validation_step` returns.
        heldout: texts of the same kind that are not trained on, in the same forms.
        model: the Hugging Face or peft model that the module trains, or the name of its attribute that holds it; None:
            the only one among its submodules. This option and those below apply with `members`.
        tokenizer: the tokenizer, the name of the module's attribute that holds it, or its hub id or folder; None:
            the module's attribute `tokenizer`.
        reference: the frozen model to compare with: "auto" (the model without its adapter, or a copy of it at the start
            of training), "adapter_off", a model, the hub id or folder of one, or None.
        max_length: maximum number of tokens of a text; longer ones are truncated. None: the model's context length, at
            most 4096.
        members_size: score a random subset of this many members; None: all of up to 2000, otherwise as many as there
            are held-out texts, at least 2000.
        heldout_size: score a random subset of this many held-out texts; None: all.
        fields: which columns hold the texts, if not `text`, `prompt` and `completion`, or `messages`: a column name,
            or {text_column, prompt_template, completion_template, group_column}; for files also {delimiter, encoding,
            skip_unusable}.
        scoring_tokens: maximum number of tokens in a scoring batch.
        check: look for texts in both sets, and test whether the text alone reveals its set.
        seed: seed of the subsets.
        chunk: {tokens, stride}: score texts longer than `max_length` in full, in windows (see `lit_mem.data.chunks`).
        show_groups: show names of persons (`group_column`) in the table of persons, and keep columns that name them.

    Raises:
        ConfigError: an option is invalid.
    """

    def __init__(
        self,
        suite: Suite = "standard",
        stop: list[str] | str = [],  # noqa: B006  (shown by --help; never changed)
        stop_when: Literal["any", "all"] = "any",
        lower_bound: bool = False,
        patience: int = 1,
        attacks: dict[str, Attack] | None = None,
        extraction: ExtractionOptions | None = ExtractionOptions(),  # noqa: B008  (likewise)
        measures: list[Measure] = [],  # noqa: B006  (likewise)
        log: Sent = "main",
        *,
        members: Any = None,
        heldout: Any = None,
        model: nn.Module | str | None = None,
        tokenizer: Any = None,
        reference: Reference = "auto",
        max_length: int | None = None,
        members_size: int | None = None,
        heldout_size: int | None = None,
        fields: Fields = None,
        scoring_tokens: int = 2048,
        check: bool = True,
        seed: int = 0,
        chunk: Chunk | None = None,
        show_groups: bool = False,
    ) -> None:
        if log not in get_args(Sent):
            raise ConfigError(f"Memorization.log is {log!r}; expected main or all")
        self.suite, self.stop = suite, [stop] if isinstance(stop, str) else list(stop)
        self.attacks, self.extraction, self.others = attacks, extraction, list(measures)
        self._texts: OwnTexts | None = None
        if members is not None or heldout is not None:
            self._texts = OwnTexts(
                members, heldout, model, tokenizer, reference, max_length, members_size, heldout_size, fields,
                scoring_tokens, check, seed, chunk, show_groups,
            )  # fmt: skip
        elif model is not None or tokenizer is not None:
            raise ConfigError("Memorization.members is None, but model or tokenizer is given; set members to texts")
        elif chunk is not None:
            raise ConfigError("Memorization.members is None, but chunk is given; set data.chunk instead")
        self.measures = self._suite(measures)
        self.sent = log  # Lightning gives each callback a method `log`
        self._brought: list[Callback] = []
        self._stopping = _stopping(self.stop, stop_when, lower_bound, patience) if self.stop else None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Add the accompanying callbacks, and prepare the measures.

        Raises:
            ConfigError: an option is invalid, or two measures log the same name.
        """
        super().setup(trainer, pl_module, stage)
        brought, self._brought = self._brought, []
        for callback in brought:  # Lightning iterates over the list as it was when `setup` began
            callback.setup(trainer, pl_module, stage)

    def prepare(self, trainer: pl.Trainer) -> None:
        """Add the accompanying callbacks, and measures of canaries if there are any.

        Raises:
            ConfigError: given texts cannot be scored under the trainer's strategy.
        """
        self._brought = self.attach(trainer)
        if self._texts is not None and self.measures:
            check_whole(trainer)
            audit_of(trainer).own = OwnPass(self._texts)
            own: list[Measure] = [HeldOutLoss()]
            if trainer.state.fn != "fit":
                own.append(BaseMetrics(self.measures))
            others = [one for one in self.measures if not isinstance(one, HeldOutLoss | BaseMetrics)]
            self.measures = [*others, *own]
        data = getattr(trainer, "datamodule", None)
        if self._texts is None and self.measures and getattr(data, "canary_source", None) is not None:
            self.measures = [*self.measures, *of_canaries(measures(trainer))]

    def attach(self, trainer: pl.Trainer) -> list[Callback]:
        """Add the accompanying callbacks that the trainer lacks; returns those added."""
        there = callbacks_of(trainer)
        listed = [one for one in there if isinstance(one, Measure)]
        if any(clash(one, other) for other in listed for one in self.measures):
            made = self._suite([*self.others, *listed])
            self.measures = [one for one in made if one not in listed]
        if not self.measures:
            return []
        wanted: list[Callback] = [EndOnSigterm(), Baseline(), Stopwatch(), EpochTable()]
        if self._texts is None:
            wanted.append(BaseModel())
        if any(isinstance(one, Perplexity) for one in measures(trainer)):
            wanted.append(PerplexityDropWarning())
        brought = [one for one in wanted if not any(type(one) is type(other) for other in there)]
        if self._stopping is not None and all(one.state_key != self._stopping.state_key for one in there):
            brought.append(self._stopping)
        keepers: list[Callback] = []
        if self._keeps_checkpoints(trainer):
            keepers.append(MemorizationCheckpoint())
        # Checkpoint callbacks are last, so that they save the state of the others.
        kept = [one for one in there if isinstance(one, Checkpoint) and not (keepers and _is_default(one))]
        others = [one for one in there if not isinstance(one, Checkpoint)]
        if self._texts is not None:  # its pass precedes other callbacks that read metrics in the same hook
            others.sort(key=lambda one: one is not self)
        trainer.callbacks = [*others, *brought, *kept, *keepers]  # type: ignore[attr-defined]
        default = trainer.num_sanity_val_steps == _LIGHTNINGS_DEFAULT
        if default and self._texts is None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.num_sanity_val_steps = math.inf  # all batches, as the metrics before training are reported
        return [*brought, *keepers]

    def _suite(self, others: list[Measure]) -> list[Measure]:
        compares = self._texts is None or self._texts.reference is not None
        return measures_of(self.suite, self.attacks, self.extraction, others, compares)

    def _keeps_checkpoints(self, trainer: pl.Trainer) -> bool:
        """Whether to add a checkpoint callback: the trainer keeps checkpoints, and no custom one replaces ours."""
        there = trainer.checkpoint_callbacks
        if self._texts is not None:
            return bool(there) and all(_is_default(one) for one in there)
        return bool(there) and not any(isinstance(one, MemorizationCheckpoint) for one in there)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure given texts before training; write TensorBoard's Custom Scalars layout and the first limits."""
        if self.measures:
            pass_before_training(trainer, pl_module)
            dashboard.write_layout(trainer)
            if not trainer.global_step:
                dashboard.write_limits(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure given texts if there is no validation."""
        if self.measures:
            pass_after_epoch(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Append to the record; continue the lines of thresholds."""
        super().on_validation_end(trainer, pl_module)
        if self.measures and trainer.state.fn == "fit" and not trainer.sanity_checking:
            dashboard.write_limits(trainer)

    def state_dict(self) -> dict[str, Any]:
        """State of the measures for resuming."""
        return {one.state_key: one.state_dict() for one in self.measures if isinstance(one, Stateful)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of the measures."""
        for one in self.measures:
            if isinstance(one, Stateful) and one.state_key in state_dict:
                one.load_state_dict(state_dict[one.state_key])


def _stopping(
    stop: list[str], stop_when: Literal["any", "all"], lower_bound: bool, patience: int
) -> MemorizationEarlyStopping:
    """The early-stopping callback; its messages name the options of this section.

    Raises:
        ConfigError: an option is invalid.
    """
    check_range("memorization.patience", patience, at_least=1)
    made = MemorizationEarlyStopping(stop, stop_when, lower_bound, patience)
    made.option = "memorization.stop"
    return made


def _is_default(callback: Checkpoint) -> bool:
    """Whether it is Lightning's default checkpoint callback."""
    return (
        type(callback) is ModelCheckpoint
        and callback.dirpath is None
        and callback.monitor is None
        and callback.filename is None
        and not callback.save_last
    )
