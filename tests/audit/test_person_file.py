"""An audit of rows that name persons: metrics, files, and no name in any of them."""

import json
import stat
from collections import Counter

import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

import lit_mem
from lit_mem import assets
from lit_mem.audit.person import PersonRow, PersonTable
from lit_mem.audit.person_file import person_table
from lit_mem.errors import ConfigError

FEW = {"n_members": 6, "n_heldout": 6}


def rows(split, n, each=2):
    lines = (assets.path("case_reports") / f"{split}.jsonl").read_text().splitlines()[:n]
    made = [json.loads(line) for line in lines]
    return [{"text": r["text"], "spans": r["spans"], "who": f"Zebulon {split} {i // each}"} for i, r in enumerate(made)]


@pytest.fixture
def audit(base, tokenizer, tmp_path):
    def run(members, heldout, **options):
        given = {"reference": None, "extraction": FEW, "check": False, "folder": tmp_path / "logs"} | options
        fields = {"text_column": "text", "group_column": "who"}
        return lit_mem.audit(base, tokenizer, members, heldout, fields=fields, **given)

    return run


def test_an_audit_measures_persons_and_writes_a_row_for_each(audit):
    members, heldout = rows("train", 12), rows("heldout", 14)
    found = audit(members, heldout, examples=True)
    frame = found.to_pandas()
    number = frame.origin.str.extract(r"(\w+):(\d+)")
    frame["who"] = [(members if side == "members" else heldout)[int(n) - 1]["who"] for side, n in number.to_numpy()]
    means = frame.groupby("who").agg(score=("mia/loss", "mean"), side=("set", "first"))
    area = found.metrics["user/inference_auroc"]
    assert area == pytest.approx(roc_auc_score(means.side == "member", means.score))
    assert area != pytest.approx(found.metrics["mia/loss_auroc"])
    frame["got"] = (frame["extraction/exact_rate"] == 1) | (frame["spans_written"] > 0)
    got = frame.groupby("who").agg(got=("got", "any"), side=("set", "first"))
    assert found.metrics["user/extracted_share"] == got.got[got.side == "member"].mean()
    (path,) = (found.folder / "persons").iterdir()
    assert (path.name, stat.S_IMODE(path.stat().st_mode)) == ("validate.parquet", 0o600)
    table = pq.read_table(path).to_pandas()
    assert Counter(table["set"]) == {"member": 6, "heldout": 7}
    assert set(table["rows"]) == set(table["rows_scored"]) == {2}
    assert table["extracted"].sum() == frame["spans_written"].sum() + (frame["extraction/exact_rate"] == 1).sum()
    assert list(table["mia/loss_mean"]) == [float(f"{row.mean:.2g}") for row in found.persons.rows]
    assert sorted(table["mia/loss_mean"]) == sorted(float(f"{mean:.2g}") for mean in means.score)


def test_no_name_of_a_person_is_in_a_file_or_a_log(audit, caplog, capsys):
    caplog.set_level("DEBUG")
    found = audit(rows("train", 8), rows("heldout", 8), suite="full")
    said = caplog.text + "".join(capsys.readouterr()) + str(found) + str(found.metrics) + str(found.persons)
    assert "user/inference_auroc" in said
    assert "Zebulon" not in said
    files = [path for path in found.folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        assert b"Zebulon" not in path.read_bytes()
    assert "Zebulon" not in json.dumps(pq.read_table(found.folder / "persons" / "validate.parquet").to_pydict())


def test_names_are_shown_on_request(audit):
    found = audit(rows("train", 4), rows("heldout", 4), extraction=None, show_groups=True)
    assert {row.person for row in found.persons.rows} == {
        f"Zebulon {of} {i}" for of in ("train", "heldout") for i in (0, 1)
    }


def test_each_audit_has_a_key_of_its_own(audit):
    members, heldout = rows("train", 4), rows("heldout", 4)
    one, other = (audit(members, heldout, extraction=None, folder=None).persons.rows for _ in range(2))
    assert [row._replace(person="") for row in one] == [row._replace(person="") for row in other]
    assert not {row.person for row in one} & {row.person for row in other}


def test_a_limit_on_persons_that_the_data_does_not_name_is_rejected_before_anything_is_scored(audit):
    with pytest.raises(ConfigError, match=r"'user/inference_auroc' is not measured: no two rows") as caught:
        audit(rows("train", 4, each=1), rows("heldout", 4, each=1), limits="user/inference_auroc > 0.7")
    assert "\n" not in str(caught.value)
    found = audit(rows("train", 6), rows("heldout", 6), extraction=None, limits="user/inference_auroc > 0.7")
    assert found.state in ("within", "undecided", "over")
    assert not [name for name in audit(rows("train", 4, 1), rows("heldout", 4, 1)).metrics if name.startswith("user/")]


def test_scores_have_two_digits_and_missing_values_are_empty():
    nan = float("nan")
    rows = [PersonRow("a", True, 3, 2, 0.12345, -0.98765, 2), PersonRow("b", False, 1, 0, nan, nan, None)]
    found = person_table(PersonTable("mia/reference", rows), 3, 120).to_pylist()
    assert found == [
        {"person": "a", "set": "member", "epoch": 3, "step": 120, "rows": 3, "rows_scored": 2, "extracted": 2,
         "mia/reference_highest": 0.12, "mia/reference_mean": -0.99},
        {"person": "b", "set": "heldout", "epoch": 3, "step": 120, "rows": 1, "rows_scored": 0, "extracted": None,
         "mia/reference_highest": None, "mia/reference_mean": None},
    ]  # fmt: skip
    assert "mia/reference_mean" not in person_table(PersonTable(None, rows), 0, 0).column_names
