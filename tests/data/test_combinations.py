"""Every kind of source, loss, chunking and canaries: scores are those of a plain loop with `model(**x)`."""

import itertools
import random

import pytest
import torch
from datasets import Dataset, DatasetDict

from lit_mem.assets import chat_template
from lit_mem.data import TextDataModule
from lit_mem.data.canaries import Secrets
from lit_mem.data.chat.options import Chat
from lit_mem.data.chunk_options import Chunk

pytestmark = pytest.mark.slow

TOKENS, STRIDE = 64, 25
WORDS = ("rash", "fever", "nausea", "aspirin", "lithium", "day", "dose", "stopped", "came", "after")


def said(dice, n=9):
    return " ".join(dice.choices(WORDS, k=n)) + f" {dice.randrange(10**5)}."


def rows(form, seed, n=5):
    dice = random.Random(seed)
    if form == "text":
        return [{"text": said(dice, 60)} for _ in range(n)]
    if form == "pair":
        return [{"prompt": said(dice, 30) + " ", "completion": said(dice, 40)} for _ in range(n)]
    roles = ("user", "assistant") * 2
    return [{"messages": [{"role": role, "content": said(dice, 5)} for role in roles]} for _ in range(n)]


def expected(model, tokenizer, form, loss, row):
    """Token ids, and by position the log-probability of each token that is scored."""
    if form == "chat":
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False, chat_template=chat_template("chatml"))
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        contents, at = [], 0
        for message in row["messages"]:
            start = text.index(message["content"], at)
            at = start + len(message["content"])
            if message["role"] == "assistant":
                contents.append((start, at))
        contents = contents[-1:] if loss == "last" else contents
        overlaps = lambda a, b, spans: any(a < end and b > start for start, end in spans)  # noqa: E731
        inside = [overlaps(a, b, contents) for a, b in encoded["offset_mapping"]]
        last = contents[-1][1]
        scored = [a < last for a, _ in encoded["offset_mapping"]] if loss == "all" else inside
    else:
        prompt, completion = row.get("prompt", ""), row.get("completion", row.get("text"))
        encoded = tokenizer(prompt + completion, return_offsets_mapping=True)
        scored = [end > len(prompt) for _, end in encoded["offset_mapping"]]
    return encoded["input_ids"], [i for i, own in enumerate(scored) if own and i]


def windows(ids, bos, limit):
    """(positions, from where on tokens count): the whole text, or full windows that share all but `STRIDE` tokens."""
    if len(ids) <= limit:
        return [(list(range(len(ids))), 0)]
    head = int(ids[0] == bos)
    size, found, stop, counted = TOKENS - head, [], 0, 0
    while stop < len(ids):
        stop = min(len(ids), stop + STRIDE) if found else head + size
        found.append(([*range(head), *range(stop - size, stop)], counted))
        counted = stop
    return found


def logprobs(model, ids, positions):
    """By position, log p of the token given its context in the window."""
    one = torch.tensor([[ids[i] for i in positions]])
    with torch.no_grad():
        each = model(input_ids=one).logits[0, :-1].double().log_softmax(-1)
    return {position: each[i, ids[position]].item() for i, position in enumerate(positions[1:])}


@pytest.fixture(scope="module")
def made(module):
    tuned = module(rank=4, targets=["all-linear"])
    tuned.configure_model()
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    return tuned.eval()


CASES = [("text", "assistant"), ("pair", "assistant"), *(("chat", loss) for loss in ("assistant", "last", "all"))]


@pytest.mark.parametrize(("form", "loss"), CASES)
@pytest.mark.parametrize(("chunked", "with_canaries"), [*itertools.product([False, True], repeat=2)])
def test_scores_are_those_of_a_plain_loop(made, trainer, form, loss, chunked, with_canaries):
    sets = {"train": rows(form, 0), "heldout": rows(form, 1)}
    data = TextDataModule(
        DatasetDict({name: Dataset.from_list(some) for name, some in sets.items()}),
        max_length=TOKENS if chunked else 512,
        chunk=Chunk(TOKENS, STRIDE) if chunked else None,
        chat=Chat(loss, "asset:chatml" if form == "chat" else None),
        canaries=Secrets(n=4, templates=["PIN ####"], repetitions=[1]) if with_canaries else None,
        check=False,
        add_eos=False,
    )
    data.trainer = trainer([])
    data.trainer.strategy._lightning_module = made
    data.setup("validate")
    model, tokenizer = made.language_model, made.tokenizer
    given = dict(enumerate([*sets["train"], *sets["heldout"]]))
    seen = 0
    for loader in data.val_dataloader()[:2]:
        for batch in loader:
            scores = made.score(batch)
            for row, example_id in enumerate(batch["example_id"].tolist()):
                ids, scored = expected(model, tokenizer, form, loss, given[example_id])
                assert batch["input_ids"][row, : len(ids)].tolist() == ids
                assert scores.mask[row].nonzero().flatten().tolist() == scored
                wanted = {}
                for positions, counted in windows(ids, tokenizer.bos_token_id, data.max_length):
                    found = logprobs(model, ids, positions)
                    wanted |= {position: value for position, value in found.items() if position >= counted}
                mine = scores.logprob[row, scored].double()
                assert mine.tolist() == pytest.approx([wanted[position] for position in scored], abs=2e-4)
                assert bool(batch["member"][row]) == (example_id < len(sets["train"]))
                seen += 1
    assert seen == len(given)
    assert (data.documents == len(sets["train"])) == chunked
    trained = [int((example.labels != -100).sum()) for example in data.train]
    once = {}
    for example, n in zip(data.train, trained, strict=True):
        once[example.example_id] = once.get(example.example_id, 0) + n
    for example_id in range(len(sets["train"])):
        ids, scored = expected(model, tokenizer, form, loss, given[example_id])
        assert once[example_id] >= len(scored)
        assert once[example_id] <= len(ids) - 1
    assert len(data.canaries) == (4 if with_canaries else 0)
