"""Persons of given texts under a trainer; the trainer's own rows have none."""

import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from lit_mem.audit.measures import Slices
from lit_mem.errors import ConfigError
from lit_mem.hf import MemorizationCallback

pytestmark = pytest.mark.slow


def rows(texts, name):
    return [{"text": text, "who": f"{name} {i // 2}"} for i, text in enumerate(texts)]


def test_given_rows_name_persons(trainer, member_texts, heldout_texts):
    options = {"extraction": None, "members_size": 11, "check": False, "fields": {"group_column": "who"}}
    callback = MemorizationCallback(rows(member_texts, "a"), rows(heldout_texts, "b"), **options)
    made = trainer(callback)
    made.train()
    run = callback.live._run
    table, records = run.session.audit.result.rows, run.records
    frame = pd.DataFrame({"who": [records[i].group for i in table.example_id.tolist()], "member": table.member.numpy()})
    frame["score"] = table["mia/reference"].numpy()
    means = frame.groupby("who").mean()
    area = roc_auc_score(means.member == 1, means.score)
    assert callback.live.metrics["user/inference_auroc"] == pytest.approx(area)
    assert made.state.log_history[-2]["user/inference_auroc"] == pytest.approx(area)  # the last row is from training
    tables = {path.stem: pq.read_table(path).to_pandas() for path in (run.files.folder / "persons").iterdir()}
    assert set(tables) == {"start", "epoch_0001_step_000004"}
    last = tables["epoch_0001_step_000004"]
    assert set(last["person"]) == set(tables["start"]["person"])
    assert set(last["rows"]) == {2}  # though 11 of 16 members are scored
    assert last["rows_scored"][last["set"] == "member"].sum() == 11


@pytest.mark.parametrize("shown", [False, True])
def test_names_are_shown_only_on_request(trainer, member_texts, heldout_texts, shown):
    members = [{"text": text, "who": ("Ann", "Bob")[i % 2]} for i, text in enumerate(member_texts)]
    heldout = [{"text": text, "who": ("Eve", "Bob")[i == 0]} for i, text in enumerate(heldout_texts)]
    options = {"fields": {"group_column": "who"}, "extraction": None, "check": False, "show_groups": shown}
    callback = MemorizationCallback(members, heldout, measures=[Slices(min_size=2)], **options)
    trainer(callback).evaluate()
    persons = callback.live._run.session.audit.result.persons.rows
    assert ({row.person for row in persons} == {"Ann", "Bob", "Eve"}) == shown
    assert any("/Ann/" in name for name in callback.live.metrics) == shown


@pytest.mark.slow
def test_of_the_trainers_own_rows_no_person_is_known(trainer):
    callback = MemorizationCallback(suite="standard", extraction=None, check=False)
    made = trainer(callback)
    made.evaluate()
    assert callback.live.metrics
    assert not [name for name in callback.live.metrics if name.startswith("user/")]
    with pytest.raises(ConfigError, match=r"'user/inference_auroc' is not measured"):
        trainer(MemorizationCallback(stop="user/inference_auroc > 0.7", check=False)).train()
