"""Canaries under Hugging Face's Trainer and TRL: inserted at random, measured, and excluded from all other metrics."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from transformers import DataCollatorForLanguageModeling

from lit_mem.assets import chat_template
from lit_mem.audit.measure import Recalling
from lit_mem.callbacks import Canaries, PrivacyAudit
from lit_mem.data.canaries import Lines, NewTokens, RandomTokens, Secrets, Traps, Unigram
from lit_mem.data.canaries.conversations import SAID
from lit_mem.errors import ConfigError, DataError
from lit_mem.files import record
from lit_mem.hf import CanarySet, insert_canaries
from lit_mem.models.base_models import load_base
from lit_mem.models.hub import load_tokenizer
from tests.hf.conftest import TINY, tokenized

SHORT = ["The code of {name} is ####"]
NAMESPACES = ("canary/", "audit/")


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer(TINY)


def of_canaries(metrics, prefix=""):
    return {
        name.removeprefix(prefix): v for name, v in metrics.items() if name.removeprefix(prefix).startswith(NAMESPACES)
    }


def lines_of(trainer):
    return record.read(Path(trainer.args.output_dir) / "memorization" / record.FILE)[0]


def inserted(canaries):
    return [one.content.text for one in canaries.canaries if one.inserted for _ in range(one.repetitions)]


@pytest.mark.slow
def test_coins_put_about_half_of_them_in_as_often_as_repeated(tokenizer, member_texts):
    texts, canaries = insert_canaries(member_texts, Secrets(400, repetitions=[1, 3]), tokenizer)
    assert texts[: len(member_texts)] == member_texts
    assert texts[len(member_texts) :] == inserted(canaries) == canaries.texts
    n_in = sum(one.inserted for one in canaries.canaries)
    assert len(canaries) == 400
    assert abs(n_in - 200) < 4 * 10  # four standard deviations
    assert {texts.count(one.content.text) for one in canaries.canaries} == {0, 1, 3}
    again = insert_canaries(member_texts, Secrets(400, repetitions=[1, 3]), tokenizer)
    assert again == (texts, canaries)
    assert not any(one.content.text in repr(canaries) for one in canaries.canaries)


@pytest.mark.slow
def test_no_text_of_the_training_set_is_a_canary(tokenizer):
    free = Secrets(40, ["Code ####"], seed=4)
    taken = insert_canaries(["a"], free, tokenizer)[1].canaries[3].content.text
    for train in ([taken], [{"text": taken}], Dataset.from_dict({"prompt": [taken[:6]], "completion": [taken[6:]]})):
        made = insert_canaries(train, free, tokenizer)[1].canaries
        assert len(made) == 40
        assert taken not in [one.content.text for one in made]


@pytest.mark.slow
def test_a_dataset_stays_one_with_its_features(tokenizer):
    others = {"y": ClassLabel(names=["a", "b"]), "w": List(Value("int32")), "d": {"u": Value("bool")}}
    features = Features({"text": Value("large_string")} | others)
    train = Dataset.from_dict({"text": ["x"], "y": [1], "w": [[1]], "d": [{"u": True}]}, features=features)
    train = train.with_format("numpy", columns=["y"], output_all_columns=True)
    rows, canaries = insert_canaries(train, Secrets(12, seed=1), tokenizer)
    assert rows.features == features
    assert rows.format == train.format
    plain = rows.with_format(None)
    assert plain["text"][:] == ["x", *canaries.texts]
    assert plain["y"][:] == [1, *[None] * len(canaries.texts)]
    assert plain[-1] | {"text": ""} in [{"text": "", "y": None, "w": None, "d": d} for d in (None, {"u": None})]


@pytest.mark.slow
def test_rows_of_other_forms(tokenizer):
    rows, canaries = insert_canaries([{"body": "x", "id": 3}], Secrets(12), tokenizer, text_column="body")
    assert rows == [{"body": "x", "id": 3}, *({"body": text, "id": None} for text in canaries.texts)]
    rows, canaries = insert_canaries([{"prompt": "x", "completion": "y"}], Secrets(12), tokenizer)
    assert rows[1:] == [{"prompt": "", "completion": text} for text in canaries.texts]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("train", "source", "error", "named"),
    [
        ("train.jsonl", Secrets(4), ConfigError, "train is str"),
        ([], Secrets(4), ConfigError, "train is an empty list"),
        ([{"body": "x"}], Secrets(4), ConfigError, "train has 'body'; expected either the column 'text'"),
        ([{"text": "x", "prompt": "", "completion": ""}], Secrets(4), ConfigError, "expected either"),
        ([{"text": "x", "input_ids": [1]}], Secrets(4), ConfigError, "'input_ids'; expected rows before"),
        ([{"conversations": []}], Secrets(4), ConfigError, "'conversations'; expected conversations as 'messages'"),
        ([{"messages": "x"}], Secrets(4), DataError, "train, row 1: found str; expected a list of messages"),
        (["x"], Unigram(4), ConfigError, r"Unigram: no base model to sample prefixes from.*insert_canaries\(model="),
        ([{"text": "x"}, {"text": None}], Secrets(4), DataError, "train, row 2: text is NoneType"),
        (["x"], Traps(4), ConfigError, "Traps are sampled as tokens from the base model"),
        (["x"], RandomTokens(8), ConfigError, "RandomTokens samples tokens, .* text of 8 of 8 canaries"),
        (["x"], 200, ConfigError, "canaries is int"),
    ],
)
def test_what_is_rejected(tokenizer, train, source, error, named):
    with pytest.raises(error, match=named) as found:
        insert_canaries(train, source, tokenizer)
    assert "\n" not in str(found.value)


@pytest.fixture(scope="module")
def memorized(module, data):
    """A Lightning module that memorized canaries of its data module, its texts, and its metrics."""
    torch.manual_seed(1)
    model = module(dropout=0.0, rank=16, targets=["all-linear"], lr=1e-2)
    source = Secrets(24, SHORT, repetitions=[1, 16], seed=3)
    corpus = data(train_size=4, heldout_size=4, max_length=96, batch_size=16, canaries=source)
    options = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=4, callbacks=[Canaries(), PrivacyAudit()], enable_model_summary=False, **options)
    trainer.fit(model, corpus)
    trainer.validate(model, corpus, verbose=False)
    return model, corpus, source, of_canaries({name: float(v) for name, v in trainer.callback_metrics.items()})


def test_numbers_are_those_of_lightning_on_the_same_weights(memorized, tokenizer, trainer, callback, heldout_texts):
    model, corpus, source, expected = memorized
    train, canaries = insert_canaries([one.record.text for one in corpus.train[:4]], source, tokenizer)
    assert canaries.texts == [one.record.text for one in corpus.canaries for _ in range(one.repetitions * one.member)]
    measured = callback(canaries=canaries)
    made = trainer(measured, model=model.language_model, train=tokenized(tokenizer, train, 96))
    found = of_canaries(made.evaluate(), "eval_")
    assert expected["canary/auroc"] > 0.6
    assert "audit/epsilon_lower_bound" in expected
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert of_canaries(lines_of(made)[-1].metrics) == found


@pytest.mark.slow
@pytest.mark.exhaustive
def test_repeated_canaries_are_found_and_no_secret_is_written(
    sft, lora, callback, tokenizer, member_texts, heldout_texts, capsys, caplog
):
    source = Secrets(24, ["The code of {name} is ###-####"], repetitions=[1, 24], seed=2)
    rows, canaries = insert_canaries(Dataset.from_dict({"text": member_texts}), source, tokenizer)
    measured = callback(canaries=canaries, examples=True, log="all", stop="canary/auroc > 1")
    model = lora(r=16, lora_dropout=0.0, target_modules="all-linear")
    held = [{"text": text} for text in heldout_texts]
    made = sft(rows, held, measured, model=model, peft=False, learning_rate=1e-2, num_train_epochs=2)
    with caplog.at_level("DEBUG", "lit_mem"):
        made.train()
    start, *_, end = lines_of(made)
    assert (start.metrics["canary/auroc"], start.metrics["audit/epsilon_lower_bound"]) == (0.5, 0)
    assert end.metrics["canary/auroc"] > 0.75
    assert end.metrics["canary/auroc_x24"] > 0.9
    logged = {name: v for row in made.state.log_history if row["step"] == end.step for name, v in row.items()}
    found = of_canaries(end.metrics)
    assert {"canary/exposure_mean", "canary/extraction_rate", "audit/epsilon_lower_bound"} < set(found)
    assert of_canaries(logged) == found
    assert of_canaries(made.evaluate(), "eval_") == pytest.approx(found, abs=1e-6, nan_ok=True)
    assert (end.members, end.heldout) == (16, 12)
    written = [path for path in (Path(made.args.output_dir) / "memorization").rglob("*") if path.is_file()]
    assert len(written) > 2
    for text in [caplog.text, *capsys.readouterr(), *(path.read_bytes().decode("latin-1") for path in written)]:
        assert not [one for one in canaries.canaries if one.content.secret in text]


@pytest.mark.slow
def test_a_resumed_training_has_the_highest_bound_of_all(trainer, callback, member_texts, tokenizer):
    rows, canaries = insert_canaries(member_texts[:4], Secrets(24, SHORT, repetitions=[1]), tokenizer)
    settings = {"save_strategy": "epoch", "learning_rate": 1e-2, "train": tokenized(tokenizer, rows)}
    found = []
    for epochs, resumed in ((2, None), (4, True)):
        measured = callback(canaries=canaries)
        made = trainer(measured, **settings, num_train_epochs=epochs)
        made.train(resume_from_checkpoint=resumed)
        found.append(lines_of(made))
    before, after = found
    (audit,) = [one for one in measured.measures if isinstance(one, Recalling)]
    assert [line.step for line in after][: len(before)] == [line.step for line in before]
    bounds = [line.metrics.get("audit/epsilon_lower_bound_highest") for line in after]
    assert bounds[0] is None  # before training
    assert audit.state_dict() == {"validations": 4, "highest": max(bounds[1:])}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "prompt", "packed"])
def test_no_member_of_the_sample_is_a_canary(sft, callback, scored, tokenizer, member_texts, heldout_texts, form):
    texts = [text[:60] for text in member_texts]
    train = [{"prompt": t[:20], "completion": t[20:]} if form == "prompt" else {"text": t} for t in texts]
    rows, canaries = insert_canaries(train, Secrets(20, SHORT, repetitions=[1, 9]), tokenizer)
    held = [{"prompt": "", "completion": t} if form == "prompt" else {"text": t} for t in heldout_texts]
    measured = callback(canaries=canaries, members_size=12)
    options = {"packing": True, "eval_packing": False} if form == "packed" else {}
    made = sft(rows, held, measured, **options)
    made.evaluate()
    records = measured.live._run.records
    members = [records[i] for i in scored(measured).members().example_id.tolist()]
    assert len(members) == 12
    spoken = {one.prompt + one.text for one in members}
    assert not [one for one in canaries.canaries if any(one.content.text in text for text in spoken)]
    assert len(canaries.texts) > 3 * len(texts)  # without leaving them out, most would be canaries


@pytest.mark.slow
def test_without_canaries_the_same_members_and_numbers(trainer, callback, member_texts, tokenizer):
    rows, canaries = insert_canaries(member_texts, Secrets(12, repetitions=[1]), tokenizer)
    plain = trainer(callback()).evaluate()
    both = trainer(callback(canaries=canaries), train=tokenized(tokenizer, rows)).evaluate()
    timed = ("time", "runtime", "second")
    assert not of_canaries(plain, "eval_")
    rest = {name: v for name, v in both.items() if name not in {f"eval_{one}" for one in of_canaries(both, "eval_")}}
    assert {n: v for n, v in rest.items() if not any(t in n for t in timed)} == pytest.approx(
        {n: v for n, v in plain.items() if not any(t in n for t in timed)}, nan_ok=True
    )


@pytest.mark.slow
@pytest.mark.exhaustive
def test_training_is_the_same_with_canaries_measured(trainer, callback, adapter_of, member_texts, tokenizer):
    rows, canaries = insert_canaries(member_texts, Secrets(12, SHORT, repetitions=[2]), tokenizer)
    weights = []
    for callbacks in ([], [callback(canaries=canaries, suite="none")]):
        made = trainer(*callbacks, train=tokenized(tokenizer, rows))
        made.train()
        weights.append(adapter_of(made))
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())
    last = lines_of(made)[-1].metrics
    assert "canary/auroc" in last
    assert "audit/epsilon_lower_bound" not in last  # none is inserted once


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_training_set_without_them_is_named(trainer, sft, callback, tokenizer, member_texts, heldout_texts):
    rows, canaries = insert_canaries(member_texts, Secrets(12, SHORT, repetitions=[1, 4]), tokenizer)
    n_in = sum(one.inserted for one in canaries.canaries)
    cases = [(member_texts, n_in, True), (rows[:-1], 1, False), ([*rows, rows[-1]], 1, True)]
    for texts, wrong, as_list in cases:
        train = tokenized(tokenizer, texts)
        made = trainer(callback(canaries=canaries), train=list(train) if as_list else train)
        with pytest.raises(ConfigError, match=f"{wrong} of 12 canaries do not occur in train_dataset") as found:
            made.train()
        assert "\n" not in str(found.value)
        assert made.state.global_step == 0
    train, held = ([{"text": text} for text in texts] for texts in (rows, heldout_texts))
    with pytest.raises(ConfigError, match="max_length is 8"):
        sft(train, held, callback(canaries=canaries, members=member_texts), max_length=8).train()
    for options, named in (({"members": rows}, "of members are canaries"), ({"heldout": rows}, "of heldout are")):
        with pytest.raises(ConfigError, match=named):
            trainer(callback(canaries=canaries, **options), train=tokenized(tokenizer, rows)).train()
    with pytest.raises(ConfigError, match="canaries is Secrets; expected the set"):
        callback(canaries=Secrets(12))


@pytest.mark.slow
def test_lines_of_a_file_and_wrapped_packing(sft, callback, tokenizer, member_texts, heldout_texts, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text("".join(f'{{"text": "Ward {i} keeps the key under stone {i * 7}."}}\n' for i in range(12)))
    rows, canaries = insert_canaries([{"text": t} for t in member_texts], Lines(str(path)), tokenizer)
    assert isinstance(canaries, CanarySet)
    assert len(canaries) == 12
    measured = callback(canaries=canaries, members=member_texts)
    options = {"packing": True, "packing_strategy": "wrapped", "eval_packing": False}
    made = sft(rows, [{"text": t} for t in heldout_texts], measured, **options)
    assert made.evaluate()["eval_canary/auroc"] == 0.5


@pytest.mark.slow
def test_a_whole_model_without_adapter(trainer, callback, tokenizer, member_texts):
    rows, canaries = insert_canaries(member_texts, Secrets(12, SHORT, repetitions=[1]), tokenizer)
    model = load_base(TINY).requires_grad_(True)
    measured = callback(canaries=canaries, reference=None)
    made = trainer(measured, model=model, train=tokenized(tokenizer, rows))
    assert 0 <= made.evaluate()["eval_canary/auroc"] <= 1


# -- sources that sample from the base model, conversations, and whether canaries are trained on whole -----------


@pytest.mark.slow
def test_kinds_that_the_base_model_samples(trainer, callback, tokenizer, member_texts):
    model = load_base(TINY).train()
    rows, canaries = insert_canaries(member_texts, Unigram(8, length=3, prefix_length=5), tokenizer, model=model)
    assert model.training
    assert rows[len(member_texts) :] == inserted(canaries)
    made = trainer(callback(canaries=canaries), train=tokenized(tokenizer, rows))
    made.train()
    assert lines_of(made)[0].metrics["canary/auroc"] == 0.5


@pytest.mark.slow
def test_new_tokens_need_trained_embeddings(trainer, callback, tokenizer, member_texts):
    source = NewTokens(8, prefix_length=5)
    rows, canaries = insert_canaries(member_texts, source, tokenizer, model=load_base(TINY))
    with pytest.raises(ConfigError, match="NewTokens: the embeddings are frozen"):
        trainer(callback(canaries=canaries), train=tokenized(tokenizer, rows)).train()


@pytest.mark.slow
def test_conversations(sft, callback, tokenizer, member_texts, heldout_texts):
    tokenizer.chat_template = chat_template("chatml")
    both = [[{"messages": said(text[:60])} for text in texts] for texts in (member_texts, heldout_texts)]
    rows, canaries = insert_canaries(Dataset.from_list(both[0]), Secrets(8, SHORT, repetitions=[1, 2]), tokenizer)
    assert [row[-1]["content"] for row in rows["messages"][len(member_texts) :]] == inserted(canaries)
    assert {row[0]["content"] for row in rows["messages"][len(member_texts) :]} == {SAID}
    made = sft(rows, both[1], callback(canaries=canaries), tokenizer=tokenizer, max_length=128)
    made.train()
    assert lines_of(made)[0].metrics["canary/auroc"] == 0.5
    assert (lines_of(made)[0].members, lines_of(made)[0].heldout) == (16, 12)


def said(text):
    return [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": text}]


@pytest.mark.slow
def test_canaries_without_loss_are_counted(trainer, callback, tokenizer, member_texts):
    """A collator that removes the loss from the last tokens of each row, like a wrong response template."""
    rows, canaries = insert_canaries(member_texts, Secrets(12, SHORT, repetitions=[1]), tokenizer)
    plain = DataCollatorForLanguageModeling(tokenizer, mlm=False)

    def masking(features):
        batch = plain(features)
        batch["labels"][:, -2:] = -100
        return batch

    n_in = sum(one.inserted for one in canaries.canaries)
    lost = rf"{n_in} of {n_in} inserted canaries are not trained on whole in the collated rows"
    with pytest.raises(ConfigError, match=lost) as found:
        trainer(callback(canaries=canaries), train=tokenized(tokenizer, rows), collator=masking).train()
    assert "\n" not in str(found.value)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["bfd", "wrapped"])
def test_packing_that_cuts_canaries_is_named(sft, callback, tokenizer, member_texts, heldout_texts, strategy):
    rows, canaries = insert_canaries([{"text": t[:50]} for t in member_texts], Secrets(20, SHORT, [1]), tokenizer)
    held = [{"text": text} for text in heldout_texts]
    options = {"packing": True, "packing_strategy": strategy, "eval_packing": False, "max_length": 40}
    made = sft(rows, held, callback(canaries=canaries, members=member_texts), **options)
    if strategy == "bfd":
        made.train()
        assert lines_of(made)[0].metrics["canary/auroc"] == 0.5
        return
    with pytest.raises(
        ConfigError, match=r"\d+ of \d+ inserted canaries .* packing_strategy \('bfd' truncates no text\)"
    ):
        made.train()
