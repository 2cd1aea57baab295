"""The cache that grows in place, compared with one that is copied for every token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicCache, DynamicSlidingWindowLayer

from lit_mem.generation.kv_cache import PreallocatedLayer, join

HEADS, SIZE = 2, 3


def states(rows, tokens, generator):
    return [torch.randn(rows, HEADS, tokens, SIZE, generator=generator) for _ in range(2)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.sampled_from(["token", "first", "some", "crop"]), max_size=12))
def test_it_holds_what_a_copied_one_holds(seed, actions):
    generator = torch.Generator().manual_seed(seed)
    keys, values = states(6, 5, generator)
    extra = torch.full((6, HEADS, len(actions), SIZE), torch.nan)
    layer = PreallocatedLayer(torch.cat([keys, extra], 2), torch.cat([values, extra], 2), 5)
    for action in actions:
        n = len(keys)
        if action == "token":
            new = states(n, 1, generator)
            keys, values = torch.cat([keys, new[0]], 2), torch.cat([values, new[1]], 2)
            given_back = layer.update(*new)
            assert torch.equal(given_back[0], keys)
            assert torch.equal(given_back[1], values)
        elif action == "crop":
            first = min(1, keys.shape[2] - 1)
            keys, values = keys[:, :, first:], values[:, :, first:]
            layer.keep(slice(n), first)
        else:
            rows = list(range(n))[: max(1, n - 1)] if action == "first" else list(range(n))[:: 2 if n > 1 else 1]
            keys, values = keys[rows], values[rows]
            layer.keep(slice(len(rows)) if action == "first" else torch.tensor(rows), 0)
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)
        assert layer.get_seq_length() == keys.shape[2]


def test_first_rows_stay_without_a_copy():
    layer = PreallocatedLayer(torch.zeros(4, HEADS, 6, SIZE), torch.zeros(4, HEADS, 6, SIZE), 3)
    before = layer.keys.untyped_storage().data_ptr()
    layer.keep(slice(2), 1)
    layer.update(torch.ones(2, HEADS, 1, SIZE), torch.ones(2, HEADS, 1, SIZE))
    assert layer.keys.untyped_storage().data_ptr() == before
    assert layer.keys.shape == (2, HEADS, 3, SIZE)


def cache(*layers):
    made = DynamicCache()
    for i, (keys, values) in enumerate(layers):
        made.update(keys, values, i)
    return made


def test_joined_caches_stand_in_their_places_padded_on_the_left():
    generator = torch.Generator().manual_seed(0)
    long, short = [states(2, 5, generator) for _ in range(3)], [states(3, 2, generator) for _ in range(3)]
    first, second = cache(*long), cache(*short)
    places = [[0, 3], [1, 2, 4]]
    assert join([first, second], places, extra=4)
    for layer, (keys, values), (short_keys, short_values) in zip(first.layers, long, short, strict=True):
        for found, one, other in ((layer.keys, keys, short_keys), (layer.values, values, short_values)):
            assert found.shape == (5, HEADS, 5, SIZE)
            assert torch.equal(found[places[0]], one)
            assert torch.equal(found[places[1]][:, :, 3:], other)
            assert not found[places[1]][:, :, :3].any()
    for _ in range(4):
        first.update(*states(5, 1, generator), 0)


@pytest.mark.parametrize("kind", ["sliding", "other"])
def test_another_kind_of_cache_is_left_alone(kind):
    generator = torch.Generator().manual_seed(0)
    plain, odd = cache(states(2, 5, generator)), cache(states(2, 5, generator))
    if kind == "sliding":
        odd.layers = [DynamicSlidingWindowLayer(sliding_window=4)]
        odd.update(*states(2, 5, generator), 0)
    else:
        odd.__class__ = type("OtherCache", (DynamicCache,), {})
    layers = plain.layers[0], odd.layers[0]
    keys = plain.layers[0].keys.clone()
    assert not join([plain, odd], [[0, 1], [2, 3]], extra=4)
    assert (plain.layers[0], odd.layers[0]) == layers
    assert torch.equal(plain.layers[0].keys, keys)
