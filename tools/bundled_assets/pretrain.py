"""Train the bundled tokenizer and pretrain the tiny LLaMA on the synthetic pretraining text.

A plain loop, so that it is obvious what the bundled weights were trained on: `pretraining_texts` and nothing else.
"""

import logging
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

logger = logging.getLogger(__name__)

VOCAB_SIZE = 2048
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")  # ids 0, 1, 2 as in LLaMA 2, and 3
BOS, EOS, PAD = 1, 2, 3
MAX_FLOAT32_BYTES = 6_000_000  # a larger model is stored in bfloat16


class Schedule(NamedTuple):
    """The pretraining schedule.

    Attributes:
        steps: optimizer steps.
        batch_size: texts per step.
        lr: peak learning rate of AdamW, after a linear warm-up over a twentieth of the steps; a
            cosine decays it to a hundredth.
        weight_decay: weight decay of the weight matrices; norms have none.
        clip: maximum norm of the gradient.
    """

    steps: int = 1400
    batch_size: int = 48
    lr: float = 4e-3
    weight_decay: float = 0.05
    clip: float = 1.0

    def factor(self, step: int) -> float:
        """Share of the peak learning rate at a step; in (0, 1].

        >>> Schedule(steps=100).factor(4), round(Schedule(steps=100).factor(99), 3)
        (1.0, 0.01)
        """
        warmup = max(1, self.steps // 20)
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, self.steps - warmup)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer.

    It splits digits individually and prepends `<s>` without appending `</s>`, both as LLaMA 2 does; any
    UTF-8 text is restored exactly by `decode(..., skip_special_tokens=True)`.
    """
    core = Tokenizer(models.BPE(unk_token=None))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A space before a number is merged with its first digit: one token less per number.
            pre_tokenizers.Split(Regex(r" ?\d"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        padding_side="right",
    )


def tiny_llama_config() -> LlamaConfig:
    """Shape of the bundled model: 1.05 million parameters."""
    return LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text between `<s>` and `</s>`."""
    return [[*ids, EOS] for ids in tokenizer(list(texts))["input_ids"]]


def pad_right(examples: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad examples to one length.

    Returns:
        input_ids: (B, T) int64, right-padded with `<pad>`. Causal attention keeps padding from
            reaching real tokens, so no mask is needed.
        labels: (B, T) int64, the same with -100 in place of padding.
    """
    longest = max(map(len, examples))
    ids = torch.tensor([[*e, *[PAD] * (longest - len(e))] for e in examples])
    real = torch.tensor([[1] * len(e) + [0] * (longest - len(e)) for e in examples]).bool()
    return ids, ids.masked_fill(~real, -100)


def batches(examples: Sequence[Sequence[int]], batch_size: int, rng: random.Random) -> Iterator[tuple[Tensor, Tensor]]:
    """Generate shuffled batches endlessly, each of texts of similar length.

    Raises:
        ValueError: there are too few examples for a batch.
    """
    if len(examples) < batch_size:
        raise ValueError(f"{len(examples)} examples do not fill a batch of {batch_size}.")
    while True:
        order = rng.sample(range(len(examples)), len(examples))
        dealt = []
        for start in range(0, len(order), 32 * batch_size):  # sort within a pool, not over all
            pool = sorted(order[start : start + 32 * batch_size], key=lambda i: len(examples[i]))
            dealt += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        rng.shuffle(dealt)
        for batch in dealt:
            yield pad_right([examples[i] for i in batch])


def pretrain(examples: Sequence[Sequence[int]], schedule: Schedule, seed: int) -> tuple[LlamaForCausalLM, list[float]]:
    """Pretrain a new tiny LLaMA.

    Args:
        examples: token ids of each text, `<s>` and `</s>` included.
        schedule: the pretraining schedule.
        seed: seed of the initial weights and the order of the texts.

    Returns:
        The model, float32 and in eval mode, and the loss of each step (nats a token).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(tiny_llama_config()).train()
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": schedule.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=schedule.lr,
        betas=(0.9, 0.98),
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
    losses = []
    stream = batches(examples, schedule.batch_size, random.Random(seed))
    for step, (input_ids, labels) in zip(range(schedule.steps), stream, strict=False):
        loss = model(input_ids=input_ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if step % 100 == 0 or step == schedule.steps - 1:
            logger.info("step %d of %d: loss %.3f", step, schedule.steps, losses[-1])
    return model.eval(), losses


@torch.no_grad()
def perplexity(model: torch.nn.Module, examples: Sequence[Sequence[int]], batch_size: int = 50) -> float:
    """Token-weighted perplexity, exp(nats / tokens); `<s>` is given, `</s>` counts.

    Raises:
        ValueError: there are no examples.
    """
    if not examples:
        raise ValueError("found no examples; expected at least one")
    nats, n_tokens = 0.0, 0
    by_length = sorted(examples, key=len)
    for start in range(0, len(by_length), batch_size):
        batch = by_length[start : start + batch_size]
        input_ids, labels = pad_right(batch)
        n_predicted = sum(map(len, batch)) - len(batch)
        nats += model(input_ids=input_ids, labels=labels).loss.item() * n_predicted
        n_tokens += n_predicted
    return math.exp(nats / n_tokens)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write model (safetensors), its config, a greedy generation config and the tokenizer."""
    n_bytes = 4 * sum(p.numel() for p in model.parameters())
    stored = model if n_bytes <= MAX_FLOAT32_BYTES else model.bfloat16()
    stored.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, max_new_tokens=96
    )
    folder.mkdir(parents=True, exist_ok=True)
    stored.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes owner-only files; a package must be readable for all
