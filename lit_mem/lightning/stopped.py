"""Write the metrics of the scoring pass even if the subsequent generation is interrupted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as pl
import torch

from lit_mem.audit.closing import metric_lines
from lit_mem.audit.loop import Audit
from lit_mem.lightning import record
from lit_mem.lightning.headline import to_loggers
from lit_mem.lightning.of_trainer import step_of
from lit_mem.lightning.run_folder import known_folder

log = logging.getLogger(__name__)


@contextmanager
def written_if_stopped(trainer: pl.Trainer, module: pl.LightningModule, audit: Audit) -> Iterator[None]:
    """While an audit computes: if generation ends by an error, Ctrl-C or SIGTERM, log the metrics of the scoring pass.

    A complete pass logs all its metrics in one row, as Lightning does; an interrupted one logs a row of the measured
    ones, and `validate` and `test` print them. Every rank must enter.

    Args:
        trainer: its loggers receive them.
        module: its held-out loss is written too, if it has a method `heldout_loss`.
        audit: the Audit that computes in the body.
    """
    loss: dict[str, float] = {}
    if any(measure.generates for measure in audit.measures):
        loss = dict(getattr(module, "heldout_loss", dict)())
    try:
        yield
    except BaseException:
        result, stopped = audit.result, audit.computing
        if result is not None and result.run.complete and stopped is not None and stopped.generates:
            _write(trainer, audit, loss | result.metrics)
        raise


def _write(trainer: pl.Trainer, audit: Audit, metrics: dict[str, float]) -> None:
    if trainer.sanity_checking and trainer.global_step:
        return  # logged by the resumed run already
    step = step_of(trainer)
    # Without an epoch it is a row of metrics before training, as logged by `Baseline`.
    epoch = {} if trainer.sanity_checking else {"epoch": trainer.current_epoch}
    if metrics:
        record.write(trainer, audit, metrics, complete=False)
    # In torch's default precision, like Lightning's logs: the resumed run logs the same row again.
    metrics = {name: torch.tensor(value, dtype=torch.get_default_dtype()).item() for name, value in metrics.items()}
    for logger in trainer.loggers:
        logger.log_metrics(to_loggers(trainer, metrics) | epoch, step=step)
        logger.save()
    if not trainer.is_global_zero:
        return
    if trainer.state.fn != "fit":
        for line in metric_lines(metrics):
            print(line)  # noqa: T201  (as the command prints them on completion)
    if metrics:
        folder = known_folder(trainer) if trainer.loggers else None
        log.warning(
            "Stopped during generation: %d metrics of the scoring pass are %s.",
            len(metrics), f"logged ({folder})" if folder else "all that was measured",
        )  # fmt: skip
