"""A first configuration for a file of texts: the chosen options, and YAML with alternatives in comments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from lit_mem.audit.thresholds import PRESETS
from lit_mem.data.roles import Roles
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.table import listed, shown
from lit_mem.data.token_lengths import TokenLengths
from lit_mem.errors import ConfigError

_SIZES: Final = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_WHOLE: Final = 512
_ROOM: Final = 16
_TOKENS_A_BATCH: Final = 2048
_MOST_TEXTS: Final = 8
_WANTED: Final = 100
_LARGE: Final = 10_000
_ASSET: Final = "asset:"


@dataclass(frozen=True)
class Found:
    """What is known about the files.

    Attributes:
        train: path, as given.
        heldout: likewise; None: rows of `train` are held out.
        n_rows: number of rows in `train`.
        n_groups: number of groups in `roles.group`; 0 if there is none.
        repeats: number of rows of `train` that repeat an earlier row's text.
        roles: roles of the columns.
        spans: the column of spans, "spans" if there is none; None if the column of that name holds no spans.
        lengths: token lengths of the texts.
        model_id: hub id or folder of the model.
        reading: how files are read.
        own_heldout: whether the folder `train` contains the held-out texts.
        has_template: whether the model's tokenizer is known to have a chat template.
    """

    train: str
    heldout: str | None
    n_rows: int
    n_groups: int
    repeats: int
    roles: Roles
    spans: str | None
    lengths: TokenLengths
    model_id: str
    reading: Reading = field(default_factory=Reading)
    own_heldout: bool = False
    has_template: bool = False


def max_length(lengths: TokenLengths, model_id: str) -> int:
    """The length in tokens that fits all texts if at most 512, else 95 % of them; at most 2,048 and the model's limit.

    Raises:
        ConfigError: the longest prompt alone fills it.
    """
    most = min(lengths.positions or _SIZES[-1], _SIZES[-1])
    longest = lengths.whole.longest
    wanted = longest if longest <= _WHOLE else lengths.whole.high
    if lengths.longest_prompt:
        wanted = max(wanted, lengths.longest_prompt + _ROOM)
    if lengths.counted and lengths.longest_prompt + 1 >= most:
        raise ConfigError(
            f"the longest prompt has {lengths.longest_prompt} tokens, and {model_id} is trained on at most {most}: its "
            "completion would be truncated away; expected shorter prompts, or another --model"
        )
    return min(next((size for size in _SIZES if size >= wanted), _SIZES[-1]), most)


def batch_size(length: int) -> int:
    """Texts per step.

    >>> [batch_size(length) for length in (64, 256, 384, 512, 1024, 2048)]
    [8, 8, 4, 4, 2, 1]
    """
    size = _MOST_TEXTS
    while size > 1 and size * length > _TOKENS_A_BATCH:
        size //= 2
    return size


def heldout_fraction(n_rows: int) -> float:
    """A fifth, more if that is under 100 rows, but at most half; a tenth of large sets.

    >>> [heldout_fraction(n) for n in (60, 250, 600, 20_000)]
    [0.5, 0.4, 0.2, 0.1]
    """
    return round(min(0.5, max(0.1 if n_rows >= _LARGE else 0.2, _WANTED / n_rows)), 2)


def configuration(found: Found, command: str) -> str:
    """The YAML; its comments show column names and counts, but no value of the data."""
    return "\n".join(_lines(found, command)) + "\n"


def _lines(found: Found, command: str) -> Iterator[str]:
    lengths, size = found.lengths, max_length(found.lengths, found.model_id)
    yield f"# A first configuration for {found.n_rows} texts. Paths are relative to the folder the command runs in:"
    yield f"#   {command}"
    yield "# Every option: the same command with --help, or --print_config in place of --config."
    yield "seed_everything: 0"
    yield "trainer:"
    yield "  max_epochs: 5"
    yield f"  log_every_n_steps: {_steps_a_line(found, batch_size(size))}"
    yield "memorization:"
    yield "  suite: standard  # or quick (generates no text), full (all subgroups)"
    expanded = "; ".join(PRESETS["standard"])
    yield f"  stop: [standard]  # expands to {expanded}; or strict, or your own thresholds; [] never stops"
    yield "  lower_bound: true  # noise alone stops at most 5 % of runs; false: stop once a value is beyond the limit"
    yield "model:"
    yield f"  model_id: {quoted(found.model_id)}  # a hub id, a folder, a .gguf file, or asset:tiny_llama (bundled)"
    yield "  adapter:  # or IA3, PromptTuning, HeadOnly, FullFineTuning"
    yield "    class_path: lit_mem.adapters.LoRA"
    yield "    init_args: {rank: 16, targets: [all-linear], dropout: 0.05}"
    yield "  optimizer:"
    yield "    class_path: torch.optim.AdamW"
    rate = "0.0005" if found.model_id.startswith(_ASSET) else "0.0002"
    yield f"    init_args: {{lr: {rate}}}  # a higher one learns, and memorizes, faster"
    yield "data:"
    yield from _source(found)
    how, whole = "" if lengths.counted else "about ", lengths.whole
    yield f"  # Tokens: the texts have {how}{whole.median} (median), {whole.high} (95 %), {whole.longest} (longest)."
    yield f"  max_length: {size}  # longer texts are truncated; chunk: {{}} scores them in windows"
    yield f"  batch_size: {batch_size(size)}"
    if found.heldout is None and not found.own_heldout:
        by = f"by {shown(found.roles.group)}" if found.roles.group else "at random"
        yield f"  heldout_fraction: {heldout_fraction(found.n_rows):g}  # share of held-out rows, chosen {by}"
    repeats = f"{found.repeats} rows repeat an earlier text; " if found.repeats else ""
    yield f"  deduplicate: none  # {repeats}exact or near: train on each text once"
    if found.spans is None:
        yield "  spans_column: null  # the column spans does not mark spans of the text"
    elif found.spans == found.roles.spans:
        yield f"  spans_column: {quoted(found.spans)}  # marks the spans that must not leak"


def _steps_a_line(found: Found, texts_a_step: int) -> int:
    """At least two points of the training loss per epoch; a split by groups may leave fewer members than planned."""
    share = 1 if found.heldout or found.own_heldout else 1 - heldout_fraction(found.n_rows)
    return min(10, max(1, int(found.n_rows * share) // texts_a_step // 2))


def _source(found: Found) -> Iterator[str]:
    roles, reading = found.roles, found.reading
    if roles.chat is not None:
        yield "  chat:"
        yield "    loss: assistant  # every assistant turn; or last (only the last one), all (the whole conversation)"
        if found.has_template:
            yield "    template: null  # the tokenizer's own; or a file"
        else:
            yield "    template: asset:chatml  # or a file; the model's tokenizer seems to have no template"
    yield "  source:"
    yield f"    class_path: lit_mem.data.sources.{'TextFiles' if roles.chat is None else 'ChatFiles'}"
    yield "    init_args:"
    yield f"      train: {quoted(found.train)}"
    if found.own_heldout:
        yield "      # heldout and test: the files of these names in this folder, unless other paths are set"
    elif found.heldout is None:
        yield "      # heldout: a file of texts that are never trained on; without it, rows of train are held out"
    else:
        yield f"      heldout: {quoted(found.heldout)}"
    if reading.delimiter is not None:
        yield f"      delimiter: {quoted(reading.delimiter)}"
    if reading.encoding != Reading().encoding:
        yield f"      encoding: {quoted(reading.encoding)}"
    if reading.skip_unusable:
        yield "      skip_unusable: true  # unusable rows are skipped, with a warning"
    if roles.chat is not None:
        yield f"      form: auto  # detected from the columns: {shown(roles.chat.name)} holds {roles.chat.form}"
    elif roles.pair:
        yield "      # The loss is on the completion only, given the prompt."
        yield f"      prompt_template: {quoted(roles.pair.prompt_template)}"
        yield f"      completion_template: {quoted(roles.pair.completion_template)}"
        if roles.texts:
            yield f"      # or text_column instead of both, to train on whole texts: {listed(roles.texts)}"
    elif roles.text is not None:
        others = f"  # other columns of texts: {listed(roles.texts)}" if roles.texts else ""
        yield f"      text_column: {quoted(roles.text)}{others}"
    yield "      # Rows with the same value of group_column (a patient, a document) stay on one side of the split."
    if roles.group is not None:
        others = f", or {listed(roles.groups)}" if roles.groups else ""
        yield f"      group_column: {quoted(roles.group)}  # {found.n_groups} groups{others}; null: rows are unrelated"
    else:
        others = f"  # candidates: {listed(roles.groups)}" if roles.groups else ""
        yield f"      group_column: null{others}"
    if roles.unusable_groups:
        yield f"      # Not candidates, since they have empty or fractional values: {listed(roles.unusable_groups)}"


def quoted(text: str) -> str:
    r"""A text as YAML on one line, in double quotes.

    >>> quoted("notes.jsonl"), quoted("a\nb")
    ('"notes.jsonl"', '"a\\nb"')
    """
    import yaml

    return str(yaml.dump(text, default_style='"', allow_unicode=True, width=2**31)).removesuffix("\n")
