"""The benchmarks run, show their results, and reject sides that differ. Times are not checked."""

import json
import resource
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import (
    canaries,
    fits,
    growth,
    memory,
    mitigation,
    peer_values,
    peers,
    preparing,
    run,
    scaling,
    scaling_check,
    scoring,
    setting,
    sizes,
    startup,
    tensors,
    thresholds,
    tracking,
)
from benchmarks.table import Table, tell
from lit_mem.adapters import LoRA
from lit_mem.data.encoding import Encoded, collate
from lit_mem.functional.planning import planned_interval
from lit_mem.generation.decoding import Decoded
from lit_mem.guards import evaluation_mode
from lit_mem.scoring.reference_scores import ReferenceCache
from lit_mem.scoring.reference_store import ReferenceStore
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Needs

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


# -- what they share ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_flops_of_a_forward_pass_are_those_that_torch_counts(tied):
    config = LlamaConfig(
        vocab_size=600, hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        tie_word_embeddings=tied, attn_implementation="eager",
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with FlopCounterMode(display=False) as counted:
        model(input_ids=torch.zeros((4, 2), dtype=torch.int64), use_cache=False)
    # Torch counts attention too (short here), we count the norms' weights.
    assert setting.flops_rate(setting.multiplying(model), 8, took=1.0) == pytest.approx(
        counted.get_total_flops(), rel=0.02
    )


def test_flops_with_an_adapter_count_the_output_layer_once(module):
    made = module()
    made.configure_model()
    model = made.language_model
    table = model.get_base_model().get_input_embeddings().weight
    tied = model.get_base_model().get_output_embeddings().weight is table
    assert setting.multiplying(model) == sum(p.numel() for p in model.parameters()) - (0 if tied else table.numel())


@pytest.mark.parametrize(
    ("left", "right", "tolerance"), [(1.0, 1.0 + 2**-52, 0.0), (1.0, 1.02, 0.01), (float("nan"), float("nan"), 1.0)]
)
def test_sides_that_differ_are_rejected(left, right, tolerance):
    with pytest.raises(RuntimeError, match=r"the sides differ: loss is"):
        setting.agree(left, right, "loss", tolerance)


def test_sides_that_agree_pass():
    setting.agree(1.0, 1.0, "loss")
    setting.agree(100.0, 100.9, "loss", tolerance=0.01)


def test_the_device_chosen_is_used(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = {name: setting.device_of(Namespace(device=name)).type for name in ("auto", "cpu", "cuda")}
    assert chosen == {"auto": "cuda", "cpu": "cpu", "cuda": "cuda"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert setting.device_of(Namespace(device="auto")) == CPU


def test_the_clock_waits_for_the_gpu(monkeypatch):
    order = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: order.append("wait"))
    assert setting.seconds(lambda: order.append("work")) >= 0
    assert order == ["wait", "work", "wait"]


def test_the_setting_is_a_validation_of_the_corpus():
    args = setting.parser("", rows=6).parse_args(["--device", "cpu"])
    made = setting.prepare(args)
    assert made.device == CPU
    assert [example.member for example in made.examples] == [False] * 6 + [True] * 6
    scored = sum(int(batch["scored"].sum()) for batch in made.batches)
    assert made.tokens == scored > 0
    assert not made.module.language_model.training


def test_as_many_members_as_held_out_texts_are_scored():
    args = setting.parser("", rows=6).parse_args(["--device", "cpu"])
    module, data = setting.make_module(args), setting.make_data(args, 12, 5)
    module.configure_model()
    setting.attach(data, module)
    data.setup("validate")
    assert (len(data.members), len(data.heldout)) == (5, 5)


def test_a_table_is_shown_and_written(tmp_path, capsys):
    table = Table("title", ["", "s", "ratio"], [["one", 1.5, None], ["another", 12345.0, 2.0]], ["note"])
    tell(Namespace(out=tmp_path / "new"), "name", [table])
    shown = "title\n             s  ratio\none      1.500\nanother  12345  2.000\nnote\n"
    assert capsys.readouterr().out == shown == (tmp_path / "new" / "name.txt").read_text()
    (written,) = json.loads((tmp_path / "new" / "name.json").read_text())
    assert Table(**written) == table
    assert table.row("another") == {"": "another", "s": 12345.0, "ratio": 2.0}


# -- scoring and peers -------------------------------------------------------------------------------------


@pytest.fixture
def few():
    """Four members and four held-out texts, and the bundled model, as the benchmarks use it."""
    made = setting.prepare(setting.parser("", rows=4).parse_args(["--device", "cpu"]))
    with evaluation_mode(made.module.language_model):
        yield made


def test_the_first_pass_scores_the_reference_once_trained(few):
    timed = scoring.sides(few)
    timed["cached"]()  # warms up, as the benchmark does
    forwards = []
    hook = few.module.language_model.get_base_model().model.register_forward_hook(lambda *_: forwards.append(1))
    counts = {}
    for name in ("first", "first, trained", "cached"):
        forwards.clear()
        timed[name]()
        counts[name] = len(forwards)
    hook.remove()
    assert counts["first"] == counts["cached"] >= len(few.batches)
    assert counts["first, trained"] == counts["first"] + len(few.batches)


@pytest.fixture
def nudged(few):
    """The same with an adapter that changes something."""
    peers.nudge(few.module)
    return few


@pytest.mark.parametrize(
    ("which", "name"), [(0, "mia/min_k_plus_plus"), (1, "strength"), (2, "headline"), (3, "total")]
)
def test_peers_find_our_values_and_a_wrong_one_is_rejected(nudged, which, name):
    one = peers.comparisons(nudged)[which]
    defined = peer_values.definitions(nudged)
    theirs, mine = one.theirs(), peers.ours(nudged, one.measures, known=False)
    peer_values.check(theirs, mine, defined, one.name)
    assert max(abs(value) for value in theirs[name]) > 0
    if "mia/reference" in theirs:  # tuned model and base differ
        assert min(abs(value) for value in theirs["mia/reference"]) > 1e-4
    scale = max(map(abs, theirs[peer_values.DIFFERENCES.get(name, name)]))
    wrong = [value + 1e-3 * scale for value in theirs[name]]
    with pytest.raises(RuntimeError, match=f"the sides differ: {name} of {one.name} of 8 texts"):
        peer_values.check(theirs | {name: wrong}, mine, defined, one.name)


def test_peers_reject_other_tokens(nudged):
    one = peers.comparisons(nudged)[1]
    mine = peers.ours(nudged, [*one.measures, one.generation.extraction], known=False)
    one.generation()
    assert one.generation.check(mine, one.name).startswith("open-unlearning: 0 of 8 outputs differ")
    (answers,) = one.generation.found
    first = next(iter(answers))
    answers[first] = [(answers[first][0] + 1) % 2048, *answers[first][1:]]
    with pytest.raises(RuntimeError, match="the sides differ: outputs of open-unlearning"):
        one.generation.check(mine, one.name)


def test_peers_count_the_texts_that_the_reference_scores(nudged):
    one = peers.comparisons(nudged)[0]
    with pytest.raises(RuntimeError, match="texts that the reference scores is 8 on one and 0"):
        peers.ours(nudged, one.measures, known=True)


# -- tracking ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tracked_args():
    return tracking.options().parse_args(["--rows", "8", "--repeats", "1", "--epochs", "2", "--device", "cpu"])


@pytest.fixture(scope="module")
def sides(tracked_args):
    """A fit of each side, compared as the benchmark does."""
    return tracking.measure(tracked_args, fits.Case("as many", 8, 8))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_both_sides_train_the_same_and_only_one_is_tracked(sides):
    (untracked,), (tracked,) = sides
    assert untracked.weights == tracked.weights
    assert untracked.clock.losses == tracked.clock.losses
    assert len(set(tracked.clock.losses)) == 3  # before training, and after two epochs that changed something
    assert not [name for name in untracked.clock.metrics if name.startswith(("mia/", "extraction/", "time/"))]
    wanted = {"mia/reference_auroc", "extraction/ngram_rate", "extraction/exact_memorization", "time/generation"}
    assert wanted <= set(tracked.clock.metrics)
    assert untracked.scored < tracked.scored  # the members are not validated without tracking
    assert untracked.trained == tracked.trained


@pytest.mark.slow
def test_tracking_shows_every_epoch_and_where_its_time_goes(tracked_args, sides):
    ratios, shares = tracking.tables(tracked_args, fits.Case("as many", 8, 8), sides)
    assert [row[0] for row in ratios.rows] == ["before training", "first epoch", "later epochs"]
    for row in ratios.rows:
        assert row[3] == row[2] / row[1]
    parts = {str(name): seconds for name, seconds, _ in shares.rows}
    later = ratios.row("later epochs")
    for side in ("untracked", "tracked"):
        whole = sum(seconds for name, seconds in parts.items() if name.startswith(side))
        assert whole == pytest.approx(later[f"{side} s"])
    assert all(seconds > 0 for seconds in parts.values())


@pytest.mark.slow
def test_a_side_that_trained_otherwise_is_rejected(sides):
    (untracked,), (tracked,) = sides
    other = tracking.Sides([untracked], [replace(tracked, weights="0")])
    with pytest.raises(RuntimeError, match="changed the trained weights"):
        tracking.check(other, exact=True)
    tracking.check(other, exact=False)
    clock = fits.Clock()
    clock.losses = [loss * 1.01 for loss in tracked.clock.losses]
    for exact in (True, False):
        with pytest.raises(RuntimeError, match="val/loss"):
            tracking.check(tracking.Sides([untracked], [replace(tracked, clock=clock)]), exact)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], [(300, 300), (300, 50)]),
        (["--trained", "2898"], [(300, 300), (2898, 483)]),
        (["--trained", "6000"], [(300, 300), (6000, 500)]),
        (["--rows", "100", "--scored", "7"], [(100, 100), (100, 7)]),
        (["--case", "few"], [(300, 50)]),
    ],
)
def test_cases_score_as_many_or_a_sixth_and_500_at_most(words, expected):
    found = tracking.cases(tracking.options().parse_args(words))
    assert [(case.train, case.scored) for case in found] == expected


def test_the_tracked_side_has_what_the_configuration_measures():
    made = fits.memorization()
    assert {"Perplexity", "MembershipInference", "Extraction"} <= {type(measure).__name__ for measure in made.measures}
    assert made.stop == ["standard"]


# -- memory ------------------------------------------------------------------------------------------------


def test_the_peak_lies_between_what_is_resident_and_what_the_kernel_reports_of_the_whole_process():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident, most = pages * resource.getpagesize(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert resident * 0.98 <= memory.peak_resident() <= most * 1.02


@pytest.mark.slow
@pytest.mark.exhaustive
def test_memory_compares_three_processes():
    args = memory.options().parse_args(["--rows", "4", "--repeats", "1", "--device", "cpu"])
    (table,) = memory.run(args)
    assert [row[0] for row in table.rows] == list(memory.SIDES)
    for _, peak, ratio, above, ratio_above in table.rows:
        assert 0 < above < peak
        assert ratio == pytest.approx(peak / table.row("untracked")["peak MiB"])
        assert ratio_above == pytest.approx(above / table.row("untracked")["above libraries MiB"])


@pytest.mark.parametrize(("side", "name"), [("tracked", "losses"), ("tracked, copy", "losses"), ("tracked", "metrics")])
def test_memory_rejects_sides_that_found_something_else(side, name):
    metrics = dict.fromkeys(memory.WATCHED, 0.5)
    found = {each: {"losses": [2.0, 1.0], "metrics": dict(metrics)} for each in memory.SIDES}
    memory.check(found, 0.0)
    found[side][name] = [2.0, 1.5] if name == "losses" else metrics | {"mia/loss_auroc": 0.6}
    with pytest.raises(RuntimeError, match=r"val/loss \(tracked" if name == "losses" else "mia/loss_auroc"):
        memory.check(found, 1e-3)


# -- preparing ---------------------------------------------------------------------------------------------


def test_preparing_compares_sides_on_the_same_texts(monkeypatch, tmp_path):
    def here(args, side, path):
        found = preparing.one_side(preparing.made_options().parse_args(["--side", side, "--file", str(path)]))
        size = sum(1 for _ in preparing.texts_in(path))
        return found | {"peak": 2.0 * size, "libraries": 1.0 * size, "seconds": 3.0 if side == "prepare" else 1.0}

    monkeypatch.setattr(preparing, "in_fresh_process", here)
    monkeypatch.setattr(preparing.logging, "disable", lambda: None)
    (table,) = preparing.run(preparing.made_options().parse_args(["--sizes", "50", "60"]))
    assert [row[0] for row in table.rows] == ["50 texts", "60 texts", "exponent"]
    assert [row[4] for row in table.rows] == [1.5, 1.5, None]
    assert table.row("exponent")["prepare, s"] == pytest.approx(0)
    assert table.row("exponent")["above libraries MiB"] == pytest.approx(1)
    texts = tmp_path / "texts.jsonl"
    preparing.write(texts, 30)
    assert {len(text.split()) for text in preparing.texts_in(texts)} == {preparing.WORDS}
    assert len(set(preparing.texts_in(texts))) == 30


def test_preparing_rejects_sides_that_count_other_tokens(monkeypatch):
    sides = {side: {"tokens": len(side), "seconds": 1, "cpu": 1, "peak": 2, "libraries": 1} for side in preparing.SIDES}
    monkeypatch.setattr(preparing, "in_fresh_process", lambda args, side, path: sides[side])
    with pytest.raises(RuntimeError, match="the number of tokens of 5 texts"):
        preparing.measured(preparing.made_options().parse_args([]), 5)


# -- growth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_of_a_power_is_found(power):
    sizes = [32, 64, 200, 1000]
    assert growth.exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


@pytest.mark.parametrize(
    ("name", "last", "expected"),
    [
        ("scoring", {"scoring": 1.05, "forward pass": 1.0}, "linear or less"),
        ("scoring", {"scoring": 1.4, "forward pass": 1.35}, "as the forward pass"),
        ("scoring", {"scoring": 1.6, "forward pass": 1.35}, "FASTER THAN LINEAR"),
        ("extraction", {"extraction": 1.4, "generate": 1.5}, "as generate"),
        ("generate", {"generate": 1.5}, ""),
        ("metrics", {"metrics": 1.3}, "FASTER THAN LINEAR"),
    ],
)
def test_growth_is_judged_by_its_exponent(name, last, expected):
    assert growth.verdict(name, last) == expected


@pytest.mark.slow
@pytest.mark.exhaustive
def test_growth_shows_and_draws_three_sweeps(tmp_path):
    words = ["--most", "300", "--longest", "64", "--widest", "4096", "--repeats", "1", "--device", "cpu"]
    tables = growth.run(growth.parser().parse_args([*words, "--out", str(tmp_path)]))
    assert [table.columns[0] for table in tables] == ["examples", "length", "vocabulary"]
    assert [table.columns[1:3] for table in tables] == [["100", "300"], ["32", "64"], ["1024", "4096"]]
    for table in tables:
        assert [row[0] for row in table.rows] == ["scoring", "forward pass", "extraction", "generate", "metrics"]
        assert all(seconds > 0 for row in table.rows for seconds in row[1:3])
        with Image.open(tmp_path / f"growth_{table.columns[0]}.png") as picture:
            assert len(picture.convert("RGB").getcolors(2**20) or []) > 10


@pytest.fixture
def workload():
    return growth.Workload(growth.Sweep("length", [12], examples=20, prompted=3, length=12, vocabulary=64), CPU)


def test_growth_measures_the_size_it_says():
    sweep = growth.Sweep("length", [16, 32]).at(32)
    made = growth.Workload(sweep, CPU)
    assert {len(text.input_ids) for text in made.texts} == {32}
    assert {len(each.ids) for each in made.extraction()} == {16}
    more = growth.Sweep("examples", [5, 7]).at(7)
    assert len(growth.make_texts(more)) == len(growth.Workload(more, CPU).prompts) == 7


def test_growth_rejects_other_tokens(workload, monkeypatch):
    workload.check()
    decode = growth.decode

    def wrong(*args, **kwargs):
        return [Decoded((each.ids + 1) % 64, each.logprob) for each in decode(*args, **kwargs)]

    monkeypatch.setattr(growth, "decode", wrong)
    with pytest.raises(RuntimeError, match="gave different tokens"):
        workload.check()


def test_growth_rejects_other_scores(workload, monkeypatch):
    monkeypatch.setattr(workload, "forward_pass", lambda: 0.0)
    with pytest.raises(RuntimeError, match="sum of log-probabilities"):
        workload.check()


def test_growth_rejects_other_metrics(workload, monkeypatch):
    monkeypatch.setattr(workload, "metrics", lambda: {"mia/loss_auroc": 0.123})
    with pytest.raises(RuntimeError, match="AUROC of the loss attack"):
        workload.check()


# -- scaling -----------------------------------------------------------------------------------------------

ALL = ("q", "k", "v", "o", "gate", "up", "down")
SMALL = sizes.Shape(hidden=64, layers=3, heads=4, kv_heads=2, intermediate=96, vocabulary=500, tied=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"), [("7B", 6_738_415_616), ("13B", 13_015_864_320), ("70B", 68_976_648_192)]
)
def test_llama_2_has_as_many_parameters_as_transformers_counts(name, expected):
    assert sizes.LLAMA_2[name].parameters == scaling.counted(sizes.LLAMA_2[name]) == expected


@pytest.mark.parametrize("shape", [SMALL, replace(SMALL, tied=True, kv_heads=4)])
def test_a_shape_is_read_from_a_configuration(shape):
    config = LlamaConfig(
        vocab_size=500, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=shape.kv_heads, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    assert sizes.Shape.of(config) == shape
    model = LlamaForCausalLM(config)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.multiplied == setting.multiplying(model) - (2 * shape.layers + 1) * shape.hidden  # the norms


@pytest.mark.parametrize("targets", [("v", "o"), ALL])
def test_the_adapter_is_as_large_as_peft_makes_it(module, targets):
    made = module(rank=8, targets=targets)
    made.configure_model()
    shape = sizes.Shape.of(made.language_model.config)
    trained = sum(p.numel() for p in made.parameters() if p.requires_grad)
    assert shape.adapter(8, targets) == trained
    assert sizes.adapter_bytes(trained) == 4 * 4 * trained


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("targets", [("v", "o"), ALL])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_of_training_is_what_tensors_take_at_once(width, targets, checkpointing):
    made, batch = wide(width, targets), random_batch(8)
    scaling_check.set_checkpointing(SimpleNamespace(language_model=made), checkpointing)
    scorer = TokenScorer(made)
    with torch.autocast("cpu", torch.bfloat16, enabled=width == 2):
        found = tensors.made_at_once(lambda: scorer.loss(batch).backward())
    layer = sizes.saved_bytes(WIDE, 8, targets, width, dropout=False)
    assert sizes.training_bytes(WIDE, 8 * 64, layer, checkpointing, width) == pytest.approx(found, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("texts", [4, 20])  # one chunk of logits, and two
def test_memory_of_scoring_is_what_tensors_take_at_once(width, texts):
    scorer, batch = TokenScorer(wide(width, ("v", "o")).eval()), random_batch(texts)
    with torch.autocast("cpu", torch.bfloat16, enabled=width == 2):
        found = tensors.made_at_once(lambda: scorer(batch, Needs(moments=True)))
    assert sizes.scoring_bytes(WIDE, texts * 64, width, on_gpu=False) == pytest.approx(found, rel=0.1)


WIDE = sizes.Shape(hidden=128, layers=4, heads=4, kv_heads=2, intermediate=352, vocabulary=4000)


def wide(width, targets):
    config = LlamaConfig(
        vocab_size=4000, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    base = LlamaForCausalLM(config).to(torch.float32 if width == 4 else torch.bfloat16).requires_grad_(False)
    return LoRA(rank=8, targets=list(targets), dropout=0.0).wrap(base).train()


def random_batch(texts):
    ids = torch.randint(0, 4000, (texts, 65))
    return collate([Encoded(row, torch.cat([torch.tensor([-100]), row[1:]]), i, True) for i, row in enumerate(ids)])


def test_four_operations_a_parameter_and_token_are_what_torch_counts(module, batch):
    made = module(rank=1, dropout=0.0)
    made.configure_model()
    shape = sizes.Shape.of(made.language_model.config)
    tokens = scaling_check.training_tokens(made, batch)
    with FlopCounterMode(display=False) as counted:
        made._scorer.loss(batch).backward()
    here = sizes.Machine(flops=1.0, bandwidth=1.0)
    assert sizes.training_seconds(shape, tokens, here) == pytest.approx(counted.get_total_flops(), rel=0.1)


def test_keys_and_values_are_as_large_as_the_models_cache(base):
    shape = sizes.Shape.of(base.config)
    cache = base(input_ids=torch.zeros((3, 7), dtype=torch.int64), use_cache=True).past_key_values
    held = sum(t.nbytes for layer in cache.layers for t in (layer.keys, layer.values))
    assert sizes.cache_bytes(shape, 21, width=4) == held


def test_reference_scores_are_as_large_as_they_are_kept(module, batch, tmp_path):
    made = module()
    made.configure_model()
    cache = ReferenceCache()
    cache.store = ReferenceStore(tmp_path, {})
    cache.scores(batch, lambda batch: made.score(batch, Needs()))
    expected = sizes.reference_cache_bytes(batch["input_ids"].numel())
    assert sum(logprob.nbytes + hit.nbytes for logprob, hit in cache._rows.values()) == expected
    (file,) = tmp_path.rglob("*.safetensors")
    assert expected < file.stat().st_size < expected + 400


def test_four_bits_are_four_and_the_scales():
    matrices, rest = SMALL.in_layers, SMALL.parameters - SMALL.in_layers
    scales = matrices / 64 + 4 * matrices / 64 / 256
    assert sizes.base_bytes(SMALL, quantized=True) == pytest.approx(matrices / 2 + scales + 2 * rest)
    assert sizes.base_bytes(SMALL) == 2 * SMALL.parameters


def test_four_bits_are_as_large_as_bitsandbytes_makes_them():
    quantize = pytest.importorskip("bitsandbytes").functional.quantize_4bit
    weight, state = quantize(torch.randn(1024, 512), quant_type="nf4", compress_statistics=True)
    found = weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    assert found == sizes.NF4_BITS * 1024 * 512 / 8


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_layers_are_sharded_and_other_weights_replicated(devices):
    layers = 2 * (SMALL.in_layers + 2 * SMALL.layers * SMALL.hidden)
    gathered = 3 * layers / SMALL.layers if devices > 1 else 0
    everywhere = 2 * (2 * SMALL.table + SMALL.hidden)
    assert sizes.sharded_bytes(SMALL, devices) == layers / devices + gathered + everywhere
    linked = sizes.Machine(1.0, 1.0, link=2.0)
    assert sizes.gathering_seconds(SMALL, devices, linked) == SMALL.in_layers * (devices - 1) / devices


def test_checkpointing_computes_the_layers_once_more():
    here = sizes.Machine(flops=1e3, bandwidth=1.0)
    once, twice = (sizes.training_seconds(SMALL, 100, here, again) for again in (False, True))
    assert once == pytest.approx(4 * SMALL.multiplied * 100 / 1e3)
    assert twice - once == pytest.approx(2 * SMALL.in_layers * 100 / 1e3)


def test_generation_is_bound_by_reading_or_by_products():
    reading = sizes.Machine(flops=float("inf"), bandwidth=1.0)
    assert sizes.generation_seconds(SMALL, [(9, [5, 2]), (4, [1])], reading, width=4) == 4 * 4 * SMALL.multiplied
    products = sizes.Machine(flops=2.0 * SMALL.multiplied, bandwidth=float("inf"))
    assert sizes.generation_seconds(SMALL, [(9, [5, 2]), (4, [1])], products) == 9 + 2 + 1 + 1 + 1 + 4


@pytest.mark.slow
@pytest.mark.exhaustive
def test_scaling_predicts_measures_and_assumes_what_it_measured(monkeypatch):
    peaks = {"peak": 3 * 2**20, "libraries": 2**20}
    monkeypatch.setattr(memory, "in_fresh_process", lambda args, side: peaks)  # three processes: tested above
    args = scaling.options().parse_args(["--rows", "10", "--repeats", "1", "--device", "cpu"])
    check, *computed = scaling.run(args)
    for _, predicted, measured, ratio in check.rows:
        assert predicted > 0
        assert ratio == predicted / measured
    assert [ratio for name, _, _, ratio in check.rows if name.startswith("parameters")] == [1.0, 1.0]
    assert check.row("a fit, tracked, MiB")["measured"] == 2.0
    (limit, *_), (assumed, *_) = (tables[-2:] for tables in (scaling.run(no_check()), computed))
    for row, part in (("training", "training"), ("a scoring pass", "scoring"), ("extraction", "generation")):
        reached = check.row(f"{part}, s")["predicted ÷ measured"]
        assert assumed.row(row)["7B"] == pytest.approx(limit.row(row)["7B"] / reached)


def no_check(*words):
    return scaling.options().parse_args(["--no-check", *words])


def test_large_models_are_computed_without_measuring():
    parts, ways, *gpus = scaling.run(no_check("--members", "1000", "--length", "100"))
    assert parts.row("parameters")["70B"] == "68,976,648,192"
    assert parts.row("base, bfloat16")["7B"] == pytest.approx(2 * 6_738_415_616 / 2**30)
    assert parts.row("reference, adapter off")["70B"] == 0
    alone, eight = (ways.row(way)["70B"] for way in ("bfloat16, one device or ddp", "sharded over 8"))
    assert eight < 80 < alone
    assert [table.title.count("NOT MEASURED") for table in gpus] == [1, 1]
    shape = sizes.LLAMA_2["7B"]
    for table, most in zip(gpus, (989e12, 312e12), strict=True):
        assert table.row("training")["7B"] == pytest.approx(4 * shape.multiplied * 1000 * 100 / most)


# -- thresholds --------------------------------------------------------------------------------------------


def test_the_table_of_thresholds_is_clopper_pearsons_and_the_planned_interval():
    found = thresholds.table("standard", [100, 300], 5)
    first = dict(zip(found.columns[:5], found.rows[1][:5], strict=True))
    assert first["none extracted: below"] == f"{100 * (1 - 0.025 ** (1 / 300)):.2g} %"  # its closed form
    assert planned_interval(first["within up to"], 300, 300)[1] <= 0.7 < first["stops from"]
    assert [row[-1] for row in found.rows] == [0, 7]
    within = [binomtest(k, 300).proportion_ci(0.95).high <= 0.05 for k in (7, 8)]
    assert within == [True, False]


# -- all of them -------------------------------------------------------------------------------------------


def test_every_script_is_run_and_documented():
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    told = (ROOT / "benchmarks" / "README.md").read_text()
    assert set(run.NAMES) <= scripts
    for name in run.NAMES:
        assert f"| `{name}.py` |" in told
        assert f"- {name}: " in run.__doc__


def test_options_reach_the_scripts_that_have_them():
    args = Namespace(
        device="cpu", out=Path("o"), quick=False, repeats=None, rows=9, model="m", source="PHEE", folder="f"
    )
    given = ["--device", "cpu", "--out", "o"]
    assert run.words(args, "growth") == given
    assert run.words(args, "scoring") == [*given, "--rows", "9", "--model", "m", "--source", "PHEE", "--folder", "f"]
    quick = run.words(Namespace(**(vars(args) | {"quick": True, "rows": None, "folder": None})), "tracking")
    assert quick[4:] == "--repeats 1 --epochs 2 --rows 16 --model m --source PHEE".split()


def test_one_that_fails_is_named_and_the_others_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "run_one", lambda args, name: (3, "") if name == "scoring" else (0, f"of {name}\n"))
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "scoring", "memory", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="failed: scoring"):
        run.main()
    assert "[2/2] benchmarks.memory" in capsys.readouterr().out
    results = json.loads((tmp_path / "run.json").read_text())
    assert [results[name]["exit_code"] for name in ("scoring", "memory")] == [3, 0]
    assert (tmp_path / "memory.txt").read_text() == "of memory\n"


SHOWN = {
    "scoring": ["first", "cached", "research loop", "padded", "packed"],
    "extraction": ["ours", "generate, padded batches of 8", "generate, one at a time"],
    "training": ["ours", "padded", "Trainer"],
    "privacy": ["plain", "plain, a row each", "private"],
    "peers": ["MIMIR", "open-unlearning, generating", "memaudit, generating", "lm-evaluation-harness"],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        name if name == "scoring" else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in run.NAMES
        if name not in ("tracking", "memory", "growth")
    ],
)
def test_a_quick_run_by_path_shows_its_table(name, tmp_path):
    """From another folder; the skipped ones run above, in this process."""
    words = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--quick", "--rows", "4", "--only", name]
    done = subprocess.run([*words, "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *rest = done.stdout.splitlines()
    assert "cores" in first
    assert f"torch {torch.__version__}" in first
    for row in SHOWN[name]:
        assert any(line.startswith(f"{row}  ") for line in rest), row
    assert not list(tmp_path.iterdir())  # nothing is written unless requested


@pytest.mark.slow
def test_mitigation_keeps_what_it_computed_and_draws_it(tmp_path, monkeypatch, capsys):
    options = ["x", "--rows", "6", "--canaries", "8", "--epochs", "1", "--repeats", "1", "--only", "none", "untrained"]
    monkeypatch.setattr(sys, "argv", [*options, "--out", str(tmp_path)])
    mitigation.main()
    (made,) = json.loads((tmp_path / "mitigation.json").read_text())
    rows = {row[0]: dict(zip(made["columns"], row, strict=True)) for row in made["rows"]}
    assert rows["untrained"]["AUROC"] == 0.5
    assert rows["none"]["ppl members"] < rows["untrained"]["ppl members"]
    assert rows["none"]["epochs"] == 1
    assert Image.open(tmp_path / "mitigation.png").size[0] > 500
    first = capsys.readouterr().out
    monkeypatch.setattr(mitigation, "train", None)  # a second time nothing is trained
    mitigation.main()
    assert capsys.readouterr().out == first


@pytest.mark.slow
def test_canaries_of_each_kind_are_measured_by_seed(monkeypatch, tmp_path):
    options = ["--rows", "4", "--canaries", "8", "--epochs", "1", "--repeats", "1", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["x", *options, "--only", "Bigram", "NewTokens", "--out", str(tmp_path)])
    canaries.main()
    (made,) = json.loads((tmp_path / "canaries.json").read_text())
    rows = {row[0]: row[1:] for row in made["rows"]}
    names = ["Bigram", "NewTokens (all weights)"]
    assert list(rows) == [f"{name}, {of}" for name in names for of in ("seed 0", "mean")]
    for name in names:
        assert rows[f"{name}, seed 0"] == rows[f"{name}, mean"]
        bound, right, area, exposure, extracted = rows[f"{name}, mean"]
        assert bound >= 0
        assert exposure >= 0
        assert all(0 <= share <= 1 for share in (right, area, extracted))


def test_new_tokens_are_compared_where_their_embeddings_are_trained():
    names = canaries.cases(None)
    assert "NewTokens (all weights)" in names
    assert "NewTokens" not in names
    assert {name.removesuffix(canaries.FULL) for name in names} == set(canaries.KINDS)


def test_mitigations_are_what_their_names_say():
    args = mitigation.options().parse_args([])
    made = mitigation.ways(args)
    assert made["epsilon 3"].model["privacy"].target_epsilon == 3
    assert made["goldfish, k = 2"].model["loss"].goldfish_k == 2
    assert [name for name, way in made.items() if "privacy" in way.model] == [
        "clipped, no noise", "epsilon 8", "epsilon 3", "epsilon 1",
    ]  # fmt: skip


@pytest.mark.slow
def test_startup_shows_processor_and_wall_seconds_of_each_command():
    args = startup.made_options().parse_args(["--repeats", "1", "--help-of", "", "report"])
    (table,) = startup.run(args)
    assert [row[0] for row in table.rows] == ["first step", "imports", "--help", "report --help"]
    assert all(seconds > 0 for row in table.rows for seconds in row[1:])
    # Of the same work: imports are a part of what comes before the first step, and help imports less.
    assert table.row("first step")["processor s"] > table.row("imports")["processor s"]


def test_startup_rejects_a_command_that_fails(tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with code 2.*found command nonsense"):
        startup.measured([startup.TRAIN, "nonsense"], str(tmp_path))
