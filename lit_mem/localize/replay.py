"""A pass that starts in the middle of the model: layers below what changes give again what they gave before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Replay:
    """Keeps what each decoder layer gave in one whole pass, and has the lower ones give it again.

    In eval mode a decoder layer is a function of its input, so as long as nothing below a layer changes, neither does
    what comes out there, to the last bit; computing it again would be wasted. A model whose layers hand things on in
    other ways than by their outputs (keys that layers share) need not be so: see `lit_mem.localize.ablation`, which
    compares.

    Args:
        layers: all decoder layers in their order.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = layers
        self._outputs: list[Any] = []
        self._handles: list[Any] = []

    def record(self) -> None:
        """Keep the outputs of the next pass (of the first, if there are several until `stop`)."""
        self.clear()
        self._outputs = [None] * len(self._layers)
        for i, layer in enumerate(self._layers):
            self._handles.append(layer.register_forward_hook(self._keeper(i)))

    def _keeper(self, i: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(layer: nn.Module, inputs: Any, output: Any) -> None:
            if self._outputs[i] is None:
                self._outputs[i] = output

        return keep

    def stop(self) -> None:
        """Keep no further outputs."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def clear(self) -> None:
        """Drop what was kept."""
        self.stop()
        self._outputs = []

    @contextmanager
    def below(self, n: int) -> Iterator[None]:
        """While inside, the first n layers give what they gave in the recorded pass; the input must be that pass's."""
        patched: list[Any] = []
        try:
            for layer, output in zip(self._layers[:n], self._outputs, strict=False):
                layer.forward = _giving(output)
                patched.append(layer)
            yield
        finally:
            for layer in patched:
                del layer.forward


def _giving(output: Any) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        return output

    return forward
