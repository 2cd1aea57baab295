"""An installed wheel, outside any checkout: the quickstart and each other entry point.

The environment is new and holds this package alone; the libraries are those of the environment that runs the tests.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from lit_mem import assets
from tests.test_package import build, copy_sources

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
SMALL = "--data.train_size 20 --data.heldout_size 20 --data.check false --trainer.max_epochs 1".split()
RUN = "logs/quickstart/version_0"  # of the fixture `fitted`
SETS = ["--members", "a.jsonl", "--heldout", "b.jsonl"]
TRIAL = [
    "--seeds=[0]",
    "--axes={rank: {option: model.adapter.init_args.rank, values: [2]}}",
    "--set={trainer.max_epochs: 1, data.train_size: 20, data.heldout_size: 20, data.check: false}",
]

# One line a way in: words of a command in a folder that holds a run of the quickstart; text that it must print.
DOORS = [
    pytest.param(["python", "-m", "lit_mem", "report", RUN], f"{RUN}/report.html", id="report"),
    pytest.param(
        ["lit-mem", "validate", "--config", "quickstart", *SMALL],
        ": lit-mem report logs/quickstart/version_",
        id="validate",
    ),
    pytest.param(
        "lit-mem fit --config own_data --memorization.extraction.n_members 5 --trainer.max_epochs 1".split(),
        "Next: lit-mem report logs/lit_mem/version_0",
        id="own_data",
    ),
    pytest.param(["python", "-m", "lit_mem", "localize", RUN], f"Written: {RUN}/localize.json", id="localize"),
    pytest.param(["lit-mem", "doctor"], "from an installed package", id="doctor"),
    pytest.param(["lit-mem", "init", "a.jsonl", "--model", "asset:tiny_llama"], "--config a.yaml", id="init"),
    pytest.param(
        ["lit-mem", "audit", "--model", f"{RUN}/checkpoints/last-adapter", "--suite", "quick", *SETS],
        "Run: logs/audit/version_0",
        id="audit",
    ),
    pytest.param(["python", "hf_trainer.py", "out"], "Record of the run: out/memorization", id="hugging_face"),
    pytest.param(["lit-mem", "sweep", "--config", "sweeps/rank", *TRIAL], "; 1 of 1 done)", id="sweep"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The sources' archive, and the wheel that is built of it."""
    folder = tmp_path_factory.mktemp("built")
    archive = build(copy_sources(folder / "source"), "sdist", folder)
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return SimpleNamespace(archive=archive, wheel=build(folder / archive.name.removesuffix(".tar.gz"), "wheel", folder))


@pytest.fixture(scope="module")
def installed(made, tmp_path_factory):
    """An environment with the wheel: `run(words)` starts a command of it in `work`, which is empty at first."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", with_pip=False)
    programs = folder / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--disable-pip-version-check", str(made.wheel)], check=True, timeout=900)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    (folder / "work").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"HOME": str(folder), "LIT_MEM_CACHE": str(folder / "cache"), "PATH": f"{programs}:{os.defpath}"}

    def run(words, work=folder / "work"):
        done = subprocess.run(
            [str(programs / words[0]), *words[1:]],
            cwd=work, env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return SimpleNamespace(run=run, site=site, work=folder / "work")


@pytest.fixture(scope="module")
def fitted(installed):
    """The same after `lit-mem fit --config quickstart` in the empty folder."""
    installed.printed = installed.run(["lit-mem", "fit", "--config", "quickstart", *SMALL])
    return installed


def test_the_archive_of_the_sources_makes_the_same_wheel(made, tmp_path):
    direct = zipfile.ZipFile(build(copy_sources(tmp_path / "source"), "wheel", tmp_path))
    with direct, zipfile.ZipFile(made.wheel) as of_archive, tarfile.open(made.archive) as archive:
        assert of_archive.namelist() == direct.namelist()
        top = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1}
    assert {"lit_mem", "configs", "setup.py", "LICENSE", "CITATION.cff", "constraints.txt", "train.py"} <= top
    assert not {"tests", "tools", "benchmarks"} & top


def test_it_is_the_installed_copy_that_runs(installed):
    found = installed.run(["python", "-c", "import lit_mem.files.shipped as s; print(s.__file__, s.folder())"]).split()
    assert found == [str(installed.site / "lit_mem" / name) for name in ("files/shipped.py", "configs")]


def test_the_command_imports_nothing_from_the_folder_where_it_is_started(installed, tmp_path):
    for name in ("torch", "lit_mem", "bitsandbytes"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)\n")
    assert "from an installed package" in installed.run(["lit-mem", "doctor"], tmp_path)
    assert "usage: lit-mem report" in installed.run(["lit-mem", "report", "--help"], tmp_path)


def test_the_quickstart_runs_in_an_empty_folder(fitted):
    assert "start " in fitted.printed
    assert sorted(path.name for path in fitted.work.iterdir()) == ["logs"]
    assert (fitted.work / RUN / "memorization.jsonl").is_file()
    assert (fitted.work / RUN / "checkpoints" / "last.ckpt").is_file()


@pytest.fixture(scope="module")
def with_texts(fitted):
    """The same with the user's own files next to the run: texts, and an example's script."""
    for name, split in (("a", "train"), ("b", "heldout")):
        lines = (assets.path("case_reports") / f"{split}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (fitted.work / f"{name}.jsonl").write_text("".join(lines[:30]), "utf-8")
    shutil.copy(ROOT / "examples" / "hf_trainer.py", fitted.work)
    return fitted


@pytest.mark.parametrize(("words", "text"), DOORS)
def test_each_way_in(words, text, with_texts):
    assert text in with_texts.run(words)
