"""The same metrics on one process and on two gloo processes, with a whole base on each or a sharded base."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("scenarios.py")
spec = importlib.util.spec_from_file_location("scenarios", SCRIPT)
scenarios = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scenarios)

COMPARED = ("validate", "few", "probing", "documents", "copied", "stored", "canaries", "foreign")

pytestmark = [pytest.mark.ddp, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folder of the two ranks, and their results."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = os.environ | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "NODE_RANK": "0", "OMP_NUM_THREADS": "1"}
    env |= {"LIT_MEM_CACHE": str(folder / "cache")}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env=env | {"LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [rank.communicate(timeout=900)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(text[-3000:] for text in said)
    return folder, [json.loads((folder / f"results_{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def one(two):
    """Results of one process, by scenario."""
    folder, _ = two
    os.environ["LIT_MEM_CACHE"] = str(folder / "cache_of_one")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: scenarios.SCENARIOS[name][0]("one", folder) for name in (*COMPARED, "private")}


def test_both_ranks_know_the_same(two):
    _, (first, second) = two
    for name in first:
        if not name.startswith("fit"):
            assert first[name] == second[name], name
    for name in ("fit ddp", "fit sharded"):
        for key in ("metrics", "stopped", "epochs", "kept"):
            assert first[name][key] == second[name][key], (name, key)


@pytest.mark.parametrize(
    ("name", "strategy"),
    [(name, strategy) for name in COMPARED for strategy in scenarios.SCENARIOS[name][1]],
)
def test_metrics_are_those_of_one_process(two, one, name, strategy):
    _, (ranks, _) = two
    found, expected = ranks[f"{name} {strategy}"], one[name]
    assert found.keys() == expected.keys()
    assert len(expected) > 3
    for metric, value in expected.items():
        assert found[metric] == pytest.approx(value, abs=1e-6, nan_ok=True), metric
        if "auroc" in metric and metric.startswith("mia/") and "combined" not in metric:
            assert found[metric] == value, metric


@pytest.mark.parametrize("name", ["many", "few", "before", "after"])
def test_private_training_is_that_of_one_process(two, one, name):
    folder, (ranks, _) = two
    found, expected = ranks["private ddp"][name], one["private"][name]
    assert found == expected
    gradients = [
        torch.load(folder / f"{strategy}_private_{name}_{rank}.pt", weights_only=True)
        for strategy, rank in (("one", 0), ("ddp", 0), ("ddp", 1))
    ]
    assert torch.equal(gradients[1], gradients[2])
    assert gradients[0].abs().max() > 0.1
    assert (gradients[0] - gradients[1]).abs().max() < 1e-5
    assert (0 in expected["texts"]) == (name == "few")


def test_the_budget_of_an_adapter_is_known_to_all_ranks(two, one):
    _, results = two
    before, carried = one["private"]["before"], one["private"]["carried"]
    assert carried["epsilon"] > before["epsilon"] > 0
    for rank in results:
        assert rank["private ddp"]["unaccounted"] is True
        assert rank["private ddp"]["carried"] == carried


def test_private_training_keeps_ranks_together_and_fails_on_all(two, one):
    _, results = two
    for rank in results:
        assert rank["private ddp"]["same on all ranks"]
        assert rank["private ddp"]["fresh"]["steps"] == one["private"]["many"]["steps"] > 2
        assert rank["private ddp"]["refused"] == "Is a directory"


def test_the_metrics_are_worth_comparing(one):
    assert one["validate"]["mia/reference_auroc"] not in (0.5, 1.0)
    assert one["validate"]["extraction/ngram_rate"] > 0
    # By characters, as word rates of 21 texts may coincide.
    assert one["validate"]["extraction/edit_similarity"] != one["validate"]["extraction/edit_similarity_base"]
    assert any(name.startswith("slice/") for name in one["validate"])
    assert one["foreign"]["user/inference_auroc"] not in (0.5, 1.0)
    assert one["foreign"]["persons"] == [22.0, 0.0]
    assert one["foreign"]["named alike"]
    assert one["stored"]["files"] > 3


def test_a_base_in_parts_is_trained_as_a_whole_one_to_the_last_bit(two):
    folder, (ranks, _) = two
    weights = {
        (strategy, rank): torch.load(folder / f"{strategy}_weights_{rank}.pt", weights_only=True)
        for strategy in ("ddp", "sharded")
        for rank in (0, 1)
    }
    expected = weights["ddp", 0]
    assert any(bool(value.any()) for name, value in expected.items() if "lora_B" in name)
    for which, found in weights.items():
        assert found.keys() == expected.keys()
        for name in expected:
            assert torch.equal(found[name], expected[name]), (which, name)
    assert ranks["fit sharded"]["metrics"] == ranks["fit ddp"]["metrics"]


def test_each_rank_holds_its_part_of_the_layers_only(two):
    _, both = two
    parts = [ranks["fit sharded"]["rows here"] for ranks in both]
    assert sum(parts) == both[0]["fit sharded"]["rows"] > 0
    assert max(parts) <= 0.51 * sum(parts)
    assert both[0]["fit ddp"]["rows"] == 0


def test_training_stops_on_both_after_the_same_epoch(two):
    _, both = two
    for ranks in both:
        for strategy in ("ddp", "sharded"):
            run = ranks[f"fit {strategy}"]
            assert run["stopped"].startswith("mia/reference_auroc is ")
            assert 2 <= run["epochs"] <= 3
            assert run["kept"]["last"] == run["epochs"]


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_one_strategy_goes_on_where_the_other_was_interrupted(two, strategy):
    _, both = two
    assert [ranks[f"resume {strategy}"] for ranks in both] == [{"same": True}] * 2
