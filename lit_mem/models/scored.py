"""Score a batch with a tuned model and its frozen reference."""

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
    """Scores batches with the tuned model, and with the reference once per example.

    Args:
        model: the tuned model.
        reference: the frozen reference model.
        cache: stores the reference's scores.
        on_disk: whether they are also kept on disk, for the next run.
        lockstep: keeps ranks in lockstep if only some of them have scores on disk.

    Attributes:
        scorer: scorer of the tuned model.
        reference: as given.
        starts_as_base: whether the tuned model's outputs equalled its base's when it was built.
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
        """Score a batch with the tuned model, and with the reference if needed.

        Args:
            batch: the examples.
            needs: what to compute besides log-probabilities and hits.
            setting: device and precision of the model calls.
            step: number of training steps taken.
        """
        same = self.tuned_is_reference(step)
        # Texts in windows: the number of windows may differ between ranks.
        with self._lockstep() if "at_once" in batch else nullcontext():
            # An adapter that adds exactly nothing need not be computed.
            with self.reference.context(setting) if same else nullcontext():
                scores = self.scorer(batch, needs)
        if not needs.reference:
            return scores
        now = (setting.precision, setting.device.type)
        if self._cached_for not in (None, now):  # a second trainer may have other settings
            self._cache.clear()
        self._cached_for = now
        if self._on_disk and self._cache.store is None:
            self._cache.store = ReferenceStore(cache_folder("reference"), self.reference.settings(setting))

        def compute(batch: Batch) -> TokenScores:
            return scores if same else self.score_reference(batch, setting)

        with self._lockstep():  # only some ranks may have them on disk
            return scores.with_reference(*self._cache.scores(batch, compute))

    def score_reference(self, batch: Batch, setting: Setting) -> TokenScores:
        """One forward pass of the reference, ignoring the cache."""
        with self.reference.context(setting):
            return (self.reference.scorer or self.scorer)(batch)

    def tuned_is_reference(self, step: int) -> bool:
        """Whether the tuned model still equals the reference bit for bit, as before the first step.

        Then only one of them has to be computed. May be False even if they are equal.

        Args:
            step: number of training steps taken.
        """
        fresh = self.starts_as_base and self.reference.scorer is None
        # Never after a step: parameters may be sharded, and ranks with different shards must agree.
        return fresh and step == 0 and changes_nothing(self.reference.tuned)
