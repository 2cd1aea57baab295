"""Models and tokenizers by hub id or folder: `from_pretrained` of transformers, with one-line errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_mem import assets
from lit_mem.adapters.base_config import check_growth, check_json_files, checked_base_config
from lit_mem.adapters.loaded_weights import without_load_report
from lit_mem.errors import ModelError
from lit_mem.models.hub_errors import one_line_errors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def find(name: str, option: str = "model_id") -> tuple[str, dict[str, Any]]:
    """Resolve a model name for `from_pretrained`.

    Args:
        name: hub id, local folder, `.gguf` file, or `asset:<name>` for a bundled model.
        option: the option with the model, for messages.

    Returns:
        Folder or hub id, and further arguments of `from_pretrained`: empty, or the GGUF file in the folder.

    Raises:
        ModelError: the file or folder does not exist.
        ConfigError: there is no such asset.
    """
    if name.startswith(assets.PREFIX):
        return str(assets.path(name.removeprefix(assets.PREFIX))), {}
    path = Path(name)
    if name.endswith(".gguf"):
        if not path.is_file():
            raise ModelError(f"{option} is {name}, which does not exist")
        return str(path.parent), {"gguf_file": path.name}
    if path.exists() and not path.is_dir():
        raise ModelError(f"{option} is the file {name}; expected a folder, a .gguf file or a hub id")
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(f"{option} is the folder {name}, which does not exist")
    return name, {}


def load_tokenizer(name: str, revision: str | None = None, option: str = "model_id") -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model.

    Args:
        name: the model, as for `find`.
        revision: branch, tag or commit on the hub.
        option: the option with the model, for messages.

    Raises:
        ModelError: it cannot be found or read.
    """
    from transformers import AutoTokenizer

    place, more = find(name, option)
    with one_line_errors("tokenizer", name, option, place):
        check_json_files(place)
        # Without trust_remote_code=False transformers prompts on the terminal whether to run the model's code.
        made = AutoTokenizer.from_pretrained(place, revision=revision or "main", trust_remote_code=False, **more)
        check_growth(made, f"the tokenizer of {option} {name!r}")
        return made


def load_model(
    auto: Any,
    name: str,
    option: str = "model_id",
    revision: str | None = None,
    quantization: str = "none",
    attention: str | None = None,
    **more: Any,
) -> tuple[Any, dict[str, Any]]:
    """Load a model in eval mode; the caller checks that its files had all weights.

    Args:
        auto: transformers class that loads it, such as `AutoModelForCausalLM`.
        name: the model, as for `find`.
        option: the option with the model, for messages.
        revision: branch, tag or commit on the hub.
        quantization: "none", "4bit" or "8bit".
        attention: attention kernel; None: the library's choice.
        more: further arguments of `from_pretrained`, such as `dtype`.

    Returns:
        The model, and the loading info of `from_pretrained` with `output_loading_info=True`.

    Raises:
        ModelError: it cannot be found or read.
    """
    place, of_file = find(name, option)
    more |= of_file
    if attention is not None:
        more["attn_implementation"] = attention
    with one_line_errors("weights", name, option, place), without_load_report():
        if not of_file:
            more["config"] = checked_base_config(auto, place, revision, quantization, attention)
            more["use_safetensors"] = True
        model, info = auto.from_pretrained(
            place, revision=revision or "main", trust_remote_code=False, output_loading_info=True, **more
        )
    return model, info
