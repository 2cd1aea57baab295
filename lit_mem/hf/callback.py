"""A callback for Hugging Face's Trainer and TRL's trainers that measures memorization live, and stops training."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lit_mem.attacks.base import Attack
from lit_mem.audit.gather import is_first_process
from lit_mem.audit.headline import Sent
from lit_mem.audit.judging import Rule
from lit_mem.audit.measure import Measure
from lit_mem.audit.measures import PrivacyAudit
from lit_mem.audit.messages import show_messages
from lit_mem.audit.stopping import Stopping
from lit_mem.audit.subject_models import Reference
from lit_mem.audit.suite import ExtractionOptions, Suite, extraction_options, of_canaries, with_loss
from lit_mem.audit.suite import suite as measures_of
from lit_mem.audit.thresholds import Limits
from lit_mem.data.chunks import Chunk, chunk_of
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
    """Measures what the model memorizes, before training and at every evaluation, and ends training at limits.

    With no argument members are a sample of the trainer's training set and held-out texts its evaluation set, both as
    its collator makes them. Metrics go to `trainer.log`, and with `eval_` in front into what `evaluate` returns, so
    that `metric_for_best_model="eval_mia/reference_auroc"` works. The record is `<output_dir>/memorization`, of which
    `lit-mem report` makes a page. Training is the same, to the last bit, with the callback and without it.

    Args:
        members: texts of the training set in place of the sample: a list of texts, of rows or of conversations, a
            `datasets.Dataset`, or the path of a file.
        heldout: texts that are not trained on, likewise.
        canaries: those that `insert_canaries` put into the training set; they are in no other metric.
        suite: `quick` (no generation), `standard`, `full` or `none`.
        stop: one or more limits, such as "mia/strongest_auroc > 0.7", or the preset `strict` or `standard`
            (`lit_mem.audit.thresholds.PRESETS`, docs/guides/stopping.md).
        stop_when: training ends where "any" limit is passed, or "all" of them at once.
        lower_bound: where a metric has an interval, read the end that is nearer to the safe side, at a level spread
            over all thresholds and passes: noise alone stops at most 5 % of runs.
        patience: how many passes in a row it must be so.
        attacks: of membership inference, by name; None: those of no extra cost.
        extraction: how texts are prompted, or some of these options by name; None: nothing is generated.
        measures: further measures.
        reference: the frozen model to compare with: "auto" (the model without its adapter, or a copy of it as training
            starts), "adapter_off", a model, the hub id or folder of one, or None.
        log: which metrics `trainer.log` gets: the `main` ones and those that limits name, or `all`.
        every_n_steps: measure every so many steps, and not at evaluations.
        every_n_epochs: likewise at the end of every so many epochs; 1 where neither is set and nothing is evaluated.
        before_training: measure before the first step too.
        members_size: how many members are scored at most; None: 2000.
        heldout_size: how many held-out texts, likewise.
        max_length: longest given text in tokens.
        fields: which columns hold the texts, where these are not `text`, `prompt` and `completion`, or `messages`: the
            name of the column, or {text_column, prompt_template, completion_template, group_column}; of files also
            {delimiter, encoding, skip_unusable}.
        scoring_tokens: most tokens in a scoring batch.
        check: look for texts on both sides before training, and whether text alone shows which set one is of.
        seed: of the samples.
        show_groups: show names of persons (`group_column`) in the table of persons, and keep columns that name them.
        folder: of the record; None: `memorization` in `output_dir`.
        examples: write the per-example numbers of each pass there too, without texts.
        chunk: {tokens, stride}: score given texts longer than `max_length` whole, in windows.

    Raises:
        ConfigError: an option is not one of those.
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
            raise ConfigError(
                f"{name}.{of_texts} is given without members and heldout; expected texts that are read so"
            )
        self.texts = TextOptions(
            members, heldout, fields, members_size, heldout_size, max_length, scoring_tokens, check, seed, canaries,
            chunk_of(chunk), show_groups,
        )  # fmt: skip
        self.live: LiveRun | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Get texts and model together; measure before the first step.

        Raises:
            ConfigError: an option or the trainer does not fit.
        """
        self.live = None
        trainer = calling_trainer()
        live = self._live(trainer)
        if live is None:
            return
        read_before(trainer.callback_handler, self)
        if state.global_step:
            live.go_on(control)
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
        """Measure, and put the metrics beside those of the evaluation."""
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
                metrics.setdefault(f"eval_{chosen_by}", math.nan)  # what could not be measured is never the best

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure every so many steps."""
        if self.live is not None and self.every_n_steps and state.global_step % self.every_n_steps == 0:
            self.live.measure_and_judge(control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure every so many epochs."""
        every = self.every_n_epochs
        if every is None and self.every_n_steps is None and str(getattr(args.eval_strategy, "value", "")) == "no":
            every = 1
        if self.live is not None and every and math.ceil(round(state.epoch or 0, 6)) % every == 0:
            self.live.measure_and_judge(control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log why training ended, where the model stands, and where the record lies."""
        if self.live is not None:
            self.live.end()

    def _live(self, trainer: Trainer) -> LiveRun | None:
        """The run of a trainer, begun if it is not; None without measures."""
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
    """What is measured of them; the audit reads those that are inserted once, and is left out without any.

    Raises:
        ConfigError: they are of another kind.
    """
    if not isinstance(canaries, CanarySet):
        raise ConfigError(
            f"MemorizationCallback.canaries is {type(canaries).__name__}; expected the set that insert_canaries "
            "returned"
        )
    once = any(one.repetitions == 1 for one in canaries.canaries)
    return [one for one in of_canaries(measures) if once or not isinstance(one, PrivacyAudit)]
