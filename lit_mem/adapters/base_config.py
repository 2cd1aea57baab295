"""Validate a model's own configuration: it may define the architecture, within the size of its weights.

How the model is computed (attention kernel, expert kernels, precision, quantization) is set by the run's options only:
a kernel name may be a hub repository whose code transformers would run.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open

from lit_mem.errors import ModelError
from lit_mem.files.untrusted import LARGEST_CONFIG, read_json

_COUNTS: Final = re.compile(r"(layers?|experts?|blocks?|stages?|depths?)$")
"""Options that set the number of modules."""
_MORE_MODULES: Final = 256
_MOST_GROWTH: Final = 256
_MORE_NUMBERS: Final = 2**28
"""Allowance for buffers, such as masks, that are not in the files."""


def checked_base_config(auto: Any, place: str, revision: str | None, quantization: str, attention: str | None) -> Any:
    """A model's configuration, with its choice of kernels replaced by the run's.

    Args:
        auto: transformers class to load the model with, such as `AutoModelForCausalLM`.
        place: hub id or local folder.
        revision: branch, tag or commit on the hub.
        quantization: "none", "4bit" or "8bit".
        attention: attention kernel; None: the library's choice.

    Returns:
        The `config` argument of `from_pretrained`; None if there is no configuration.

    Raises:
        ModelError: the file is not valid JSON or exceeds the limits, requests a quantization that the run does not, or
            describes a model much larger than its weights.
    """
    from transformers import AutoConfig

    path = _file(place, revision, "config.json")
    if path is None:
        return None
    raw = read_json(path, ModelError, LARGEST_CONFIG)
    if not isinstance(raw, dict):
        raise ModelError(f"{path}: found {type(raw).__name__}; expected an object")
    _check_quantization(raw, quantization, path)
    shapes = _shapes(place, revision, raw.get("transformers_weights"))
    if shapes is not None:
        _check_counts(raw, len(shapes), path)
    config = AutoConfig.from_pretrained(place, revision=revision or "main", trust_remote_code=False)
    config._attn_implementation = attention
    config._experts_implementation = None
    if shapes is not None:
        _check_size(auto, config, sum(map(math.prod, shapes)), path)
    return config


def check_json_files(place: str) -> None:
    """Check the small JSON files in a local model folder, which transformers reads without limits.

    Raises:
        ModelError: naming the file: it is not valid JSON, or exceeds the limits.
    """
    for name in ("tokenizer_config", "special_tokens_map", "added_tokens", "generation_config", "chat_template"):
        path = Path(place) / f"{name}.json"
        if path.is_file():
            read_json(path, ModelError, LARGEST_CONFIG)


def check_growth(tokenizer: Any, what: str) -> None:
    """Reject a tokenizer whose replacement rules can make a text many times longer.

    Raises:
        ModelError: naming `what`.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for name in ("normalizer", "decoder"):
        step = getattr(backend, name, None)
        if step is not None and (growth := _growth(json.loads(step.__getstate__()))) > _MOST_GROWTH:
            raise ModelError(
                f"{what}: the {name} in its tokenizer.json can make a text {growth:.0e} times longer; expected at most "
                f"{_MOST_GROWTH} times"
            )


def _growth(step: Any) -> float:
    """The maximum factor by which a text can grow."""
    if isinstance(step, list):
        return math.prod(map(_growth, step))
    kind = step.get("type")
    if kind == "Sequence":
        return _growth(step.get("normalizers") or step.get("decoders") or [])
    if kind == "Replace":
        pattern, content = step["pattern"], len(step["content"])
        literal = pattern.get("String")
        # A regular expression may match the empty string between any two characters.
        return max(1.0, content / max(1, len(literal))) if literal else 1.0 + content
    return max(1.0, len(step["prepend"])) if kind == "Prepend" else 1.0


def _check_quantization(raw: dict[str, Any], quantization: str, path: Path) -> None:
    for holder in [raw, *(value for value in raw.values() if isinstance(value, dict))]:
        for name in ("quantization_config", "compression_config"):
            found = holder.get(name)
            if found is None:
                continue
            kept = {bits for bits in ("4bit", "8bit") if isinstance(found, dict) and found.get(f"load_in_{bits}")}
            if kept != {quantization}:
                raise ModelError(
                    f"{path}: {name} is {found!r:.80}, but model.quantization is {quantization}; expected a model that "
                    "is not quantized, or one in bitsandbytes 4bit or 8bit with that option"
                )


def _check_counts(value: Any, tensors: int, path: Path) -> None:
    """Each layer and each expert has at least one tensor, so there cannot be more of them than tensors."""
    for key, each in value.items() if isinstance(value, dict) else ():
        numbers = each if isinstance(each, list) else [each]
        for number in numbers:
            if isinstance(number, dict):
                _check_counts(number, tensors, path)
            elif _COUNTS.search(key) and isinstance(number, int | float) and number > tensors + _MORE_MODULES:
                raise ModelError(
                    f"{path}: {key} is {number!r:.40}, but its weights have {tensors} tensors; expected configuration "
                    "and weights of one model"
                )


def _check_size(auto: Any, config: Any, numbers: int, path: Path) -> None:
    """Create the model on the meta device, and compare its parameter count with the files."""
    with torch.device("meta"):
        model = auto.from_config(copy.deepcopy(config), trust_remote_code=False)
    needed = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if needed > 4 * numbers + _MORE_NUMBERS:
        raise ModelError(
            f"{path}: it describes a model of {needed:,} parameters, but its weights have {numbers:,}; expected "
            "configuration and weights of one model"
        )


def _shapes(place: str, revision: str | None, named: Any) -> list[tuple[int, ...]] | None:
    """Shapes of all tensors in a model's files; None if there are no safetensors files."""
    names = [named] if isinstance(named, str) else ["model.safetensors", "model.safetensors.index.json"]
    path = next((found for name in names if (found := _file(place, revision, name)) is not None), None)
    if path is None:
        return None
    files: Any = [path]
    if path.name.endswith(".index.json"):
        index = read_json(path, ModelError)
        parts = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
            raise ModelError(f"{path}: found no weight_map; expected the index of weights in several files")
        files = [_file(place, revision, part) for part in sorted(set(parts.values()))]
    return [shape for file in files if file is not None for shape in _shapes_of(file)]


def _shapes_of(file: Path) -> Iterator[tuple[int, ...]]:
    with safe_open(file, "pt") as weights:
        for name in weights.keys():
            yield tuple(weights.get_slice(name).get_shape())


def _file(place: str, revision: str | None, name: str) -> Path | None:
    """A file of a model; None if it does not exist."""
    from transformers.utils import cached_file

    if Path(place).is_dir():
        path = Path(place) / name
        return path if path.is_file() else None
    # Without a network the cached file is used, as in transformers.
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = cached_file(place, name, revision=revision or "main", **quiet)
    return None if found is None else Path(found)
