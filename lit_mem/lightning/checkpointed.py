"""A module's checkpoints: trained weights only, what an exact resume needs, and what the module was made with."""

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
        lr_schedule: shape of the learning rate, which a resumed run must have too.
        private: private training, with what it has spent; None: training is not private.
        members: what the module was trained on.
    """

    lr_schedule: Literal["constant", "linear", "cosine"]
    private: PrivateFit | None
    members: MemberCheck
    _resume: Resume

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained weights only, name the base, and keep what an exact resume needs.

        Raises:
            TrainingError: a weight is not finite.
        """
        self._resume.save(self, checkpoint)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Reject a checkpoint of another base or adapter; the trained weights must match one for one.

        Raises:
            CheckpointError: it is not of this base model and adapter, or of another schedule to go on with, or held-out
                texts of this run are among its members.
        """
        self.strict_loading = False  # the base's weights are not in it; the check below is the strict one
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
        """The module that a checkpoint was saved from, its model built and its trained weights in place.

        The checkpoint holds what the model was made with; the base itself is loaded from where it was.

        Args:
            checkpoint_path: of a file.
            map_location: as for `torch.load`; None: the CPU.
            hparams_file: not used: there are no hyper-parameters in a file.
            strict: not used: the trained weights must match one for one.
            weights_only: not used: nothing but tensors and plain values is read.
            kwargs: arguments of this class, in place of those that the checkpoint holds.

        Raises:
            CheckpointError: it cannot be read, is of another base or adapter, or lacks an argument, which it names.
        """
        checkpoint = read_content(checkpoint_path, map_location)
        module = cls(**arguments(own_content(checkpoint).get("made_with"), kwargs))
        module.on_load_checkpoint(checkpoint)
        weights = checkpoint["state_dict"]
        module.load_state_dict(weights, strict=False)
        return module.to(next(iter(weights.values())).device)
