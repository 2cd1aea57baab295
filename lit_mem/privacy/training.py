"""The DP-SGD step: clip each text's gradient, and add noise to the sum."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lit_mem.functional.random_stream import RandomStream
from lit_mem.privacy.budget import Budget
from lit_mem.privacy.clipping import add_clipped_, add_noise_
from lit_mem.privacy.dpsgd import DPSGD
from lit_mem.privacy.ledger import Ledger
from lit_mem.privacy.per_text import Losses, PerTextGradients

log = logging.getLogger(__name__)


class PrivateTraining:
    """The steps of one start of a private run.

    Args:
        options: options of DP-SGD.
        texts: N, the number of training texts, which is treated as public.
        stream: random stream of the noise; must not be shared with another start.
        ledger: the ledger to write; None: another process writes it, or there is none.

    Attributes:
        budget: charged with each step.

    Raises:
        ConfigError: as for `Budget`.
    """

    def __init__(self, options: DPSGD, texts: int, stream: RandomStream, ledger: Ledger | None = None) -> None:
        self.options, self.stream = options, stream
        self.budget = Budget(options, texts, ledger)
        self.gradients: PerTextGradients | None = None
        self._totals: list[Tensor] = []
        self._last_step = -1

    def attach(self, model: nn.Module, losses: Losses | None = None, tolerance: float = 1e-3) -> None:
        """Check a model and prepare it for training.

        Args:
            model: the model; its trained parameters get gradients.
            losses: the training objective, for the check; None: no check.
            tolerance: tolerance of the check.

        Raises:
            ModelError: per-text gradients are not available.
        """
        self.gradients = PerTextGradients(model)
        if losses is not None:
            rounding = self.gradients.check(losses, tolerance)
            log.info("Removing another text from the batch changes a text's gradient by %.2g of its norm.", rounding)
        self._clear()

    def _clear(self) -> None:
        assert self.gradients is not None
        self._totals = [torch.zeros_like(p, dtype=torch.float64) for p in self.gradients.parameters]

    def accumulate(self, losses: Callable[[], Tensor]) -> Tensor:
        """Accumulate the gradients of some texts of a step.

        Args:
            losses: computes the loss of each of them, (B,) with gradient; a text's loss must not depend on the other
                texts.

        Returns:
            The losses, without gradient.
        """
        assert self.gradients is not None
        with self.gradients.recording():
            found = losses()
            add_clipped_(self._totals, self.gradients.of(found), self.options.clipping_norm)
        return found.detach()

    def finish_step(self, step: int, total: Callable[[Tensor], Tensor] | None = None, noisy: bool = True) -> None:
        """Charge the step, and set the parameters' gradients.

        Args:
            step: number of the step within this start of the run.
            total: sums a tensor over processes; None: single process.
            noisy: whether this process adds the noise and writes the ledger; exactly one does.

        Raises:
            RuntimeError: the step was already taken, or the budget is exhausted.
        """
        assert self.gradients is not None
        if step <= self._last_step:
            raise RuntimeError(f"noise may be used only once, but step {step} was already taken")
        self._last_step = step
        self.budget.charge()
        if noisy:
            add_noise_(self._totals, self.budget.noise_multiplier * self.options.clipping_norm, self.stream, step)
        if total is not None:
            self._totals = _summed(self._totals, total)
        for parameter, gradient in zip(self.gradients.parameters, self._totals, strict=True):
            parameter.grad = (gradient / self.options.batch_size).to(parameter.dtype)
        self._clear()

    def close(self) -> None:
        """Remove the hooks from the model."""
        if self.gradients is not None:
            self.gradients.remove()
            self.gradients = None


def _summed(tensors: Sequence[Tensor], total: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Each tensor's sum over processes, in one message."""
    flat = total(torch.cat([t.flatten() for t in tensors]))
    parts = torch.split(flat, [t.numel() for t in tensors])
    return [part.view_as(t) for part, t in zip(parts, tensors, strict=True)]
