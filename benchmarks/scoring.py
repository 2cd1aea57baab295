"""How fast a validation scores, beside what people run otherwise. One run, ratios only, all sides in turns.

Ours is the scoring pass of a validation with the default callbacks and all their figures: `first` scores the tuned and
the reference model, `cached` has the reference's scores from before, as from the second validation on.

- research loop: `model(**x).loss` of one text at a time, tuned and reference model, at every epoch.
- padded: the same losses in batches of 8 in the order given, padded, with an attention mask.
- a pass a measure: in such batches one forward pass for each of loss, zlib, Min-K%, Min-K%++, exact memorization,
  extraction strength and (n, p), each with log-probabilities over the vocabulary, and one of the reference.
- speed of light: backbone and output layer over as many real tokens, packed without padding into rows of 128, and
  nothing else.

    python -m benchmarks.scoring
    python -m benchmarks.scoring --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 50 --repeats 3
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.scoring_cost import all_needs, default_callbacks, default_pass
from benchmarks.setting import Setting, parser, prepare, seconds
from lit_mem.data.encoding import Encoded
from lit_mem.guards import evaluation_mode
from lit_mem.reference import ReferenceCache

MEASURES = 7
PACKED = 128


def research_loop(model: nn.Module, examples: list[Encoded]) -> None:
    """One text at a time."""
    for example in examples:
        model(input_ids=example.input_ids[None], labels=example.labels[None]).loss.item()


def padded(examples: list[Encoded], size: int = 8) -> list[dict[str, Tensor]]:
    """Batches in the order given, padded on the right."""
    batches = []
    for start in range(0, len(examples), size):
        rows = [example.input_ids for example in examples[start : start + size]]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        batches.append({"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()})
    return batches


def padded_pass(model: nn.Module, batches: list[dict[str, Tensor]]) -> None:
    """Log-probability of each token, all logits at once."""
    for batch in batches:
        logits = model(**batch).logits[:, :-1].float()
        logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None]).sum().item()


def packed_pass(model: nn.Module, packed: Tensor, rows: int) -> None:
    """Backbone and output layer, and nothing else."""
    for part in torch.split(packed, rows):
        model(input_ids=part, use_cache=False).logits.sum().item()


def sides(setting: Setting) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    module, examples = setting.module, setting.examples
    callbacks = default_callbacks()
    needs, batches = all_needs(callbacks), padded(examples)
    ids = torch.cat([example.input_ids for example in examples])
    packed = ids[: len(ids) // PACKED * PACKED].view(-1, PACKED)

    def both(work: Callable[[nn.Module], None], tuned: int = 1) -> None:
        for _ in range(tuned):
            work(module.language_model)
        with module.reference_context() as reference:
            work(reference)

    def first() -> None:
        module.reference_cache = ReferenceCache()
        default_pass(module, setting.batches, callbacks, needs)

    return {
        "first": first,
        "cached": lambda: default_pass(module, setting.batches, callbacks, needs),
        "research loop": lambda: both(lambda model: research_loop(model, examples)),
        "padded": lambda: both(lambda model: padded_pass(model, batches)),
        "a pass a measure": lambda: both(lambda model: padded_pass(model, batches), MEASURES),
        "speed of light": lambda: packed_pass(module.language_model, packed, 16),
    }


def main() -> None:
    """Print a table of ratios."""
    args = parser(__doc__, rows=100).parse_args()
    setting = prepare(args)
    times: dict[str, list[float]] = {}
    with evaluation_mode(setting.module.language_model):
        timed = sides(setting)
        timed["first"]()  # warms up
        for _ in range(args.repeats):
            for name, work in timed.items():
                times.setdefault(name, []).append(seconds(work))
    middle = {name: statistics.median(values) for name, values in times.items()}
    lines = [
        f"{args.model}, {len(setting.examples)} texts, {setting.tokens} tokens, {torch.get_num_threads()} threads, "
        f"medians of {args.repeats}",
        f"{'':18} {'seconds':>8} {'÷ first':>8} {'÷ cached':>9}",
    ]
    for name, value in middle.items():
        lines.append(f"{name:18} {value:8.2f} {value / middle['first']:8.2f} {value / middle['cached']:9.2f}")
    print("\n".join(lines))  # noqa: T201


if __name__ == "__main__":
    main()
