"""Writes the pictures of docs/reference/metrics from the TensorBoard events of a run, as of its last validation.

Usage: python docs/export_plots.py logs/smollm2_phee/version_0
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase
from pathlib import Path

PICTURES: dict[str, str] = {
    "roc.png": "mia/roc",
    "scores.png": "mia/scores",
    "scatter.png": "correlation/scatter",
    "exposure.png": "slice/exposure",
    # By the group of the callback that has several prefix lengths; of several groups the first by name.
    "prefix_sweep.png": "*/prefix_sweep",
}
"""File name -> tag, or a pattern of tags."""


def export(run: Path, folder: Path) -> dict[str, Path]:
    """Write each picture's last version.

    Args:
        run: a run's log folder, with TensorBoard's event files.
        folder: where to; created if missing.

    Returns:
        The path of each picture that was written, by tag.
    """
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(run), size_guidance={"images": 0})  # 0: all of them
    events.Reload()
    tags = sorted(events.Tags()["images"])
    written = {}
    for name, pattern in PICTURES.items():
        tag = next((tag for tag in tags if fnmatchcase(tag, pattern)), None)
        if tag is not None:
            last = max(events.Images(tag), key=lambda image: (image.step, image.wall_time))
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(last.encoded_image_string)
            written[tag] = folder / name
    return written


def main(args: list[str] | None = None) -> int:
    """Export, and print what was written; 1 if a picture is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's log folder, with TensorBoard's event files")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "plots", help="where to")
    options = parser.parse_args(args)
    if not any(options.run.glob("*tfevents*")):
        parser.error(f"{options.run} has no TensorBoard events; expected a run's log folder")
    written = export(options.run, options.folder)
    for tag, path in written.items():
        print(f"{tag}: {path}")  # noqa: T201  (what the script is for)
    missing = [tag for name, tag in PICTURES.items() if options.folder / name not in written.values()]
    if missing:
        print(f"{options.run} has no picture {', '.join(missing)}", file=sys.stderr)  # noqa: T201
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
