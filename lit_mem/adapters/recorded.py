"""Record in a checkpoint, as plain values, how its model was built, and rebuild the model from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypedDict

from torch import nn

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.full import FullFineTuning
from lit_mem.adapters.head import HeadOnly
from lit_mem.adapters.options import checked_config
from lit_mem.adapters.targets import wrapped
from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.scoring.reference_scores import Reference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_WITHOUT_OPTIONS: Final[dict[str, type[Adapter]]] = {"FullFineTuning": FullFineTuning, "HeadOnly": HeadOnly}
_TEXTS: Final = ("model_id", "revision", "dtype", "quantization", "attention")


class MadeWith(TypedDict):
    """Arguments of `CausalLM` that determine its model's outputs, as plain values.

    Keys:
        model_id, revision, dtype, quantization, attention: as in `CausalLM`.
        reference: fields of `Reference`.
        adapter: `peft`, the configuration of the adapter; or `name`, a class of this package without options; None: a
            class from elsewhere that is not a peft adapter.
    """

    model_id: str
    revision: str | None
    dtype: str
    quantization: str
    attention: str | None
    reference: dict[str, Any]
    adapter: dict[str, Any] | None


class RecordedAdapter(Adapter):
    """An adapter from the record in a checkpoint, whatever class or folder it came from.

    Args:
        options: options of peft's configuration, as plain values.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def wrap(self, base: PreTrainedModel) -> nn.Module:
        """Return a `peft.PeftModel` around `base`, with frozen base weights.

        Raises:
            CheckpointError: its options import code, or are not those of a peft adapter.
        """
        where = "this checkpoint is damaged: its made_with.adapter"
        return wrapped(base, checked_config(self.options, base, where, CheckpointError))


def adapter_record(adapter: Adapter, model: nn.Module) -> dict[str, Any] | None:
    """The value of `MadeWith.adapter`.

    Args:
        adapter: the module's adapter.
        model: the model with the adapter.
    """
    configs = getattr(model, "peft_config", None) or {}
    if len(configs) == 1:
        try:
            (config,) = configs.values()
            plain: dict[str, Any] = json.loads(json.dumps(config.to_dict(), default=_plain))
            return {"peft": plain | {"inference_mode": False}}
        except (TypeError, ValueError):
            return None
    name = next((name for name, kind in _WITHOUT_OPTIONS.items() if isinstance(adapter, kind)), None)
    return None if name is None else {"name": name}


def arguments(made_with: MadeWith | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `CausalLM` that rebuild the model of a checkpoint.

    Args:
        made_with: the record in the checkpoint; None: written by an older version.
        given: the user's arguments, which override the checkpoint's.

    Raises:
        CheckpointError: the checkpoint lacks an argument; the message names it.
    """
    if made_with is None:
        if "model_id" not in given:
            raise CheckpointError(
                "the checkpoint does not record how its model was built (an older version wrote it); give "
                "load_from_checkpoint the module's arguments, including model_id=… and adapter=…"
            )
        return dict(given)
    _check(made_with)
    found: dict[str, Any] = {key: made_with[key] for key in _TEXTS}  # type: ignore[literal-required]
    try:
        found["reference"] = Reference(**made_with["reference"])
    except (TypeError, ConfigError) as error:
        raise CheckpointError(f"this checkpoint is damaged: its made_with.reference is invalid: {error}") from error
    if not {"adapter", "adapter_path"} & given.keys():
        found["adapter"] = _adapter(made_with["adapter"])
    if "model_id" in given and "revision" not in given:
        del found["revision"]
    return found | dict(given)


def made_with(module: Any) -> MadeWith:
    """The record of a `CausalLM` with a built model."""
    return {
        "model_id": module.model_id,
        "revision": module.revision,
        "dtype": module.dtype_name,
        "quantization": module.quantization,
        "attention": module.attention,
        "reference": asdict(module.reference),
        "adapter": adapter_record(module.adapter, module.language_model),
    }


def _adapter(record: Mapping[str, Any] | None) -> Adapter:
    if record is not None and "peft" in record:
        return RecordedAdapter(record["peft"])
    if record is not None and record.get("name") in list(_WITHOUT_OPTIONS):
        return _WITHOUT_OPTIONS[record["name"]]()
    raise CheckpointError(
        "the checkpoint does not record how its adapter was built; give load_from_checkpoint adapter=…"
    )


def _check(record: Any) -> None:
    """Raise unless the values have the types of `MadeWith`."""
    found = record if isinstance(record, Mapping) else {}
    kinds: dict[str, tuple[type, ...]] = {key: (str,) for key in _TEXTS}
    nothing = type(None)
    kinds |= {"revision": (str, nothing), "attention": (str, nothing)}
    kinds |= {"reference": (Mapping,), "adapter": (Mapping, nothing)}
    for key, expected in kinds.items():
        value = found.get(key, ...)
        fits = isinstance(value, expected)
        if fits and key == "adapter" and isinstance(value, Mapping):
            fits = isinstance(value.get("peft", {}), Mapping)
        if not fits:
            what = "absent" if value is ... else f"{value!r:.80}"
            names = " or ".join("None" if kind is nothing else kind.__name__ for kind in expected)
            raise CheckpointError(f"this checkpoint is damaged: its made_with.{key} is {what}; expected {names}")


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} is not a plain value")
