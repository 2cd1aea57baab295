"""Passes without a Lightning trainer: score batches of members and held-out texts, and compute the measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_mem.audit.gather import gathered, ranks
from lit_mem.audit.loop import Audit, PassResult
from lit_mem.audit.measure import Measure, Pass
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.data.batching import BatchList, ScoringBatches
from lit_mem.data.encoding import Encoded
from lit_mem.errors import MetricError
from lit_mem.scoring.finite import not_finite
from lit_mem.types import Batch


class ScoredSets:
    """Batched sets of examples, split over the processes of `torch.distributed`.

    Args:
        sets: sets of examples, each batched separately.
        scoring_tokens: maximum number of tokens in a batch, padding included.
    """

    def __init__(self, sets: Iterable[Sequence[Encoded]], scoring_tokens: int) -> None:
        self._sets = [
            (BatchList(examples, scoring_tokens), ScoringBatches(examples, scoring_tokens, *ranks()))
            for examples in sets
            if examples
        ]

    def batches(self, device: torch.device) -> Iterator[Batch]:
        """Batches of this process, moved to a device."""
        for examples, batches in self._sets:
            for indices in batches:
                yield _on(device, examples[indices])


class Session:
    """The measures of a run over one model, in its current state at each pass.

    The processes of `torch.distributed` share the texts; each must run every pass, and gets the same result.

    Args:
        subject: the model.
        sets: sets of examples, each batched separately: held-out texts, members, and any canaries.
        measures: such as the result of `lit_mem.audit.suite.suite("quick")`.
        scoring_tokens: maximum number of tokens in a scoring batch, padding included.
        fresh: whether a new training run starts; False for an audit or a resumed run.

    Raises:
        ConfigError: an option of a measure is invalid.

    Attributes:
        audit: the Audit that runs the measures.
    """

    def __init__(
        self,
        subject: ModelSubject,
        sets: Iterable[Sequence[Encoded]],
        measures: Sequence[Measure],
        scoring_tokens: int = 2048,
        fresh: bool = False,
    ) -> None:
        self.subject, self.audit = subject, Audit(measures)
        self._sets = ScoredSets(sets, scoring_tokens)
        self.audit.open(subject, fresh)

    def run(self, run: Pass) -> PassResult:
        """Run one pass.

        Args:
            run: the pass; its subject is that of the session.

        Raises:
            MetricError: the loss of a text is not finite.
        """
        return _run(self.audit, self.subject, self._sets.batches(self.subject.device), run)


def measured(subject: ModelSubject, batches: Iterable[Batch], measures: Sequence[Measure]) -> PassResult:
    """Score each batch once and compute the measures; the model is unchanged.

    Args:
        subject: the model.
        batches: of members and held-out texts, on the model's device.
        measures: such as the result of `lit_mem.audit.suite.suite("quick")`.

    Raises:
        MetricError: the loss of a text is not finite.
        ConfigError: an option of a measure is invalid.
    """
    audit = Audit(measures)
    audit.open(subject, fresh=False)
    return _run(audit, subject, batches, Pass(subject))


def observe(audit: Audit, subject: ModelSubject, batches: Iterable[Batch]) -> str | None:
    """Start a pass, and score the batches of this process once for all measures.

    Returns:
        A description of the first text whose loss is not finite; None without one.
    """
    audit.begin(subject)
    found: str | None = None
    for batch in batches:
        scores = subject.score(batch, audit.needs)
        found = found or not_finite(scores, batch)
        audit.observe(scores, batch)
    return found


def _run(audit: Audit, subject: ModelSubject, batches: Iterable[Batch], run: Pass) -> PassResult:
    found = observe(audit, subject, batches)
    found = next((one for one in gathered(found) if one is not None), None)
    if found is not None:
        raise MetricError(f"{found}, so the pass cannot be measured")
    return audit.finish(run)


def _on(device: torch.device, batch: Batch) -> Batch:
    moved: dict[str, Any] = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    return moved  # type: ignore[return-value]
