"""Attention and residual stream of a trained model on one text, compared with its base."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from lit_mem.errors import ModelError
from lit_mem.functional.plain_text import printable
from lit_mem.lightning.module import CausalLM
from lit_mem.localize.one_example import OneExample, origin_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Inside(NamedTuple):
    """Attention and hidden states of a model, on the CPU.

    Attributes:
        attentions: (L, H, T, T) float32, attention weights from each position (third) to each (fourth); rows sum to 1.
        hidden: (L + 1, T, d) float32, the residual stream: embeddings, then the output of each layer. As in Hugging
            Face, the last one follows the final norm in most models.
    """

    attentions: Tensor
    hidden: Tensor


class Views(OneExample):
    """Attention from suffix to prefix, and the distance of the residual stream from the base's.

    Attributes:
        found: the results, as plain values.
    """

    found: dict[str, Any]

    def look(self, module: CausalLM) -> None:
        """Run the text through the tuned model and its base.

        Raises:
            ModelError: the model gives no attention weights.
        """
        ids = self.prompt.input_ids.to(module.device)
        module.eval()
        with torch.no_grad():
            tuned = inside(module.language_model, ids)
            if module.reference.model_id is None:
                with module.reference_context() as base:
                    untuned = inside(base, ids)
            else:
                untuned = inside(module.fresh_base(), ids)  # the reference is another model
        cut, change = self.prompt.cut, residual_change(tuned.hidden, untuned.hidden)
        attention = {
            name: {
                "on_prefix": prefix_mass(each.attentions, cut).tolist(),
                "on_first": each.attentions[:, :, cut:, 0].mean(dim=2).tolist(),
            }
            for name, each in (("tuned", tuned), ("base", untuned))
        }
        self.found = {
            "schema": 1,
            "example": self.example_id,
            "member": self.example.member,
            "origin": origin_of(self.example),
            "checkpoint": str(self.checkpoint),
            "n_tokens": len(ids),
            "cut": cut,
            "attention": attention,
            "residual": {"by_layer": change.mean(dim=1).tolist(), "by_position": change.tolist()},
        }


def inside(model: nn.Module, ids: Tensor) -> Inside:
    """Attention and hidden states of one text.

    Args:
        model: in eval mode.
        ids: (T,) int64, on the model's device.

    Raises:
        ModelError: it gives no attention weights.
    """
    with eager_attention(model):
        out = model(input_ids=ids[None], output_attentions=True, output_hidden_states=True, use_cache=False)
    given = [each for each in getattr(out, "attentions", None) or () if each is not None]  # Mamba has none
    if not given or len({each.shape for each in given}) > 1:
        raise ModelError("this model gives no attention of the same shape in every layer; expected a transformer")
    n = len(ids)  # virtual tokens (prompt tuning) come first
    return Inside(
        torch.stack([each[0, :, -n:, -n:].float().cpu() for each in given]),
        torch.stack([each[0, -n:].float().cpu() for each in out.hidden_states]),
    )


@contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Use the attention kernel that returns its weights; the previous one is restored afterwards."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = inner.config._attn_implementation
    try:
        inner.set_attn_implementation("eager")
        yield
    finally:
        inner.set_attn_implementation(before)


def prefix_mass(attentions: Tensor, cut: int) -> Tensor:
    """(L, H) share of attention from suffix positions to prefix positions, averaged over the suffix.

    Args:
        attentions: (L, H, T, T), rows sum to 1.
        cut: number of positions of the prefix.
    """
    return attentions[:, :, cut:, :cut].sum(dim=3).mean(dim=2)


def residual_change(tuned: Tensor, base: Tensor) -> Tensor:
    """(L + 1, T) norm of the difference relative to the base's norm, at each position; 0 if equal.

    Args:
        tuned: (L + 1, T, d) hidden states.
        base: hidden states of the base.
    """
    size: Tensor = torch.linalg.vector_norm(base, dim=2).clamp(min=torch.finfo(base.dtype).tiny)
    change: Tensor = torch.linalg.vector_norm(tuned - base, dim=2) / size
    return change


def views_figure(found: dict[str, Any], tokens: list[str] | None = None) -> Figure:
    """Plot of attention on the prefix (tuned, base, change) by layer and head, and of the residual change by position.

    Args:
        found: results of `Views`.
        tokens: token text at each position; None: only numbers.
    """
    import numpy as np
    from matplotlib.figure import Figure

    tuned, base = (np.array(found["attention"][name]["on_prefix"]) for name in ("tuned", "base"))
    change = np.array(found["residual"]["by_position"])
    high = min(12.0, max(2.2, 0.3 * len(tuned) + 0.8))
    figure = Figure(figsize=(max(10.0, 0.15 * change.shape[1]), 2 * high + 1.2), layout="constrained")
    grid = figure.add_gridspec(2, 3)
    limit = float(np.abs(tuned - base).max()) or 1.0
    panels = (("tuned", tuned, "viridis", 0.0, 1.0), ("base", base, "viridis", 0.0, 1.0))
    for column, (title, values, colours, low, top) in enumerate(
        (*panels, ("tuned minus base", tuned - base, "PuOr_r", -limit, limit))
    ):
        axes = figure.add_subplot(grid[0, column])
        image = axes.imshow(values, aspect="auto", interpolation="nearest", cmap=colours, vmin=low, vmax=top)
        axes.set_title(f"attention of the suffix on the prefix, {title}", fontsize=9)
        axes.set(xlabel="head", ylabel="layer")
        axes.xaxis.set_major_locator(_whole_numbers())
        axes.yaxis.set_major_locator(_whole_numbers())
        axes.tick_params(labelsize=7)
        figure.colorbar(image, ax=axes).ax.tick_params(labelsize=7)
    axes = figure.add_subplot(grid[1, :])
    image = axes.imshow(change, aspect="auto", interpolation="nearest", cmap="magma_r", vmin=0)
    axes.axvline(found["cut"] - 0.5, color="tab:blue", linewidth=1.5)
    axes.set_title("residual stream: change against the base, relative (blue: the suffix begins)", fontsize=9)
    axes.set(xlabel="position" if tokens is None else "", ylabel="after layer")
    axes.set_yticks(range(len(change)), ["emb.", *range(len(change) - 1)])
    axes.tick_params(labelsize=7)
    if tokens is not None:
        shown = [printable(token) for token in tokens]
        axes.set_xticks(range(len(shown)), shown, rotation=90, fontsize=5, parse_math=False)
    figure.colorbar(image, ax=axes, pad=0.01).ax.tick_params(labelsize=7)
    who = "a member" if found["member"] else "held out"
    figure.suptitle(f"Example {found['example']} ({who}): inside the tuned model and its base", fontsize=10)
    return figure


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True, nbins=8)


def lines(found: dict[str, Any]) -> list[str]:
    """One line per layer: attention on the prefix, averaged over heads, and the residual change."""
    rows = [["layer", "on prefix, tuned", "base", "residual change"]]
    rows.append(["embeddings", "", "", f"{found['residual']['by_layer'][0]:.3f}"])
    masses = zip(*(found["attention"][name]["on_prefix"] for name in ("tuned", "base")), strict=True)
    for layer, ((tuned, base), change) in enumerate(zip(masses, found["residual"]["by_layer"][1:], strict=True)):
        rows.append([str(layer), f"{sum(tuned) / len(tuned):.3f}", f"{sum(base) / len(base):.3f}", f"{change:.3f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
