"""Cost of the default measures, relative to a scoring pass that computes only the loss.

One run, ratios only. Both sides use the same batches of the same model, in turns, so that a busy machine slows both:

- plain: forward pass, output layer, log-probability of each token (`torch.nn.functional.cross_entropy`), their sums;
  texts share rows, as in ours.
- default: what every validation of this project does with its default callbacks (perplexity, seven attacks and their
  combination, extractability, spans): the scoring pass with everything that these read, and their metrics. The
  reference scores of the first pass come from the cache, as from the second epoch on. Plots and generation are not
  included: they run once per validation whatever its size.

    python -m benchmarks.scoring_cost --model asset:tiny_llama
    python -m benchmarks.scoring_cost --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 64
"""

from __future__ import annotations

import functools
import statistics

import torch
from torch.nn import functional as F

from benchmarks.setting import parser, prepare, seconds
from lit_mem.audit.loop import Audit, PassResult, needs_of
from lit_mem.audit.measure import Measure, Pass
from lit_mem.audit.measures import Extractability, MembershipInference, Perplexity, SpanExtraction
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.guards import evaluation_mode
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.scorer import TokenScorer, scored_positions
from lit_mem.types import Batch, Needs


def default_measures() -> list[Measure]:
    """The measures that read the scoring pass, without plots."""
    return [Perplexity(), MembershipInference(plots=False), Extractability(), SpanExtraction()]


def plain_pass(scorer: TokenScorer, batches: list[Batch]) -> float:
    """Loss per token of all batches: one forward pass each, with the texts laid out as in ours, and nothing else."""
    total, tokens = 0.0, 0
    for batch in batches:
        read, target, head = scorer._read(batch, scored_positions(batch))
        total += F.cross_entropy(head(read).float(), target, reduction="sum").item()
        tokens += len(target)
    return total / tokens


def default_pass(module: CausalLM, batches: list[Batch], measures: list[Measure], needs: Needs) -> dict[str, float]:
    """Metrics of the measures over all batches."""
    return measured_pass(module, batches, measures, needs).metrics


def measured_pass(module: CausalLM, batches: list[Batch], measures: list[Measure], needs: Needs) -> PassResult:
    """Results of the measures over all batches."""
    audit, subject = Audit(measures), _subject(module)
    audit.begin(subject)
    for batch in batches:
        audit.observe(module.score(batch, needs), batch)
    return audit.finish(Pass(subject))


@functools.lru_cache(1)
def _subject(module: CausalLM) -> ModelSubject:
    """Made once in a run, too."""
    return ModelSubject(module.language_model, module.tokenizer)


def main() -> None:
    """Print one line of ratios."""
    args = parser(__doc__, rows=300).parse_args()
    setting = prepare(args)
    module, batches, measures = setting.module, setting.batches, default_measures()
    module._scored.starts_as_base = False  # as after a step: the adapter is computed
    needs, scorer = needs_of(measures), TokenScorer(module.language_model)
    metrics: dict[str, float] = {}
    plain, default = [], []
    with evaluation_mode(module.language_model):
        metrics = default_pass(module, batches, measures, needs)  # fills the reference cache
        loss = plain_pass(scorer, batches)
        for _ in range(args.repeats):
            plain.append(seconds(lambda: plain_pass(scorer, batches)))
            default.append(seconds(lambda: default_pass(module, batches, measures, needs)))
    ratios = [d / p for d, p in zip(default, plain, strict=True)]
    print(  # noqa: T201
        f"{args.model}, {2 * args.rows} texts, {setting.tokens} tokens, {torch.get_num_threads()} threads: "
        f"default / plain {statistics.median(ratios):.3f} (least {min(ratios):.3f}, most {max(ratios):.3f}); "
        f"plain {statistics.median(plain):.2f} s; {len(metrics)} metrics, loss {loss:.3f} nats"
    )


if __name__ == "__main__":
    main()
