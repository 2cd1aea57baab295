"""`lit-mem audit`: what a finished model or adapter has memorized of its training texts."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from lit_mem import program
from lit_mem.audit.closing import metric_lines, next_steps, sentence, table
from lit_mem.audit.extraction_options import ExtractionOptions
from lit_mem.audit.judging import State
from lit_mem.cli.commands import HELP
from lit_mem.cli.exit_codes import FAILED, UNDECIDED
from lit_mem.data.chat.options import Chat
from lit_mem.data.chunk_options import Chunk
from lit_mem.data.detectors import Detector
from lit_mem.data.sources.chat_fields import ChatFields
from lit_mem.data.sources.chat_forms import ChatForm
from lit_mem.data.sources.fields import TextFields
from lit_mem.data.sources.given_fields import Fields, UsualFields
from lit_mem.data.sources.reading import Reading
from lit_mem.errors import ConfigError
from lit_mem.lightning.one_line import CommandParser

if TYPE_CHECKING:
    from lit_mem.audit.result import AuditResult

log = logging.getLogger(__name__)

_EXIT: Final[dict[State, int]] = {"within": 0, "undecided": UNDECIDED, "not measured": FAILED, "over": FAILED}


def main(words: list[str]) -> None:
    """Measure, print every metric on standard output, and log a summary.

    Args:
        words: the command-line arguments after `audit`.

    Raises:
        LitMemError: an option, a file or a model is invalid.
        SystemExit: with code 3, a condition of `--fail-on` holds or was not measured; else with code 4, one is
            undecided.
    """
    parser = _parser()
    if not set(HELP) & {*words}:
        from lit_mem.audit.run import run_audit  # also makes the classes that options name known to the parser

    options = parser.instantiate_classes(parser.parse_args(words))
    result = run_audit(
        options.model,
        options.tokenizer,
        options.members,
        options.heldout,
        adapter=options.adapter,
        reference="auto" if options.base is None else options.base,
        suite=options.suite,
        limits=options.fail_on or [],
        lower_bound=options.lower_bound,
        extraction=options.extraction,
        fields=_fields(options),
        chat=options.chat,
        detector=options.detector,
        max_length=options.max_length,
        members_size=options.members_size,
        heldout_size=options.heldout_size,
        scoring_tokens=options.scoring_tokens,
        check=options.check,
        seed=options.seed,
        show_groups=options.show_groups,
        dtype=options.dtype,
        device=options.device,
        folder=None if options.folder == "none" else options.folder,
        examples=options.examples,
        chunk=options.chunk,
    )
    _print(result)
    if result.state is not None and _EXIT[result.state]:
        sys.exit(_EXIT[result.state])


def _fields(options: Any) -> Fields:
    """Which columns hold the texts or conversations (default names if none is given), and how files are read.

    Raises:
        ConfigError: columns of texts and of conversations are both given.
    """
    reading = Reading(options.delimiter, options.encoding, options.skip_unusable, section="")
    texts = [name for name in ("text_column", "prompt_template", "completion_template") if options[name]]
    names = ("chat_form", "chat_column")
    if options.chat_form or options.chat_column:
        if texts:
            raise ConfigError(f"--{texts[0]} names texts and --chat_form or --chat_column conversations; expected one")
        form: ChatForm = options.chat_form or "auto"
        return ChatFields(form, options.chat_column, options.group_column, "", names, reading)
    if not texts:
        return UsualFields(options.group_column, "audit", reading, names)
    given = (options.prompt_template, options.completion_template, options.group_column)
    return TextFields(options.text_column or "text", *given, section="audit", reading=reading)


def _print(result: AuditResult) -> None:
    # Scripts read standard output: print nothing but the metrics.
    print("\n".join(metric_lines(result.metrics)), flush=True)  # noqa: T201  (what the command is for)
    for line in [*table(result.metrics, "audit"), sentence(result.metrics), result.verdict]:
        if line:
            log.info("%s", line)
    for found in result.results.values():
        for level, line in found.verdict:
            log.log(level, "%s", line)
    folder = None if result.folder is None else str(result.folder)
    for line in next_steps(folder, True, without="--folder is none"):
        log.info("%s", line)


def _parser() -> CommandParser:
    parser = CommandParser(
        prog=f"{program.name()} audit",
        description="Measure what a finished model has memorized of its training texts (members), against texts of the "
        "same kind that it was not trained on (held-out).",
    )
    add = parser.add_argument
    add("--model", type=str, required=True, metavar="DIR", help="folder or hub id of a model, or an adapter's folder")
    add("--adapter", type=str, default=None, metavar="DIR", help="folder of an adapter to load on the model")
    add(
        "--base",
        type=str,
        default=None,
        metavar="ID",
        help="the model to compare with: for a merged or fully fine-tuned model, the one it was trained from; for an "
        "adapter, the base with the adapter disabled (default)",
    )
    add("--tokenizer", type=str, default=None, metavar="DIR", help="default: the model's")
    add("--members", type=str, required=True, metavar="FILE", help="texts that it was trained on: json, jsonl, csv, "
        "tsv, parquet, arrow or txt, a folder, or a glob pattern; with a column text, or prompt and completion, or "
        "messages")  # fmt: skip
    add("--heldout", type=str, required=True, metavar="FILE", help="texts that it was not trained on; same formats")
    add("--text_column", type=str, default=None, help="column with the texts (default: text)")
    add("--prompt_template", type=str, default=None, help="such as 'Question: {question}'; not scored")
    add("--completion_template", type=str, default=None, help="such as ' {answer}'; scored")
    add(
        "--chat_form",
        type=str | None,
        default=None,
        help="read conversations of this form: messages, sharegpt, alpaca, dolly, prompt_completion, question_answer "
        "(default: detected from the columns)",
    )
    add("--chat_column", type=str | None, default=None, help="column with the conversations (default: detected)")
    parser.add_dataclass_arguments(Chat, "chat")
    parser.add_subclass_arguments(
        Detector,
        "detector",
        required=False,
        help="finds sensitive spans that are not annotated: Patterns, or Presidio (extra pii)",
    )
    add("--group_column", type=str, default=None, help="column of persons or documents; none may be in both sets")
    add("--delimiter", type=str, default=None, help="delimiter of csv files (default: detected from the header)")
    add("--encoding", type=str, default="utf-8", help="encoding of text files, such as cp1252 (default: utf-8)")
    add("--skip_unusable", type=bool, default=False, help="skip unusable rows, with a warning")
    add("--suite", type=str, default="standard", help="quick (no generation), standard or full (default: standard)")
    parser.add_dataclass_arguments(ExtractionOptions, "extraction")
    add(
        "--fail-on",
        action="append",
        type=str,
        default=None,
        metavar="CONDITION",
        help="such as 'mia/strongest_auroc > 0.7', or the preset strict or standard, compared with the 95 % interval: "
        "exit code 0 if the interval is within the limit, 3 if it is beyond the limit or nothing was measured, 4 if "
        "the limit lies inside it; may be repeated",
    )
    add("--lower_bound", type=bool, default=False, help="ignored, for compatibility; an audit always uses the interval")
    add("--max_length", type=int | None, default=None, help="longest text in tokens (default: the model's, up to 4096)")
    add("--chunk", type=Chunk | None, default=None, help="score longer texts in windows of this many tokens, at this "
        "stride: --chunk.tokens 512 --chunk.stride 256 (default: longer texts are truncated)")  # fmt: skip
    add("--members_size", type=int | None, default=None, help="score a random subset of this many members")
    add("--heldout_size", type=int | None, default=None, help="score a random subset of this many held-out texts")
    add(
        "--scoring_tokens",
        type=int,
        default=2048,
        help="maximum tokens in a scoring batch; lower it if memory runs out",
    )
    add(
        "--check",
        type=bool,
        default=True,
        help="check for texts in both sets, and for a distribution shift between the sets",
    )
    add("--seed", type=int, default=0, help="seed of the random subsets")
    add("--show_groups", type=bool, default=False, help="show groups (--group_column) by name in files and slices")
    add("--dtype", type=str, default="auto", help="auto (as saved), float32, bfloat16 or float16")
    add("--device", type=str | None, default=None, help="such as cuda:1 or cpu (default: a GPU if there is one)")
    add("--folder", type=str, default="logs/audit", metavar="DIR", help="parent of the run's folder, or none")
    add("--examples", type=bool, default=False, help="also write per-example metrics there, without texts")
    return parser
