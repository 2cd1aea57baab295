"""Checkpoints of a module: trained weights, state for an exact resume, and the module's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from lit_mem.adapters.recorded import arguments
from lit_mem.lightning.member_check import MemberCheck
from lit_mem.lightning.private_fit import PrivateFit
from lit_mem.lightning.resume import Resume
from lit_mem.lightning.scoring_module import ScoringModule
from lit_mem.models.checkpoint import own_content, read_content


class CheckpointedModule(ScoringModule):
    """Saves and loads the checkpoints of `lit_mem.lightning.module.CausalLM`, which sets the attributes.

    Attributes:
        lr_schedule: shape of the learning rate, which a resumed run must share.
        private: private training and its spent budget; None if training is not private.
        members: digests of the texts that the module was trained on.
    """

    lr_schedule: Literal["constant", "linear", "cosine"]
    private: PrivateFit | None
    members: MemberCheck
    _resume: Resume

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only the trained weights, the base's name, and state for an exact resume.

        Raises:
            TrainingError: a weight is not finite.
        """
        self._resume.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Reject a checkpoint of another base or adapter; the trained weights must match one for one.

        Raises:
            CheckpointError: it belongs to another base model or adapter, or to another schedule when resuming, or
                held-out texts of this run are among its members.
        """
        self.strict_loading = False  # the base's weights are not saved; the check below is strict
        self.configure_model()
        self._resume.load(self, checkpoint)
        self._scored.starts_as_base = False

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Build the module that a checkpoint was saved from, with its trained weights.

        The checkpoint holds the module's arguments; the base is loaded from its original location.

        Args:
            checkpoint_path: path of the file.
            map_location: as for `torch.load`; None: the CPU.
            hparams_file: not used: there are no hyperparameters in a file.
            strict: not used: the trained weights must match one for one.
            weights_only: not used: only tensors and plain values are read.
            kwargs: arguments of this class that override those in the checkpoint.

        Raises:
            CheckpointError: it cannot be read, belongs to another base or adapter, or lacks an argument; the message
                names it.
        """
        checkpoint = read_content(checkpoint_path, map_location)
        module = cls(**arguments(own_content(checkpoint).get("made_with"), kwargs))
        module.on_load_checkpoint(checkpoint)
        weights = checkpoint["state_dict"]
        module.load_state_dict(weights, strict=False)
        return module.to(next(iter(weights.values())).device)
