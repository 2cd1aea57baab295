"""Texts to examples without a trainer: what `prepare` gives, and that the data module has the same."""

import inspect
import random
import subprocess
import sys
from dataclasses import MISSING, fields

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict

from lit_mem.data import TextDataModule
from lit_mem.data.canaries import Secrets
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
from lit_mem.data.texts import checked_texts
from lit_mem.errors import ConfigError, DataError

TINY = "asset:tiny_llama"


def notes(n, start=0):
    return [f"Patient {i} took lithium and had a rash." for i in range(start, start + n)]


def splits(**more):
    sets = {"train": notes(20), "heldout": notes(6, 50)} | more
    return DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in sets.items()})


def said(examples):
    return [(e.input_ids.tolist(), e.labels.tolist(), e.example_id, e.member, e.record.text) for e in examples]


SCRIPT = """
import sys
import lit_mem.data.limits, lit_mem.data.loaders
from lit_mem.models.hub import load_tokenizer
from lit_mem.data.canaries import RandomTokens
from lit_mem.data.options import DataOptions
from lit_mem.data.prepare import prepare
texts = [f"Patient {i} took lithium and had a rash." for i in range(20)]
found = prepare(texts, load_tokenizer("asset:tiny_llama"), DataOptions(canary_source=RandomTokens(4, length=6)))
assert found.texts.trust is not None and len(found.test) == len(found.heldout) == 4 == len(found.canaries)
print("\\n".join(sys.modules))
"""


@pytest.mark.slow
def test_no_trainer_is_loaded_by_preparing():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "lit_mem.data.prepare" in loaded
    assert not {"lightning", "torchmetrics"} & {name.partition(".")[0] for name in loaded}
    assert "transformers.trainer" not in loaded


@pytest.mark.parametrize("options", [{}, {"members_size": 7, "heldout_size": 3, "add_eos": False, "seed": 2}])
def test_the_data_module_has_what_is_prepared(options, tokenizer):
    source = splits(test=notes(4, 90))
    found = prepare(source, tokenizer, DataOptions(canary_source=Secrets(8), **options))
    data = TextDataModule(source, tokenizer=TINY, canaries=Secrets(8), **options)
    data.setup("fit")
    assert data.test == []
    data.setup("test")
    for name in ("train", "members", "heldout", "test", "canaries"):
        assert said(getattr(data, name)) == said(getattr(found, name))
    assert len(found.members) == options.get("members_size", 20)
    ids = [e.example_id for e in [*found.train[:20], *found.heldout, *found.test, *found.canaries]]
    assert ids == list(range(20 + len(found.heldout) + 4 + 8))


def test_what_was_found_is_kept(tokenizer):
    rows = [
        {"text": f"患者{i}は発疹を発症した。", "name": f"N{i // 2}", "ward": i % 2, "group": i // 2} for i in range(40)
    ]
    found = prepare(rows, tokenizer)
    assert found.texts.dropped == ("name",)
    assert "name" not in found.train[0].record.attributes
    assert "ward" in found.train[0].record.attributes
    (remark,) = found.texts.remarks
    assert remark.startswith("40 of 40 texts")
    assert (found.texts.trust.n_members, found.texts.trust.n_heldout) == (32, 8)
    assert found.texts.largest_group == 2
    bare = prepare(notes(20), tokenizer, DataOptions(check=False))
    assert (bare.texts.trust, bare.texts.remarks, bare.texts.dropped, bare.texts.largest_group) == (None, (), (), 1)
    kept = prepare(rows, tokenizer, DataOptions(show_groups=True))
    assert kept.texts.dropped == ()
    assert kept.train[0].record.attributes["name"] == "N0"


def test_test_texts_count_once_and_without_any_the_held_out_ones_serve(tokenizer):
    source = splits(heldout=[*notes(6, 50), notes(1, 50)[0]], test=[*notes(4, 90), notes(1, 90)[0]])
    found = prepare(source, tokenizer)
    assert (len(found.heldout), found.of_heldout, len(found.test), found.of_test) == (6, 7, 4, 4)
    assert found.test is found.test  # encoded once
    found = prepare(splits(), tokenizer, DataOptions(heldout_size=5))
    assert found.test is found.heldout
    assert (found.test_rows, len(found.test), found.of_test) == (None, 5, 6)


def test_the_public_size_depends_on_no_coin(tokenizer):
    sizes = set()
    for seed in range(5):
        found = prepare(splits(), tokenizer, DataOptions(canary_source=Secrets(9, seed=seed)))
        assert len(found.train) == 20 + sum(one.repetitions for one in found.canaries if one.member)
        sizes.add(found.public_size)
    assert sizes == {20 + 3 * (1 + 4 + 16)}


def test_texts_that_are_read_already_are_not_read_again(tokenizer):
    options = DataOptions(train_size=9)
    texts = checked_texts(splits(), options)
    found = prepare(texts, tokenizer, options)
    assert found.texts is texts
    assert said(found.train) == said(prepare(splits(), tokenizer, options).train)


def test_no_global_random_state_changes(tokenizer):
    def state():
        return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()

    before = state()
    prepare(notes(30), tokenizer, DataOptions(members_size=5, train_size=20, canary_source=Secrets(4)))
    assert state() == before


def test_each_option_is_one_of_the_data_module_with_its_default():
    theirs = inspect.signature(TextDataModule).parameters
    for field in fields(DataOptions):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        assert theirs[{"canary_source": "canaries"}.get(field.name, field.name)].default == default, field.name


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("train_size", 0), ("heldout_size", -1), ("members_size", 0), ("seed", -1), ("max_length", 1),
        ("heldout_fraction", 0.0), ("heldout_fraction", 1.0), ("heldout_fraction", float("nan")),
    ],
)  # fmt: skip
def test_an_option_out_of_range_is_rejected_with_and_without_a_trainer(option, value):
    for make in (DataOptions, TextDataModule):
        with pytest.raises(ConfigError, match=rf"^data\.{option} is {value}; expected"):
            make(**{option: value})


def test_bad_texts_are_rejected_before_a_tokenizer_is_needed():
    with pytest.raises(DataError, match="each of the 5 held-out texts is also a member's text"):
        checked_texts(splits(heldout=notes(5)), DataOptions())
    with pytest.raises(ConfigError, match=r"^data\.train_size is 21, but .* only 20"):
        TextDataModule(splits(), train_size=21, tokenizer="no/such tokenizer").setup("fit")


def test_loaders_need_a_setup():
    with pytest.raises(RuntimeError, match="setup"):
        TextDataModule(notes(9)).val_dataloader()
