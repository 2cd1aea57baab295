"""Con-ReCaLL compared with the model's own loss, and its direction on a model that uses context."""

import math

import pytest
import torch

from lit_mem.attacks.con_recall import ConReCaLL
from lit_mem.attacks.recall import ReCaLL
from lit_mem.errors import ConfigError
from lit_mem.types import TokenScores

BOS = 1


@pytest.fixture
def prober(make_prober, tokenizer, tuned, small):
    return make_prober(tokenizer, tuned, small)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_it_is_made_of_three_losses_of_the_model_itself(weight, prober, tuned, small, scored, loss_of):
    attack, scores = ConReCaLL(shots=1, weight=weight), scored(prober, small)
    attack.prepare(prober)
    values = attack(scores).tolist()
    left_out = [e for e, value in zip(small, values, strict=True) if math.isnan(value)]
    assert sorted(e.member for e in left_out) == [False, True]
    prefix = {e.member: e.input_ids.tolist()[:-1] for e in left_out}
    for example, value in zip(small, values, strict=True):
        if math.isnan(value):
            continue
        text = example.input_ids.tolist()[1:-1]
        out, member = (loss_of(tuned, prefix[key] + text, len(prefix[key])) for key in (False, True))
        assert value == pytest.approx((out - weight * member) / loss_of(tuned, [BOS, *text], 1), abs=5e-5)


def test_with_no_weight_it_is_recall_but_for_the_members_of_the_prefix(prober, small, scored):
    scores = scored(prober, small)
    con, plain = ConReCaLL(shots=2, weight=0.0), ReCaLL(shots=2)
    con.prepare(prober)
    plain.prepare(prober)
    judged = ~con(scores).isnan()
    assert judged.sum() == 4
    torch.testing.assert_close(con(scores)[judged], plain(scores)[judged], rtol=0, atol=0)


class InContext:
    """A synthetic model: a text is likely, unless a text of the other set precedes it. Prefixes have ids."""

    def __init__(self, prober):
        self.__dict__.update(vars(prober))
        self.texts = prober.texts
        self.heldout = {int(e.input_ids[1]) for e in prober.examples if not e.member}

    def score(self, batch):
        mask = batch["labels"] != -100
        foreign = torch.tensor([int(ids[1]) in self.heldout for ids in batch["input_ids"]]) == batch["member"]
        logprob = torch.where(mask, torch.where(foreign, -3.0, -2.0)[:, None], 0.0)
        return TokenScores(logprob, mask, mask, batch["example_id"], batch["member"])


def test_a_member_that_held_out_texts_disturb_scores_above_others(prober, small, scored, encode, texts):
    prober.examples = [encode(f"{'MN'[i % 2]} {text}", i, i % 2 == 0, length=12) for i, text in enumerate(texts[:8])]
    attack = ConReCaLL(shots=1)
    attack.prepare(InContext(prober))
    values = attack(scored(prober, prober.examples))
    member = torch.tensor([e.member for e in prober.examples])
    judged = ~values.isnan()
    assert (values[judged & member] > 0).all()
    assert (values[judged & ~member] < 0).all()


def test_both_prefixes_keep_as_many_shots(prober, tuned, encode, texts, scored):
    """Short members and long held-out texts: fewer of the latter fit, so fewer of the former are used."""
    members = [encode(text, i, True, length=6) for i, text in enumerate(texts[:5])]
    others = [encode(text, 10 + i, False, length=20) for i, text in enumerate(texts[5:10])]
    prober.examples = [*members, *others]
    tuned.config.max_position_embeddings = 1 + 3 * 19
    attack = ConReCaLL(shots=3)
    attack.prepare(prober)
    left_out = attack(scored(prober, prober.examples)).isnan()
    assert left_out[:5].sum() == left_out[5:].sum() == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 0}, r"ConReCaLL\.shots is 0"),
        ({"seed": -1}, r"ConReCaLL\.seed is -1"),
        ({"weight": -0.1}, r"ConReCaLL\.weight is -0\.1"),
        ({"weight": math.inf}, r"ConReCaLL\.weight is inf"),
        ({"weight": math.nan}, r"ConReCaLL\.weight is nan"),
    ],
)
def test_invalid_options_are_rejected(options, message):
    with pytest.raises(ConfigError, match=message):
        ConReCaLL(**options)


def test_too_few_members_are_rejected(prober, small):
    prober.examples = [e for e in small if not e.member or e.example_id == 0]
    with pytest.raises(ConfigError, match=r"ConReCaLL\.shots is 2, but there are 1 members"):
        ConReCaLL(shots=2).prepare(prober)
