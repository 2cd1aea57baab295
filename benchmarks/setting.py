"""What the benchmarks share: a model with an adapter, texts, and the batches that a validation scores."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from lit_mem.adapters import LoRA
from lit_mem.data import TextDataModule
from lit_mem.data.encoding import Encoded
from lit_mem.data.sources import PHEE, CaseReports
from lit_mem.module import CausalLM
from lit_mem.reference import Reference
from lit_mem.types import Batch


@dataclass
class Setting:
    """A module in eval mode, its texts, and how a validation batches them."""

    module: CausalLM
    data: TextDataModule
    examples: list[Encoded]
    batches: list[Batch]

    @property
    def tokens(self) -> int:
        """How many tokens are scored."""
        return sum(int(example.scored.sum()) for example in self.examples)


def parser(doc: str | None, rows: int) -> argparse.ArgumentParser:
    """Options of all benchmarks; `rows` is the default of that option."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="asset:tiny_llama")
    made.add_argument("--source", choices=["CaseReports", "PHEE"], default="CaseReports")
    made.add_argument("--folder", help="of the corpus")
    made.add_argument("--rows", type=int, default=rows, help="members and held-out texts, each")
    made.add_argument("--repeats", type=int, default=5)
    return made


def prepare(args: argparse.Namespace) -> Setting:
    """Load model and texts; nothing comes from the reference scores on disk."""
    warnings.filterwarnings("ignore")
    source = {"CaseReports": CaseReports, "PHEE": PHEE}[args.source](args.folder)
    adapter = LoRA(rank=16, targets=["v", "o"], dropout=0.0)
    module = CausalLM(args.model, adapter=adapter, reference=Reference(cache=False))
    module.configure_model()
    module.eval()
    module.language_model.eval()
    data = TextDataModule(source, train_size=args.rows, heldout_size=args.rows, max_length=256, check=False)
    stand_in: Any = SimpleNamespace(lightning_module=module, world_size=1, global_rank=0, testing=False)
    data.trainer = stand_in
    data.setup("validate")
    batches = [batch for loader in data.val_dataloader() for batch in loader]
    return Setting(module, data, [*data.heldout, *data.members], batches)


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
