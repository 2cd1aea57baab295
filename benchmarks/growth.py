"""How scoring, extraction and metrics scale with examples, sequence length and vocabulary: none faster than linearly.

A small LLaMA with random weights, created here, on random tokens; `--model` and similar options have no effect. Timed,
in turns, medians:

- scoring: grouping by length, collating, and the scoring pass with everything that the default callbacks read.
- forward pass: `model(input_ids).logits` of the same batches and the loss of each token. The baseline of scoring: it
  includes attention's quadratic cost.
- extraction: greedy decoding of the second half of each text from its first half.
- generate: Hugging Face's `generate` of the same, in padded batches of the same size. The baseline of extraction.
- metrics: the default attacks and measures of given scores, their AUROCs with DeLong's intervals, TPRs at low FPR, and
  the combined attack.

The exponent b is that of seconds = a · size^b: by least squares over all sizes (`all`), and over the last three
(`last three`), where fixed costs weigh least. "linear or less" is b of at most 1.1 there; "as the forward pass" (or "as
generate") at most 0.1 above that of what it is measured against. Scores, tokens and areas are checked against the plain
way of getting them.

    python -m benchmarks.growth
    python -m benchmarks.growth --out plots
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.setting import agree, device_of, machine, on_device, options, quieten, seconds
from benchmarks.table import Table, tell
from lit_mem.audit.loop import Audit, needs_of
from lit_mem.audit.measure import Measure, Pass
from lit_mem.audit.measures import Extractability, MembershipInference, Perplexity
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.data.encoding import Encoded, collate
from lit_mem.functional.length_groups import length_groups
from lit_mem.generation.decoding import Decoded, decode
from lit_mem.scoring.scorer import TokenScorer, scored_positions
from lit_mem.types import IGNORED, Batch, Needs, Record, TokenScores

SCORING_TOKENS, DECODING_TOKENS = 2048, 4096
AGAINST = {"scoring": "forward pass", "extraction": "generate"}
SLACK = 0.1


@dataclass(frozen=True)
class Sweep:
    """One of three sizes grows, the others are fixed.

    Attributes:
        axis: the growing one: "examples", "length" or "vocabulary".
        sizes: its values, ascending.
        examples: how many texts are scored; half of them members.
        prompted: number of them that are continued.
        length: tokens of each.
        vocabulary: number of tokens.
    """

    axis: str
    sizes: Sequence[int]
    examples: int = 64
    prompted: int = 16
    length: int = 32
    vocabulary: int = 4096

    def at(self, size: int) -> Sweep:
        """With only this size."""
        more = {"prompted": size} if self.axis == "examples" else {}
        return replace(self, sizes=[size], **{self.axis: size}, **more)  # type: ignore[arg-type]


def sweeps(args: argparse.Namespace) -> list[Sweep]:
    """All three."""
    return [
        Sweep("examples", _up_to(args.most, [100, 300, 1000, 3000])),
        Sweep("length", _up_to(args.longest, [32, 64, 128, 256, 512, 1024]), examples=32, prompted=8),
        Sweep("vocabulary", _up_to(args.widest, [1024, 4096, 16384, 65536, 131072]), examples=32, prompted=8),
    ]


def _up_to(most: int, sizes: list[int]) -> list[int]:
    return [size for size in sizes if size <= most]


def make_model(vocabulary: int, length: int) -> LlamaForCausalLM:
    """Two layers of width 64 with random weights, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=length,
            initializer_range=0.2,  # so that no two tokens are as likely but for rounding
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=0,
        )
        return LlamaForCausalLM(config).eval().requires_grad_(False)


def make_texts(sweep: Sweep) -> list[Encoded]:
    """Random tokens, always the same; every second text is a member."""
    generator = torch.Generator().manual_seed(0)
    texts = []
    for i in range(sweep.examples):
        ids = torch.randint(sweep.vocabulary, (sweep.length,), generator=generator)
        labels = ids.clone()
        labels[0] = IGNORED
        record = Record(" ".join(str(number) for number in ids.tolist()))
        texts.append(Encoded(ids, labels, i, member=i % 2 == 0, record=record))
    return texts


class Workload:
    """Everything that is timed at one size.

    Args:
        sweep: with one size.
        device: where the model runs.
    """

    def __init__(self, sweep: Sweep, device: torch.device) -> None:
        self.sweep, self.device = sweep, device
        self.model = make_model(sweep.vocabulary, sweep.length).to(device)
        self.scorer = TokenScorer(self.model)
        self.texts = make_texts(sweep)
        self.needs: Needs = needs_of(self._measures())
        self.prompts = [text.input_ids[: sweep.length // 2] for text in self.texts[: sweep.prompted]]
        self.new = sweep.length - sweep.length // 2
        self.scores = [self._with_reference(scores) for scores in self.scoring()]

    @staticmethod
    def _measures() -> list[Measure]:
        """Measures whose cost grows with the examples; without plots."""
        return [Perplexity(), MembershipInference(plots=False), Extractability()]

    def _with_reference(self, scores: TokenScores) -> TokenScores:
        """As if another model had scored the texts too."""
        noise = torch.randn(scores.logprob.shape, generator=torch.Generator().manual_seed(1)).to(self.device)
        return scores.with_reference((scores.logprob + noise).masked_fill(~scores.mask, 0), scores.hit)

    def batches(self) -> list[Batch]:
        """As a validation has them."""
        groups = length_groups([len(text.input_ids) for text in self.texts], SCORING_TOKENS)
        return [on_device(collate([self.texts[i] for i in group]), self.device) for group in groups]

    def scoring(self) -> list[TokenScores]:
        """The scoring pass."""
        return [self.scorer(batch, self.needs) for batch in self.batches()]

    @torch.no_grad()
    def forward_pass(self) -> float:
        """Sum of log-probabilities."""
        total = 0.0
        for batch in self.batches():
            before = scored_positions(batch)[:, 1:]
            logits = self.model(input_ids=batch["input_ids"], use_cache=False).logits[:, :-1][before]
            total -= F.cross_entropy(logits, batch["input_ids"][:, 1:][before], reduction="sum").item()
        return total

    def extraction(self) -> list[Decoded]:
        """Continuations."""
        return decode(self.model, self.prompts, [self.new] * len(self.prompts), None, token_budget=DECODING_TOKENS)

    @torch.no_grad()
    def generate(self) -> list[Tensor]:
        """The same by Hugging Face."""
        rows: list[Tensor] = []
        for batch in torch.split(torch.stack(self.prompts), max(1, DECODING_TOKENS // self.sweep.length)):
            ids = batch.to(self.device)
            mask = torch.ones_like(ids)
            whole = self.model.generate(ids, attention_mask=mask, max_new_tokens=self.new, do_sample=False)
            rows += whole[:, ids.shape[1] :].cpu()
        return rows

    def metrics(self) -> dict[str, float]:
        """All metrics of the scores."""
        audit, subject = Audit(self._measures()), ModelSubject(self.model, None)
        audit.begin(subject)
        for scores in self.scores:
            assert scores.batch is not None
            audit.observe(scores, scores.batch)
        return audit.finish(Pass(subject)).metrics

    def work(self) -> dict[str, Callable[[], object]]:
        """What is timed, by name; the metrics only in a sweep over examples."""
        timed = {
            "scoring": self.scoring,
            "forward pass": self.forward_pass,
            "extraction": self.extraction,
            "generate": self.generate,
            "metrics": self.metrics,
        }
        return timed  # type: ignore[return-value]

    def check(self) -> None:
        """Check all results against the plain computation; also the warm-up.

        Raises:
            RuntimeError: they differ.
        """
        total = sum(float(scores.total_logprob.sum()) for scores in self.scoring())
        agree(total, self.forward_pass(), "the sum of log-probabilities", tolerance=1e-5)
        for one, other in zip(self.extraction(), self.generate(), strict=True):
            if not torch.equal(one.ids, other):
                raise RuntimeError("the sides differ: extraction and generate gave different tokens")
        member = torch.cat([scores.member for scores in self.scores])
        loss = torch.cat([scores.total_logprob / scores.n_tokens for scores in self.scores])
        area = float(roc_auc_score(member.cpu(), loss))
        agree(self.metrics()["mia/loss_auroc"], area, "the AUROC of the loss attack", tolerance=1e-9)


def measure(sweep: Sweep, repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds by name, one for each size: medians, all sizes in turns."""
    times: dict[tuple[str, int], list[float]] = {}
    loads = {size: Workload(sweep.at(size), device) for size in sweep.sizes}
    for load in loads.values():
        load.check()
    for _ in range(repeats):
        for size, load in loads.items():
            for name, work in load.work().items():
                times.setdefault((name, size), []).append(seconds(work))
    names = dict.fromkeys(name for name, _ in times)
    return {name: [statistics.median(times[name, size]) for size in sweep.sizes] for name in names}


def exponent(sizes: Sequence[float], took: Sequence[float]) -> float:
    """The b of seconds = a · size^b by least squares on logarithms.

    >>> round(exponent([10, 100, 1000], [1, 100, 10000]), 6)
    2.0
    """
    x, y = [math.log(size) for size in sizes], [math.log(t) for t in took]
    return statistics.linear_regression(x, y).slope


def verdict(name: str, last: dict[str, float]) -> str:
    """Whether it grows no faster than linearly, or than its baseline; baselines have no verdict."""
    if name in AGAINST.values():
        return ""
    if last[name] <= 1 + SLACK:
        return "linear or less"
    control = AGAINST.get(name)
    if control is not None and last[name] <= last[control] + SLACK:
        return f"as the {control}" if control == "forward pass" else f"as {control}"
    return "FASTER THAN LINEAR"


def table(sweep: Sweep, found: dict[str, list[float]]) -> Table:
    """Seconds at each size, and exponents."""
    last = {name: exponent(sweep.sizes[-3:], took[-3:]) for name, took in found.items()}
    rows: list[list[Any]] = [
        [name, *took, exponent(sweep.sizes, took), last[name], verdict(name, last)] for name, took in found.items()
    ]
    fixed = {"examples": sweep.examples, "tokens a text": sweep.length, "words": sweep.vocabulary}
    fixed.pop({"examples": "examples", "length": "tokens a text", "vocabulary": "words"}[sweep.axis])
    title = f"seconds by {sweep.axis}; " + ", ".join(f"{value} {name}" for name, value in fixed.items())
    return Table(title, [sweep.axis, *map(str, sweep.sizes), "b, all", "b, last three", ""], rows)


def plot(sweep: Sweep, found: dict[str, list[float]], path: Path) -> None:
    """Seconds against size on log axes, with a line of slope 1."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for name, took in found.items():
        against = name in AGAINST.values()
        axes.plot(
            sweep.sizes,
            took,
            marker="o",
            label=name,
            linestyle=":" if against else "-",
            alpha=0.6 + 0.4 * (not against),
        )
    # From the first point of the costliest, so that it lies near the curves.
    top = max(took[0] for took in found.values())
    guide = [top * size / sweep.sizes[0] for size in sweep.sizes]
    axes.plot(sweep.sizes, guide, color="grey", linestyle="--", label="linear")
    axes.set(xscale="log", yscale="log", xlabel=sweep.axis, ylabel="seconds")
    axes.set_xticks(list(sweep.sizes), [f"{size:,}" for size in sweep.sizes])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def run(args: argparse.Namespace) -> list[Table]:
    """All tables; with `--out` the plots too."""
    quieten()
    made = []
    for sweep in sweeps(args):
        found = measure(sweep, args.repeats, device_of(args))
        made.append(table(sweep, found))
        if args.out is not None:
            plot(sweep, found, args.out / f"growth_{sweep.axis}.png")
    made[-1].notes.append(f"medians of {args.repeats}; {machine(device_of(args))}")
    return made


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = options(__doc__, repeats=5)
    made.add_argument("--most", type=int, default=3000, help="examples")
    made.add_argument("--longest", type=int, default=1024, help="tokens of a text")
    made.add_argument("--widest", type=int, default=131072, help="vocabulary")
    return made


def main() -> None:
    """Print the tables."""
    args = parser().parse_args()
    tell(args, "growth", run(args))


if __name__ == "__main__":
    main()
