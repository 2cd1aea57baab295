"""Every mistake that a user can make: exit code 2; one line says where, what was found and what was expected."""

import json
import logging
import pickle
import shutil
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_mem import assets
from lit_mem.adapters import LoRA
from lit_mem.adapters.loading import load_base
from lit_mem.callbacks import Perplexity
from lit_mem.cli import MemorizationCLI, TextDataModule, main, readable
from lit_mem.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

QUICKSTART = str(Path(__file__).parent.parent / "configs" / "quickstart.yaml")
SMALL = (
    "--data.train_size 8 --data.heldout_size 8 --data.max_length 48 --trainer.max_epochs 1 --trainer.logger false"
).split()
TEXT = "Mrs Example took zymurgol and was found asleep in the garden"
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


class Bomb:
    """Unpickled, it writes a file into the working directory."""

    def __reduce__(self):
        return (open, ("code_was_run", "w"))


def rows(n, text=TEXT):
    return "".join(json.dumps({"text": f"{text} {i}", "id": i}) + "\n" for i in range(n))


@dataclass
class Bad:
    """A mistake.

    Attributes:
        args: after `fit --config quickstart.yaml` and SMALL; "MADE" stands for the folder of the fixture `made`.
        says: what the line on standard error must hold.
        files: what lies in the working directory.
        bare: `args` are the whole command line.
    """

    args: list[str]
    says: list[str]
    files: dict[str, str | bytes] = field(default_factory=dict)
    bare: bool = False


def bad(name, args, *says, files=None, bare=False, marks=()):
    args = args.split() if isinstance(args, str) else args
    return pytest.param(Bad(args, list(says), files or {}, bare), id=name.replace(" ", "_"), marks=marks)


def config(name, text, *says):
    """A configuration file with a mistake in it."""
    return bad(name, "fit --config c.yaml", *says, files={"c.yaml": text, "d.yaml": "- ["}, bare=True)


def data(name, text, *says, options="", file="d.jsonl"):
    """A data file with a mistake in it."""
    source = f"--data.source lit_mem.data.sources.TextFiles --data.source.train {file} "
    return bad(name, source + options, *says, files={} if text is None else {file: text})


def callback(name, class_path, options, *says):
    entry = {"class_path": class_path, "init_args": options}
    return bad(name, [f"--trainer.callbacks+={json.dumps(entry)}"], *says)


def logger(name, options, *says, files):
    entry = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": options}
    return bad(name, [f"--trainer.logger={json.dumps(entry)}"], *says, files=files)


OURS = "lit_mem.callbacks."
STOP = OURS + "MemorizationEarlyStopping"
THEIRS = "lightning.pytorch.callbacks."

MISTAKES = [
    # -- command line and configuration
    bad("no sub-command", "", "fit,validate,test", bare=True),
    bad("unknown sub-command", "fitt", "'fitt'", "'fit', 'validate', 'test'", bare=True),
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
    config("included file absent", "trainer: {callbacks: a/b.yaml}", "c.yaml: trainer.callbacks: ", "no file a/b.yaml"),
    bad("targets as a word", "--model.adapter.targets v", "targets", "found v", "list"),
    bad("unknown option", "--data.trainsize 8", "--data.trainsize", "did you mean --data.train_size?"),
    bad("unknown parameter", "--model.adapter.rnk 8", "model.adapter", "'rnk'", "did you mean rank?"),
    bad("wrong type", "--data.train_size many", "data.train_size: found many; expected int or null"),
    bad("wrong type in an optimizer", "--model.optimizer.init_args.lr fast", "model.optimizer", "lr", "fast", "float"),
    bad("unknown class", "--data.source lit_mem.data.sources.Nope", "data.source", "Nope", "PHEE", "TextFiles"),
    bad("unknown optimizer", "--model.optimizer torch.optim.Adamm", "model.optimizer", "Adamm", "Adam?"),
    bad("negative seed", "--seed_everything -5", "-5", "0 to 4294967295"),
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
        "logs/a/version_3", "already holds a run", "another version",
        files={"logs/a/version_3/config.yaml": "kept"},
    ),
    # -- base model
    bad("model folder absent", "--model.model_id ./nope", "model_id", "./nope", "does not exist"),
    bad("hub model offline", "--model.model_id some/model", "model_id 'some/model'", "neither a folder here nor"),
    bad("default model offline", "fit --trainer.logger false", "meta-llama/Llama-2-7b-hf", "neither", bare=True),
    bad("model is a file", "--model.model_id ./m", "./m", "expected a folder", files={"m": "x"}),
    bad("model folder without config", "--model.model_id empty", "'empty'", "config.json", files={"empty/x": ""}),
    bad("damaged weights", "--model.model_id MADE/damaged", "damaged/model.safetensors", "damaged or cut short"),
    bad("truncated weights", "--model.model_id MADE/short", "short/model.safetensors", "damaged or cut short"),
    bad("pickled weights", "--model.model_id MADE/pickled", "MADE/pickled", "pickled objects", "expected .safetensors"),
    bad("no such GGUF", "--model.model_id ./nope.gguf", "./nope.gguf", "does not exist"),
    bad("unknown asset", "--model.model_id asset:tny", "'tny'", "tiny_llama"),
    bad("unknown attention", "--model.attention quick", "model.attention", "quick", "eager"),
    bad("quantization without GPU", "--model.quantization 4bit", "model.quantization is 4bit", "GPU", marks=no_gpu),
    # -- adapter, reference, optimizer
    bad("adapter absent", "--model.adapter_path ./nope", "model.adapter_path './nope'", "expected"),
    bad("adapter without config", "--model.adapter_path MADE/a_bare", "a_bare", "no adapter_config.json"),
    bad("adapter config broken", "--model.adapter_path MADE/a_json", "a_json/adapter_config.json", "line 1 column 2"),
    bad("adapter damaged", "--model.adapter_path MADE/a_damaged", "a_damaged/adapter_model.safetensors", "damaged"),
    bad("adapter pickled", "--model.adapter_path MADE/a_pickled", "adapter_model.safetensors", "pickled", "refused"),
    bad("adapter of other shapes", "--model.adapter_path MADE/a_shapes", "a_shapes", "size mismatch"),
    bad("adapter of other modules", "--model.adapter_path MADE/a_modules", "a_modules", "does not fit", "qkv"),
    bad("adapter lacks weights", "--model.adapter_path MADE/a_lacks", "a_lacks", "missing adapter keys", "v_proj"),
    bad("adapter of a deeper model", "--model.adapter_path MADE/a_deeper", "16 LoRA matrices", "place for 8"),
    bad(
        "unknown target",
        "--model.adapter.targets [qkv]", "model.adapter.targets", "'qkv'", "v_proj", "short: q, k, v",
    ),
    bad("no target", "--model.adapter.targets []", "model.adapter.targets is empty", "q, k, v, o"),
    bad("rank 0", "--model.adapter.rank 0", "model.adapter.rank is 0; expected 1 or more"),
    bad("alpha 0", "--model.adapter.alpha 0", "model.adapter.alpha is 0", "expected a number above 0"),
    bad("dropout 1.5", "--model.adapter.dropout 1.5", "model.adapter.dropout is 1.5", "[0, 1)"),
    bad("layers out of range", "--model.adapter.layers [1,99]", "model.adapter.layers is [1, 99]", "layers 0 to 3"),
    bad("unknown reference", "--model.reference.kind frozen", "model.reference.kind: found frozen", "'adapter_off'"),
    bad(
        "adapter off and another reference",
        "--model.reference.kind adapter_off --model.reference.model_id some/model",
        "model.reference.kind", "model.reference.model_id", "exclude each other",
    ),
    bad("warm-up 1.5", "--model.warmup_fraction 1.5", "model.warmup_fraction is 1.5", "[0, 1)"),
    bad("learning rate -1", "--model.optimizer.init_args.lr -1", "model.optimizer: ", "learning rate", "-1"),
    # -- checkpoints
    bad("checkpoint absent", "--ckpt_path nope.ckpt", "ckpt_path nope.ckpt", "does not exist"),
    bad("checkpoint absent, named best", "--ckpt_path best.ckpt", "ckpt_path best.ckpt", "does not exist"),
    bad("no best checkpoint", "--ckpt_path best", 'ckpt_path="best"', "not configured to save"),
    bad("checkpoint is a folder", "--ckpt_path .", "ckpt_path .", "is a folder", "expected a .ckpt file"),
    bad("checkpoint is text", "--ckpt_path t.ckpt", "ckpt_path t.ckpt", "no checkpoint", files={"t.ckpt": TEXT}),
    bad("checkpoint truncated", "--ckpt_path MADE/short.ckpt", "MADE/short.ckpt", "cut short"),
    bad("checkpoint with code", "--ckpt_path MADE/bomb.ckpt", "MADE/bomb.ckpt", "pickled", "could run code"),
    bad("checkpoint is a pickle", "--ckpt_path MADE/pickle.ckpt", "MADE/pickle.ckpt", "no checkpoint"),
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
        "ckpt_path MADE/good.ckpt", "another adapter", "it lacks", "q_proj", "it alone has", "v_proj", "targets",
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
    data("no text in a row", rows(2) + json.dumps({"txt": TEXT}), "d.jsonl", "line 3", "field 'text': is absent"),
    data("empty text", rows(1) + '{"text": " "}\n' + rows(1), "d.jsonl", "line 2", "'text'", "only whitespace"),
    data("not UTF-8", f'{{"text": "{TEXT} caf\xe9"}}'.encode("latin-1"), "d.jsonl, line 1", "0xe9", "expected UTF-8"),
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
        rows(40), "d.jsonl:", "no token to train on", "data.max_length is 6",
        options="--data.source.prompt_template {text} --data.source.completion_template {id} --data.max_length 6",
    ),
    data("one row to split", TEXT, "found 1 groups in 1 rows", "at least 2", file="d.txt"),
    data("train held out", rows(20), "heldout", "d.jsonl", "same file", options="--data.source.heldout ./d.jsonl"),
    data(
        "hub data offline",
        None, "some/data", "cannot be reached",
        options="--data.source lit_mem.data.sources.HubDataset --data.source.path some/data",
    ),
    bad("train_size too large", "--data.train_size 9999999", "data.train_size is 9999999", "case_reports has only"),
    bad("members_size too large", "--data.members_size 9", "data.members_size is 9", "only 8 members"),
    bad("heldout_size 0", "--data.heldout_size 0", "data.heldout_size is 0; expected 1 or more"),
    bad("max_length 1", "--data.max_length 1", "data.max_length is 1; expected 2 or more"),
    bad("batch_size 0", "--data.batch_size 0", "data.batch_size is 0; expected 1 or more"),
    bad("heldout_fraction 1", "--data.heldout_fraction 1", "data.heldout_fraction is 1", "between 0 and 1"),
    bad("num_workers -1", "--data.num_workers -1", "num_workers", "non-negative"),
    bad("no end-of-text token", "--data.tokenizer MADE/no_eos --data.add_eos true", "data.add_eos", "end-of-text"),
    # -- spans
    data(
        "spans are a text", rows(40).replace('"id"', '"spans": "4-9", "id"'),
        "d.jsonl:", "'spans'", "found a text", "expected a list of {type, start, end}", "data.spans_column",
    ),
    data(
        "span beyond the text", rows(40).replace('"id"', '"spans": [{"type": "x", "start": 4, "end": 400}], "id"'),
        "d.jsonl:", "span 1", "found start 4 and end 400", "0 <= start < end <= 6",
    ),
    bad("spans column absent", "--data.spans_column marks", "data.spans_column", "'marks'"),
    # -- callbacks
    callback("two prefixes alike", OURS + "Extraction", {"prefix": [8, 8]}, "Extraction.prefix is [8, 8]", "each once"),
    callback(
        "prefixes of two kinds",
        OURS + "Extraction", {"prefix": [0.5, 8]}, "Extraction.prefix is [0.5, 8]", "all shares, or all numbers",
    ),
    callback(
        "no try",
        OURS + "Extractability",
        {"measures": {"d": {"class_path": "lit_mem.extraction.Discoverable", "init_args": {"n": 0}}}},
        "Discoverable.n is 0", "1 or more",
    ),
    callback(
        "one reference for LiRA",
        OURS + "MembershipInference",
        {"attacks": {"lira": {"class_path": "lit_mem.attacks.OfflineLiRA", "init_args": {"references": ["a"]}}}},
        "OfflineLiRA.references names 1", "2 or more",
    ),
    callback("a table without a folder", OURS + "PerExampleTable", {}, "PerExampleTable.folder is not set", "logger"),
    callback("two Slices", OURS + "Slices", {}, "two Slices callbacks", "expected one"),
    callback("no rate of Movers", OURS + "Movers", {"fpr": 0}, "Movers.fpr is 0", "between 0 and 1"),
    callback(
        "threshold misspelt",
        STOP, {"thresholds": ["mia/los_auroc > 0.6"]}, "'mia/los_auroc'", "'mia/loss_auroc'?",
    ),
    callback(
        "threshold malformed",
        STOP, {"thresholds": ["mia/loss_auroc = 0.6"]}, "'mia/loss_auroc = 0.6'", "name > number",
    ),
    callback("no threshold", STOP, {"thresholds": []}, "thresholds is empty", "mia/loss_auroc > 0.7"),
    callback("patience 0", STOP, {"thresholds": ["val/loss < 1"], "patience": 0}, "patience is 0", "1 or more"),
    callback("prefix 2.5", OURS + "Extraction", {"prefix": 2.5}, "Extraction.prefix is 2.5", "whole number"),
    callback(
        "every 0 validations",
        OURS + "Extraction", {"every_n_validations": 0}, "every_n_validations is 0", "1 or more",
    ),
    callback(
        "rate 0",
        OURS + "MembershipInference", {"fprs": [0]}, "MembershipInference.fprs holds 0", "between 0 and 1",
    ),
    callback(
        "share 2",
        OURS + "PerplexityDropWarning", {"share": 2}, "PerplexityDropWarning.share is 2", "between 0 and 1",
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


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Base models, adapters and checkpoints, broken in all ways but for good.ckpt."""
    folder = tmp_path_factory.mktemp("made")
    tiny = assets.path("tiny_llama")
    weights = (tiny / "model.safetensors").read_bytes()
    for name in ("damaged", "short", "pickled", "no_eos"):
        shutil.copytree(tiny, folder / name, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "damaged" / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"garbage!")
    (folder / "short" / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    torch.save({"weight": Bomb()}, folder / "pickled" / "pytorch_model.bin")
    path = folder / "no_eos" / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}))

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
    adapter("a_shapes", lambda w: {k: torch.zeros(2 * v.shape[0], v.shape[1]) for k, v in w.items()})
    adapter("a_modules", lambda w: {k.replace("v_proj", "qkv"): v for k, v in w.items()}, {"target_modules": ["qkv"]})
    adapter("a_lacks", lambda w: {k.replace("v_proj", "k_proj"): v for k, v in w.items()})
    adapter("a_deeper", lambda w: w | {k.replace("layers.", "layers.3"): v.clone() for k, v in w.items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py"])
        options = ["--model.adapter.rank", "4", "--model.adapter.targets", "[v]"]
        main(["fit", "--config", QUICKSTART, *SMALL, *options, "--trainer.num_sanity_val_steps", "0"])
        logging.getLogger("lit_mem").handlers = []  # it holds this fixture's standard error
    last = folder / "checkpoints" / "last.ckpt"
    shutil.copy(last, folder / "good.ckpt")
    (folder / "short.ckpt").write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    torch.save({"state_dict": Bomb()}, folder / "bomb.ckpt")
    (folder / "pickle.ckpt").write_bytes(pickle.dumps(Bomb()))
    torch.save([1, 2], folder / "list.ckpt")
    content = torch.load(last, weights_only=True)
    torch.save({k: v for k, v in content.items() if k != "lit_mem"}, folder / "foreign.ckpt")
    content["lit_mem"] |= {"base": "some/model", "fingerprint": {"light": "0", "full": "1"}}
    torch.save(content, folder / "other_base.ckpt")
    return folder


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(mistake, made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, content in mistake.files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    args = [arg.replace("MADE", str(made)) for arg in mistake.args]
    with pytest.raises(SystemExit) as stop:
        main(args if mistake.bare else ["fit", "--config", QUICKSTART, *SMALL, *args])
    err = capsys.readouterr().err
    lines = err.splitlines()
    assert stop.value.code == 2
    assert lines[-1].startswith("error: ")
    assert sum(line.startswith(("error", "usage", "tip")) for line in lines) == 1
    for piece in mistake.says:
        assert piece.replace("MADE", str(made)) in lines[-1]
    assert len(lines[-1]) < 1000
    assert "Traceback" not in err
    assert TEXT not in err
    assert not list(tmp_path.rglob("code_was_run"))
    for name, content in mistake.files.items():
        assert Path(name).read_bytes() == (content if isinstance(content, bytes) else content.encode())


def test_a_good_adapter_and_a_good_checkpoint_are_taken(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = (made / "good.ckpt").read_bytes()
    options = [
        "--model.adapter_path",
        str(made / "checkpoints" / "last-adapter"),
        "--ckpt_path",
        str(made / "good.ckpt"),
    ]
    main(["validate", "--config", QUICKSTART, *SMALL, *options])
    assert "mia/reference_auroc" in capsys.readouterr().out
    assert (made / "good.ckpt").read_bytes() == before


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
    monkeypatch.setattr(Perplexity, "__init__", broken)
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
    def fails(self, args):
        raise error

    monkeypatch.setattr(MemorizationCLI, "__init__", fails)
    with pytest.raises(SystemExit) as stop:
        main([])
    err = capsys.readouterr().err
    assert stop.value.code == code
    assert line in err
    assert err.count("\n") == bool(line)


def test_debugging_shows_the_traceback_of_a_mistake_too(monkeypatch):
    monkeypatch.setenv("LIT_MEM_DEBUG", "1")
    with pytest.raises(ConfigError, match=r"data\.train_size: found many"):
        main(["fit", "--config", QUICKSTART, "--data.train_size", "many"])


@pytest.mark.parametrize("args", [["--help"], ["fit", "--help"], ["fit", "--config", QUICKSTART, "--print_config"]])
def test_help_is_no_mistake(args, capsys):
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def test_a_message_of_another_form_is_kept_whole():
    assert readable("Something new:\n  - in two lines") == "Something new: in two lines"
