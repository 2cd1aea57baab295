"""Checks that the device gives the numbers of a CPU, with the bundled model: a part of `benchmarks.gpu`.

- Scores: the bundled model with a LoRA of random weights, on bundled case reports. A text's score is the mean
  log-probability of its tokens, in nats; what is shown is its difference from the same score on the CPU in float32.
  "Of a text" is the mean over texts of the absolute difference: at most 1e-4 in float32; in bfloat16 at most twice the
  same difference of bfloat16 on the CPU, which is rounding alone (0.0014 where it was written). "Of the mean of all
  texts" is the absolute difference of the means over texts: at most 1e-3.
- Adapter off: all logits of some texts, bit for bit those of the base before the adapter was added; with the adapter on
  they must differ. In bfloat16, and in 4 bits.
- Resume: a fit that is resumed from a checkpoint within an epoch ends in the weights of the uninterrupted fit, bit for
  bit; with dropout, in deterministic mode.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from benchmarks.gpu_setting import RANK, TARGETS, TOKENIZER, Session, trainable
from benchmarks.setting import make_data, on_device, prepare
from benchmarks.table import Cell, Table
from lit_mem.adapters import LoRA
from lit_mem.adapters.base import adapter_off
from lit_mem.guards import evaluation_mode, preserved_random_state
from lit_mem.lightning.module import CausalLM
from lit_mem.models.base_models import load_base
from lit_mem.scoring.reference_scores import Reference
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Batch, Needs

TEXTS: Final = 48
FLOAT32_LIMIT: Final = 1e-4
BFLOAT16_LIMIT: Final = 1e-3
TIMES_ROUNDING: Final = 2
CUBLAS: Final = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""What deterministic matrix products need; set before the first one."""


# -- scores ------------------------------------------------------------------------------------------------


def batches_of_corpus() -> list[Batch]:
    """The batches of a validation of bundled case reports, on the CPU."""
    args = argparse.Namespace(device="cpu", model=TOKENIZER, source="CaseReports", folder=None, rows=TEXTS // 2)
    return prepare(args).batches


def adapted(dtype: str, device: torch.device) -> CausalLM:
    """The bundled model with a LoRA of random weights, in eval mode."""
    module = CausalLM(TOKENIZER, adapter=LoRA(rank=RANK, targets=list(TARGETS), dropout=0.0), dtype=dtype,
                      reference=Reference(cache=False))  # fmt: skip
    module.configure_model()
    randomize(module)
    module.to(device)
    module.eval()
    module.language_model.eval()
    return module


def randomize(model: nn.Module) -> None:
    """Give the trained weights random values, the same on every device."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in trainable(model):
            p.copy_(0.02 * torch.randn(p.shape, generator=generator))


def text_means(module: CausalLM, batches: list[Batch], device: torch.device) -> Tensor:
    """(texts,) float64 on the CPU: mean log-probability of each text's tokens."""
    scorer, means = TokenScorer(module.language_model), []
    for batch in batches:
        scores = scorer(on_device(batch, device), Needs())
        means.append((scores.logprob.double().sum(dim=1) / scores.mask.sum(dim=1)).cpu())
    return torch.cat(means)


def scores(device: torch.device) -> list[list[Cell]]:
    """Differences of scores from those on the CPU in float32."""
    batches, cpu = batches_of_corpus(), torch.device("cpu")
    expected = text_means(adapted("float32", cpu), batches, cpu)
    rounding = (text_means(adapted("bfloat16", cpu), batches, cpu) - expected).abs().mean().item()
    exact = text_means(adapted("float32", device), batches, device) - expected
    rounded = text_means(adapted("bfloat16", device), batches, device) - expected
    return [
        row("scores in float32: of a text", exact.abs().mean().item(), FLOAT32_LIMIT),
        row("scores in bfloat16: of a text", rounded.abs().mean().item(), TIMES_ROUNDING * rounding),
        row("scores in bfloat16: of the mean of all texts", abs(rounded.mean().item()), BFLOAT16_LIMIT),
    ]


# -- adapter off -------------------------------------------------------------------------------------------


def off_is_base(device: torch.device, bits: bool = False) -> list[list[Cell]]:
    """Largest difference of logits between the base and the model with its adapter off.

    Raises:
        RuntimeError: the adapter changes nothing, so that nothing is shown.
    """
    base: Any = load_base(TOKENIZER, dtype="bfloat16", quantization="4bit" if bits else "none")
    base = base if bits else base.to(device)  # a quantized one is loaded onto the GPU
    ids = torch.arange(1, 129, device=device).view(2, 64)

    def logits(model: Any) -> Tensor:
        with evaluation_mode(model):
            found: Tensor = model(input_ids=ids, use_cache=False).logits
            return found.float()

    before = logits(base)
    model = LoRA(rank=RANK, targets=list(TARGETS), dropout=0.0).wrap(base)
    randomize(model)
    on = logits(model)
    if torch.equal(on, before):
        raise RuntimeError("the adapter with random weights changes no logit; expected a difference")
    with adapter_off(model):
        off = logits(model)
    name = "4 bits" if bits else "bfloat16"
    return [
        row(f"adapter off in {name}, logits from the base's", (off - before).abs().max().item(), 0.0),
        row(f"adapter on again in {name}, logits from those before", (logits(model) - on).abs().max().item(), 0.0),
    ]


def without_4_bits(device: torch.device) -> str | None:
    """Why 4 bits cannot run here, in one line; None if they can."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return "4 bits: not checked, as bitsandbytes is not installed (pip install 'lit_mem[quantization]')"
    return None if device.type == "cuda" else "4 bits: not checked, as they need a CUDA GPU"


# -- resume ------------------------------------------------------------------------------------------------


def resume(session: Session) -> list[list[Cell]]:
    """Largest difference of trained weights between a resumed and an uninterrupted fit."""
    with tempfile.TemporaryDirectory() as folder, preserved_random_state():
        whole, steps = fitted(session, Path(folder))
        resumed, _ = fitted(session, Path(folder), Path(folder) / "kept.ckpt")
    apart = max((one - other).abs().max().item() for one, other in zip(whole, resumed, strict=True))
    same = all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))
    return [row(f"weights after {steps} steps, resumed in the middle, from the uninterrupted", apart, 0.0, same)]


def fitted(session: Session, folder: Path, checkpoint: Path | None = None) -> tuple[list[Tensor], int]:
    """Trained weights on the CPU after two epochs, and the number of steps; a first fit keeps a checkpoint."""
    pl.seed_everything(0 if checkpoint is None else 1, verbose=False)  # a resumed run has another random state
    module = CausalLM(TOKENIZER, adapter=LoRA(rank=RANK, targets=list(TARGETS), dropout=0.2),
                      reference=Reference(cache=False))  # fmt: skip
    data = make_data(argparse.Namespace(source="CaseReports", folder=None), 20, 2, batch_size=4)
    first = checkpoint is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="gpu" if session.device.type == "cuda" else "cpu", devices=1, max_epochs=2, deterministic=True,
            callbacks=[ModelCheckpoint(folder, filename="kept", every_n_train_steps=7)] if first else [],
            enable_checkpointing=first, enable_progress_bar=False, enable_model_summary=False, logger=False,
            limit_val_batches=0, num_sanity_val_steps=0, default_root_dir=folder,
        )  # fmt: skip
        try:
            trainer.fit(module, data, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
        finally:
            torch.use_deterministic_algorithms(False)
    return [p.detach().cpu().clone() for p in trainable(module)], trainer.global_step


# -- all of them -------------------------------------------------------------------------------------------


def row(name: str, found: float, limit: float, same: bool = True) -> list[Cell]:
    """One check; NaN fails."""
    return [name, f"{found:.2g}", f"{limit:.2g}", "pass" if same and found <= limit else "FAIL"]


def checks(session: Session) -> Table:
    """All checks; one that raises fails."""
    os.environ.setdefault(*CUBLAS)
    device, rows, notes = session.device, [], []
    parts: dict[str, Callable[[], list[list[Cell]]]] = {
        "scores": lambda: scores(device),
        "adapter off in bfloat16": lambda: off_is_base(device),
        "adapter off in 4 bits": lambda: off_is_base(device, bits=True),
        "resume": lambda: resume(session),
    }
    if (reason := without_4_bits(device)) is not None:
        del parts["adapter off in 4 bits"]
        notes.append(reason)
    for name, part in parts.items():
        try:
            rows += part()
        except Exception as error:  # nothing is known of the device: the other checks still run
            rows.append([name, one_line(error), "", "FAIL"])
    session.failed += [
        f"check {name}: {found}" + (f"; expected at most {limit}" if limit else "")
        for name, found, limit, result in rows
        if result == "FAIL"
    ]
    return Table("Checks, with the bundled model", ["", "found", "at most", "result"], rows, notes)


def one_line(error: BaseException) -> str:
    """Kind and first line of an error."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
