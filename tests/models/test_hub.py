"""Loading by hub id or folder, and one-line errors."""

import pytest

from lit_mem.errors import ModelError
from lit_mem.models.hub import find, load_tokenizer
from lit_mem.models.hub_errors import one_line_errors


def line(error, what="weights", name="org/model-4013", option="data.tokenizer"):
    with pytest.raises(ModelError) as caught, one_line_errors(what, name, option, name):
        raise error
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (OSError("You are trying to access a gated repo.\nMake sure to have access"), "it is gated"),
        (OSError("401 Client Error: Unauthorized for url"), "it is gated"),
        (OSError("403 Forbidden: Authorization error."), "it is gated"),
        (OSError("We couldn't connect to load org/model-4013"), "neither a local folder nor in the hub cache"),
        (OSError("org/model-4013 has no file named model.safetensors"), "it has no .safetensors file"),
        (ValueError("requires you to execute custom code"), "it needs its own code"),
        (KeyError("weight"), "KeyError: 'weight'"),
    ],
)
def test_each_kind_of_failure_is_one_line_that_names_the_option(error, hint):
    found = line(error)
    assert found.startswith("cannot load the weights of data.tokenizer 'org/model-4013': ")
    assert hint in found


def test_a_line_of_our_own_stays_as_it_is():
    assert line(ModelError("config.json: nested too deeply")) == "config.json: nested too deeply"


def test_a_panic_of_native_code_is_one_line():
    panic = type("PanicException", (BaseException,), {})
    assert line(panic("index out of range")).startswith("the weights of data.tokenizer 'org/model-4013' is damaged")


def test_the_option_is_named_whatever_is_in_the_path(tmp_path):
    """The option in a message is not set by replacing words, which a path may contain too."""
    place = str(tmp_path / "model_id")
    with pytest.raises(ModelError, match=f"^data.tokenizer is the folder {place}, which does not exist$"):
        load_tokenizer(place, option="data.tokenizer")


def test_what_is_found_where(tmp_path):
    (tmp_path / "made.gguf").touch()
    assert find(str(tmp_path / "made.gguf")) == (str(tmp_path), {"gguf_file": "made.gguf"})
    assert find("org/model") == ("org/model", {})
    assert find("asset:tiny_llama")[0].endswith("tiny_llama")
    for name, found in (("absent.gguf", "absent.gguf, which does not exist"), ("./no", "the folder ./no")):
        with pytest.raises(ModelError, match=found):
            find(name)
