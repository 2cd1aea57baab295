"""Perplexity, membership inference, extraction, table, stopwatch and the warning about a sudden fall."""

import logging
import math

import lightning.pytorch as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.text import Perplexity as TorchmetricsPerplexity

from lit_mem.attacks import ReferenceRatio
from lit_mem.callbacks import (
    Baseline,
    EpochTable,
    Extraction,
    MembershipInference,
    Perplexity,
    Stopwatch,
)
from lit_mem.errors import ConfigError, MetricError
from lit_mem.generation.decoding import Sampling


@pytest.fixture(scope="module")
def tuned(module, data, trainer):
    """A module after an epoch of memorization, its data, and the logged metrics."""
    torch.manual_seed(1)
    model, corpus = module(dropout=0.0, targets=["all-linear"]), data(train_size=12, heldout_size=8, batch_size=3)
    callbacks = [Perplexity(), MembershipInference(), Extraction(prefix=0.5, n_members=None, n_heldout=None)]
    t = trainer(callbacks, max_epochs=6, check_val_every_n_epoch=6, num_sanity_val_steps=0)
    t.fit(model, corpus)
    return model.eval(), corpus, {k: float(v) for k, v in t.callback_metrics.items()}


def text_of(example, eos=2):
    """The example's tokens without the appended end-of-text token, as scored."""
    return example.input_ids[:-1] if example.input_ids[-1] == eos else example.input_ids


def nll(model, example):
    ids = text_of(example)[None]
    with torch.no_grad():
        out = model(input_ids=ids, labels=ids)  # Hugging Face never scores the first token
    return out.loss.item(), out.logits


@pytest.mark.slow
def test_perplexities_are_those_of_torchmetrics(tuned):
    model, corpus, logged = tuned
    for examples, name in ((corpus.heldout, "val/perplexity"), (corpus.members, "memorization/perplexity_members")):
        metric = TorchmetricsPerplexity(ignore_index=-100)
        for example in examples:
            _, logits = nll(model.language_model, example)
            metric.update(logits[:, :-1], text_of(example)[None, 1:])
        assert logged[name] == pytest.approx(metric.compute().item(), rel=1e-4)
    gap = math.log(logged["val/perplexity"] / logged["memorization/perplexity_members"])
    assert logged["memorization/perplexity_gap"] == pytest.approx(gap, abs=1e-5)
    assert logged["val/loss"] == pytest.approx(math.log(logged["val/perplexity"]), abs=1e-5)


def test_attacks_are_those_of_a_plain_loop_with_a_separate_base(tuned, base):
    model, corpus, logged = tuned
    labels, loss, ratio = [], [], []
    for example in [*corpus.members, *corpus.heldout]:
        tuned_nll, base_nll = nll(model.language_model, example)[0], nll(base, example)[0]
        labels.append(example.member)
        loss.append(-tuned_nll)
        ratio.append(base_nll - tuned_nll)
    assert logged["mia/loss_auroc"] == pytest.approx(roc_auc_score(labels, loss), abs=1e-4)
    assert logged["mia/reference_auroc"] == pytest.approx(roc_auc_score(labels, ratio), abs=1e-4)
    assert logged["mia/reference_auroc_low"] <= logged["mia/reference_auroc"] <= logged["mia/reference_auroc_high"]


def test_extraction_is_that_of_plain_generation(tuned, base, tokenizer):
    """`model.generate`, on whole texts in a batch, for the tuned model and for the base."""
    model, corpus, logged = tuned
    for who, causal_lm in (("", model.language_model), ("_base", base)):
        for part, examples in (("", corpus.members), ("_heldout", corpus.heldout)):
            rates, exact = [], []
            whole = [text_of(example) for example in examples]
            cuts = [1 + (len(ids) - 1) // 2 for ids in whole]  # BOS is part of the prompt and does not count
            prompts = torch.full((len(whole), max(cuts)), 3)
            mask = torch.zeros_like(prompts)
            for row, (ids, cut) in enumerate(zip(whole, cuts, strict=True)):
                prompts[row, max(cuts) - cut :], mask[row, max(cuts) - cut :] = ids[:cut], 1
            with torch.no_grad():
                written = causal_lm.generate(
                    input_ids=prompts, attention_mask=mask, do_sample=False, pad_token_id=3,
                    max_new_tokens=max(len(ids) - cut for ids, cut in zip(whole, cuts, strict=True)),
                )[:, max(cuts) :]  # fmt: skip
            for ids, cut, answer in zip(whole, cuts, written, strict=True):
                out = answer[: len(ids) - cut]
                out = out[: (out == tokenizer.eos_token_id).nonzero()[0]] if tokenizer.eos_token_id in out else out
                truth, text = tokenizer.decode(ids[cut:]).split(), tokenizer.decode(out).split()
                runs = [
                    n
                    for n in range(1, len(truth) + 1)
                    for i in range(len(truth) - n + 1)
                    if any(truth[i : i + n] == text[j : j + n] for j in range(len(text) - n + 1))
                ]
                rates.append(max(runs, default=0) / len(truth))
                exact.append(out.tolist() == ids[cut:].tolist())
            assert logged[f"extraction/ngram_rate{who}{part}"] == pytest.approx(sum(rates) / len(rates), abs=1e-6)
            assert logged[f"extraction/exact_rate{who}{part}"] == pytest.approx(sum(exact) / len(exact), abs=1e-6)


@pytest.mark.slow
def test_generated_perplexity_is_that_of_scoring_what_was_generated(tuned):
    model, corpus, logged = tuned
    callback = Extraction(n_members=None, n_heldout=0, base=False)
    callback._tokenizer = model.tokenizer
    for batch in corpus.val_dataloader()[1]:
        callback.observe(model.score(batch), batch)
    callback._prompter.eos = model.tokenizer.eos_token_id
    candidates = {i: at_one_length[0] for i, at_one_length in callback._seen.items()}
    answers = callback._prompter.tuned(candidates, model.language_model)
    total = tokens = 0
    for i, answer in answers.items():
        prompt = candidates[i].prompt
        ids = torch.cat([prompt.input_ids[: prompt.cut], answer.ids])[None]
        with torch.no_grad():
            logprob = model.language_model(input_ids=ids).logits.log_softmax(-1)[0, prompt.cut - 1 : -1]
        total += logprob.gather(1, answer.ids[:, None]).sum().item()
        tokens += len(answer.ids)
    assert logged["extraction/generated_perplexity"] == pytest.approx(math.exp(-total / tokens), rel=1e-4)


def test_some_answers_come_from_the_scoring_pass_alone(tuned):
    """The shortcut is used: on a model that has memorized, decoding starts well after the prefix."""
    model, corpus, _ = tuned
    callback = Extraction(base=False)
    callback._tokenizer = model.tokenizer
    for batch in corpus.val_dataloader()[1]:
        callback.observe(model.score(batch), batch)
    known = [callback._prompter.known_length(candidate.hit) for [candidate] in callback._seen.values()]
    assert sum(known) > len(known)


@pytest.mark.slow
def test_generation_every_n_validations_and_before_training(module, data, trainer):
    logged = []

    class Look(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            logged.append("extraction/ngram_rate" in extraction.metrics)

    extraction = Extraction(n_members=3, n_heldout=3, every_n_validations=2)
    trainer([extraction, Look()], max_epochs=4).fit(module(), data())
    assert logged == [True, False, True, False, True]
    trainer([extraction, Look()]).validate(module(), data(), verbose=False)
    assert logged[-1]  # a separate validation does not count towards every_n_validations


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_same_texts_are_prompted_each_time_and_others_with_another_seed(module, data, trainer):
    chosen = []

    class Spy(Extraction):
        def _prompt_all(self, prompted, subject):
            chosen.append(sorted(prompted))
            super()._prompt_all(prompted, subject)

    for seed in (0, 0, 1):
        trainer([Spy(n_members=5, n_heldout=5, seed=seed)], max_epochs=1).fit(module(), data())
    assert chosen[0] == chosen[1] == chosen[2] == chosen[3]
    assert chosen[4] != chosen[0]
    assert all(len(ids) == 10 for ids in chosen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefix": -0.1}, "prefix is -0.1"),
        ({"prefix": 2.5}, "prefix is 2.5"),
        ({"every_n_validations": 0}, "every_n_validations is 0"),
        ({"sampling": Sampling(temperature=0)}, "temperature is 0"),
        ({"sampling": Sampling(top_k=0)}, "top_k is 0"),
        ({"measures": {}}, "measures is empty"),
    ],
)
def test_extraction_rejects_invalid_options(options, message):
    with pytest.raises(ConfigError, match=message):
        Extraction(**options)


def test_a_module_with_another_return_type_gets_an_error(module, data, trainer):
    model = module()
    model.validation_step = lambda batch, batch_idx, dataloader_idx=0: torch.zeros(())
    with pytest.raises(ConfigError, match="reads the TokenScores that validation_step returns"):
        trainer([Perplexity()]).validate(model, data(), verbose=False)


@pytest.mark.slow
def test_a_non_finite_loss_is_reported_with_its_example(module, data, trainer):
    model = module()
    score = model.score

    def broken(batch):
        scores = score(batch)
        scores.logprob[0, 1] = math.nan
        return scores

    model.score = broken
    with pytest.raises(MetricError, match=r"loss on heldout\.jsonl:\d+ is nan, so the pass cannot be measured"):
        trainer([MembershipInference()]).validate(model, data(), verbose=False)


@pytest.mark.slow
def test_a_single_set_gives_no_attack_metrics_and_a_message(module, data, trainer, caplog):
    logging.getLogger("lit_mem").propagate = True
    t = trainer([MembershipInference()], limit_val_batches=1)
    corpus = data()
    corpus.val_dataloader = lambda: type(corpus).val_dataloader(corpus)[0]
    t.validate(module(), corpus, verbose=False)
    assert not any(name.startswith("mia/") for name in t.callback_metrics)
    assert "No membership inference: 0 members" in caplog.text


@pytest.mark.slow
def test_the_table_shows_a_row_before_training_and_one_an_epoch(module, data, trainer, capsys):
    callbacks = [EpochTable(["val/loss", "mia/strongest_auroc", "nothing/logs_this"])]
    callbacks.append(MembershipInference({"reference": ReferenceRatio()}))
    trainer(callbacks, max_epochs=1).fit(module(), data())
    rows = [row.split() for row in capsys.readouterr().out.splitlines() if row.strip()]
    assert [row[0] for row in rows] == ["epoch", "start", "1"]
    assert rows[1][2:] == ["0.500", "[0.299,", "0.701]"]  # all scores are tied: Wilson's of one half in 20 trials
    assert "nothing/logs_this" not in rows[0]


@pytest.mark.slow
def test_a_partial_sanity_check_gives_no_baseline(module, data, trainer, caplog):
    baseline = Baseline()
    logging.getLogger("lit_mem").propagate = True
    trainer([baseline, Perplexity()], num_sanity_val_steps=1, max_epochs=1).fit(module(), data(scoring_tokens=200))
    assert not baseline.metrics
    assert "No metrics before training" in caplog.text


@pytest.mark.slow
def test_seconds_add_up(module, data, trainer):
    t = trainer([Stopwatch(), Extraction(n_members=3, n_heldout=3)], max_epochs=2)
    t.fit(module(), data())
    assert all(float(t.callback_metrics[f"time/{part}"]) > 0 for part in ("train", "scoring", "generation"))


class OtherLogger(pl.loggers.logger.DummyLogger):
    """Some logger that is not TensorBoard."""

    def __init__(self):
        super().__init__()
        self.seen, self.pictures = [], []

    def log_metrics(self, metrics, step=None):
        self.seen.append((step, set(metrics)))

    def log_image(self, key, images, step=None):
        self.pictures.append((key, images[0].shape, step))


@pytest.mark.slow
def test_any_other_logger_gets_metrics_and_plots(module, data, trainer):
    logger = OtherLogger()
    trainer([MembershipInference(), Baseline()], max_epochs=1, logger=logger).fit(module(), data())
    assert (0, True) in [(step, "mia/reference_auroc" in names) for step, names in logger.seen]
    assert {key for key, _, _ in logger.pictures} == {"mia/roc", "mia/scores"}
    assert all(shape[2] == 3 for _, shape, _ in logger.pictures)
