"""The LightningModule for fine-tuning: a causal language model with an adapter, scored in every validation."""

from __future__ import annotations

from typing import Any, Literal

import lightning.pytorch as pl
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.optim import AdamW

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.lora import LoRA
from lit_mem.audit.gather import on_rank_zero
from lit_mem.errors import check_range
from lit_mem.lightning.checkpointed import CheckpointedModule
from lit_mem.lightning.console import show_messages
from lit_mem.lightning.foreign_callbacks import prepare_callbacks
from lit_mem.lightning.lazy import lazily
from lit_mem.lightning.loss_watch import LossWatch
from lit_mem.lightning.member_check import MemberCheck
from lit_mem.lightning.private_fit import EndOnException, PrivateFit
from lit_mem.lightning.private_group import group_names, largest_group
from lit_mem.lightning.resume import Resume
from lit_mem.lightning.run_folder import claim_versions, restrict_run
from lit_mem.lightning.schedule import scheduled
from lit_mem.models.base_models import Quantization
from lit_mem.models.building import Built, checkpoint_gradients
from lit_mem.privacy.carried import remark
from lit_mem.privacy.dpsgd import DPSGD
from lit_mem.scoring.reference_scores import Reference
from lit_mem.training.objective import TrainingLoss
from lit_mem.types import Batch


class CausalLM(CheckpointedModule):
    """Fine-tunes a causal language model and scores every validation example, member or not.

    `training_step` is the usual next-token loss (mean over the batch's labelled tokens, as in Hugging Face).
    `validation_step` returns the `TokenScores` that the memorization callbacks read; the scores of held-out texts also
    give the validation loss.

    Args:
        model_id: base model: a hub id, a local folder, a .gguf file, or "asset:tiny_llama". None: with `adapter_path`
            the base that the adapter was trained on, else LLaMA 2 7B from the hub.
        revision: branch, tag or commit on the hub.
        adapter: the adapter to train on the base.
        adapter_path: folder of an adapter saved by peft, to start from or to audit; it replaces `adapter`.
        reference: the frozen reference model of membership inference.
        optimizer: any torch optimizer; it gets only the trainable parameters.
        lr_schedule: shape of the learning rate over all steps, after the warm-up.
        warmup_fraction: share of all steps over which the learning rate rises from 0.
        dtype: precision in which the base is loaded; "auto": that of its files.
        quantization: load the base in 4 or 8 bits (GPU, extra `quantization`).
        attention: attention kernel; None: the library's default.
        gradient_checkpointing: trade time for memory in training.
        loss: which tokens are trained on; by default every token of every text.
        privacy: train with differential privacy (extra `privacy`); None: without.
    """

    def __init__(
        self,
        model_id: str | None = None,
        revision: str | None = None,
        adapter: Adapter = lazily(LoRA),  # noqa: B008  (how jsonargparse spells a default sub-object)
        adapter_path: str | None = None,
        reference: Reference = Reference(),  # noqa: B008
        optimizer: OptimizerCallable = AdamW,
        lr_schedule: Literal["constant", "linear", "cosine"] = "linear",
        warmup_fraction: float = 0.0,
        dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32",
        quantization: Quantization = "none",
        attention: str | None = None,
        gradient_checkpointing: bool = False,
        loss: TrainingLoss = TrainingLoss(),  # noqa: B008
        privacy: DPSGD | None = None,
    ) -> None:
        check_range("model.warmup_fraction", warmup_fraction, at_least=0, below=1)
        super().__init__(model_id, revision, adapter, adapter_path, reference, dtype, quantization, attention)
        self.optimizer, self.lr_schedule, self.warmup_fraction = optimizer, lr_schedule, warmup_fraction
        self.gradient_checkpointing = gradient_checkpointing
        self.loss = loss
        self.private = None if privacy is None else PrivateFit(privacy)
        self.members = MemberCheck()
        self._resume = Resume()
        self._losses = LossWatch()

    def _prepare(self, built: Built) -> None:
        if self.adapter_path is not None:
            self.members.start_from(self.adapter_path, self._trainer)
        if self.gradient_checkpointing:
            checkpoint_gradients(built.base, self.private is not None)

    # -- training ------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Mean next-token loss of the batch in nats; in private training, of a step's texts in several batches.

        Raises:
            TrainingError: it is not finite.
        """
        self._losses.begin_step(self.trainer)
        if self.private is not None:
            shown, texts = self.private.step(self, batch, self._loss_by_text)
            loss = shown
        else:
            loss, shown = self.loss(self._scorer, batch)
            texts = len(batch["input_ids"])
        self._losses.add(shown, self.trainer)
        if texts:
            self.log("train/loss", shown, on_step=True, prog_bar=True, batch_size=texts)
        if self.private is not None:  # manual optimization
            self.private.update(self)
        return loss

    def _loss_by_text(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        return self.loss.by_text(self._scorer, batch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Take no further step once the privacy budget is spent; from the first step on, members are trained on."""
        if self.private is not None and self.private.spent:
            return -1
        self.members.trains()
        return None

    def configure_callbacks(self) -> list[pl.Callback]:
        """Add a callback that ends private training on an exception.

        This is the last hook before loggers open their files, and before callbacks are set up.

        Raises:
            ConfigError: a callback cannot work with this module.
        """
        prepare_callbacks(self.trainer)
        show_messages()
        claim_versions(self.trainer)
        return [] if self.private is None else [EndOnException(self.private)]

    def setup(self, stage: str) -> None:
        """Reject options that are incompatible with private training."""
        self.members.begin()
        on_rank_zero(self.trainer, lambda: remark(self, stage))
        if stage == "fit" and self.private is not None:
            self.automatic_optimization = False  # set here, so that our checks run before Lightning's
            self.private.setup(self.trainer)

    def teardown(self, stage: str) -> None:
        """Restore the model after private training, and restrict the run's files to their owner."""
        restrict_run(self.trainer)
        if self.private is not None:
            self.private.end()

    def on_fit_start(self) -> None:
        """Reset the loss watch; compare the members with those known.

        Raises:
            ConfigError: a step would have no batch, or privately trained weights would be trained without privacy.
            CheckpointError: held-out texts were trained on before.
        """
        self._resume.reject_plain_training(self.private is not None)
        self.members.compare(self.trainer)
        check_range("trainer.accumulate_grad_batches", self.trainer.accumulate_grad_batches, at_least=1)
        self._losses = LossWatch()
        if self.private is not None:
            self.private.begin(self, self._loss_by_text)

    def on_train_start(self) -> None:
        """Start counting steps without validation; restore the state of a resumed run."""
        self._heldout.validated(self.trainer)
        self._resume.finish_load(self)

    def on_train_epoch_end(self) -> None:
        """Check the last losses."""
        self._losses.look(self.trainer)
        if self.private is not None and not self.trainer.enable_validation:
            self.log_dict(self.private.metrics())

    def on_train_end(self) -> None:
        """Warn if the model was not validated, hardly changed or did not improve; log the privacy spent."""
        if self.private is not None:
            self.private.log_spent(self.trainer)
        self._heldout.warn(self.trainer, self.private is not None)

    def configure_optimizers(self) -> Any:
        """The optimizer over the trainable parameters, with its schedule by step."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        found, self._resume.schedule_steps = scheduled(
            optimizer, self.lr_schedule, self.warmup_fraction, lambda: self.trainer.estimated_stepping_batches
        )
        return found

    # -- validation ----------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Check the losses so far; start a new pass.

        Raises:
            CheckpointError: held-out texts were trained on.
        """
        if self.trainer.state.fn == "fit":
            self._losses.look(self.trainer)
        else:
            self.members.compare(self.trainer)
        super().on_validation_start()

    def on_validation_epoch_end(self) -> None:
        """Log the token-weighted held-out loss, and the privacy budget spent."""
        super().on_validation_epoch_end()
        if self.private is not None:
            self.log_dict(self.private.metrics())

    def privacy_claim(self) -> tuple[float, float] | None:
        """ε and δ guaranteed by training so far; None if training is not private."""
        return None if self.private is None else self.private.claim()

    @property
    def epsilon_note(self) -> str:
        """A note on what `privacy/epsilon` does not cover; "" without one."""
        return "" if self.private is None else self.private.note

    def metric_names(self) -> list[str]:
        """Names that this module logs during a fit."""
        if self.private is None:
            return ["train/loss", "val/loss"]
        spent = ["privacy/epsilon", "privacy/delta", *group_names(largest_group(self._trainer))]
        return ["train/loss", "val/loss", *spent]
