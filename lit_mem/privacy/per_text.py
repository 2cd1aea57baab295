"""Per-text gradients from one backward pass: Opacus' hooks on the trained linear layers.

The hooks record a layer's input and the gradient at its output; their product, text by text, is each text's gradient of
the layer's weights. This requires layers that process the texts of a batch independently, with texts in the first
dimension, and a loss for which the same holds.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_mem.adapters.experts import has_experts
from lit_mem.errors import ModelError
from lit_mem.guards import preserved_random_state
from lit_mem.privacy.extra import import_opacus
from lit_mem.privacy.randomness import check_not_random
from lit_mem.types import IGNORED

Losses = Callable[[Tensor, Tensor], Tensor]
"""From token ids and labels, (B, T) int64 each, to per-text losses, (B,) float32 or wider: 0 for padding rows."""


class PerTextGradients:
    """Records the gradient of every text with respect to every trained parameter.

    Args:
        model: only its linear layers may be trained, as with LoRA.

    Attributes:
        parameters: the trained ones, in the order of the gradients.

    Raises:
        ModelError: something else is trained, or per-text gradients are not available.
        ConfigError: Opacus is not installed.
    """

    def __init__(self, model: nn.Module) -> None:
        import_opacus()
        from opacus.grad_sample import GradSampleHooks

        check_model(model)
        self.model = model
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.parameters: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        self._hooks: Any = GradSampleHooks(model, loss_reduction="sum")
        self._hooks.remove_hooks()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Install the hooks on the model for the body; in eval mode they do nothing."""
        self._hooks.add_hooks(loss_reduction="sum")
        try:
            # The input of the first trained layer needs no gradient, which is not used.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                yield
        finally:
            self._hooks.remove_hooks()
            self._clear()

    def _clear(self) -> None:
        """Remove what is left of an interrupted pass."""
        for module in self.model.modules():
            for name in ("activations", "max_batch_len"):
                module.__dict__.pop(name, None)
        for parameter in self.parameters:
            parameter.grad_sample, parameter._forward_counter = None, 0  # type: ignore[attr-defined]
            parameter.__dict__.pop("_current_grad_sample", None)

    def of(self, losses: Tensor) -> list[Tensor]:
        """For each parameter the (B, *shape) gradients of (B,) losses, one per text.

        The graph must be built, and this called, inside one `recording`. Afterwards the parameters' own `grad` is None.

        Raises:
            ModelError: a layer mixed the texts of the batch.
        """
        with torch.autocast(losses.device.type, enabled=False):
            losses.sum().backward()  # type: ignore[no-untyped-call]
        found: list[Tensor] = []
        for name, parameter in zip(self.names, self.parameters, strict=True):
            gradient: Any = parameter.grad_sample  # type: ignore[attr-defined]
            parameter.grad_sample, parameter.grad = None, None  # type: ignore[attr-defined]
            if not isinstance(gradient, Tensor) or len(gradient) != len(losses):
                what = f"of {len(gradient)}" if isinstance(gradient, Tensor) else "of another type"
                raise ModelError(
                    f"model.privacy needs per-text gradients, but the layer of {name} gave one {what} for "
                    f"{len(losses)} texts: it does not process texts independently"
                )
            found.append(gradient)
        return found

    def check(self, losses: Losses, tolerance: float = 1e-3) -> float:
        """Check on generated texts that a text's gradient depends only on that text.

        In train mode, as in training: the gradients are identical under other random numbers; a text's gradient in a
        batch equals that of the text alone, computed without Opacus; it does not change if any other text is removed;
        and the model keeps no state of the texts.

        Args:
            losses: the training objective.
            tolerance: maximum difference, relative to the norm.

        Returns:
            The maximum change of a text's gradient when another text is removed, relative to its norm: rounding.

        Raises:
            ModelError: one of these does not hold, so per-text gradients are not available for this model.
        """
        device = self.parameters[0].device
        lengths = (7, 4, 6)
        ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [4, 3, 2, 5, 0, 0, 0], [3, 5, 2, 6, 4, 1, 0]], device=device)
        places = torch.arange(7, device=device)
        labelled = (places > 0) & (places < torch.tensor(lengths, device=device)[:, None])
        labels = ids.masked_fill(~labelled, IGNORED)

        def together(rows: Sequence[int] = range(len(lengths))) -> list[Tensor]:
            """(B, P) gradients of a batch of these texts, and (B,) their losses."""
            with self.recording():
                each = losses(ids[list(rows)], labels[list(rows)])
                gradients = self.of(each)
            return [
                torch.cat([g.flatten(1).float() for g in gradients], dim=1)[: len(rows)],
                each.detach()[: len(rows)],
            ]

        with preserved_random_state(), torch.enable_grad():
            state = {name: b.detach().clone() for name, b in self.model.named_buffers()}
            check_not_random(together, self.model, tolerance)
            found = together()
            with _without_dropout(self.model, self.parameters):
                alone = [
                    torch.autograd.grad(losses(ids[i : i + 1, :n], labels[i : i + 1, :n]).sum(), self.parameters)
                    for i, n in enumerate(lengths)
                ]
            without = [together([j for j in range(len(lengths)) if j != i])[0] for i in range(len(lengths))]
        changed = next((n for n, b in self.model.named_buffers() if n not in state or not b.equal(state[n])), None)
        if changed is not None:
            raise ModelError(
                f"the model keeps a state of its training texts ({changed} changes in train mode), which "
                "model.privacy neither clips nor hides; expected a model without such state"
            )
        expected = torch.stack([torch.cat([g.flatten().float() for g in each]) for each in alone])
        norms = expected.norm(dim=1)
        self._reject_above(tolerance, found[0] - expected, norms, "that of the text alone")
        moved = 0.0
        for i, others in enumerate(without):
            kept = [j for j in range(len(lengths)) if j != i]
            what = "its gradient without another text in the batch"
            moved = max(moved, self._reject_above(tolerance, others - found[0][kept], norms[kept], what))
        return moved

    @staticmethod
    def _reject_above(tolerance: float, differences: Tensor, norms: Tensor, what: str) -> float:
        """The maximum of (B, P) differences relative to the (B,) norms; raise if above the tolerance."""
        lengths = differences.norm(dim=1)
        relative = (lengths / norms).nan_to_num(nan=torch.inf).where(lengths != 0, 0.0)
        if not bool((relative <= tolerance).all()):
            raise ModelError(
                "model.privacy needs per-text gradients, but in this model the gradient of a text in a batch is not "
                f"{what} (they differ by {relative.max():.2g} of its norm)"
            )
        return float(relative.max())

    def remove(self) -> None:
        """Remove the library's attributes from the parameters."""
        self._hooks.cleanup()


def check_model(model: nn.Module) -> None:
    """Reject a model without per-text gradients.

    Raises:
        ModelError: names the parameter or option that prevents them.
    """
    owners = {p: m for m in model.modules() for p in m.parameters(recurse=False) if p.requires_grad}
    inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    in_head = set(head.parameters()) if head is not None else set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if type(owners[parameter]) is not nn.Linear:
            raise ModelError(
                f"model.privacy clips per-text gradients, which are only supported for plain linear layers, but "
                f"{name} is trained; expected an adapter such as LoRA without dora, not on embeddings"
            )
        if parameter in in_head:
            raise ModelError(
                f"model.privacy clips per-text gradients, but {name} is part of the output layer, which processes "
                "the tokens of all texts as one list; expected an adapter that does not train the output layer"
            )
    if not owners:
        raise ModelError("model.privacy is set, but no parameter of the model is trained")
    if has_experts(model):
        raise ModelError(
            "model.privacy clips per-text gradients, which are only supported for linear layers, but the adapter "
            "changes experts' matrices; expected model.adapter.targets without them"
        )
    for where, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ModelError(
                f"model.privacy bounds the effect of one text, but {where} uses statistics over all texts of a batch"
            )
        rope: Any = getattr(module, "rope_type", None)  # per layer type in some models
        if "dynamic" in (rope.values() if isinstance(rope, dict) else (rope,)):
            raise ModelError(
                f"{where} scales positions by the longest text seen so far (rope_type dynamic), so one text affects "
                "the outputs of others; model.privacy expects a model without it"
            )
        run: Any = getattr(module, "_gradient_checkpointing_func", None)
        keywords = getattr(run, "keywords", None) or {}
        if getattr(module, "gradient_checkpointing", False) and keywords.get("use_reentrant") is False:
            raise ModelError(
                "the model's gradient checkpointing is not reentrant, so layers run twice before a gradient is known, "
                "and model.privacy cannot assign it to texts; expected use_reentrant=True, or no checkpointing"
            )


@contextmanager
def _without_dropout(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Put everything except the trained layers in eval mode, whose hooks would be inactive; restore afterwards."""
    flags = [(m, m.training) for m in model.modules()]
    wanted = {id(p) for p in parameters}
    try:
        for module, _ in flags:
            module.training = any(id(p) in wanted for p in module.parameters(recurse=False))
        yield
    finally:
        for module, training in flags:
            module.training = training
