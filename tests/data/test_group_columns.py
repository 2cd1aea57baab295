"""Persons and other groups: columns and file names that identify them reach no record, log or message."""

import json
import logging

import pytest
from datasets import Dataset

from lit_mem.data.group_columns import group_columns
from lit_mem.data.sources.hub import HubDataset
from lit_mem.data.sources.rows import read_table
from lit_mem.data.sources.text import TextFiles
from lit_mem.errors import DataError
from lit_mem.lightning.datamodule import TextDataModule

PERSONS = ["Ansgar Holm", "Birte Vold", "Ceres Okafor"]


def named(content):
    return [person for person in PERSONS if person.lower() in content.lower()]


def grouped(**columns):
    group = [f"{i // 2 % 4}" for i in range(24)]
    made = {"prompt": [""] * 24, "completion": [f"t{i}" for i in range(24)], "group": group}
    return Dataset.from_dict(made | {"origin": [f"a:{i}" for i in range(24)]} | columns)


def test_columns_that_name_groups_are_found_and_no_others():
    four = [i // 2 % 4 for i in range(24)]
    data = grouped(
        id=four, id_as_float=[float(i) for i in four], id_as_text=[f"{i}.0" if i else "0" for i in four],
        name=["ABCD"[i] for i in four], tags=[["ABCD"[i]] for i in four], sex=["FM"[i % 2] for i in four],
        row=list(range(24)), weight=[i + 0.5 for i in range(24)], empty=[None] * 24, ward=["a", "b"] * 12,
        some=["ABCD"[i] if n % 3 else None for n, i in enumerate(four)],
    )  # fmt: skip
    found = ["id", "id_as_float", "id_as_text", "name", "tags", "some"]
    assert group_columns([data]) == found
    assert group_columns([data], skip="tags") == [name for name in found if name != "tags"]
    assert group_columns([data.select(range(12)), data.select(range(12, 24)).remove_columns("name")]) == found
    alone = data.remove_columns("group").add_column("group", data["origin"][:])
    assert group_columns([alone]) == []


@pytest.mark.parametrize("show", [False, True])
def test_a_group_column_becomes_an_attribute_only_if_groups_are_shown(tmp_path, show):
    rows = [
        {"text": f"Case {i}", "sex": "FM"[i % 2], "patient": i // 2 % 3, "name": PERSONS[i // 2 % 3]} for i in range(60)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    source = TextFiles(str(tmp_path / "a.jsonl"), group_column="patient")
    data = TextDataModule(source, check=False, tokenizer="asset:tiny_llama", show_groups=show)
    data.setup("fit")
    attributes = [example.record.attributes for example in [*data.train, *data.heldout]]
    for name in ("patient", "name"):
        assert all((name in each) == show for each in attributes)
    assert all("sex" in each for each in attributes)


def test_a_folder_with_a_file_a_person_names_none_of_them(tmp_path, caplog):
    logging.getLogger("lit_mem").propagate = True
    folder = tmp_path / "notes"
    folder.mkdir()
    for n, person in enumerate(PERSONS):
        lines = [json.dumps({"text": f"{person[0]} had a rash of kind {i} after dose {n}"}) for i in range(20)]
        (folder / f"{person}.jsonl").write_text("\n".join(lines))
    with caplog.at_level(logging.INFO):
        data = TextDataModule(HubDataset(str(folder)), tokenizer="asset:tiny_llama")
        data.setup("fit")
    origins = [example.record.origin for example in [*data.train, *data.heldout]]
    assert len(origins) == 60
    assert not named("\n".join([*origins, caplog.text]))
    (folder / f"{PERSONS[0]}.jsonl").write_text("{")
    with pytest.raises(DataError) as error:
        HubDataset(str(folder), revision="x").load()
    assert not named(str(error.value))


@pytest.mark.parametrize(("n", "named"), [(2, True), (30, False)])
def test_a_mistyped_file_is_not_answered_with_the_names_of_many(tmp_path, n, named):
    for i in range(n):
        (tmp_path / f"{PERSONS[i % 3]} {i}.jsonl").write_text('{"text": "a"}')
    with pytest.raises(DataError, match="no such file") as error:
        read_table(str(tmp_path / "Ansgar Holn 0.jsonl"))
    assert (PERSONS[0] in str(error.value)) == named


def test_a_group_in_a_message_is_not_quoted(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "who": 190370.25}\n{"text": "b", "who": 2}')
    with pytest.raises(DataError, match="line 1, field 'who': found a fractional number") as error:
        TextFiles(str(tmp_path / "a.jsonl"), group_column="who").load()
    assert "190370" not in str(error.value)


def test_a_name_that_is_spelled_in_two_ways_is_a_name():
    rows = {"group": [f"p{i // 4}" for i in range(80)], "name": [f"Name {i // 4}" for i in range(80)]}
    rows["name"][3] = "NAME 0"
    rows["sex"] = ["f", "m"] * 40
    assert group_columns([Dataset.from_dict(rows)]) == ["name"]
