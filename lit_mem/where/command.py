"""`python train.py where RUN_DIR`: where in a trained adapter memorization lives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from lit_mem.errors import ConfigError
from lit_mem.parsing import OneLineParser
from lit_mem.where.ablation import Ablation
from lit_mem.where.ablation_report import as_json, heat_map, lines
from lit_mem.where.output import write_json, write_png
from lit_mem.where.run_folder import Run, open_run

_EXTRACTION: Final = "lit_mem.callbacks.Extraction"


def parser() -> OneLineParser:
    """What the command takes."""
    words = OneLineParser(
        prog="train.py where",
        description="Show which matrices and layers of a trained adapter hold what it memorized.",
        allow_abbrev=False,
    )
    words.add_argument("run_dir", type=str, help="a run's log folder, with config.yaml and checkpoints/")
    words.add_argument("--checkpoint", type=str, default="last", help="best, last, or the path of a .ckpt file")
    words.add_argument("--rows", type=int | None, default=None, help="most members, and most held-out texts, to score")
    words.add_argument("--extraction", type=bool, default=False, help="generate too: the n-gram rate with parts off")
    words.add_argument("--out", type=str | None, default=None, help="the file to write instead of RUN_DIR/where.json")
    words.add_argument("--accelerator", type=str | None, default=None, help="cpu, gpu ...; by default the run's own")
    return words


def main(words: list[str]) -> None:
    """Run the command.

    Raises:
        LitMemError: a mistake of the user's.
    """
    options = parser().parse_args(words)
    if options.rows is not None and options.rows < 2:
        raise ConfigError(f"--rows is {options.rows}; expected 2 or more")
    out = Path(options.out or Path(options.run_dir, "where.json"))
    if out.suffix != ".json" or not out.parent.is_dir():
        raise ConfigError(f"--out is {out}; expected a .json file in a folder that is there")
    run = open_run(options.run_dir)
    _switch_off(run, options, out)


def _switch_off(run: Run, options: Any, out: Path) -> None:
    checkpoint = run.checkpoint(options.checkpoint)
    found = Ablation(checkpoint, options.rows, _extraction(run) if options.extraction else None)
    run.examine(found, options.accelerator)
    result = as_json(found, str(checkpoint))
    write_json(out, result)
    write_png(out.with_suffix(".png"), heat_map(result))
    print(f"{checkpoint}: {found.sizes[0]} members, {found.sizes[1]} held-out texts.")  # noqa: T201  (the command's answer)
    for line in lines(result):
        print(line)  # noqa: T201
    print(f"Written: {out} and {out.with_suffix('.png').name} (each matrix of each layer)")  # noqa: T201


def _extraction(run: Run) -> dict[str, Any]:
    """How the run itself asked, so that the figures are comparable; by default where it did not ask."""
    asked = run.callback(_EXTRACTION) or {}
    kept = {key: asked[key] for key in ("n_members", "prefix", "seed", "token_budget") if key in asked}
    if isinstance(kept.get("prefix"), list):
        kept["prefix"] = kept["prefix"][0]
    return kept
