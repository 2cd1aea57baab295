"""Whether outputs confirm a guessed text: the attacker has only the guessed texts and the public base model.

A score under the base model is one value per text with many digits. If a file holds it beside "member", or values
from which it follows, a guess can be looked up instead of estimated.
"""

import math
import re
from itertools import permutations
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_mem.callbacks import Extractability, Extraction, MembershipInference, Movers, PerExampleTable, Perplexity
from lit_mem.data.encoding import collate
from lit_mem.functional.auroc import auroc
from lit_mem.report.run_report import run_report

N = 60


@pytest.fixture(scope="module")
def run(module, data, trainer, tmp_path_factory):
    """A fit with a table: (its folder, base losses of N members and N other texts, which are members)."""
    folder = tmp_path_factory.mktemp("guesses")
    model, corpus = module(dropout=0.0, targets=["all-linear"]), data(train_size=N, heldout_size=N)
    measuring = [
        Perplexity(),
        MembershipInference(plots=False),
        Extraction(10, 10),
        Extractability(),
        Movers(fpr=0.1),
    ]
    loggers = [kind(folder, name="run", version=0) for kind in (CSVLogger, TensorBoardLogger)]
    t = trainer([*measuring, PerExampleTable()], max_epochs=2, logger=loggers)
    t.fit(model, corpus)
    more = data(train_size=N, heldout_size=None, tokenizer="asset:tiny_llama")
    more.setup("fit")
    taken = {example.record.origin for example in corpus.heldout}
    guesses = [*corpus.members, *[e for e in more.heldout if e.record.origin not in taken][:N]]
    assert len(guesses) == 2 * N
    base = model.fresh_base().eval()
    loss = []
    for guess in guesses:
        batch = collate([guess])
        with torch.no_grad():
            logprob = base(input_ids=batch["input_ids"]).logits[0, :-1].float().log_softmax(-1)
        at = logprob.gather(1, batch["input_ids"][0, 1:, None])[:, 0]
        loss.append(-at[batch["scored"][0, 1:]].double().mean().item())
    return folder / "run" / "version_0", torch.tensor(loss), torch.arange(2 * N) < N


def confirmed(numbers, loss, member):
    """AUROC of inferring membership from how close a text's loss under the base is to such a value, with interval."""
    near = torch.tensor(sorted({x for x in numbers if 0 < x < 20})).double()
    if not len(near):
        return auroc(torch.zeros(len(loss)), member)
    return auroc(-(loss[:, None] - near[None]).abs().min(1).values, member)


def readings(row):
    """Values derived from a row that may reveal the loss under the base: each, its logarithm, sums and differences."""
    found = [abs(x) for x in row if isinstance(x, int | float) and x and math.isfinite(x)]
    found += [math.log(x) for x in found if x > 1]
    signed = [s * x for x in found for s in (1, -1)]
    return [abs(x) for x in found] + [a + b for a, b in permutations(signed, 2) if a + b > 0]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_the_table_confirms_every_guess(run):
    """By the base model's perplexity; and without it, by the tuned model's and the reference attack's score."""
    folder, loss, member = run
    rows = pq.read_table(max((folder / "examples").glob("epoch_*.parquet"))).to_pydict()
    mine = [i for i, kind in enumerate(rows["set"]) if kind == "member"]
    follows = [math.log(rows["perplexity"][i]) + rows["mia/reference"][i] for i in mine]
    assert confirmed(follows, loss, member).value > 0.95


@pytest.mark.slow
def test_the_report_confirms_none(run):
    folder, loss, member = run
    (folder / "config.yaml").write_text("model: {model_id: asset:tiny_llama}\n")
    examples = run_report(folder)["examples"]
    exposed = examples["exposed"]
    numbers = [n for n, name in enumerate(exposed["columns"]) if name not in ("origin", "example_id", "duplicates")]
    found = [x for row in exposed["rows"] for x in readings([row[n] for n in numbers])]
    assert len(found) >= 20
    assert confirmed(found, loss, member).low < 0.5
    for one in examples["scatters"]:
        points = zip(one["perplexity"], one["value"], one["member"], strict=True)
        found = [x for p, v, m in points if m for x in readings([p, v])]
        assert confirmed(found, loss, member).low < 0.5
    edges = [x for one in examples["attacks"] for x in readings(one["histogram"]["edges"])]
    assert confirmed(edges, loss, member).low < 0.5


@pytest.mark.slow
def test_a_single_example_s_numbers_in_the_report_have_few_digits(run):
    examples = run_report(run[0])["examples"]
    exposed = examples["exposed"]
    assert not [name for name in exposed["columns"] if name.endswith("_base") or name.startswith("perplexity")]
    assert sum(name.startswith("mia/") for name in exposed["columns"]) == 1
    single = [x for row in exposed["rows"] for x in row if isinstance(x, float)]
    single += [x for one in examples["scatters"] for x in (*one["perplexity"], *one["value"])]
    assert len(single) > 100
    assert all(float(f"{x:.2g}") == x for x in single)
    assert all("example_id" not in one for one in examples["scatters"])


def test_no_configuration_that_ships_writes_a_table():
    configs = list((Path(__file__).parents[2] / "configs").rglob("*.yaml"))
    assert len(configs) > 10
    assert not [path for path in configs if "PerExampleTable" in path.read_text()]


@pytest.mark.slow
def test_default_outputs_confirm_none(run):
    """All outputs without a table: names and values in the logs, and the members that moved most."""
    folder, loss, member = run
    found = []
    for path in folder.iterdir():
        if path.is_file() and path.suffix in (".csv", ".yaml", ".json", ".jsonl"):
            found += [abs(float(x)) for x in re.findall(r"(?<![\w.])-?\d+\.\d{3,}(?:e-?\d+)?", path.read_text())]
    assert len(found) > 100
    assert confirmed(found, loss, member).low < 0.5
    moved = [x for line in tables(folder) for x in re.findall(r"[+-](?:\d+\.?\d*|\.\d+)(?:e-?\d+)?", line)]
    assert len(moved) >= 5
    assert all(float(f"{float(x):.2g}") == float(x) for x in moved)
    assert confirmed([abs(float(x)) for x in moved], loss, member).low < 0.5


def tables(folder):
    """The lines of the tables in the event file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    for event in events.Tensors("memorization/moved_most/text_summary"):
        yield from event.tensor_proto.string_val[0].decode().splitlines()[2:]
