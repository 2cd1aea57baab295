"""Configurations that cannot be sharded are rejected in one actionable line; one device suffices to test."""

from pathlib import Path

import pytest

from lit_mem import assets
from lit_mem.cli.main import main
from lit_mem.errors import ModelError
from lit_mem.models.base_models import load_base_in_parts

QUICKSTART = str(Path(__file__).parent.parent.parent / "tests" / "quickstart_plain.yaml")
SMALL = ["--data.train_size", "8", "--data.heldout_size", "8", "--data.check", "false", "--trainer.logger", "false"]
SHARDED = ["--trainer.strategy", "sharded", "--trainer.devices", "1"]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model.adapter", "FullFineTuning"], ["FullFineTuning trains weights", "trainer.strategy ddp"]),
        (["--model.adapter.dora", "true"], ["model.adapter's dora", "trainer.strategy to ddp"]),
        (["--model.adapter.init", "pissa"], ["pissa", "trainer.strategy to ddp"]),
        (["--model.quantization", "4bit"], ["model.quantization is 4bit", "trainer.strategy ddp"]),
        (["--model.model_id", "pickled"], ["pickled", "model.safetensors"]),
    ],
    ids=["full", "dora", "pissa", "4bit", "no safetensors"],
)
def test_what_cannot_be_in_parts(options, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pickled").mkdir()
    for file in assets.path("tiny_llama").iterdir():
        if file.suffix == ".json":
            (tmp_path / "pickled" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", QUICKSTART, *SMALL, *SHARDED, *options])
    last = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert last.startswith("error: ")
    for piece in says:
        assert piece in last


@pytest.mark.slow
def test_other_ways_to_shard_a_model_are_rejected(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    strategy = '{"class_path": "lightning.pytorch.strategies.ModelParallelStrategy"}'
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", QUICKSTART, *SMALL, f"--trainer.strategy={strategy}", "--trainer.devices", "1"])
    assert stop.value.code == 2
    assert "set trainer.strategy to sharded" in capsys.readouterr().err.splitlines()[-1]


def test_a_gguf_file_cannot_be_read_in_parts(tmp_path):
    (tmp_path / "made.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"made\.gguf' is a GGUF file, .* expected safetensors"):
        load_base_in_parts(str(tmp_path / "made.gguf"), None, "float32", None, mesh=None, device=None)


@pytest.mark.slow
def test_one_device_holds_all_parts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["validate", "--config", QUICKSTART, *SMALL, *SHARDED])
    assert "mia/reference_auroc" in capsys.readouterr().out


@pytest.mark.slow
def test_ranks_per_copy_must_divide_the_devices(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    strategy = '{"class_path": "lit_mem.sharding.ShardedBase", "init_args": {"ranks_per_copy": 2}}'
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", QUICKSTART, *SMALL, f"--trainer.strategy={strategy}", "--trainer.devices", "1"])
    assert stop.value.code == 2
    assert "ranks_per_copy is 2; expected a divisor of the 1 devices" in capsys.readouterr().err.splitlines()[-1]
