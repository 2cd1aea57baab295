"""The lower-case attack compared with the model's own loss on lower-cased texts."""

import math
from dataclasses import replace

import pytest

from lit_mem.attacks.lowercase import Lowercase
from lit_mem.errors import MetricError

BOS = 1


@pytest.fixture
def prober(make_prober, tokenizer, tuned):
    return make_prober(tokenizer, tuned)


def value_of(prober, scored, example):
    attack = Lowercase()
    attack.prepare(prober)
    return attack(scored(prober, [example])).item()


def test_it_is_the_ratio_of_two_losses_of_the_model_itself(prober, tokenizer, tuned, texts, encode, scored, loss_of):
    examples = [encode(text, i) for i, text in enumerate(texts[:6])]
    attack = Lowercase()
    attack.prepare(prober)
    values = attack(scored(prober, examples)).tolist()
    for text, value in zip(texts, values, strict=False):
        assert text != text.lower()
        lower = loss_of(tuned, tokenizer(text.lower())["input_ids"], 1)
        assert value == pytest.approx(lower / loss_of(tuned, tokenizer(text)["input_ids"], 1), rel=2e-5)


def test_a_lower_case_text_scores_one(prober, encode, texts, scored):
    assert value_of(prober, scored, encode(texts[0].lower())) == pytest.approx(1, abs=1e-6)


def test_a_prompt_keeps_its_tokens(prober, tokenizer, tuned, encode, scored, loss_of):
    example = encode(" WAS Admitted with FEVER.", prompt="The Patient")
    start = int((example.labels != -100).nonzero()[0])
    prompt = example.input_ids.tolist()[:start]
    assert tokenizer.decode(prompt[1:]) == "The Patient"
    # Tokenized together, like the data, the boundary is unchanged.
    together = tokenizer("The Patient was admitted with fever.")["input_ids"]
    assert together[:start] == prompt
    expected = loss_of(tuned, together, start) / loss_of(tuned, example.input_ids[:-1], start)
    assert value_of(prober, scored, example) == pytest.approx(expected, rel=2e-5)


def test_a_token_that_reaches_over_the_seam_keeps_the_prompts_part(prober, tokenizer, tuned, encode, scored, loss_of):
    """The prompt ends with a space that belongs to the first word's token, but not to a digit's, in both versions."""
    for prompt, text in (("The Patient ", "WAS ill"), ("The Patient ", "was Ill"), ("Age: ", "34 Years")):
        example = encode(text, prompt=prompt)
        start = int((example.labels != -100).nonzero()[0])
        encoded = tokenizer(prompt + text.lower(), return_offsets_mapping=True)
        first = next(i for i, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(prompt))
        expected = loss_of(tuned, encoded["input_ids"], first) / loss_of(tuned, example.input_ids[:-1], start)
        assert value_of(prober, scored, example) == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("prompt", ["", "The"])
def test_without_a_bos_the_first_token_is_of_the_text_or_of_the_prompt(
    prompt, prober, tokenizer, tuned, encode, scored, loss_of
):
    example = encode(" Patient WAS Ill", prompt=prompt, bos=False)
    text = tokenizer(prompt + " patient was ill", add_special_tokens=False)["input_ids"]
    assert (example.labels[:2] != -100).tolist() == [False, True]
    expected = loss_of(tuned, text, 1) / loss_of(tuned, example.input_ids[:-1], 1)
    assert value_of(prober, scored, example) == pytest.approx(expected, rel=2e-5)


def test_a_lower_cased_text_without_a_token_to_score_cannot_be_judged(prober, tokenizer, encode, scored):
    """Without BOS the first token is never scored, and in lower case there is no other."""

    def tokens(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    words = sorted(w for w in tokenizer.get_vocab() if w.isalpha() and w.islower() and w.isascii())
    word = next(w for w in words if tokens(w) == 1 and tokens(w.upper()) > 1)
    example = encode(word.upper(), bos=False)
    assert example.scored.any()
    assert math.isnan(value_of(prober, scored, example))


def test_what_does_not_fit_the_model_is_cut(prober, tokenizer, tuned, encode, texts, scored, loss_of):
    example = encode(texts[0].upper()[:60])
    limit = 12
    tuned.config.max_position_embeddings = limit
    lower = tokenizer(texts[0][:60].lower())["input_ids"]
    assert len(lower) > limit
    expected = loss_of(tuned, lower[:limit], 1) / loss_of(tuned, example.input_ids[:-1], 1)
    assert value_of(prober, scored, example) == pytest.approx(expected, rel=2e-5)


def test_a_batch_without_texts_is_rejected(prober, encode, scored):
    with pytest.raises(MetricError, match="the lower-case attack needs the examples' texts"):
        value_of(prober, scored, replace(encode("The patient"), record=None))
