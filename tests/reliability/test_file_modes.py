"""Permissions of a run's files: only the owner by default, for any umask, or as set by `LIT_MEM_UMASK`."""

import hashlib
import json
import os
import stat
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from lit_mem.callbacks import MemorizationCheckpoint
from lit_mem.cli.main import main
from lit_mem.errors import ConfigError, DataError
from lit_mem.files import atomic, modes, places
from lit_mem.files import cache as download
from lit_mem.files.once import Once
from lit_mem.sweep import trial

SIZES = "--data.train_size 6 --data.heldout_size 6 --data.max_length 32 --trainer.max_epochs 1"
PLAIN = "--trainer.accelerator cpu --trainer.log_every_n_steps 1 --trainer.enable_progress_bar false"
CALLBACKS = [
    {"class_path": f"lit_mem.callbacks.{name}", "init_args": options}
    for name, options in (
        ("Perplexity", {}),
        ("MembershipInference", {"plots": False}),
        ("PerExampleTable", {"text": True}),
        ("MemorizationCheckpoint", {"merge": True}),
    )
]


@contextmanager
def umask(value):
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def permissions(*folders):
    """({permissions of folders}, {permissions of files}) of everything below the folders, which are included."""
    paths = [path for folder in folders for path in [folder, *folder.rglob("*")]]
    return {mode(path) for path in paths if path.is_dir()}, {mode(path) for path in paths if path.is_file()}


def fit(*words):
    main(["fit", "--model.model_id", "asset:tiny_llama", *SIZES.split(), *PLAIN.split(), *words])


@pytest.mark.slow
def test_all_that_the_quickstart_writes_is_for_its_owner_alone(quickstart_run):
    logs = quickstart_run.version.parent
    written = {path.name.split(".")[0] for path in logs.rglob("*")}
    assert set("events metrics hparams config checks best last adapter_model memorization".split()) <= written
    assert list((quickstart_run.folder / "cache" / "reference").rglob("*.safetensors"))
    folders = (logs, quickstart_run.folder / "cache", quickstart_run.folder / "asked_for")
    assert permissions(*folders) == ({0o700}, {0o600})


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("process", "given", "of_folders", "of_files"),
    [
        pytest.param(0o000, None, 0o700, 0o600, id="000"),
        pytest.param(0o022, None, 0o700, 0o600, id="022"),
        pytest.param(0o077, "027", 0o750, 0o640, id="077, shared"),
    ],
)
def test_all_that_a_run_writes_is_for_its_owner_alone(
    process, given, of_folders, of_files, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "cache"))
    if given is not None:
        monkeypatch.setenv("LIT_MEM_UMASK", given)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(0o755)
    with umask(process):
        fit("--trainer.callbacks", json.dumps(CALLBACKS))
        run = tmp_path / "logs" / "lit_mem" / "version_0"
        main(["report", str(run), "--out", str(tmp_path / "out" / "report"), "--text", "true"])
        main(["report", str(run)])
        main(["localize", str(run)])
    assert mode(tmp_path / "logs") == 0o755  # it existed before
    written = {path.name.split(".")[0] for path in run.rglob("*")}
    parts = "events metrics hparams config checks run best last report localize adapter_model examples best-merged"
    assert set(parts.split()) <= written
    assert list((tmp_path / "cache" / "reference").rglob("*.safetensors"))
    assert permissions(run.parent, tmp_path / "cache", tmp_path / "out") == ({of_folders}, {of_files})


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("process", [0o000, 0o022])
def test_a_private_run_without_a_logger_too(process, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    private = "--model.privacy.target_epsilon 8 --model.privacy.delta 1e-3 --model.adapter lit_mem.adapters.LoRA"
    private += " --model.adapter.dropout 0 --model.privacy.batch_size 3 --trainer.logger false"
    with umask(process):
        fit("--trainer.callbacks", json.dumps(CALLBACKS[:1]), *private.split())
    assert len(list(tmp_path.rglob("privacy.jsonl"))) == 1
    assert permissions(tmp_path / "logs") == ({0o700}, {0o600})


@pytest.mark.slow
def test_a_fit_from_python_too(tmp_path, module, data, trainer):
    """In a custom folder, which keeps its permissions."""
    from lightning.pytorch.loggers import TensorBoardLogger

    own = tmp_path / "own"
    own.mkdir()
    own.chmod(0o755)
    keeper = MemorizationCheckpoint(dirpath=str(own), monitor="val/loss")
    logger = TensorBoardLogger(tmp_path / "runs", name="a", version="mine", default_hp_metric=False)
    with umask(0o000):
        trainer([keeper], logger=logger, max_epochs=1).fit(module(), data(train_size=6, heldout_size=6))
    assert {path.name for path in own.iterdir()} >= {"best.ckpt", "last.ckpt", "best-adapter"}
    assert mode(own) == 0o755
    assert permissions(*own.iterdir()) == ({0o700}, {0o600})
    assert list((tmp_path / "runs" / "a" / "mine").glob("events*"))
    assert permissions(tmp_path / "runs") == ({0o700}, {0o600})


def test_a_run_that_is_killed_leaves_its_folder_shut(tmp_path, monkeypatch):
    """TensorBoard's files get their permissions at the end; until then those of the folder protect them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    seen = []
    monkeypatch.setattr(
        MemorizationCheckpoint, "on_train_start", lambda *_: seen.append(mode(*tmp_path.glob("logs/lit_mem/*")))
    )
    with umask(0o000):
        fit("--trainer.callbacks", json.dumps([CALLBACKS[0], CALLBACKS[3]]))
    assert seen == [0o700]


def test_an_unfinished_file_is_never_open_to_others(tmp_path):
    with umask(0o000), atomic.whole(tmp_path / "a.json") as part:
        assert mode(part) == 0o600
        part.write_text("1")
        assert mode(part) == 0o600
    assert (mode(tmp_path / "a.json"), (tmp_path / "a.json").read_text()) == (0o600, "1")


def test_an_unfinished_file_is_not_written_through_a_link(tmp_path):
    """Another user may create one in a shared folder, if its name can be guessed."""
    (tmp_path / "theirs").write_text("before")
    (tmp_path / ".a.json.part").symlink_to(tmp_path / "theirs")
    atomic.write_text(tmp_path / "a.json", "1")
    assert (tmp_path / "theirs").read_text() == "before"
    assert not (tmp_path / "a.json").is_symlink()


@pytest.mark.parametrize("there", [False, True])
def test_a_cache_that_an_earlier_version_made_for_all_is_shut(there, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path))
    folder = places.cache_folder("phee")
    folder.mkdir(0o755)
    (tmp_path / "source").write_bytes(b"x")
    if there:
        (folder / "a.json").write_bytes(b"x")
        (folder / "a.json").chmod(0o644)
    with umask(0o022):
        digest = hashlib.sha256(b"x").hexdigest()
        download.fetch((tmp_path / "source").as_uri(), folder / "a.json", digest, "")
    assert (mode(folder), mode(folder / "a.json")) == (0o700, 0o600)


def test_a_cache_of_another_user_is_one_line(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(DataError, match=r"a.json: cannot be read \(Permission denied\); set folder"):
        download.fetch("file:///none", tmp_path / "a.json", "", "set folder")


def test_a_trial_of_a_sweep_too(tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "START", "print('said')")
    folder = tmp_path / "trials" / "a"
    job = {"name": "a", "folder": str(folder), "run": [], "values": {}, "seed": 0, "options": {}, "words": []}
    with umask(0o000):
        trial.run(job | {"cwd": str(tmp_path), "path": []})
    assert {path.name for path in folder.iterdir()} == {"trial.json", "log.txt"}
    assert permissions(tmp_path / "trials") == ({0o700}, {0o600})


@pytest.mark.parametrize("given", ["rwx", "8", "0100", "777", "-1", "0x3f"])
def test_a_mask_that_is_none(given, monkeypatch, capsys):
    monkeypatch.setenv("LIT_MEM_UMASK", given)
    with pytest.raises(ConfigError, match=f"LIT_MEM_UMASK is '{given}'; expected an octal number from 000 to 077"):
        modes.mask()
    with pytest.raises(SystemExit) as ended:
        main(["report", "."])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: LIT_MEM_UMASK is '{given}'")


@pytest.mark.parametrize(("given", "mask"), [("", 0o077), ("027", 0o027), ("7", 0o007), ("0o22", 0o022), ("000", 0)])
def test_a_mask(given, mask, monkeypatch):
    monkeypatch.setenv("LIT_MEM_UMASK", given)
    assert modes.mask() == mask


def test_a_file_system_without_permissions_is_said_once_and_no_error(tmp_path, monkeypatch, caplog):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    for name in "ab":
        (tmp_path / name).write_text("1")
        (tmp_path / name).chmod(0o644)
    for chmod in (refuse, lambda *args: None):
        monkeypatch.setattr(modes, "_once", Once())
        monkeypatch.setattr(os, "chmod", chmod)
        caplog.clear()
        for name in "ab":
            modes.restrict(tmp_path / name)
        assert [record.getMessage().split(": ")[1] for record in caplog.records] == [str(tmp_path / "a")]


def test_others_files_and_links_are_left_alone(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).write_text("1")
        (tmp_path / name).chmod(0o644)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    modes.restrict(tmp_path / "link")
    modes.restrict(tmp_path / "none")
    assert mode(tmp_path / "a") == 0o644
    monkeypatch.setattr(os, "geteuid", lambda: (tmp_path / "b").stat().st_uid + 1)
    modes.restrict(tmp_path / "b")
    assert mode(tmp_path / "b") == 0o644


def test_a_folder_that_is_to_be_fresh_and_one_whose_name_a_file_has(tmp_path):
    modes.make_folder(tmp_path / "a" / "b", fresh=True)
    with pytest.raises(FileExistsError):
        modes.make_folder(tmp_path / "a" / "b", fresh=True)
    modes.make_folder(tmp_path / "a" / "b")
    (tmp_path / "c").write_text("")
    with pytest.raises(FileExistsError):
        modes.make_folder(tmp_path / "c")
    with suppress(NotADirectoryError):
        modes.make_folder(tmp_path / "c" / "d")
    assert Path(tmp_path / "c").is_file()
