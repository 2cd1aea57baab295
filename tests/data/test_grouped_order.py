"""Training batches by length: the order, and what is unchanged."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.trainer_pt_utils import get_length_grouped_indices

from lit_mem.data.encoding import Encoded
from lit_mem.data.grouped_order import GroupedOrder, grouped_order

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300)


def examples(lengths):
    return [Encoded(torch.zeros(n).long(), torch.zeros(n).long(), i, True) for i, n in enumerate(lengths)]


@given(LENGTHS, st.integers(1, 9), st.integers(0, 5))
@settings(deadline=None)
def test_the_order_is_that_of_the_hugging_face_trainer(lengths, batch_size, seed):
    theirs = get_length_grouped_indices(lengths, batch_size, generator=torch.Generator().manual_seed(seed))
    assert grouped_order(lengths, batch_size, torch.Generator().manual_seed(seed)) == theirs


@given(LENGTHS, st.integers(1, 9), st.integers(1, 5), st.integers(0, 3))
@settings(deadline=None)
def test_ranks_share_out_one_order_with_every_example_in_it(lengths, batch_size, world, epoch):
    dealt = []
    for rank in range(world):
        order = GroupedOrder(examples(lengths), batch_size, world, rank, seed=7)
        order.set_epoch(epoch)
        dealt.append(list(order))
        assert len(order) == len(dealt[-1])
    assert len({len(share) for share in dealt}) == 1
    whole = [i for step in zip(*dealt, strict=True) for i in step]
    single = GroupedOrder(examples(lengths), batch_size, seed=7)
    single.set_epoch(epoch)
    assert whole[: len(lengths)] == list(single)
    assert whole[len(lengths) :] == (list(single) * world)[: len(whole) - len(lengths)]
    assert Counter(single) == Counter(range(len(lengths)))


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = torch.randint(1, 60, (100,), generator=torch.Generator().manual_seed(0)).tolist()

    def order(seed, epoch):
        made = GroupedOrder(examples(lengths), 4, seed=seed)
        made.set_epoch(epoch)
        torch.manual_seed(seed + 10 * epoch)
        return list(made)

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 100) for epoch in range(3)}) == 6


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_less_is_padded_than_in_a_random_order(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(5, 100, (256,), generator=generator).tolist()

    def computed(order):
        return sum(8 * max(lengths[i] for i in order[at : at + 8]) for at in range(0, len(order), 8))

    grouped = computed(grouped_order(lengths, 8, generator))
    assert grouped < 1.25 * sum(lengths) < computed(torch.randperm(256, generator=generator).tolist())


def padding(data, **options):
    made = data(tokenizer="asset:tiny_llama", train_size=96, batch_size=4, **options)
    made.setup("fit")
    return sum(int((batch["labels"] == -100).sum()) - len(batch["labels"]) for batch in made.train_dataloader())


def test_the_option_groups_the_training_batches_and_is_off_by_default(data):
    assert padding(data, group_by_length=True) < padding(data) / 2
    assert padding(data) == padding(data, group_by_length=False)


@pytest.mark.parametrize("done", [1, 2])
def test_an_epoch_after_a_resume_has_the_order_it_would_have_had(data, done):
    def orders(first):
        made = data(tokenizer="asset:tiny_llama", group_by_length=True)
        made.setup("fit")
        loader = made.train_dataloader()
        found = []
        for epoch in range(first, 4):
            loader.sampler.set_epoch(epoch)  # as Lightning does
            found.append([batch["example_id"].tolist() for batch in loader])
        return found

    assert orders(done) == orders(0)[done:]
    assert orders(0)[0] != orders(0)[1]
