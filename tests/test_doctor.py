"""`lit-mem doctor`: what it reports, what it omits, and that it imports almost nothing."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import lit_mem
from lit_mem.cli import doctor, machine, packages
from lit_mem.cli import main as cli

ROOT = Path(__file__).parent.parent
TOKEN = "hf_" + "Z9" * 16


def sections(text):
    """Title -> lines."""
    found, lines = {}, []
    for line in text.splitlines():
        if not line.startswith("  "):
            lines = found[line] = []
        else:
            lines.append(line.strip())
    return found


@pytest.fixture
def versions(monkeypatch):
    """Sets which versions are installed, by name; None: missing."""

    def set_to(**names):
        real = packages.version
        monkeypatch.setattr(packages, "version", lambda name: names.get(name, real(name)))

    return set_to


@pytest.fixture
def report(capsys):
    """Runs the command: (sections, exit code)."""

    def run():
        code = 0
        try:
            doctor.main([])
        except SystemExit as ended:
            code = ended.code
        return sections(capsys.readouterr().out), code

    return run


def test_a_machine_in_order(report):
    found, code = report()
    assert (code, found["Problems"]) == (0, ["none"])
    assert f"torch {importlib.metadata.version('torch')}" in found["Required"]
    assert len(found["Required"]) == len(packages.needs()[packages.REQUIRED]) >= 16
    assert {line.partition(":")[0] for line in found["Extras"]} >= {"quantization", "gguf", "privacy", "sweep", "test"}
    assert found["Devices"][0].startswith("CPU: ")
    assert found[f"lit_mem {lit_mem.__version__}"][0] == "from a checkout"


def test_it_is_a_command_like_the_others(capsys):
    cli.main(["doctor"])
    assert capsys.readouterr().out.startswith(f"lit_mem {lit_mem.__version__}\n")


def test_what_is_missing_of_an_extra_is_no_problem_and_named_with_its_pip_line(report, versions):
    versions(opacus=None, ray="2.0.0", gguf="0.10.0")
    found, code = report()
    assert code == 0
    lines = {line.partition(":")[0]: line for line in found["Extras"]}
    assert lines["privacy"] == "privacy: missing opacus>=1.6,<1.7: pip install 'lit_mem[privacy]'"
    assert lines["sweep"] == "sweep: missing ray>=2.52 (found 2.0.0): pip install 'lit_mem[sweep]'"
    assert lines["gguf"] == "gguf: gguf 0.10.0"


def test_what_is_required_and_missing_is_a_problem(report, versions):
    versions(peft="0.3.0", scipy=None)
    found, code = report()
    assert code == 1
    assert found["Problems"] == [
        "peft 0.3.0; expected >=0.21: pip install 'peft>=0.21'",
        "scipy missing; expected >=1.13: pip install 'scipy>=1.13'",
    ]
    assert set(found["Problems"]) < set(found["Required"])


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3"])
def test_a_malicious_release_is_a_problem(version, report, versions):
    versions(lightning=version)
    found, code = report()
    assert code == 1
    assert any(line.startswith(f"lightning {version} is a malicious release") for line in found["Problems"])


def test_torch_that_cannot_be_imported(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found, code = report()
    assert code == 1
    assert found["Devices"] == ["unknown without torch"]
    assert found["Problems"][0].startswith("torch cannot be imported: ModuleNotFoundError: ")


def test_an_installed_package_is_read_from_its_metadata(monkeypatch):
    requires = ["torch>=2.7", 'ray[tune]>=2.52; extra == "sweep"', 'lit_mem[sweep]; extra == "test"']
    monkeypatch.setattr(packages, "project_file", lambda: None)
    monkeypatch.setattr(packages.metadata, "requires", lambda name: requires)
    found = {extra: [(each.name, each.versions) for each in needs] for extra, needs in packages.needs().items()}
    assert found == {packages.REQUIRED: [("torch", ">=2.7")], "sweep": [("ray", ">=2.52")], "test": []}


def test_tokens_and_paths_are_left_out(report, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_OFFLINE", TOKEN)  # in the wrong place
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "new"))
    monkeypatch.setenv("LIT_MEM_CASHE", "1")
    monkeypatch.setenv("LIT_MEM_UMASK", "027")
    monkeypatch.delenv("LIT_MEM_DEBUG", raising=False)
    found, code = report()
    text = str(found)
    assert code == 0
    assert TOKEN not in text
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text
    assert {
        "HF_TOKEN: set", "HF_HUB_OFFLINE: set", "HF_HOME: set", "LIT_MEM_CACHE: set", "LIT_MEM_UMASK: 027",
        "LIT_MEM_DEBUG: not set", "LIT_MEM_CASHE: set; not a variable of lit_mem",
    } <= set(found["Environment"])  # fmt: skip
    assert found["Cache folder"][0].startswith("$LIT_MEM_CACHE: writable, ")
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_to(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "file" / "cache"))
    assert machine.cache().startswith("$LIT_MEM_CACHE: not writable")
    monkeypatch.delenv("LIT_MEM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert machine.cache().startswith("$XDG_CACHE_HOME/lit_mem: writable")


def test_devices_that_this_machine_may_not_have():
    about = SimpleNamespace(name="NVIDIA H200", total_memory=139 * 2**30, major=9, minor=0)
    torch = SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: True, device_count=lambda: 2, get_device_properties=lambda index: about,
            is_bf16_supported=lambda including_emulation: True,
        ),
        backends=SimpleNamespace(
            mps=SimpleNamespace(is_available=lambda: True), cpu=SimpleNamespace(get_cpu_capability=lambda: "AVX2")
        ),
        cpu=SimpleNamespace(), get_num_threads=lambda: 3, version=SimpleNamespace(cuda="13.0", hip=None),
    )  # fmt: skip
    lines = machine.devices(torch)
    assert "3 threads, AVX2, " in lines[0]
    assert lines[1] == (
        "CUDA 0: NVIDIA H200, 139 GiB, capability 9.0; float32, float16, bfloat16; torch is built for 13.0"
    )
    assert lines[2].startswith("CUDA 1: ")
    assert lines[3] == "MPS: yes; float32, float16, bfloat16"

    def fails():
        raise OSError(f"{sys.prefix}/lib/x.so and {Path.home()}/y.so do not fit the driver")

    torch.cuda.is_available = fails
    assert machine.devices(torch)[1] == (
        "accelerators: OSError: <environment>/lib/x.so and ~/y.so do not fit the driver"
    )


LOADED = "import sys; sys.argv = ['lit-mem', 'doctor']\nfrom lit_mem.cli.start import run\nrun()\nprint(*sys.modules)"


@pytest.mark.slow
@pytest.mark.exhaustive
def test_it_loads_no_other_library_than_torch():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", LOADED], env=environment, capture_output=True, text=True, check=True, timeout=900
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert {"torch", "lit_mem.cli.doctor"} <= loaded
    assert not {"lightning", "transformers", "peft", "datasets", "safetensors", "lit_mem.cli.main"} & loaded


def test_a_reader_that_has_enough():
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "lit_mem", "doctor"]
    with subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == f"lit_mem {lit_mem.__version__}\n"
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (141, "")
