"""Makes the pictures and example pages of docs/ from a run of the quickstart and a sweep.

Usage, from any folder (minutes of one CPU core for the first two commands, a quarter of an hour for the sweep):
    lit-mem fit --config quickstart --trainer.callbacks+=lit_mem.callbacks.PerExampleTable
    lit-mem localize logs/quickstart/version_0 && lit-mem localize logs/quickstart/version_0 --example 0
    lit-mem sweep --config sweeps/matrices --axes.matrices '{q: {model.adapter.init_args.targets: [q]},
        k: {model.adapter.init_args.targets: [k]}, v: {model.adapter.init_args.targets: [v]},
        o: {model.adapter.init_args.targets: [o]}}'
    python docs/pictures.py logs/quickstart/version_0 logs/sweeps/matrices
"""

from __future__ import annotations

import argparse
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from lit_mem.cli import main as cli

DOCS = Path(__file__).parent
LOCALIZED = {"localize.png": "localize.png", "localize_example.png": "localize_example_*.png"}
"""File name in docs/ -> pattern of the file in the run's folder; of several the first by name."""
SHOWN = {"mia/reference", "mia/loss", "mia/min_k_plus_plus", "extraction/ngram_rate", "extraction/exact_memorization"}
"""Attacks and extraction measures with per-example plots on the example page; more would make it too large."""


def write(run: Path, sweep: Path, folder: Path) -> Iterator[Path]:
    """Write every picture and page that the run and the sweep have; yields their paths.

    Args:
        run: a run's log folder.
        sweep: a sweep's folder.
        folder: where to; created if missing.
    """
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    runpy.run_path(str(DOCS / "run_picture.py"))["main"]([str(run), str(folder / "tensorboard.png")])
    yield folder / "tensorboard.png"
    for source, name in ((run, "example_report.html"), (sweep, "example_sweep.html")):
        with TemporaryDirectory() as made:
            copy = Path(made, source.resolve().parent.name, source.resolve().name)
            shutil.copytree(source, copy)
            for table in copy.glob("examples/*.parquet"):
                _reduce(table)
            cli.main(["report", str(copy), "--out", made])
            shutil.copyfile(Path(made, "report.html"), folder / name)
        yield folder / name
    for name, pattern in LOCALIZED.items():
        found = sorted(run.glob(pattern))
        if found:
            with Image.open(found[0]) as drawn:
                drawn.convert("RGB").save(folder / name, format="PNG", optimize=True)
            yield folder / name


def _reduce(table: Path) -> None:
    import pyarrow.parquet as pq

    found = pq.read_table(table)
    measures = {name for name in found.column_names if name.startswith(("mia/", "extraction/"))}
    pq.write_table(found.drop_columns(sorted(measures - SHOWN)), table)


def main(args: list[str] | None = None) -> int:
    """Write, and print what was written; 1 if a picture is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="log folder of the run, in which `lit-mem localize` has written")
    parser.add_argument("sweep", type=Path, help="folder of the sweep")
    parser.add_argument("--folder", type=Path, default=DOCS, help="where to")
    options = parser.parse_args(args)
    written = list(write(options.run, options.sweep, options.folder))
    for path in written:
        print(f"{path}: {path.stat().st_size:,} bytes")  # noqa: T201  (what the script is for)
    missing = sorted(LOCALIZED.keys() - {path.name for path in written})
    if missing:
        print(f"{options.run} has no {', '.join(LOCALIZED[name] for name in missing)}", file=sys.stderr)  # noqa: T201
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
