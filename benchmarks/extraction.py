"""Time of generation, compared with the usual alternatives. One run, ratios only, all sides in turns.

The prompts are the first halves of members and held-out texts; all sides decode greedily and generate as many tokens as
the true suffix has. Ours is what `Extraction` does in a validation: it starts from the hits of the scoring pass, whose
time is not included, since a validation runs it anyway (see `python -m benchmarks.scoring`).

- generate, padded batches of 8: `model.generate` on the prompts in the order given, left-padded; a batch runs until its
  longest suffix is generated.
- generate, one at a time: `model.generate` on each prompt for as many tokens as its suffix has. Timed in the first
  round only.

Two states of the model, one after the other:

- before training: both the tuned model and its base are prompted, as at the start of a run. In `ours, base prompted
  too` the base's outputs are decoded although known, as for an adapter whose initial output differs from the base.
- memorized: an adapter on all linear layers is trained on the members until their loss is below 0.05 nats, or for
  `--epochs` (with few short texts the first tokens, which have little context, keep it above). The tuned model is
  prompted with members only, and with members and held-out texts. The base's outputs are cached from before.

All tokens are compared. Matrix products of different shapes round differently, so two tokens with logits equal up to
rounding may swap: every text that differs is counted, with the largest gap between the two tokens' logits, in a plain
forward pass, where the texts diverge.

    python -m benchmarks.extraction
    python -m benchmarks.extraction --model path/to/smollm2 --source PHEE --folder path/to/phee --rows 40 --lr 1e-3
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.setting import Setting, machine, on_device, parser, prepare, seconds
from benchmarks.table import Table, tell
from lit_mem.adapters import LoRA
from lit_mem.audit.measures import Extraction
from lit_mem.audit.model_subject import ModelSubject
from lit_mem.data.encoding import collate
from lit_mem.extraction.continuations import Candidate, Prompter
from lit_mem.guards import evaluation_mode
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.reference_scores import Reference
from lit_mem.types import Needs

Answers = dict[int, list[int]]
Side = Callable[[], list[Answers]]
BATCH = "generate, padded batches of 8"
SINGLE = "generate, one at a time"


def candidates(setting: Setting) -> dict[int, Candidate]:
    """The prompts, with the hits of a scoring pass, as the callback keeps them."""
    module, callback = setting.module, Extraction(n_members=None, n_heldout=None)
    callback.begin(ModelSubject(module.language_model, module.tokenizer))
    for batch in setting.batches:
        callback.observe(module.score(batch, Needs(reference=True)), batch)  # attacks need the reference
    return {i: at_one_length[0] for i, at_one_length in callback._seen.items()}


def ours(setting: Setting, prompted: dict[int, Candidate], base: bool, base_prompted: bool = False) -> list[Answers]:
    """Outputs of the tuned model, and optionally of its base."""
    prompter = Prompter(setting.module.tokenizer.eos_token_id, None, 4096)
    tuned = prompter.tuned(prompted, setting.module.language_model)
    answers = [tuned]
    if base:
        answers.append(prompter.base(prompted, setting.module, None if base_prompted else tuned))
    return [{i: decoded.ids.tolist() for i, decoded in each.items()} for each in answers]


def generated(model: nn.Module, prompted: dict[int, Candidate], size: int, eos: int) -> Answers:
    """`model.generate` in batches of this many prompts, left-padded, in the order given."""
    answers: Answers = {}
    items, device = list(prompted.items()), next(model.parameters()).device
    for start in range(0, len(items), size):
        part = items[start : start + size]
        width = max(c.prompt.cut for _, c in part)
        ids = torch.full((len(part), width), eos)
        mask = torch.zeros_like(ids)
        for row, (_, c) in enumerate(part):
            ids[row, width - c.prompt.cut :] = c.prompt.input_ids[: c.prompt.cut]
            mask[row, width - c.prompt.cut :] = 1
        longest = max(len(c.prompt.suffix) for _, c in part)
        generate: Any = model.generate
        new = generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), do_sample=False, max_new_tokens=longest,
            eos_token_id=eos, pad_token_id=eos,
        )[:, width:].tolist()  # fmt: skip
        for (i, c), row in zip(part, new, strict=True):
            row = row[: len(c.prompt.suffix)]
            answers[i] = row[: row.index(eos)] if eos in row else row
    return answers


def by_generate(setting: Setting, prompted: dict[int, Candidate], size: int, base: bool) -> list[Answers]:
    """The same answers by `model.generate`."""
    module, eos = setting.module, setting.module.tokenizer.eos_token_id
    with evaluation_mode(module.language_model):
        answers = [generated(module.language_model, prompted, size, eos)]
    if base:
        with module.reference_context() as model:
            answers.append(generated(model, prompted, size, eos))
    return answers


@torch.no_grad()
def gap(model: nn.Module, prompt: Tensor, left: list[int], right: list[int], eos: int) -> float:
    """Gap between the logits of two outputs' tokens where they first diverge."""
    left, right = [*left, eos], [*right, eos]
    at = next(k for k, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    ids = torch.cat([prompt, torch.tensor(left[:at], dtype=torch.int64)])[None].to(next(model.parameters()).device)
    logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    return abs(logits[left[at]] - logits[right[at]]).item()


def compare(setting: Setting, prompted: dict[int, Candidate], found: dict[str, list[Answers]]) -> list[str]:
    """Differences from the outputs of one prompt at a time, in words."""
    eos, notes = setting.module.tokenizer.eos_token_id, []
    for name, answers in found.items():
        gaps = []
        for k, expected in enumerate(found[SINGLE]):
            for i, candidate in prompted.items():
                if answers[k][i] != expected[i]:
                    prompt = candidate.prompt.input_ids[: candidate.prompt.cut]
                    with setting.module.reference_context() if k else evaluation_mode(setting.module.language_model):
                        gaps.append(gap(setting.module.language_model, prompt, answers[k][i], expected[i], eos))
        if name != SINGLE:
            n = len(prompted) * len(found[SINGLE])
            apart = f", with a logit gap of at most {max(gaps):.2g} where they diverge" if gaps else ""
            notes.append(f"{name}: {len(gaps)} of {n} outputs differ from those generated one at a time{apart}")
    return notes


def table(args: argparse.Namespace, setting: Setting, title: str, prompted: dict[int, Candidate], base: bool) -> Table:
    """Seconds and ratios of all sides."""
    sides: dict[str, Side] = {"ours": lambda: ours(setting, prompted, base)}
    if base:
        sides["ours, base prompted too"] = lambda: ours(setting, prompted, base, base_prompted=True)
    sides[BATCH] = lambda: by_generate(setting, prompted, 8, base)
    sides[SINGLE] = lambda: by_generate(setting, prompted, 1, base)
    found: dict[str, list[Answers]] = {}
    times: dict[str, list[float]] = {}
    ours(setting, dict(list(prompted.items())[:8]), base)  # warms up
    for turn in range(args.repeats):
        for name, side in sides.items():
            if name != SINGLE or turn == 0:
                times.setdefault(name, []).append(seconds(lambda: found.update({name: side()})))  # noqa: B023
    middle = {name: statistics.median(values) for name, values in times.items()}
    prompter = Prompter(None, None, 0)
    known = sum(prompter.known_length(c.hit) for c in prompted.values())
    wanted = sum(len(c.prompt.suffix) for c in prompted.values())
    whole = sum(bool(c.hit.all()) for c in prompted.values())
    return Table(
        f"{title}: {args.model}, {len(prompted)} prompts, {wanted} tokens to write, {known} of them known from the "
        f"scoring pass; {whole} texts known whole. {machine(setting.device)}. Medians of {args.repeats}",
        ["", "seconds", "÷ ours"],
        [[name, value, value / middle["ours"]] for name, value in middle.items()],
        compare(setting, prompted, found),
    )


def memorize(setting: Setting, args: argparse.Namespace) -> str:
    """Give the setting a module with an adapter everywhere, trained on the members only until its loss is low."""
    adapter = LoRA(rank=16, targets=["all-linear"], dropout=0.0)
    module = CausalLM(args.model, adapter=adapter, reference=Reference(cache=False))
    module.configure_model()
    module.to(setting.device)
    setting.module, members = module, setting.data.members
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=args.lr)
    generator = torch.Generator().manual_seed(0)
    mean, epochs = float("inf"), 0
    while mean >= 0.05 and epochs < args.epochs:
        losses = []
        for part in torch.randperm(len(members), generator=generator).split(8):
            batch = on_device(collate([members[int(i)] for i in part]), setting.device)
            assert module._scorer is not None
            loss = module._scorer.loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        mean, epochs = statistics.mean(losses), epochs + 1
    module.eval()
    module.language_model.eval()
    return f"LoRA of rank 16 on all linear layers, {epochs} epochs, loss {mean:.3f}"


def main() -> None:
    """Print the tables."""
    made = parser(__doc__, rows=100)
    made.add_argument("--state", choices=["before", "memorized"], help="one of the two; none: both")
    made.add_argument("--epochs", type=int, default=100, help="maximum epochs to memorize in")
    made.add_argument("--lr", type=float, default=3e-3, help="to memorize with")
    args = made.parse_args()
    setting = prepare(args)
    tables = []
    if args.state != "memorized":
        tables.append(table(args, setting, "before training", candidates(setting), base=True))
    if args.state != "before":
        how = memorize(setting, args)
        prompted = candidates(setting)
        members = {i: c for i, c in prompted.items() if c.member}
        tables.append(table(args, setting, f"memorized, members ({how})", members, base=False))
        tables.append(table(args, setting, f"memorized, members and held-out ({how})", prompted, base=False))
    tell(args, "extraction", tables)


if __name__ == "__main__":
    main()
