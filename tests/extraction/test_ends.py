"""An end token inside a true suffix: the same rule for every extraction measure, compared with `model.generate`.

The model has memorized one text; so its generation, and the value of each measure, is known exactly.
"""

import logging
import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lit_mem import assets
from lit_mem.adapters import FullFineTuning, LoRA
from lit_mem.callbacks import Canaries, Extractability, Extraction, Perplexity, SpanExtraction
from lit_mem.data.encoding import Encoded, collate
from lit_mem.data.sources import TextFiles
from lit_mem.errors import ModelError
from lit_mem.extraction import Discoverable, ExactMemorization, ExtractionStrength
from lit_mem.extraction.continuations import Prompter, no_bar
from lit_mem.extraction.prompts import cut_prompt
from lit_mem.functional.ends import end_tokens
from lit_mem.lightning.datamodule import TextDataModule
from lit_mem.lightning.module import CausalLM
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import IGNORED, Needs, Record, Sampling, Span

EOS, TURN = 2, 3
PREFIX, TRUTH = [1, 4, 5, 6], [7, EOS, 8, 9, 10]
LINE = {"eos": [*PREFIX, *TRUTH], "turn": [*PREFIX, 7, TURN, 8, 9, 10], "none": [*PREFIX, 7, 11, 8, 9, 10]}


@pytest.fixture(scope="module")
def by_heart():
    """Makes a model that has memorized one text, and that `generate` stops at either of two tokens."""
    made = {}

    def make(name):
        if name not in made:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                config = LlamaConfig(
                    vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                    bos_token_id=1, eos_token_id=[EOS, TURN], pad_token_id=0,
                )  # fmt: skip
                model = LlamaForCausalLM(config)
                optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
                ids = torch.tensor([LINE[name]])
                for _ in range(60):
                    optimizer.zero_grad()
                    model(input_ids=ids, labels=ids).loss.backward()
                    optimizer.step()
            made[name] = model.eval()
            hits = model(input_ids=ids).logits[0, :-1].argmax(-1) == ids[0, 1:]
            assert hits.all(), "the text must be learned by heart for this to test anything"
        return made[name]

    return make


class Module:
    """The parts of a module that the callbacks need."""

    def __init__(self, model, eos=EOS):
        self.language_model = model
        self.tokenizer = SimpleNamespace(eos_token_id=eos, decode=lambda ids, **_: " ".join(map(str, ids)))


def batch_of(ids, **more):
    ids = torch.tensor(ids)
    labels = ids.clone()
    labels[: len(PREFIX)] = IGNORED
    return collate([Encoded(ids, labels, 0, True, **more)])


def scored(model, batch, **needs):
    return TokenScorer(model)(batch, Needs(**needs))


@torch.no_grad()
def generated(model, prompt, length):
    whole = model.generate(
        input_ids=prompt[None], attention_mask=torch.ones_like(prompt)[None], do_sample=False, max_new_tokens=length
    )
    new = whole[0, len(prompt) :].tolist()
    return [token for token in new if token not in (EOS, TURN, 0)]


def test_the_module_stops_where_its_tokenizer_and_generate_do(by_heart):
    assert end_tokens(Module(by_heart("eos"))) == {EOS, TURN}
    assert end_tokens(Module(by_heart("eos"), eos=9)) == {EOS, TURN, 9}
    assert end_tokens(Module(None)) == {EOS}
    assert end_tokens(SimpleNamespace()) == frozenset()


@pytest.mark.parametrize("missed", [False, True])
@pytest.mark.parametrize("name", LINE)
@pytest.mark.parametrize("reference", [False, True])
def test_answers_are_those_of_generate_by_the_short_cut_and_by_decoding(by_heart, name, missed, reference):
    """With a miss before the end token in the scoring pass decoding starts there; otherwise nothing is decoded."""
    model, batch = by_heart(name), batch_of(LINE[name])
    callback = Extraction(n_members=None, n_heldout=0, prefix=0)
    callback.ends = end_tokens(Module(model))
    scores = scored(model, batch)
    if missed:
        scores.hit[0, len(PREFIX)] = False
    if reference:
        scores = scores.with_reference(scores.logprob, scores.hit)
    callback.begin(SimpleNamespace(tokenizer=Module(model).tokenizer, language_model=model, progress=no_bar))
    callback.observe(scores, batch)
    candidates = {i: at_one_length[0] for i, at_one_length in callback._seen.items()}
    prompter = Prompter(callback.ends, None, 4096)
    if reference:
        answers = prompter._answers(candidates, {0: (candidates[0].base_hit, candidates[0].base_logprob)}, model, "")
    else:
        answers = prompter.tuned(candidates, model)
    expected = generated(model, torch.tensor(PREFIX), len(TRUTH))
    assert expected == (LINE["none"][4:] if name == "none" else [7])
    assert answers[0].ids.tolist() == expected
    assert candidates[0].prompt.suffix.tolist() == expected, "the truth is cut where decoding stops"
    (drawn,) = (
        Prompter(callback.ends, Sampling(temperature=0.05, seed=1), 4096)._answers(candidates, {}, model, "").values()
    )
    assert drawn.ids.tolist() == expected


@pytest.mark.parametrize("name", LINE)
@pytest.mark.parametrize(("wrong", "found"), [([], 1.0), ([7], 0.0), ([8, 9, 10], 1.0)])
def test_tokens_after_an_end_token_are_neither_needed_nor_credited(by_heart, name, wrong, found):
    """`wrong`: tokens changed after training, so that the model misses them."""
    ids = [12 if token in wrong else token for token in LINE[name]]
    batch, model = batch_of(ids), by_heart(name)
    callback = Extractability(
        {"memorized": ExactMemorization(), "strength": ExtractionStrength(), "drawn": Discoverable(10, 0.5, prefix=0)},
        base=False,
    )
    callback.ends = end_tokens(Module(model))
    callback.observe(scored(model, batch, sampling=callback.needs.sampling), batch)
    table = callback._table.compute()
    if name == "none" and wrong:
        assert max(table[column].item() for column in ("memorized", "strength", "drawn")) < 1
        return
    for column in ("memorized", "strength", "drawn"):
        assert table[column].tolist() == [found], column


def test_the_share_that_is_given_is_one_share_for_all_measures():
    """A prefix with an end token in it is kept whole; the suffix ends before the next one."""
    ids = torch.tensor([1, 7, EOS, 8, 9, TURN, 10, 11, EOS])
    labels = ids.clone()
    labels[0] = IGNORED
    prompt = cut_prompt(ids, labels, 0.5, {EOS, TURN})  # seven trained tokens: three are in the prefix
    assert (prompt.input_ids.tolist(), prompt.suffix.tolist()) == ([1, 7, EOS, 8, 9], [9])
    assert cut_prompt(ids, labels, 1, {EOS, TURN}) is None, "the suffix would begin with an end token"
    assert cut_prompt(ids, labels, 0.5, EOS).suffix.tolist() == [9, TURN, 10, 11]
    scheme = Sampling()
    logprob = -torch.arange(9.0)[None] / 100
    scores = scored_by_hand(ids, logprob, scheme)
    measure = Discoverable(10, None, 0.5, scheme)
    assert measure.suffix_logprob(scores).tolist() == pytest.approx([-0.04])


def scored_by_hand(ids, logprob, scheme):
    from lit_mem.functional.ends import is_end
    from lit_mem.types import TokenScores

    mask = torch.ones_like(ids, dtype=torch.bool)[None]
    mask[0, 0] = False
    return TokenScores(
        logprob, mask, mask, torch.tensor([0]), torch.tensor([True]), sampled={scheme: logprob},
        ends=is_end(ids[None], {EOS, TURN}),
    )  # fmt: skip


@pytest.mark.parametrize(("missed", "expected"), [([], 1.0), ([8], 1.0), ([4], 0.0)])
def test_spans_and_secrets_end_where_decoding_does(by_heart, missed, expected):
    n = len(PREFIX)
    spans = (Span("secret", n, n + 5), Span("name", n + 1, n + 3))  # the second begins with the end token
    batch = batch_of(LINE["eos"], record=Record("text", spans=spans))
    scores = scored(by_heart("eos"), batch)
    for position in missed:
        scores.hit[0, position] = False
    ends = end_tokens(Module(by_heart("eos")))
    callback = SpanExtraction(base=False)
    callback.ends = ends
    callback.observe(scores, batch)
    assert [(span.kind, float(span.written)) for span in callback._spans.compute().values()] == [("secret", expected)]
    canaries = Canaries()
    canaries.ends, batch["canary"] = ends, torch.tensor([1])
    canaries.observe(scores.with_reference(scores.logprob, scores.hit), batch)
    assert canaries._scores.compute()["extracted"].tolist() == [expected]


def test_texts_with_an_end_token_inside_are_counted(tmp_path, tokenizer, module, caplog):
    end = tokenizer.eos_token
    file = tmp_path / "notes.txt"
    lines = [f"Case {i} had a fever." for i in range(6)] + [f"Case {i} had{end} a rash." for i in range(6, 10)]
    file.write_text("\n".join([*lines, f"Case 11 had a fever.{end}", "Case 12 had pain."]), "utf-8")
    made, data = module(), TextDataModule(TextFiles(str(file)), check=False)
    trainer = SimpleNamespace(lightning_module=made, world_size=1, global_rank=0, testing=False, datamodule=data)
    data.trainer = trainer
    data.setup("fit")
    made.configure_model()
    with caplog.at_level(logging.INFO, "lit_mem"):
        data.log_inner_ends(end_tokens(made))
        data.log_inner_ends({5})
    (line,) = [line for line in caplog.messages if "end token" in line]
    assert line.startswith(f"4 of 12 texts have an end token ({end})")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("adapter", [LoRA(rank=2, targets=["v"]), FullFineTuning()], ids=["off", "copy"])
def test_a_base_without_a_tokenizer_is_measured_by_that_of_the_data(adapter, tmp_path, data, trainer):
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        if (source := assets.path("tiny_llama") / name).exists():
            shutil.copy(source, tmp_path)
    model = CausalLM(str(tmp_path), adapter=adapter)
    (found,) = trainer([Perplexity()]).validate(model, data(tokenizer="asset:tiny_llama"), verbose=False)[:1]
    assert found["val/perplexity"] > 1
    with pytest.raises(ModelError, match="tokenizer"):
        _ = model.tokenizer
