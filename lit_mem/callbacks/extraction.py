"""Prompted extraction from members, held-out texts and the base model, at every validation."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from lit_mem.callbacks.base import Measure
from lit_mem.errors import ConfigError
from lit_mem.extraction.base import Continuation, ExtractionMeasure
from lit_mem.extraction.decoding import Decoded, Sampling, decode
from lit_mem.extraction.exact import ExactMatch
from lit_mem.extraction.ngram import NgramRate
from lit_mem.extraction.prompts import Prompt, cut_prompt
from lit_mem.guards import evaluation_mode
from lit_mem.metrics.examples import ExampleTable, ScoreTable
from lit_mem.types import IGNORED, Batch, MemorizationModule, TokenScores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Candidate:
    """An example that may be asked: its prompt, and what the scoring pass says of its suffix."""

    prompt: Prompt
    member: bool
    hit: Tensor
    logprob: Tensor


class Extraction(Measure):
    """Gives the model prefixes of texts and compares what it writes with what truly follows.

    A random, seeded set of members and one of held-out texts are asked, and the base model is asked the same:
    the members' rate means little beside that of texts never trained on, and of a model never tuned.

    Logged for each measure, as means over the texts asked: `extraction/<name>` (members),
    `extraction/<name>_heldout`, and the base model's `extraction/<name>_base` and `_base_heldout`; further
    `extraction/generated_perplexity`, the tuned model's perplexity of what it wrote for members; and
    `time/generation`, in seconds.

    Greedy decoding costs less than it seems. The scoring pass knows at which suffix token greedy decoding first
    leaves the true text: up to there the true tokens are what it writes, so decoding starts at that miss, and a
    text without a miss is extracted with no decoding at all. The base model is asked once, as it never changes.

    Args:
        n_members: how many members are asked; None: all that are validated.
        n_heldout: how many held-out texts are asked; None: all that are validated.
        prefix: a number below 1: the share of a text that is given; 1 or more: the number of tokens given.
        measures: by the name under which they are logged. None: `ngram_rate` and `exact_rate`.
        base: ask the base model too.
        sampling: draw tokens instead of greedy decoding.
        every_n_validations: generate only in every n-th validation (and in the one before training).
        token_budget: most tokens in a decoding batch; lower it if generation runs out of memory.
        seed: chooses the texts asked.
        group: first part of the logged names; each of several such callbacks in one run needs its own.
    """

    def __init__(
        self,
        n_members: int | None = 100,
        n_heldout: int | None = 100,
        prefix: float = 0.5,
        measures: dict[str, ExtractionMeasure] | None = None,
        base: bool = True,
        sampling: Sampling | None = None,
        every_n_validations: int = 1,
        token_budget: int = 4096,
        seed: int = 0,
        group: str = "extraction",
    ) -> None:
        if prefix < 0 or (prefix >= 1 and prefix != int(prefix)):
            raise ConfigError(f"Extraction.prefix is {prefix}; expected a share below 1 or a whole number of tokens")
        for option, value, least in (
            ("every_n_validations", every_n_validations, 1),
            ("token_budget", token_budget, 1),
            ("n_members", n_members, 0),
            ("n_heldout", n_heldout, 0),
        ):
            if value is not None and value < least:
                raise ConfigError(f"Extraction.{option} is {value}; expected {least} or more")
        if sampling is not None:
            sampling.check("Extraction.sampling")
        if measures is not None and not measures:
            raise ConfigError("Extraction.measures is empty; expected at least one measure")
        self.n_members, self.n_heldout = n_members, n_heldout
        self.prefix: int | float = float(prefix) if prefix < 1 else int(prefix)
        self.measures: dict[str, ExtractionMeasure] = (
            measures if measures is not None else {"ngram_rate": NgramRate(), "exact_rate": ExactMatch()}
        )
        self.base, self.sampling = base, sampling
        self.every_n_validations, self.token_budget, self.seed = every_n_validations, token_budget, seed
        self.group = group
        self._seen: dict[int, _Candidate] = {}
        self._skipped: set[int] = set()
        self._told_of_skipped = False
        self._validations = 0
        self._base_answers: dict[tuple[int, bytes], Decoded] = {}
        self._eligible = ExampleTable([])
        self._answers = ExampleTable([*self._columns(), "logprob", "n_tokens"])
        self._tokenizer: Any = None

    def _columns(self) -> list[str]:
        return [name + who for name in self.measures for who in (("", "_base") if self.base else ("",))]

    def _time_name(self) -> str:
        return "time/generation" + ("" if self.group == "extraction" else f"_{self.group}")

    def metric_names(self) -> list[str]:
        """Names that this callback logs."""
        names = [f"{self.group}/{c}{part}" for c in self._columns() for part in ("", "_heldout")]
        return [*names, f"{self.group}/generated_perplexity", self._time_name()]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the module can be asked.

        Raises:
            ConfigError: it has no tokenizer or reference to generate with.
        """
        super().setup(trainer, pl_module, stage)
        if not all(hasattr(type(pl_module), name) for name in ("language_model", "reference_context", "tokenizer")):
            raise ConfigError(
                f"Extraction generates, so {type(pl_module).__name__} must have tokenizer, language_model and "
                "reference_context (see lit_mem.types.MemorizationModule)"
            )
        self._tokenizer = pl_module.tokenizer

    def begin(self) -> None:
        """Forget the last pass."""
        self._seen.clear()
        self._skipped.clear()
        self._eligible.reset()
        self._answers.reset()

    def observe(self, scores: TokenScores, batch: Batch) -> None:
        """Keep what may be asked later."""
        ids, mask = batch["input_ids"].cpu(), scores.mask.cpu()
        labels = ids.masked_fill(~mask, IGNORED)
        hit, logprob = scores.hit.cpu(), scores.logprob.cpu()
        kept = torch.zeros(len(ids), dtype=torch.bool)
        for row, example_id in enumerate(batch["example_id"].tolist()):
            prompt = cut_prompt(ids[row], labels[row], self.prefix, self._tokenizer.eos_token_id)
            if prompt is None or not self._text(prompt.suffix).split():
                self._skipped.add(example_id)
                continue
            span = slice(prompt.cut, len(prompt.input_ids))
            member = bool(batch["member"][row])
            self._seen[example_id] = _Candidate(prompt, member, hit[row, span], logprob[row, span])
            kept[row] = True
        self._eligible.update(batch["example_id"].cpu()[kept], batch["member"].cpu()[kept], {})

    def results(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """Generate, compare and average."""
        chosen = self._chosen(self._eligible.compute())
        if not trainer.sanity_checking:
            self._validations += 1
            if self._validations % self.every_n_validations:
                return {}
        if self._skipped and not self._told_of_skipped:
            self._told_of_skipped = True
            log.info("Extraction skips %d texts too short for a prefix of %s.", len(self._skipped), self.prefix)
        start = time.perf_counter()
        mine = {i: self._seen[i] for i in chosen if i in self._seen}
        assert isinstance(pl_module, MemorizationModule)
        with trainer.precision_plugin.forward_context():  # callbacks get no autocast by themselves
            self._ask_all(mine, pl_module)
        figures = self._means(self._answers.compute())
        return figures | {self._time_name(): time.perf_counter() - start}

    def _chosen(self, table: ScoreTable) -> list[int]:
        """Ids to ask, the same on every rank."""
        chosen: list[int] = []
        for part, n in ((table.members(), self.n_members), (table.nonmembers(), self.n_heldout)):
            generator = torch.Generator().manual_seed(self.seed)
            order = torch.randperm(len(part), generator=generator)[: len(part) if n is None else n]
            chosen += part.example_id[order].tolist()
        return chosen

    def _ask_all(self, asked: dict[int, _Candidate], module: MemorizationModule) -> None:
        with evaluation_mode(module.language_model):
            tuned = self._ask_tuned(asked, module.language_model)
        columns: dict[str, list[float]] = {name: [] for name in self._answers.columns}
        base = self._ask_base(asked, module) if self.base else {}
        for i, candidate in asked.items():
            for who, answers in (("", tuned), ("_base", base)):
                if i in answers:
                    continuation = self._continuation(candidate.prompt, answers[i].ids)
                    for name, measure in self.measures.items():
                        columns[name + who].append(measure(continuation))
            columns["logprob"].append(tuned[i].logprob.double().sum().item())
            columns["n_tokens"].append(len(tuned[i].ids))
        self._answers.update(
            torch.tensor(list(asked), dtype=torch.int64),
            torch.tensor([c.member for c in asked.values()], dtype=torch.bool),
            {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()},
        )

    def _ask_tuned(self, asked: dict[int, _Candidate], model: nn.Module) -> dict[int, Decoded]:
        """Answers of the tuned model; what the scoring pass proves is not generated again."""
        known = {i: self._known_length(candidate) for i, candidate in asked.items()}
        open_ids = [i for i, candidate in asked.items() if known[i] < len(candidate.hit)]
        answers = self._decode(
            model,
            [asked[i].prompt.input_ids[: asked[i].prompt.cut + known[i]] for i in open_ids],
            [len(asked[i].hit) - known[i] for i in open_ids],
            open_ids,
        )
        rest = dict(zip(open_ids, answers, strict=True))
        whole = {}
        for i, candidate in asked.items():
            ids, logprob = candidate.prompt.suffix[: known[i]], candidate.logprob[: known[i]]
            if i in rest:
                ids, logprob = torch.cat([ids, rest[i].ids]), torch.cat([logprob, rest[i].logprob])
            whole[i] = Decoded(ids, logprob)
        return whole

    def _known_length(self, candidate: _Candidate) -> int:
        """How many suffix tokens greedy decoding is known to write; 0 when sampling."""
        if self.sampling is not None:
            return 0
        misses = (~candidate.hit).nonzero()
        return int(misses[0]) if len(misses) else len(candidate.hit)

    def _ask_base(self, asked: dict[int, _Candidate], module: MemorizationModule) -> dict[int, Decoded]:
        """Answers of the frozen base model, each generated once in a run."""
        keys = {
            i: (i, hashlib.blake2b(c.prompt.input_ids.numpy().tobytes(), digest_size=16).digest())
            for i, c in asked.items()
        }
        new = [i for i in asked if keys[i] not in self._base_answers]
        if new:
            with module.reference_context() as model:
                answers = self._decode(
                    model,
                    [asked[i].prompt.input_ids[: asked[i].prompt.cut] for i in new],
                    [len(asked[i].hit) for i in new],
                    new,
                )
            self._base_answers.update({keys[i]: answer for i, answer in zip(new, answers, strict=True)})
        return {i: self._base_answers[keys[i]] for i in asked}

    def _decode(self, model: nn.Module, prompts: list[Tensor], lengths: list[int], ids: list[int]) -> list[Decoded]:
        eos = self._tokenizer.eos_token_id
        return decode(model, prompts, lengths, eos, self.sampling, self.token_budget, keys=ids)

    def _continuation(self, prompt: Prompt, generated: Tensor) -> Continuation:
        return Continuation(
            generated.tolist(), prompt.suffix.tolist(), self._text(generated), self._text(prompt.suffix)
        )

    def _text(self, ids: Tensor) -> str:
        return str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=True))

    def _means(self, table: ScoreTable) -> dict[str, float]:
        figures = {}
        for column in self._columns():
            for part, rows in (("", table.members()), ("_heldout", table.nonmembers())):
                if len(rows):
                    figures[f"{self.group}/{column}{part}"] = rows[column].mean().item()
        members = table.members()
        if tokens := members["n_tokens"].sum().item():
            loss = -members["logprob"].sum().item() / tokens
            figures[f"{self.group}/generated_perplexity"] = math.exp(min(loss, 700))
        return figures
