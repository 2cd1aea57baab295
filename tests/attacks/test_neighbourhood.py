"""The neighbourhood attack compared with the model's own loss on the same neighbours, and properties of neighbours."""

import logging
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_mem.attacks.neighbourhood import Neighbourhood
from lit_mem.attacks.word_replacement import WordReplacer
from lit_mem.errors import ConfigError, ModelError

TEXT = "The patient, a 34-year-old woman, was ill: FEVER and pain after 2 days."
WORDS = re.findall(r"[^\W_]+", TEXT)


@pytest.fixture
def prober(make_prober, tokenizer, tuned, small):
    return make_prober(tokenizer, tuned, small)


@pytest.fixture(scope="session")
def replacer(masked_lm):
    return WordReplacer(masked_lm)


def drawn(replacer, text, count=8, share=0.15, seed=0):
    return replacer.versions(text, count, share, torch.Generator().manual_seed(seed))


def changes(text, version):
    """(old, new) of each word that differs; the text between words must be the same."""
    assert re.sub(r"[^\W_]+", "_", version) == re.sub(r"[^\W_]+", "_", text)
    pairs = zip(re.findall(r"[^\W_]+", text), re.findall(r"[^\W_]+", version), strict=True)
    return [(old, new) for old, new in pairs if old != new]


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.15, 2), (0.4, 6), (1.0, 15)])
def test_a_share_of_the_words_becomes_other_words(replacer, share, count):
    assert len(WORDS) == 15
    for version in drawn(replacer, TEXT, share=share):
        pairs = changes(TEXT, version)
        assert len(pairs) == count
        for old, new in pairs:
            assert new.casefold() != old.casefold()
            assert new[0].isupper() == (old[0].isupper() and not new[0].isdigit())
            assert replacer._ids[new.casefold()]
            assert new.isalnum()


def test_neighbours_differ_and_depend_on_the_generator_alone(replacer):
    random_state = torch.get_rng_state()
    assert drawn(replacer, TEXT) == drawn(replacer, TEXT)
    assert drawn(replacer, TEXT) != drawn(replacer, TEXT, seed=1)
    assert len(set(drawn(replacer, TEXT))) > 4
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.slow
def test_likelier_words_are_drawn_more_often_and_only_the_best_twenty(replacer, masked_lm):
    """One word of three is masked; replacements follow the model's distribution over its 20 best words."""
    text, n = "the xyz pain", 600
    versions = [v for v in drawn(replacer, text, count=3 * n, share=0.3) if v.split()[1] != "xyz"]
    encoded = replacer.tokenizer("the [MASK] pain", return_tensors="pt")
    at = encoded["input_ids"][0].tolist().index(replacer.tokenizer.mask_token_id)
    with torch.no_grad():
        logits = replacer.model(**encoded).logits[0, at]
    names = replacer.tokenizer.convert_ids_to_tokens(range(len(logits)))
    whole = [i for i, name in enumerate(names) if name.isalnum()]
    best = sorted(whole, key=lambda i: -logits[i])[:20]
    expected = dict(zip([names[i] for i in best], logits[best].softmax(0).tolist(), strict=True))
    found = [v.split()[1] for v in versions]
    assert set(found) <= set(expected)
    for word, p in expected.items():
        tolerance = 5 * (p * (1 - p) / len(found)) ** 0.5
        assert found.count(word) / len(found) == pytest.approx(p, abs=tolerance)


def test_a_text_that_spells_the_mask_token_is_no_trap(replacer):
    for version in drawn(replacer, "a [MASK] was [MASK] here", share=0.4):
        assert len(changes("a [MASK] was [MASK] here", version)) == 2


def test_words_beyond_what_the_masked_model_reads_stay(replacer, caplog):
    text = "the patient was old " * 100
    with caplog.at_level(logging.WARNING):
        versions = drawn(replacer, text, share=1.0, count=2)
    for version in versions:
        assert 100 <= len(changes(text, version)) <= 126
        assert version.split()[130:] == text.split()[130:]


@given(text=st.text(max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_has_neighbours_or_no_word(replacer, text):
    versions = drawn(replacer, text, count=3)
    assert len(versions) == (3 if re.search(r"[^\W_]", text) else 0)
    assert all(version != text for version in versions)


def test_it_is_the_difference_of_losses_of_the_model_itself(
    prober, tokenizer, tuned, encode, scored, loss_of, masked_lm
):
    prompt = "Report. "
    examples = [encode(TEXT, 7), encode(TEXT, 8, prompt=prompt), encode(TEXT, 9, bos=False)]
    attack = Neighbourhood(masked_lm, neighbours=4, seed=3)
    attack.prepare(prober)
    values = attack(scored(prober, examples)).tolist()
    for example, value in zip(examples, values, strict=True):
        made = [
            row.input_ids.tolist() for row in attack._made[next(k for k in attack._made if k[0] == example.example_id)]
        ]
        front = {7: "<s>", 8: "<s>" + prompt, 9: ""}[example.example_id]
        texts = [tokenizer.decode(ids).removeprefix(front) for ids in made]
        assert all(len(changes(TEXT, text)) == 2 for text in texts)
        bos = example.example_id != 9
        start = int((example.labels != -100).nonzero()[0])
        head = prompt if example.example_id == 8 else ""
        losses = [
            loss_of(tuned, tokenizer(head + text, add_special_tokens=False)["input_ids"] if not bos
                    else tokenizer(head + text)["input_ids"], start)
            for text in texts
        ]  # fmt: skip
        own = loss_of(tuned, example.input_ids[:-1], start)
        assert value == pytest.approx(sum(losses) / 4 - own, abs=3e-5)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_neighbours_are_made_once_and_depend_on_seed_id_and_text(prober, small, scored, encode, masked_lm):
    def made(seed, *examples):
        attack = Neighbourhood(masked_lm, neighbours=3, seed=seed)
        attack.prepare(prober)
        for _ in range(2):
            attack(scored(prober, list(examples)))
        assert len(attack._made) == len(examples)
        return {key[0]: [row.input_ids.tolist() for row in rows] for key, rows in attack._made.items()}

    one, other = encode(TEXT, 1), encode(TEXT, 2)
    assert made(0, one, other)[1] == made(0, one)[1] == made(0, small[3], one)[1]
    assert made(0, one)[1] != made(1, one)[1]
    assert made(0, one, other)[1] != made(0, one, other)[2]
    assert made(0, encode(TEXT + " She recovered.", 1))[1] != made(0, one)[1]


def test_other_text_under_a_known_id_gets_its_own_neighbours(prober, scored, encode, masked_lm):
    attack = Neighbourhood(masked_lm, neighbours=2)
    attack.prepare(prober)
    attack(scored(prober, [encode(TEXT, 1)]))
    attack(scored(prober, [encode("She was ill after a day.", 1)]))
    assert len(attack._made) == 2


def test_the_masked_model_runs_once_for_each_example(prober, small, scored, masked_lm):
    attack = Neighbourhood(masked_lm, neighbours=2)
    attack.prepare(prober)
    first = attack(scored(prober, small))
    attack.prepare(prober)
    attack._replacer = None  # would raise if it were used
    attack.__dict__.pop("prober")
    attack.prober = prober
    assert torch.equal(attack(scored(prober, small)), first)


def test_a_text_without_a_word_cannot_be_judged(prober, small, scored, encode, masked_lm):
    attack = Neighbourhood(masked_lm, neighbours=2)
    attack.prepare(prober)
    values = attack(scored(prober, [encode("... (?) --", 60), small[2]]))
    assert values.isnan().tolist() == [True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"masked_lm": ""}, r"Neighbourhood\.masked_lm is empty"),
        ({"neighbours": 0}, r"Neighbourhood\.neighbours is 0"),
        ({"share": 0.0}, r"Neighbourhood\.share is 0\.0"),
        ({"share": 1.5}, r"Neighbourhood\.share is 1\.5"),
        ({"seed": -1}, r"Neighbourhood\.seed is -1"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        Neighbourhood(**({"masked_lm": "x"} | options))


def test_a_folder_without_a_model_is_rejected_in_one_line(tmp_path, prober):
    with pytest.raises(ModelError, match=r"Neighbourhood\.masked_lm .*no config\.json") as error:
        Neighbourhood(str(tmp_path)).prepare(prober)
    assert "\n" not in str(error.value)


def test_pickled_weights_are_rejected(tmp_path, prober, masked_lm):
    import shutil

    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(masked_lm, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"Neighbourhood\.masked_lm .*pytorch_model\.bin is a pickle"):
        Neighbourhood(str(folder)).prepare(prober)


def test_a_causal_model_is_rejected(prober):
    from lit_mem import assets

    with pytest.raises(ModelError, match=r"Neighbourhood\.masked_lm|no mask token"):
        Neighbourhood(str(assets.path("tiny_llama"))).prepare(prober)
