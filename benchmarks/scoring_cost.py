"""What the default measures cost beside a scoring pass that computes the loss alone.

One run, ratios only. Both sides see the same batches of the same model, in turns, so that a busy machine slows both:

- plain: forward pass, output layer, log-probability of each token (`torch.nn.functional.cross_entropy`), their sums.
- default: what every validation of this project does with its default callbacks (perplexity, seven attacks and their
  combination, extractability, spans): the scoring pass with all that these read, and the figures computed from it.
  The reference scores are those of the first pass, from the cache, as from the second epoch on. Pictures and
  generation are left out: they run once a validation whatever its size.

    python -m benchmarks.scoring_cost --model asset:tiny_llama
    python -m benchmarks.scoring_cost --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 64
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from types import SimpleNamespace
from typing import Any

import torch
from torch.nn import functional as F

from lit_mem.adapters import LoRA
from lit_mem.callbacks import Extractability, MembershipInference, Perplexity, SpanExtraction
from lit_mem.data import TextDataModule
from lit_mem.data.sources import PHEE, CaseReports
from lit_mem.guards import evaluation_mode
from lit_mem.module import CausalLM
from lit_mem.scoring import TokenScorer, scored_positions
from lit_mem.types import Batch, Needs


def plain_pass(model: torch.nn.Module, batches: list[Batch]) -> float:
    """Loss a token of all batches: one forward pass each, and nothing else."""
    scorer, total, tokens = TokenScorer(model), 0.0, 0
    for batch in batches:
        mask = scored_positions(batch)
        hidden, head = scorer._hidden(batch["input_ids"])
        logits = head(hidden[:, :-1][mask[:, 1:]]).float()
        target = batch["input_ids"][:, 1:][mask[:, 1:]]
        total += F.cross_entropy(logits, target, reduction="sum").item()
        tokens += len(target)
    return total / tokens


def default_pass(
    module: CausalLM, batches: list[Batch], callbacks: list[Any], needs: Needs, trainer: Any
) -> dict[str, float]:
    """Figures of the default callbacks over all batches."""
    figures: dict[str, float] = {}
    for callback in callbacks:
        callback.begin()
    for batch in batches:
        scores = module.score(batch, needs)
        for callback in callbacks:
            callback.observe(scores, batch)
    for callback in callbacks:
        figures |= callback.results(trainer, module)
    return figures


def main() -> None:
    """Print one line of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="asset:tiny_llama")
    parser.add_argument("--source", choices=["CaseReports", "PHEE"], default="CaseReports")
    parser.add_argument("--folder")
    parser.add_argument("--rows", type=int, default=300, help="members and held-out texts, each")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")

    source = {"CaseReports": CaseReports, "PHEE": PHEE}[args.source](args.folder)
    module = CausalLM(args.model, adapter=LoRA(rank=16, targets=["v", "o"], dropout=0.0))
    module.configure_model()
    data = TextDataModule(source, train_size=args.rows, heldout_size=args.rows, max_length=256, check=False)
    data.trainer = SimpleNamespace(lightning_module=module, world_size=1, global_rank=0, testing=False)  # type: ignore[assignment]
    data.setup("validate")
    batches = [batch for loader in data.val_dataloader() for batch in loader]
    callbacks = [Perplexity(), MembershipInference(figures=False), Extractability(), SpanExtraction()]
    needs = Needs()
    for callback in callbacks:
        needs |= callback.needs
    trainer = SimpleNamespace(sanity_checking=False, testing=False, loggers=[], is_global_zero=True)
    plain, default = [], []
    with evaluation_mode(module.language_model):
        default_pass(module, batches, callbacks, needs, trainer)  # fills the reference cache
        plain_pass(module.language_model, batches)
        for _ in range(args.repeats):
            start = time.perf_counter()
            loss = plain_pass(module.language_model, batches)
            middle = time.perf_counter()
            figures = default_pass(module, batches, callbacks, needs, trainer)
            plain.append(middle - start)
            default.append(time.perf_counter() - middle)
    ratios = [d / p for d, p in zip(default, plain, strict=True)]
    tokens = sum(int(scored_positions(batch).sum()) for batch in batches)
    print(  # noqa: T201
        f"{args.model}, {2 * args.rows} texts, {tokens} tokens, {torch.get_num_threads()} threads: "
        f"default / plain {statistics.median(ratios):.3f} (least {min(ratios):.3f}, most {max(ratios):.3f}); "
        f"plain {statistics.median(plain):.2f} s; {len(figures)} figures, loss {loss:.3f} nats"
    )


if __name__ == "__main__":
    main()
