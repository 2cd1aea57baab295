"""Prompted extraction from members, held-out texts and the base model, at every validation."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from lit_mem.audit.known import Known
from lit_mem.audit.measure import Measure, Pass, Result
from lit_mem.audit.measures.every_nth import EveryNth
from lit_mem.audit.measures.extraction_metrics import ExtractionMetrics
from lit_mem.audit.subject import Subject
from lit_mem.audit.table import ExampleTable, ScoreTable
from lit_mem.errors import ConfigError, check_range
from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.continuations import Candidate, Prompter, no_bar
from lit_mem.extraction.edit import EditSimilarity
from lit_mem.extraction.exact import ExactMatch
from lit_mem.extraction.kept_prefixes import KeptPrefixes
from lit_mem.extraction.ngram import NgramRate
from lit_mem.extraction.prompts import Prompt, check_prefix, cut_prompt
from lit_mem.extraction.rouge import RougeL
from lit_mem.files.once import Once
from lit_mem.scoring.windows import first_read
from lit_mem.types import IGNORED, Batch, Needs, Sampling, TokenScores

log = logging.getLogger(__name__)


def default_measures() -> dict[str, ExtractionMeasure]:
    """N-gram, exact match, subsequence and character measures."""
    return {
        "ngram_rate": NgramRate(),
        "exact_rate": ExactMatch(),
        "rouge_l": RougeL(),
        "edit_similarity": EditSimilarity(),
    }


class Extraction(EveryNth, Measure):
    """Prompts the model with prefixes of texts and compares its continuations with the true suffixes.

    A random, seeded subset of members and one of held-out texts are prompted, and the base model is given the same
    prompts: the members' rate is meaningful only against texts that were not trained on, and an untuned model.

    Logged for each measure, as means over the prompted texts: `extraction/<name>` (members), `_heldout`, and the base
    model's `_base` and `_base_heldout`, each with its 95 % interval `_low` and `_high` (`functional.rate`) if all
    values are in [0, 1]; also `extraction/generated_perplexity`, the tuned model's perplexity of its continuations of
    members; and `time/generation`, in seconds. With several prefix lengths each name includes the length, as in
    `extraction/<name>_prefix_8_heldout`, and a plot shows them. Columns: `extraction/<name>`, `extraction/<name>_base`.

    Most decoding steps are skipped. The scoring pass shows at which suffix token greedy decoding first deviates from
    the true text, so decoding starts at that token, and a text without a miss is extracted with no decoding at all.
    The base model is prompted only once, as it never changes; before training its continuations are those of the tuned
    model, and later its decoding starts at its own first miss, if another measure needs reference scores. From the
    second validation on, scoring keeps the keys and values of prefixes (`token_budget` tokens): none is read twice.

    A true suffix ends before its first end token, where decoding stops (see `lit_mem.functional.ends`). For a text
    read in windows (`data.chunk`), the first window with a scored token is prompted; `SlidingExtraction` covers all
    windows.

    Args:
        n_members: number of members prompted; None: all that are validated.
        n_heldout: number of held-out texts prompted; None: all that are validated.
        prefix: below 1: the share of a text used as the prompt; 1 or more: the number of tokens. A list: each length
            is used with the same texts, those long enough for all.
        measures: extraction measures by logged name. None: `ngram_rate`, `exact_rate`, `rouge_l` and
            `edit_similarity`.
        base: prompt the base model too.
        sampling: sample tokens instead of greedy decoding.
        every_n_validations: in a fit, generate only in every n-th validation (and in the one before training).
        token_budget: maximum number of tokens in a decoding batch; lower it if generation runs out of memory.
        seed: seed for choosing the texts.
        group: namespace of the logged names; each of several such measures in one run needs its own.
    """

    generates = True

    def __init__(
        self,
        n_members: int | None = 100,
        n_heldout: int | None = 100,
        prefix: float | list[float] = 0.5,
        measures: dict[str, ExtractionMeasure] | None = None,
        base: bool = True,
        sampling: Sampling | None = None,
        every_n_validations: int = 1,
        token_budget: int = 4096,
        seed: int = 0,
        group: str = "extraction",
    ) -> None:
        prefixes = prefix if isinstance(prefix, list) else [prefix]
        _check_prefixes(prefixes)
        for option, value, least in (
            ("every_n_validations", every_n_validations, 1),
            ("token_budget", token_budget, 1),
            ("n_members", n_members, 0),
            ("n_heldout", n_heldout, 0),
        ):
            check_range(f"Extraction.{option}", value, at_least=least, or_null=True)
        if sampling is not None:
            sampling.check("Extraction.sampling")
        if measures is not None and not measures:
            raise ConfigError("Extraction.measures is empty; expected at least one measure")
        self.n_members, self.n_heldout = n_members, n_heldout
        self.prefixes: list[int | float] = [float(p) if p < 1 else int(p) for p in prefixes]
        self.measures: dict[str, ExtractionMeasure] = measures if measures is not None else default_measures()
        self.base, self.sampling = base, sampling
        self.every_n_validations, self.token_budget, self.seed = every_n_validations, token_budget, seed
        self.group = group
        self._seen: dict[int, list[Candidate]] = {}
        self._skipped: set[int] = set()
        self._once = Once()
        self._eligible = ExampleTable([])
        self._metrics = ExtractionMetrics(group, self.measures, self.prefixes, base)
        self._answers = ExampleTable(self._metrics.table_columns())
        self._tokenizer: Any = None
        self._prompter = Prompter(None, sampling, token_budget)
        self._kept = KeptPrefixes(token_budget)

    @property
    def needs(self) -> Needs:  # type: ignore[override]
        """The keys and values of prefixes."""
        return self._kept.needs

    def state_dict(self) -> dict[str, Any]:
        """State with which a resumed run computes the same numbers to the last digit."""
        return {**super().state_dict(), "prompted": sorted(self._kept.ids)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        super().load_state_dict(state_dict)
        self._kept.prompted(state_dict.get("prompted", ()))

    def names(self) -> list[str]:
        """Metrics of all measures at all prefix lengths."""
        return self._metrics.names()

    def open(self, subject: Subject, known: Known, fresh: bool) -> None:
        """Check that the model can generate; drop cached continuations of another base model.

        Raises:
            ConfigError: there is no tokenizer or reference to generate with.
        """
        if fresh:
            self.count_anew()
            self._kept.prompted(())
        needed = ["tokenizer", "language_model", *(["reference_context"] if self.base else [])]
        if subject.lacks(*needed):
            raise ConfigError(
                f"Extraction generates, so {subject.name} must have {', '.join(needed[:-1])} and {needed[-1]} (see "
                "lit_mem.types.MemorizationModule)"
            )
        self._prompter = Prompter(None, self.sampling, self.token_budget)

    def begin(self, subject: Subject) -> None:
        """Reset for a new pass; decoding stops at the model's end tokens."""
        self._tokenizer = subject.tokenizer
        self._prompter.eos, self._prompter.bar = self.ends, subject.progress
        self._seen.clear()
        self._kept.start(subject.language_model)
        self._skipped.clear()
        self._eligible.reset()
        self._answers.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep candidates for prompting."""
        ids, mask = batch["input_ids"].cpu(), scores.mask.cpu()
        labels = ids.masked_fill(~mask, IGNORED)
        scored: dict[str, Any] = {"hit": scores.hit.cpu(), "logprob": scores.logprob.cpu()}
        if self.base and scores.reference is not None and scores.reference_hit is not None:
            scored |= {"base_hit": scores.reference_hit.cpu(), "base_logprob": scores.reference.cpu()}
        kept = torch.zeros(len(ids), dtype=torch.bool)
        for row, example_id in enumerate(batch["example_id"].tolist()):
            at = first_read(batch, row, mask[row])
            prompts = [cut_prompt(ids[row, at], labels[row, at], p, self.ends) for p in self.prefixes]
            usable = [one for one in prompts if one is not None and _text(one.suffix, self._tokenizer).split()]
            if len(usable) < len(prompts):
                self._skipped.add(example_id)
                continue
            member, candidates = bool(batch["member"][row]), []
            for prompt in usable:
                span = at[prompt.cut : len(prompt.input_ids)]
                candidates.append(Candidate(prompt, member, **{name: each[row, span] for name, each in scored.items()}))
            if example_id in scores.states:
                self._kept.add(example_id, candidates, scores.states[example_id], self._prompter)
            self._seen[example_id] = candidates
            kept[row] = True
        self._eligible.update(batch["example_id"].cpu()[kept], batch["member"].cpu()[kept], {})

    def compute(self, run: Pass) -> Result:
        """Generate, compare and average.

        Raises:
            MetricError: the model's logits are not finite.
        """
        chosen = _chosen(self._eligible.compute(), self.n_members, self.n_heldout, self.seed)
        if not self.is_due(run):
            return Result()
        if self._skipped and run.complete and self._once.first():
            lengths = ", ".join(f"{p:g}" for p in self.prefixes)
            log.info(
                "Extraction skips %d texts: too short for a prefix of %s, or with an end token first in the suffix.",
                len(self._skipped), lengths,
            )  # fmt: skip
        start = time.perf_counter()
        self._kept.prompted(chosen if self.every_n_validations == 1 else ())
        mine = {i: self._seen[i] for i in chosen if i in self._seen}
        with run.subject.forward_context(), run.subject.lockstep():
            self._prompt_all(mine, run.subject)
        self._kept.clear()
        self._prompter.bar = no_bar  # a measure may outlive the model
        table = self._answers.compute()
        found = self._metrics.means(table)
        rows, plots = self._metrics.rows(table), self._metrics.plots(found.metrics)
        metrics = {**found.metrics, self._metrics.time: time.perf_counter() - start}
        return Result(metrics, rows, plots, intervals=found.intervals)

    def _prompt_all(self, prompted: dict[int, list[Candidate]], subject: Subject) -> None:
        """Prompt with every text at every prefix length."""
        columns: dict[str, list[float]] = {}
        for k, tag in enumerate(self._metrics.tags):
            candidates = {i: at_all_lengths[k] for i, at_all_lengths in prompted.items()}
            same = self.base and subject.tuned_is_reference()  # then the adapter need not be computed
            states = self._kept.take if k == len(self._metrics.tags) - 1 else self._kept.get
            with subject.reference_context() if same else nullcontext(subject.language_model) as model:
                tuned = self._prompter.tuned(candidates, model, states)
            answers = {"": tuned} | ({"_base": self._prompter.base(candidates, subject, tuned)} if self.base else {})
            for who, decoded in answers.items():
                texts = [_continuation(c.prompt, decoded[i].ids, self._tokenizer) for i, c in candidates.items()]
                for name, measure in self.measures.items():
                    columns[name + tag + who] = measure.over(texts)
            columns[f"logprob{tag}"] = [tuned[i].logprob.double().sum().item() for i in candidates]
            columns[f"n_tokens{tag}"] = [len(tuned[i].ids) for i in candidates]
        self._answers.update(
            torch.tensor(list(prompted), dtype=torch.int64),
            torch.tensor([at_all_lengths[0].member for at_all_lengths in prompted.values()], dtype=torch.bool),
            {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()},
        )


def _check_prefixes(prefixes: list[float]) -> None:
    """Raise ConfigError if the option `prefix` is invalid."""
    found = f"[{', '.join(f'{length:g}' for length in prefixes)}]"
    if not prefixes or len(set(prefixes)) < len(prefixes):
        raise ConfigError(f"Extraction.prefix is {found}; expected at least one length, each once")
    for length in prefixes:
        check_prefix(length, "Extraction.prefix")
    if min(prefixes) < 1 <= max(prefixes):
        raise ConfigError(f"Extraction.prefix is {found}; expected only shares, or only numbers of tokens")


def _chosen(table: ScoreTable, n_members: int | None, n_heldout: int | None, seed: int) -> list[int]:
    """Ids to prompt, the same on every rank; None selects all of a set."""
    chosen: list[int] = []
    for part, n in ((table.members(), n_members), (table.nonmembers(), n_heldout)):
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(part), generator=generator)[: len(part) if n is None else n]
        chosen += part.example_id[order].tolist()
    return chosen


def _continuation(prompt: Prompt, generated: Tensor, tokenizer: Any) -> Continuation:
    truth = prompt.suffix
    return Continuation(generated.tolist(), truth.tolist(), _text(generated, tokenizer), _text(truth, tokenizer))


def _text(ids: Tensor, tokenizer: Any) -> str:
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=True))
