"""Cutting texts into prefix and suffix, as a table."""

from fractions import Fraction

import pytest
import torch

from lit_mem.extraction.prompts import cut_prompt

BOS, EOS, PAD = 1, 2, 0


def cut(ids, trained_from, prefix, eos=EOS, n_padding=0):
    """Cut ids with labels from `trained_from` on, and return (prefix, suffix) as lists, or None."""
    input_ids = torch.tensor([*ids, *[PAD] * n_padding])
    labels = input_ids.clone()
    labels[:trained_from] = -100
    labels[len(ids) :] = -100
    prompt = cut_prompt(input_ids, labels, prefix, eos)
    if prompt is None:
        return None
    assert prompt.input_ids[prompt.cut :].tolist() == prompt.suffix.tolist()
    return prompt.input_ids[: prompt.cut].tolist(), prompt.suffix.tolist()


@pytest.mark.parametrize(
    ("ids", "trained_from", "prefix", "expected"),
    [
        # a share of the tokens after BOS, rounded down
        ([BOS, 11, 12, 13, 14], 1, 0.5, ([BOS, 11, 12], [13, 14])),
        ([BOS, 11, 12, 13, 14, 15], 1, 0.5, ([BOS, 11, 12], [13, 14, 15])),
        ([BOS, 11, 12, 13, 14], 1, 0.0, ([BOS], [11, 12, 13, 14])),
        ([BOS, 11, 12, 13, 14], 1, 0.99, ([BOS, 11, 12, 13], [14])),
        ([BOS, 11], 1, 0.5, ([BOS], [11])),
        # a number of tokens
        ([BOS, 11, 12, 13, 14], 1, 1, ([BOS, 11], [12, 13, 14])),
        ([BOS, 11, 12, 13, 14], 1, 3, ([BOS, 11, 12, 13], [14])),
        ([BOS, 11, 12, 13, 14], 1, 0, ([BOS], [11, 12, 13, 14])),
        # the end-of-text token is not part of the suffix, and does not count
        ([BOS, 11, 12, 13, 14, EOS], 1, 0.5, ([BOS, 11, 12], [13, 14])),
        ([BOS, 11, 12, EOS], 1, 1, ([BOS, 11], [12])),
        ([BOS, 11, EOS, 12, 13], 1, 3, ([BOS, 11, EOS, 12], [13])),  # only at the end
        # a prompt before a completion is always part of the prefix, and does not count
        ([BOS, 90, 91, 11, 12, 13, 14, EOS], 3, 0.5, ([BOS, 90, 91, 11, 12], [13, 14])),
        ([BOS, 90, 91, 11, 12], 3, 0, ([BOS, 90, 91], [11, 12])),
        ([BOS, 90, 91, 11, 12], 3, 1, ([BOS, 90, 91, 11], [12])),
        # too short
        ([BOS, 11, 12, 13, 14], 1, 4, None),
        ([BOS, 11, 12, 13, 14], 1, 100, None),
        ([BOS, 11, 12, 13, 14, EOS], 1, 4, None),
        ([BOS, EOS], 1, 0.5, None),
        ([BOS, 90, EOS], 2, 0, None),
        ([BOS, 90, 91], 3, 0.5, None),  # nothing is trained on
        # no BOS and a label on the first token: an empty prefix cannot be a prompt
        ([11, 12, 13], 0, 0.0, None),
        ([11, 12, 13, 14], 0, 0.5, ([11, 12], [13, 14])),
    ],
)
@pytest.mark.parametrize("n_padding", [0, 3])
def test_table(ids, trained_from, prefix, expected, n_padding):
    assert cut(ids, trained_from, prefix, n_padding=n_padding) == expected


def test_without_an_end_of_text_token_the_last_token_stays():
    assert cut([BOS, 11, EOS], 1, 1, eos=None) == ([BOS, 11], [EOS])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_share_is_that_of_exact_fractions():
    wrong = []
    for n_tokens in range(1, 121):
        ids = list(range(100, 102 + n_tokens))
        for percent in range(100):
            prefix, suffix = cut(ids, 2, percent / 100)
            assert suffix
            assert prefix + suffix == ids
            if len(prefix) - 2 != Fraction(percent, 100) * n_tokens // 1:
                wrong.append((n_tokens, percent, len(prefix) - 2))
    assert not wrong
