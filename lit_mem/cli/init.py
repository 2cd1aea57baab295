"""`init notes.jsonl`: inspect a file of texts, and write a first configuration that runs as it is."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from lit_mem import assets, program
from lit_mem.cli.plain_parser import PlainParser
from lit_mem.cli.starter import Found, configuration, max_length
from lit_mem.data.columns import Column, columns_of
from lit_mem.data.heldout_share import heldout_fraction
from lit_mem.data.marked import spans_option
from lit_mem.data.overlap import matches, normalized, repeats
from lit_mem.data.roles import Roles, roles_of
from lit_mem.data.sources.chat_fields import ChatFields, in_chatml
from lit_mem.data.sources.fields import RowFields, TextFields
from lit_mem.data.sources.places import is_pattern, label_of, suffix_of
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.rows import read_table
from lit_mem.data.sources.table import Table, listed, shown
from lit_mem.data.sources.text import set_places
from lit_mem.data.token_lengths import TokenLengths, has_chat_template, is_here, token_lengths
from lit_mem.errors import ConfigError, DataError
from lit_mem.files import atomic
from lit_mem.functional.plain_text import printable

_DEFAULT: Final = "HuggingFaceTB/SmolLM2-135M"
_BUNDLED: Final = "asset:tiny_llama"
_OFFLINE: Final = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_FEWEST_ROWS: Final = 10
_FEW_HELDOUT: Final = 100
_MOST_SHOWN: Final = 40
_LONGEST_NAME: Final = 60
_CONTRACT: Final = ("prompt", "completion", "group")


def main(words: list[str]) -> None:
    """Print a summary of a file, without any text or value from it, and write the configuration.

    Args:
        words: the command-line arguments after `init`.

    Raises:
        ConfigError: an option is invalid, or the configuration file exists.
        DataError: a file cannot be read, has no texts, or is too small.
    """
    options = _parser().parse_args(words)
    output = Path(options.output or f"{_stem(options.file)}.yaml")
    _check_output(output, [options.file, *([options.heldout] if options.heldout else [])], options.force)
    model_id = options.model or _model()
    is_here(model_id)  # report a missing folder before reading a file
    reading = Reading(options.delimiter, options.encoding, options.skip_unusable, section="")
    table, other = _tables(options.file, options.heldout, reading)
    columns = columns_of(table)
    roles = roles_of(table, columns)
    _print_columns(options.file, len(table.numbers), columns, roles)
    if not reading.skip_unusable:
        table.bad.check(reading.skipping)
    _check_texts(options.file, columns, roles)
    if other is not None and roles.group not in (None, *other.names):
        _print(f"No group_column: {other.file} has no column {shown(str(roles.group))}.")
        roles = replace(roles, group=None)
    found, lines = _found(table, other, roles, model_id, reading)
    found = replace(found, train=options.file, heldout=options.heldout, own_heldout=bool(other and not options.heldout))
    command = f"{program.command()} fit --config {shlex.quote(str(output))}"
    text = configuration(found, printable(command))
    for line in lines:
        _print(line)
    atomic.write_text(output, text)
    _print(f"Written: {output}. To train: {command}")


def _tables(file: str, heldout: str | None, reading: Reading) -> tuple[Table, Table | None]:
    """The rows to train on, and the held-out rows, from their own path or from the same folder."""
    places = set_places(file, heldout)
    train, other = places["train"], places["heldout"]
    assert train is not None
    return read_table(train, reading), None if other is None else read_table(other, reading)


def _found(table: Table, other: Table | None, roles: Roles, model_id: str, reading: Reading) -> tuple[Found, list[str]]:
    """The findings for the configuration, and the lines to print."""
    file = table.file
    rows = _fields(roles, reading).dataset(table, "row")
    n_rows = len(rows)
    if n_rows < _FEWEST_ROWS:
        raise DataError(f"{file}: has {n_rows} rows; expected at least {_FEWEST_ROWS}")
    prompts, completions, groups = (rows[name][:] for name in _CONTRACT)
    texts = [a + b for a, b in zip(prompts, completions, strict=True)]
    if roles.chat is None:
        lengths = token_lengths(model_id, prompts, completions, add_eos=True)
    else:
        lengths = token_lengths(model_id, [""] * n_rows, in_chatml(rows), add_eos=False)
    again, forms = repeats(texts), [normalized(text) for text in texts]
    lines = [_on_lengths(lengths, model_id)]
    lines.append(
        f"Repeats: {len(again)} rows repeat an earlier text, {len(repeats(forms))} ignoring case and punctuation."
    )
    sizes = Counter(groups)
    if roles.group is not None:
        lines.append(
            f"Groups: {len(sizes)} in {shown(roles.group)}, of {min(sizes.values())} to {max(sizes.values())} rows."
        )
    if roles.unusable_groups:
        lines.append(
            f"No group_column: these columns have rows without a whole number or name: {listed(roles.unusable_groups)}."
        )
    if other is None:
        n_heldout = round(n_rows * heldout_fraction(n_rows))
        lines += _on_size(n_rows - n_heldout, n_heldout)
    else:
        n_heldout, more = _on_heldout(other, roles, texts, forms, groups, reading)
        lines += [*more, *_on_size(n_rows, n_heldout)]
    marks = None if roles.spans is None else rows[roles.spans][:]
    spans = spans_option(roles.spans, marks, completions, table.names)
    if roles.spans is not None and spans != roles.spans:
        lines.append(
            f"Spans: {shown(roles.spans)} is not used, since some rows mark nothing in their text; fit reports the "
            f"first with --data.spans_column {roles.spans}."
        )
    n_groups = len(sizes) if roles.group is not None else 0
    has_template = has_chat_template(model_id)
    return Found(
        file, None, n_rows, n_groups, len(again), roles, spans, lengths, model_id, reading, has_template=has_template
    ), lines


def _fields(roles: Roles, reading: Reading) -> RowFields:
    if roles.chat is not None:
        return ChatFields(group_column=roles.group, reading=reading)
    if roles.pair is not None:
        templates = roles.pair.prompt_template, roles.pair.completion_template
        return TextFields("text", *templates, roles.group, reading=reading)
    assert roles.text is not None
    return TextFields(roles.text, None, None, roles.group, reading=reading)


def _on_lengths(lengths: TokenLengths, model_id: str) -> str:
    size, whole = max_length(lengths, model_id), lengths.whole
    how = (
        f"by the tokenizer of {model_id}" if lengths.counted else "estimated, the model's tokenizer is not in the cache"
    )
    cut = (
        "truncates none"
        if size >= whole.longest
        else f"truncates the longest ({'under' if size >= whole.high else 'over'} 5 %)"
    )
    return (
        f"Lengths: {whole.median} tokens (median), {whole.high} (95 %), {whole.longest} (longest), {how}; "
        f"max_length {size} {cut}."
    )


def _on_heldout(
    other: Table, roles: Roles, texts: list[str], forms: list[str], groups: list[str], reading: Reading
) -> tuple[int, list[str]]:
    """Number of rows in the held-out file, and their overlap with the training file."""
    rows = _fields(roles, reading).dataset(other, "row")
    prompts, completions, others = (rows[name][:] for name in _CONTRACT)
    of_heldout = [a + b for a, b in zip(prompts, completions, strict=True)]
    exact, alike = len(matches(texts, of_heldout)), len(matches(forms, [normalized(text) for text in of_heldout]))
    if alike == len(of_heldout):
        raise DataError(
            f"{other.file}: every text is also in the training file; expected texts that are not trained on"
        )
    shared_texts = f"{exact} with a text of the training file, {alike} ignoring case and punctuation"
    lines = [f"Held out: {len(of_heldout)} rows, {shared_texts}."]
    if roles.group is not None and (shared := set(groups) & set(others)):
        lines.append(f"Groups in both files: {len(shared)}. They make attacks look stronger; expected none.")
    return len(of_heldout), lines


def _on_size(members: int, heldout: int) -> list[str]:
    """A warning if there are too few texts for precise metrics."""
    if min(members, heldout) >= _FEW_HELDOUT:
        return []
    half = 1.96 * ((members + heldout + 1) / (12 * members * heldout)) ** 0.5
    return [
        f"Small: {members} members and {heldout} held-out texts put an AUROC's 95 % interval at about "
        f"+-{half:.2f}; with fewer than {_FEW_HELDOUT} held-out texts no TPR at FPR 0.01 is logged."
    ]


def _check_texts(file: str, columns: Sequence[Column], roles: Roles) -> None:
    if any(len(column.name) > _LONGEST_NAME for column in columns):
        raise DataError(f"{file}: the first line looks like a text, not column names; expected a header")
    if roles.chat is not None:
        return
    if roles.text is None and roles.pair is None:
        names = listed([column.name for column in columns])
        raise DataError(f"{file}: no text column; expected one besides {names}")


def _check_output(output: Path, files: Sequence[str], force: bool) -> None:
    if output.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--output is {output}; expected a .yaml file")
    if any(os.path.realpath(file) == os.path.realpath(output) for file in files):
        raise ConfigError(f"--output is {output}, which is an input file; expected another name")
    if not output.parent.is_dir():
        raise ConfigError(
            f"--output is {output}, but the folder {output.parent} does not exist; expected an existing folder"
        )
    if os.path.lexists(output) and not force:
        raise ConfigError(f"{output} already exists; use --force to overwrite it, or --output to write another file")


def _model() -> str:
    """A small model from the hub; the bundled one if the hub is offline and the small model is not in the cache."""
    offline = any(os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on") for name in _OFFLINE)
    if offline and not is_here(_DEFAULT):
        _print(f"Model: {_BUNDLED}, since the hub is offline and {_DEFAULT} is not in the cache (--model).")
        return _BUNDLED
    return _DEFAULT


def _stem(file: str) -> str:
    name = label_of(file.removeprefix(assets.PREFIX))
    if is_pattern(name):
        return "texts"
    return Path(name).name.removesuffix("".join(suffix_of(Path(name)))) or "texts"


def _print_columns(file: str, n_rows: int, columns: Sequence[Column], roles: Roles) -> None:
    _print(f"{file}: {n_rows} rows.")
    lines = [("column", "kind", "empty", "distinct", "words: median, 95 %, longest", "used as")]
    for column in columns[:_MOST_SHOWN]:
        words = column.words
        lines.append(
            (
                printable(shown(column.name).strip("'") or "''"),
                column.kind,
                f"{column.empty / max(1, n_rows):.0%}",
                str(column.distinct or "-"),
                "-" if words is None else f"{words.median}, {words.high}, {words.longest}",
                roles.of(column.name) or "-",
            )
        )
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    for line in lines:
        _print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), as_it_is=True)
    if len(columns) > _MOST_SHOWN:
        _print(f"... and {len(columns) - _MOST_SHOWN} more columns.")


def _print(line: str, as_it_is: bool = False) -> None:
    print(line if as_it_is else printable(line))  # noqa: T201  (the output of the command)


def _parser() -> PlainParser:
    parser = PlainParser(
        "init",
        "Inspect a file of texts (json, jsonl, csv, tsv, parquet, arrow or txt; also .jsonl.gz and .jsonl.zst), or a "
        "folder or glob pattern of such files, and write a first configuration that runs as it is. No text or value "
        "of the file is shown.",
    )
    parser.add_argument("file", metavar="FILE", help="texts to train on: a file, folder or pattern")
    parser.add_argument(
        "heldout", metavar="HELDOUT", nargs="?", help="texts that are never trained on (default: rows of FILE)"
    )
    parser.add_argument("--model", metavar="ID", help=f"hub id, folder or asset:tiny_llama (default: {_DEFAULT})")
    parser.add_argument("--delimiter", metavar="SIGN", help="delimiter of csv files (default: detected)")
    parser.add_argument("--encoding", metavar="NAME", default="utf-8", help="encoding of text files (default: utf-8)")
    parser.add_argument("--skip_unusable", action="store_true", help="skip unusable rows")
    parser.add_argument("--output", metavar="FILE", help="configuration to write (default: FILE's name with .yaml)")
    parser.add_argument("--force", action="store_true", help="overwrite an existing configuration")
    return parser
