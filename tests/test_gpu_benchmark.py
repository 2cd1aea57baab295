"""`python -m benchmarks.gpu` at a toy shape on the CPU: its sides agree, its checks can fail, its numbers add up."""

import json
import math
import sys
from contextlib import contextmanager

import pytest
import torch

from benchmarks import gpu, gpu_checks, gpu_parts, gpu_setting, gpu_tracking
from benchmarks.gpu_setting import TOY, Session, random_base, random_texts
from benchmarks.sizes import LLAMA_2, Machine
from benchmarks.table import Table
from lit_mem.generation.decoding import Decoded

CPU = torch.device("cpu")


def options(*words):
    return gpu.completed(gpu.options().parse_args(["--device", "cpu", "--repeats", "1", *words]))


@pytest.fixture
def session():
    return Session(options(), CPU, TOY, math.inf, Machine(flops=1e9, bandwidth=1e9))


def ran(*words):
    """The session, and all tables by the first word of their title."""
    shown = []
    session = gpu.run(gpu.options().parse_args(["--device", "cpu", "--repeats", "1", *words]), shown.append)
    return session, {table.title.split()[0].strip(",:"): table for table in shown[-1]}


# -- all of it ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    return ran()


@pytest.mark.slow
def test_every_part_runs_at_a_toy_shape_and_every_check_passes(whole):
    session, tables = whole
    assert session.failed == []
    assert list(tables) == ["Checks", "toy", "Training", "Scoring", "Extraction", "Epoch", "Outcome"]
    assert {row[-1] for row in tables["Checks"].rows} == {"pass"}
    assert len(tables["Checks"].rows) >= 6
    outcome = tables["Outcome"]
    assert outcome.row("failed")["parts"] == 0
    missing = [note for note in outcome.notes if note.startswith("flash_attention_2: not measured")]
    assert len(missing) == outcome.row("not measured")["parts"]


@pytest.mark.slow
@pytest.mark.parametrize(("title", "operations"), [("Training", 4), ("Scoring", 2)])
def test_operations_are_counted_from_real_tokens_and_compared_with_the_device(whole, title, operations):
    session, tables = whole
    rows = tables[title].rows
    sides = ["ours", "ours, checkpointed", "padded"] if title == "Training" else ["ours", "padded, batches of 8"]
    assert [row[0] for row in rows] == [f"{side}, {n} tokens" for n in ("32", "4 to 32") for side in sides]
    rate = tables["toy"].rows[0][1]
    for _, took, tokens_a_second, reached, share, peak in rows:
        assert took > 0
        assert reached == pytest.approx(operations * TOY.multiplied * tokens_a_second / 1e12)
        assert share == pytest.approx(reached / rate)
        assert peak is None  # torch counts a GPU's memory only
    assert rows[0][1] * rows[0][2] == pytest.approx(31 * (8 if title == "Training" else session.args.rows))


@pytest.mark.slow
def test_extraction_writes_the_tokens_that_generate_writes(whole):
    _, tables = whole
    ours, *others = tables["Extraction"].rows
    assert ours[0] == "ours"
    assert [row[5] for row in others] == [1.0, 1.0]
    bandwidth = tables["toy"].rows[1][1]
    for row in tables["Extraction"].rows:
        assert row[4] == pytest.approx(row[3] / bandwidth)


@pytest.mark.slow
def test_a_tracked_epoch_is_the_sum_of_its_parts(whole):
    _, tables = whole
    found = {row[0]: row for row in tables["Epoch"].rows}
    for side in ("untracked", "tracked"):
        whole_epoch = found[f"{side}: epoch"]
        inside = [row for name, row in found.items() if name.startswith(f"{side}: ") and "before" not in name]
        assert sum(row[1] for row in inside) == pytest.approx(2 * whole_epoch[1])
        assert whole_epoch[2] == pytest.approx(whole_epoch[1] / found["untracked: epoch"][1])
    assert found["tracked: scoring pass"][3] > 0


# -- checks that fail --------------------------------------------------------------------------------------


def test_an_adapter_that_stays_on_fails_its_check(monkeypatch):
    assert [row[-1] for row in gpu_checks.off_is_base(CPU)] == ["pass", "pass"]

    @contextmanager
    def stays_on(model):
        yield model

    monkeypatch.setattr(gpu_checks, "adapter_off", stays_on)
    assert [row[-1] for row in gpu_checks.off_is_base(CPU)] == ["FAIL", "pass"]
    monkeypatch.setattr(gpu_checks, "randomize", lambda model: None)
    with pytest.raises(RuntimeError, match="changes no logit"):
        gpu_checks.off_is_base(CPU)


@pytest.mark.slow
def test_a_resume_without_its_random_state_fails_its_check(session, monkeypatch):
    monkeypatch.setattr("lit_mem.lightning.resume.set_random_state", lambda state: None)
    ((name, _, _, result),) = gpu_checks.resume(session)
    assert "10 steps" in name
    assert result == "FAIL"
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("float32", "bfloat16", "results"),
    [
        ([1e-4, -5e-5], [1e-3, -2e-3], ["pass", "pass", "pass"]),
        ([2e-4, -5e-5], [1e-3, -2e-3], ["FAIL", "pass", "pass"]),
        ([0.0, 0.0], [3e-3, -2e-3], ["pass", "FAIL", "pass"]),  # more than twice the rounding on the CPU
        ([0.0, 0.0], [1.1e-3, 1.1e-3], ["pass", "pass", "FAIL"]),  # each text in one direction
    ],
)
def test_scores_fail_their_check_beyond_rounding(float32, bfloat16, results, monkeypatch):
    apart = {
        ("float32", "cpu"): [0.0, 0.0], ("bfloat16", "cpu"): [1e-3, -1e-3],
        ("float32", "meta"): float32, ("bfloat16", "meta"): bfloat16,
    }  # fmt: skip
    monkeypatch.setattr(gpu_checks, "batches_of_corpus", list)
    monkeypatch.setattr(gpu_checks, "adapted", lambda dtype, device: (dtype, device.type))
    means = torch.tensor([-2.0, -3.0], dtype=torch.float64)
    monkeypatch.setattr(gpu_checks, "text_means", lambda module, *_: means + torch.tensor(apart[module]).double())
    assert [row[-1] for row in gpu_checks.scores(torch.device("meta"))] == results


@pytest.mark.parametrize(
    ("found", "limit", "same", "result"),
    [(0.0, 0.0, True, "pass"), (1e-4, 1e-4, True, "pass"), (2e-4, 1e-4, True, "FAIL"), (0.0, 0.0, False, "FAIL"),
     (math.nan, 1.0, True, "FAIL")],
)  # fmt: skip
def test_a_check_is_judged_by_its_limit(found, limit, same, result):
    assert gpu_checks.row("name", found, limit, same)[-1] == result


def test_a_check_that_raises_fails_and_the_others_run(session, monkeypatch):
    passed = [["name", "0", "0", "pass"]]

    def broken(device, bits=False):
        raise RuntimeError("no kernel image\nand more lines")

    monkeypatch.setattr(gpu_checks, "scores", lambda device: passed)
    monkeypatch.setattr(gpu_checks, "off_is_base", broken)
    monkeypatch.setattr(gpu_checks, "resume", lambda session: passed)
    monkeypatch.setattr(gpu_checks, "without_4_bits", lambda device: "4 bits: not checked")
    table = gpu_checks.checks(session)
    assert [row[-1] for row in table.rows] == ["pass", "FAIL", "pass"]
    assert table.notes == ["4 bits: not checked"]
    assert session.failed == ["check adapter off in bfloat16: RuntimeError: no kernel image"]


# -- sides that differ -------------------------------------------------------------------------------------


def test_scoring_rejects_other_scores(session, monkeypatch):
    monkeypatch.setattr(gpu_parts, "our_pass", lambda module, batches: torch.tensor(-1.0))
    with pytest.raises(RuntimeError, match="the sides differ: the sum of log-probabilities"):
        gpu_parts.scoring(session, "sdpa")


def test_extraction_rejects_other_tokens(session, monkeypatch):
    decode = gpu_parts.decode

    def wrong(*args, **kwargs):
        return [Decoded((each.ids + 1) % TOY.vocabulary, each.logprob) for each in decode(*args, **kwargs)]

    monkeypatch.setattr(gpu_parts, "decode", wrong)
    with pytest.raises(RuntimeError, match="the tokens' logits differ by"):
        gpu_parts.extraction(session)


def test_a_tracked_fit_that_trains_otherwise_is_rejected(session):
    def fit(losses, weights):
        made = type("Fit", (), {})()
        made.clock, made.weights = type("Clock", (), {"losses": losses})(), weights
        return made

    gpu_tracking.check(session, fit([2.0], "a"), fit([2.0], "a"))
    with pytest.raises(RuntimeError, match="val/loss"):
        gpu_tracking.check(session, fit([2.0], "a"), fit([2.01], "a"))
    with pytest.raises(RuntimeError, match="changed the trained weights"):
        gpu_tracking.check(session, fit([2.0], "a"), fit([2.0], "b"))


# -- what goes wrong is one line ---------------------------------------------------------------------------


def test_parts_that_fail_are_one_line_each_and_the_exit_code_is_1(monkeypatch, tmp_path, capsys):
    def fails(error):
        def part(session):
            raise error

        return part

    made = Table("Extraction", ["", "seconds"], [["ours", 1.0]])
    parts = {
        "rates": fails(RuntimeError("CUDA error: an illegal memory access\nCUDA kernel errors might be …")),
        "training": fails(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")),
        "extraction": lambda session: made,
    }
    monkeypatch.setattr(gpu, "WORK", parts)
    words = ["--only", "training", "extraction", "--device", "cpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *words])
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    assert str(stop.value).startswith("failed: 2")
    extraction, outcome = json.loads((tmp_path / "gpu.json").read_text())
    assert Table(**extraction) == made
    rates, training, _ = outcome["notes"]
    assert rates == "rates: RuntimeError: CUDA error: an illegal memory access"
    assert training.startswith("training: out of memory")
    assert "--batch" in training
    assert capsys.readouterr().out.count("Extraction") == 1  # each table once, as soon as it is there


def test_nothing_begins_after_the_time_limit():
    session, tables = ran("--seconds", "0")
    assert list(tables) == ["Outcome"]
    assert session.failed == []
    assert len(session.notes) == len(gpu.PARTS) + len(gpu_parts.KERNELS) - 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--device", "cuda"], "--device is cuda"),
        (["--length", "5000"], "--length is 5000"),
        (["--batch", "0"], "--batch"),
    ],
)
def test_options_that_cannot_be_are_rejected(words, named, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=named):
        gpu.completed(gpu.options().parse_args(words))


def test_a_gpu_is_measured_at_the_large_shape_in_16_bits(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    args = gpu.completed(gpu.options().parse_args(["--rows", "9", "--only", "training"]))
    assert (args.shape, args.dtype, args.length, args.rows) == ("7b", "bfloat16", 256, 9)
    assert "rates" in args.only  # what the others are compared with
    args = options()
    assert (args.shape, args.dtype, args.length) == ("toy", "float32", 32)


# -- models, texts, rates ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_random_model_has_the_parameters_of_its_shape():
    model = random_base(LLAMA_2["7B"], torch.device("meta"), "bfloat16")
    assert sum(p.numel() for p in model.parameters()) == LLAMA_2["7B"].parameters
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in model.parameters())


def test_random_weights_depend_on_the_seed_alone():
    state = torch.get_rng_state()
    one, same, other = (random_base(TOY, CPU, "float32", seed=seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.std().item() == pytest.approx(0.02, rel=0.05)


def test_texts_have_the_lengths_that_are_named():
    texts = random_texts(7, 4, 32, 100)
    assert sorted(len(text.input_ids) for text in texts) == [4, 9, 13, 18, 23, 27, 32]
    assert all(int(text.scored.sum()) == len(text.input_ids) - 1 for text in texts)
    assert {len(text.input_ids) for text in random_texts(7, 32, 32, 100)} == {32}
    assert gpu_parts.read_tokens(texts) == 126 - 7


def test_rates_are_operations_and_bytes_by_time(monkeypatch):
    monkeypatch.setattr(gpu_setting, "seconds", lambda work: 5.0)  # of five products: one second each
    products = 7 * TOY.layers + 1
    assert gpu_setting.matrix_rate(TOY, CPU, "float32", 3) == pytest.approx(2 * 3 * TOY.multiplied / products)
    assert gpu_setting.copy_rate(CPU, 100) == 2 * 100 / 5


def test_the_flash_kernel_is_named_where_its_package_is_missing(monkeypatch):
    monkeypatch.setattr(gpu_parts.importlib.util, "find_spec", lambda name: None)
    assert "flash_attn" in gpu_parts.without("flash_attention_2")
    assert gpu_parts.without("sdpa") is None
