"""A forward pass that starts in the middle of the model: unchanged lower layers return their recorded outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


class Replay:
    """Records the output of each decoder layer in one whole pass, and replays those of lower layers.

    In eval mode a decoder layer is a function of its input, so as long as no lower layer changes, neither does its
    output, to the last bit; recomputing it is unnecessary. This may fail for models whose layers communicate in other
    ways than by their outputs (shared keys): `lit_mem.localize.ablation` checks for that.

    Args:
        layers: all decoder layers in order.
    """

    def __init__(self, layers: list[nn.Module]) -> None:
        self._layers = layers
        self._outputs: list[Any] = []
        self._handles: list[Any] = []

    def record(self) -> None:
        """Record the outputs of the next pass (of the first, if there are several until `stop`)."""
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
        """Stop recording."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def clear(self) -> None:
        """Drop the recorded outputs."""
        self.stop()
        self._outputs = []

    @contextmanager
    def below(self, n: int) -> Iterator[None]:
        """Inside, the first n layers return their recorded outputs; the input must be that of the recorded pass."""
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
