"""Facts about a run: written once, read unchanged, and a one-line error for a malformed file."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_mem.errors import DataError
from lit_mem.files.facts import FILE, Facts, SetFacts, read_facts, write_facts
from lit_mem.files.hashes import Hashed, canonical_digest, hashed, sha256_of

counts = st.none() | st.integers(0, 2**53)
words = st.text(max_size=20)
sets = st.builds(SetFacts, counts, counts, counts, st.none() | words)
files = st.builds(Hashed, words, st.integers(0, 2**53), st.text("0123456789abcdef", min_size=64, max_size=64))
by_name = st.dictionaries(words, words, max_size=3)
facts = st.builds(
    Facts, words, by_name, words, st.none() | words, by_name, counts, counts, sets, sets,
    st.sampled_from(["texts", "tokens"]), words, words, st.lists(files, max_size=2),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(facts)
def test_what_is_written_is_read(tmp_path_factory, found):
    folder = tmp_path_factory.mktemp("run")
    write_facts(folder, lambda: found)
    assert read_facts(folder) == found


def test_the_first_of_a_run_stays(tmp_path):
    assert read_facts(tmp_path) is None
    write_facts(tmp_path, lambda: Facts("first"))
    write_facts(tmp_path, lambda: pytest.fail("found again"))
    assert read_facts(tmp_path).started == "first"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("schema", 2),
        ("started", 3),
        ("trained", -1),
        ("parameters", True),
        ("members", None),
        ("members", {"rows": 1}),
        ("members", {"rows": 1.5, "tokens": None, "persons": None, "digest": None}),
        ("heldout", {"rows": 1, "tokens": None, "persons": None, "digest": 7}),
        ("fingerprint", ["light"]),
        ("digest_of", "letters"),
        ("adapter", [{"path": "a", "bytes": 1, "sha256": "x"}]),
        ("adapter", {}),
        ("base", None),
    ],
)
def test_another_form_is_named(name, value, tmp_path):
    write_facts(tmp_path, lambda: Facts("now"))
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | {name: value}))
    with pytest.raises(DataError, match=rf"facts\.json: {name}"):
        read_facts(tmp_path)
    del content[name]
    (tmp_path / FILE).write_text(json.dumps(content))
    if name != "adapter":
        with pytest.raises(DataError, match=name):
            read_facts(tmp_path)


def test_hashes_are_those_of_sha256sum(tmp_path):
    """The first is FIPS 180-2's own example."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "abc").write_bytes(b"abc")
    (tmp_path / "empty").write_bytes(b"")
    found = hashed(tmp_path, tmp_path.rglob("*"))
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    none = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert found == [("a/abc", 3, abc), ("empty", 0, none)]
    assert sha256_of(tmp_path / "a" / "abc") == abc


def test_what_leads_out_of_the_folder_is_not_hashed(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "outside").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "broken").symlink_to(tmp_path / "nowhere")
    assert hashed(folder, folder.iterdir()) == []


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(plain, st.none() | st.integers(0, 4), st.booleans())
def test_the_digest_of_values_does_not_depend_on_their_layout(value, indent, ascii_only):
    again = json.loads(json.dumps(value, indent=indent, ensure_ascii=ascii_only))
    assert canonical_digest(again) == canonical_digest(value)


@settings(max_examples=100, deadline=None)
@given(plain, plain)
def test_other_values_have_another_digest(one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical_digest(one) == canonical_digest(other)) == same


def test_no_number_that_json_lacks_has_a_digest():
    with pytest.raises(ValueError, match="JSON"):
        canonical_digest([float("nan")])
