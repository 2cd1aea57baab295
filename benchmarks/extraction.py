"""How long generation takes, beside what people run otherwise. One run, ratios only, all sides in turns.

The prompts are the first halves of members and held-out texts; all sides decode greedily and write as many tokens as
the true rest has. Ours is what a validation's `Extraction` does: it starts from the hits of the scoring pass, which is
not in its time, as a validation makes it anyway (`python -m benchmarks.scoring` has its cost).

- generate, padded batches of 8: `model.generate` on the prompts in the order given, padded on the left; a batch goes
  on until its longest rest is written.
- generate, one at a time: `model.generate` on each prompt for as many tokens as its rest has. Timed in the first round
  only.

Two states of the model, one after the other:

- before training: the tuned model and its base are both asked, as at the start of a run. `ours, base asked too` has
  the base's answers decoded although they are known, as they are not where an adapter starts from another place.
- memorized: an adapter on all linear layers is trained on the members until their loss is below 0.05 nats, or for
  `--epochs` (with few short texts the first tokens, before which too little stands, keep it above). The tuned model
  is asked, of members alone and of members and held-out texts. The base's answers are there from before.

All tokens are compared. Products of other shapes round otherwise, so that two tokens may change places where their
logits are the same but for rounding: every text that differs is counted, with the widest gap between the two tokens'
logits, in a plain forward pass, where they part.

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
    """What may be asked, with the hits of a scoring pass, as the callback keeps them."""
    module, callback = setting.module, Extraction(n_members=None, n_heldout=None)
    callback.begin(ModelSubject(module.language_model, module.tokenizer))
    for batch in setting.batches:
        callback.observe(module.score(batch, Needs(reference=True)), batch)  # the reference is what attacks ask for
    return {i: at_one_length[0] for i, at_one_length in callback._seen.items()}


def ours(setting: Setting, asked: dict[int, Candidate], base: bool, base_asked: bool = False) -> list[Answers]:
    """Answers of the tuned model, and of its base if asked for."""
    prompter = Prompter(setting.module.tokenizer.eos_token_id, None, 4096)
    tuned = prompter.tuned(asked, setting.module.language_model)
    answers = [tuned]
    if base:
        answers.append(prompter.base(asked, setting.module, None if base_asked else tuned))
    return [{i: decoded.ids.tolist() for i, decoded in each.items()} for each in answers]


def generated(model: nn.Module, asked: dict[int, Candidate], size: int, eos: int) -> Answers:
    """`model.generate` in batches of so many prompts, padded on the left, in the order given."""
    answers: Answers = {}
    items, device = list(asked.items()), next(model.parameters()).device
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


def by_generate(setting: Setting, asked: dict[int, Candidate], size: int, base: bool) -> list[Answers]:
    """The same answers by `model.generate`."""
    module, eos = setting.module, setting.module.tokenizer.eos_token_id
    with evaluation_mode(module.language_model):
        answers = [generated(module.language_model, asked, size, eos)]
    if base:
        with module.reference_context() as model:
            answers.append(generated(model, asked, size, eos))
    return answers


@torch.no_grad()
def gap(model: nn.Module, prompt: Tensor, left: list[int], right: list[int], eos: int) -> float:
    """Between the logits of two answers' tokens where they first part."""
    left, right = [*left, eos], [*right, eos]
    at = next(k for k, (a, b) in enumerate(zip(left, right, strict=False)) if a != b)
    ids = torch.cat([prompt, torch.tensor(left[:at], dtype=torch.int64)])[None].to(next(model.parameters()).device)
    logits = model(input_ids=ids, use_cache=False).logits[0, -1].float()
    return abs(logits[left[at]] - logits[right[at]]).item()


def compare(setting: Setting, asked: dict[int, Candidate], found: dict[str, list[Answers]]) -> list[str]:
    """What differs from the answers of one prompt at a time, in words."""
    eos, notes = setting.module.tokenizer.eos_token_id, []
    for name, answers in found.items():
        gaps = []
        for k, expected in enumerate(found[SINGLE]):
            for i, candidate in asked.items():
                if answers[k][i] != expected[i]:
                    prompt = candidate.prompt.input_ids[: candidate.prompt.cut]
                    with setting.module.reference_context() if k else evaluation_mode(setting.module.language_model):
                        gaps.append(gap(setting.module.language_model, prompt, answers[k][i], expected[i], eos))
        if name != SINGLE:
            n = len(asked) * len(found[SINGLE])
            told = f", their logits apart by at most {max(gaps):.2g} where they part" if gaps else ""
            notes.append(f"{name}: {len(gaps)} of {n} answers differ from those written one at a time{told}")
    return notes


def table(args: argparse.Namespace, setting: Setting, title: str, asked: dict[int, Candidate], base: bool) -> Table:
    """Seconds and ratios of all sides."""
    sides: dict[str, Side] = {"ours": lambda: ours(setting, asked, base)}
    if base:
        sides["ours, base asked too"] = lambda: ours(setting, asked, base, base_asked=True)
    sides[BATCH] = lambda: by_generate(setting, asked, 8, base)
    sides[SINGLE] = lambda: by_generate(setting, asked, 1, base)
    found: dict[str, list[Answers]] = {}
    times: dict[str, list[float]] = {}
    ours(setting, dict(list(asked.items())[:8]), base)  # warms up
    for turn in range(args.repeats):
        for name, side in sides.items():
            if name != SINGLE or turn == 0:
                times.setdefault(name, []).append(seconds(lambda: found.update({name: side()})))  # noqa: B023
    middle = {name: statistics.median(values) for name, values in times.items()}
    prompter = Prompter(None, None, 0)
    known = sum(prompter.known_length(c.hit) for c in asked.values())
    wanted = sum(len(c.prompt.suffix) for c in asked.values())
    whole = sum(bool(c.hit.all()) for c in asked.values())
    return Table(
        f"{title}: {args.model}, {len(asked)} prompts, {wanted} tokens to write, {known} of them known from the "
        f"scoring pass; {whole} texts known whole. {machine(setting.device)}. Medians of {args.repeats}",
        ["", "seconds", "÷ ours"],
        [[name, value, value / middle["ours"]] for name, value in middle.items()],
        compare(setting, asked, found),
    )


def memorize(setting: Setting, args: argparse.Namespace) -> str:
    """Give the setting a module with an adapter everywhere, trained on the members alone until its loss is low."""
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
    made.add_argument("--epochs", type=int, default=100, help="most epochs to memorize in")
    made.add_argument("--lr", type=float, default=3e-3, help="to memorize with")
    args = made.parse_args()
    setting = prepare(args)
    tables = []
    if args.state != "memorized":
        tables.append(table(args, setting, "before training", candidates(setting), base=True))
    if args.state != "before":
        how = memorize(setting, args)
        asked = candidates(setting)
        members = {i: c for i, c in asked.items() if c.member}
        tables.append(table(args, setting, f"memorized, members ({how})", members, base=False))
        tables.append(table(args, setting, f"memorized, members and held-out ({how})", asked, base=False))
    tell(args, "extraction", tables)


if __name__ == "__main__":
    main()
