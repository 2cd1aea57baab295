"""Load the base models of a run: unsharded, sharded over devices, fresh, or merged with an adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lit_mem.adapters.origin import DEFAULT_BASE, own_base, reject_adapter
from lit_mem.errors import ConfigError, ModelError
from lit_mem.models.base_models import Quantization, as_whole, load_base, load_base_in_parts
from lit_mem.models.saved_adapter import load_adapter
from lit_mem.scoring.reference_scores import Reference
from lit_mem.sharding.lockstep import Lockstep

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class Place:
    """Placement of loaded models.

    Attributes:
        device: device of this process; None: unknown.
        mesh: creates the device mesh over which bases are sharded; None: each process holds full copies.
    """

    device: torch.device | None = None
    mesh: Callable[[], DeviceMesh] | None = None


class BaseLoader:
    """Loads a run's base, and other models in the same way.

    Args:
        model_id: the run's base, as for `load_base`.
        revision: its revision on the hub.
        dtype: precision to load it in.
        quantization: "none", "4bit" or "8bit".
        attention: attention kernel.
        lockstep: keeps ranks in lockstep if a base is sharded over them.
    """

    def __init__(
        self,
        model_id: str,
        revision: str | None,
        dtype: str,
        quantization: Quantization,
        attention: str | None,
        lockstep: Lockstep,
    ) -> None:
        self.model_id, self.revision, self.dtype = model_id, revision, dtype
        self.quantization, self.attention = quantization, attention
        self._lockstep = lockstep

    @property
    def loaded_as(self) -> str:
        """Precision, quantization and attention kernel, in one line."""
        return f"{self.dtype}, {self.quantization}, {self.attention}"

    def load(self, place: Place, other: str | None = None, option: str = "model_id") -> Any:
        """Load the run's base, or another model.

        Args:
            place: where to put it.
            other: id or folder of the other model; None: the run's base.
            option: the option with the model, for messages.

        Raises:
            ModelError: it cannot be found, read, or sharded.
        """
        model_id, revision = (self.model_id, self.revision) if other is None else (other, None)
        if place.mesh is None:
            return self._whole(place, model_id, revision, option)
        assert place.device is not None
        model = load_base_in_parts(model_id, revision, self.dtype, self.attention, place.mesh(), place.device, option)
        self._lockstep.add(model)
        return model

    def _whole(self, place: Place, model_id: str, revision: str | None, option: str = "model_id") -> Any:
        # Only a quantized model is placed now; the strategy moves others.
        return load_base(model_id, revision, self.dtype, self.quantization, self.attention, place.device, option)

    def fresh(self, place: Place) -> nn.Module:
        """Load a fresh, unsharded copy of the run's base, in eval mode."""
        base: nn.Module = self._whole(place, self.model_id, self.revision)
        if place.device is not None and self.quantization == "none" and place.mesh is None:
            base.to(place.device)
        return base.eval()

    def merged(self, adapter_path: str) -> Any:
        """The run's base with an exported adapter merged into it: one plain model, on the CPU.

        Raises:
            ModelError: its method cannot be merged, such as one that prepends virtual tokens.
        """
        tuned: Any = load_adapter(load_base(self.model_id, self.revision, self.dtype), adapter_path)
        try:
            return tuned.merge_and_unload()
        except (AttributeError, NotImplementedError, ValueError) as error:
            kind = tuned.active_peft_config.peft_type
            raise ModelError(f"an adapter of {getattr(kind, 'value', kind)} cannot be merged into its base") from error


def base_of(model_id: str | None, revision: str | None, adapter_path: str | None) -> tuple[str, str | None]:
    """A run's base and its revision on the hub: the given one, the adapter's, or the default.

    Raises:
        ModelError: `adapter_path` is not an adapter.
    """
    if model_id is None and adapter_path is not None:
        model_id, own_revision = own_base(adapter_path)
        revision = revision or own_revision
    return model_id or DEFAULT_BASE, revision


def check_reference(reference: Reference, model_id: str | None) -> None:
    """Reject options that exclude each other, and an adapter's folder where a full model is expected.

    Raises:
        ConfigError: options exclude each other.
        ModelError: a folder contains an adapter.
    """
    if reference.model_id is not None and reference.kind == "adapter_off":
        raise ConfigError(
            "model.reference.kind adapter_off and model.reference.model_id are both set; expected one of them"
        )
    for option, given in (("model.model_id", model_id), ("model.reference.model_id", reference.model_id)):
        if given is not None and Path(given).is_dir():
            reject_adapter(option, given, given, None, as_whole(option))
