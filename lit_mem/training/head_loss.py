"""The loss over an output layer without keeping its logits for the backward pass."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_LOGITS_AT_ONCE: Final = 2**25  # float32: 128 MiB
_CPU_BLOCK: Final = 400_000  # logits that fit in a processor's cache


def head_loss(hidden: Tensor, target: Tensor, head: nn.Module) -> Tensor:
    """Sum of −log p(target) in nats, () float32, of hidden states under an output layer.

    Args:
        hidden: (n, d), with or without gradient.
        target: (n,) int64.
        head: the output layer; its own parameters get gradients if they require them.

    For a frozen output layer the gradient is computed together with the loss, in chunks: no logits are kept for the
    backward pass and no product is computed twice. For a trained one, logits are kept if they are few, else recomputed
    in the backward pass, in chunks.
    """
    return _head_loss(hidden, target, head, "sum")


def token_losses(hidden: Tensor, target: Tensor, head: nn.Module) -> Tensor:
    """−log p(target) of each token, (n,) float32; see `head_loss`."""
    return _head_loss(hidden, target, head, "none")


def _head_loss(hidden: Tensor, target: Tensor, head: nn.Module, reduction: str) -> Tensor:
    size = max(1, _LOGITS_AT_ONCE // max(1, getattr(head, "out_features", 1)))
    frozen = type(head) is nn.Linear and not any(p.requires_grad for p in head.parameters())
    wanted = torch.is_grad_enabled() and hidden.requires_grad
    # In float16 small gradients would underflow before the scaler could prevent it.
    if frozen and wanted and hidden.dtype != torch.float16 and not _autocast_to_half(hidden.device):
        arguments = (hidden, target, head.weight, head.bias, size, reduction)
        found: Tensor = _FrozenHeadLoss.apply(*arguments)  # type: ignore[no-untyped-call]
        return found
    if len(hidden) <= size or not torch.is_grad_enabled():
        return _plain_loss(hidden, target, head, reduction)
    parts = [
        checkpoint(_plain_loss, h, t, head, reduction, use_reentrant=False)
        for h, t in zip(torch.split(hidden, size), torch.split(target, size), strict=True)
    ]
    return torch.stack(parts).sum() if reduction == "sum" else torch.cat(parts)


def _plain_loss(hidden: Tensor, target: Tensor, head: nn.Module, reduction: str) -> Tensor:
    return F.cross_entropy(head(hidden).float(), target, reduction=reduction)


def _autocast_to_half(device: torch.device) -> bool:
    return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16


class _FrozenHeadLoss(torch.autograd.Function):
    """Cross entropy of `hidden @ weight.T + bias`, summed or not; the gradient goes to `hidden` alone."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, hidden: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None, size: int, reduction: str
    ) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        each = hidden.new_empty(len(target), dtype=torch.float32)
        slopes = []
        parts = (torch.split(tensor, size) for tensor in (hidden, target, each))
        for h, t, e in zip(*parts, strict=True):
            product = F.linear(h, weight, bias)
            logits = product.float()
            total += nll_and_slope_(logits, t, e)
            slopes.append((logits.to(product.dtype) @ weight).to(hidden.dtype))
        ctx.save_for_backward(torch.cat(slopes))
        return total if reduction == "sum" else each

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * outer.to(slope.dtype).view(-1, 1), None, None, None, None, None


def nll_and_slope_(logits: Tensor, target: Tensor, each: Tensor) -> Tensor:
    """Sum of −log p(target), () float32, and its derivative with respect to the logits, written in place.

    Args:
        logits: (n, V) float32. Overwritten by p − 1 at the target and p elsewhere.
        target: (n,) int64.
        each: (n,) float32, overwritten by −log p(target) of each token.
    """
    block = max(1, _CPU_BLOCK // logits.shape[-1]) if logits.device.type == "cpu" else max(1, len(logits))
    total = logits.new_zeros(())
    with torch.autocast(logits.device.type, enabled=False):
        parts = (torch.split(tensor, block) for tensor in (logits, target, each))
        for rows, wanted, nll in zip(*parts, strict=True):
            rows.sub_(rows.amax(dim=-1, keepdim=True))
            chosen = rows.gather(1, wanted[:, None])
            mass = rows.exp_().sum(dim=-1, keepdim=True)
            nll.copy_((mass.log() - chosen).squeeze(1))
            total += nll.sum()
            rows.div_(mass)
            rows.scatter_add_(1, wanted[:, None], torch.full_like(chosen, -1))
    return total
