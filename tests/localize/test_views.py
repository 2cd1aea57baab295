"""Attention and residual stream of one text, compared with Hugging Face's `output_attentions` position by position."""

import json

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from lit_mem import assets
from lit_mem.cli import main as cli
from lit_mem.cli.localize import main
from lit_mem.errors import ModelError
from lit_mem.localize.run_folder import open_run
from lit_mem.localize.views import eager_attention, inside, residual_change, views_figure

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
ID = 3


@pytest.fixture(scope="module")
def found(run_dir):
    main([str(run_dir), "--example", str(ID), "--prefix", "6"])
    return json.loads((run_dir / f"localize_example_{ID}.json").read_text())


@pytest.fixture(scope="module")
def passes(run_dir):
    """Hugging Face's outputs for the text: tuned, base; and its ids."""
    run = open_run(str(run_dir))
    tokenizer = run.module.tokenizer
    lines = (assets.path("case_reports") / "train.jsonl").read_text().splitlines()

    def model():
        path = assets.path("tiny_llama")
        return AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()

    tuned = PeftModel.from_pretrained(model(), run_dir / "checkpoints" / "last-adapter").eval()
    origin = json.loads((run_dir / f"localize_example_{ID}.json").read_text())["origin"]
    text = json.loads(lines[int(origin.rpartition(":")[2]) - 1])["text"]
    ids = torch.tensor([tokenizer(text)["input_ids"][:48]])
    if ids[0, -1] == tokenizer.eos_token_id:
        ids = ids[:, :-1]
    with torch.no_grad():
        requested = {"input_ids": ids, "output_attentions": True, "output_hidden_states": True}
        return tuned(**requested), model()(**requested), ids[0]


@pytest.mark.slow
def test_attention_is_what_the_library_gives(found, passes):
    *outputs, ids = passes
    n, cut = len(ids), found["cut"]
    assert (found["n_tokens"], cut) == (n, 7)  # six tokens and the BOS
    for name, out in zip(("tuned", "base"), outputs, strict=True):
        for layer, attention in enumerate(out.attentions):
            for head in range(attention.shape[1]):
                mass = [sum(attention[0, head, q, k].item() for k in range(cut)) for q in range(cut, n)]
                first = [attention[0, head, q, 0].item() for q in range(cut, n)]
                assert found["attention"][name]["on_prefix"][layer][head] == pytest.approx(sum(mass) / (n - cut), 1e-4)
                assert found["attention"][name]["on_first"][layer][head] == pytest.approx(sum(first) / (n - cut), 1e-4)
    assert found["attention"]["tuned"] != found["attention"]["base"]


def test_the_residual_stream_is_what_the_library_gives(found, passes):
    tuned, base, ids = passes
    assert len(found["residual"]["by_layer"]) == len(tuned.hidden_states)
    for layer, (t, b) in enumerate(zip(tuned.hidden_states, base.hidden_states, strict=True)):
        change = [((t[0, p] - b[0, p]).norm() / b[0, p].norm()).item() for p in range(len(ids))]
        assert found["residual"]["by_position"][layer] == pytest.approx(change, rel=1e-3, abs=1e-6)
        assert found["residual"]["by_layer"][layer] == pytest.approx(sum(change) / len(ids), rel=1e-3, abs=1e-6)
    assert found["residual"]["by_layer"][:2] == [0, 0]  # embeddings, and layer 0, which the adapter does not change
    assert found["residual"]["by_layer"][2] > 0.01


@pytest.mark.slow
def test_no_token_is_written_unless_requested(found, run_dir, tmp_path):
    assert "tokens" not in found
    main([str(run_dir), "--example", str(ID), "--prefix", "6", "--text", "true", "--out", str(tmp_path / "t.json")])
    printed = json.loads((tmp_path / f"t_example_{ID}.json").read_text())
    assert len(printed.pop("tokens")) == printed["n_tokens"]
    assert printed == found
    assert (tmp_path / f"t_example_{ID}.png").read_bytes().startswith(b"\x89PNG")


def test_the_kernel_is_as_before_also_after_an_error(base):
    before = base.config._attn_implementation
    assert before != "eager"
    with eager_attention(base):
        assert base.config._attn_implementation == "eager"
    with pytest.raises(KeyError), eager_attention(base):
        raise KeyError
    assert base.config._attn_implementation == before


def test_a_model_without_attention_is_rejected():
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=16, hidden_size=8, state_size=2, num_hidden_layers=1, intermediate_size=16)
    with torch.no_grad(), pytest.raises(ModelError, match="gives no attention"):
        inside(MambaForCausalLM(config).eval(), torch.arange(4))


def test_a_position_of_nothing_changes_by_nothing():
    zero = torch.zeros(1, 2, 3)
    assert residual_change(zero, zero).tolist() == [[0, 0]]


@pytest.mark.slow
def test_tokens_are_drawn_as_they_are(found):
    tokens = ["$x^", "\n", "$\\frac$", "_{", *["a"] * (found["n_tokens"] - 4)]
    views_figure(found, tokens).savefig("/dev/null", format="png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--example", "9999"], "--example is 9999, but this run has no such text; expected an id from 0 to 29"),
        (["--influence", "9999"], "--influence is 9999, but this run has no such text"),
        (["--example", "3", "--prefix", "400"], "no suffix is left"),
        (["--example", "3", "--prefix", "-1"], "--prefix is -1"),
        (["--example", "3", "--influence", "3"], "--example and --influence are both given"),
        (["--influence", "3", "--top", "0"], "--top is 0"),
    ],
)
def test_errors_are_one_line(run_dir, capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["localize", str(run_dir), *words])
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert stopped.value.code == 2
    assert len(errors) == 1
    assert said in errors[0]
