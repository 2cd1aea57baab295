"""Validate an adapter's configuration: it may set peft options that are plain values, within bounds.

The file comes with an adapter and is untrusted. Options that name code, files or models are never passed on, and the
others cannot use more time or memory than the base and the adapter's weights account for.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from lit_mem.adapters.patterns import slow_pattern
from lit_mem.errors import LitMemError, ModelError

log = logging.getLogger(__name__)

_OTHER_MODELS: Final = ("XLORA", "SHADOW", "MULTITASK_PROMPT_TUNING")
"""Methods whose configuration names further models or files to load."""
_NOT_CAUSAL: Final = ("LILY",)
"""Methods in which later tokens, or other texts of a batch, change the likelihood of a token."""
REFUSED: Final = ("megatron_config",)
"""Option that makes peft import a module by name."""
DROPPED: Final = frozenset(
    [
        *("megatron_core", "auto_mapping", "runtime_config", "inference_mode"),
        # Replaced by trained weights: the initialisation of virtual tokens, and the tokenizer of its text.
        *("prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"),
        # If absent, peft takes them from the base.
        *("token_dim", "num_layers", "num_attention_heads", "num_transformer_submodules"),
    ]
)
_FREE: Final = re.compile(
    r"alpha|seed|prng|step|warmup|interval|tinit|tfinal|deltaT|lambda|layers_to_transform|"
    r"token_i|tokens_type|invocation_tokens"
)
"""Integers that do not affect memory or time."""
_LONG: Final = re.compile(r"n_frequency|theta_d_length|num_vectors")
"""Lengths of weight vectors."""
_LOOPS: Final = re.compile(r"depth|terms|niter|iter$|encoder_num_layers|butterfly")
_MOST: Final = 1 << 20
_MOST_LOOPS: Final = 64
_MOST_ENTRIES: Final = 20_000
_LOWEST_LIMIT: Final = 1024
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "bool": (bool,), "int": (int, float), "float": (int, float), "str": (str,), "Literal": (str,), "list": (list,),
    "dict": (dict,), "Config": (dict,), "Type": (str,), "Init": (str,), "Variant": (str,), "tuple": (list,),
}  # fmt: skip
_PATTERNS: Final = ("target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "feedforward_modules")


def checked_config(found: Mapping[str, Any], base: Any, where: str, kind: type[LitMemError] = ModelError) -> Any:
    """A `peft.PeftConfig` from untrusted values.

    Args:
        found: the values.
        base: the model that the adapter is for, without adapters.
        where: their file, for messages.
        kind: exception class to raise.

    Raises:
        LitMemError: of class `kind`: an option names code or other models, has another type than in peft, is larger
            than the base accounts for, or is a regular expression that takes too long.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING as CLASSES

    name = found.get("peft_type")
    rejected = (*_OTHER_MODELS, *_NOT_CAUSAL)
    if not isinstance(name, str) or name not in CLASSES or name in rejected:
        known = ", ".join(sorted(each.value for each in CLASSES if each.value not in rejected))
        raise kind(f"{where}: peft_type is {name!r:.80}; expected one of {known}")
    made = CLASSES[name]
    annotations = {field.name: str(field.type) for field in fields(made)}
    for key in REFUSED:
        if found.get(key) is not None:
            raise kind(f"{where}: {key} is set, which makes peft import a module; expected null")
    known_keys = annotations.keys() - DROPPED
    given = {key: _without_files(value) for key, value in found.items() if key in known_keys and value is not None}
    for key, value in given.items():
        _check_type(annotations[key], value, f"{where}: {key}", kind)
        _check_size(key, value, _widest(base), f"{where}: {key}", kind)
    unknown = sorted(key for key in found.keys() - annotations.keys() - DROPPED if found[key])
    if unknown:
        log.warning("%s: this version of peft does not have the options %s; ignored.", where, ", ".join(unknown)[:200])
    _check_replication(given.get("layer_replication"), base, f"{where}: layer_replication", kind)
    _check_patterns(given, base, where, kind)
    try:
        return made(**given)
    except Exception as error:
        raise kind(f"{where}: {' '.join(str(error).split())[:300]}") from error


def made_without_memory(config: Any) -> bool:
    """Whether peft can create an adapter on the meta device, so that only the weights' file determines its memory.

    It cannot if weights of the base are copied, or the initialisation is computed from them; they then bound the size.
    Nor does peft 0.21.0 support it for two methods with few weights.
    """
    if config.peft_type in ("TINYLORA", "UNILORA"):
        return False
    start, copied = getattr(config, "init_lora_weights", True), getattr(config, "layer_replication", None)
    return not copied and (isinstance(start, bool) or start in ("gaussian", "orthogonal"))


def _check_type(annotation: str, value: Any, where: str, kind: type[LitMemError]) -> None:
    names = [name for name in _KINDS if re.search(rf"{name}\b", annotation)]
    allowed = tuple(each for name in names for each in _KINDS[name])
    fits = isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))
    if not fits:
        expected = " or ".join(dict.fromkeys(each.__name__ for each in allowed))
        raise kind(f"{where} is {value!r:.80}; expected {expected} or null")


def _check_size(key: str, value: Any, widest: int, where: str, kind: type[LitMemError]) -> None:
    """Check numbers at any depth of a value, and its number of entries."""
    if key == "init_lora_weights" and isinstance(value, str) and (count := re.fullmatch(r"pissa_niter_(\d+)", value)):
        key, value = "niter", int(count[1][:9])
    if isinstance(value, list | dict):
        if len(value) > _MOST_ENTRIES:
            raise kind(f"{where} has {len(value)} entries; expected at most {_MOST_ENTRIES}")
        inner = value.items() if isinstance(value, dict) else [(key, each) for each in value]
        for name, each in inner:
            _check_size(key if key.endswith("_pattern") or each is None else name, each, widest, where, kind)
    elif isinstance(value, float) and not math.isfinite(value):
        raise kind(f"{where} is {value}; expected a finite number")
    elif isinstance(value, int | float) and not isinstance(value, bool) and not _FREE.search(key):
        limit = _MOST_LOOPS if _LOOPS.search(key) else _MOST if _LONG.search(key) else max(_LOWEST_LIMIT, widest)
        if abs(value) > limit:
            raise kind(f"{where} is {value!r:.40}; expected at most {limit}, for this base model")


def _without_files(value: Any) -> Any:
    """A value without file names, which only concern an initialisation that the trained weights replace."""
    if not isinstance(value, dict):
        return value
    return {key: each for key, each in value.items() if not key.endswith(("_file", "_path", "_dir"))}


def _widest(base: Any) -> int:
    """The largest input or output size of a linear layer, except the output layer."""
    head = base.get_output_embeddings()
    inner = [module for module in base.modules() if module is not head]
    sides = [getattr(module, name, 0) for module in inner for name in ("in_features", "out_features", "nf", "nx")]
    widest: int = max([base.get_input_embeddings().weight.shape[1], *(n for n in sides if isinstance(n, int))])
    return widest


def _check_replication(value: Any, base: Any, where: str, kind: type[LitMemError]) -> None:
    if value is None:
        return
    layers = getattr(base.config.get_text_config(), "num_hidden_layers", 0)
    pairs = [pair for pair in value if isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)]
    fits = len(pairs) == len(value) and all(0 <= start < end <= layers for start, end in pairs)
    if not fits or sum(end - start for start, end in pairs) > 8 * layers:
        raise kind(
            f"{where} is {value!r:.80}; expected pairs within 0 to {layers}, at most {8 * layers} layers in total"
        )


def _check_patterns(given: Mapping[str, Any], base: Any, where: str, kind: type[LitMemError]) -> None:
    names = [name for name, _ in base.named_modules()]
    for key, value in given.items():
        if not (key in _PATTERNS or key.endswith("_pattern")):
            continue
        found = slow_pattern(list(_texts(value)), names)
        if found is not None:
            raise kind(
                f"{where}: {key} is {found[0][:80]!r}: {found[1]}; expected names of modules, or a simpler pattern"
            )


def _texts(value: Any) -> Iterator[str]:
    """Strings of an option: itself, items of a list, keys of a mapping."""
    for each in [value] if isinstance(value, str) else value:
        if isinstance(each, str):
            yield each
