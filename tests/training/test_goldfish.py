"""Which tokens the goldfish loss drops."""

import pytest
import torch

from lit_mem.training.goldfish import goldfish_dropped


def ids(n=400, rows=20, vocabulary=500, seed=0):
    return torch.randint(0, vocabulary, (rows, n), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [2, 3, 4, 10])
@pytest.mark.parametrize("vocabulary", [2, 500, 128_256])
def test_one_in_k_is_left_out(k, vocabulary):
    dropped = goldfish_dropped(ids(vocabulary=vocabulary), k, 13)[:, 13:].double()
    assert dropped.mean() == pytest.approx(1 / k, abs=4 * (1 / k * (1 - 1 / k) / dropped.numel()) ** 0.5)
    # At each position of a text, and not in runs.
    assert (dropped.mean(dim=0) - 1 / k).abs().max() < 5 * (1 / k * (1 - 1 / k) / 20) ** 0.5
    both = (dropped[:, 1:] * dropped[:, :-1]).mean()
    assert both == pytest.approx(1 / k**2, abs=0.02)


def test_the_tokens_before_decide_and_nothing_else():
    tokens = ids()
    dropped = goldfish_dropped(tokens, 4, 5)
    for at, changes in ((100, range(101, 106)), (394, range(395, 400))):
        other = tokens.clone()
        other[:, at] += 1
        differs = (goldfish_dropped(other, 4, 5) != dropped).any(dim=0).nonzero().flatten().tolist()
        assert differs == list(changes)


def test_order_counts():
    tokens = ids(rows=400, n=3)
    swapped = tokens[:, [1, 0, 2]]
    differs = goldfish_dropped(tokens, 2, 2)[:, 2] != goldfish_dropped(swapped, 2, 2)[:, 2]
    assert differs.double().mean() == pytest.approx(0.5, abs=0.1)


def test_a_passage_loses_the_same_tokens_in_every_text():
    passage, context = ids(n=60, rows=1), 13
    texts = [torch.cat([ids(n=n, rows=1, seed=n), passage, ids(n=9, rows=1)], dim=1) for n in (5, 40)]
    shares = [goldfish_dropped(t, 4, context)[0, n + context : n + 60] for t, n in zip(texts, (5, 40), strict=True)]
    assert torch.equal(*shares)
    assert shares[0].any()


def test_short_texts_have_gaps_too():
    dropped = goldfish_dropped(ids(n=10, rows=2000), 4, 13)[:, 1:].double()
    assert dropped.mean(dim=0).tolist() == pytest.approx([0.25] * 9, abs=0.05)
    alike = goldfish_dropped(ids(n=10, rows=1).expand(3, -1), 4, 13)
    assert (alike == alike[0]).all()


def test_padding_and_what_follows_change_nothing():
    tokens = ids(n=30)
    padded = torch.cat([tokens, torch.zeros(20, 7, dtype=torch.int64)], dim=1)
    assert torch.equal(goldfish_dropped(padded, 4, 13)[:, :30], goldfish_dropped(tokens, 4, 13))


def test_the_choice_stays_the_same_over_versions():
    """Golden: a resumed run has the same gaps."""
    dropped = goldfish_dropped(torch.arange(24)[None], 4, 13)[0]
    assert dropped.nonzero().flatten().tolist() == GOLDEN


GOLDEN = [0, 1, 7, 8, 11, 14, 16, 19, 21, 22]


@pytest.mark.parametrize("width", [1, 2])
def test_the_shortest_texts(width):
    assert goldfish_dropped(torch.ones((3, width), dtype=torch.int64), 4, 13).shape == (3, width)
