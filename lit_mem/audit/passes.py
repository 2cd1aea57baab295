"""A pass without a trainer: score batches of members and held-out texts, and measure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lit_mem.audit.loop import Audit, PassResult
from lit_mem.audit.measure import Measure, Pass
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.errors import MetricError
from lit_mem.scoring.finite import not_finite
from lit_mem.types import Batch


def measured(subject: ModelSubject, batches: Iterable[Batch], measures: Sequence[Measure]) -> PassResult:
    """Score each batch once, and compute what the measures make of it; the model stays as it is.

    Args:
        subject: the model.
        batches: of members and held-out texts, on the model's device.
        measures: such as `lit_mem.audit.suite.suite("quick")` makes.

    Raises:
        MetricError: the loss of a text is not finite.
        ConfigError: an option of a measure does not fit.
    """
    audit = Audit(measures)
    audit.open(subject, fresh=False)
    audit.begin(subject)
    for batch in batches:
        scores = subject.score(batch, audit.needs)
        if (found := not_finite(scores, batch)) is not None:
            raise MetricError(f"{found}, so nothing is measured")
        audit.observe(scores, batch)
    return audit.finish(Pass(subject))
