"""How much of a given text is scored, with and without an option."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPT2Config

from lit_mem.adapters import PromptTuning
from lit_mem.audit.subject_models import LONGEST, readable_length
from lit_mem.hf.run import TextOptions, longest


def model_of(n_positions):
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "n_layer": 1, "n_head": 1}
    unlimited = BloomConfig(hidden_size=8, **sizes)
    limited = n_positions and GPT2Config(n_embd=8, n_positions=n_positions, **sizes)
    return AutoModelForCausalLM.from_config(limited or unlimited)


@pytest.mark.parametrize(("n_positions", "expected"), [(24, 24), (5000, LONGEST), (None, LONGEST)])
def test_by_default_it_is_what_the_model_reads(n_positions, expected):
    assert readable_length(model_of(n_positions)) == expected


def test_virtual_tokens_leave_less_to_the_text():
    assert readable_length(PromptTuning(tokens=5).wrap(model_of(24))) == 19


@pytest.mark.parametrize(
    ("option", "of_trainer", "expected"),
    [(None, None, 24), (None, 16, 16), (None, 1024, 24), (8, 16, 8), (5000, 16, 5000)],
)
def test_an_option_of_the_callback_is_taken_as_it_is_and_else_the_trainer_s(option, of_trainer, expected):
    trainer = SimpleNamespace(model=model_of(24), args=SimpleNamespace(max_length=of_trainer))
    assert longest(trainer, TextOptions(max_length=option)) == expected
