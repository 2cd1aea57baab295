"""BERTScore compared with a plain loop, and with torchmetrics where that is right."""

import logging
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text.bert import bert_score

from lit_mem.errors import ConfigError, ModelError
from lit_mem.extraction import BertScore, Continuation
from lit_mem.functional.bert_score import greedy_match_f1


def pair(generated, truth):
    return Continuation([1], [1], generated, truth)


def shuffled(texts):
    """Pairs of very different lengths."""
    return [pair(texts[i][: 12 + 17 * (5 * i % 7)], texts[(i + 3) % 8][:100]) for i in range(8)]


def of_torchmetrics(encoder, pairs, layer=None):
    tokenizer, model = encoder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = bert_score(
            [c.generated for c in pairs],
            [c.truth for c in pairs],
            model=model,
            user_tokenizer=tokenizer,
            num_layers=layer,
            max_length=128,
            truncation=True,
        )
    return torch.atleast_1d(result["f1"]).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_each_pair_is_that_of_torchmetrics(encoder_folder, encoder, texts, layer):
    pairs = shuffled(texts)
    expected = [of_torchmetrics(encoder, [one], layer)[0] for one in pairs]
    assert BertScore(encoder_folder(), layer).over(pairs) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.02  # otherwise a mix-up of pairs would go unnoticed


def test_torchmetrics_still_mixes_up_the_pairs_of_a_batch(encoder, texts):
    pairs = shuffled(texts)
    alone = [of_torchmetrics(encoder, [one])[0] for one in pairs]
    together = of_torchmetrics(encoder, pairs)
    assert max(abs(a - b) for a, b in zip(alone, together, strict=True)) > 0.01, "mended: theirs can be used"


def test_it_is_the_plain_loop_over_tokens(encoder_folder, encoder):
    tokenizer, model = encoder
    vectors = []
    for text in ("a mild rash after 2 doses", "severe rash"):
        with torch.no_grad():
            states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vectors.append(states[1:-1])  # without [CLS] and [SEP]
    left, right = vectors
    cosine = [[float(torch.cosine_similarity(a, b, dim=0)) for b in right] for a in left]
    precision = sum(max(0.0, *row) for row in cosine) / len(left)
    recall = sum(max(0.0, *(row[j] for row in cosine)) for j in range(len(right))) / len(right)
    value = BertScore(encoder_folder())(pair("a mild rash after 2 doses", "severe rash"))
    assert value == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)


vectors = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=n, max_size=n)
)


@settings(deadline=None)
@given(vectors, vectors)
def test_the_matching_is_a_symmetric_share(left, right):
    left, right = torch.tensor(left, dtype=torch.float32), torch.tensor(right, dtype=torch.float32)
    value = greedy_match_f1(left, right)
    assert 0 <= value <= 1
    assert value == pytest.approx(greedy_match_f1(right, left), abs=1e-12)
    assert value == pytest.approx(greedy_match_f1(left * 7, right * 0.1), abs=1e-6)  # lengths do not count
    if left.any(dim=1).all():
        assert greedy_match_f1(left, left[torch.randperm(len(left))]) == pytest.approx(1.0)


def test_orthogonal_and_opposite_tokens_match_nothing():
    unit = torch.eye(4)
    assert greedy_match_f1(unit[:2], unit[2:]) == 0.0
    assert greedy_match_f1(unit[:1], -unit[:1]) == 0.0
    assert greedy_match_f1(unit[:2], unit[1:]) == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))


def test_a_copy_in_capitals_goes_through_the_model_and_is_one(encoder_folder):
    # The tokenizer lower-cases, so the texts differ but their tokens do not.
    assert BertScore(encoder_folder())(pair("A Rash Developed", "a rash developed")) == pytest.approx(1.0, abs=1e-6)


def test_a_text_that_the_tokenizer_cannot_read_is_zero(encoder_folder):
    # BERT's tokenizer drops characters that did not decode.
    measure = BertScore(encoder_folder())
    assert measure(pair("\ufffd", "rash")) == 0.0
    assert measure(pair("rash", "\ufffd")) == 0.0
    assert measure(pair("\ufffd \ufffd", "\ufffd")) == 0.0
    assert measure(pair("\ufffd", "\ufffd")) == 1.0


def test_a_text_without_any_token_may_stand_in_a_batch(encoder_folder):
    from tokenizers.processors import TemplateProcessing

    measure = BertScore(encoder_folder())
    expected = measure(pair("rash", "dose"))
    tokenizer, _ = measure.encoder._loaded
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    bare = measure(pair("rash", "dose"))
    assert 0 < bare != expected  # without [CLS] and [SEP]
    assert measure(pair("\ufffd", "\ufffd\ufffd")) == 0.0
    assert measure.over([pair("\ufffd", "rash"), pair("rash", "dose")]) == pytest.approx([0.0, bare], abs=1e-6)


def test_padding_and_batch_size_make_no_difference(encoder_folder, texts):
    pairs = shuffled(texts)
    one, many = BertScore(encoder_folder(), batch_size=1), BertScore(encoder_folder(), batch_size=5)
    assert one.over(pairs) == pytest.approx(many.over(pairs), abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_text_longer_than_the_model_takes_is_cut(encoder_folder, kind):
    measure = BertScore(encoder_folder(kind))
    start = "rash " * 300
    assert measure(pair(start + "dose", start + "other")) == pytest.approx(1.0, abs=1e-6)
    assert measure(pair("dose " * 3, start)) < 1


def test_a_causal_model_without_closing_token_serves_too(texts):
    measure = BertScore("asset:tiny_llama")
    assert measure(pair("rash", "rash")) == 1.0
    assert 0 < measure(pair("A rash", "rash developed")) < 1


def test_the_model_is_loaded_once_frozen_and_without_a_trace(encoder_folder, tmp_path, caplog):
    from transformers import AutoModel, AutoTokenizer

    AutoTokenizer.from_pretrained(encoder_folder()).save_pretrained(tmp_path)
    # Without the pooler, as language models are saved; transformers then initializes one randomly.
    AutoModel.from_pretrained(encoder_folder(), add_pooling_layer=False).save_pretrained(tmp_path)
    measure = BertScore(str(tmp_path))
    assert measure(pair("", "rash")) == 0.0
    assert measure.encoder._loaded is None  # not needed yet
    random = torch.get_rng_state()
    with torch.inference_mode(), caplog.at_level(logging.INFO, "lit_mem"):
        first = measure(pair("a rash", "a dose"))
    assert torch.equal(torch.get_rng_state(), random)
    loaded = measure.encoder._loaded
    _, model = loaded
    assert measure(pair("a rash", "a dose")) == first
    assert measure.encoder._loaded is loaded
    said = [r.getMessage() for r in caplog.records if r.name.startswith("lit_mem")]
    assert said == [f"BertScore loaded {tmp_path} onto cpu."]
    assert not any(m.training for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(t.is_inference() for t in [*model.parameters(), *model.buffers()])
    assert {p.dtype for p in model.parameters()} == {torch.float32}

    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.measure = measure

    assert not list(Holder().parameters())


def test_weights_saved_in_16_bits_are_computed_with_in_32(encoder_folder, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(encoder_folder(), dtype=torch.bfloat16).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoder_folder()).save_pretrained(tmp_path)
    measure = BertScore(str(tmp_path))
    assert 0 < measure(pair("rash", "dose")) < 1
    _, model = measure.encoder._loaded
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def damaged(encoder_folder, folder, what):
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    AutoTokenizer.from_pretrained(encoder_folder()).save_pretrained(folder)
    model = AutoModel.from_pretrained(encoder_folder())
    if what == "pickled":
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    elif what == "lacking":
        state = {k: v for k, v in model.state_dict().items() if "layer.1" not in k}
        model.save_pretrained(folder, state_dict=state)
    elif what == "small":
        model.resize_token_embeddings(9)
        model.save_pretrained(folder)
    elif what == "not finite":
        model.embeddings.LayerNorm.weight.data[0] = torch.nan
        model.save_pretrained(folder)
    elif what == "decoding":
        config = AutoConfig.for_model("bart", vocab_size=99, d_model=16, encoder_layers=1, decoder_layers=1)
        AutoModel.from_config(config).save_pretrained(folder)
    elif what == "truncated":
        model.save_pretrained(folder)
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no config", "cannot load the weights of BertScore.model .*the folder has no config.json"),
        ("pickled", r"cannot load the weights of BertScore.model .*: pytorch_model\.bin is a pickle"),
        ("lacking", "BertScore.model .* lacks 16 weights of a BertModel"),
        ("small", "its tokenizer gives token [0-9]+, the model has 9"),
        ("not finite", "BertScore.model .* gives non-finite"),
        ("decoding", "is an encoder-decoder; expected an encoder such as BERT"),
        ("truncated", r"cannot load the weights of BertScore.model .*/model\.safetensors is damaged or truncated"),
    ],
)
def test_a_model_that_cannot_serve_is_one_clear_line(encoder_folder, tmp_path, what, message):
    damaged(encoder_folder, tmp_path, what)
    with pytest.raises(ModelError, match=message) as caught:
        BertScore(str(tmp_path))(pair("rash", "dose"))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/folder", "BertScore.model is the folder /no/such/folder, which does not exist"),
        ("nobody/nothing", "neither a local folder nor in the hub cache"),
    ],
)
def test_a_model_that_is_nowhere_is_one_clear_line(model, message):
    with pytest.raises(ModelError, match=message):
        BertScore(model)(pair("rash", "dose"))


def test_options_out_of_range_are_named(encoder_folder):
    with pytest.raises(ConfigError, match=r"BertScore.layer is -1; expected at least 0, or null"):
        BertScore("any", layer=-1)
    with pytest.raises(ConfigError, match=r"BertScore.batch_size is 0; expected at least 1"):
        BertScore("any", batch_size=0)
    with pytest.raises(ModelError, match=r"BertScore.layer is 3; .* has layers 0 \(the embeddings\) to 2"):
        BertScore(encoder_folder(), layer=3)(pair("rash", "dose"))
