"""Audit a finished model: measure in one call what it has memorized of its training texts."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lit_mem.attacks.base import Attack
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.facts import (
    adapter_files,
    adapter_parameters,
    all_parameters,
    base_fingerprint,
    started_facts,
    with_texts,
)
from lit_mem.audit.gather import is_first_process
from lit_mem.audit.judging import Rule
from lit_mem.audit.loop import known_of
from lit_mem.audit.measure import Measure, Pass
from lit_mem.audit.measures.base_metrics import BaseMetrics
from lit_mem.audit.messages import show_messages
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.audit.passes import Session
from lit_mem.audit.record_line import line_of
from lit_mem.audit.result import AuditResult
from lit_mem.audit.run_files import RunFiles
from lit_mem.audit.setting import kind_of, source_of
from lit_mem.audit.subject_models import (
    WORDS,
    Audited,
    Reference,
    audited_model,
    readable_length,
    reference_of,
    tokenizer_of,
)
from lit_mem.audit.suite import Suite, extraction_options, with_loss
from lit_mem.audit.suite import suite as measures_of
from lit_mem.audit.thresholds import Limits
from lit_mem.data.chat.options import Chat, chat_options
from lit_mem.data.chunk_options import Chunk, chunk_of
from lit_mem.data.chunks import setting_of as chunk_setting
from lit_mem.data.detectors import Detector
from lit_mem.data.example_sets import WholeTextsOf, extent, token_ids
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import Prepared, prepare
from lit_mem.data.sources.given import TwoSets
from lit_mem.data.sources.given_fields import Fields, fields_of
from lit_mem.errors import ConfigError
from lit_mem.files.facts import Facts, now
from lit_mem.files.versions import claim_version
from lit_mem.functional.planning import Scored
from lit_mem.models.limits import check_reads

log = logging.getLogger(__name__)


def run_audit(
    model: nn.Module | str | os.PathLike[str],
    tokenizer: Any = None,
    members: Any = None,
    heldout: Any = None,
    *,
    adapter: str | os.PathLike[str] | None = None,
    reference: Reference = "auto",
    suite: Suite = "standard",
    limits: Sequence[str] | str = (),
    lower_bound: bool = False,
    attacks: dict[str, Attack] | None = None,
    extraction: ExtractionOptions | Mapping[str, Any] | None = ExtractionOptions(),  # noqa: B008  (never changed)
    measures: Sequence[Measure] = (),
    fields: Fields = None,
    chat: Chat | Mapping[str, Any] | None = None,
    detector: Detector | None = None,
    max_length: int | None = None,
    members_size: int | None = None,
    heldout_size: int | None = None,
    scoring_tokens: int = 2048,
    check: bool = True,
    seed: int = 0,
    show_groups: bool = False,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    folder: str | os.PathLike[str] | None = "logs/audit",
    examples: bool = False,
    chunk: Chunk | Mapping[str, Any] | None = None,
) -> AuditResult:
    """Measure what a model has memorized of its training texts, compared with similar texts it was not trained on.

    The model, its parameters' flags and the random state are unchanged. In a distributed run every process must call
    it.

    Args:
        model: a Hugging Face causal language model, with or without a peft adapter; or the hub id or folder of a
            model or of an adapter.
        tokenizer: the tokenizer, or its hub id or folder; None: the one beside the model.
        members: training texts: a list of strings, of `{prompt, completion}` or `{text}` rows, of conversations
            (`{messages}`), a `datasets.Dataset`, or the path of a file, folder or glob pattern (docs/guides/data.md).
        heldout: texts of the same distribution that were not trained on, in the same forms.
        adapter: folder of an adapter to load on the model.
        reference: the frozen model to compare with: "auto" (the base, with the adapter off or as a copy),
            "adapter_off", a model, the hub id or folder of one (for a merged or fully tuned model: its base), or
            None.
        suite: `quick` (no generation), `standard` or `full`.
        limits: such as "mia/strongest_auroc > 0.7", or the preset `strict` or `standard`; the result states whether
            the model is within them.
        lower_bound: kept for backward compatibility; an audit is judged by the whole 95 % interval.
        attacks: membership inference attacks, by name; None: those that need no extra forward passes.
        extraction: how texts are prompted, or some of these options by name; None: nothing is generated.
        measures: further measures.
        fields: which columns hold the texts, if not `text`, `prompt` and `completion`, or `messages`: a column name,
            or {text_column, prompt_template, completion_template, group_column}; for conversations {form, column,
            group_column}; for files also {delimiter, encoding, skip_unusable}.
        detector: finds unmarked sensitive spans, as `lit_mem.data.detectors.Patterns` does; they are counted, never
            printed.
        chat: options of conversations {loss, template}: which turns are scored, and the chat template, if not the
            tokenizer's.
        max_length: maximum number of tokens of a text; longer ones are truncated unless `chunk` is given. None: the
            model's context length, at most 4096.
        members_size: score a random subset of this many members; None: all of up to 2000, otherwise as many as there
            are held-out texts, at least 2000.
        heldout_size: score a random subset of this many held-out texts; None: all.
        scoring_tokens: maximum number of tokens in a scoring batch.
        check: look for texts that are in both sets, and test whether the text alone reveals its set.
        seed: seed of the subsets.
        show_groups: show names of persons (`group_column`) in the table of persons, and keep columns that name them.
        dtype: precision in which models are loaded; "auto": that of their files.
        device: device of a loaded model; None: a GPU if available.
        folder: parent of the run's folder `version_<n>`, for `lit-mem report`; None: nothing is written.
        examples: also write the per-example scores there, without texts.
        chunk: {tokens, stride}: score texts longer than `max_length` in full, in windows of `tokens` (None:
            `max_length`), each `stride` tokens after the previous one (None: half a window); None: truncate them. Use
            the same options as in training.

    Returns:
        Metrics, rows, plots and tables; `to_pandas`, `to_parquet`; `state` against the limits.

    Raises:
        ConfigError: an option is invalid.
        DataError: a row has an unexpected form.
        ModelError: a model cannot be loaded.
        MetricError: the loss of a text is not finite.
    """
    show_messages()
    started = now()
    if members is None or heldout is None:
        lacking = "members" if members is None else "heldout"
        raise ConfigError(f"{lacking} is None; expected texts, since members are compared with held-out texts")
    texts_of_limits = [limits] if isinstance(limits, str) else list(limits)
    rules = [Rule("limits", Limits(texts_of_limits, lower_bound), "any")] if texts_of_limits else []
    for rule in rules:
        if rule.limits.meaning:
            log.info("limits: %s.", rule.limits.meaning)
    audited = audited_model(model, adapter, dtype, device)
    tokenizer = tokenizer_of(tokenizer, audited)
    length = max_length or readable_length(audited.model)
    options = DataOptions(
        max_length=length, add_eos=False, members_size=members_size, heldout_size=heldout_size, seed=seed, check=check,
        chat=chat_options(chat), detector=detector, chunk=chunk_of(chunk), show_groups=show_groups,
    )  # fmt: skip
    texts = prepare(TwoSets(members, heldout, fields), tokenizer, options)
    scored_texts = extent(texts.members, texts.heldout)
    check_reads(audited.model, audited.name, *scored_texts)
    frozen = reference_of(reference, audited, tokenizer, dtype)
    if isinstance(frozen, nn.Module):
        check_reads(frozen, "of the reference", *scored_texts)
    by_id = {True: token_ids(texts.members), False: token_ids(texts.heldout)}
    everything = {True: WholeTextsOf(texts.train), False: WholeTextsOf(texts.heldout)}
    groups = texts.texts.groups()
    subject = ModelSubject(audited.model, tokenizer, frozen, by_id, groups=groups, everything=everything)
    chosen = measures_of(suite, attacks, extraction_options(extraction), measures, compares=frozen is not None)
    session = Session(
        subject, [texts.heldout, texts.members], [*with_loss(chosen), BaseMetrics(chosen)], scoring_tokens
    )
    for rule in rules:
        known_of(session.audit.measures).check(rule.limits.names(), "limits")
    found = session.run(Pass(subject))
    scored = Scored(len(texts.members), len(texts.heldout), len(texts.texts.train), texts.of_heldout)
    records = {one.example_id: one.record for one in [*texts.members, *texts.heldout] if one.record is not None}
    result = AuditResult(found.run, found.results, records, rules, scored)
    if folder is not None and is_first_process():
        files = RunFiles(claim_version(Path(folder)))
        setting = _setting(audited, frozen, reference, source_of(members, heldout), fields, length)
        setting["seed_everything"] = seed
        setting["data"] |= chunk_setting(options.chunk)
        files.describe(setting, "audit", texts.texts.trust, scored, lambda: _facts(started, audited, texts))
        if examples:
            files.examples(result, records)
        line = line_of(session.audit, result.metrics, rules, 0)
        assert line is not None
        files.persons(result)
        files.add(line)
        result.folder = files.folder
    return result


def _facts(started: str, audited: Audited, texts: Prepared) -> Facts:
    """Provenance of the audited model, for `facts.json`."""
    facts = replace(
        started_facts(started),
        base=audited.base,
        revision=audited.revision,
        fingerprint=audited.fingerprint or base_fingerprint(audited.model),
        trained=adapter_parameters(audited.model),
        parameters=all_parameters(audited.model),
        adapter=adapter_files(audited.adapter),
    )
    return with_texts(facts, texts)


def _setting(
    audited: Audited, frozen: Reference, reference: Reference, source: dict[str, Any], fields: Fields, length: int
) -> dict[str, Any]:
    """The audit's options in the form of a configuration, for the report."""
    named = reference if isinstance(reference, str | os.PathLike) and str(reference) not in WORDS else None
    columns = fields_of(fields)
    if fields is not None:
        column = getattr(columns, "text_column", None) or getattr(columns, "column", None)
        source["init_args"] |= {"text_column": column, "group_column": columns.group_column or "none"}
    model = {
        "model_id": audited.base or None,
        "adapter_path": audited.adapter,
        "reference": {"kind": kind_of(frozen), "model_id": None if named is None else str(named)},
    }
    return {"door": "lit_mem.audit", "model": model, "data": {"source": source, "max_length": length}}
