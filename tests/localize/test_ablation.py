"""Parts of an adapter turned off: compared with peft models with zeroed weights, scored by `model(**x).loss`."""

import csv
import json

import pytest
import torch
from peft import PeftModel
from sklearn.metrics import roc_auc_score

from lit_mem.cli import main as cli
from lit_mem.cli.localize import main
from lit_mem.errors import LitMemError, ModelError
from lit_mem.localize.examination import Examination
from lit_mem.localize.parts import Part, Parts, lora_modules
from lit_mem.localize.replay import Replay
from lit_mem.localize.run_folder import open_run
from lit_mem.models.base_models import load_base
from lit_mem.models.scored import ScoredModel
from lit_mem.types import Needs

TINY = "asset:tiny_llama"
# Warnings that the command line silences at start; here modules are examined without it.
pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")


@pytest.fixture(scope="module")
def result(run_dir):
    main([str(run_dir), "--extraction", "true", "--checkpoint", "last"])
    return json.loads((run_dir / "localize.json").read_text())


@pytest.fixture
def loaded(run_dir):
    """The run's module with trained weights."""
    run = open_run(str(run_dir))
    run.examine(Examination(run.checkpoint("last"), rows=2))
    return run.module


def token_losses(model, example):
    """(n,) losses of the scored tokens, each from a pass of the text alone; and their mean as in Hugging Face."""
    ids = example.input_ids[None, : len(example.input_ids) - example.appended]
    labels = example.labels[None, : ids.shape[1]]
    with torch.no_grad():
        return model(input_ids=ids, labels=labels).loss.item(), int((labels[:, 1:] != -100).sum())


def oracle(run_dir, zeroed):
    """AUROC and members' perplexity of a peft model whose lora_B is zeroed wherever `zeroed(name)`."""
    run = open_run(str(run_dir))
    run.examine(Examination(run.checkpoint("last")))
    members, heldout = run.data.members, run.data.heldout
    base = load_base(TINY).eval()
    tuned = PeftModel.from_pretrained(load_base(TINY), run_dir / "checkpoints" / "last-adapter").eval()
    hit = 0
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name and zeroed(name):
            parameter.data.zero_()
            hit += 1
    assert hit
    scores, losses, counts = [], 0.0, 0
    for example in [*members, *heldout]:
        loss, n = token_losses(tuned, example)
        scores.append(token_losses(base, example)[0] - loss)
        if example.member:
            losses, counts = losses + loss * n, counts + n
    area = roc_auc_score([e.member for e in [*members, *heldout]], scores)
    return area, torch.tensor(losses / counts).exp().item()


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("where", "zeroed"),
    [
        (lambda r: r["by_matrix"]["down_proj"], lambda name: "down_proj" in name),
        (lambda r: r["by_layer"]["3"], lambda name: ".3." in name),
        (
            lambda r: {k: v[1][0] for k, v in r["layer_matrix"].items()},
            lambda name: ".3." in name and "q_proj" in name,
        ),
    ],
    ids=["matrix", "layer", "cell"],
)
def test_a_part_that_is_off_is_one_that_was_never_trained(result, run_dir, where, zeroed):
    found = where(result)
    area, perplexity = oracle(run_dir, zeroed)
    assert result["matrices"] == ["q_proj", "down_proj"]
    assert result["layers"] == [1, 3]
    assert found["auroc"] == pytest.approx(area, abs=1e-9)
    assert found["perplexity_members"] == pytest.approx(perplexity, rel=1e-5)
    assert found["perplexity_members"] != pytest.approx(result["baseline"]["perplexity_members"], rel=1e-5)


@pytest.mark.slow
def test_the_whole_adapter_gives_what_the_run_logged(result, run_dir):
    rows = list(csv.DictReader((run_dir / "metrics.csv").read_text().splitlines()))
    logged = {name: float(row[name]) for row in rows for name in row if row[name]}
    assert result["baseline"]["auroc"] == pytest.approx(logged["mia/reference_auroc"], abs=1e-6)
    members = logged["memorization/perplexity_members"]
    assert result["baseline"]["perplexity_members"] == pytest.approx(members, rel=1e-5)
    assert result["baseline"]["ngram_rate"] == pytest.approx(logged["extraction/ngram_rate"], abs=1e-6)


@pytest.mark.slow
def test_without_any_part_an_attack_is_left_with_guessing(result):
    assert result["all_off"]["auroc"] == 0.5  # every ratio is exactly 0
    assert result["all_off"]["ngram_rate"] is not None
    assert len(result["layer_matrix"]["ngram_rate"]) == 2


def test_all_off_is_the_base_to_the_last_bit_and_afterwards_all_is_as_before(loaded, batch):
    module = loaded
    model = module.language_model.eval()
    base = load_base(TINY).eval()
    parts = Parts(model)
    ids = batch["input_ids"]
    scaling = {name: dict(m.scaling) for name, m in lora_modules(model).items()}
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        before = model(input_ids=ids).logits
        for part in parts.all():
            with parts.off(part):
                off = model(input_ids=ids).logits
            assert not torch.equal(off, before)
            assert torch.equal(off, base(input_ids=ids).logits) == (part == Part())
        with pytest.raises(KeyError), parts.off(Part()):
            raise KeyError
        assert torch.equal(model(input_ids=ids).logits, before)
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert {name: dict(m.scaling) for name, m in lora_modules(model).items()} == scaling
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable


def test_a_pass_that_starts_at_a_layer_gives_the_same_bits_and_runs_no_layer_below(loaded, batch):
    module = loaded
    parts = Parts(module.language_model)
    layers = list(module.language_model.get_submodule(parts.stack))
    replay = Replay(layers)
    module.eval()
    replay.record()
    module.score(batch, Needs())
    replay.stop()
    ran = []
    handle = layers[2].self_attn.register_forward_hook(lambda *_: ran.append(2))
    with parts.off(Part(3)):
        whole = module.score(batch, Needs())
        assert ran == [2]
        with replay.below(3):
            short = module.score(batch, Needs())
    handle.remove()
    assert ran == [2]
    assert torch.equal(short.logprob, whole.logprob)
    assert not any("forward" in vars(layer) for layer in layers)


@pytest.mark.slow
def test_where_short_passes_differ_all_are_whole(run_dir, result, monkeypatch, tmp_path, caplog):
    """A model whose layers communicate other than by outputs, simulated by corrupting the recorded outputs."""
    stop = Replay.stop

    def spoilt(self):
        stop(self)
        self._outputs = [None if out is None else out + 1 for out in self._outputs]

    monkeypatch.setattr(Replay, "stop", spoilt)
    with caplog.at_level("INFO", "lit_mem"):
        main([str(run_dir), "--extraction", "true", "--out", str(tmp_path / "whole.json")])
    assert "all passes are whole" in caplog.text
    assert json.loads((tmp_path / "whole.json").read_text()) == result


@pytest.mark.slow
def test_the_reference_is_scored_no_more_than_once(run_dir, tmp_path, monkeypatch):
    """Not at all, since the run's cache exists."""

    calls = []
    score = ScoredModel.score_reference

    def counted(self, batch, setting):
        calls.append(len(batch["member"]))
        return score(self, batch, setting)

    monkeypatch.setattr(ScoredModel, "score_reference", counted)
    for _ in range(2):
        main([str(run_dir), "--rows", "6", "--out", str(tmp_path / "few.json")])
    assert sum(calls) == 12
    few = json.loads((tmp_path / "few.json").read_text())
    assert (few["members"], few["heldout"]) == (6, 6)


def test_matrices_of_the_same_name_in_one_layer_are_separate():
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(n_layer=2, n_head=2, n_embd=8, vocab_size=32, n_positions=16)
    lora = LoraConfig(target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    parts = Parts(get_peft_model(GPT2LMHeadModel(config), lora))
    assert parts.matrices == ["c_attn", "attn.c_proj", "mlp.c_proj"]
    assert parts.layers == [0, 1]


def test_dora_off_is_the_base_too(base, batch):
    from peft import LoraConfig, get_peft_model

    before = base(input_ids=batch["input_ids"]).logits
    model = get_peft_model(base, LoraConfig(target_modules=["v_proj"], use_dora=True)).eval()
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data.mul_(1.5)
    assert not torch.equal(model(input_ids=batch["input_ids"]).logits, before)
    parts = Parts(model)
    with parts.off(Part()):
        assert torch.equal(model(input_ids=batch["input_ids"]).logits, before)


def test_other_adapters_are_rejected(base):
    from peft import IA3Config, get_peft_model

    with pytest.raises(ModelError, match="type IA3"):
        Parts(get_peft_model(base, IA3Config(target_modules=["v_proj"], feedforward_modules=[])))
    with pytest.raises(ModelError, match="no adapter"):
        Parts(load_base(TINY))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_without_lora_is_rejected_but_can_be_inspected(fitted, capsys):
    full = {"class_path": "lit_mem.adapters.FullFineTuning"}
    folder = fitted(adapter=full, optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}})
    with pytest.raises(SystemExit) as stopped:
        cli.main(["localize", str(folder)])
    assert stopped.value.code == 2
    assert "error: this run has no adapter (its own weights were trained)" in capsys.readouterr().err
    cli.main(["localize", str(folder), "--example", "3"])
    assert max(json.loads((folder / "localize_example_3.json").read_text())["residual"]["by_layer"]) > 0
    cli.main(["localize", str(folder), "--influence", "3"])
    printed = capsys.readouterr().out
    assert "The example itself: rank" in printed
    assert "SGD would do" not in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{empty}"], "has no config.yaml"),
        (["{bare}"], "has no last.ckpt"),
        (["{run}", "--checkpoint", "{run}/none.ckpt"], "is not a file"),
        (["{run}", "--checkpoint", "{run}/config.yaml"], "not a checkpoint, or is truncated"),
        (["{other}", "--checkpoint", "{run}/checkpoints/last.ckpt"], "holds another adapter"),
        (["{run}", "--rows", "0"], "--rows is 0"),
        (["{run}", "--out", "{run}/none/x.json"], "--out is"),
        (["{run}", "--row", "3"], "did you mean --rows"),
    ],
)
def test_errors_are_one_line(run_dir, tmp_path, capsys, words, said):
    text = (run_dir / "config.yaml").read_text()
    for name, content in (("bare", text), ("other", text.replace("rank: 4", "rank: 2"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(content)
    (tmp_path / "empty").mkdir()
    names = {name: tmp_path / name for name in ("empty", "bare", "other")} | {"run": run_dir}
    with pytest.raises(SystemExit) as stopped:
        cli.main(["localize", *(word.format(**names) for word in words)])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stopped.value.code == 2
    assert len(errors) == 1
    assert said in errors[0]


def test_a_configuration_of_something_else_names_its_file(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {modl_id: x}\ndata: {}\n")
    with pytest.raises(LitMemError, match=r"config\.yaml: .*modl_id"):
        main([str(tmp_path)])


@pytest.mark.parametrize("name", ["localize", "where"])
def test_the_command_has_its_name_and_that_of_earlier_versions(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, "--help"])
    assert stopped.value.code == 0
    assert "usage: lit-mem localize " in capsys.readouterr().out
