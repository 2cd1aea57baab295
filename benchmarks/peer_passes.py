"""The scoring passes of other projects, written anew after reading their sources; none of their code is used.

Read: iamgroot42/mimir fbc4594 (`models.py`, `min_k_plus_plus.py`), 99b67d2 (`run.py`), 576339b (`reference.py`) and
05e5efd (`min_k.py`, `zlib.py`); locuslab/open-unlearning 2db47ec (`memorization.py`), 5420d43 (`utils.py`) and f4d8463
(`min_k_plus_plus.py`), its other attacks in a fork, Dornavineeth/open-unlearning 2952d4a and 360726e;
mem-audit/memaudit 5cbda40 (`scoring.py`, `audit.py`, `scorers`) and 316d9bb (`stats.py`);
EleutherAI/lm-evaluation-harness 0068151 (`_loglikelihood_tokens`).

What each does is described in `benchmarks.peers`, which times them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.scoring import padded
from lit_mem.data.encoding import Encoded
from lit_mem.types import IGNORED

Values = dict[str, Sequence[float]]
"""Values by name, each with one per text in the order of the setting's; higher means member, as in ours."""
SHARE = 0.2
SCORING_BATCH, REQUESTS = 32, 8


# -- MIMIR -------------------------------------------------------------------------------------------------


def mimir(model: nn.Module, reference: nn.Module, examples: list[Encoded]) -> Values:
    """One text at a time; the reference in a second loop."""
    found: dict[str, list[float]] = {name: [] for name in ("loss", "zlib", "min_k", "min_k_plus_plus", "reference")}
    for example in examples:
        logprob, every = token_by_token(model, text_ids(example))
        loss = -float(np.mean(logprob))
        found["loss"].append(-loss)
        found["zlib"].append(-loss / compressed(example))
        found["min_k"].append(lowest(logprob, int(len(logprob) * SHARE)))
        mean = (every.exp() * every).sum(-1)
        variance = (every.exp() * every.square()).sum(-1) - mean.square()
        standardized = (np.array(logprob) - mean.numpy()) / variance.sqrt().numpy()
        found["min_k_plus_plus"].append(lowest(standardized, int(len(logprob) * SHARE)))
    for at, example in enumerate(examples):
        logprob, _ = token_by_token(reference, text_ids(example))
        found["reference"].append(found["loss"][at] - float(np.mean(logprob)))
    return {f"mia/{name}": values for name, values in found.items()}


def token_by_token(model: Any, ids: Tensor) -> tuple[list[float], Tensor]:
    """Log-probability of each token after the first, and the (n, V) log-probabilities at each."""
    logits = model(input_ids=ids[None], labels=ids[None]).logits.cpu()
    every = logits[..., :-1, :].contiguous().log_softmax(-1)
    logprob, rows = [], []
    for at, token in enumerate(ids[1:].cpu()):
        logprob.append(every[0, at, token].item())
        rows.append(every[0, at])
    return logprob, torch.stack(rows)


# -- open-unlearning ---------------------------------------------------------------------------------------


def open_unlearning(model: nn.Module, reference: nn.Module, examples: list[Encoded]) -> Values:
    """A pass for each measure, over members and over held-out texts."""
    parts = [[one for one in examples if one.member == member] for member in (False, True)]
    batches = [batch for part in parts for batch in padded(part, SCORING_BATCH)]
    for batch in batches:
        batch["labels"] = batch["input_ids"].masked_fill(~batch.pop("scored"), IGNORED)

    def each(values: Callable[[dict[str, Tensor]], list[Any]]) -> list[Any]:
        return [value for batch in batches for value in values(batch)]

    probability = each(lambda batch: sequence_losses(model, batch).neg().exp().tolist())
    found: Values = {"log of probability": [math.log(one) for one in probability]}
    hits = each(lambda batch: [(row.argmax(-1) == ids, len(ids)) for row, ids in by_vocabulary(model, batch)])
    found["extraction/exact_memorization"] = [float(hit.sum()) / n for hit, n in hits]
    hits = each(lambda batch: [(row.argmax(-1) == ids, len(ids)) for row, ids in by_vocabulary(model, batch)])
    # Without a hit on the last token the search ends there: 1/n.
    found["strength"] = [1 - next((k for k in range(n) if hit[k:].all()), n - 1) / n for hit, n in hits]
    loss = each(lambda batch: sequence_losses(model, batch).tolist())
    found["mia/loss"] = [-one for one in loss]
    loss = each(lambda batch: sequence_losses(model, batch).tolist())
    found["mia/zlib"] = [-one / compressed(example) for one, example in zip(loss, [*parts[0], *parts[1]], strict=True)]
    found["mia/min_k"] = [
        lowest(one.cpu().numpy(), max(1, int(len(one) * SHARE))) for one in each(lambda batch: by_token(model, batch))
    ]
    found["mia/min_k_plus_plus"] = each(lambda batch: standardized_twice(model, batch))
    frozen = each(lambda batch: sequence_losses(reference, batch).tolist())
    tuned = each(lambda batch: sequence_losses(model, batch).tolist())
    found["mia/reference"] = [one - other for one, other in zip(frozen, tuned, strict=True)]
    return found


def sequence_losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """(B,) mean losses, by cross-entropy over the transposed logits."""
    logits, labels = model(**batch).logits[..., :-1, :].contiguous(), batch["labels"]
    losses = F.cross_entropy(
        logits.transpose(-1, -2), labels[..., 1:].contiguous(), ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(-1) / (labels != IGNORED).sum(-1)


def by_vocabulary(model: Any, batch: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each text (n, V) log-probabilities and (n,) labels."""
    every = model(**batch).logits.log_softmax(-1)[:, :-1]
    rows = [(labels != IGNORED).nonzero(as_tuple=True)[0] for labels in batch["labels"]]
    return [(every[i, at[0].item() - 1 : at[-1].item()], batch["labels"][i, at]) for i, at in enumerate(rows)]


def by_token(model: Any, batch: dict[str, Tensor]) -> list[Tensor]:
    """For each text (n,) log-probabilities of its tokens."""
    every = model(**batch).logits.log_softmax(-1)[:, :-1]
    logprob = every.gather(2, batch["input_ids"][:, 1:, None]).squeeze(-1)
    rows = [(labels != IGNORED).nonzero(as_tuple=True)[0] for labels in batch["labels"]]
    return [logprob[i, at[0].item() - 1 : at[-1].item()] for i, at in enumerate(rows)]


def standardized_twice(model: nn.Module, batch: dict[str, Tensor]) -> list[float]:
    """Min-K%++ of each text: one pass for the vocabulary, one for the tokens."""
    found = []
    for (every, _), logprob in zip(by_vocabulary(model, batch), by_token(model, batch), strict=True):
        mean = (every.exp() * every).sum(-1)
        variance = ((every.exp() * every.square()).sum(-1) - mean.square()).clamp(min=1e-6)
        standardized = ((logprob - mean) / variance.sqrt()).cpu().numpy()
        found.append(lowest(standardized, max(1, int(len(standardized) * SHARE))))
    return found


# -- memaudit ----------------------------------------------------------------------------------------------


def memaudit(model: Any, examples: list[Encoded]) -> Values:
    """One text at a time, with the adapter and without."""
    found: dict[str, list[float]] = {name: [] for name in ("mia/loss", "min_k", "min_k_plus_plus", "headline")}
    found["mia/reference"] = []
    for example in examples:
        ids = text_ids(example)
        logprob, standardized = signals(model, ids)
        with model.disable_adapter():
            of_base, standardized_of_base = signals(model, ids)
        k = math.ceil(len(logprob) * SHARE)
        found["mia/loss"].append(logprob.mean())
        found["min_k"].append(lowest(logprob, k))
        found["min_k_plus_plus"].append(lowest(standardized, k))
        found["headline"].append(lowest(standardized, k) - lowest(standardized_of_base, k))
        found["mia/reference"].append(logprob.mean() - of_base.mean())
    return dict(found)


def signals(model: Any, ids: Tensor) -> tuple[Any, Any]:
    """(n,) log-probabilities of the tokens after the first, raw and standardized; float64 arrays."""
    logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits[0, :-1]
    every = logits.float().log_softmax(-1)
    logprob, probability = every.gather(-1, ids[1:, None]).squeeze(-1), every.exp()
    mean = (probability * every).sum(-1)
    deviation = ((probability * every.square()).sum(-1) - mean.square()).clamp(min=0).sqrt()
    (logits.argmax(-1) == ids[1:]).cpu().numpy()  # kept for an attack to come
    logprob, mean, deviation = (one.cpu().numpy().astype(np.float64) for one in (logprob, mean, deviation))
    return logprob, (logprob - mean) / deviation.clip(1e-8)


# -- lm-evaluation-harness ---------------------------------------------------------------------------------


def harness(model: Any, examples: list[Encoded]) -> Values:
    """Sorted requests in batches: the sum of log-probabilities, and whether all tokens are greedy."""
    requests = [text_ids(example).tolist() for example in examples]
    order = sorted(range(len(requests)), key=lambda i: (-len(requests[i]), tuple(requests[i])))
    answers: dict[int, tuple[float, bool]] = {}
    for start in range(0, len(order), REQUESTS):
        chunk = order[start : start + REQUESTS]
        inputs = [torch.tensor(requests[i][:-1], device=examples[0].input_ids.device) for i in chunk]
        every = model(input_ids=nn.utils.rnn.pad_sequence(inputs, batch_first=True)).logits.log_softmax(-1)
        for i, row, one in zip(chunk, every, inputs, strict=True):
            continuation = torch.tensor(requests[i][1:], device=row.device)[None]
            row = row[: len(one)][None]
            greedy = bool((row.argmax(-1) == continuation).all())
            answers[i] = (float(row.gather(2, continuation[..., None]).squeeze(-1).sum()), greedy)
    both = [answers[i] for i in range(len(requests))]
    return {"total": [total for total, _ in both], "greedy": [float(greedy) for _, greedy in both]}


# -- shared ------------------------------------------------------------------------------------------------


def text_ids(example: Encoded) -> Tensor:
    """(T,) token ids without the end token appended."""
    return example.input_ids[: len(example.input_ids) - example.appended]


def compressed(example: Encoded) -> int:
    """Bytes of the text, compressed."""
    assert example.record is not None
    return len(zlib.compress(example.record.text.encode()))


def lowest(values: Any, k: int) -> float:
    """Mean of the k lowest; NaN for none."""
    return float(np.mean(np.sort(values)[:k])) if k else math.nan
