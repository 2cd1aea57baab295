"""`lit-mem localize RUN_DIR`: where in a trained adapter memorization is located."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lit_mem import program
from lit_mem.errors import ConfigError, check_range
from lit_mem.lightning.one_line import CommandParser
from lit_mem.localize.output import write_json, write_png
from lit_mem.plots.output import any_script

if TYPE_CHECKING:
    from lit_mem.localize.run_folder import Run

_EXTRACTION: Final = "Extraction"


def parser() -> CommandParser:
    """The argument parser."""
    words = CommandParser(
        prog=f"{program.name()} localize",
        description="Show which matrices and layers of a trained adapter store what it memorized.",
        allow_abbrev=False,
    )
    words.add_argument("run_dir", type=str, help="a run's log folder, with config.yaml and checkpoints/")
    words.add_argument(
        "--checkpoint", type=str, default="last", help="best, last, or the path of a .ckpt file (with --influence: all)"
    )
    words.add_argument(
        "--rows", type=int | None, default=None, help="maximum members, and maximum held-out texts, to score"
    )
    words.add_argument(
        "--extraction", type=bool, default=False, help="also generate: the n-gram match rate with parts disabled"
    )
    words.add_argument(
        "--example", type=int | None, default=None, help="inspect the model on one text, by its example id"
    )
    words.add_argument(
        "--influence", type=int | None, default=None, help="rank training texts by their influence on one text's suffix"
    )
    words.add_argument(
        "--prefix", type=float, default=0.5, help="prefix length: below 1 a share of the text, else tokens"
    )
    words.add_argument("--text", type=bool, default=False, help="also write the example's tokens")
    words.add_argument("--top", type=int, default=10, help="how many training texts --influence lists")
    words.add_argument(
        "--out", type=str | None, default=None, help="the file to write instead of RUN_DIR/localize.json"
    )
    words.add_argument("--accelerator", type=str | None, default=None, help="cpu, gpu ...; default: as in the run")
    return words


def main(words: list[str]) -> None:
    """Run the command.

    Raises:
        LitMemError: a user error.
    """
    options = parser().parse_args(words)
    out = Path(options.out or Path(options.run_dir, "localize.json"))
    if out.suffix != ".json" or not out.parent.is_dir():
        raise ConfigError(f"--out is {out}; expected a .json file in an existing folder")
    for option in ("top", "rows"):
        check_range(f"--{option}", getattr(options, option), at_least=1, or_null=True)
    if options.example is not None and options.influence is not None:
        raise ConfigError("--example and --influence are both given; expected one of them")
    from lit_mem.localize.run_folder import open_run  # loads Lightning

    run = open_run(options.run_dir)
    if options.example is not None:
        _look_inside(run, options, out.with_name(f"{out.stem}_example_{options.example}.json"))
    elif options.influence is not None:
        _rank_influence(run, options, out.with_name(f"{out.stem}_influence_{options.influence}.json"))
    else:
        _switch_off(run, options, out)


def _switch_off(run: Run, options: Any, out: Path) -> None:
    from lit_mem.localize.ablation import Ablation
    from lit_mem.localize.ablation_report import as_json, heat_map, lines

    checkpoint = run.checkpoint(options.checkpoint)
    found = Ablation(checkpoint, options.rows, _extraction(run) if options.extraction else None)
    run.examine(found, options.accelerator)
    result = as_json(found, str(checkpoint))
    write_json(out, result)
    write_png(out.with_suffix(".png"), heat_map(result))
    _print(
        f"{checkpoint}: {found.sizes[0]} members, {found.sizes[1]} held-out texts.",
        *lines(result),
        f"Written: {out} and {out.with_suffix('.png').name} (each matrix of each layer)",
    )


def _look_inside(run: Run, options: Any, out: Path) -> None:
    from lit_mem.localize.views import Views, lines, views_figure

    checkpoint = run.checkpoint(options.checkpoint)
    views = Views(checkpoint, options.example, options.prefix, "--example")
    run.examine(views, options.accelerator)
    tokens = None
    if options.text:
        tokens = [run.module.tokenizer.decode([token]) for token in views.prompt.input_ids.tolist()]
        views.found["tokens"] = tokens
    write_json(out, views.found)
    with any_script():
        write_png(out.with_suffix(".png"), views_figure(views.found, tokens))
    cut, n = views.found["cut"], views.found["n_tokens"]
    _print(
        f"{checkpoint}, example {options.example}: {cut} of {n} tokens are prefix.",
        *lines(views.found),
        f"Written: {out} and {out.with_suffix('.png').name}",
    )


def _rank_influence(run: Run, options: Any, out: Path) -> None:
    from lit_mem.localize.influence import Influence, kept_checkpoints, lines

    influence = Influence(options.influence, options.prefix, kept_checkpoints(run.checkpoints()), options.rows)
    run.examine(influence, options.accelerator)
    optimizer = (run.config["model"].get("optimizer") or {}).get("class_path", "torch.optim.AdamW")
    result = influence.result(options.top, optimizer)
    write_json(out, result)
    _print(*lines(result), f"Written: {out}")


def _print(*lines_found: str) -> None:
    for line in lines_found:
        print(line)  # noqa: T201  (output of the command)


def _extraction(run: Run) -> dict[str, Any]:
    """The run's own extraction options, so that the metrics are comparable; {} if it had none."""
    own = run.callback(_EXTRACTION) or {}
    kept = {key: own[key] for key in ("n_members", "prefix", "seed", "token_budget") if key in own}
    if isinstance(kept.get("prefix"), list):
        kept["prefix"] = kept["prefix"][0]
    return kept
