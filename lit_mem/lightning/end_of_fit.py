"""Handle a fit's checkpoints when it ends: print their paths, merge, push to the Hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl

from lit_mem.audit.push import push
from lit_mem.lightning.exported_model import write_merged

if TYPE_CHECKING:
    from lit_mem.lightning.checkpoint import MemorizationCheckpoint

log = logging.getLogger(__name__)


def finish(kept: MemorizationCheckpoint, trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Print the paths of the checkpoints; merge the best one and push its export if configured."""
    for line in summary(kept):
        module.print(line)
    if not trainer.is_global_zero:
        return
    # A resumed run's best checkpoint may be in the folder of the run it resumed from.
    best = Path(kept.best_model_path).with_name("best-adapter") if kept.best_model_path and kept.export else None
    if kept.merge and kept.best_model_path:
        write_merged(module, best, kept.files.folder / "best-merged", kept.files.stage, kept.lines.get("best"))
    if kept.push is None:
        return
    if best is not None:
        push(best, kept.push, kept.lines.get("best"))
    elif kept.push.over_limits:
        push(kept.files.folder / "last-adapter", kept.push, kept.lines.get("last"))
    else:
        log.warning(
            "Not pushed to %s: no validation was under every threshold. Set push_over_limits to true to push the last "
            "one anyway.", kept.push.repo_id,
        )  # fmt: skip


def summary(kept: MemorizationCheckpoint) -> list[str]:
    """Paths of a run's checkpoints, one line each."""
    score = "" if kept.best_model_score is None else f", {kept.monitor} {float(kept.best_model_score):.4g}"
    score += ", hardly learned" if kept.hardly_learned else ""
    limited = " under every threshold" if kept.limits else ""
    if not kept.best_model_path:
        lines = ["No checkpoint: no validation was under every threshold."]
    else:
        lines = [f"Best checkpoint{limited} (epoch {kept.epochs['best']}{score}): {kept.best_model_path}"]
        if kept.limits:
            lines.append(f"Last checkpoint{limited} (epoch {kept.epochs['safe']}): {kept.safe_model_path}")
    return [*lines, f"Last checkpoint, to resume from (epoch {kept.epochs['last']}): {kept.last_model_path}"]
