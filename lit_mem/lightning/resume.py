"""State in checkpoints beyond weights, optimizer and Lightning's counters, and how a run resumes from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import lightning.pytorch as pl

from lit_mem.adapters.recorded import made_with
from lit_mem.audit.gather import gathered
from lit_mem.errors import CheckpointError, ConfigError
from lit_mem.guards import random_state, set_random_state
from lit_mem.lightning.loss_watch import reject_to_save
from lit_mem.models.checkpoint import CheckpointContent, Spent, check_content
from lit_mem.privacy.carried import remark_on_checkpoint

if TYPE_CHECKING:
    from lit_mem.lightning.checkpointed import CheckpointedModule

log = logging.getLogger(__name__)

_TRAINED_PRIVATELY: Final = (
    "the weights of the checkpoint were trained with it, and training without it would void their bound; set "
    "model.privacy here too (load_from_checkpoint(…, privacy=DPSGD(…))), or start from the exported adapter "
    "(model.adapter_path)"
)


class Resume:
    """Saves and loads the `lit_mem` entry of a module's checkpoints.

    Attributes:
        schedule_steps: number of steps of the learning rate's schedule; 0 if it needs none.
    """

    def __init__(self) -> None:
        self.schedule_steps = 0
        self._content: CheckpointContent | None = None  # of the resumed run, until its first batch
        self._spent: Spent | None = None  # of the run that trained the loaded weights, if private

    def save(self, module: CheckpointedModule, checkpoint: dict[str, Any]) -> None:
        """Keep only the trained weights, the base's name, and state for an exact resume.

        Raises:
            TrainingError: a weight is not finite.
        """
        trainer = module.trainer
        reject_to_save(trainer, module)
        trained = {name for name, p in module.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        content: CheckpointContent = {
            "format": 1,
            "base": module.model_id,
            "fingerprint": module.base_fingerprint,
            "random_state": random_state(),
            "random_states": gathered(random_state()),
            "schedule": {"shape": module.lr_schedule, "steps": self.schedule_steps},
            "made_with": made_with(module),
        }
        if _within_a_step(trainer) and trainer.world_size == 1:  # each rank has gradients of its own
            named = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
            content["gradients"] = {name: gradient for name, gradient in named.items() if gradient is not None}
        if (spent := self._spent if module.private is None else module.private.state()) is not None:
            content["privacy"] = spent
        module.members.save(content)
        content["learning"] = module.learning.state()
        checkpoint["lit_mem"] = content

    def load(self, module: CheckpointedModule, checkpoint: Mapping[str, Any]) -> None:
        """Load the state of a checkpoint, and reject one that does not match.

        Raises:
            CheckpointError: it belongs to another base model or adapter, or to another schedule when resuming, or
                held-out texts of this run are among its members.
        """
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        content = check_content(checkpoint, module.model_id, module.base_fingerprint, trained)
        trainer = module._trainer
        module.members.load(content)
        if trainer is not None:
            module.members.compare(trainer)
        fit = trainer is not None and trainer.state.fn == "fit"
        if fit:
            shape = content.get("schedule", {}).get("shape", module.lr_schedule)
            if shape != module.lr_schedule:
                raise CheckpointError(
                    f"its run had model.lr_schedule {shape}, but this one has {module.lr_schedule}; expected the same, "
                    "as the learning rate continues from its schedule"
                )
            self._content = content
            module.learning.load(content.get("learning", {}))
            if module.private is None and "privacy" in content:
                raise CheckpointError(f"model.privacy is not set, but {_TRAINED_PRIVATELY}")
        self._spent = content.get("privacy")
        fits = trainer is None or fit
        if module.private is not None and (fits or self._spent is not None):
            module.private.load(self._spent)
        if self._spent is not None and not fits:
            remark_on_checkpoint(self._spent)

    def reject_plain_training(self, private: bool) -> None:
        """Reject training without privacy of weights that were trained with it.

        Raises:
            ConfigError: it would.
        """
        if not private and self._spent is not None:
            raise ConfigError(f"model.privacy is not set, but {_TRAINED_PRIVATELY}")

    def finish_load(self, module: CheckpointedModule) -> None:
        """Restore the remaining state right before the next batch.

        Not earlier, as nothing may draw random numbers in between; and not at the start of an epoch, as a run that
        resumes within one does not start one. It does nothing in a run that does not resume.
        """
        if self._content is None:
            return
        content, self._content = self._content, None
        trainer = module.trainer
        steps = content.get("schedule", {}).get("steps", self.schedule_steps)
        if steps != self.schedule_steps:
            log.warning(
                "model.lr_schedule %s spanned %d steps in the resumed run, and spans %d now: the learning "
                "rate continues at the new schedule's value for step %d.",
                module.lr_schedule, steps, self.schedule_steps, trainer.global_step,
            )  # fmt: skip
        if _within_a_step(trainer):
            gradients = content.get("gradients", {})
            if not gradients:
                log.warning(
                    "The checkpoint lacks the gradients after step %d: the next step has fewer batches.",
                    trainer.global_step,
                )
            for name, parameter in module.named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter)
        states = content.get("random_states", [])
        same = len(states) == trainer.world_size
        if states and not same:
            log.warning(
                "The resumed run had %d processes, this one has %d: their random states are new.",
                len(states), trainer.world_size,
            )  # fmt: skip
        set_random_state(states[module.global_rank] if same else content["random_state"])


def _within_a_step(trainer: pl.Trainer) -> bool:
    """Whether some but not all batches of a step are done (`trainer.accumulate_grad_batches`)."""
    return trainer.fit_loop._should_accumulate()
