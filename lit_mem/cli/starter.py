"""A first configuration for a file of texts: what is chosen for it, and the YAML that says so with the alternatives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from lit_mem import assets, program
from lit_mem.audit.thresholds import PRESETS
from lit_mem.data.columns import Lengths
from lit_mem.data.heldout_share import heldout_fraction
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
_BUNDLED: Final = "asset:tiny_llama"
_FROM_HUB: Final = "HuggingFaceTB/SmolLM2-135M"
_FEW_STEPS: Final = 4
_OTHER: Final = {"TextFiles": "ChatFiles for conversations", "ChatFiles": "TextFiles for texts"}


@dataclass(frozen=True)
class Found:
    """What is known of the files.

    Attributes:
        train: path, as it was given.
        heldout: likewise; None: rows of `train` are held out.
        n_rows: of `train`; None: not known, so that nothing of the template hangs on the file.
        n_groups: in `roles.group`; 0 where there is none.
        repeats: rows of `train` whose text an earlier row has.
        roles: of the columns.
        spans: the column of spans, "spans" where there is none; None: the column of that name holds none.
        lengths: of the texts.
        model_id: of the model.
        reading: how files are read.
        own_heldout: whether the held-out texts are in the folder `train`.
        has_template: whether its tokenizer is known to have a chat template.
    """

    train: str
    heldout: str | None
    n_rows: int | None
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
    """Tokens that hold every text of at most 512, else 95 % of them; at most 2,048, and what the model reads.

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
            f"the longest prompt has {lengths.longest_prompt} tokens, and {model_id} is trained on at most {most}: no "
            "token of its completion would be left; expected shorter prompts, or another --model"
        )
    return min(next((size for size in _SIZES if size >= wanted), _SIZES[-1]), most)


def batch_size(length: int) -> int:
    """Texts a step.

    >>> [batch_size(length) for length in (64, 256, 384, 512, 1024, 2048)]
    [8, 8, 4, 4, 2, 1]
    """
    size = _MOST_TEXTS
    while size > 1 and size * length > _TOKENS_A_BATCH:
        size //= 2
    return size


def configuration(found: Found, command: str) -> str:
    """The YAML; its comments name columns and counts, and no value of the data."""
    return "\n".join(_lines(found, command)) + "\n"


def own_data() -> str:
    """The configuration `own_data` that ships: the same template for a file that nobody has looked at yet."""
    lengths = TokenLengths(Lengths(0, 0, 0), 0, False, None)
    return configuration(Found("asset:notes", None, None, 0, 0, Roles("text"), "spans", lengths, _BUNDLED), "")


def _lines(found: Found, command: str) -> Iterator[str]:
    yield from _heading(found, command)
    size = max_length(found.lengths, found.model_id) if found.n_rows else _WHOLE
    texts = batch_size(size) if found.n_rows else _MOST_TEXTS
    yield "seed_everything: 0  # random numbers of training; another one repeats the run with other dropout"
    yield "trainer:"
    yield "  max_epochs: 5  # passes over the training texts at most; a threshold may end the run before"
    yield f"  log_every_n_steps: {_steps_a_line(found, texts)}  # steps between two points of train/loss"
    yield "memorization:"
    yield "  suite: standard  # or full (all subgroups), quick (no extraction rates, nor thresholds on them)"
    yield f"  # Thresholds that end the run; standard stands for {'; '.join(PRESETS['standard'])}."
    yield "  stop: [standard]  # or strict, or thresholds of your own; [] trains to the end"
    yield "  lower_bound: true  # noise alone stops at most 5 % of runs; false: stop as soon as a value is beyond"
    yield from _model(found)
    yield "data:"
    yield from _source(found)
    yield from _sizes(found, size, texts)


def _heading(found: Found, command: str) -> Iterator[str]:
    lit_mem = program.command()
    if found.n_rows:
        yield f"# A first configuration for {found.n_rows} texts. Paths are relative to the folder of the command:"
        yield f"#   {command}"
    else:
        lit_mem = "lit-mem"
        yield "# A configuration for your own texts. As it is, it trains a bundled tiny model on made-up notes:"
        yield f"#   {lit_mem} fit --config own_data"
        yield "# With your file and your model:"
        yield f"#   {lit_mem} fit --config own_data --data.source.train mine.jsonl --model.model_id {_FROM_HUB}"
        yield f"# {lit_mem} init mine.jsonl writes this file with columns, lengths and groups of mine.jsonl filled in."
    yield f"# Every option: {lit_mem} fit --help. Classes for a key, and the options of one of them:"
    yield f"#   {lit_mem} fit --data.source.help        {lit_mem} fit --data.source.help TextFiles"


def _model(found: Found) -> Iterator[str]:
    bundled = found.model_id.startswith(assets.PREFIX)
    yield "model:"
    yield f"  model_id: {quoted(found.model_id)}  # a hub id, a folder, a .gguf file, or {_BUNDLED} (bundled)"
    yield "  adapter:"
    yield "    class_path: lit_mem.adapters.LoRA  # what is trained; or IA3, PromptTuning, HeadOnly, FullFineTuning"
    yield "    init_args:"
    yield "      rank: 16  # size of the adapter; a lower rank trains fewer weights"
    yield "      targets: [all-linear]  # or some of q, k, v, o, gate, up, down, or names of modules"
    yield "      dropout: 0.05  # share of the adapter's inputs that is left out in training"
    yield "  optimizer:"
    yield "    class_path: torch.optim.AdamW  # any optimizer of torch"
    yield "    init_args:"
    rate, other = (0.0005, "; 0.0002 for a model of the hub") if bundled else (0.0002, "")
    yield f"      lr: {rate}  # learning rate; a higher one learns, and memorizes, faster{other}"


def _sizes(found: Found, size: int, texts: int) -> Iterator[str]:
    lengths = found.lengths
    how, whole = "" if lengths.counted else "about ", lengths.whole
    if found.n_rows:
        yield f"  # Tokens of a text: {how}{whole.median} (median), {whole.high} (95 %), {whole.longest} (longest)."
    yield f"  max_length: {size}  # tokens of a text; what is beyond is cut. chunk: {{}} reads long texts in windows"
    yield f"  batch_size: {texts}  # texts a step on each device; lower it where memory runs out"
    if not found.n_rows:
        yield "  heldout_fraction: null  # share of rows that is held out; null: by their number, about 100 or a fifth"
    elif found.heldout is None and not found.own_heldout:
        by = f"by {shown(found.roles.group)}" if found.roles.group else "at random"
        yield f"  heldout_fraction: {heldout_fraction(found.n_rows):g}  # share of the rows that is held out, {by}"
    repeats = f"{found.repeats} rows repeat an earlier text; " if found.repeats else ""
    yield f"  deduplicate: none  # {repeats}exact or near trains on each text once"
    if found.spans is None:
        yield "  spans_column: null  # the column spans does not mark pieces of the text"
    elif found.spans == found.roles.spans:
        yield f"  spans_column: {quoted(found.spans)}  # marks the pieces that must not leak"


def _steps_a_line(found: Found, texts_a_step: int) -> int:
    """At least two points of the training loss an epoch; by groups a split may leave fewer members than planned."""
    if found.n_rows is None:
        return _FEW_STEPS
    share = 1 if found.heldout or found.own_heldout else 1 - heldout_fraction(found.n_rows)
    return min(10, max(1, int(found.n_rows * share) // texts_a_step // 2))


def _source(found: Found) -> Iterator[str]:
    roles, reading = found.roles, found.reading
    if roles.chat is not None:
        yield "  chat:"
        yield "    loss: assistant  # each turn of the assistant's; or last (the last of them), all (all of the text)"
        if found.has_template:
            yield "    template: null  # the tokenizer's own; or a file with another"
        else:
            yield "    template: asset:chatml  # or a file with another; the model's tokenizer seems to have none"
    yield "  source:"
    name = "TextFiles" if roles.chat is None else "ChatFiles"
    yield f"    class_path: lit_mem.data.sources.{name}  # how the texts are read; or HubDataset, {_OTHER[name]}"
    yield "    init_args:"
    yield f"      train: {quoted(found.train)}  # texts to train on: a file (jsonl, csv, parquet, txt ...) or a folder"
    if found.own_heldout:
        yield "      # heldout and test: the sets of these names in this folder; other paths take their place"
    elif found.heldout is None:
        yield "      heldout: null  # a file of texts that are never trained on; null: rows of train are held out"
    else:
        yield f"      heldout: {quoted(found.heldout)}  # texts that are never trained on"
    if reading.delimiter is not None:
        yield f"      delimiter: {quoted(reading.delimiter)}  # between the columns of csv files"
    if reading.encoding != Reading().encoding:
        yield f"      encoding: {quoted(reading.encoding)}  # of the files"
    if reading.skip_unusable:
        yield "      skip_unusable: true  # rows that cannot be used are left out, with a warning"
    if roles.chat is not None:
        yield f"      form: auto  # recognised by the columns: {shown(roles.chat.name)} holds {roles.chat.form}"
    elif roles.pair:
        yield "      # The prompt is given; the loss is on the completion alone."
        yield f"      prompt_template: {quoted(roles.pair.prompt_template)}"
        yield f"      completion_template: {quoted(roles.pair.completion_template)}"
        if roles.texts:
            yield f"      # or text_column in place of both, to train on whole texts: {listed(roles.texts)}"
    elif roles.text is not None:
        others = f"; other columns of texts: {listed(roles.texts)}" if roles.texts else ""
        yield f"      text_column: {quoted(roles.text)}  # the column of texts{others}"
    yield from _groups(found)


def _groups(found: Found) -> Iterator[str]:
    roles = found.roles
    yield "      # Rows with the same value of group_column (a person, a document) stay on one side of the split."
    if found.n_rows is None:
        yield "      group_column: auto  # the column that looks like one, or a name; null: rows are unrelated"
    elif roles.group is not None:
        others = f", or {listed(roles.groups)}" if roles.groups else ""
        yield f"      group_column: {quoted(roles.group)}  # {found.n_groups} groups{others}; null: rows are unrelated"
    else:
        others = f"it could be {listed(roles.groups)}" if roles.groups else "the name of a column; null: unrelated rows"
        yield f"      group_column: null  # {others}"
    if roles.unusable_groups:
        yield f"      # Rows without a value, or with a fraction, keep out: {listed(roles.unusable_groups)}"


def quoted(text: str) -> str:
    r"""A text as YAML on one line, in double quotes.

    >>> quoted("notes.jsonl"), quoted("a\nb")
    ('"notes.jsonl"', '"a\\nb"')
    """
    import yaml

    return str(yaml.dump(text, default_style='"', allow_unicode=True, width=2**31)).removesuffix("\n")
