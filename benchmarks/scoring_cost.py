"""What the default measures cost beside a scoring pass that computes the loss alone.

One run, ratios only. Both sides see the same batches of the same model, in turns, so that a busy machine slows both:

- plain: forward pass, output layer, log-probability of each token (`torch.nn.functional.cross_entropy`), their sums.
- default: what every validation of this project does with its default callbacks (perplexity, seven attacks and their
  combination, extractability, spans): the scoring pass with all that these read, and the figures computed from it.
  The reference scores are those of the first pass, from the cache, as from the second epoch on. Pictures and
  generation are left out: they run once a validation whatever its size.

    python -m benchmarks.scoring_cost --model asset:tiny_llama
    python -m benchmarks.scoring_cost --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 64
"""

from __future__ import annotations

import statistics

import torch
from torch.nn import functional as F

from benchmarks.setting import parser, prepare, seconds
from lit_mem.audit.loop import Audit, needs_of
from lit_mem.audit.measure import Measure, Pass
from lit_mem.audit.measures import Extractability, MembershipInference, Perplexity, SpanExtraction
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.guards import evaluation_mode
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.scorer import TokenScorer, scored_positions
from lit_mem.types import Batch, Needs


def default_measures() -> list[Measure]:
    """Those that read the scoring pass; pictures are left out."""
    return [Perplexity(), MembershipInference(figures=False), Extractability(), SpanExtraction()]


def plain_pass(model: torch.nn.Module, batches: list[Batch]) -> float:
    """Loss a token of all batches: one forward pass each, and nothing else."""
    scorer, total, tokens = TokenScorer(model), 0.0, 0
    for batch in batches:
        mask = scored_positions(batch)
        hidden, head = scorer._hidden(batch["input_ids"])
        logits = head(hidden[:, :-1][mask[:, 1:]]).float()
        target = batch["input_ids"][:, 1:][mask[:, 1:]]
        total += F.cross_entropy(logits, target, reduction="sum").item()
        tokens += len(target)
    return total / tokens


def default_pass(module: CausalLM, batches: list[Batch], measures: list[Measure], needs: Needs) -> dict[str, float]:
    """Metrics of the measures over all batches."""
    audit, subject = Audit(measures), ModelSubject(module.language_model, module.tokenizer)
    audit.begin(subject)
    for batch in batches:
        audit.observe(module.score(batch, needs), batch)
    return audit.finish(Pass(subject)).metrics


def main() -> None:
    """Print one line of ratios."""
    args = parser(__doc__, rows=300).parse_args()
    setting = prepare(args)
    module, batches, measures = setting.module, setting.batches, default_measures()
    needs = needs_of(measures)
    figures: dict[str, float] = {}
    plain, default = [], []
    with evaluation_mode(module.language_model):
        figures = default_pass(module, batches, measures, needs)  # fills the reference cache
        loss = plain_pass(module.language_model, batches)
        for _ in range(args.repeats):
            plain.append(seconds(lambda: plain_pass(module.language_model, batches)))
            default.append(seconds(lambda: default_pass(module, batches, measures, needs)))
    ratios = [d / p for d, p in zip(default, plain, strict=True)]
    print(  # noqa: T201
        f"{args.model}, {2 * args.rows} texts, {setting.tokens} tokens, {torch.get_num_threads()} threads: "
        f"default / plain {statistics.median(ratios):.3f} (least {min(ratios):.3f}, most {max(ratios):.3f}); "
        f"plain {statistics.median(plain):.2f} s; {len(figures)} figures, loss {loss:.3f} nats"
    )


if __name__ == "__main__":
    main()
