"""Set up a trainer's run for measuring: texts, model, reference, and record."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import Trainer

from lit_mem.audit.gather import is_first_process
from lit_mem.audit.judging import Rule
from lit_mem.audit.loop import PassResult, known_of
from lit_mem.audit.measure import Measure, Pass
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.audit.passes import Session
from lit_mem.audit.record_line import line_of
from lit_mem.audit.run_files import RunFiles, put_aside
from lit_mem.audit.subject_models import Reference, readable_length
from lit_mem.data.chunk_options import Chunk
from lit_mem.data.deduplicate import count_duplicates
from lit_mem.data.encoding import Encoded
from lit_mem.data.example_sets import token_ids
from lit_mem.data.groups import Groups
from lit_mem.data.one_set import check_examples, encoded_set
from lit_mem.data.options import DataOptions
from lit_mem.data.sources.given_fields import Fields
from lit_mem.files.facts import now
from lit_mem.functional.planning import Scored
from lit_mem.guards import preserved_random_state
from lit_mem.hf.all_texts import all_texts
from lit_mem.hf.calling import check_whole, tokenizer_of
from lit_mem.hf.canaries import CanarySet
from lit_mem.hf.facts import TextsOfRun, facts_of
from lit_mem.hf.names import check_monitored
from lit_mem.hf.reference import frozen_model
from lit_mem.hf.setting import setting_of
from lit_mem.hf.trained_canaries import Beginnings, canaries_of
from lit_mem.hf.trainers_texts import copies_in, heldout_of, members_of
from lit_mem.types import Record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextOptions:
    """Options of the scored texts.

    Attributes:
        members: given training texts; None: a sample of the trainer's own.
        heldout: given texts that are not trained on; None: a sample of the trainer's evaluation set.
        fields: columns of the given texts.
        members_size: maximum number of members scored; None: 2000.
        heldout_size: maximum number of held-out texts scored; None: 2000.
        max_length: maximum number of tokens of given texts; None: the trainer's, or the model's context length.
        scoring_tokens: maximum number of tokens in a scoring batch.
        check: look for texts in both sets, and test whether the text alone reveals its set.
        seed: seed of the samples.
        canaries: canaries in the training set, which are excluded from the sample; None without any.
        chunk: windows for given texts longer than `max_length`; None: they are truncated.
        show_groups: show names of persons in given texts.
    """

    members: Any = None
    heldout: Any = None
    fields: Fields = None
    members_size: int | None = None
    heldout_size: int | None = None
    max_length: int | None = None
    scoring_tokens: int = 2048
    check: bool = True
    seed: int = 0
    canaries: CanarySet | None = None
    chunk: Chunk | None = None
    show_groups: bool = False


@dataclass
class TrainersRun:
    """A run of a trainer with its measures.

    Attributes:
        session: runs passes.
        files: the run's files; None on processes other than rank zero.
        records: metadata of the scored examples, by example id.
        scored: number of texts scored.
        rules: the limits in force.
    """

    session: Session
    files: RunFiles | None
    records: dict[int, Record]
    scored: Scored
    rules: Sequence[Rule] = field(default_factory=list)

    def measure(self, run: Pass, examples: bool) -> PassResult:
        """Run and record one pass; every process must call it.

        Args:
            run: the pass.
            examples: also write the per-example scores, without texts.

        Raises:
            MetricError: the loss of a text is not finite.
        """
        with preserved_random_state():
            result = self.session.run(run)
            line = line_of(self.session.audit, result.metrics, self.rules, run.step)
            if self.files is not None and line is not None:
                self.files.persons(result)
                self.files.add(line)
                if examples:
                    self.files.examples(result, self.records)
        return result


def start(
    trainer: Trainer,
    texts: TextOptions,
    measures: Sequence[Measure],
    reference: Reference,
    rules: Sequence[Rule],
    folder: Path,
) -> TrainersRun:
    """Prepare texts, model and reference of a trainer; every process must call it.

    Args:
        trainer: about to train or evaluate.
        texts: options of the scored texts.
        measures: the measures.
        reference: the frozen model to compare with; "auto": the model without its adapter, or at the start of training.
        rules: the limits in force.
        folder: folder of the record.

    Raises:
        ConfigError: an option is invalid, or the trainer's texts cannot be separated.
        DataError: a given row has an unexpected form.
        ModelError: a reference cannot be loaded.
    """
    check_whole(trainer)
    started = now()
    tokenizer = tokenizer_of(trainer)
    with preserved_random_state():
        copies = copies_in(trainer) if texts.members is None or texts.canaries is not None else None
        counts: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        members, heldout = _examples(trainer, texts, copies, counts)
        n = len(members) + len(heldout)
        canaries = [] if texts.canaries is None else canaries_of(trainer, texts.canaries, members, n, copies)
        trust = check_examples(members, heldout, texts.seed) if texts.check else None
        frozen = frozen_model(trainer, reference)
        ids = {True: token_ids(members), False: token_ids(heldout)}
        groups = Groups.of(counts[0], counts[1], texts.show_groups)
        everything = {
            True: all_texts(trainer, True, Beginnings(texts.canaries, tokenizer)) if texts.members is None else None,
            False: all_texts(trainer, False) if texts.heldout is None else None,
        }
        autocast = trainer.accelerator.autocast
        subject = ModelSubject(trainer.model, tokenizer, frozen, ids, autocast, groups=groups, everything=everything)
        session = Session(
            subject, [heldout, members, canaries], measures, texts.scoring_tokens, fresh=not trainer.state.global_step
        )
        known = known_of(session.audit.measures)
        for rule in rules:
            known.check(rule.limits.names(), rule.set_by)
        check_monitored(trainer, known)
    inserted = 0 if texts.canaries is None else len(texts.canaries.texts)
    of_members = _length(trainer.train_dataset, len(members), inserted)
    scored = Scored(len(members), len(heldout), of_members, len(heldout))
    log.info("Scored: %d members of the training set and %d held-out texts.", scored.members, scored.heldout)
    files = None
    if is_first_process():
        if trainer.is_in_train and not trainer.state.global_step:
            put_aside(folder)
        files = RunFiles(folder)
    if trust is not None:
        for line in trust.warnings:
            log.warning("%s", line)
    if files is not None:
        setting = setting_of(trainer, texts.members is not None, frozen, texts.canaries)
        found = TextsOfRun(copies, of_members, heldout, groups)
        files.describe(setting, "fit", trust, scored, lambda: facts_of(trainer, started, found))
    records = {one.example_id: one.record for one in [*members, *heldout] if one.record is not None}
    return TrainersRun(session, files, records, scored, rules)


def longest(trainer: Trainer, texts: TextOptions) -> int:
    """Maximum number of tokens of given texts."""
    readable = readable_length(trainer.model)
    return texts.max_length or min(getattr(trainer.args, "max_length", None) or readable, readable)


def _examples(
    trainer: Trainer,
    texts: TextOptions,
    copies: Counter[tuple[int, ...]] | None,
    counts: tuple[Counter[str], Counter[str]],
) -> tuple[Sequence[Encoded], Sequence[Encoded]]:
    tokenizer = tokenizer_of(trainer)
    options = DataOptions(
        max_length=longest(trainer, texts), add_eos=False, seed=texts.seed, chunk=texts.chunk,
        show_groups=texts.show_groups,
    )  # fmt: skip
    of_canaries = Beginnings(texts.canaries, tokenizer)
    if texts.members is None:
        members = members_of(trainer, texts.members_size, texts.seed, 0, of_canaries)
        if copies is None:
            count_duplicates(members, members=members)
        else:
            for one in members:
                if one.record is not None:
                    one.record.duplicates = max(0, copies[tuple(one.input_ids.tolist())] - 1)
    else:
        size = texts.members_size
        given = texts.members, "members", tokenizer, options, size, True, 0, texts.fields, counts[0]
        members = list(encoded_set(*given))
    first, size = len(members), texts.heldout_size
    if texts.heldout is None:
        heldout = heldout_of(trainer, size, texts.seed, first)
    else:
        given = texts.heldout, "heldout", tokenizer, options, size, False, first, texts.fields, counts[1]
        heldout = list(encoded_set(*given))
    of_canaries.check_none(members, "members")
    of_canaries.check_none(heldout, "heldout")
    return members, heldout


def _length(rows: Any, otherwise: int, canaries: int) -> int:
    rows_of_texts = len(rows) - canaries if hasattr(rows, "__len__") else 0
    return max(rows_of_texts, otherwise)  # packed rows hold several texts
