"""A tuned model and its frozen reference: the scores of both for a batch."""

from __future__ import annotations

from contextlib import nullcontext

from torch import nn

from lit_mem.adapters.base import changes_nothing
from lit_mem.files.places import cache_folder
from lit_mem.models.reference_model import ReferenceModel, Setting
from lit_mem.scoring.reference_scores import ReferenceCache
from lit_mem.scoring.reference_store import ReferenceStore
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.sharding.lockstep import Lockstep
from lit_mem.types import Batch, Needs, TokenScores


class ScoredModel:
    """Scores batches with the tuned model, and with the reference once for each example.

    Args:
        model: the tuned model.
        reference: the frozen model to compare with.
        cache: takes the reference's scores.
        on_disk: whether they are kept on disk too, for the next run.
        lockstep: keeps ranks together where one has scores on disk and another has not.

    Attributes:
        scorer: of the tuned model.
        reference: as given.
        starts_as_base: whether the tuned model gave its base's numbers when it was built.
    """

    def __init__(
        self, model: nn.Module, reference: ReferenceModel, cache: ReferenceCache, on_disk: bool, lockstep: Lockstep
    ) -> None:
        self.scorer = TokenScorer(model)
        self.reference = reference
        self.starts_as_base = changes_nothing(model)
        self._cache, self._on_disk, self._lockstep = cache, on_disk, lockstep
        self._cached_for: tuple[str, str] | None = None

    def score(self, batch: Batch, needs: Needs, setting: Setting, step: int) -> TokenScores:
        """Score a batch with the tuned model, and with the reference where that is needed.

        Args:
            batch: the examples.
            needs: what is computed beside log-probabilities and hits.
            setting: where and how the models are called.
            step: how many training steps were taken.
        """
        # Texts in windows: each rank may have another number of them.
        with self._lockstep() if "at_once" in batch else nullcontext():
            scores = self.scorer(batch, needs)
        if not needs.reference:
            return scores
        now = (setting.precision, setting.device.type)
        if self._cached_for not in (None, now):  # a second trainer may have others
            self._cache.clear()
        self._cached_for = now
        if self._on_disk and self._cache.store is None:
            self._cache.store = ReferenceStore(cache_folder("reference"), self.reference.settings(setting))

        def compute(batch: Batch) -> TokenScores:
            return scores if self.tuned_is_reference(step) else self.score_reference(batch, setting)

        with self._lockstep():  # one rank may have them on disk, another not
            return scores.with_reference(*self._cache.scores(batch, compute))

    def score_reference(self, batch: Batch, setting: Setting) -> TokenScores:
        """One pass of the reference, whatever is cached."""
        with self.reference.context(setting):
            return (self.reference.scorer or self.scorer)(batch)

    def tuned_is_reference(self, step: int) -> bool:
        """Whether the tuned model still gives the reference's numbers, to the last bit, as before the first step.

        What is to be computed with both need then be computed with one. May be false where it would be true.

        Args:
            step: how many training steps were taken.
        """
        fresh = self.starts_as_base and self.reference.scorer is None
        # Not after a step: parameters may be sharded, and ranks that see other shards must not disagree.
        return fresh and step == 0 and changes_nothing(self.reference.tuned)
