"""Long texts passed to the callbacks of Hugging Face's Trainer and of Lightning are scored whole, as in an audit."""

import pytest
import torch

import lit_mem
from lit_mem.errors import ConfigError
from lit_mem.lightning.auditing import audit_of
from lit_mem.lightning.memorization import Memorization
from tests.lightning.test_own_pass import Plain

pytestmark = pytest.mark.slow

CHUNK = {"tokens": 24, "stride": 10}


@pytest.fixture
def documents(member_texts, heldout_texts):
    return [
        [f"{a} {b}" for a, b in zip(some[::2], some[1::2], strict=False)][:6] for some in (member_texts, heldout_texts)
    ]


def audited(model, tokenizer, documents):
    options = {"suite": "quick", "folder": None, "check": False, "max_length": 24, "chunk": CHUNK}
    with torch.no_grad():
        return lit_mem.audit(model, tokenizer, *documents, **options).metrics


def test_the_trainers_callback_scores_documents_as_an_audit_does(trainer, callback, documents, scored):
    measured = callback(members=documents[0], heldout=documents[1], max_length=24, chunk=CHUNK)
    made = trainer(measured)
    made.train()
    found = made.evaluate()
    expected = audited(made.model, made.processing_class, documents)
    assert len(scored(measured)) == 12
    for name in ("mia/reference_auroc", "mia/zlib_auroc", "val/perplexity", "extraction/longest_run_heldout"):
        assert found[f"eval_{name}"] == pytest.approx(expected[name], rel=1e-5), name
    with pytest.raises(ConfigError, match=r"^MemorizationCallback\.chunk is given without members"):
        callback(chunk=CHUNK)


def test_lightnings_callback_scores_documents_as_an_audit_does(tokenizer, documents, tmp_path):
    import lightning.pytorch as pl

    made = Plain(tokenizer)
    with torch.no_grad():
        [p.normal_(std=0.05) for name, p in made.named_parameters() if "lora_B" in name]
    own = Memorization("quick", members=documents[0], heldout=documents[1], max_length=24, chunk=CHUNK, check=False)
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    t = pl.Trainer(callbacks=[own], max_epochs=1, limit_train_batches=0, default_root_dir=tmp_path, **options)
    made.validation_step = lambda batch, batch_idx: None
    t.validate(made, torch.utils.data.DataLoader([0]), verbose=False)
    found, expected = audit_of(t).audit.result.metrics, audited(made.net, tokenizer, documents)
    assert expected["extraction/longest_run"] > 1
    for name, value in expected.items():
        if not name.endswith("_base") and name in found and not name.startswith("correlation/"):
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
    with pytest.raises(ConfigError, match=r"members is None.* data\.chunk"):
        Memorization(chunk=CHUNK)
