"""User errors: exit code 2 and one line with the place, what was found and what was expected."""

import gzip
import importlib.util
import io
import json
import logging
import os
import pickle
import shutil
import sys
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from lit_mem import assets
from lit_mem.adapters import LoRA
from lit_mem.audit import measures
from lit_mem.cli.main import main
from lit_mem.cli.trainer_cli import MemorizationCLI
from lit_mem.errors import ConfigError
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.parser import OneLineParser, readable
from lit_mem.models.base_models import load_base

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

QUICKSTART = str(Path(__file__).parent.parent / "tests" / "quickstart_plain.yaml")
SMALL = (
    "--data.train_size 8 --data.heldout_size 8 --data.max_length 48 --trainer.max_epochs 1 --trainer.logger false"
).split()
TEXT = "Mrs Example took zymurgol and was found asleep in the garden"
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
no_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
no_wandb = pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is here")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


class Bomb:
    """When unpickled, writes a file into the working directory."""

    def __reduce__(self):
        return (open, ("code_was_run", "w"))


def rows(count, text=TEXT, **further):
    return "".join(json.dumps({"text": f"{text} {i}", "id": i, **further}) + "\n" for i in range(count))


ZSTD = pa.compress(b'{"text": "a"}', "zstd", asbytes=True)


def parquet(column):
    file = io.BytesIO()
    pq.write_table(pa.table({"text": column}), file)
    return file.getvalue()


def archive(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as made:
        for name, content in members.items():
            made.writestr(name, content)
    return file.getvalue()


@dataclass
class Bad:
    """A user error.

    Attributes:
        args: after `fit --config` and SMALL; "MADE" is replaced by the folder of the fixture `made`.
        says: what the line on standard error must hold.
        files: what lies in the working directory.
        bare: `args` are the whole command line.
        before: called in the working directory, for what is more than a file with content.
        config: of the run, unless it is bare: without callbacks, where these have no part in the mistake.
    """

    args: list[str]
    says: list[str]
    files: dict[str, str | bytes] = field(default_factory=dict)
    bare: bool = False
    before: Callable[[], object] = bool
    config: str = "MADE/lean.yaml"


def bad(name, args, *says, marks=(), **further):
    args = args.split() if isinstance(args, str) else args
    return pytest.param(Bad(args, list(says), **further), id=name.replace(" ", "_"), marks=marks)


def private(name, args, *says, **further):
    """A mistake in a private run; what is given later on a command line holds."""
    common = "--model.privacy.noise_multiplier 1 --model.privacy.batch_size 4 --model.adapter.dropout 0"
    return bad(f"private {name}", f"{common} {args}", *says, **further)


def config(name, text, *says):
    """A configuration file with a mistake in it."""
    return bad(name, "fit --config c.yaml", *says, files={"c.yaml": text, "d.yaml": "- ["}, bare=True)


def data(name, text, *says, options="", file="d.jsonl", more=None, **further):
    """A data file with a mistake in it."""
    source = ["--data.source", "lit_mem.data.sources.TextFiles", "--data.source.train", file]
    files = ({} if text is None else {file: text}) | (more or {})
    return bad(name, source + options.split(), *says, files=files, **further)


def source(name, kind, options, *says, files):
    return bad(name, f"--data.source lit_mem.data.sources.{kind} {options}", *says, files=files)


def canaries(name, options, *says, files=None):
    """Canaries with a mistake in them, in texts of 24 tokens."""
    return bad(name, f"--data.max_length 24 --data.canaries {options}", *says, files=files or {})


def callback(name, class_path, options, *says, alone=False, files=None):
    """One more callback than the quickstart has, or no other."""
    entry = f"--trainer.callbacks+={json.dumps({'class_path': class_path, 'init_args': options})}"
    config = Bad.config if alone else QUICKSTART
    return bad(name, [entry], *says, files=files or {}, config=config)


OURS = "lit_mem.callbacks."


def twice(name, *says):
    """The same measure listed two times, and no other."""
    return bad(f"two {name}", [f"--trainer.callbacks+={OURS}{name}"] * 2, *says, config=Bad.config)


def logger(name, options, *says, kind="TensorBoardLogger", **further):
    entry = {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": options}
    return bad(name, [f"--trainer.logger={json.dumps(entry)}"], *says, **further)


WHOLE = "--data.train_size null --data.heldout_size null"
STOP = OURS + "MemorizationEarlyStopping"
THEIRS = "lightning.pytorch.callbacks."

MISTAKES = [
    # -- command line and configuration
    bad("no command", "", "no command is given", "fit, validate, test", bare=True),
    bad("unknown command", "fitt", "found command fitt", "fit, validate, test", "did you mean fit?", bare=True),
    bad("no such config", "fit --config nope.yaml", "nope.yaml", "does not exist", bare=True),
    config("config not YAML", "a: [1, 2\nb: {", "c.yaml: ", "line 2", "expected ',' or ']'"),
    config("config of words", "hello world", "c.yaml: ", "hello world"),
    config("config not UTF-8", b"data: {seed: caf\xe9}", "c.yaml: ", "0xe9", "UTF-8"),
    config("unknown key", "data: {trainsize: 8}", "data.trainsize", "did you mean data.train_size?"),
    config(
        "unknown callback",
        "trainer: {callbacks: [{class_path: lit_mem.callbacks.Perplexty}]}",
        "c.yaml: trainer.callbacks: ", "Perplexty", "did you mean Perplexity?",
    ),
    config(
        "unknown parameter of a callback",
        "trainer: {callbacks: [{class_path: lit_mem.callbacks.Extraction, init_args: {prefx: 2}}]}",
        "c.yaml: trainer.callbacks: ", "lit_mem.callbacks.Extraction", "'prefx'", "did you mean prefix?",
    ),
    config("included file broken", "trainer: {callbacks: d.yaml}", "trainer.callbacks: Invalid content in", "d.yaml"),
    config(
        "wrong type in a callback",
        "trainer: {callbacks: [{class_path: lit_mem.callbacks.Extraction, init_args: {prefix: abc}}]}",
        "c.yaml: trainer.callbacks: ", "lit_mem.callbacks.Extraction: prefix: found abc; expected float",
    ),
    config("included file absent", "trainer: {callbacks: a/b.yaml}", "c.yaml: trainer.callbacks: ", "file a/b.yaml"),
    bad("config is a folder", "fit --config .", "config: Path is not a file", bare=True),
    config("config runs code", "data: !!python/object/apply:os.mkdir [code_was_run]", "c.yaml: ", "python/object"),
    config("config is a list", "- data\n- model", "c.yaml: ", "data"),
    bad("targets as a word", "--model.adapter.targets v", "targets", "found v", "list"),
    bad("unknown option", "--data.trainsize 8", "--data.trainsize", "did you mean --data.train_size?"),
    bad("unknown parameter", "--model.adapter.rnk 8", "model.adapter", "'rnk'", "did you mean rank?"),
    bad("wrong type", "--data.train_size many", "data.train_size: found many; expected int or null"),
    bad("wrong type in an optimizer", "--model.optimizer.init_args.lr fast", "model.optimizer", "lr", "fast", "float"),
    bad("unknown class", "--data.source lit_mem.data.sources.Nope", "data.source", "Nope", "PHEE", "TextFiles"),
    bad("unknown optimizer", "--model.optimizer torch.optim.Adamm", "model.optimizer", "Adamm", "Adam?"),
    bad("negative seed", "--seed_everything -5", "-5", "0 to 4294967295"),
    bad("learning rate nan", "--model.optimizer.init_args.lr nan", "lr", "nan"),
    bad("gradient clip nan", "--trainer.gradient_clip_val nan", "trainer.gradient_clip_val: found nan; expected"),
    config(
        "not a number, in a file",
        "trainer: {callbacks: [{class_path: lit_mem.callbacks.Extraction, init_args: {prefix: .nan}}]}",
        "trainer.callbacks[", "].prefix is nan; expected a number",
    ),
    # -- trainer
    bad("precision", "--trainer.precision 12", "trainer.precision: found 12; expected", "'bf16-mixed'"),
    bad("no GPU", "--trainer.accelerator gpu", "trainer: ", "gpu", marks=no_gpu),
    bad("unknown accelerator", "--trainer.accelerator toaster", "trainer: ", "toaster", "cpu"),
    bad("unknown strategy", "--trainer.strategy ddpp", "trainer: ", "ddpp", "ddp_spawn"),
    bad("no devices", "--trainer.devices nine", "trainer: ", "devices", "int > 0"),
    bad("validation interval", "--trainer.val_check_interval 77", "val_check_interval", "77", "less than or equal"),
    logger("log folder is a file", {"save_dir": "taken"}, "taken", "Not a directory", files={"taken": ""}),
    logger(
        "logger version used twice",
        {"save_dir": "logs", "name": "a", "version": 3},
        "trainer.logger: logs/a/version_3 already holds a run", "expected a free version",
        files={"logs/a/version_3/config.yaml": "kept"},
    ),
    logger("log folder cannot be", {"save_dir": "/proc/nowhere"}, "/proc/nowhere", "No such file", marks=linux),
    bad(
        "log folder is read-only",
        ['--trainer.logger={"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "shut"}}'],
        "shut", "Permission denied", before=lambda: os.mkdir("shut", 0o555), marks=no_root,
    ),
    logger("logger not installed", {}, "wandb", kind="WandbLogger", marks=no_wandb),
    # -- base model
    bad("model folder absent", "--model.model_id ./nope", "model_id", "./nope", "does not exist"),
    bad("hub model offline", "--model.model_id some/model", "model_id 'some/model'", "neither a local folder nor"),
    bad("default model offline", "fit --trainer.logger false", "meta-llama/Llama-2-7b-hf", "neither", bare=True),
    bad("model is a file", "--model.model_id ./m", "./m", "expected a folder", files={"m": "x"}),
    bad("model folder without config", "--model.model_id empty", "'empty'", "config.json", files={"empty/x": ""}),
    bad("damaged weights", "--model.model_id MADE/damaged", "damaged/model.safetensors", "damaged or truncated"),
    bad("truncated weights", "--model.model_id MADE/short", "short/model.safetensors", "damaged or truncated"),
    bad("pickled weights", "--model.model_id MADE/pickled", "pytorch_model.bin", "a pickle", "expected .safetensors"),
    bad("model with code of its own", "--model.model_id MADE/code", "MADE/code", "code", "never run"),
    bad("model config broken", "--model.model_id m", "'m'", "JSON", files={"m/config.json": "{"}),
    bad("model of another kind", "--model.model_id MADE/other_kind", "MADE/other_kind", "T5Config"),
    bad("texts longer than the model reads", "--model.model_id MADE/narrow", "MADE/narrow reads 16", "data.max_length"),
    bad(
        "reference that reads less",
        "--model.reference.model_id MADE/narrow", "MADE/narrow reads 16", "data.max_length to 16",
    ),
    bad("reference of fewer tokens", "--model.reference.model_id MADE/small", "MADE/small", "another vocabulary"),
    bad("damaged GGUF", "--model.model_id m.gguf", "'m.gguf'", files={"m.gguf": "no GGUF"}),
    bad("no such GGUF", "--model.model_id ./nope.gguf", "./nope.gguf", "does not exist"),
    bad("unknown asset", "--model.model_id asset:tny", "'tny'", "tiny_llama"),
    bad("unknown attention", "--model.attention quick", "model.attention", "quick", "eager"),
    bad("quantization without GPU", "--model.quantization 4bit", "model.quantization is 4bit", "GPU", marks=no_gpu),
    # -- adapter, reference, optimizer
    bad("adapter absent", "--model.adapter_path ./nope", "model.adapter_path './nope'", "expected"),
    bad("adapter without config", "--model.adapter_path MADE/a_bare", "a_bare", "no adapter_config.json"),
    bad("adapter config broken", "--model.adapter_path MADE/a_json", "a_json/adapter_config.json", "line 1 column 2"),
    bad("adapter is a file", "--model.adapter_path a", "model.adapter_path 'a'", "is not a folder", files={"a": ""}),
    bad("adapter of an unknown file type", "--model.adapter_path MADE/a_kind", "a_kind/adapter_config.json", "'NOPE'"),
    bad("adapter that names code", "--model.adapter_path MADE/a_code", "a_code/adapter_config.json", "megatron_config"),
    bad("adapter damaged", "--model.adapter_path MADE/a_damaged", "a_damaged/adapter_model.safetensors", "damaged"),
    bad("adapter pickled", "--model.adapter_path MADE/a_pickled", "adapter_model.safetensors", "pickled", "not loaded"),
    bad("adapter of other shapes", "--model.adapter_path MADE/a_shapes", "a_shapes", "size mismatch"),
    bad("adapter of other modules", "--model.adapter_path MADE/a_modules", "a_modules", "does not fit", "qkv"),
    bad("adapter lacks weights", "--model.adapter_path MADE/a_lacks", "a_lacks", "missing adapter keys", "v_proj"),
    bad("adapter of a deeper model", "--model.adapter_path MADE/a_deeper", "16 LoRA matrices", "of which 8 fit"),
    bad(
        "unknown target",
        "--model.adapter.targets [qkv]", "model.adapter.targets", "'qkv'", "v_proj", "short: q, k, v",
    ),
    bad("no target", "--model.adapter.targets []", "model.adapter.targets is empty", "q, k, v, o"),
    bad("rank 0", "--model.adapter.rank 0", "model.adapter.rank is 0; expected at least 1"),
    bad("rank -3", "--model.adapter.rank -3", "model.adapter.rank is -3; expected at least 1"),
    bad("rank above the matrix", "--model.adapter.rank 500", "model.adapter.rank is 500", "at most 128"),
    bad(
        "rank above the matrix, of one target",
        "--model.adapter.rank 65 --model.adapter.targets [v]", "model.adapter.rank is 65", "at most 64",
    ),
    bad("alpha nan", "--model.adapter.alpha nan", "model.adapter", "alpha: found nan; expected float"),
    bad("alpha 0", "--model.adapter.alpha 0", "model.adapter.alpha is 0", "expected above 0"),
    bad("dropout 1.5", "--model.adapter.dropout 1.5", "model.adapter.dropout is 1.5", "at least 0 and below 1"),
    bad("layers out of range", "--model.adapter.layers [1,99]", "model.adapter.layers is [1, 99]", "from 0 to 3"),
    # -- mitigation
    bad("goldfish of every token", "--model.loss.goldfish_k 1", "model.loss.goldfish_k is 1; expected at least 2"),
    bad("floor 0", "--model.loss.floor 0", "model.loss.floor is 0.0; expected above 0"),
    bad("deduplicate by guess", "--data.deduplicate some", "data.deduplicate: found some; expected", "'near'"),
    bad("privacy without a budget", "--model.privacy.batch_size 4", "neither target_epsilon nor noise_multiplier"),
    private("target 0", "--model.privacy.target_epsilon 0", "model.privacy.target_epsilon is 0.0"),
    private("delta 1", "--model.privacy.delta 1", "model.privacy.delta is 1.0; expected above 0 and below 1"),
    private("delta above 1/N", "--model.privacy.delta 0.2", "model.privacy.delta is 0.2; expected below 1/N = 0.125"),
    private("noise -1", "--model.privacy.noise_multiplier -1", "model.privacy.noise_multiplier is -1.0"),
    private("clipping 0", "--model.privacy.clipping_norm 0", "model.privacy.clipping_norm is 0.0"),
    private("Gaussian approximation", "--model.privacy.accountant gdp", "accountant: found gdp; expected", "'rdp'"),
    private("steps of all texts", "--model.privacy.batch_size 8", "batch_size is 8, but there are 8 training texts"),
    private("accumulated", "--trainer.accumulate_grad_batches 2", "a step is one draw from all texts"),
    private("clipped twice", "--trainer.gradient_clip_val 1", "gradient_clip_val is 1", "does not bound single text"),
    private("16 bits", "--trainer.precision bf16-true", "trainer.precision is bf16-true", "rounding breaks the bound"),
    private("grouped by length", "--data.group_by_length true", "data.group_by_length is true", "other texts' lengths"),
    private("near duplicates", "--data.deduplicate near", "data.deduplicate is near", "expected exact or none"),
    private("DoRA", "--model.adapter.dora true", "lora_magnitude_vector", "plain linear layers"),
    private("all weights", "--model.adapter FullFineTuning", "plain linear layers", "is trained"),
    private("a base in parts", "--trainer.strategy sharded", "trainer.strategy is ShardedBase", "wait for one another"),
    private("ledger is a folder", "--model.privacy.ledger .", "Is a directory"),
    private("ledger is a text", "--model.privacy.ledger t", "t, line 1: found no start", files={"t": TEXT + "\n"}),
    private(
        "ledger is spent",
        "--model.privacy.target_epsilon 1 --model.privacy.ledger t",
        "target_epsilon is 1", "is already spent in 1 steps",
        files={"t": '{"start": "a", "texts": 8, "noise_multiplier": 0.5, "sample_rate": 0.5}\n{"step": 1}\n'},
    ),
    private(
        "a checkpoint without privacy",
        "--ckpt_path MADE/good.ckpt --model.adapter.rank 4 --model.adapter.targets [v]",
        "ckpt_path MADE/good.ckpt", "trained without model.privacy",
    ),
    bad("unknown reference", "--model.reference.kind frozen", "model.reference.kind: found frozen", "'adapter_off'"),
    bad(
        "adapter off and another reference",
        "--model.reference.kind adapter_off --model.reference.model_id some/model",
        "model.reference.kind", "model.reference.model_id", "are both set",
    ),
    bad("warm-up 1.5", "--model.warmup_fraction 1.5", "model.warmup_fraction is 1.5", "below 1"),
    bad("learning rate -1", "--model.optimizer.init_args.lr -1", "model.optimizer: ", "learning rate", "-1"),
    # -- checkpoints
    bad("checkpoint absent", "--ckpt_path nope.ckpt", "ckpt_path nope.ckpt", "does not exist"),
    bad("checkpoint absent, named best", "--ckpt_path best.ckpt", "ckpt_path best.ckpt", "does not exist"),
    bad("no best checkpoint", "--ckpt_path best", "ckpt_path best: found no", "checkpoints/last.ckpt"),
    bad("checkpoint is a folder", "--ckpt_path .", "ckpt_path .", "is a folder", "expected a .ckpt file"),
    bad("checkpoint is text", "--ckpt_path t.ckpt", "ckpt_path t.ckpt", "not a checkpoint", files={"t.ckpt": TEXT}),
    bad("checkpoint empty", "--ckpt_path t.ckpt", "ckpt_path t.ckpt", "not a checkpoint", files={"t.ckpt": ""}),
    bad("checkpoint is a zip", "--ckpt_path t.ckpt", "t.ckpt is damaged", files={"t.ckpt": archive(a="b")}),
    bad("checkpoint with a flipped bit", "--ckpt_path MADE/flipped.ckpt", "is damaged", "does not match its checksum"),
    bad(
        "checkpoint is a pipe",
        "--ckpt_path t.ckpt", "ckpt_path t.ckpt", "a pipe or a device", before=lambda: os.mkfifo("t.ckpt"),
    ),
    bad("checkpoint truncated", "--ckpt_path MADE/short.ckpt", "MADE/short.ckpt", "truncated"),
    bad("checkpoint with code", "--ckpt_path MADE/bomb.ckpt", "MADE/bomb.ckpt", "pickled", "can execute code"),
    bad("checkpoint is a pickle", "--ckpt_path MADE/pickle.ckpt", "MADE/pickle.ckpt", "not a checkpoint"),
    bad("checkpoint of something else", "--ckpt_path MADE/foreign.ckpt", "foreign.ckpt", "not written by lit_mem"),
    bad("checkpoint is a list", "--ckpt_path MADE/list.ckpt", "list.ckpt", "not written by lit_mem"),
    bad(
        "checkpoint of another rank",
        "--ckpt_path MADE/good.ckpt --model.adapter.rank 5 --model.adapter.targets [v]",
        "ckpt_path MADE/good.ckpt", "(4, 128) there and (5, 128) here", "model.adapter.rank",
    ),
    bad(
        "checkpoint of another target",
        "--ckpt_path MADE/good.ckpt --model.adapter.rank 4 --model.adapter.targets [q]",
        "ckpt_path MADE/good.ckpt", "another adapter", "it lacks", "q_proj", "it also has", "v_proj", "targets",
    ),
    bad(
        "checkpoint of another base",
        "--ckpt_path MADE/other_base.ckpt",
        "ckpt_path MADE/other_base.ckpt", "base model 'some/model'", "not to 'asset:tiny_llama'",
    ),
    # -- data
    data("data absent", None, "d.jsonl", "no such file"),
    data("data empty", "", "d.jsonl: is empty", "expected at least one row"),
    data("malformed JSON", rows(2) + '{"text": "' + TEXT + "}\n" + rows(2), "d.jsonl", "line 3", "malformed JSON"),
    data("no text in a row", rows(2) + json.dumps({"txt": TEXT}), "d.jsonl", "line 3", "field 'text': is missing"),
    data("empty text", rows(1) + '{"text": " "}\n' + rows(1), "d.jsonl", "line 2", "'text'", "only whitespace"),
    data("not UTF-8", f'{{"text": "{TEXT} caf\xe9"}}'.encode("latin-1"), "d.jsonl, line 1", "0xe9", "expected UTF-8"),
    data("UTF-16", rows(9).encode("utf-16"), "d.jsonl, line 1", "0xff at offset 0", "UTF-16", "expected UTF-8"),
    data("UTF-16 without a mark", rows(9).encode("utf-16-le"), "d.jsonl", "line 1, column 2", "malformed JSON"),
    data(
        "two encodings", rows(9).encode() + '{"text": "caf\xe9"}\n'.encode("latin-1") + rows(9).encode(),
        "d.jsonl, line 10", "0xe9", "expected UTF-8",
    ),
    data("only a byte order mark", b"\xef\xbb\xbf", "d.jsonl: is empty"),
    data("only blank lines", "\n  \n\t\n", "d.jsonl: is empty"),
    data("text null", rows(2) + '{"text": null}', "d.jsonl", "line 3", "'text'", "found null", "expected a string"),
    data("a number", rows(2) + '{"text": 1e999}', "d.jsonl", "line 3", "'text'", "found float", "expected a string"),
    data("text nested", rows(2) + f'{{"text": {{"t": "{TEXT}"}}}}', "d.jsonl", "line 3", "found dict"),
    data("NUL in a text", rows(2) + '{"text": "a\\u0000b"}', "d.jsonl", "line 3", "NUL at character 2"),
    data("unpaired surrogate", rows(2) + '{"text": "ab\\ud800"}', "d.jsonl", "line 3", "surrogate at character 3"),
    data("unpaired surrogate in a name", rows(2) + '{"\\ud800": 1}', "d.jsonl", "line 3", "'\\ud800'", "surrogate"),
    data("field twice", rows(2) + f'{{"text": "{TEXT}", "text": "b"}}', "d.jsonl", "line 3", "'text' occurs twice"),
    data(
        "nested too deeply", rows(2) + '{"m": ' + "[" * 150 + "]" * 150 + "}", "d.jsonl", "line 3", "100 levels",
    ),
    data("nested beyond reading", "[" * 100_000, "d.jsonl", "line 1", "nested too deeply"),
    data("a number of 5000 digits", f'{{"n": {"9" * 5000}}}', "d.jsonl", "line 1", "too many digits"),
    data("array of texts", json.dumps([TEXT, TEXT]), "d.json", "row 1", "found str, expected an object", file="d.json"),
    data("array not closed", f'[{{"text": "{TEXT}"}}', "d.json, line 1", "not closed", file="d.json"),
    data("text column absent", rows(9), "no column 'note'", "'text', 'id'", options="--data.source.text_column note"),
    data("a split empty", rows(9), "h.jsonl: is empty", options="--data.source.heldout h.jsonl", more={"h.jsonl": " "}),
    data("held-out file absent", rows(9), "h.jsonl: no such file", options="--data.source.heldout h.jsonl"),
    data(
        "the held-out texts are the members",
        rows(20), "d.jsonl", "each of the 20 held-out texts is also a member's text", "h.jsonl:1 = d.jsonl:1",
        options=f"--data.source.heldout h.jsonl {WHOLE}", more={"h.jsonl": rows(20, TEXT.upper())},
    ),
    data(
        "group absent in a row", rows(9, g="a") + json.dumps({"text": TEXT}) + "\n" + rows(9, g="b"),
        "d.jsonl", "line 10", "field 'g': is missing", options="--data.source.group_column g",
    ),
    data("group column absent", rows(9), "no column 'ward'", options="--data.source.group_column ward"),
    data("group not a name", rows(9, g=[1]), "line 1", "'g'", "found list", options="--data.source.group_column g"),
    data("one group only", rows(9, g=7), "found 1 groups in 9 rows", options="--data.source.group_column g"),
    data("number no number", rows(9, n=float("nan")), "line 1", "'n'", "found nan",
         options="--data.source.prompt_template {n} --data.source.completion_template {text}"),
    data("a folder of several kinds", None, "d: has 1 .txt, 1 .csv", "expected files of one kind", "a glob pattern",
         file="d", more={"d/a.txt": TEXT, "d/b.csv": "text"}),
    data("an empty folder", None, "d: has no files", file="d", more={"d/.hidden": ""}),
    data("a folder without members", None, "d: is a folder with a set 'test' but none named 'train'", file="d",
         more={"d/test/a.txt": TEXT, "d/b.txt": TEXT}),
    data("held-out files among the members", None, "heldout and train share 1 of 2 files", file="d",
         options="--data.source.heldout d/b.txt", more={"d/a.txt": TEXT, "d/b.txt": TEXT}),
    data("a pattern of nothing", None, "*.jsonl: no file matches this pattern", file="*.jsonl"),
    data("no path", None, "path of a data file is empty", file=""),
    data("a path that is not text", None, "data.source: ", "surrogates not allowed", file="\udcff.jsonl"),
    data("a path with an escape sequence", None, "\\x1b[31md.jsonl: no such file", file="\x1b[31md.jsonl"),
    data("no such user", None, "~nobody_here/d.jsonl", "cannot be found", file="~nobody_here/d.jsonl"),
    data("a path too long", None, "cannot be found (File name too long)", file="d" * 300 + ".jsonl"),
    data("a broken link", None, "d.jsonl: is a link to nowhere", before=lambda: os.symlink("nowhere", "d.jsonl")),
    data("a pipe", None, "d.jsonl: is a pipe or a device", before=lambda: os.mkfifo("d.jsonl")),
    data("a device", None, "/dev/null: is a pipe or a device", file="/dev/null"),
    data("unreadable", None, "d.jsonl: cannot be read (Permission denied)",
         before=lambda: os.close(os.open("d.jsonl", os.O_CREAT, 0)), marks=no_root),
    data("compressed", b"x", "d.jsonl.xz: unknown file type '.xz'", file="d.jsonl.xz"),
    data("gzip cut short", gzip.compress(rows(9).encode())[:30], "d.jsonl.gz", file="d.jsonl.gz"),
    data("zstd cut short", ZSTD[:-3], "d.jsonl.zst: is not a readable zstd file", file="d.jsonl.zst"),
    data("a delimiter of two characters", rows(9), "data.source.delimiter is ';;'", "expected one character",
         options="--data.source.delimiter ;;"),
    data("no such encoding", rows(9), "data.source.encoding is 'latin-99'", "cp1252",
         options="--data.source.encoding latin-99"),
    data("an encoding of bytes", rows(9), "data.source.encoding is 'zlib'", "not a text encoding",
         options="--data.source.encoding zlib"),
    data("another encoding than named", rows(9) + "caf\xe9", "d.jsonl, line 10", "0xc3", "expected ascii text",
         options="--data.source.encoding ascii"),
    data("no row that can be used", '{"txt": 1}\n' * 3, "d.jsonl: no column 'text'",
         options="--data.source.skip_unusable true"),
    data("template file absent", rows(9), "prompt_template: p.txt cannot be read (No such file or directory)",
         options="--data.source.prompt_template file:p.txt --data.source.completion_template {text}"),
    data("template file empty", rows(9), "prompt_template: p.txt is empty; expected a template", more={"p.txt": "\n"},
         options="--data.source.prompt_template file:p.txt --data.source.completion_template {text}"),
    data("CSV ragged", f"text,id\n{TEXT},1\n{TEXT}\n", "line 3", "found 1 fields, expected 2", file="d.csv"),
    data("CSV quote not closed", f'text,id\n{TEXT},1\n"{TEXT},2\n', "d.csv, line 3: malformed CSV", file="d.csv"),
    data("CSV with NUL", f"text,id\n{TEXT}\0,1\n", "line 2", "found a NUL at character", file="d.csv"),
    data("CSV column twice", f"text,text\n{TEXT},{TEXT}\n", "d.csv, line 1", "'text' occurs twice", file="d.csv"),
    data("CSV of a header", "text,id\n", "d.csv: has a header but no rows", file="d.csv"),
    data("txt with a gap", f"{TEXT}\n\n{TEXT}\n", "d.txt", "line 2", "empty string", file="d.txt"),
    data("parquet of garbage", b"PAR1" + bytes(40) + b"PAR1", "d.parquet: is not a parquet file", file="d.parquet"),
    data("parquet cut short", parquet([TEXT] * 9)[:-9], "d.parquet: is not a parquet file", file="d.parquet"),
    data("parquet of numbers", parquet([1, 2]), "d.parquet", "row 1", "'text'", "found int", file="d.parquet"),
    data("parquet without rows", parquet(pa.array([], pa.string())), "d.parquet: is empty", file="d.parquet"),
    data(
        "a text without tokens", rows(9) + '{"text": "\u2603"}\n',
        "d.jsonl:10", "no token left to train on", options=f"--data.tokenizer MADE/odd {WHOLE}",
    ),
    source("PHEE absent", "PHEE", "--data.source.folder nope", "nope", "no such folder", files={}),
    source("PHEE of other rows", "PHEE", "--data.source.folder p", "p/train.json", "no column 'context'",
           files={f"p/{split}.json": '{"id": "1_1"}' for split in ("train", "dev", "test")}),
    source("case reports without a split", "CaseReports", "--data.source.folder p", "p/heldout.jsonl", "no such file",
           files={"p/train.jsonl": rows(9, spans=[], sex="F", age=1, group="a")}),
    source("a hub folder of pickles", "HubDataset", "--data.source.path p", "p: ", "no readable data files",
           files={"p/data.pkl": pickle.dumps(Bomb())}),
    source("a hub folder with a script", "HubDataset", "--data.source.path p", "p: ",
           files={"p/p.py": "open('code_was_run', 'w')"}),
    data("CSV without header", f"{TEXT}\n{TEXT}\n", "d.csv", "no column 'text'", "the first line must", file="d.csv"),
    data("unknown kind of file", TEXT, "d.docx", "'.docx'", ".jsonl", file="d.docx"),
    data(
        "unknown column in a template",
        rows(20), "d.jsonl", "no column 'question'", "'text'",
        options="--data.source.prompt_template {question} --data.source.completion_template {text}",
    ),
    data(
        "one template",
        rows(20), "prompt_template", "completion_template", options="--data.source.prompt_template {id}",
    ),
    data(
        "prompt fills max_length",
        rows(40), "d.jsonl:", "no token left to train on", "data.max_length is 6",
        options="--data.source.prompt_template {text} --data.source.completion_template {id} --data.max_length 6",
    ),
    data("one row to split", TEXT, "found 1 groups in 1 rows", "at least 2", file="d.txt"),
    data("train held out", rows(20), "heldout", "d.jsonl", "same file", options="--data.source.heldout ./d.jsonl"),
    data(
        "hub data offline",
        None, "some/data", "hub is unreachable",
        options="--data.source lit_mem.data.sources.HubDataset --data.source.path some/data",
    ),
    bad("train_size too large", "--data.train_size 9999999", "data.train_size is 9999999", "case_reports has only"),
    bad("members_size too large", "--data.members_size 9", "data.members_size is 9", "only 8 members"),
    bad("heldout_size 0", "--data.heldout_size 0", "data.heldout_size is 0; expected at least 1"),
    bad("train_size 0", "--data.train_size 0", "data.train_size is 0; expected at least 1"),
    bad("train_size -8", "--data.train_size -8", "data.train_size is -8; expected at least 1"),
    bad("members_size 0", "--data.members_size 0", "data.members_size is 0; expected at least 1"),
    bad("scoring_tokens 0", "--data.scoring_tokens 0", "data.scoring_tokens is 0; expected at least 1"),
    bad("batch_size -1", "--data.batch_size -1", "data.batch_size is -1; expected at least 1"),
    bad("batch_size 2.5", "--data.batch_size 2.5", "data.batch_size: found 2.5; expected int"),
    bad("data seed -1", "--data.seed -1", "data.seed is -1; expected at least 0"),
    bad("heldout_fraction nan", "--data.heldout_fraction nan", "data.heldout_fraction", "nan"),
    bad("tokenizer absent", "--data.tokenizer ./nope", "data.tokenizer", "./nope", "does not exist"),
    bad("tokenizer of another model", "--data.tokenizer MADE/odd", "gives token 2048", "has 2048", "data.tokenizer"),
    bad("max_length 1", "--data.max_length 1", "data.max_length is 1; expected at least 2"),
    bad("batch_size 0", "--data.batch_size 0", "data.batch_size is 0; expected at least 1"),
    bad("heldout_fraction 1", "--data.heldout_fraction 1", "data.heldout_fraction is 1", "above 0 and below 1"),
    bad("num_workers -1", "--data.num_workers -1", "num_workers", "non-negative"),
    bad("no end-of-text token", "--data.tokenizer MADE/no_eos --data.add_eos true", "data.add_eos", "end-of-text"),
    # -- spans
    data(
        "spans are a text", rows(40).replace('"id"', '"spans": "4-9", "id"'),
        "d.jsonl:", "'spans'", "found a string", "expected a list of {type, start, end}", "data.spans_column",
    ),
    data(
        "span beyond the text", rows(40).replace('"id"', '"spans": [{"type": "x", "start": 4, "end": 400}], "id"'),
        "d.jsonl:", "span 1", "found start 4 and end 400", "0 <= start < end <= 6",
    ),
    data(
        "spans without a type", rows(60, spans=[{"start": 0, "end": 4}]),
        "d.jsonl:", "span 1", "found nothing as its type",
    ),
    data(
        "span ends before it starts", rows(60, spans=[{"type": "x", "start": 9, "end": 4}]),
        "d.jsonl:", "span 1", "found start 9 and end 4",
    ),
    data(
        "span starts at a text", rows(60, spans=[{"type": "x", "start": "4", "end": 9}]),
        "d.jsonl:", "span 1", "found a string as its start", "an integer",
    ),
    data(
        "span ends at infinity", rows(60, spans=[{"type": "x", "start": 0, "end": float("inf")}]),
        "d.jsonl:", "span 1", "found inf as its end", "an integer",
    ),
    data("span a number", rows(60, spans=[4]), "d.jsonl:", "span 1", "found int", "a list of {type, start, end}"),
    bad("spans column absent", "--data.spans_column marks", "data.spans_column", "'marks'"),
    # -- canaries
    canaries("one canary", "Secrets --data.canaries.n 1", "data.canaries.n is 1; expected at least 2"),
    canaries("unknown kind of canary", "lit_mem.data.canaries.Secret", "data.canaries", "did you mean Secrets?"),
    canaries("no repetition", "Secrets --data.canaries.repetitions [0]", "data.canaries.repetitions is [0]"),
    canaries(
        "canaries of no digit",
        "Secrets --data.canaries.templates [hello]", "data.canaries.templates has 'hello'", "random digits (#)",
    ),
    canaries("canaries too long", "RandomTokens --data.canaries.n 4", "has 34 tokens", "data.max_length is 24"),
    canaries("no such file of canaries", "Lines --data.canaries.path nope.txt", "nope.txt: no such file"),
    canaries(
        "a canary twice",
        "Lines --data.canaries.path c.txt", "c.txt:2: repeats c.txt:1", "expected distinct rows",
        files={"c.txt": f"{TEXT}\n{TEXT.upper()}\n"},
    ),
    canaries(
        "a canary in the data",
        "Lines --data.canaries.path c.txt --data.source TextFiles --data.source.train d.jsonl",
        "c.txt:", "is a text of the data", "only if their coin says so",
        files={"c.txt": "".join(f"{TEXT} {i}!\n" for i in range(60)), "d.jsonl": rows(60)},
    ),
    canaries(
        "traps that the base does not write",
        "Traps --data.canaries.n 2 --data.canaries.length 4 --data.canaries.perplexities [1e8,1e9]",
        "data.canaries.perplexities: in 1e+08 to 1e+09 only 0 of 2", "data.canaries.temperatures",
    ),
    callback("canaries without canaries", OURS + "Canaries", {}, "no canary was validated", "set data.canaries"),
    callback("an audit without canaries", OURS + "PrivacyAudit", {}, "found none", "data.canaries"),
    callback("an audit at certainty", OURS + "PrivacyAudit", {"confidence": 1}, "PrivacyAudit.confidence is 1"),
    callback(
        "an attack that asks canaries",
        OURS + "Canaries", {"attack": {"class_path": "lit_mem.attacks.Lowercase"}},
        "Canaries.attack is Lowercase", "reads only the scoring pass",
    ),
    # -- callbacks
    callback("two prefixes alike", OURS + "Extraction", {"prefix": [8, 8]}, "Extraction.prefix is [8, 8]", "each once"),
    callback(
        "prefixes of two kinds",
        OURS + "Extraction", {"prefix": [0.5, 8]}, "Extraction.prefix is [0.5, 8]", "only shares, or only numbers",
    ),
    callback(
        "no try",
        OURS + "Extractability",
        {"measures": {"d": {"class_path": "lit_mem.extraction.Discoverable", "init_args": {"n": 0}}}},
        "Discoverable.n is 0", "at least 1",
    ),
    callback(
        "one reference for LiRA",
        OURS + "MembershipInference",
        {"attacks": {"lira": {"class_path": "lit_mem.attacks.OfflineLiRA", "init_args": {"references": ["a"]}}}},
        "OfflineLiRA.references names 1", "2 or more",
    ),
    twice("Slices", "Slices and Slices both log 'slice/", "keep one of them"),
    callback("no rate of Movers", OURS + "Movers", {"fpr": 0}, "Movers.fpr is 0", "above 0 and below 1"),
    twice("Perplexity", "Perplexity and Perplexity both log", "perplexity"),
    twice("MembershipInference", "both log 'mia/"),
    twice("Extraction", "more than one", "Extraction"),
    twice("Movers", "more than one", "Movers"),
    twice("Stopwatch", "Stopwatch and Stopwatch both log 'time/"),
    twice("Correlation", "Correlation and Correlation both log 'correlation/"),
    twice("MemorizationCheckpoint", "more than one", "MemorizationCheckpoint"),
    callback("not a callback", "collections.OrderedDict", {}, "trainer.callbacks", "OrderedDict"),
    callback("top 0", OURS + "Movers", {"top": 0}, "Movers.top is 0; expected at least 1"),
    callback("one bin", OURS + "Slices", {"bins": 1}, "Slices.bins is 1; expected at least 2"),
    callback("n_members of -1", OURS + "Extraction", {"n_members": -1}, "Extraction.n_members is -1", "at least 0"),
    callback(
        "temperature 0",
        OURS + "Extraction", {"sampling": {"temperature": 0}}, "Extraction.sampling.temperature is 0", "above 0",
    ),
    callback(
        "share of nothing",
        OURS + "MembershipInference",
        {"attacks": {"m": {"class_path": "lit_mem.attacks.MinK", "init_args": {"share": 0}}}},
        "MinK.share is 0", "above 0",
    ),
    callback("a folder that is a file", OURS + "PerExampleTable", {"folder": "taken"},
             "PerExampleTable.folder: taken/start.parquet cannot be written", files={"taken": ""}),
    callback("checkpoints into a file", OURS + "MemorizationCheckpoint", {"dirpath": "taken"},
             "taken/last.ckpt: Not a directory", alone=True, files={"taken": ""}),
    callback("nothing logs it here", STOP, {"thresholds": ["mia/loss_auroc > 0.6"]},
             "nothing logs 'mia/loss_auroc'", alone=True),
    callback("slices of no column", OURS + "Slices", {"columns": ["ward"]}, "Slices.columns names 'ward'", alone=True),
    callback("movers by no column", OURS + "Movers", {"column": "mia/los"}, "Movers.column", "'mia/los'", alone=True),
    callback("correlation alone", OURS + "Correlation", {}, "'perplexity'", "add the measure Perplexity", alone=True),
    callback("threshold nan", STOP, {"thresholds": ["val/loss > nan"]}, "'val/loss > nan'", "name > number"),
    callback("threshold inf", STOP, {"thresholds": ["val/loss < inf"]}, "'val/loss < inf'", "name > number"),
    config(
        "prefix inf",
        "trainer: {callbacks: [{class_path: lit_mem.callbacks.Extraction, init_args: {prefix: .inf}}]}",
        "Extraction.prefix is inf; expected a share below 1 or a whole number",
    ),
    callback(
        "threshold misspelt",
        STOP, {"thresholds": ["mia/los_auroc > 0.6"]}, "'mia/los_auroc'", "'mia/loss_auroc'?",
    ),
    callback(
        "threshold malformed",
        STOP, {"thresholds": ["mia/loss_auroc = 0.6"]}, "'mia/loss_auroc = 0.6'", "name > number",
    ),
    callback("no threshold", STOP, {"thresholds": []}, "thresholds is empty", "mia/loss_auroc > 0.7"),
    callback("patience 0", STOP, {"thresholds": ["val/loss < 1"], "patience": 0}, "patience is 0", "at least 1"),
    callback("prefix 2.5", OURS + "Extraction", {"prefix": 2.5}, "Extraction.prefix is 2.5", "whole number"),
    callback(
        "every 0 validations",
        OURS + "Extraction", {"every_n_validations": 0}, "every_n_validations is 0", "at least 1",
    ),
    callback(
        "rate 0",
        OURS + "MembershipInference", {"fprs": [0]}, "MembershipInference.fprs contains 0", "between 0 and 1",
    ),
    callback(
        "share 2",
        OURS + "PerplexityDropWarning", {"share": 2}, "PerplexityDropWarning.share is 2", "above 0 and below 1",
    ),
    callback(
        "early stopping on nothing",
        THEIRS + "EarlyStopping", {"monitor": "val/los"}, "EarlyStopping", "'val/los'", "'val/loss'?",
    ),
    callback(
        "early stopping mode",
        THEIRS + "EarlyStopping", {"monitor": "val/loss", "mode": "low"}, "mode", "low", "min",
    ),
    callback(
        "checkpoint of nothing",
        THEIRS + "ModelCheckpoint", {"monitor": "val/los"}, "ModelCheckpoint", "'val/los'", "'val/loss'?",
    ),
    callback(
        "best of nothing",
        OURS + "MemorizationCheckpoint", {"monitor": "val/los"}, "MemorizationCheckpoint", "'val/los'",
    ),
]  # fmt: skip

# Errors that only the full command finds, plus one or two of each kind; the others together take minutes.
REPRESENTATIVE = """
    targets_as_a_word unknown_option unknown_class learning_rate_nan log_folder_is_a_file model_folder_absent
    pickled_weights model_with_code_of_its_own adapter_pickled unknown_target rank_0 private_delta_above_1/N
    checkpoint_absent checkpoint_with_a_flipped_bit checkpoint_with_code malformed_JSON one_canary not_a_callback
    nothing_logs_it_here threshold_misspelt prefix_2.5
""".split()
BY_COMMAND = [
    m
    if m.values[0].bare or m.id in REPRESENTATIVE
    else pytest.param(*m.values, id=m.id, marks=[*m.marks, pytest.mark.slow])
    for m in MISTAKES
]
WITH_A_MODEL = """
    tokenizer_of_another_model num_workers_-1 one_canary no_repetition canaries_of_no_digit
    traps_that_the_base_does_not_write
""".split()
OF_DATA = [m for m in MISTAKES if " ".join(m.values[0].args).startswith("--data.") and m.id not in WITH_A_MODEL]


def test_the_representative_mistakes_are_there():
    assert {*REPRESENTATIVE, *WITH_A_MODEL} <= {m.id for m in MISTAKES}


@pytest.fixture(autouse=True)
def clean_logging(monkeypatch):
    """The command line configures this package's logger for a whole process; other tests want it as it was."""
    monkeypatch.setattr(sys, "argv", ["train.py"])
    log = logging.getLogger("lit_mem")
    before = list(log.handlers), log.propagate, log.level
    log.handlers = []
    yield
    log.handlers, log.propagate = before[:2]
    log.setLevel(before[2])


@pytest.fixture(scope="module", autouse=True)
def parser_built_once():
    """Every command line builds the same parsers, which takes longer than most mistakes do."""
    build, built = LightningCLI.setup_parser, {}

    def shared(self, *args):
        if not built:
            build(self, *args)
            names = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")
            built.update((name, getattr(self, name)) for name in names)
        vars(self).update(built)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LightningCLI, "setup_parser", shared)
        patch.setattr(MemorizationCLI, "_needs", lambda self, subcommand: True)
        yield


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def flip(checkpoint, target):
    """One bit in the middle of the largest tensor is flipped."""
    content = bytearray(checkpoint.read_bytes())
    with zipfile.ZipFile(checkpoint) as opened:
        tensors = [member for member in opened.infolist() if "/data/" in member.filename]
        largest = max(tensors, key=lambda member: member.file_size)
        content[largest.header_offset + 500 + largest.file_size // 2] ^= 1
    target.write_bytes(content)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Base models, adapters and checkpoints, broken in all ways, except good.ckpt."""
    folder = tmp_path_factory.mktemp("made")
    tiny = assets.path("tiny_llama")
    weights = (tiny / "model.safetensors").read_bytes()
    for name in ("damaged", "short", "pickled", "no_eos"):
        shutil.copytree(tiny, folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "damaged" / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"garbage!")
    (folder / "short" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    torch.save({"weight": Bomb()}, folder / "pickled" / "pytorch_model.bin")
    edit(folder / "no_eos" / "tokenizer_config.json", lambda config: config.pop("eos_token"))
    for name in ("narrow", "odd", "bare"):
        shutil.copytree(tiny, folder / name)
    edit(folder / "narrow" / "config.json", lambda config: config.update(max_position_embeddings=16))
    # "odd" has an extra token for "the", and drops a snowman.
    word = {"id": 2048, "content": "the", "special": False}
    word |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    edit(folder / "odd" / "tokenizer.json", lambda made: made["added_tokens"].append(word))
    snowman = {"type": "Replace", "pattern": {"String": "\u2603"}, "content": ""}
    edit(folder / "odd" / "tokenizer.json", lambda made: made.update(normalizer=snowman))
    edit(folder / "bare" / "tokenizer.json", lambda made: made.update(post_processor=None))
    for key in ("bos_token", "eos_token", "pad_token"):
        edit(folder / "bare" / "tokenizer_config.json", lambda config, key=key: config.pop(key))
    LlamaForCausalLM(
        LlamaConfig(vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(folder / "small")
    for name, config in (
        ("other_kind", {"model_type": "t5"}),
        ("code", {"model_type": "bomb", "auto_map": {"AutoConfig": "bomb.Bomb", "AutoModelForCausalLM": "bomb.Bomb"}}),
    ):
        shutil.copytree(tiny, folder / name, ignore=shutil.ignore_patterns("config.json"))
        (folder / name / "config.json").write_text(json.dumps(config))
    (folder / "code" / "bomb.py").write_text("open('code_was_run', 'w')\nclass Bomb: pass\n")

    def adapter(name, change, config=None):
        target = folder / name
        LoRA(rank=4, targets=["v"]).wrap(load_base(str(tiny))).save_pretrained(target, save_embedding_layers=False)
        file = target / "adapter_model.safetensors"
        save_file(change(load_file(file)), file)
        if config is not None:
            path = target / "adapter_config.json"
            path.write_text(json.dumps(json.loads(path.read_text()) | config))
        return target

    (adapter("a_bare", dict) / "adapter_config.json").unlink()
    (adapter("a_json", dict) / "adapter_config.json").write_text("{")
    (adapter("a_damaged", dict) / "adapter_model.safetensors").write_bytes(b"no weights at all")
    pickled = adapter("a_pickled", dict)
    (pickled / "adapter_model.safetensors").unlink()
    torch.save({"weight": Bomb()}, pickled / "adapter_model.bin")
    adapter("a_kind", dict, {"peft_type": "NOPE"})
    adapter("a_code", dict, {"megatron_config": {"a": 1}, "megatron_core": "bomb.core"})
    adapter("a_shapes", lambda w: {k: torch.zeros(2 * v.shape[0], v.shape[1]) for k, v in w.items()})
    adapter("a_modules", lambda w: {k.replace("v_proj", "qkv"): v for k, v in w.items()}, {"target_modules": ["qkv"]})
    adapter("a_lacks", lambda w: {k.replace("v_proj", "k_proj"): v for k, v in w.items()})
    adapter("a_deeper", lambda w: w | {k.replace("layers.", "layers.3"): v.clone() for k, v in w.items()})

    lean = yaml.safe_load(Path(QUICKSTART).read_text())
    lean["trainer"]["logger"] = False
    lean["memorization"] = {"suite": "none"}
    lean["data"]["source"]["init_args"] = {"folder": str(folder / "corpus")}
    (folder / "lean.yaml").write_text(yaml.safe_dump(lean))
    (folder / "corpus").mkdir()
    for split in ("train", "heldout", "test"):
        lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / "corpus" / f"{split}.jsonl").write_text("".join(lines[:24]))

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py"])
        options = ["--model.adapter.rank", "4", "--model.adapter.targets", "[v]"]
        main(["fit", "--config", QUICKSTART, *SMALL, *options, "--trainer.num_sanity_val_steps", "0"])
        logging.getLogger("lit_mem").handlers = []  # it holds this fixture's standard error
    last = folder / "logs" / "lit_mem" / "version_0" / "checkpoints" / "last.ckpt"
    shutil.copy(last, folder / "good.ckpt")
    (folder / "short.ckpt").write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    flip(last, folder / "flipped.ckpt")
    torch.save({"state_dict": Bomb()}, folder / "bomb.ckpt")
    (folder / "pickle.ckpt").write_bytes(pickle.dumps(Bomb()))
    torch.save([1, 2], folder / "list.ckpt")
    content = torch.load(last, weights_only=True)
    torch.save({k: v for k, v in content.items() if k != "lit_mem"}, folder / "foreign.ckpt")
    content["lit_mem"] |= {"base": "some/model", "fingerprint": {"light": "0", "full": "1"}}
    torch.save(content, folder / "other_base.ckpt")
    return folder


@pytest.fixture
def rejected(made, tmp_path, monkeypatch, capsys):
    """Checks that a mistake is one line and exit code 2, and changes no file."""

    def check(mistake, args):
        monkeypatch.chdir(tmp_path)
        for name, content in mistake.files.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        mistake.before()
        with pytest.raises(SystemExit) as stop:
            main([arg.replace("MADE", str(made)) for arg in args])
        err = capsys.readouterr().err
        lines = err.splitlines()
        assert stop.value.code == 2
        assert lines[-1].startswith("error: ")
        assert sum(line.startswith(("error", "usage", "tip")) for line in lines) == 1
        for piece in mistake.says:
            assert piece.replace("MADE", str(made)) in lines[-1]
        assert len(lines[-1]) < 1000
        assert "Traceback" not in err
        assert all(line.isprintable() for line in lines)
        assert TEXT not in err
        assert not list(tmp_path.rglob("code_was_run"))
        for name, content in mistake.files.items():
            assert Path(name).read_bytes() == (content if isinstance(content, bytes) else content.encode())

    return check


@pytest.mark.parametrize("mistake", BY_COMMAND)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, rejected):
    rejected(mistake, mistake.args if mistake.bare else ["fit", "--config", mistake.config, *SMALL, *mistake.args])


@pytest.fixture(scope="module")
def only_data():
    """The part of the command line that reads the texts: its parser, and what is built of it."""
    parser = OneLineParser()
    parser.add_lightning_class_args(TextDataModule, "data")

    def run(args, ready):
        texts = parser.instantiate_classes(parser.parse_args(args)).data
        texts.prepare_data()
        texts.setup("fit")

    return run


@pytest.mark.parametrize("mistake", OF_DATA)
def test_a_mistake_in_the_data_is_one_line_before_there_is_a_model(mistake, rejected, only_data, monkeypatch):
    monkeypatch.setattr("lit_mem.cli.main.MemorizationCLI", only_data)
    small = [*SMALL[:6], "--data.tokenizer", "asset:tiny_llama"]
    rejected(mistake, [*small, *mistake.args])


SPANS = [{"type": "x", "start": start, "end": start + 30} for start in (0, 3, 3)]  # overlap, and one comes twice
ODD = [
    {"text": "\u0645\u0631\u06cc\u0636 fever \U0001f912 " + TEXT, "n": float("inf"), "m": [[["x"]]], "spans": SPANS},
    {"text": "</s><s> <unk> " + TEXT, "n": -1, "m": {"a": 1}, "big": 10**40, "spans": []},
    {"text": "\u200b\u202e" + TEXT, "n": None, "m": "y"},
]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("members", "heldout", "options"),
    [
        (rows(1, "Only this text is a member, and"), rows(9), ""),
        (rows(9, "A tokenizer without any special token:"), rows(9), "--data.tokenizer MADE/bare --data.add_eos false"),
        ("".join(json.dumps(row) + "\n" for row in ODD), rows(9), ""),
        pytest.param(
            json.dumps({"text": "word " * 2_000_000}) + "\n" + rows(3), rows(9), "", marks=pytest.mark.slow
        ),
    ],
    ids=["one member", "no special tokens", "odd values", "a line of 10 MB"],
)  # fmt: skip
def test_what_is_unusual_but_no_mistake_is_measured(members, heldout, options, made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("d.jsonl").write_text(members)
    Path("h.jsonl").write_text(heldout)
    source = "--data.source lit_mem.data.sources.TextFiles --data.source.train d.jsonl --data.source.heldout h.jsonl"
    options = options.replace("MADE", str(made))
    main(["validate", "--config", QUICKSTART, *SMALL, *WHOLE.split(), *source.split(), *options.split()])
    figures = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(figures["mia/reference_auroc"]) == 0.5
    assert all(torch.isfinite(torch.tensor(float(value))) for value in figures.values())


@pytest.mark.slow
def test_a_good_adapter_and_a_good_checkpoint_are_taken(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = (made / "good.ckpt").read_bytes()
    options = [
        "--model.adapter_path",
        str(made / "logs" / "lit_mem" / "version_0" / "checkpoints" / "last-adapter"),
        "--ckpt_path",
        str(made / "good.ckpt"),
    ]
    main(["validate", "--config", QUICKSTART, *SMALL, *options])
    assert "mia/reference_auroc" in capsys.readouterr().out
    assert (made / "good.ckpt").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyError])
def test_a_bug_of_ours_keeps_its_traceback(kind, tmp_path, monkeypatch):
    def broken(self, stage):
        raise kind("a bug")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TextDataModule, "setup", broken)
    with pytest.raises(kind, match="a bug"):
        main(["fit", "--config", QUICKSTART, *SMALL])


def test_a_bug_in_a_constructor_keeps_its_traceback(tmp_path, monkeypatch):
    def broken(self):
        raise RuntimeError("a bug")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measures.Perplexity, "__init__", broken)
    with pytest.raises(Exception, match="a bug") as bug:
        main(["fit", "--config", QUICKSTART, *SMALL])
    assert "in broken" in "".join(traceback.format_exception(bug.value))


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nmore"), 2, "Tried 2 GiB."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "data.scoring_tokens"),
        (MemoryError(), 2, "data.batch_size"),
        (PermissionError(13, "Permission denied", "logs/x"), 2, "error: logs/x: Permission denied"),
        (KeyboardInterrupt(), 130, ""),
    ],
    ids=["gpu memory", "cpu memory", "python memory", "permission", "interrupt"],
)  # fmt: skip
def test_what_is_nobodys_mistake_but_no_bug_either(error, code, line, monkeypatch, capsys):
    def fails(self, args, ready):
        raise error

    monkeypatch.setattr(MemorizationCLI, "__init__", fails)
    with pytest.raises(SystemExit) as stop:
        main(["fit"])
    err = capsys.readouterr().err
    assert stop.value.code == code
    assert line in err
    assert err.count("\n") == bool(line)


def test_debugging_shows_the_traceback_of_a_mistake_too(monkeypatch):
    monkeypatch.setenv("LIT_MEM_DEBUG", "1")
    with pytest.raises(ConfigError, match=r"data\.train_size: found many"):
        main(["fit", "--config", QUICKSTART, "--data.train_size", "many"])


@pytest.mark.parametrize("args", [["--help"], ["fit", "--help"], ["fit", "--config", QUICKSTART, "--print_config"]])
def test_help_is_not_an_error(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_a_message_of_another_form_is_kept_whole():
    assert readable("Something new:\n  - in two lines") == "Something new: in two lines"
