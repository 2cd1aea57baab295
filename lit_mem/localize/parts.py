"""The parts of a LoRA adapter by layer and matrix, which can be turned off temporarily."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from torch import nn

from lit_mem.adapters.base import switched_off
from lit_mem.errors import ModelError
from lit_mem.guards import preserved_requires_grad

_NUMBER: Final = re.compile(r"\d+")


class Part(NamedTuple):
    """A part of an adapter: one layer, one matrix, both, or all of it.

    Attributes:
        layer: index of the layer; None: every layer.
        matrix: name of the matrix; None: every matrix.
    """

    layer: int | None = None
    matrix: str | None = None


class Parts:
    """The parts of a trained LoRA adapter (or a variant: rsLoRA, DoRA).

    Attributes:
        model: the model with the adapter.
        layers: indices of the decoder layers it adapts, ascending.
        matrices: names of its matrices, in the order of their occurrence in a layer. If a layer has two of one name
            (GPT-2's `c_proj`), the name includes the parent module (`attn.c_proj`).
        stack: name of the module that holds the decoder layers; "" if the adapter is outside of them.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._modules: dict[tuple[int | None, str], list[Any]] = {}
        self.stack = ""
        placed = list(self._placed(lora_modules(model)))
        inner: dict[str, set[str]] = {}
        for _, path, _ in placed:
            inner.setdefault(path.rpartition(".")[2], set()).add(path)
        for layer, path, module in placed:
            last = path.rpartition(".")[2]
            self._modules.setdefault((layer, last if len(inner[last]) == 1 else path), []).append(module)
        self.layers = sorted({layer for layer, _ in self._modules if layer is not None})
        self.matrices = list(dict.fromkeys(matrix for _, matrix in self._modules))

    def _placed(self, modules: Mapping[str, Any]) -> Iterator[tuple[int | None, str, Any]]:
        """(layer, path within it without numbers, module) of each."""
        for name, module in modules.items():
            words = name.split(".")
            at = next((i for i, word in enumerate(words) if _NUMBER.fullmatch(word)), None)
            path = ".".join(word for word in words[0 if at is None else at + 1 :] if not _NUMBER.fullmatch(word))
            if at is None:
                yield None, words[-1], module
                continue
            stack = ".".join(words[:at])
            if self.stack not in ("", stack):
                raise ModelError(
                    f"the adapter spans two stacks of layers, {self.stack} and {stack}; expected one, as its parts "
                    "are identified by layer number"
                )
            self.stack = stack
            yield int(words[at]), path, module

    def all(self) -> list[Part]:
        """The whole adapter, each matrix, each layer, and each existing matrix of each layer."""
        cells = [Part(layer, matrix) for layer in self.layers for matrix in self.matrices]
        return [
            Part(),
            *(Part(matrix=matrix) for matrix in self.matrices),
            *(Part(layer=layer) for layer in self.layers),
            *(cell for cell in cells if cell in self),
        ]

    def __contains__(self, part: Part) -> bool:
        return bool(self._of(part))

    def lowest(self, part: Part) -> int:
        """The first decoder layer that a part adapts: lower layers are unchanged while the part is off."""
        layers = [
            layer for layer, matrix in self._modules if part.layer in (None, layer) and part.matrix in (None, matrix)
        ]
        return min(0 if layer is None else layer for layer in layers)

    def _of(self, part: Part) -> list[Any]:
        return [
            module
            for (layer, matrix), modules in self._modules.items()
            for module in modules
            if part.layer in (None, layer) and part.matrix in (None, matrix)
        ]

    @contextmanager
    def off(self, part: Part) -> Iterator[None]:
        """Turn off a part of the adapter inside the context; everything is restored afterwards, even on an error.

        The modules then return exactly the output of their base layers, as with a scale of 0.
        """
        with preserved_requires_grad(self.model), switched_off(self._of(part)):
            yield


def lora_modules(model: nn.Module) -> dict[str, Any]:
    """Modules with a LoRA update, by name.

    Raises:
        ModelError: there are none.
    """
    from peft.tuners.lora import LoraLayer

    configs = getattr(model, "peft_config", {})
    kinds = [str(getattr(config.peft_type, "value", config.peft_type)) for config in configs.values()]
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    if not found:
        what = f"an adapter of type {kinds[0]}" if kinds else "no adapter (its own weights were trained)"
        raise ModelError(
            f"this run has {what}, whose matrices and layers cannot be turned off; expected LoRA, rsLoRA or DoRA"
        )
    return found
