"""Extraction: which tokens are the suffix, what counts as extracted, and how two texts are compared."""

import random
from difflib import SequenceMatcher

import pytest
import torch
from torchmetrics.functional.text import edit_distance

from lit_mem.data.encoding import collate
from lit_mem.extraction import (
    Continuation,
    Discoverable,
    EditSimilarity,
    ExactMemorization,
    ExtractionStrength,
    LongestCommonSubstring,
    NgramRate,
    RougeL,
)
from lit_mem.extraction.prompts import cut_prompt
from lit_mem.generation.decoding import decode
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Needs, Sampling

ALL = Sampling()


def of(generated, truth):
    return Continuation([1], [1], generated, truth)


# From the scoring pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["0", "1", "00", "10", "01", "0000000", "1111110", "0000001", "1011", "1111"])
def test_extraction_strength_is_zero_where_the_end_is_missed(scores_of, pattern):
    """open-unlearning's loop ends at k = n − 1: 1/n for a text of which nothing is known, .143 for one of 7 tokens."""
    n, hit = len(pattern), [letter == "1" for letter in pattern]
    theirs = next((1 - k / n for k in range(n) if all(hit[k:])), 1 / n)
    right = 1 - min(k for k in range(n + 1) if all(hit[k:])) / n
    ours = ExtractionStrength()(scores_of([[-1.0] * n], hit=[hit])).item()
    assert ours == pytest.approx(right)
    if not hit[-1]:
        assert ours == 0.0
        assert theirs == pytest.approx(1 / n)


def test_exact_memorization_counts_the_last_token(scores_of):
    """open-unlearning omits the last label as an end token, even if it is a word of the text."""
    hit = [True, False, True, True]
    theirs = sum(hit[:-1]) / len(hit[:-1])
    assert theirs == 2 / 3
    assert ExactMemorization()(scores_of([[-1.0] * 4], hit=[hit])).item() == 0.75


def test_prefix_and_suffix_are_fifty_tokens_each(base, tokenizer, texts, alone):
    """lm-extraction-benchmark's baseline ranks by tokens [-51:-1]: it includes one of the prefix and omits the last."""
    words = [i for text in texts for i in tokenizer(text, add_special_tokens=False)["input_ids"]][:100]
    ids = torch.tensor([tokenizer.bos_token_id, *words])
    labels = ids.clone()
    labels[0] = -100
    prompt = cut_prompt(ids, labels, 50, tokenizer.eos_token_id)
    assert prompt.suffix.tolist() == words[-50:]
    assert prompt.input_ids[: prompt.cut].tolist() == [tokenizer.bos_token_id, *words[:50]]
    logprob = alone(base, ids)
    theirs, right = logprob[-51:-1].sum().item(), logprob[-50:].sum().item()
    batch = {
        "input_ids": ids[None], "labels": labels[None], "example_id": torch.tensor([0]), "member": torch.tensor([True]),
    }  # fmt: skip
    scores = TokenScorer(base)(batch, Needs(sampling=frozenset({ALL})))
    ours = Discoverable(prefix=50, sampling=ALL).suffix_logprob(scores).item()
    assert ours == pytest.approx(right, rel=1e-5)
    assert abs(theirs - right) > 0.1


@torch.no_grad()
def test_the_suffix_is_cut_out_as_tokens_and_never_tokenized_again(base, tokenizer, texts, example_of, alone):
    """PrivacyGuard tokenizes prompt and target separately: if cut within a token, these are not the text's tokens."""
    example = example_of(texts[0])
    ids = example.input_ids
    words = tokenizer.convert_ids_to_tokens(ids)
    cut = next(t for t in range(6, len(ids)) if len(words[t]) >= 5 and words[t][1:].isalpha())
    head, tail = tokenizer.decode(ids[1:cut]), tokenizer.decode(ids[cut:])
    start, target = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (head + tail[:3], tail[3:]))
    logprob = base(input_ids=ids[None]).logits[0].double().log_softmax(-1)
    within = enumerate(target[: len(ids) - len(start)])
    theirs = sum(logprob[len(start) + i, token].item() for i, token in within)
    right = alone(base, ids)[cut - 1 :].sum().item()
    assert target != ids[cut:].tolist()
    assert abs(theirs - right) > 1
    prompt = cut_prompt(ids, example.labels, cut - 1, tokenizer.eos_token_id)
    assert prompt.suffix.tolist() == ids[cut:].tolist()
    scores = TokenScorer(base)(collate([example]), Needs(sampling=frozenset({ALL})))
    assert Discoverable(prefix=cut - 1, sampling=ALL).suffix_logprob(scores).item() == pytest.approx(right, rel=1e-5)


def test_every_prompt_of_a_batch_is_answered(base, examples):
    """PrivacyGuard finds a prompt's end by its first padding token: with left padding, one row of three is left."""
    base.generation_config.pad_token_id = 3
    prompts = [examples[i].input_ids[: 5 + 4 * i] for i in (0, 3, 6)]
    width = max(map(len, prompts))
    starts = [width - len(p) for p in prompts]
    padded = torch.stack(
        [torch.nn.functional.pad(p, (start, 0), value=3) for p, start in zip(prompts, starts, strict=True)]
    )
    ends = [int(found[0]) if len(found := (row == 3).nonzero()) else width for row in padded]
    theirs = [row[end - 1 : end - 1 + 4].tolist() for row, end in zip(padded, ends, strict=True)]
    assert [bool(row) for row in theirs] == [False, False, True]
    answers = decode(base, prompts, [6] * 3, eos=None)
    for prompt, answer in zip(prompts, answers, strict=True):
        whole = base.generate(
            prompt[None], attention_mask=torch.ones_like(prompt[None]), do_sample=False, max_new_tokens=6,
            min_new_tokens=6,
        )  # fmt: skip
        assert answer.ids.tolist() == whole[0, len(prompt) :].tolist()


@pytest.mark.parametrize("n_suffix", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_suffix_without_a_miss_is_what_greedy_decoding_writes(base, examples, n_suffix):
    """Greedy k-extractibility, as generated by pythia: the scoring pass gives the same without generation."""
    scores = TokenScorer(base)(collate(examples[:12]))
    found = []
    for row, example in enumerate(examples[:12]):
        ids = example.input_ids
        for end in range(n_suffix + 2, len(ids) + 1, 3):
            (answer,) = decode(base, [ids[: end - n_suffix]], [n_suffix], eos=None)
            written = answer.ids.tolist() == ids[end - n_suffix : end].tolist()
            assert bool(scores.hit[row, end - n_suffix : end].all()) == written
            found.append(written)
    assert 5 < sum(found) < len(found) - 5, "all alike would say nothing"


# Comparing two texts ----------------------------------------------------------------------------------------------


def test_words_that_are_frequent_in_long_texts_are_not_junk():
    """difflib drops items that make up over 1 % of 200 or more (autojunk), and so does PrivacyGuard's subsequence."""
    truth = "it was given and " * 60
    generated = "then " + truth
    for left, right in ((generated.split(), truth.split()), (generated, truth)):
        theirs = SequenceMatcher(None, left, right).find_longest_match(0, len(left), 0, len(right)).size
        assert theirs < 2
    assert NgramRate()(of(generated, truth)) == 1.0
    assert LongestCommonSubstring()(of(generated, truth)) == 1.0


def longest_common_subsequence(left, right):
    row = [0] * (len(right) + 1)
    for a in left:
        before = row[:]
        for j, b in enumerate(right):
            row[j + 1] = before[j] + 1 if a == b else max(before[j + 1], row[j])
    return row[-1]


def test_a_subsequence_is_the_longest_and_not_the_sum_of_matching_blocks():
    """PrivacyGuard sums difflib's matching blocks: the longest run is chosen first, and excludes overlapping ones."""
    generated, truth = "m n a b c d", "a x b y c z d m n"
    blocks = SequenceMatcher(None, generated.split(), truth.split(), autojunk=False).get_matching_blocks()
    theirs = sum(block.size for block in blocks)
    right = longest_common_subsequence(generated.split(), truth.split())
    assert (theirs, right) == (2, 4)
    assert RougeL("recall")(of(generated, truth)) == pytest.approx(right / 9)
    assert RougeL("precision")(of(generated, truth)) == pytest.approx(right / 6)


def test_rouge_compares_words_and_not_their_stems():
    """open-unlearning's ROUGE uses stems: other words with the same stem count as copied."""
    generated, truth = "rashes developing", "rash developed"
    stems = {"rashes": "rash", "developing": "develop", "developed": "develop"}
    theirs = longest_common_subsequence(
        [stems.get(w, w) for w in generated.split()], [stems.get(w, w) for w in truth.split()]
    )
    assert theirs == 2
    assert RougeL("recall")(of(generated, truth)) == 0.0


def test_recall_alone_does_not_mind_what_else_was_written():
    """A recall of 1 for a long text that contains the true words somewhere; the default is the F-measure."""
    truth = "a rash developed"
    generated = "a fever and later on some days after it a mild rash had then developed again"
    assert RougeL("recall")(of(generated, truth)) == 1.0
    n = len(generated.split())
    assert RougeL()(of(generated, truth)) == pytest.approx(2 * 3 / (n + 3))


def test_an_edit_distance_searches_beyond_the_diagonal():
    """torchmetrics 1.9 searches a band beside the diagonal: a copy shifted by 60 characters is hardly one."""
    text = "".join(random.Random(0).choices("abcdefgh", k=240))
    generated, truth = "#" * 60 + text, text + "=" * 60
    row = list(range(len(truth) + 1))
    for i, a in enumerate(generated, start=1):
        before, row = row, [i]
        for j, b in enumerate(truth, start=1):
            row.append(min(before[j - 1] + (a != b), before[j] + 1, row[-1] + 1))
    assert row[-1] == 120
    theirs = edit_distance(generated, truth).item()
    assert theirs > 200
    assert EditSimilarity()(of(generated, truth)) == pytest.approx(1 - 120 / 300)
