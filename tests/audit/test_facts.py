"""Provenance of a run in each interface: counts, parameters, tokens and keyed digests, and no text."""

import json
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open

import lit_mem
import lit_mem.report
from lit_mem.audit.facts import adapter_parameters, all_parameters, base_fingerprint, trained_parameters
from lit_mem.callbacks import Perplexity
from lit_mem.cli import main as cli
from lit_mem.files.facts import FILE, read_facts
from lit_mem.files.hashes import sha256_of
from lit_mem.models.base_models import load_base
from lit_mem.models.fingerprint import fingerprint
from lit_mem.privacy.corpus import salted_digest
from lit_mem.report.verify import verify

HELDOUT = [{"text": f"Held-out sentence number {i} of a few more words.", "who": f"person {i}"} for i in range(6)]
MEMBERS = [{"text": f"A sentence number {i} that was trained on.", "who": f"patient {i // 2}"} for i in range(8)]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    config = LoraConfig(r=2, target_modules=["v_proj", "o_proj"], init_lora_weights=False)
    get_peft_model(load_base("asset:tiny_llama"), config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def audited(adapter, tmp_path_factory):
    """The folder of an audit of an adapter, with members some of whom have two rows."""
    found = lit_mem.audit(
        str(adapter), "asset:tiny_llama", MEMBERS, HELDOUT, suite="quick", check=False,
        fields={"text_column": "text", "group_column": "who"}, folder=tmp_path_factory.mktemp("logs"),
    )  # fmt: skip
    return found.folder


def test_of_an_audit(audited, adapter, tokenizer):
    facts = read_facts(audited)
    assert (facts.members.rows, facts.members.persons, facts.heldout.rows) == (8, 4, 6)
    assert facts.members.tokens == sum(len(tokenizer(row["text"])["input_ids"]) for row in MEMBERS)
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        saved = sum(file.get_tensor(name).numel() for name in file.keys())
    assert facts.trained == saved
    base = load_base("asset:tiny_llama")
    assert facts.parameters == saved + sum(p.numel() for p in base.parameters())
    assert facts.fingerprint == fingerprint(base)
    assert {one.path: one.sha256 for one in facts.adapter} == {
        path.name: sha256_of(path) for path in adapter.iterdir() if path.is_file()
    }
    assert facts.started.endswith("+00:00")
    assert facts.versions["lit_mem"] == lit_mem.__version__


def test_digests_are_of_all_texts_by_the_key_and_salt(base, tokenizer, tmp_path):
    found = lit_mem.audit(base, tokenizer, MEMBERS, HELDOUT, suite="quick", check=False, folder=tmp_path)
    facts = read_facts(found.folder)
    for found, rows in ((facts.members, MEMBERS), (facts.heldout, HELDOUT)):
        assert found.digest == salted_digest([row["text"] for row in rows], facts.digest_salt)


def test_no_text_and_no_name_is_in_it(audited):
    content = (audited / FILE).read_text()
    for row in [*MEMBERS, *HELDOUT]:
        assert row["text"] not in content
        assert row["who"] not in content


def test_without_a_key_there_is_no_digest(adapter, tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "cache"
    blocked.write_text("a file")  # in place of the key's folder
    monkeypatch.setenv("LIT_MEM_CACHE", str(blocked))
    found = lit_mem.audit(
        str(adapter), "asset:tiny_llama", MEMBERS, HELDOUT, suite="quick", check=False, folder=tmp_path / "logs"
    )
    facts = read_facts(found.folder)
    assert (facts.members.rows, facts.members.digest, facts.digest_salt) == (8, None, "")
    assert "facts.json" in caplog.text


@pytest.mark.parametrize(
    ("options", "known"),
    [({}, True), ({"modules_to_save": ["norm"]}, False), ({"bias": "lora_only"}, False)],
)
def test_the_fingerprint_of_a_base_under_an_adapter(options, known):
    base = load_base("asset:tiny_llama")
    expected = fingerprint(base)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["v_proj", "o_proj"], **options))
    assert isinstance(model, PeftModel)
    assert base_fingerprint(model) == (expected if known else {})


def test_a_whole_model_has_no_adapter(base):
    assert adapter_parameters(base) is None
    assert base_fingerprint(base) == fingerprint(base)


def test_a_packed_4_bit_parameter_counts_its_unpacked_size():
    """As in bitsandbytes: two values per byte, with the shape beside them."""
    layer = torch.nn.Linear(8, 4)
    layer.weight = torch.nn.Parameter(torch.zeros(16, 1, dtype=torch.uint8), requires_grad=False)
    layer.weight.quant_state = SimpleNamespace(shape=torch.Size([4, 8]))
    assert all_parameters(layer) == 4 * 8 + 4
    assert trained_parameters(layer) == 4


def test_of_a_run_on_the_command_line(module, data, trainer, tmp_path):
    t = trainer([Perplexity()], logger=CSVLogger(tmp_path), max_epochs=1)
    model, texts = module(), data()
    t.fit(model, texts)
    (path,) = tmp_path.rglob(FILE)
    facts = read_facts(path.parent)
    assert facts.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert facts.fingerprint == model.base_fingerprint
    assert facts.base == "asset:tiny_llama"
    assert (facts.members.rows, facts.heldout.rows) == (24, 20)
    assert facts.members.tokens == sum(len(one.input_ids) for one in texts.train)
    rows = texts.rows.train
    every = [p + c for p, c in zip(rows["prompt"], rows["completion"], strict=True)]
    assert facts.members.digest == salted_digest(every, facts.digest_salt)
    assert facts.heldout.digest is not None
    assert json.loads(path.read_text())["schema"] == 1


def test_the_annex_of_an_audit_counts_persons_and_names_none(audited, adapter):
    cli.main(["report", str(audited)])
    data = json.loads((audited / "report.json").read_text())
    schema = json.loads((Path(lit_mem.report.__file__).parent / "schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(data)
    counts = data["annex"]["counts"]
    assert (counts["members"], counts["persons"], counts["epochs"], counts["validations"]) == (8, 4, None, 1)
    assert counts["trained_per_person"] == counts["trained"] / 4
    assert {one["path"] for one in data["files"] if one["of"] == "adapter"} == {path.name for path in adapter.iterdir()}
    every = verify(audited / "report.json", adapter=adapter)
    assert {one.state for one in every} == {"same"}
    for name in ("report.json", "annex.md", "report.html"):
        content = (audited / name).read_text()
        for row in [*MEMBERS, *HELDOUT]:
            assert row["text"] not in content
            assert row["who"] not in content
