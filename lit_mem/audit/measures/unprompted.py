"""Unprompted generation, traced back to all members."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence
from typing import Any, Final

from torch import Tensor, nn

from lit_mem.audit.gather import Gathered, gathered, ranks
from lit_mem.audit.glossary import of_base
from lit_mem.audit.known import Known
from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.measures.every_nth import EveryNth
from lit_mem.audit.subject import Subject
from lit_mem.audit.tracing import Corpora, traced
from lit_mem.errors import ConfigError, check_range
from lit_mem.extraction.unprompted import prompts_of, written
from lit_mem.functional.openings import shared_openings
from lit_mem.guards import evaluation_mode
from lit_mem.types import Batch, Sampling, TokenScores

log = logging.getLogger(__name__)

_OWN: Final = ("verbatim_share", "longest_run", "texts_hit")
_NO_TEXTS: Final = "the batches carry no records, and the data gives no texts, to compare generated text with"
_NO_PROMPT: Final = "the tokenizer has no BOS token, no opening is shared by enough texts, and no prompts are given"


class UnpromptedLeaks(EveryNth, Measure):
    """Lets the model generate without a true prefix, and searches all members, scored or not, for what it generates.

    The prompts are generic: the BOS token, the first words that many members share (each shared by at least
    `min_texts` different ones, so that no single text is revealed), and custom prompts. Counted are runs of at least
    `k` generated words that occur verbatim in a member, and of which no `k` consecutive words occur in a held-out text
    or in what the base model generates from the same prompts with the same random draws. Logged:

    - `leak/verbatim_share`: words inside such runs, as a share of all generated words;
    - `leak/longest_run`: words of the longest such run; 0 without any;
    - `leak/texts_hit`: number of different members with such a run;

    and for each the control `_heldout`: the same with held-out texts and members exchanged; and `_base` and
    `_base_heldout`: for what the base model generates, excluding only runs in the opposite set. Before training, all
    are 0 except those of the base. `time/leak` is in seconds.

    Each pass searches all texts of the data module, of an audit or of a trainer's own tokenized data set; if only the
    scored ones are known, it searches these and logs a message. Only these metrics are recorded and logged, no text.

    Source: Carlini et al. 2021, "Extracting Training Data from Large Language Models" (sampling from the start token);
    Nasr et al. 2023, "Scalable Extraction of Training Data from (Production) Language Models" (arXiv 2311.17035;
    verbatim matches against the whole training set). The exclusion of runs that are not novel is ours.

    Args:
        n: number of generated texts, divided evenly over the prompts; greedy decoding generates one per prompt.
        length: maximum number of tokens of each.
        k: minimum number of words of a run. In scripts without spaces between words each character is one.
        prompts: further prompts, as plain text.
        bos: prompt with the BOS token.
        openings: prompt with this many of the most frequent openings of members; 0: with none.
        opening_words: number of words of an opening.
        min_texts: number of different members that must share it, at least 2.
        base: let the base model generate too, and exclude what it generates.
        sampling: sampling options and seed; by default the whole distribution; null: greedy decoding.
        every_n_validations: in a fit, only in every n-th validation (and in the one before training).
        token_budget: maximum number of tokens in a decoding batch.
        group: namespace of the logged names.
    """

    generates = True

    def __init__(
        self,
        n: int = 64,
        length: int = 64,
        k: int = 8,
        prompts: list[str] | None = None,
        bos: bool = True,
        openings: int = 4,
        opening_words: int = 3,
        min_texts: int = 20,
        base: bool = True,
        sampling: Sampling | None = Sampling(),  # noqa: B008  (frozen)
        every_n_validations: int = 1,
        token_budget: int = 4096,
        group: str = "leak",
    ) -> None:
        for option, value, least in (
            ("n", n, 1), ("length", length, 1), ("k", k, 1), ("openings", openings, 0), ("min_texts", min_texts, 2),
            ("opening_words", opening_words, 1), ("every_n_validations", every_n_validations, 1),
            ("token_budget", token_budget, 1),
        ):  # fmt: skip
            check_range(f"UnpromptedLeaks.{option}", value, at_least=least)
        if sampling is not None:
            sampling.check("UnpromptedLeaks.sampling")
        if not (bos or openings or prompts):
            raise ConfigError("UnpromptedLeaks: bos is false, openings 0 and prompts empty; set one of them")
        self.n, self.length, self.k = n, length, k
        self.prompts, self.bos, self.openings = list(prompts or ()), bos, openings
        self.opening_words, self.min_texts = opening_words, min_texts
        self.base, self.sampling = base, sampling
        self.every_n_validations, self.token_budget, self.group = every_n_validations, token_budget, group
        self._texts: dict[bool, Collection[str] | None] = {}
        self._scored: dict[bool, Gathered[int, str]] = {True: Gathered(), False: Gathered()}
        self._prompts: list[Tensor] | None = None
        self._base_texts: list[str] | None = None
        self._of_base: dict[bool, dict[str, float]] = {}

    def names(self) -> list[str]:
        """All metrics, and the time."""
        return [*self._metrics("", *(["_base"] if self.base else [])), f"time/{self.group}"]

    def _metrics(self, *models: str) -> list[str]:
        return [f"{self.group}/{own}{model}{of}" for own in _OWN for model in models for of in ("", "_heldout")]

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Check that the model can generate; drop cached text of another base model.

        Raises:
            ConfigError: there is no tokenizer or reference to generate with.
        """
        if fresh:
            self.count_anew()
        needed = ["tokenizer", "language_model", *(["reference_context"] if self.base else [])]
        if lacking := subject.lacks(*needed):
            raise ConfigError(f"UnpromptedLeaks generates, so {subject.name} must have {' and '.join(lacking)}")
        self._prompts, self._base_texts = None, None
        self._of_base.clear()

    def begin(self, subject: Subject) -> None:
        """Get the texts that are known apart from the batches."""
        for member, scored in self._scored.items():
            self._texts[member] = subject.all_texts(member)
            scored.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep the batch's texts if no others are known."""
        for row, record in enumerate(batch.get("records", ())):
            member = bool(batch["member"][row])
            if self._texts[member] is None:
                self._scored[member][int(batch["example_id"][row])] = record.prompt + record.text

    def compute(self, run: Pass) -> Result:
        """Generate, and search for verbatim runs; every rank searches its share of the texts."""
        if not self.is_due(run):
            return Result()
        if not run.complete:
            return Result()  # the batches seen may hold all known texts
        start = time.perf_counter()
        members, heldout = self._all(True), self._all(False)
        if self._prompts is None:
            self._prompts = self._made_prompts(members, heldout, run.subject.tokenizer)
        if not self._prompts:
            return Result()
        corpora = Corpora(members, heldout)
        tuned, base = self._written(run.subject, self._prompts)
        found = traced(tuned, base, corpora, self.k)
        if self.base:
            compared = run.stage == "test"  # whose texts differ from those of validations
            if compared not in self._of_base:
                self._of_base[compared] = traced(base, (), corpora, self.k)
            found |= {of_base(name): value for name, value in self._of_base[compared].items()}
        metrics = {f"{self.group}/{name}": value for name, value in found.items()}
        return Result(metrics | {f"time/{self.group}": time.perf_counter() - start})

    def _all(self, member: bool) -> Collection[str]:
        """All known texts of a set, the same on every rank."""
        known, scored = self._texts[member], self._scored[member].compute()
        return known if known is not None else list(scored.values())

    def _made_prompts(self, members: Collection[str], heldout: Collection[str], tokenizer: Any) -> list[Tensor]:
        """Token ids of the prompts; none without prompts, or without texts to search."""
        if not members:
            self.leave_out(self.names(), _NO_TEXTS)
            return []
        shared = shared_openings(members, self.opening_words, self.min_texts, self.openings)
        prompts = prompts_of((*shared, *self.prompts), tokenizer, self.bos)
        if not prompts:
            self.leave_out(self.names(), _NO_PROMPT)
            return []
        scored = "" if self._texts[True] is not None else " (only the scored ones, as no others are known)"
        log.info(
            "Unprompted leaks: text generated from %d prompts (%d of them openings that at least %d members share) is "
            "searched for in %d members and %d held-out texts%s.",
            len(prompts), len(shared), self.min_texts, len(members), len(heldout), scored,
        )  # fmt: skip
        return prompts

    def _written(self, subject: Subject, prompts: Sequence[Tensor]) -> tuple[list[str], list[str]]:
        """Texts generated by the tuned model and by its base, gathered on every rank; each rank generates its share."""
        with subject.forward_context(), subject.lockstep():
            with evaluation_mode(subject.language_model):
                tuned = self._by_all(subject, subject.language_model, prompts, "Unprompted")
            if self.base and self._base_texts is None:
                if subject.tuned_is_reference():
                    self._base_texts = tuned
                else:
                    with subject.reference_context() as model:
                        self._base_texts = self._by_all(subject, model, prompts, "Unprompted (base)")
        return tuned, self._base_texts or []

    def _by_all(self, subject: Subject, model: nn.Module, prompts: Sequence[Tensor], what: str) -> list[str]:
        n = len(prompts) if self.sampling is None else self.n
        n_ranks, rank = ranks()
        mine = range(rank, n, n_ranks)
        with subject.progress(what, len(mine) * self.length) as advance:
            found = written(
                model, prompts, mine, self.length, subject.tokenizer, self.ends, self.sampling, self.token_budget,
                advance,
            )  # fmt: skip
        texts = {number: text for part in gathered(found) for number, text in part.items()}
        return [texts[number] for number in range(n)]
