"""One line an epoch in the console."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

from lit_mem.lightning.auditing import latest_metrics, whole_check

COLUMNS: dict[str, tuple[str, str]] = {
    "val/loss": ("val/loss", "{:.3f}"),
    "val/perplexity": ("ppl held-out", "{:.2f}"),
    "memorization/perplexity_members": ("ppl members", "{:.2f}"),
    "mia/loss_auroc": ("AUROC loss", "{:.3f}"),
    "mia/reference_auroc": ("AUROC reference [95 %]", "{:.3f}"),
    "mia/reference_tpr_at_fpr_0.01": ("TPR@1%", "{:.3f}"),
    "extraction/ngram_rate": ("n-gram members", "{:.3f}"),
    "extraction/ngram_rate_heldout": ("n-gram held-out", "{:.3f}"),
    "extraction/exact_rate": ("exact", "{:.3f}"),
    "canary/exposure_mean": ("exposure", "{:.2f}"),
    "audit/epsilon_lower_bound": ("epsilon >=", "{:.2f}"),
    "privacy/epsilon": ("epsilon <=", "{:.2f}"),
}
"""Logged name -> heading and format, in the order shown."""


def heading(names: Sequence[str]) -> str:
    """The first line of the table with these columns."""
    return "  ".join(["epoch", *(_title(name) for name in names)])


def row(label: str, names: Sequence[str], metrics: Mapping[str, float]) -> str:
    """A line of it; "-" where a metric was not measured."""
    cells = [_cell(name, metrics).rjust(len(_title(name))) for name in names]
    return "  ".join([label.rjust(5), *cells])


def _title(name: str) -> str:
    return COLUMNS.get(name, (name, ""))[0]


def _cell(name: str, metrics: Mapping[str, float]) -> str:
    if name not in metrics:
        return "-"
    form = COLUMNS.get(name, ("", "{:.4g}"))[1]
    cell = form.format(metrics[name])
    if f"{name}_low" in metrics and "[" in _title(name):
        cell += f" [{metrics[f'{name}_low']:.3f}, {metrics[f'{name}_high']:.3f}]"
    return cell


class EpochTable(Callback):
    """Prints the metrics of every validation as a row of one growing table, the first before training.

    In fitting only: the commands `validate` and `test` print such a row when they end, with or without this callback.

    Args:
        columns: logged names to show; None: perplexities, AUROCs and extraction rates. Names that nothing logs
            are left out.
    """

    def __init__(self, columns: list[str] | None = None) -> None:
        self.columns = columns if columns is not None else list(COLUMNS)
        self._shown: list[str] = []

    def on_sanity_check_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The row before training, if the whole validation set was run."""
        if whole_check(trainer) and not trainer.global_step:
            self._row("start", trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A row."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._row(str(trainer.current_epoch + 1), trainer, pl_module)

    def _row(self, epoch: str, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = latest_metrics(trainer)
        if not self._shown:
            self._shown = [name for name in self.columns if name in metrics]
            if "privacy/epsilon" in self._shown and (note := getattr(pl_module, "epsilon_note", "")):
                pl_module.print(note)
            pl_module.print(heading(self._shown))
        pl_module.print(row(epoch, self._shown, metrics))
