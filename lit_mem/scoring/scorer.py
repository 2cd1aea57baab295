"""Score a batch with a model: the one forward pass that all measures share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mem.generation.kv_cache import cache_in
from lit_mem.guards import evaluation_mode
from lit_mem.scoring.next_token import Maxima, greedy_choice, read, sampled_logprob
from lit_mem.scoring.states import Keeper, gives_states, same_text
from lit_mem.scoring.windowed import scored_in_windows
from lit_mem.training.head_loss import head_loss, token_losses
from lit_mem.training.packing import Packer, keeps_texts_apart, laid_out
from lit_mem.types import IGNORED, Batch, Needs, TokenScores

_CPU_BLOCK: Final = 1_600_000  # logits
_CHUNK: Final = 2**26  # logits: a quarter of a GiB


def trained_positions(labels: Tensor) -> Tensor:
    """(B, T) bool: positions that are trained on. Position 0 never is, as it has no context."""
    mask = labels != IGNORED
    mask[:, 0] = False
    return mask


def scored_positions(batch: Batch) -> Tensor:
    """(B, T) bool: positions that are scored."""
    mask = trained_positions(batch["labels"])
    return mask & batch["scored"] if "scored" in batch else mask


def _head_and_backbone(model: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """Backbone and output layer of a Hugging Face causal LM; None if it has no such parts."""
    inner: Any = model
    if hasattr(inner, "get_base_model"):
        inner = inner.get_base_model()
    backbone = getattr(inner, getattr(inner, "base_model_prefix", "") or " ", None)
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    return None if backbone is None or head is None else (backbone, head)


class TokenScorer:
    """Scores batches with one causal language model.

    Three optimizations that change no score beyond rounding:
    - The texts of a batch are concatenated, so that almost no padding is computed, if the model keeps them apart.
      Otherwise they are padded on the right, so that no attention mask is needed and the fast causal kernel runs.
    - The output layer, the widest one, runs only at scored positions.
    - It runs in chunks, so that the full (tokens, vocabulary) tensor never exists, and in float32 from there on.

    The first two need a model whose logits are exactly its output layer applied to its last hidden states. Some
    models cap or scale their logits, and some adapters prepend virtual tokens: `TokenScorer` compares both ways on a
    few tokens at construction, and uses the model's own logits if they differ.

    Args:
        model: a Hugging Face causal LM, with or without a peft adapter, on a real device.
        chunk_tokens: number of tokens whose logits exist at once; reduced for large vocabularies, to at most a quarter
            of a GiB.
    """

    def __init__(self, model: nn.Module, chunk_tokens: int = 1024) -> None:
        self.model = model
        self.chunk_tokens = chunk_tokens
        self._parts = _head_and_backbone(model)
        self._packer: Packer | None = None
        self._packs = self._gives_states = False
        if self._parts is not None and not self._parts_are_exact():
            self._parts = None

    def _parts_are_exact(self) -> bool:
        probe = torch.arange(1, 9, device=next(self.model.parameters()).device)[None]
        try:
            with evaluation_mode(self.model):
                whole = self.model(input_ids=probe, use_cache=False).logits
                self.chunk_tokens = min(self.chunk_tokens, max(1, _CHUNK // whole.shape[-1]))
                hidden, head = self._hidden(probe)
                return torch.equal(head(hidden).float(), whole.float())  # a trainer may convert logits to float32
        except (TypeError, AttributeError, RuntimeError):
            return False  # an architecture with other inputs or outputs: use its own logits

    def _hidden(self, input_ids: Tensor) -> tuple[Tensor, nn.Module]:
        assert self._parts is not None
        backbone, head = self._parts
        return backbone(input_ids=input_ids, use_cache=False).last_hidden_state, head

    def logits(
        self, batch: Batch, mask: Tensor, size: int, keeper: Keeper | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """((n, V) float32 logits, (n,) target), n <= `size`, over the scored positions in order."""
        before = mask[:, 1:]  # the position that predicts token t is t - 1
        targets = torch.split(batch["input_ids"][:, 1:][before], size)
        if self._parts is None:
            logits = self.model(input_ids=batch["input_ids"], use_cache=False).logits
            # Virtual tokens (prompt tuning) come first, so positions are counted from the end.
            rows = logits[:, -batch["input_ids"].shape[1] :][:, :-1][before]
            for row, target in zip(torch.split(rows, size), targets, strict=True):
                yield row.float(), target
            return
        if bool(mask.any()):
            read, _, head = self._read(batch, mask, keeper)
        else:  # the model must run: ranks that share a sharded model call it equally often
            hidden, head = self._hidden(batch["input_ids"])
            read = hidden[:, :0].flatten(0, 1)
        for row, target in zip(torch.split(read, size), targets, strict=True):
            yield head(row).float(), target

    def loss(self, batch: Batch) -> Tensor:
        """Mean negative log-probability of the batch's labelled tokens in nats, () float32, with gradient.

        Equal to `model(**batch).loss`: the mean is over all tokens of the batch, not over examples. Texts are
        concatenated to avoid padding, if the model keeps them apart.
        A batch without labelled tokens gives 0 (and zero gradients) instead of NaN.
        """
        mask = trained_positions(batch["labels"])
        count = mask.sum().clamp(min=1)
        if self._parts is None or not bool(mask.any()):
            # In one chunk, since backward keeps the logits of all chunks anyway.
            return sum(F.cross_entropy(*chunk, reduction="sum") for chunk in self.logits(batch, mask, 2**31)) / count
        read, target, head = self._read(batch, mask)
        return head_loss(read, target, head) / count

    def text_losses(self, batch: Batch, packed: bool = False) -> tuple[Tensor, Tensor]:
        """The same loss per text: its sum over labelled tokens, and their number.

        Args:
            batch: the examples.
            packed: concatenate texts and skip unread positions; otherwise each text has a row of its own in every
                layer, the output layer included, as wide as the batch. Then no operand's shape depends on the texts;
                shapes affect rounding, in 16 bits by up to some percent of a text's gradient.

        Returns:
            (B,) float32 in nats, with gradient, and (B,) int64.
        """
        mask = trained_positions(batch["labels"])
        before = mask[:, 1:]
        if self._parts is not None and not packed:
            backbone, head = self._parts
            hidden = backbone(input_ids=batch["input_ids"], use_cache=False).last_hidden_state[:, :-1]
            everywhere = token_losses(hidden.flatten(0, 1), batch["input_ids"][:, 1:].flatten(), head)
            return everywhere.view(before.shape).masked_fill(~before, 0.0).sum(dim=1), before.sum(dim=1)
        if self._parts is None or not bool(mask.any()):
            chunks = [F.cross_entropy(*chunk, reduction="none") for chunk in self.logits(batch, mask, 2**31)]
            each = torch.cat(chunks) if chunks else torch.zeros(0, dtype=torch.float32, device=mask.device)
        else:
            each = token_losses(*self._read(batch, mask))
        spread = torch.zeros(before.shape, dtype=each.dtype, device=each.device).masked_scatter(before, each)
        return spread.sum(dim=1), before.sum(dim=1)

    def _read(self, batch: Batch, mask: Tensor, keeper: Keeper | None = None) -> tuple[Tensor, Tensor, nn.Module]:
        """(n, d) hidden states before the trained tokens, text by text, these (n,) tokens, and the output layer."""
        assert self._parts is not None
        backbone, head = self._parts
        # Positions from the last trained token on are not read.
        lengths = (mask * torch.arange(mask.shape[1], device=mask.device)).amax(dim=1).tolist()
        ids, before = batch["input_ids"], mask[:, 1:]
        rows = self._rows(lengths)
        keeper = keeper if self._gives_states else None
        keeps = keeper is not None
        if len(rows) == len(ids):
            output = backbone(input_ids=ids[:, : max(lengths)], use_cache=keeps)
            read = output.last_hidden_state[before[:, : max(lengths)]]
            starts = [(row, 0) for row in range(len(ids))]
        else:
            laid, positions, place = laid_out(ids, lengths, rows)
            mask_of_texts = {"attention_mask": same_text(positions)} if keeps else {}
            output = backbone(input_ids=laid, position_ids=positions, use_cache=keeps, **mask_of_texts)
            read = output.last_hidden_state.flatten(0, 1)[place[:, :-1][before]]
            starts = [divmod(at, laid.shape[1]) for at in place[:, 0].tolist()] if keeps else []
        if keeper is not None:
            keeper.take(cache_in(output), [(*starts[row], lengths[row]) for row in keeper.rows])
        return read, ids[:, 1:][before], head

    def _rows(self, lengths: Sequence[int]) -> list[list[int]]:
        """Groups of texts that share a row."""
        if self._packer is None:  # also for a single text: ranks that share a sharded model run the probe together
            assert self._parts is not None
            self._packer = Packer(self.model)
            with evaluation_mode(self.model):
                device = next(self.model.parameters()).device
                one_row = self._packer.one_row
                self._packs = self._packer.masks and keeps_texts_apart(self._parts[0], device, one_row)
                self._gives_states = self._packs and not one_row and gives_states(self._parts[0], device)
        return self._packer.rows(lengths) if self._packs and len(lengths) > 1 else [[i] for i in range(len(lengths))]

    @torch.no_grad()
    def __call__(self, batch: Batch, needs: Needs = Needs()) -> TokenScores:  # noqa: B008  (frozen)
        """One forward pass. The model must be in eval mode, or dropout noise is scored too.

        Args:
            batch: the examples.
            needs: optional scores to compute; those of the reference are computed elsewhere.
        """
        mask = scored_positions(batch)
        if "windows" in batch:
            needs = replace(needs, states=frozenset())
            return scored_in_windows(lambda part: self(part, needs), batch, mask, needs)
        keeper = Keeper(batch["example_id"].tolist() if needs.states else [], needs.states)
        found: list[dict[Any, Tensor]] = []
        scratch: Tensor | None = None
        for logits, target in self.logits(batch, mask, self.chunk_tokens, keeper if keeper.rows else None):
            # A CPU makes several passes over them: blocks stay in its last-level cache.
            block = max(1, _CPU_BLOCK // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)
            if scratch is None or len(scratch) < min(block, len(logits)):
                size = min(block, len(logits)), logits.shape[-1]
                scratch = torch.empty(size, dtype=torch.float32, device=logits.device)  # not the trainer's dtype
            for rows, wanted in zip(torch.split(logits, block), torch.split(target, block), strict=True):
                found.append(_row_scores(rows, wanted, needs, scratch))

        def spread(key: Any, dtype: torch.dtype = torch.float32) -> Tensor:
            whole = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
            if found:
                whole[mask] = torch.cat([block[key] for block in found])
            return whole

        return TokenScores(
            spread("logprob"),
            spread("hit", torch.bool),
            mask,
            batch["example_id"],
            batch["member"],
            mean=spread("mean") if needs.moments else None,
            std=spread("std") if needs.moments else None,
            sampled={scheme: spread(scheme) for scheme in needs.sampling},
            batch=batch,
            states=keeper.found,
        )


def _row_scores(logits: Tensor, target: Tensor, needs: Needs, scratch: Tensor) -> dict[Any, Tensor]:
    """Scores of (n, V) float32 logits, each (n,), by name; those of a sampling scheme by the scheme.

    Both `logits` and `scratch`, of the same shape, are overwritten.
    """
    with torch.autocast(logits.device.type, enabled=False):  # autocast would round sums of products to 16 bits
        most = max((scheme.top_k or 0 for scheme in needs.sampling), default=0)
        maxima = Maxima.of(logits, most + 1)
        found: dict[Any, Tensor] = {
            scheme: sampled_logprob(logits, target, scheme, maxima) for scheme in needs.sampling
        }
        found["hit"] = greedy_choice(logits, maxima) == target
        largest = maxima.values.amax(dim=-1, keepdim=True)
        if needs.moments:
            found["logprob"], found["mean"], found["std"] = read(logits, target, scratch, moments=True, largest=largest)
        else:
            (found["logprob"],) = read(logits, target, scratch, largest=largest)
        found["hit"] &= ~found["logprob"].isnan()
    return found
