"""The LightningModule: a causal language model, an adapter, and a validation step that returns `TokenScores`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

import lightning.pytorch as pl
from jsonargparse import lazy_instance
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import AdamW

from lit_mem.adapters.base import Adapter
from lit_mem.adapters.loading import (
    Quantization,
    as_whole,
    load_tokenizer,
)
from lit_mem.adapters.lora import LoRA
from lit_mem.adapters.origin import DEFAULT_BASE, own_base, refuse_adapter
from lit_mem.adapters.population import Population
from lit_mem.adapters.recorded import arguments, made_with
from lit_mem.audit.gather import gathered, on_rank_zero
from lit_mem.audit.table import ExampleTable, ScoreTable
from lit_mem.checkpoints import CheckpointContent, Spent, check_content, own_content, read_content
from lit_mem.console import show_messages
from lit_mem.data.member_check import MemberCheck
from lit_mem.divergence import LossWatch, refuse_not_finite, refuse_to_save
from lit_mem.errors import CheckpointError, ConfigError, ModelError
from lit_mem.finite import not_finite
from lit_mem.foreign_callbacks import prepare_callbacks
from lit_mem.guards import random_state, set_random_state
from lit_mem.lightning.strategies import place_of, refuse_strategies
from lit_mem.lightning.surroundings import check_texts, needs_of, remark_on_ends, setting_of
from lit_mem.losses import TrainingLoss
from lit_mem.metrics.learning import Learning
from lit_mem.models.building import build, checkpoint_gradients, log_sizes
from lit_mem.models.loader import BaseLoader
from lit_mem.models.scored import ScoredModel
from lit_mem.privacy.carried import remark, remark_on_checkpoint
from lit_mem.privacy.dpsgd import DPSGD
from lit_mem.privacy.fitting import MORE_LEARNING, EndOnException, PrivateFit
from lit_mem.reference import Reference, ReferenceCache
from lit_mem.run_folder import claim_versions, restrict_run
from lit_mem.scoring import TokenScorer
from lit_mem.sharding.lockstep import Lockstep
from lit_mem.types import Batch, Needs, TokenScores, holds_canaries

log = logging.getLogger(__name__)

_NOT_BUILT: Final = "the model is not built yet; call configure_model() first"
_TRAINED_PRIVATELY: Final = (
    "the weights of the checkpoint were trained with it, and plain training would void their bound; expected "
    "model.privacy here too (load_from_checkpoint(…, privacy=DPSGD(…))), or a start from the exported adapter "
    "(model.adapter_path)"
)
_MORE_LEARNING: Final = (
    "Expected a larger trainer.max_epochs, a higher model.optimizer.init_args.lr, or a larger adapter (model.adapter)."
)


class CausalLM(pl.LightningModule):
    """Fine-tunes a causal language model and scores every validation example, member or not.

    `training_step` is the usual next-token loss (mean over the batch's labelled tokens, as Hugging Face has
    it). `validation_step` returns the `TokenScores` that the memorization callbacks read; the held-out half of
    them is also the validation loss.

    Args:
        model_id: base model: a hub id, a local folder, a .gguf file, or "asset:tiny_llama". None: with `adapter_path`
            the base that the adapter was trained on, else LLaMA 2 7B from the hub.
        revision: branch, tag or commit on the hub.
        adapter: how the base becomes trainable.
        adapter_path: folder of an adapter saved by peft, to start from or to audit; it replaces `adapter`.
        reference: the frozen model that membership is judged against.
        optimizer: any torch optimizer; it gets the trainable parameters only.
        lr_schedule: shape of the learning rate over all steps, after the warm-up.
        warmup_fraction: share of all steps over which the learning rate rises from 0.
        dtype: precision that the base is loaded in; "auto": the one it was saved in.
        quantization: load the base in 4 or 8 bits (GPU, extra `quantization`).
        attention: attention kernel; None: the library's choice.
        gradient_checkpointing: trade time for memory in training.
        loss: what of the texts is trained on; by default every token of every text.
        privacy: train with differential privacy (extra `privacy`); None: plainly.
    """

    def __init__(
        self,
        model_id: str | None = None,
        revision: str | None = None,
        adapter: Adapter = lazy_instance(LoRA),  # noqa: B008  (how jsonargparse spells a default sub-object)
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
        super().__init__()
        if not 0 <= warmup_fraction < 1:
            raise ConfigError(f"model.warmup_fraction is {warmup_fraction}; expected a number in [0, 1)")
        if reference.model_id is not None and reference.kind == "adapter_off":
            raise ConfigError("model.reference.kind adapter_off and model.reference.model_id exclude each other")
        for option, given in (("model.model_id", model_id), ("model.reference.model_id", reference.model_id)):
            if given is not None and Path(given).is_dir():
                refuse_adapter(option, given, given, None, as_whole(option))
        if model_id is None and adapter_path is not None:
            model_id, own_revision = own_base(adapter_path)
            revision = revision or own_revision
        self.model_id, self.revision = model_id or DEFAULT_BASE, revision
        self.adapter, self.adapter_path = adapter, adapter_path
        self.reference = reference
        self.optimizer, self.lr_schedule, self.warmup_fraction = optimizer, lr_schedule, warmup_fraction
        self.dtype_name, self.quantization, self.attention = dtype, quantization, attention
        self.gradient_checkpointing = gradient_checkpointing
        self.loss = loss
        self.private = None if privacy is None else PrivateFit(privacy)
        self.reference_cache = ReferenceCache()
        self._populations: dict[tuple[str, ...], Population] = {}
        self.lockstep = Lockstep()
        self._bases = BaseLoader(self.model_id, self.revision, dtype, quantization, attention, self.lockstep)
        self.base_fingerprint: dict[str, str] = {}
        self._model: nn.Module | None = None
        self._scorer: TokenScorer | None = None
        self._scored_model: ScoredModel | None = None
        self._resumed: CheckpointContent | None = None
        self._spent: Spent | None = None  # of the run that trained the loaded weights, if that was private
        self._schedule_steps = 0
        self._table = ExampleTable(["logprob", "n_tokens"])
        self._not_finite: str | None = None
        self.learning = Learning()
        self._losses = LossWatch()
        self._validated_at = 0
        self.members = MemberCheck()

    # -- building ------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer that belongs to the base model."""
        return load_tokenizer(self.model_id, self.revision)

    @property
    def language_model(self) -> nn.Module:
        """The model being tuned, with its adapter."""
        if self._model is None:
            raise ModelError(_NOT_BUILT)
        return self._model

    def configure_model(self) -> None:
        """Load the base, put the adapter on, and check that the reference is what it must be.

        Lightning calls this before every fit, validate and test; the second call does nothing.
        """
        if self._model is not None:
            return
        trainer = self._trainer
        refuse_strategies(trainer, self.quantization, self.adapter)
        built = build(
            self._bases,
            place_of(trainer),
            self.adapter if self.adapter_path is None else self.adapter_path,
            self.reference,
            check_texts(trainer),
            lambda: self.tokenizer.vocab_size,
        )
        self._model, self.base_fingerprint = built.model, built.fingerprint
        scored = ScoredModel(built.model, built.reference, self.reference_cache, self.reference.cache, self.lockstep)
        self._scored_model, self._scorer = scored, scored.scorer
        if self.adapter_path is not None:
            self.members.start_from(self.adapter_path, trainer)
        remark_on_ends(self)
        if self.gradient_checkpointing:
            checkpoint_gradients(built.base, self.private is not None)
        name = self.model_id + (f" with the adapter {self.adapter_path}" if self.adapter_path else "")
        log_sizes(built.model, name, built.reference.name)

    def fresh_base(self) -> nn.Module:
        """The base, loaded anew, un-tuned and in eval mode; the model in training is left alone."""
        return self._bases.fresh(place_of(self._trainer))

    def merged(self, adapter_path: str) -> Any:
        """A fresh base with an exported adapter merged into it: one plain model, on the CPU.

        The model in training is left alone: merging and unmerging would round its weights.
        """
        return self._bases.merged(adapter_path)

    @property
    def _scored(self) -> ScoredModel:
        if self._scored_model is None:
            raise ModelError(_NOT_BUILT)
        return self._scored_model

    def reference_context(self) -> AbstractContextManager[nn.Module]:
        """The frozen reference as a model to call; in eval mode, without gradients."""
        return self._scored.reference.context(setting_of(self, self.quantization == "none"))

    # -- training ------------------------------------------------------------------------------------------

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Mean next-token loss of the batch in nats; in private training of a step's texts, in several batches.

        Raises:
            TrainingError: it is not finite.
        """
        assert self._scorer is not None
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
        if self.private is not None:  # here, as Lightning takes no step then
            self.private.update(self)
        return loss

    def _loss_by_text(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        assert self._scorer is not None
        return self.loss.by_text(self._scorer, batch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        """Take no further step once the privacy budget is spent; from the first one on the members are trained on."""
        if self.private is not None and self.private.spent:
            return -1
        self.members.trains()
        return None

    def configure_callbacks(self) -> list[pl.Callback]:
        """One that ends private training on an exception.

        The last hook before loggers open their files, and before callbacks are set up.

        Raises:
            ConfigError: a callback cannot work with this module.
        """
        prepare_callbacks(self.trainer)
        show_messages()
        claim_versions(self.trainer)
        return [] if self.private is None else [EndOnException(self.private)]

    def setup(self, stage: str) -> None:
        """Refuse what private training cannot go with."""
        self.members.begin()
        on_rank_zero(self.trainer, lambda: remark(self, stage))
        if stage == "fit" and self.private is not None:
            self.automatic_optimization = False  # here, so that our refusals come before Lightning's
            self.private.setup(self.trainer)

    def teardown(self, stage: str) -> None:
        """Leave the model as any other, and the run's files for their owner alone."""
        restrict_run(self.trainer)
        if self.private is not None:
            self.private.end()

    def on_fit_start(self) -> None:
        """Clear the losses of a fit that was broken off; compare the members with those known.

        Raises:
            ConfigError: a step would be of no batch, or would train plainly what was trained privately.
            CheckpointError: held-out texts were trained on before.
        """
        if self.private is None and self._spent is not None:
            raise ConfigError(f"model.privacy is not set, but {_TRAINED_PRIVATELY}")
        self.members.compare(self.trainer)
        if (n := self.trainer.accumulate_grad_batches) < 1:
            raise ConfigError(f"trainer.accumulate_grad_batches is {n}; expected 1 or more")
        self._losses = LossWatch()
        if self.private is not None:
            self.private.begin(self, self._loss_by_text)

    def on_train_start(self) -> None:
        """From here on steps are counted that no validation has seen; a resumed run is where the other one was."""
        self._validated_at = self.trainer.global_step
        if self._resumed is not None:
            self._go_on_from(self._resumed)
            self._resumed = None

    def on_train_epoch_end(self) -> None:
        """Look at the last losses."""
        self._losses.look(self.trainer)
        if self.private is not None and not self.trainer.enable_validation:
            self.log_dict(self.private.figures())

    def on_train_end(self) -> None:
        """Warn of a model that was not validated, has hardly learned or is no better; log the privacy that is spent."""
        if self.private is not None:
            self.private.log_spent(self.trainer)
        if self.learning.hardly:
            advice = _MORE_LEARNING if self.private is None else MORE_LEARNING
            log.warning("%s. %s", self.learning.line(), advice)
        elif self.learning.no_better:
            log.warning("%s.", self.learning.line())
        unseen = self.trainer.global_step - self._validated_at
        if unseen and self.trainer.enable_validation:
            log.warning(
                "The last %d of %d training steps came after the last validation, so no figure tells of them: "
                "trainer.val_check_interval and trainer.check_val_every_n_epoch say when there is one.",
                unseen, self.trainer.global_step,
            )  # fmt: skip

    def configure_optimizers(self) -> Any:
        """The optimizer over the trainable parameters, and its schedule by step."""
        from transformers import get_scheduler

        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.lr_schedule == "constant" and not self.warmup_fraction:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise ConfigError(
                f"model.lr_schedule is {self.lr_schedule} with a warm-up of {self.warmup_fraction:g}, which needs the "
                "number of steps; set trainer.max_epochs or trainer.max_steps, or take constant and no warm-up"
            )
        name = "constant_with_warmup" if self.lr_schedule == "constant" else self.lr_schedule
        schedule = get_scheduler(
            name,
            optimizer,
            num_warmup_steps=round(steps * self.warmup_fraction),
            num_training_steps=int(steps),
        )
        self._schedule_steps = int(steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # -- scoring -------------------------------------------------------------------------------------------

    def score(self, batch: Batch, needs: Needs | None = None) -> TokenScores:
        """Score a batch with the tuned model, and with the reference where a callback reads it.

        Args:
            batch: the examples.
            needs: what is computed beside log-probabilities and hits; None: what the callbacks read.
        """
        needs = needs_of(self._trainer) if needs is None else needs
        return self._scored.score(batch, needs, setting_of(self, self.quantization == "none"), self.global_step)

    def tuned_is_reference(self) -> bool:
        """Whether the tuned model still gives the reference's numbers, to the last bit, as before the first step.

        What is to be computed with both need then be computed with one. May be false where it would be true.
        """
        return self._scored_model is not None and self._scored_model.tuned_is_reference(self.global_step)

    def population(self, references: Sequence[str]) -> Population:
        """Further frozen models to compare with: adapters of the same base, or whole models; loaded once a list."""
        key, place = tuple(references), place_of(self._trainer)
        if key not in self._populations:

            def load(other: str | None) -> nn.Module:
                base: nn.Module = self._bases.load(place, other, "references" if other else "model_id")
                return base.to(self.device)

            self._populations[key] = Population(references, load)
        return self._populations[key]

    # Lightning hands whatever a step returns on to the callbacks; its annotation says tensors and mappings only.
    def validation_step(  # type: ignore[override]
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> TokenScores:
        """Score a batch of members or non-members in one forward pass."""
        scores = self.score(batch)
        self._not_finite = self._not_finite or not_finite(scores, batch)
        if not holds_canaries(batch):
            columns = {"logprob": scores.total_logprob, "n_tokens": scores.n_tokens}
            self._table.update(scores.example_id.cpu(), scores.member.cpu(), columns)
        return scores

    def test_step(  # type: ignore[override]
        self, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> TokenScores:
        """The same as `validation_step`, on the test set."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_start(self) -> None:
        """Look at the losses before it; start a pass anew.

        Raises:
            CheckpointError: held-out texts were trained on.
        """
        if self.trainer.state.fn == "fit":
            self._losses.look(self.trainer)
        else:
            self.members.compare(self.trainer)
        self._table.reset()
        self._not_finite = None

    def on_test_start(self) -> None:
        """As in validation."""
        self.on_validation_start()

    def on_validation_end(self) -> None:
        """Note how far training was."""
        if not self.trainer.sanity_checking:
            self._validated_at = self.trainer.global_step

    def heldout_loss(self) -> dict[str, float]:
        """The held-out loss of the pass that goes on, `val/loss` or `test/loss`; {} without texts. On every rank."""
        table = self._table.compute().nonmembers()
        if not len(table):
            return {}
        loss = -table["logprob"].sum() / table["n_tokens"].sum()
        return {"test/loss" if self.trainer.testing else "val/loss": loss.float().item()}

    def _log_heldout_loss(self) -> None:
        refuse_not_finite(self._not_finite, self.trainer, self)
        self.log_dict(self.heldout_loss(), prog_bar=True, sync_dist=True)
        if self.trainer.state.fn == "fit":
            self._note_learning(self._table.compute())
        self._table.reset()

    def _note_learning(self, table: ScoreTable) -> None:
        trainer = self.trainer
        if not trainer.sanity_checking:
            self.learning.note(table)
        elif trainer.num_sanity_val_batches == trainer.num_val_batches and not trainer.global_step:
            self.learning.start(table)

    def on_validation_epoch_end(self) -> None:
        """Log the held-out loss, weighted by token, and what of the privacy budget is spent."""
        self._log_heldout_loss()
        if self.private is not None:
            self.log_dict(self.private.figures())

    def privacy_claim(self) -> tuple[float, float] | None:
        """ε and δ to which training has kept so far; None where it is not private."""
        return None if self.private is None else self.private.claim()

    @property
    def epsilon_note(self) -> str:
        """What `privacy/epsilon` leaves out, for those who show it; "" where there is nothing."""
        return "" if self.private is None else self.private.note

    def metric_names(self) -> list[str]:
        """Names that this module logs while it is fitted."""
        return ["train/loss", "val/loss", *(["privacy/epsilon"] if self.private is not None else [])]

    def on_test_epoch_end(self) -> None:
        """Log the test set's loss, weighted by token."""
        self._log_heldout_loss()

    # -- checkpoints ---------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained weights only, name the base, and keep what an exact resume needs.

        Raises:
            TrainingError: the weights are no numbers.
        """
        refuse_to_save(self.trainer, self)
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        content: CheckpointContent = {
            "format": 1,
            "base": self.model_id,
            "fingerprint": self.base_fingerprint,
            "random_state": random_state(),
            "random_states": gathered(random_state()),
            "schedule": {"shape": self.lr_schedule, "steps": self._schedule_steps},
            "made_with": made_with(self),
        }
        if self._amid_a_step() and self.trainer.world_size == 1:  # each rank has gradients of its own
            named = {name: p.grad for name, p in self.named_parameters() if p.requires_grad}
            content["gradients"] = {name: gradient for name, gradient in named.items() if gradient is not None}
        if (spent := self._spent if self.private is None else self.private.state()) is not None:
            content["privacy"] = spent
        self.members.save(content)
        content["learning"] = self.learning.state()
        checkpoint["lit_mem"] = content

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

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another base or adapter; the trained weights must match one for one.

        Raises:
            CheckpointError: it is not of this base model and adapter, or of another schedule to go on with, or held-out
                texts of this run are among its members.
        """
        self.strict_loading = False  # the base's weights are not in it; the check below is the strict one
        self.configure_model()
        trained = {name: p for name, p in self.named_parameters() if p.requires_grad}
        content = check_content(checkpoint, self.model_id, self.base_fingerprint, trained)
        self.members.load(content)
        if self._trainer is not None:
            self.members.compare(self.trainer)
        if self._trainer is not None and self.trainer.state.fn == "fit":
            shape = content.get("schedule", {}).get("shape", self.lr_schedule)
            if shape != self.lr_schedule:
                raise CheckpointError(
                    f"its run had model.lr_schedule {shape}, and this one {self.lr_schedule}; expected the same, as "
                    "the learning rate goes on from where it was"
                )
            self._resumed = content
            self.learning.load(content.get("learning", {}))
            if self.private is None and "privacy" in content:
                raise CheckpointError(f"model.privacy is not set, but {_TRAINED_PRIVATELY}")
        self._spent = content.get("privacy")
        fits = self._trainer is None or self.trainer.state.fn == "fit"
        if self.private is not None and (fits or self._spent is not None):
            self.private.load(self._spent)
        if self._spent is not None and not fits:
            remark_on_checkpoint(self._spent)
        self._scored.starts_as_base = False

    def _amid_a_step(self) -> bool:
        """Whether some but not all batches of a step were done (`trainer.accumulate_grad_batches`)."""
        return self.trainer.fit_loop._should_accumulate()

    def _go_on_from(self, content: CheckpointContent) -> None:
        """Take up what weights, optimizer and Lightning's counters do not tell, right before the next batch.

        Not earlier, as nothing may draw random numbers in between; and not when an epoch begins, as a run that is
        resumed amid one begins none.
        """
        steps = content.get("schedule", {}).get("steps", self._schedule_steps)
        if steps != self._schedule_steps:
            log.warning(
                "model.lr_schedule %s was over %d steps in the run that is resumed, and is over %d now: the learning "
                "rate goes on from where the new schedule has it at step %d.",
                self.lr_schedule, steps, self._schedule_steps, self.trainer.global_step,
            )  # fmt: skip
        if self._amid_a_step():
            gradients = content.get("gradients", {})
            if not gradients:
                step = self.trainer.global_step
                log.warning(
                    "The checkpoint lacks the gradients after step %d: the next step is of fewer batches.", step
                )
            for name, parameter in self.named_parameters():
                if name in gradients:
                    parameter.grad = gradients[name].to(parameter)
        states = content.get("random_states", [])
        same = len(states) == self.trainer.world_size
        if states and not same:
            log.warning(
                "The run that is resumed had %d processes, this one has %d: their random numbers are new.",
                len(states), self.trainer.world_size,
            )  # fmt: skip
        set_random_state(states[self.global_rank] if same else content["random_state"])
