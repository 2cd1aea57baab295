"""Training step, scoring pass and extraction of a model with random weights: parts of `benchmarks.gpu`."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.extraction import gap
from benchmarks.gpu_setting import (
    Session,
    attention_mask,
    autocast,
    batches_in_order,
    built,
    random_texts,
    trainable,
    validation_batches,
)
from benchmarks.scaling_check import BUDGET, set_checkpointing, within_budget
from benchmarks.setting import agree
from benchmarks.table import Cell, Table
from lit_mem.data.encoding import Encoded
from lit_mem.generation.decoding import decode
from lit_mem.guards import evaluation_mode
from lit_mem.lightning.module import CausalLM
from lit_mem.types import Batch, Needs

FLASH: Final = "flash_attention_2"
KERNELS: Final = ("sdpa", FLASH)
COMPUTED: Final = ["", "seconds", "tokens/s", "TFLOP/s", "share of the device's rate", "peak GiB"]
READ: Final = ["", "seconds", "tokens/s", "GB/s of weights", "share of bandwidth", "share equal", "peak GiB"]


def without(kernel: str) -> str | None:
    """Why an attention kernel cannot run here, in one line; None if it can."""
    if kernel != FLASH:
        return None
    if importlib.util.find_spec("flash_attn") is None:
        return f"{FLASH}: not measured, as the package flash_attn is not installed (pip install flash-attn)"
    from transformers.utils import is_flash_attn_2_available

    if not torch.cuda.is_available() or not is_flash_attn_2_available():
        return f"{FLASH}: not measured, as flash_attn is installed, but transformers cannot use it on this device"
    return None


def read_tokens(texts: Sequence[Encoded]) -> int:
    """Tokens whose hidden state is needed: all except the last of each text."""
    return sum(len(text.input_ids) - 1 for text in texts)


def lengths_of_texts(session: Session) -> dict[str, int]:
    """The shortest text of each set, by the set's name: all of one length, and of many."""
    longest = session.args.length
    return {f"{longest} tokens": longest, f"{max(4, longest // 8)} to {longest} tokens": max(4, longest // 8)}


# -- training ----------------------------------------------------------------------------------------------


def training(session: Session) -> Table:
    """A training step: ours, ours with gradient checkpointing, and padded with an attention mask.

    Raises:
        RuntimeError: the losses differ.
    """
    args, module, rows = session.args, built(session.args), []
    module.train()
    for name, shortest in lengths_of_texts(session).items():
        texts = random_texts(args.batch, shortest, args.length, session.shape.vocabulary)
        (batch,) = batches_in_order(texts, len(texts), session.device)
        mask, tokens = attention_mask(batch), read_tokens(texts)

        def ours(batch: Batch = batch) -> Tensor:
            assert module._scorer is not None
            return module._scorer.loss(batch)

        def padded(batch: Batch = batch, mask: Tensor = mask) -> Tensor:
            model: Any = module.language_model
            loss: Tensor = model(
                input_ids=batch["input_ids"], attention_mask=mask, labels=batch["labels"], use_cache=False
            ).loss
            return loss

        with evaluation_mode(module), autocast(args):
            tolerance = 1e-4 if session.exact else 1e-2
            agree(ours().item(), padded().item(), f"the loss of texts of {name}", tolerance)
        for side, loss, checkpointing in (
            ("ours", ours, False),
            ("ours, checkpointed", ours, True),
            ("padded", padded, False),
        ):
            set_checkpointing(module, checkpointing)
            step = step_of(module, args, loss)
            operations = 4 * session.shape.multiplied * tokens
            rows.append(session.computed(f"{side}, {name}", operations, tokens, step))
        set_checkpointing(module, False)
    title = f"Training step of {args.batch} texts, LoRA and AdamW; 4 operations a parameter and real token"
    return Table(title, COMPUTED, rows)


def step_of(module: CausalLM, args: Any, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """One step with AdamW in the precision of a trainer."""
    optimizer = torch.optim.AdamW(trainable(module), lr=1e-5)

    def step() -> None:
        with autocast(args):
            found = loss()
        found.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


# -- scoring -----------------------------------------------------------------------------------------------


def padded_pass(model: nn.Module, batches: Sequence[tuple[Batch, Tensor]]) -> Tensor:
    """Log-probability of each token from batches with attention masks, all logits at once; () float64, their sum."""
    total = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
    with torch.no_grad():
        for batch, mask in batches:
            ids = batch["input_ids"]
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
            logprob = logits.log_softmax(-1).gather(2, ids[:, 1:, None])[:, :, 0]
            total += logprob[batch["scored"][:, 1:]].double().sum()
    return total


def our_pass(module: CausalLM, batches: Sequence[Batch]) -> Tensor:
    """The same by the scorer of a validation, which also finds the greedy hits."""
    assert module._scorer is not None
    found = [module._scorer(batch, Needs()) for batch in batches]
    return torch.stack([scores.logprob.double().sum() for scores in found]).sum()


def scoring(session: Session, kernel: str) -> Table:
    """A scoring pass with one attention kernel: ours, and padded.

    Raises:
        RuntimeError: the sums of log-probabilities differ.
    """
    args, module, rows = session.args, built(session.args, kernel), []
    for name, shortest in lengths_of_texts(session).items():
        texts = random_texts(args.rows, shortest, args.length, session.shape.vocabulary)
        plain = [(batch, attention_mask(batch)) for batch in batches_in_order(texts, args.batch, session.device)]
        batches = validation_batches(texts, args.scoring_tokens, session.device)
        sides: dict[str, Callable[[], Tensor]] = {
            "ours": lambda batches=batches: our_pass(module, batches),  # type: ignore[misc]
            f"padded, batches of {args.batch}": lambda plain=plain: padded_pass(module.language_model, plain),  # type: ignore[misc]
        }
        tokens = read_tokens(texts)
        with evaluation_mode(module), autocast(args):
            found = [side().item() for side in sides.values()]
            what = f"the sum of log-probabilities of texts of {name} with {kernel}"
            agree(*found, what, 1e-5 if session.exact else 1e-3)
            for side, work in sides.items():
                operations = 2 * session.shape.multiplied * tokens
                rows.append(session.computed(f"{side}, {name}", operations, tokens, work))
    packs = bool(module._scorer and module._scorer._packs)
    title = f"Scoring pass of {args.rows} texts, {kernel}; 2 operations a parameter and real token"
    note = f"{kernel}: texts {'may share' if packs else 'do not share'} a row."
    return Table(title, COMPUTED, rows, [note])


# -- extraction --------------------------------------------------------------------------------------------


def generated(
    model: nn.Module, prompts: Sequence[Tensor], lengths: Sequence[int], groups: Sequence[Sequence[int]]
) -> list[list[int]]:
    """`model.generate` on these groups of prompts, left-padded, without an end token."""
    device = next(model.parameters()).device
    answers: dict[int, list[int]] = {}
    for group in groups:
        width, most = max(len(prompts[i]) for i in group), max(lengths[i] for i in group)
        ids = torch.zeros((len(group), width), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(group):
            ids[row, width - len(prompts[i]) :] = prompts[i]
            mask[row, width - len(prompts[i]) :] = 1
        generate: Any = model.generate
        new = generate(
            input_ids=ids.to(device), attention_mask=mask.to(device), do_sample=False, max_new_tokens=most,
            eos_token_id=None, pad_token_id=0,
        )[:, width:].tolist()  # fmt: skip
        answers |= {i: row[: lengths[i]] for i, row in zip(group, new, strict=True)}
    return [answers[i] for i in range(len(prompts))]


def extraction(session: Session) -> Table:
    """Greedy decoding of the second halves of texts: `decode`, and `generate`.

    Raises:
        RuntimeError: outputs diverge by more than rounding.
    """
    args, module = session.args, built(session.args)
    shortest = list(lengths_of_texts(session).values())[-1]
    texts = random_texts(args.prompts, shortest, args.length, session.shape.vocabulary, seed=1)
    prompts = [text.input_ids[: len(text.input_ids) // 2] for text in texts]
    lengths = [len(text.input_ids) - len(text.input_ids) // 2 for text in texts]
    large, order = within_budget(prompts, lengths), range(len(prompts))
    eights = [list(order[start : start + args.batch]) for start in order[:: args.batch]]
    model = module.language_model
    sides: dict[str, Callable[[], list[list[int]]]] = {
        "ours": lambda: [each.ids.tolist() for each in decode(model, prompts, lengths, None, None, BUDGET)],
        "generate, batches of as many tokens": lambda: generated(model, prompts, lengths, large),
        f"generate, batches of {args.batch}": lambda: generated(model, prompts, lengths, eights),
    }
    rows: list[list[Cell]] = []
    notes, found = [], {}
    with evaluation_mode(model), autocast(args):
        for name, work in sides.items():
            took, peak = session.median(lambda: found.update({name: work()}))  # noqa: B023
            steps = calls(model, work)
            rate = steps * session.shape.multiplied * (4 if session.exact else 2) / took
            row: list[Cell] = [name, took, sum(lengths) / took, rate / 1e9, rate / session.rates.bandwidth, None, peak]
            rows.append(row)
            if name == "ours":
                continue
            row[READ.index("share equal")], furthest = compare(model, prompts, found["ours"], found[name])
            check_gap(session, furthest)
            if furthest:
                apart = f"{name}: where outputs first diverge, the two tokens' logits differ by {furthest:.3g} at most."
                notes.append(apart)
    title = f"Extraction: {args.prompts} prompts, {sum(lengths)} tokens to write. Each call reads all weights once"
    return Table(title, READ, rows, notes)


def calls(model: Any, work: Callable[[], object]) -> int:
    """How often the model is called, and so reads its weights."""
    count = [0]
    hook = model.get_base_model().model.register_forward_pre_hook(lambda *_: count.append(1))
    work()
    hook.remove()
    return sum(count)


def compare(
    model: nn.Module, prompts: Sequence[Tensor], left: Sequence[list[int]], right: Sequence[list[int]]
) -> tuple[float, float]:
    """Share of tokens before the outputs of a prompt diverge, and the largest logit gap where they do; 0 if never."""
    same, gaps = 0, [0.0]
    for prompt, one, other in zip(prompts, left, right, strict=True):
        agree(len(one), len(other), "the number of tokens of an output")
        at = next((k for k, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
        same += at
        if at < len(one):
            gaps.append(gap(model, prompt, one, other, -1))
    return same / sum(map(len, left)), max(gaps)


def check_gap(session: Session, furthest: float) -> None:
    """Check that outputs diverge only where two logits are equal up to rounding.

    Raises:
        RuntimeError: they diverge elsewhere.
    """
    limit = 1e-3 if session.exact else 0.25
    if not furthest <= limit:
        raise RuntimeError(
            f"where outputs of decode and generate diverge, the tokens' logits differ by {furthest:.3g}; "
            f"expected at most {limit}, which is rounding in {session.args.dtype}"
        )
