"""TracIn: compared with `model(**x).loss.backward()` on a peft model, and with the effect of an SGD step."""

import json
import shutil

import pytest
import torch
from peft import PeftModel

from lit_mem.cli import main as cli
from lit_mem.cli.localize import main
from lit_mem.errors import CheckpointError
from lit_mem.localize.influence import gradient, kept_checkpoints
from lit_mem.localize.one_example import origin_of
from lit_mem.localize.run_folder import open_run
from lit_mem.models.base_models import load_base
from lit_mem.types import IGNORED

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
ID = 3


@pytest.fixture(scope="module")
def single(run_dir, tmp_path_factory):
    """The run with only its last checkpoint, and the influence on one training text."""
    folder = tmp_path_factory.mktemp("single")
    shutil.copy(run_dir / "config.yaml", folder)
    (folder / "checkpoints").mkdir()
    shutil.copy(run_dir / "checkpoints" / "last.ckpt", folder / "checkpoints")
    main([str(folder), "--influence", str(ID), "--top", "100"])
    return folder, json.loads((folder / f"localize_influence_{ID}.json").read_text())


@pytest.fixture
def texts(run_dir):
    from lit_mem.localize.examination import Examination

    run = open_run(str(run_dir))
    run.examine(Examination(run.checkpoint("last"), rows=1))
    return {e.example_id: e for e in run.data.train}


@pytest.fixture
def tuned(run_dir):
    folder = run_dir / "checkpoints" / "last-adapter"
    return PeftModel.from_pretrained(load_base("asset:tiny_llama"), folder, is_trainable=True).eval()


def inputs(text, start=0):
    """Inputs for the whole text, or for its suffix only (which has no end-of-text token)."""
    end = len(text.input_ids) - (text.appended if start else 0)
    labels = text.labels[:end].clone()
    labels[:start] = IGNORED
    return {"input_ids": text.input_ids[None, :end], "labels": labels[None]}


def precise_loss(model, x):
    """The same as `model(**x).loss`, which the library rounds to float32 in any precision."""
    logits = model(input_ids=x["input_ids"]).logits[0, :-1]
    return torch.nn.functional.cross_entropy(logits, x["labels"][0, 1:], ignore_index=IGNORED).item()


def grads(model, x):
    model.zero_grad()
    model(**x).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_one_checkpoint_is_rate_times_the_product_of_gradients(single, tuned, texts):
    _, found = single
    assert [c["learning_rate"] for c in found["checkpoints"]] == [0.01]
    wanted = grads(tuned, inputs(texts[ID], found["cut"]))
    assert found["training_texts"] == len(texts) == len(found["top"])
    for result in found["top"]:
        given = grads(tuned, inputs(texts[result["id"]]))
        product = sum((given[name] * wanted[name]).sum().item() for name in given)
        lengths = [sum(g.square().sum().item() for g in each.values()) ** 0.5 for each in (given, wanted)]
        assert result["influence"] == pytest.approx(0.01 * product, rel=1e-3, abs=1e-9)
        assert result["cosine"] == pytest.approx(product / lengths[0] / lengths[1], rel=1e-3, abs=1e-6)
        assert result["origin"] == origin_of(texts[result["id"]]) != ""


def test_a_step_of_sgd_lowers_the_loss_by_about_the_influence(single, tuned, texts):
    _, found = single
    suffix = inputs(texts[ID], found["cut"])
    tuned.double()  # differences of losses this small are lost in float32
    start = {name: p.detach().clone() for name, p in tuned.named_parameters()}
    rate = 1e-3
    for result in [found["top"][0], found["top"][1], found["top"][-1]]:
        given = grads(tuned, inputs(texts[result["id"]]))
        falls = []
        with torch.no_grad():
            for sign in (1, -1):  # second-order terms cancel in the difference
                for name, p in tuned.named_parameters():
                    p.copy_(start[name] - sign * rate * given[name] if name in given else start[name])
                falls.append(precise_loss(tuned, suffix))
            for name, p in tuned.named_parameters():
                p.copy_(start[name])
        measured = (falls[1] - falls[0]) / 2
        predicted = result["influence"] / 0.01 * rate
        assert measured == pytest.approx(predicted, rel=0.01)


@pytest.mark.slow
def test_ranks_and_the_example_itself(single, capsys):
    folder, found = single
    values = [result["influence"] for result in found["top"]]
    cosines = [result["cosine"] for result in found["top_by_cosine"]]
    assert values == sorted(values, reverse=True)
    assert cosines == sorted(cosines, reverse=True)
    ids = [result["id"] for result in found["top"]]
    assert found["self"]["rank"] == ids.index(ID) + 1
    assert found["self"]["influence"] > 0
    main([str(folder), "--influence", "20", "--top", "2"])  # held out
    assert "it has no influence of its own" in capsys.readouterr().out
    other = json.loads((folder / "localize_influence_20.json").read_text())
    assert other["self"] is None
    assert not other["member"]
    assert len(other["top"]) == 2


@pytest.mark.slow
def test_checkpoints_add_up(run_dir, single, tmp_path):
    """Two checkpoints of different steps: the sum of each alone."""
    _, last = single
    names = {c.global_step: c for c in kept_checkpoints(open_run(str(run_dir)).checkpoints())}
    first = tmp_path / "first.ckpt"
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    content["global_step"] = 1
    content["optimizer_states"][0]["param_groups"][0]["lr"] = 0.5
    content["state_dict"] = {name: value * 0.5 for name, value in content["state_dict"].items()}
    torch.save(content, first)
    found = {}
    for name, checkpoints in (("first", [first]), ("both", [first, run_dir / "checkpoints" / "last.ckpt"])):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        shutil.copy(run_dir / "config.yaml", folder)
        for path in checkpoints:
            shutil.copy(path, folder / "checkpoints")
        main([str(folder), "--influence", str(ID), "--top", "100"])
        found[name] = json.loads((folder / f"localize_influence_{ID}.json").read_text())
    assert [c["learning_rate"] for c in found["both"]["checkpoints"]] == [0.5, 0.01]
    of = {name: {t["id"]: t["influence"] for t in each["top"]} for name, each in {**found, "last": last}.items()}
    for i, both in of["both"].items():
        assert both == pytest.approx(of["first"][i] + of["last"][i], rel=1e-9)
    assert max(names) == last["checkpoints"][0]["global_step"]


@pytest.mark.slow
def test_a_schedule_at_its_end_counts_with_the_rate_it_began_with(run_dir, tmp_path):
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    content["optimizer_states"][0]["param_groups"][0] |= {"lr": 0.0, "initial_lr": 0.25}
    torch.save(content, tmp_path / "end.ckpt")
    assert [c.learning_rate for c in kept_checkpoints([tmp_path / "end.ckpt"])] == [0.25]
    content["global_step"] -= 1
    content["optimizer_states"][0]["param_groups"][0]["lr"] = 0.125
    torch.save(content, tmp_path / "amid.ckpt")
    both = kept_checkpoints([tmp_path / "end.ckpt", tmp_path / "amid.ckpt"])
    assert [c.learning_rate for c in both] == [0.125, 0.0]
    content["optimizer_states"] = []
    torch.save(content, tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match=r"none\.ckpt has no optimizer"):
        kept_checkpoints([tmp_path / "none.ckpt"])


@pytest.mark.slow
def test_few_training_texts_and_always_the_example(single, tmp_path):
    folder, whole = single
    main([str(folder), "--influence", str(ID), "--rows", "4", "--top", "100", "--out", str(tmp_path / "few.json")])
    few = json.loads((tmp_path / f"few_influence_{ID}.json").read_text())
    assert few["training_texts"] in (4, 5)
    assert few["self"]["influence"] == whole["self"]["influence"]


def test_a_gradient_leaves_nothing_behind(tuned, texts):
    text = texts[ID]
    gradient(tuned, text.input_ids, text.labels)
    assert all(p.grad is None for p in tuned.parameters())


@pytest.mark.slow
def test_a_run_without_checkpoints_is_rejected(run_dir, tmp_path, capsys):
    shutil.copy(run_dir / "config.yaml", tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["localize", str(tmp_path), "--influence", "3"])
    assert stopped.value.code == 2
    assert "has no .ckpt file" in capsys.readouterr().err
