"""A model is built and scored without a trainer, and its reference's scores are kept for one setting at a time."""

import pytest
import torch

from lit_mem.adapters import FullFineTuning, LoRA
from lit_mem.errors import ModelError
from lit_mem.models.base_loader import BaseLoader, Place
from lit_mem.models.building import build
from lit_mem.models.hub import load_tokenizer
from lit_mem.models.reference_model import Setting
from lit_mem.models.scored import ScoredModel
from lit_mem.scoring.reference_scores import Reference, ReferenceCache
from lit_mem.sharding.lockstep import Lockstep
from lit_mem.types import Needs

TINY = "asset:tiny_llama"
CPU = torch.device("cpu")


def built(adapter, reference, check=lambda model, name: None):
    bases = BaseLoader(TINY, None, "float32", "none", None, Lockstep())
    return build(bases, Place(), adapter, reference, check, lambda: load_tokenizer(TINY).vocab_size)


def scored(cache, kind="auto", on_disk=False):
    made = built(LoRA(rank=4, targets=["v"]), Reference(kind))
    return ScoredModel(made.model.eval(), made.reference, cache, on_disk, Lockstep())


@pytest.mark.parametrize("kind", ["adapter_off", "copy"])
def test_without_a_trainer_the_numbers_are_those_of_the_module(module, batch, kind):
    torch.manual_seed(1)
    model = module(adapter=LoRA(rank=4, targets=["v"]), reference=Reference(kind))
    model.configure_model()
    torch.manual_seed(1)
    plain = scored(ReferenceCache(), kind)
    theirs = model.eval().score(batch, Needs(reference=True))
    ours = plain.score(batch, Needs(reference=True), Setting(CPU), step=0)
    assert torch.equal(ours.logprob, theirs.logprob)
    assert torch.equal(ours.reference, theirs.reference)
    assert plain.tuned_is_reference(0) == (kind == "adapter_off")
    assert not plain.tuned_is_reference(1)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("on_disk", [False, True])
def test_scores_of_another_precision_are_not_taken(batch, on_disk):
    cache = ReferenceCache()
    model = scored(cache, on_disk=on_disk)
    computed = []
    for precision in ("32-true", "32-true", "bf16-mixed", "32-true"):
        model.score(batch, Needs(reference=True), Setting(CPU, precision), step=1)
        computed.append(cache.computed)
    assert computed == [8, 8, 8, 0 if on_disk else 8]
    assert len(cache) == 8
    assert (cache.store is not None) == on_disk


def test_the_base_and_the_model_and_a_copy_are_checked_in_this_order(batch):
    names = []
    made = built(FullFineTuning(), Reference(), lambda model, name: names.append((type(model).__name__, name)))
    assert names == [("LlamaForCausalLM", TINY)] * 3
    assert made.reference.scorer is not None
    assert made.reference.fingerprint == made.fingerprint


def test_a_reference_with_fewer_tokens_than_the_tokenizer_is_rejected():
    bases = BaseLoader(TINY, None, "float32", "none", None, Lockstep())
    with pytest.raises(ModelError, match=r"model\.reference\.model_id 'asset:tiny_llama' has another vocabulary"):
        build(bases, Place(), FullFineTuning(), Reference(model_id=TINY), lambda *_: None, lambda: 10**6)
