"""Fixtures of the conformance suite: synthetic scores, models with known outputs, and probers."""

from types import SimpleNamespace

import pytest
import torch

from lit_mem.adapters.lora import LoRA
from lit_mem.data.encoding import Encoded
from lit_mem.scoring.scorer import TokenScorer
from lit_mem.types import Record, TokenScores


@pytest.fixture(scope="session")
def scores_of():
    """Scores from given values, one list per example: `scores_of([[-1.0, -2.0], [-3.0]], reference=..., hit=...)`.

    Position 0 is not scored, and short examples are padded, on the right or on the left.
    """

    def make(rows, texts=None, member=None, left=False, width=None, sampled=None, **numbers):
        width = width or 1 + max(map(len, rows))

        def placed(values, dtype=torch.float32):
            table = torch.zeros(len(rows), width, dtype=dtype)
            for i, row in enumerate(values):
                start = width - len(row) if left else 1
                table[i, start : start + len(row)] = torch.tensor(row, dtype=dtype)
            return table

        kinds = {"hit": torch.bool, "reference_hit": torch.bool}
        given = {name: placed(values, kinds.get(name, torch.float32)) for name, values in numbers.items()}
        mask = placed([[True] * len(row) for row in rows], torch.bool)
        given.setdefault("hit", torch.zeros_like(mask))
        ids = torch.arange(len(rows))
        return TokenScores(
            logprob=placed(rows),
            mask=mask,
            example_id=ids,
            member=ids % 2 == 0 if member is None else torch.tensor(member),
            sampled={scheme: placed(values) for scheme, values in (sampled or {}).items()},
            batch=None if texts is None else {"records": [Record(text) for text in texts]},
            **given,
        )

    return make


@pytest.fixture
def all_scores_of(scores_of):
    """Examples with all inputs of the non-probing attacks: six tokens by default."""

    def make(likelier=(0.0, 0.0), n_tokens=6, **options):
        logprob = [-3.0, -1.0, -2.5, -5.0, -2.0, -4.0][:n_tokens]
        reference = [-3.5, -0.5, -3.0, -4.0, -3.0, -3.5][:n_tokens]
        rows = len(likelier)
        return scores_of(
            [[value + more for value in logprob] for more in likelier],
            reference=[reference] * rows,
            hit=[[False, True, False, False, True, False][:n_tokens]] * rows,
            mean=[[-2.0, -1.5, -2.0, -3.0, -2.5, -2.0][:n_tokens]] * rows,
            std=[[1.0, 0.5, 1.5, 2.0, 1.0, 1.0][:n_tokens]] * rows,
            texts=["the patient recovered"] * rows,
            **options,
        )

    return make


class FixedLogits(torch.nn.Module):
    """Returns the same logits at every position."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, input_ids, use_cache=False):
        return SimpleNamespace(logits=self.logits.expand(*input_ids.shape, -1))


@pytest.fixture
def fixed_logits():
    return FixedLogits


@pytest.fixture
def batch_of():
    """One text as a batch, with every token labelled, the first included."""

    def make(ids):
        ids = torch.as_tensor(ids)[None]
        return {
            "input_ids": ids, "labels": ids.clone(), "example_id": torch.tensor([0]), "member": torch.tensor([True]),
        }  # fmt: skip

    return make


@pytest.fixture
def example_of(tokenizer):
    """A text as encoded by the data: BOS in front, the text scored, no end token, a record."""

    def make(text, example_id=0, member=True, length=None):
        ids = torch.tensor(tokenizer(text)["input_ids"][:length])
        labels = ids.clone()
        labels[0] = -100
        return Encoded(ids, labels, example_id, member, record=Record(text))

    return make


@pytest.fixture
def alone():
    """Log-probability of each token after the first, for one text alone, in float64 from the model's logits."""

    @torch.no_grad()
    def logprobs(model, ids):
        ids = torch.as_tensor(ids)
        logits = model(input_ids=ids[None]).logits[0, :-1].double()
        return logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]

    return logprobs


@pytest.fixture
def loss_from():
    """The model's own loss of the ids from `start` on, for one text alone."""

    @torch.no_grad()
    def loss(model, ids, start=1):
        ids = torch.as_tensor(ids)[None]
        labels = ids.clone()
        labels[:, :start] = -100
        return model(input_ids=ids, labels=labels).loss.item()

    return loss


@pytest.fixture
def tuned(base):
    """A LoRA model that differs from its base, in eval mode."""
    model = LoRA(rank=4, dropout=0.1).wrap(base).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


class Asked:
    """A prober over one model and a few texts; records its calls."""

    def __init__(self, tokenizer, language_model, examples=(), references=None):
        self.tokenizer, self.language_model = tokenizer, language_model
        self.examples, self.references = list(examples), references or {}
        self.asked = []

    def score(self, batch):
        self.asked.append(batch)
        return TokenScorer(self.language_model)(batch)

    def texts(self, member):
        return {e.example_id: e.input_ids for e in self.examples if e.member == member}

    def population(self, names):
        return lambda batch: [self.references[name] for name in names]


@pytest.fixture
def prober():
    return Asked
