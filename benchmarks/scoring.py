"""Speed of a validation's scoring pass, compared with the usual alternatives. One run, ratios only, all sides in turns.

Ours is the scoring pass of a validation with the default callbacks and all their metrics, without plots:

- first: the validation before training. The reference has no scores yet, and gets those of the tuned model, which is
  still bit-identical to it.
- first, trained: the same without a validation before training: the reference gets its own pass.
- cached: every validation after the first, and also the first one in a second run on the same texts.

Alternatives, which run both the tuned and the reference model at every epoch:

- research loop: `model(**x).loss` of one text at a time.
- padded: log-probabilities in batches of 8 in the order given, padded, with an attention mask.
- a pass a measure, one at a time / padded: one forward pass for each of loss, zlib, Min-K%, Min-K%++, exact
  memorization, extraction strength and (n, p), each with log-probabilities over the vocabulary, and one of the
  reference.

Lower bounds, for the tuned model only:

- packed: backbone and output layer over as many real tokens, without padding, in rows of 128, and nothing else: the
  speed of light of this model in this library.
- products: the time that this machine needs for as many multiplications in matrix products of the model's shapes.

    python -m benchmarks.scoring
    python -m benchmarks.scoring --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 100 --repeats 3
    python -m benchmarks.scoring --only cached packed
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.scoring_cost import default_measures, default_pass
from benchmarks.setting import (
    Setting,
    agree,
    device_of,
    flops_rate,
    machine,
    multiply_rate,
    multiplying,
    parser,
    prepare,
    seconds,
)
from benchmarks.table import Table, tell
from lit_mem.audit.loop import needs_of
from lit_mem.data.encoding import Encoded
from lit_mem.guards import evaluation_mode
from lit_mem.scoring.scorer import TokenScorer

MEASURES = 7
PACKED = 128
MINE = ("first", "first, trained", "cached")


def research_loop(model: nn.Module, examples: list[Encoded]) -> float:
    """One text at a time; the mean over texts of their loss."""
    losses = [model(input_ids=e.input_ids[None], labels=e.labels[None]).loss.item() for e in examples]
    return statistics.fmean(losses)


def padded(examples: list[Encoded], size: int) -> list[dict[str, Tensor]]:
    """Batches in the order given, padded on the right."""
    batches = []
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        ids = nn.utils.rnn.pad_sequence([e.input_ids for e in part], batch_first=True)
        scored = nn.utils.rnn.pad_sequence([e.scored for e in part], batch_first=True)
        lengths = torch.tensor([len(e.input_ids) for e in part], device=ids.device)
        attention = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).long()
        batches.append({"input_ids": ids, "attention_mask": attention, "scored": scored})
    return batches


def padded_pass(model: nn.Module, batches: list[dict[str, Tensor]]) -> float:
    """Log-probability of each token, all logits at once; their sum over scored tokens."""
    total = 0.0
    for batch in batches:
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        logprob = logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[:, :, 0]
        total += logprob[batch["scored"][:, 1:]].double().sum().item()
    return total


def packed_pass(model: nn.Module, packed: Tensor, rows: int) -> None:
    """Backbone and output layer, and nothing else."""
    for part in torch.split(packed, rows):
        model(input_ids=part, use_cache=False).logits.sum().item()


def sides(setting: Setting) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    module, examples, callbacks = setting.module, setting.examples, default_measures()
    needs = needs_of(callbacks)
    one, eight = padded(examples, 1), padded(examples, 8)
    ids = torch.cat([example.input_ids for example in examples])
    packed = ids[: len(ids) // PACKED * PACKED].view(-1, PACKED)

    def ours(trained: bool = True, known: bool = True) -> dict[str, float]:
        if not known:
            module.reference_cache.clear()
        module._scored.starts_as_base = not trained  # True: until a step is taken, the adapter is not computed
        return default_pass(module, setting.batches, callbacks, needs)

    def both(work: Callable[[nn.Module], float], times: int = 1) -> float:
        found = [work(module.language_model) for _ in range(times)]
        with module.reference_context() as reference:
            work(reference)
        return found[0]

    return {
        "first": lambda: ours(trained=False, known=False),
        "first, trained": lambda: ours(known=False),
        "cached": ours,
        "research loop": lambda: both(lambda model: research_loop(model, examples)),
        "padded": lambda: both(lambda model: padded_pass(model, eight)),
        "a pass a measure, one at a time": lambda: both(lambda model: padded_pass(model, one), MEASURES),
        "a pass a measure, padded": lambda: both(lambda model: padded_pass(model, eight), MEASURES),
        "packed": lambda: packed_pass(module.language_model, packed, 16),
    }


def computed(setting: Setting) -> int:
    """Tokens that a scoring pass computes, padding included; real ones are left out where nothing reads them."""
    total, scorer = 0, TokenScorer(setting.module.language_model)
    layer = scorer._parts[0].get_input_embeddings()  # type: ignore[index, operator]
    with_hook = layer.register_forward_hook(lambda _, inputs, output: sizes.append(inputs[0].numel()))
    sizes: list[int] = []
    for batch in setting.batches:
        scorer(batch)
        total += sizes[-1]
    with_hook.remove()
    return total


def check(setting: Setting) -> None:
    """Check that all sides have the same log-probabilities, up to rounding."""
    module = setting.module
    scored = [module.score(batch, needs_of([])) for batch in setting.batches]
    total = sum(scores.logprob.double().sum().item() for scores in scored)
    for size in (1, 8):
        other = padded_pass(module.language_model, padded(setting.examples, size))
        agree(total, other, f"the sum of log-probabilities in batches of {size}", 1e-5)


def measure(args: argparse.Namespace) -> list[Table]:
    """Time all sides in turns."""
    setting = prepare(args)
    times: dict[str, list[float]] = {}
    with evaluation_mode(setting.module.language_model):
        timed = sides(setting)
        check(setting)
        timed["first"]()  # warms up
        chosen = getattr(args, "only", None) or list(timed)
        for _ in range(args.repeats):
            for name in chosen:
                times.setdefault(name, []).append(seconds(timed[name]))
    parameters = multiplying(setting.module.language_model)
    real = sum(len(example.input_ids) for example in setting.examples)
    rate = multiply_rate(setting.module)
    times["products"] = [2 * parameters * real / rate]
    middle = {name: statistics.median(values) for name, values in times.items()}
    mine = [name for name in MINE if name in middle]
    notes = [
        f"{setting.tokens} tokens scored, {computed(setting) / real:.3f} tokens computed for each real one; "
        f"matrix products at {rate / 1e9:.0f} GFLOP/s."
    ]
    for name in mine[-1:]:
        notes.append(f"Ours ({name}) in effect at {flops_rate(parameters, real, middle[name]) / 1e9:.0f} GFLOP/s.")
    table = Table(
        f"Scoring: {args.model}, {len(setting.examples)} texts, medians of {args.repeats}, {machine(device_of(args))}",
        ["", "seconds", *(f"÷ {name}" for name in mine)],
        [[name, value, *(value / middle[side] for side in mine)] for name, value in middle.items()],
        notes,
    )
    return [table]


def main() -> None:
    """Print the table."""
    made = parser(__doc__, rows=100)
    made.add_argument("--only", nargs="*", help="time only these sides")
    args = made.parse_args()
    tell(args, "scoring", measure(args))


if __name__ == "__main__":
    main()
