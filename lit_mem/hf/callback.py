"""A callback for Hugging Face's Trainer and TRL's trainers that measures memorization live, and can stop training."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lit_mem.attacks.base import Attack
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.gather import is_first_process
from lit_mem.audit.headline import Sent
from lit_mem.audit.judging import Rule
from lit_mem.audit.measure import Measure
from lit_mem.audit.measures import PrivacyAudit
from lit_mem.audit.messages import show_messages
from lit_mem.audit.stopping import Stopping
from lit_mem.audit.subject_models import Reference
from lit_mem.audit.suite import Suite, extraction_options, of_canaries, with_loss
from lit_mem.audit.suite import suite as measures_of
from lit_mem.audit.thresholds import Limits
from lit_mem.data.chunk_options import Chunk, chunk_of
from lit_mem.data.sources.given_fields import Fields
from lit_mem.errors import ConfigError, check_range
from lit_mem.files.record import IN_OUTPUT_DIR
from lit_mem.hf.calling import calling_trainer, read_before
from lit_mem.hf.canaries import CanarySet
from lit_mem.hf.live import LiveRun
from lit_mem.hf.names import evaluation_of, monitored, prefixed
from lit_mem.hf.planned import planned_looks
from lit_mem.hf.run import TextOptions, start


class MemorizationCallback(TrainerCallback):  # type: ignore[misc]
    """Measures memorization before training and at every evaluation, and stops training at limits.

    By default, members are a sample of the trainer's training set and held-out texts its evaluation set, both as
    collated by the trainer. Metrics are passed to `trainer.log`, and added to the result of `evaluate` with the prefix
    `eval_`, so that `metric_for_best_model="eval_mia/reference_auroc"` works. The record is written to
    `<output_dir>/memorization`, for `lit-mem report`. The callback does not change training: weights are bit-identical
    with and without it.

    Args:
        members: training texts to score instead of the sample: a list of strings, of rows or of conversations, a
            `datasets.Dataset`, or the path of a file.
        heldout: texts that are not trained on, in the same forms.
        canaries: the canaries that `insert_canaries` put into the training set; no other metric includes them.
        suite: `quick` (no generation), `standard`, `full` or `none`.
        stop: one or more limits, such as "mia/strongest_auroc > 0.7", or the preset `strict` or `standard`
            (`lit_mem.audit.thresholds.PRESETS`, docs/guides/stopping.md).
        stop_when: training stops if "any" limit is exceeded, or "all" of them at once.
        lower_bound: if a metric has an interval, read its safe end, at a level spread over all thresholds and passes:
            noise alone stops at most 5 % of runs.
        patience: number of consecutive passes over the limits before training stops.
        attacks: membership inference attacks, by name; None: those that need no extra forward passes.
        extraction: how texts are prompted, or some of these options by name; None: nothing is generated.
        measures: further measures.
        reference: the frozen model to compare with: "auto" (the model without its adapter, or a copy of it at the start
            of training), "adapter_off", a model, the hub id or folder of one, or None.
        log: metrics passed to `trainer.log`: the `main` ones and those that limits name, or `all`.
        every_n_steps: measure every n steps, instead of at evaluations.
        every_n_epochs: measure at the end of every n-th epoch; 1 if neither is set and the trainer does not evaluate.
        before_training: measure before the first step too.
        members_size: maximum number of members scored; None: 2000.
        heldout_size: maximum number of held-out texts scored; None: 2000.
        max_length: maximum number of tokens of given texts.
        fields: which columns hold the texts, if not `text`, `prompt` and `completion`, or `messages`: a column name,
            or {text_column, prompt_template, completion_template, group_column}; for files also {delimiter, encoding,
            skip_unusable}.
        scoring_tokens: maximum number of tokens in a scoring batch.
        check: before training, look for texts in both sets, and test whether the text alone reveals its set.
        seed: seed of the samples.
        show_groups: show names of persons (`group_column`) in the table of persons, and keep columns that name them.
        folder: folder of the record; None: `memorization` in `output_dir`.
        examples: also write the per-example scores of each pass there, without texts.
        chunk: {tokens, stride}: score given texts longer than `max_length` in full, in windows.

    Raises:
        ConfigError: an option is invalid.
    """

    def __init__(
        self,
        members: Any = None,
        heldout: Any = None,
        *,
        canaries: CanarySet | None = None,
        suite: Suite = "standard",
        stop: Sequence[str] | str = (),
        stop_when: Literal["any", "all"] = "any",
        lower_bound: bool = False,
        patience: int = 1,
        attacks: dict[str, Attack] | None = None,
        extraction: ExtractionOptions | Mapping[str, Any] | None = ExtractionOptions(),  # noqa: B008  (never changed)
        measures: Sequence[Measure] = (),
        reference: Reference = "auto",
        log: Sent = "main",
        every_n_steps: int | None = None,
        every_n_epochs: int | None = None,
        before_training: bool = True,
        members_size: int | None = None,
        heldout_size: int | None = None,
        max_length: int | None = None,
        fields: Fields = None,
        scoring_tokens: int = 2048,
        check: bool = True,
        seed: int = 0,
        show_groups: bool = False,
        folder: str | os.PathLike[str] | None = None,
        examples: bool = False,
        chunk: Chunk | Mapping[str, Any] | None = None,
    ) -> None:
        name = type(self).__name__
        for option, value in (("every_n_steps", every_n_steps), ("every_n_epochs", every_n_epochs)):
            check_range(f"{name}.{option}", value, at_least=1, or_null=True)
        check_range(f"{name}.patience", patience, at_least=1)
        for option, given, there in (("log", log, ("main", "all")), ("stop_when", stop_when, ("any", "all"))):
            if given not in there:
                raise ConfigError(f"{name}.{option} is {given!r}; expected {' or '.join(there)}")
        self.limits = Limits([stop] if isinstance(stop, str) else list(stop), lower_bound) if stop else None
        self.stop_when, self.patience, self.sent, self.reference = stop_when, patience, log, reference
        self.every_n_steps, self.every_n_epochs = every_n_steps, every_n_epochs
        self.before_training, self.folder, self.examples = before_training, folder, examples
        options = extraction_options(extraction)
        self.measures = with_loss(measures_of(suite, attacks, options, measures, compares=reference is not None))
        if canaries is not None:
            self.measures += _of_canaries(canaries, self.measures)
        of_texts = "chunk" if chunk is not None else "fields" if fields is not None else None
        if of_texts is not None and members is None and heldout is None:
            raise ConfigError(f"{name}.{of_texts} is given without members and heldout; it applies to given texts only")
        self.texts = TextOptions(
            members, heldout, fields, members_size, heldout_size, max_length, scoring_tokens, check, seed, canaries,
            chunk_of(chunk), show_groups,
        )  # fmt: skip
        self.live: LiveRun | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prepare texts and model; measure before the first step.

        Raises:
            ConfigError: an option is invalid, or the trainer is not supported.
        """
        self.live = None
        trainer = calling_trainer()
        live = self._live(trainer)
        if live is None:
            return
        read_before(trainer.callback_handler, self)
        if state.global_step:
            live.resume(control)
        elif self.before_training:
            live.measure()

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Measure, and add the metrics to those of the evaluation."""
        trainer = calling_trainer()
        live = self._live(trainer)
        if live is None:
            return
        evaluation, chosen_by = evaluation_of(metrics or {}), monitored(trainer)
        at_evaluations = self.every_n_steps is None and self.every_n_epochs is None
        if at_evaluations or not trainer.is_in_train or live.gives(chosen_by):
            live.measure_and_judge(control, evaluation)
        if metrics is not None and live.is_current:
            metrics.update(prefixed(live.metrics, evaluation))
            if chosen_by is not None and live.gives(chosen_by):
                metrics.setdefault(f"eval_{chosen_by}", math.nan)  # a missing metric is never the best

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure every n steps."""
        if self.live is not None and self.every_n_steps and state.global_step % self.every_n_steps == 0:
            self.live.measure_and_judge(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure every n epochs."""
        every = self.every_n_epochs
        if every is None and self.every_n_steps is None and str(getattr(args.eval_strategy, "value", "")) == "no":
            every = 1
        if self.live is not None and every and math.ceil(round(state.epoch or 0, 6)) % every == 0:
            self.live.measure_and_judge(control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log why training stopped, the verdict, and the path of the record."""
        if self.live is not None:
            self.live.end()

    def _live(self, trainer: Trainer) -> LiveRun | None:
        """The run of a trainer, started on first use; None without measures."""
        if self.live is not None and self.live.trainer is not trainer:
            self.live = None
        if self.live is None and self.measures:
            show_messages(first=is_first_process())
            rules = [] if self.limits is None else [Rule("stop", self.limits, self.stop_when)]
            folder = Path(self.folder or Path(str(trainer.args.output_dir), IN_OUTPUT_DIR))
            run = start(trainer, self.texts, self.measures, self.reference, rules, folder)
            stopping = None if self.limits is None else Stopping(self.limits, self.stop_when, self.patience)
            planned = planned_looks(trainer, self.every_n_steps, self.every_n_epochs)
            self.live = LiveRun(trainer, run, stopping, self.sent, self.examples, planned)
        return self.live


def _of_canaries(canaries: CanarySet, measures: Sequence[Measure]) -> list[Measure]:
    """Measures of canaries; the privacy audit only if some canaries are inserted once.

    Raises:
        ConfigError: `canaries` has the wrong type.
    """
    if not isinstance(canaries, CanarySet):
        raise ConfigError(
            f"MemorizationCallback.canaries is {type(canaries).__name__}; expected the set that insert_canaries "
            "returned"
        )
    once = any(one.repetitions == 1 for one in canaries.canaries)
    return [one for one in of_canaries(measures) if once or not isinstance(one, PrivacyAudit)]
