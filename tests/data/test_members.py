"""A checkpoint records its members: texts that change sides are rejected, new members give a warning."""

import itertools
import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset

from lit_mem.callbacks import MemorizationCheckpoint, Perplexity
from lit_mem.data import TextDataModule
from lit_mem.data.canaries import Secrets
from lit_mem.data.members import KnownMembers, Sides
from lit_mem.data.options import DataOptions
from lit_mem.data.sources import Corpus, Source
from lit_mem.data.texts import checked_texts
from lit_mem.errors import CheckpointError
from lit_mem.lightning import member_check
from lit_mem.lightning.member_check import MemberCheck, members_beside
from lit_mem.models.checkpoint import own_content

pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create")

# -- digests ---------------------------------------------------------------------------------------------------------


def rows(texts):
    """Of each text the first letter is a prompt."""
    return Dataset.from_dict({"prompt": [text[:1] for text in texts], "completion": [text[1:] for text in texts]})


def known(*sets):
    found = KnownMembers()
    for members in sets:
        found.compare(Sides(rows(members), rows(["only held out"])), training=True)
    return found


TEXTS = ["Fever on day 1.", "Fever on day 2.", "A rash.", "a rash.", "Ünïcode, 漢字.", "Fever on day 1. "]


@pytest.mark.parametrize(
    ("first", "members", "others", "swapped", "new"),
    [
        ([0, 1], [1, 0], [4], 0, 0),
        ([0, 1], [0], [4], 0, 0),
        ([0, 1], [1, 2], [4], 0, 1),
        ([0, 1], [1], [0, 4], 1, 0),
        ([0, 1], [0, 1], [1, 4], 0, 0),  # on both sides in this very run: the data checks say so
        ([0, 1, 2], [3], [2, 0, 5, 4], 2, 1),
        ([0, 2], [0, 3], [5], 0, 1),  # other texts: another case, a space
    ],
)
def test_what_is_rejected_and_what_is_warned_of(first, members, others, swapped, new, caplog):
    book = known([TEXTS[i] for i in first])
    sides = Sides(rows([TEXTS[i] for i in members]), rows([TEXTS[i] for i in others]))
    if swapped:
        with pytest.raises(CheckpointError, match=rf"^{swapped} of {len(others)} held-out texts .*data\.seed"):
            book.compare(sides, training=False)
        return
    with caplog.at_level(logging.WARNING, "lit_mem"):
        book.compare(sides, training=False)
    assert [line.split(" were")[0] for line in caplog.messages] == [f"{new} of {len(members)} members"] * bool(new)


def test_a_resumed_run_adds_its_members_to_those_before():
    book = known(TEXTS[:2], TEXTS[1:4])
    book.compare(Sides(rows(TEXTS[2:3]), rows(TEXTS[4:])), training=False)
    for text in TEXTS[:2]:
        with pytest.raises(CheckpointError, match=r"^1 of 1 held-out texts"):
            book.compare(Sides(rows(TEXTS[2:3]), rows([text])), training=False)


def test_state_is_a_row_of_eight_bytes_a_text_and_its_order_shows_nothing():
    one, other = known(TEXTS), known(TEXTS)
    state = one.state()
    assert {name: (tuple(t.shape), t.dtype) for name, t in state.items()} == {
        "salt": ((16,), torch.uint8), "members": ((6, 8), torch.uint8), "left_out": ((0, 8), torch.uint8)
    }  # fmt: skip
    assert not set(map(tuple, state["members"].tolist())) & set(map(tuple, other.state()["members"].tolist()))
    again = KnownMembers(state)
    again.compare(Sides(rows(TEXTS[::-1]), rows(["x"])), training=True)  # the same texts in another order
    assert all(torch.equal(again.state()[name], state[name]) for name in state)
    assert KnownMembers().state() is None


def test_a_digest_is_blake2b_keyed_by_the_salt():
    from hashlib import blake2b

    state = known(TEXTS).state()
    key = bytes(state["salt"].tolist())
    expected = {blake2b(text.encode(), digest_size=8, key=key).digest() for text in TEXTS}
    assert {bytes(row) for row in state["members"].tolist()} == expected


@pytest.mark.slow
def test_a_hundred_thousand_texts_are_not_compared_in_pairs():
    """Otherwise it would take hours."""
    texts = [
        f"Patient {i} took lithium for {i % 40} days, and developed a rash that lasted." * 3 for i in range(100_000)
    ]
    many = rows(texts)
    book = KnownMembers()
    book.compare(Sides(many, rows(["x"])), training=True)
    assert book.state()["members"].shape == (100_000, 8)


@pytest.mark.parametrize(
    "broken",
    [
        None, [], {"salt": torch.zeros(16, dtype=torch.uint8)},
        {"salt": torch.zeros(16), "members": torch.zeros(1, 8), "left_out": torch.zeros(1, 8)},
        {"salt": torch.zeros(16, dtype=torch.uint8), "members": torch.zeros(8, dtype=torch.uint8),
         "left_out": torch.zeros(0, 8, dtype=torch.uint8)},
        {"salt": torch.zeros(15, dtype=torch.uint8), "members": torch.zeros(2, 8, dtype=torch.uint8),
         "left_out": torch.zeros(0, 8, dtype=torch.uint8)},
    ],
)  # fmt: skip
def test_digests_that_are_none_are_rejected_in_one_line(broken):
    whole = {"format": 1, "base": "b", "fingerprint": {}, "random_state": {}}
    checkpoint = {"state_dict": {}, "pytorch-lightning_version": "2"}
    own_content(checkpoint | {"lit_mem": whole})
    with pytest.raises(CheckpointError, match=r"damaged: its members\.(salt|members|left_out)"):
        own_content(checkpoint | {"lit_mem": whole | {"members": broken}})


# -- runs ------------------------------------------------------------------------------------------------------------


class Notes(Source):
    """Synthetic notes in one set, to be split; or in separate sets."""

    def __init__(self, train, heldout=None, test=None):
        self.numbers = train, heldout, test

    def load(self):
        return Corpus(*(None if n is None else notes(n) for n in self.numbers), name="notes")


def notes(numbers):
    texts = [f"Patient {n} took drug {n * 7 % 31} and had a rash on day {n % 9}." for n in numbers]
    origins = [f"notes:{n}" for n in numbers]
    return Dataset.from_dict({"prompt": [""] * len(texts), "completion": texts, "group": origins, "origin": origins})


def split(source, **options):
    return TextDataModule(source, max_length=64, check=False, **options)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, module, trainer):
    """Fits one epoch of a data module: the module, and the folder of its checkpoint."""
    folders = itertools.count()

    def fit(data, model=None, ckpt=None, **options):
        folder = tmp_path_factory.mktemp(f"fit{next(folders)}")
        model = model or module(dropout=0.0)
        epochs = 1 if ckpt is None else 2
        run = trainer([Perplexity(), MemorizationCheckpoint(dirpath=str(folder))], max_epochs=epochs, **options)
        run.fit(model, data, ckpt_path=ckpt, weights_only=True)
        return model, folder

    return fit


@pytest.fixture(scope="module")
def whole(fitted):
    """A run on 24 notes, of which a fifth are held out by seed 0; and twelve canaries."""
    data = split(Notes(range(24)), canaries=Secrets(12))
    model, folder = fitted(data)
    return model, folder / "last.ckpt", sum(canary.member for canary in data.canaries)


@pytest.fixture
def validate(module, trainer):
    def run(data, ckpt, model=None, stage="validate"):
        return getattr(trainer([Perplexity()]), stage)(
            model or module(dropout=0.0), datamodule=data, ckpt_path=ckpt, weights_only=True, verbose=False
        )

    return run


def sides_by_seed(seed):
    texts = checked_texts(Notes(range(24)), DataOptions(seed=seed, check=False))
    return set(texts.train["completion"]), set(texts.heldout["completion"])


def test_the_same_split_says_nothing(whole, validate, caplog):
    with caplog.at_level(logging.WARNING, "lit_mem"):
        validate(split(Notes(range(24)), canaries=Secrets(12)), whole[1])
    assert not [line for line in caplog.messages if "members" in line or "canaries" in line]


@pytest.mark.slow
@pytest.mark.parametrize("by", ["checkpoint", "model", "resume"])
def test_another_seed_of_the_split_is_rejected(by, whole, validate, fitted):
    """With the checkpoint, with the module that was fitted in this process, and on resume."""
    members, heldout = sides_by_seed(0)[0], sides_by_seed(1)[1]
    n = len(members & heldout)
    assert 0 < n < len(heldout)
    data = split(Notes(range(24)), seed=1)
    begin = {
        "checkpoint": lambda: validate(data, whole[1]),
        "model": lambda: validate(data, None, whole[0]),
        "resume": lambda: fitted(data, ckpt=whole[1]),
    }[by]
    with pytest.raises(CheckpointError, match=f"{n} of {len(heldout)} held-out texts were trained on.*data.seed"):
        begin()


def test_members_in_the_test_set_are_rejected(whole, validate):
    members, heldout = (sorted(int(text.split()[1]) for text in side) for side in sides_by_seed(0))
    fine = split(Notes(members, heldout, range(100, 108)))
    validate(fine, whole[1], stage="test")
    with pytest.raises(CheckpointError, match="2 of 8 test texts were trained on"):
        validate(split(Notes(members[2:], heldout, [*members[:2], *range(100, 106)])), whole[1], stage="test")


@pytest.mark.slow
def test_new_members_are_warned_of_and_known_once_a_run_resumes_with_them(whole, validate, fitted, caplog):
    members, heldout = (sorted(int(text.split()[1]) for text in side) for side in sides_by_seed(0))
    more = split(Notes([*members, 100, 101, 102], heldout))
    with caplog.at_level(logging.WARNING, "lit_mem"):
        validate(more, whole[1])
    count = f"3 of {len(members) + 3} members were not trained on"
    (line,) = [line for line in caplog.messages if count in line]
    assert "data.source" in line
    assert "every metric" in line
    caplog.clear()
    _, folder = fitted(more, ckpt=whole[1])
    (line,) = [line for line in caplog.messages if count in line]
    assert "from now on" in line
    caplog.clear()
    # All that the first run and the second trained on is known, and what neither did is not.
    validate(split(Notes([*members, 100, 101, 102], heldout)), folder / "last.ckpt")
    assert not [line for line in caplog.messages if "members" in line]
    for held in ([members[0]], [101]):
        with pytest.raises(CheckpointError, match=f"1 of {len(heldout) + 1} held-out texts"):
            validate(split(Notes(members[1:], [*heldout, *held])), folder / "last.ckpt")


@pytest.mark.slow
def test_canaries_keep_their_sides(whole, validate, caplog):
    """Of another seed they are other canaries; so their coins alone are drawn anew."""

    class Coins(Secrets):
        def make(self, setting):
            return [canary._replace(inserted=not canary.inserted) for canary in super().make(setting)]

    class LeftOut(Secrets):
        def make(self, setting):
            return [canary._replace(inserted=False) for canary in super().make(setting)]

    class AllIn(Secrets):
        def make(self, setting):
            return [canary._replace(inserted=True) for canary in super().make(setting)]

    class PutIn(Secrets):
        def make(self, setting):
            return [canary for canary in super().make(setting) if canary.inserted]

    class Often(Secrets):
        def make(self, setting):
            return [canary._replace(repetitions=canary.repetitions + 1) for canary in super().make(setting)]

    def run(kind):
        validate(split(Notes(range(24)), canaries=kind), whole[1])

    inserted = whole[2]
    for kind, n in ((Coins(12), 12 - inserted), (LeftOut(12), 12)):
        with pytest.raises(CheckpointError, match=f"^{inserted} of {n} held-out canaries .*seed"):
            run(kind)
    with pytest.raises(CheckpointError, match=f"^{12 - inserted} of 12 inserted canaries were held out in .*seed"):
        run(AllIn(12))
    with caplog.at_level(logging.WARNING, "lit_mem"):
        run(PutIn(12))
        assert not [line for line in caplog.messages if "canaries" in line]
        run(Often(12))
    (line,) = [line for line in caplog.messages if "canaries" in line]
    assert line.startswith(f"{inserted} of {inserted} canaries were not inserted (or not as often)")


@pytest.mark.slow
def test_a_checkpoint_without_digests_loads_and_says_so(whole, validate, tmp_path, caplog):
    checkpoint = torch.load(whole[1], weights_only=True)
    del checkpoint["lit_mem"]["members"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with caplog.at_level(logging.WARNING, "lit_mem"):
        validate(split(Notes(range(24)), seed=1), tmp_path / "old.ckpt")
    assert len([line for line in caplog.messages if "no digests of its members" in line]) == 1


@pytest.mark.slow
def test_an_exported_adapter_has_no_digests_but_the_checkpoint_beside_it_is_read(whole, module, validate, tmp_path):
    beside = whole[1].with_name("last-adapter")
    assert {path.name for path in beside.iterdir()} >= {"lit_mem.json", "adapter_config.json"}
    digests = torch.load(whole[1], weights_only=True)["lit_mem"]["members"]["members"]
    files = [path.read_bytes() for path in beside.iterdir()]
    for row in map(bytes, digests.tolist()):
        assert not any(row in content or row.hex().encode() in content for content in files)
    validate(split(Notes(range(24))), None, module(adapter_path=str(beside)))
    with pytest.raises(CheckpointError, match=r"last-adapter \(last.ckpt beside it\)"):
        validate(split(Notes(range(24)), seed=1), None, module(adapter_path=str(beside)))
    moved = shutil.copytree(beside, tmp_path / "last-adapter")
    validate(split(Notes(range(24)), seed=1), None, module(adapter_path=str(moved)))
    checkpoint = torch.load(whole[1], weights_only=True)
    torch.save(checkpoint | {"global_step": checkpoint["global_step"] + 1}, tmp_path / "last.ckpt")  # another's
    validate(split(Notes(range(24)), seed=1), None, module(adapter_path=str(moved)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended")
def test_data_of_ones_own_without_sides_is_trained_on_and_measured(whole, module, trainer, tmp_path):
    """Known members are carried over."""
    import lightning.pytorch as pl

    inner = split(Notes(range(24)), tokenizer="asset:tiny_llama")
    inner.setup("fit")

    class Own(pl.LightningDataModule):
        def train_dataloader(self):
            return inner.train_dataloader()

        def val_dataloader(self):
            return inner.val_dataloader()

    model = module(dropout=0.0)
    run = trainer([Perplexity(), MemorizationCheckpoint(dirpath=str(tmp_path))], max_epochs=2)
    run.fit(model, Own(), ckpt_path=whole[1], weights_only=True)
    before, after = (
        torch.load(path, weights_only=True)["lit_mem"]["members"] for path in (whole[1], tmp_path / "last.ckpt")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)


# -- few texts on both sides -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("swapped", "of", "rejected"), [(1, 100, False), (1, 99, True), (5, 500, False), (6, 1000, True)]
)
def test_a_few_stock_sentences_on_both_sides_are_warned_of(swapped, of, rejected, caplog):
    trained = [f"Stock {i}." for i in range(20)]
    held = Sides(rows(trained[10:]), rows([*trained[:swapped], *(f"Held out {i}." for i in range(of - swapped))]))
    if rejected:
        with pytest.raises(CheckpointError, match=rf"^{swapped} of {of} held-out texts were trained on"):
            known(trained).compare(held, training=False)
        return
    with caplog.at_level(logging.WARNING, "lit_mem"):
        known(trained).compare(held, training=False)
    (line,) = caplog.messages
    assert line.startswith(f"{swapped} of {of} held-out texts were trained on")
    assert "data.seed" in line


# -- when they count as trained on -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_members_are_known_from_the_first_step_on(module, trainer):
    seeds = [split(Notes(range(24)), seed=seed) for seed in (0, 1)]
    model = module(dropout=0.0)
    trainer([Perplexity()], max_epochs=1, limit_train_batches=0).fit(model, seeds[0])
    assert model.members.known.state() is None
    trainer([Perplexity()], max_epochs=1, limit_train_batches=1).fit(model, seeds[1])
    assert len(model.members.known.state()["members"]) == len(seeds[1].train)
    with pytest.raises(CheckpointError, match=r"held-out texts were trained on.*data\.seed"):
        trainer([Perplexity()], max_epochs=1, limit_train_batches=1).fit(model, split(Notes(range(24)), seed=0))


# -- how often, and by whom ------------------------------------------------------------------------------------------


def test_checkpoints_of_one_run_are_compared_once(monkeypatch):
    calls, compare = [], KnownMembers.compare
    one, other = known(TEXTS[:2]).state(), known(TEXTS[:3]).state()
    monkeypatch.setattr(KnownMembers, "compare", lambda *args: calls.append(1) or compare(*args))
    data = SimpleNamespace(sides=lambda: Sides(rows(TEXTS[:2]), rows(["only held out"])))
    trainer = SimpleNamespace(datamodule=data, state=SimpleNamespace(fn="validate"))
    check, expected = MemberCheck(), []
    for state, more in ((one, 1), (one, 0), (other, 1), (other, 0), (None, 1), (None, 0), (one, 1)):
        calls.clear()
        check.load({} if state is None else {"members": state})
        check.compare(trainer)
        expected.append(len(calls) == more)
    assert all(expected)


@pytest.mark.parametrize("zero", [True, False])
def test_rank_zero_reads_the_checkpoint_beside_an_adapter_for_all(zero, monkeypatch):
    found, sent = known(TEXTS), []
    monkeypatch.setattr(member_check, "members_beside", lambda path: found if zero else pytest.fail("read by another"))
    strategy = SimpleNamespace(broadcast=lambda value: sent.append(value) or found)
    check = MemberCheck()
    check.start_from("adapter", SimpleNamespace(strategy=strategy, is_global_zero=zero))
    assert sent == [found if zero else None]
    assert check.known is found


# -- repeated test rows, places ---------------------------------------------------------------------------------------


def test_test_texts_are_compared_as_often_as_they_are_scored(whole, validate):
    members, heldout = (sorted(int(text.split()[1]) for text in side) for side in sides_by_seed(0))
    data = split(Notes(members[1:], heldout, [members[0]] * 5 + list(range(100, 103))))
    with pytest.raises(CheckpointError, match="1 of 4 test texts were trained on"):
        validate(data, whole[1], stage="test")


def test_an_adapter_in_the_working_folder_is_compared_too(whole, monkeypatch):
    monkeypatch.chdir(whole[1].with_name("last-adapter"))
    found = members_beside(".")
    kept = torch.load(whole[1], weights_only=True)["lit_mem"]["members"]
    assert torch.equal(found.state()["members"], kept["members"])


def test_digests_on_a_device_are_read(monkeypatch):
    class OnDevice(torch.Tensor):
        def numpy(self, **_):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")

        def cpu(self):
            return self.as_subclass(torch.Tensor)

    state = known(TEXTS).state()
    again = KnownMembers({name: tensor.as_subclass(OnDevice) for name, tensor in state.items()}).state()
    assert all(torch.equal(again[name], state[name]) for name in state)
