"""Scored texts are the trained ones: compared with a plain loop over the trainer's own collated rows."""

from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from transformers import (
    DataCollatorForLanguageModeling,
    DataCollatorForSeq2Seq,
    DataCollatorWithFlattening,
)

from lit_mem.data.encoding import Encoder
from lit_mem.data.sources.given import given_set
from lit_mem.data.tokenized import encoded, texts_of_batch
from lit_mem.errors import ConfigError
from lit_mem.hf.all_texts import all_texts
from lit_mem.hf.trainers_texts import copies_in, heldout_of, members_of
from lit_mem.models.hub import load_tokenizer
from tests.hf.conftest import TINY, tokenized

pytestmark = pytest.mark.slow

CHAT = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


def chat_tokenizer():
    tokenizer = load_tokenizer(TINY)
    tokenizer.chat_template = CHAT
    return tokenizer


def rows_of(kind, texts):
    if kind == "text":
        return [{"text": text} for text in texts]
    if kind == "pair":
        return [{"prompt": text[:40], "completion": text[40:]} for text in texts]
    turns = [[("user", text[:40]), ("assistant", text[40:])] for text in texts]
    return [{"messages": [{"role": role, "content": content} for role, content in one]} for one in turns]


@torch.no_grad()
def plain_losses(trainer, loader):
    """Mean loss of each text over its labelled tokens, without the final end-of-text token; in the rows' order.

    Each row is collated and passed to the model like in the trainer. In a packed row, texts start where positions do.
    """
    model, end = trainer.model.eval(), trainer.processing_class.eos_token_id
    found = []
    for i in range(len(loader.dataset)):
        batch = dict(loader.collate_fn([loader.dataset[i]]))
        ids, labels = batch["input_ids"][0], batch.pop("labels")[0]
        logprobs = model(**batch).logits[0, :-1].float().log_softmax(-1)
        starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist() if "position_ids" in batch else [0]
        for a, b in zip(starts, [*starts[1:], len(ids)], strict=True):
            real = [t for t in range(a, b) if "attention_mask" not in batch or batch["attention_mask"][0, t]]
            kept = [t for t in real[1:] if labels[t] != -100]
            if kept[-1] == real[-1] and ids[kept[-1]] == end:
                kept.pop()
            found.append(-sum(float(logprobs[t - 1, ids[t]]) for t in kept) / len(kept))
    return found


def check_scored(trainer, callback, scored):
    """Equal to float32 rounding; in 16 bits, as near to the losses in float32 as the trainer's own forward is."""
    table = scored(callback)
    losses, member = -torch.as_tensor(table["mia/loss"]).double(), torch.as_tensor(table.member)
    for part, loader in ((member, trainer.get_train_dataloader()), (~member, trainer.get_eval_dataloader())):
        expected, within = torch.tensor(plain_losses(trainer, loader), dtype=torch.float64), 3e-6
        if trainer.args.bf16:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(trainer.model, "forward", trainer.model._original_forward)  # no autocast
                exact = torch.tensor(plain_losses(trainer, loader), dtype=torch.float64)
            within, expected = 2 * float((expected - exact).abs().max()), exact
            assert 0 < within < 0.01
        torch.testing.assert_close(losses[part], expected, rtol=0, atol=within)


FORMS = [
    ("text", {}),
    ("text", {"max_length": 20}),
    ("pair", {}),
    ("pair", {"completion_only_loss": False}),
    ("chat", {"assistant_only_loss": True, "max_length": 64}),
    ("chat", {}),
    ("text", {"packing": True, "max_length": 128}),
    ("text", {"packing": True, "max_length": 128, "eval_packing": False}),
    ("text", {"packing": True, "packing_strategy": "bfd_split", "max_length": 40}),
    ("text", {"padding_free": True, "max_length": None}),
    ("text", {"activation_checkpointing": True}),
    ("text", {"bf16": True}),
    ("text", {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}),
]
QUICK, USUAL = {0}, {2, 4, 6, 11}
MARKS = {True: (pytest.mark.slow,), False: (pytest.mark.slow, pytest.mark.exhaustive)}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "settings"),
    [pytest.param(*form, marks=() if i in QUICK else MARKS[i in USUAL]) for i, form in enumerate(FORMS)],
    ids=lambda value: value if isinstance(value, str) else "+".join(value) or "plain",
)
def test_trl_texts_are_scored_as_they_are_trained_on(
    sft, callback, scored, member_texts, heldout_texts, kind, settings
):
    measured = callback()
    tokenizer = chat_tokenizer() if kind == "chat" else load_tokenizer(TINY)
    trainer = sft(rows_of(kind, member_texts), rows_of(kind, heldout_texts), measured, tokenizer=tokenizer, **settings)
    trainer.train()
    check_scored(trainer, measured, scored)


def tokens_with_labels(tokenizer, texts):
    rows = [tokenizer(text)["input_ids"][:40] for text in texts]
    return Dataset.from_list([{"input_ids": ids, "labels": [-100] * 9 + ids[9:]} for ids in rows])


@pytest.mark.slow
@pytest.mark.parametrize(
    "form",
    [
        "left",
        "pad_is_eos",
        "flattening",
        *(pytest.param(one, marks=pytest.mark.exhaustive) for one in ("seq2seq", "all_columns", "by_length")),
    ],
)
def test_collated_rows_of_a_plain_trainer_are_scored_as_they_are(
    trainer, callback, scored, member_texts, heldout_texts, form
):
    tokenizer, measured = load_tokenizer(TINY), callback()
    rows, settings = (tokenized(tokenizer, member_texts), tokenized(tokenizer, heldout_texts)), {}
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    if form == "left":
        tokenizer.padding_side = "left"
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False, pad_to_multiple_of=16)
    elif form == "pad_is_eos":
        tokenizer.pad_token = tokenizer.eos_token
        ended = [[text + tokenizer.eos_token for text in texts] for texts in (member_texts, heldout_texts)]
        rows = [tokenized(tokenizer, texts, 200) for texts in ended]
    elif form == "seq2seq":
        collator = DataCollatorForSeq2Seq(tokenizer, padding=True)
        rows = [tokens_with_labels(tokenizer, texts) for texts in (member_texts, heldout_texts)]
    elif form == "flattening":
        collator = DataCollatorWithFlattening()
    elif form == "all_columns":
        settings = {"remove_unused_columns": False}
    else:
        settings = {"train_sampling_strategy": "group_by_length"}
    made = trainer(measured, train=rows[0], heldout=rows[1], collator=collator, tokenizer=tokenizer, **settings)
    made.train()
    check_scored(made, measured, scored)


@pytest.mark.slow
def test_scores_equal_those_of_texts_that_lit_mem_encodes(sft, callback, scored, member_texts, heldout_texts):
    """TRL appends an end-of-text token to a text, and so does `data.add_eos`: neither is scored."""
    measured = callback()
    trainer = sft(rows_of("pair", member_texts), rows_of("pair", heldout_texts), measured, max_length=128)
    trainer.train()
    encoder = Encoder(trainer.processing_class, 128, add_eos=True)
    examples = encoder(given_set(rows_of("pair", member_texts), "members"), 0, True, "members")
    mine = members_of(trainer, None, 0, 0)
    assert [one.input_ids.tolist() for one in mine] == [one.input_ids.tolist() for one in examples]
    assert [one.labels.tolist() for one in mine] == [one.labels.tolist() for one in examples]
    assert [one.appended for one in mine] == [one.appended for one in examples] == [1] * len(mine)


def test_a_sample_is_seeded_and_in_the_rows_order(trainer):
    made = trainer()
    drawn = [[one.record.origin for one in members_of(made, 5, seed, 7)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    numbers = [int(origin.removeprefix("train_dataset:")) for origin in drawn[0]]
    assert numbers == sorted(numbers)
    assert [one.example_id for one in members_of(made, 5, 0, 7)] == list(range(7, 12))


def test_the_trainer_is_left_as_it_was(trainer):
    made = trainer(dataloader_num_workers=1, dataloader_persistent_workers=True)
    state = torch.get_rng_state()
    members_of(made, None, 0, 0), heldout_of(made, None, 0, 16)
    assert torch.equal(torch.get_rng_state(), state)
    assert made.accelerator._dataloaders == []
    assert getattr(made, "_eval_dataloaders", {}) == {}


def test_of_several_evaluation_sets_the_first_is_held_out(trainer, heldout_texts):
    tokenizer = load_tokenizer(TINY)
    sets = {"a": tokenized(tokenizer, heldout_texts[:3]), "b": tokenized(tokenizer, heldout_texts[3:])}
    found = heldout_of(trainer(heldout=sets), None, 0, 0)
    assert [one.record.origin for one in found] == [f"eval_dataset['a']:{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda t, rows: {"heldout": []}, "no eval_dataset, and heldout is not given"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                (lambda t, rows: {"train": rows.to_iterable_dataset(), "max_steps": 2}, "train_dataset is a stream"),
                (lambda t, rows: {"collator": lambda rows: {"input_ids": torch.zeros(1, 4)}}, "no labels for"),
            ]
        ),
    ],
)
def test_what_cannot_be_sampled_is_named_before_training(trainer, callback, member_texts, make, named):
    tokenizer = load_tokenizer(TINY)
    settings = {"eval_strategy": "no"} | make(tokenizer, tokenized(tokenizer, member_texts))
    with pytest.raises(ConfigError, match=named):
        trainer(callback(), **settings).train()


@pytest.mark.slow
def test_pieces_of_wrapped_packing_are_no_texts(sft, callback, member_texts, heldout_texts):
    rows = rows_of("text", member_texts), rows_of("text", heldout_texts)
    trainer = sft(*rows, callback(), packing=True, packing_strategy="wrapped", eval_packing=False)
    with pytest.raises(ConfigError, match="packing_strategy is 'wrapped', which cuts the texts of train_dataset"):
        trainer.train()
    assert len(heldout_of(trainer, None, 0, 0)) == len(heldout_texts)


@pytest.mark.slow
def test_given_texts_take_the_place_of_sets_that_cannot_be_sampled(trainer, callback, scored, member_texts):
    tokenizer = load_tokenizer(TINY)
    stream = tokenized(tokenizer, member_texts).to_iterable_dataset()
    measured = callback(members=member_texts[:5], heldout=[{"prompt": "a b", "completion": " c d e"}] * 4)
    trainer(measured, train=stream, heldout=[], eval_strategy="no", max_steps=4).train()
    assert len(scored(measured).member) == 9
    assert measured.live.step == 4


IDS = torch.tensor([[1, 5, 6, 1, 7, 8, 9, 0]])
LABELS = torch.tensor([[1, 5, 6, 1, 7, 8, 9, -100]])
NUMBERS = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0]])
PAIRS = (NUMBERS[:, None, :, None] == NUMBERS[:, None, None, :]).tril() & (NUMBERS > 0)[:, None, :, None]


@pytest.mark.parametrize(
    "extra",
    [
        {"attention_mask": NUMBERS},
        {"attention_mask": PAIRS},
        {"attention_mask": torch.where(PAIRS, 0.0, -1e9)},
        {"attention_mask": PAIRS.int()},
        {"position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]])},
        {"position_ids": torch.tensor([[2, 3, 4, 2, 3, 4, 5, 0]]), "attention_mask": (NUMBERS > 0).int()},
    ],
    ids=["numbered", "pairs", "added", "ones", "positions", "positions_from_2"],
)
def test_packed_texts_are_kept_apart(extra):
    texts = [
        ids.tolist()
        for ids, labels in texts_of_batch({"input_ids": IDS, "labels": LABELS} | extra)
        if (labels[1:] != -100).any()
    ]
    assert texts == [[1, 5, 6], [1, 7, 8, 9]]


@pytest.mark.slow
def test_copies_of_a_member_are_counted_in_the_whole_set_and_scored_once(trainer, callback, member_texts):
    rows = tokenized(load_tokenizer(TINY), [*member_texts[:4], member_texts[0], member_texts[0]])
    for form in (None, "torch"):
        measured = callback()
        made = trainer(measured, train=rows.with_format(form), max_steps=1, eval_strategy="no")
        made.train()
        run = measured.live._run
        assert run.scored.members == 4
        assert sorted(run.records[i].duplicates for i in range(4)) == [0, 0, 0, 2]


def test_copies_in_packed_rows_and_in_a_list_are_counted_like_those_in_rows():
    args, plain = SimpleNamespace(), [[1, 2], [3], [1, 2], [4, 5]]
    sets = [
        Dataset.from_dict({"input_ids": plain}),
        Dataset.from_dict({"input_ids": [[1, 2, 3], [1, 2, 4, 5]], "seq_lengths": [[2, 1], [2, 2]]}),
        [{"input_ids": torch.tensor(ids)} for ids in plain],
    ]
    for rows in sets:
        found = copies_in(SimpleNamespace(train_dataset=rows, args=args))
        assert found == {(1, 2): 2, (3,): 1, (4, 5): 1}
    cut = SimpleNamespace(packing=True, packing_strategy="wrapped")
    assert copies_in(SimpleNamespace(train_dataset=sets[0], args=cut)) is None


@pytest.mark.parametrize(
    ("end", "appended"),
    [("</s>", 1), ("</s>\n", 2), ("</s> x", 0), ("", 0)],
)
def test_what_a_template_puts_at_the_end_is_not_scored(tokenizer, end, appended):
    ids = torch.tensor(tokenizer("One two three." + end)["input_ids"])
    made = encoded(ids, ids.clone(), tokenizer, 0, True, "row")
    whole = made.labels != -100
    assert made.appended == (len(ids) - ids.tolist().index(2) if appended else 0)
    assert (appended > 0) == (made.appended > 0)
    assert made.scored.sum() == whole.sum() - made.appended


def test_a_text_that_is_nothing_but_its_end_is_scored(tokenizer):
    ids = torch.tensor([1, 2])
    assert encoded(ids, ids, tokenizer, 0, True, "row").scored.tolist() == [False, True]


# -- all texts, scored or not --------------------------------------------------------------------------------


def all_of(rows, tokenizer, member=True, **args):
    options = SimpleNamespace(**({"packing": False} | args))
    sets = {"train_dataset": rows, "eval_dataset": {"first": rows}}
    return all_texts(SimpleNamespace(args=options, processing_class=tokenizer, **sets), member, args.get("others", ()))


@pytest.mark.parametrize("member", [True, False])
def test_all_tokenized_texts_are_read_packed_or_not(member_texts, tokenizer, member):
    ids = tokenizer(member_texts[:5])["input_ids"]
    plain = all_of(Dataset.from_dict({"input_ids": ids}), tokenizer, member)
    rows = {
        "input_ids": [ids[0] + ids[1] + ids[2], ids[3] + ids[4]],
        "seq_lengths": [[len(i) for i in ids[:3]], [len(i) for i in ids[3:]]],
    }
    packed = all_of(Dataset.from_dict(rows), tokenizer, member, packing=True, packing_strategy="bfd")
    for found in (plain, packed):
        assert list(found) == list(found) == member_texts[:5]
        assert len(found) == 5
        assert member_texts[0] in found


def test_texts_that_cannot_be_separated_are_unknown(member_texts, tokenizer):
    rows = Dataset.from_dict({"input_ids": tokenizer(member_texts)["input_ids"]})
    assert all_of(rows, tokenizer, packing=True, packing_strategy="wrapped") is None
    assert all_of(Dataset.from_dict({"text": member_texts}), tokenizer) is None
    assert all_of(rows.to_iterable_dataset(), tokenizer) is None
    assert all_of(None, tokenizer) is None
