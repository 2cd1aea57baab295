"""The gradient of each text of a batch by itself, from one backward pass: Opacus' hooks on the trained linear layers.

They record what goes into a layer and the gradient by what comes out of it; the product of both, text by text, is each
text's gradient by the layer's weights. It takes layers that treat every text of a batch by itself and keep texts in the
first dimension, and a loss for which the same holds.
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
"""Token ids and labels, (B, T) int64 each, to the loss of each text, (B,) float32 or more: 0 of rows of padding."""


class PerTextGradients:
    """Records the gradient of every text by every trained parameter.

    Args:
        model: only linear layers of it may be trained, as with LoRA.

    Attributes:
        parameters: the trained ones, in the order in which gradients are given.

    Raises:
        ModelError: something else is trained, or in a way that does not let texts be told apart.
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
        """Within, the hooks are on the model; in eval mode they do nothing. Outside, it is as any other."""
        self._hooks.add_hooks(loss_reduction="sum")
        try:
            # What goes into the first trained layer needs no gradient, and nobody reads it.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                yield
        finally:
            self._hooks.remove_hooks()
            self._forget()

    def _forget(self) -> None:
        """Whatever is left of a pass that was broken off."""
        for module in self.model.modules():
            for name in ("activations", "max_batch_len"):
                module.__dict__.pop(name, None)
        for parameter in self.parameters:
            parameter.grad_sample, parameter._forward_counter = None, 0  # type: ignore[attr-defined]
            parameter.__dict__.pop("_current_grad_sample", None)

    def of(self, losses: Tensor) -> list[Tensor]:
        """For each parameter the (B, *shape) gradients of (B,) losses, one of each text.

        The graph must have been made, and this be called, within one `recording`. The parameters' own `grad` is None
        after it.

        Raises:
            ModelError: a layer did not keep the texts of the batch apart.
        """
        with torch.autocast(losses.device.type, enabled=False):
            losses.sum().backward()  # type: ignore[no-untyped-call]
        found: list[Tensor] = []
        for name, parameter in zip(self.names, self.parameters, strict=True):
            gradient: Any = parameter.grad_sample  # type: ignore[attr-defined]
            parameter.grad_sample, parameter.grad = None, None  # type: ignore[attr-defined]
            if not isinstance(gradient, Tensor) or len(gradient) != len(losses):
                what = f"of {len(gradient)}" if isinstance(gradient, Tensor) else "that cannot be read"
                raise ModelError(
                    f"model.privacy needs a gradient of each text, and the layer of {name} gave one {what} where there "
                    f"were {len(losses)} texts: it does not keep texts apart"
                )
            found.append(gradient)
        return found

    def check(self, losses: Losses, tolerance: float = 1e-3) -> float:
        """Check on made-up texts that a text's gradient depends on that text alone.

        In train mode, as in training: the same under other random numbers, to the last bit; in a batch that of the text
        alone, found without Opacus; the same without each of the others; and no state is kept of the texts.

        Args:
            losses: what is trained on.
            tolerance: largest difference, relative to the norm.

        Returns:
            The largest change of a text's gradient when another is left out, relative to its norm: rounding.

        Raises:
            ModelError: one of these does not hold, so texts cannot be told apart in this model.
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
                f"the model keeps a state of the texts that it trains on ({changed} changes in train mode), which "
                "model.privacy neither clips nor hides; expected a model without"
            )
        expected = torch.stack([torch.cat([g.flatten().float() for g in each]) for each in alone])
        norms = expected.norm(dim=1)
        self._refuse_above(tolerance, found[0] - expected, norms, "that of the text alone")
        moved = 0.0
        for i, others in enumerate(without):
            kept = [j for j in range(len(lengths)) if j != i]
            what = "what it is without another text in the batch"
            moved = max(moved, self._refuse_above(tolerance, others - found[0][kept], norms[kept], what))
        return moved

    @staticmethod
    def _refuse_above(tolerance: float, differences: Tensor, norms: Tensor, what: str) -> float:
        """The largest of (B, P) differences relative to the (B,) norms, unless it is above the tolerance."""
        lengths = differences.norm(dim=1)
        relative = (lengths / norms).nan_to_num(nan=torch.inf).where(lengths != 0, 0.0)
        if not bool((relative <= tolerance).all()):
            raise ModelError(
                "model.privacy needs a gradient of each text, and in this model that of a text in a batch is not "
                f"{what} (they differ by {relative.max():.2g} of its norm)"
            )
        return float(relative.max())

    def remove(self) -> None:
        """Leave nothing of the library on the parameters."""
        self._hooks.cleanup()


def check_model(model: nn.Module) -> None:
    """Refuse a model of which no gradient of each text can be had.

    Raises:
        ModelError: which parameter is in the way, or which option.
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
                f"model.privacy clips the gradient of each text, which is known for plain linear layers alone, and "
                f"{name} is trained; expected an adapter such as LoRA without dora, not on embeddings"
            )
        if parameter in in_head:
            raise ModelError(
                f"model.privacy clips the gradient of each text, and {name} is part of the output layer, which reads "
                "the tokens of all texts as one list; expected an adapter that leaves the output layer alone"
            )
    if not owners:
        raise ModelError("model.privacy is set, and no parameter of the model is trained")
    if has_experts(model):
        raise ModelError(
            "model.privacy clips the gradient of each text, which is known for linear layers alone, and the adapter "
            "changes experts' matrices; expected model.adapter.targets without them"
        )
    for where, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ModelError(
                f"model.privacy bounds what one text can change, and {where} takes statistics over all texts of a batch"
            )
        rope: Any = getattr(module, "rope_type", None)  # by kind of layer in some models
        if "dynamic" in (rope.values() if isinstance(rope, dict) else (rope,)):
            raise ModelError(
                f"{where} scales positions by the longest text seen so far (rope_type dynamic), so that one text "
                "changes what others give; model.privacy expects a model without"
            )
        run: Any = getattr(module, "_gradient_checkpointing_func", None)
        keywords = getattr(run, "keywords", None) or {}
        if getattr(module, "gradient_checkpointing", False) and keywords.get("use_reentrant") is False:
            raise ModelError(
                "the model's gradient checkpointing is not reentrant, so that layers run twice before a gradient is "
                "known, and model.privacy cannot tell whose it is; expected use_reentrant=True, or none"
            )


@contextmanager
def _without_dropout(model: nn.Module, parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """All in eval mode but the trained layers themselves, whose hooks sleep there; afterwards as before."""
    flags = [(m, m.training) for m in model.modules()]
    wanted = {id(p) for p in parameters}
    try:
        for module, _ in flags:
            module.training = any(id(p) in wanted for p in module.parameters(recurse=False))
        yield
    finally:
        for module, training in flags:
            module.training = training
