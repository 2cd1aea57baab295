"""What a training step need not compute: padding, and logits that the backward pass would only turn into a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_LOGITS_AT_ONCE: Final = 2**25  # float32: 128 MiB
_CPU_BLOCK: Final = 400_000  # logits that stay in a processor's cache
_WORTH_PACKING: Final = 0.9
_PACKING_KERNELS: Final = ("sdpa", "eager")


# -- without padding ---------------------------------------------------------------------------------------


class Packer:
    """Lays the texts of a batch end to end in as few rows as is cheapest, so that little or no padding is computed.

    Positions start at 0 with each text, by which transformers tells that a token may only attend to its own text.

    Args:
        model: a Hugging Face causal LM, with or without a peft adapter.
    """

    def __init__(self, model: nn.Module) -> None:
        config: Any = model.config.get_text_config()  # type: ignore[union-attr, operator]
        parts: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        tables = {id(m.weight) for m in (parts.get_input_embeddings(), parts.get_output_embeddings())}
        layers, width = (getattr(config, name, 0) for name in ("num_hidden_layers", "hidden_size"))
        #: Whether the library masks other texts out with this attention kernel, as far as is known.
        self.masks = bool(layers and width) and getattr(config, "_attn_implementation", None) in _PACKING_KERNELS
        self.token_cost = float(sum(p.numel() for p in model.parameters() if id(p) not in tables))
        self.pair_cost = 2.0 * layers * width

    def rows(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which texts stand in which row; as cheap as it gets in rows of one width.

        Args:
            lengths: tokens of each text; one of none stands nowhere.

        Returns:
            Positions of the texts, in the order in which they stand in a row. A row for each text: packing is no gain.
        """
        alone = [[i] for i, n in enumerate(lengths) if n]
        longest = max(lengths)
        # Half the pairs of tokens: the causal kernel leaves out the others where no mask is given. To make and read
        # masks costs something too.
        padded = len(alone) * longest * (self.token_cost + self.pair_cost * longest / 2)
        best, least = alone, padded * _WORTH_PACKING
        for fold in range(1, len(alone) + 1):
            rows = first_fit(lengths, fold * longest)
            width = max(sum(lengths[i] for i in row) for row in rows)
            cost = len(rows) * width * (self.token_cost + self.pair_cost * width)
            if cost < least:
                best, least = rows, cost
            if len(rows) == 1:
                break
        return best


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Put each text, the longest first, into the first row of `width` tokens that has room for it.

    >>> first_fit([2, 5, 0, 3, 4], 5)
    [[1], [4], [3, 0]]
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: -lengths[i]):
        at = next((row for row, left in enumerate(room) if left >= lengths[i]), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(width)
        rows[at].append(i)
        room[at] -= lengths[i]
    return rows


def laid_out(input_ids: Tensor, lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
    """The texts of a padded batch, end to end.

    Args:
        input_ids: (B, T) int64, padded on the right.
        lengths: how many tokens of each text are taken.
        rows: positions of the texts, row by row.

    Returns:
        (R, W) token ids; (R, W) positions within the text; (B, T) where each token of the batch now stands, counted
        through all rows, 0 for those not taken. What is left of a row is filled with texts of one token.
    """
    width = max(sum(lengths[i] for i in row) for row in rows)
    source = torch.zeros((len(rows), width), dtype=torch.int64)
    positions, place = torch.zeros_like(source), torch.zeros(input_ids.shape, dtype=torch.int64)
    for r, row in enumerate(rows):
        start = 0
        for i in row:
            span = torch.arange(lengths[i])
            source[r, start : start + lengths[i]] = span + i * input_ids.shape[1]
            positions[r, start : start + lengths[i]] = span
            place[i, : lengths[i]] = span + r * width + start
            start += lengths[i]
    source, positions, place = (t.to(input_ids.device, non_blocking=True) for t in (source, positions, place))
    return input_ids.flatten()[source], positions, place


def keeps_texts_apart(backbone: nn.Module, device: torch.device) -> bool:
    """Whether two texts in one row give what each gives alone, with the model as it is now; two such rows too."""
    one, two = torch.arange(1, 6, device=device), torch.arange(3, 10, device=device)
    packed = torch.stack([torch.cat([one, two]), torch.cat([two[:5], two])])
    positions = torch.cat([torch.arange(5), torch.arange(7)]).to(device).expand(2, -1)
    try:
        first, second = (backbone(input_ids=t[None], use_cache=False).last_hidden_state[0].float() for t in (one, two))
        expected = torch.stack([torch.cat([first, second]), torch.cat([second[:5], second])])
        for n in (1, 2):
            output = backbone(input_ids=packed[:n], position_ids=positions[:n], use_cache=False)
            error = output.last_hidden_state.float() - expected[:n]
            # Far above rounding, also in 16 bits, and far below what another text in sight does.
            if not bool((error.norm(dim=-1) <= 0.05 * expected[:n].norm(dim=-1)).all()):
                return False
    except (TypeError, AttributeError, RuntimeError, ValueError):
        return False  # an architecture with other inputs: the padded way works for it
    return True


# -- without keeping logits --------------------------------------------------------------------------------


def head_loss(hidden: Tensor, target: Tensor, head: nn.Module) -> Tensor:
    """Sum of −log p(target) in nats, () float32, of hidden states under an output layer.

    Args:
        hidden: (n, d), with or without gradient.
        target: (n,) int64.
        head: the output layer; its own parameters get their gradients where they require one.

    Of a frozen output layer the gradient is computed with the loss, some logits at a time: none are kept for the
    backward pass and no product is done twice. Of a trained one, logits are kept while they are few, else computed
    again in the backward pass, some at a time.
    """
    return _head_loss(hidden, target, head, "sum")


def token_losses(hidden: Tensor, target: Tensor, head: nn.Module) -> Tensor:
    """The same, (n,) float32, for each token by itself."""
    return _head_loss(hidden, target, head, "none")


def _head_loss(hidden: Tensor, target: Tensor, head: nn.Module, reduction: str) -> Tensor:
    size = max(1, _LOGITS_AT_ONCE // max(1, getattr(head, "out_features", 1)))
    frozen = type(head) is nn.Linear and not any(p.requires_grad for p in head.parameters())
    wanted = torch.is_grad_enabled() and hidden.requires_grad
    # In 16 bits of float16 small gradients would vanish before the scaler could save them.
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
    """Sum of −log p(target), () float32, and its derivative by the logits in their place.

    Args:
        logits: (n, V) float32. Overwritten by p − 1 at the target and p elsewhere.
        target: (n,) int64.
        each: (n,) float32, overwritten by −log p(target) of each.
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
