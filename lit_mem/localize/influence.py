"""Which training texts made a model learn the suffix of one text: TracIn over a run's checkpoints."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_mem.data.encoding import Encoded
from lit_mem.errors import CheckpointError
from lit_mem.lightning.module import CausalLM
from lit_mem.localize.one_example import OneExample, origin_of
from lit_mem.localize.run_folder import load_weights
from lit_mem.models.checkpoint import read_content
from lit_mem.types import IGNORED


class Kept(NamedTuple):
    """A checkpoint that influence is summed over.

    Attributes:
        path: path of the file.
        global_step: number of training steps before it.
        learning_rate: learning rate of its optimizer for the next step.
    """

    path: Path
    global_step: int
    learning_rate: float


class Influence(OneExample):
    """Influence of single training texts on the loss of one text's suffix.

    TracIn (Pruthi et al. 2020, section 3.2): Σ over checkpoints of learning rate × ∇loss(training text) ·
    ∇loss(suffix), gradients of the adapter's parameters, each loss a mean over tokens. Higher: training on that text
    lowered the suffix's loss more.

    This is the effect of a step of SGD to first order. Adam scales each gradient, so for a run with Adam it describes
    what SGD would have done, not the actual steps. A long or surprising text has a large gradient and so large products
    with many others; the cosine of the same gradients, stacked over checkpoints with √(learning rate), removes this
    effect.

    Args:
        example_id: id of the text.
        prefix: where its suffix begins.
        kept: the checkpoints.
        rows: number of training texts examined, chosen at random (plus the text itself); None: all.

    Attributes:
        scores: influence and cosine by id of the training text.
    """

    def __init__(self, example_id: int, prefix: float, kept: Sequence[Kept], rows: int | None = None) -> None:
        super().__init__(kept[-1].path, example_id, prefix, "--influence")
        self.kept, self.limit = list(kept), rows
        self.scores: dict[int, tuple[float, float]] = {}

    def look(self, module: CausalLM) -> None:
        """Compute all gradients at each checkpoint."""
        texts = self._chosen()
        products = torch.zeros(len(texts), dtype=torch.float64)
        norms, own = torch.zeros_like(products), 0.0
        for checkpoint in self.kept:
            load_weights(module, checkpoint.path)
            module.eval()
            labels = self.prompt.input_ids.clone()
            labels[: self.prompt.cut] = IGNORED
            wanted = gradient(module.language_model, self.prompt.input_ids, labels)
            rate = checkpoint.learning_rate
            own += rate * wanted.double().square().sum().item()
            for i, text in enumerate(texts):
                given = gradient(module.language_model, text.input_ids, text.labels)
                products[i] += rate * (given.double() @ wanted.double()).item()
                norms[i] += rate * given.double().square().sum().item()
        lengths = norms.sqrt() * own**0.5
        cosines = torch.where(lengths > 0, products / lengths, torch.zeros_like(products))
        pairs = zip(products.tolist(), cosines.tolist(), strict=True)
        self.scores = {text.example_id: pair for text, pair in zip(texts, pairs, strict=True)}

    def _chosen(self) -> list[Encoded]:
        if self.limit is None or self.limit >= len(self.train):
            return self.train
        chosen = set(random.Random(0).sample(range(len(self.train)), self.limit))
        return [t for i, t in enumerate(self.train) if i in chosen or t.example_id == self.example_id]

    def result(self, top: int, optimizer: str) -> dict[str, Any]:
        """The results as plain values.

        Args:
            top: number of training texts listed, by influence and by cosine.
            optimizer: optimizer of the run.
        """
        by_influence = sorted(self.scores, key=lambda i: -self.scores[i][0])
        by_cosine = sorted(self.scores, key=lambda i: -self.scores[i][1])
        origins = {text.example_id: origin_of(text) for text in self.train}

        def row_of(i: int) -> dict[str, Any]:
            influence, cosine = self.scores[i]
            return {"id": i, "origin": origins[i], "influence": influence, "cosine": cosine}

        own = None
        if self.example_id in self.scores:
            ranks = {"rank": by_influence.index(self.example_id) + 1}
            ranks["rank_by_cosine"] = by_cosine.index(self.example_id) + 1
            own = row_of(self.example_id) | ranks
        return {
            "schema": 1,
            "example": self.example_id,
            "member": self.example.member,
            "origin": origin_of(self.example),
            "n_tokens": len(self.prompt.input_ids),
            "cut": self.prompt.cut,
            "optimizer": optimizer,
            "checkpoints": [
                {"path": str(k.path), "global_step": k.global_step, "learning_rate": k.learning_rate} for k in self.kept
            ],
            "training_texts": len(self.scores),
            "self": own,
            "top": [row_of(i) for i in by_influence[:top]],
            "top_by_cosine": [row_of(i) for i in by_cosine[:top]],
        }


def gradient(model: nn.Module, ids: Tensor, labels: Tensor) -> Tensor:
    """(P,) float32, gradient of a text's mean next-token loss over the trained parameters, flattened.

    Args:
        model: a causal language model in eval mode.
        ids: (T,) int64.
        labels: (T,) int64, `IGNORED` where a token does not count.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    device = trained[0].device
    with torch.enable_grad():  # validation disables gradients
        loss = model(input_ids=ids[None].to(device), labels=labels[None].to(device), use_cache=False).loss
        found = torch.autograd.grad(loss, trained, allow_unused=True)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(trained, found, strict=True)]
    return torch.cat([g.detach().float().reshape(-1).cpu() for g in flat])


def kept_checkpoints(paths: Sequence[Path]) -> list[Kept]:
    """A run's checkpoints in the order of training, each step once, with their learning rates.

    If a schedule has decayed to 0 at the last checkpoint, that one has no weight. If all are at 0, each is weighted by
    the schedule's initial learning rate.

    Raises:
        CheckpointError: one cannot be read, or has no learning rate.
    """
    kept: dict[int, tuple[Kept, float]] = {}
    for path in paths:
        content = read_content(path, mmap=True)
        states = content.get("optimizer_states") or []
        groups = states[0].get("param_groups") if states else None
        if not groups or "lr" not in groups[0]:
            raise CheckpointError(f"{path} has no optimizer state, so no learning rate; expected a full checkpoint")
        rate = float(groups[0]["lr"])
        entry = Kept(path, int(content["global_step"]), rate), float(groups[0].get("initial_lr", rate))
        kept.setdefault(entry[0].global_step, entry)
    found = [kept[step] for step in sorted(kept)]
    if not any(entry.learning_rate for entry, _ in found):
        return [entry._replace(learning_rate=start) for entry, start in found]
    return [entry for entry, _ in found]


def lines(result: dict[str, Any]) -> list[str]:
    """A text table of the results, and what they were computed from."""
    steps = ", ".join(f"step {k['global_step']} (lr {k['learning_rate']:g})" for k in result["checkpoints"])
    shown = [f"Influence of {result['training_texts']} training texts on the suffix of example {result['example']}, "]
    shown[0] += f"summed over {steps}:"
    rows = [["rank", "id", "origin", "influence", "cosine"]]
    rows += [_row(str(i), each) for i, each in enumerate(result["top"], 1)]
    own = result["self"]
    if own is not None and own["rank"] > len(result["top"]):
        rows.append(_row(str(own["rank"]), own))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    if own is None:
        shown.append("The example is not a training text, so it has no influence of its own.")
    else:
        shown.append(f"The example itself: rank {own['rank']} by influence, {own['rank_by_cosine']} by cosine.")
    if "SGD" not in result["optimizer"]:
        shown.append(f"The run's optimizer was {result['optimizer']}; influence is what SGD would do, to first order.")
    return shown


def _row(rank: str, each: dict[str, Any]) -> list[str]:
    return [rank, str(each["id"]), each["origin"], f"{each['influence']:.4g}", f"{each['cosine']:.3f}"]
