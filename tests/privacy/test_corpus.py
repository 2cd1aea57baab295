"""The digest of a training set: the same for the same texts and key, and useless without the key."""

import hashlib
import hmac
import os
import stat

import pytest

from lit_mem.files.places import cache_folder
from lit_mem.privacy.corpus import KEY, corpus_digest, new_salt, salted_digest, same_corpus

TEXTS = ["one", "two", "three"]


def test_it_is_of_the_texts_as_a_multiset():
    found = corpus_digest(TEXTS)
    assert same_corpus(found, corpus_digest(reversed(TEXTS))) is True
    for other in (["one", "two"], [*TEXTS, "three"], ["one", "twothree"], ["one", "two", "Three"], []):
        assert same_corpus(found, corpus_digest(other)) is False


def test_digests_under_other_keys_cannot_be_compared(monkeypatch, tmp_path):
    """Knowing all texts but not the key does not allow to confirm one by its digest."""
    first = corpus_digest(TEXTS)
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "of_another_user"))
    second = corpus_digest(TEXTS)
    assert first.partition(":")[0] != second.partition(":")[0]
    assert first.partition(":")[2] != second.partition(":")[2]
    assert same_corpus(first, second) is None
    assert same_corpus(first, "") is None
    assert same_corpus("", "") is None


@pytest.mark.parametrize("mask", [0o022, 0o000])
def test_the_key_is_its_owners_alone(mask):
    before = os.umask(mask)
    try:
        corpus_digest(TEXTS)
    finally:
        os.umask(before)
    path = cache_folder(KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.iterdir()] == [KEY]


def test_of_two_processes_that_make_a_key_both_get_the_first(monkeypatch):
    path, link = cache_folder(KEY), os.link
    firsts = []

    def late(source, target):
        if not firsts:
            firsts.append(b"f" * 32)
            path.write_bytes(firsts[0])
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    assert corpus_digest(TEXTS) == corpus_digest(TEXTS)
    assert path.read_bytes() == b"f" * 32


def test_a_damaged_key_is_named():
    corpus_digest(TEXTS)
    cache_folder(KEY).write_bytes(b"short")
    with pytest.raises(OSError, match="found 5 bytes, expected 32") as error:
        corpus_digest(TEXTS)
    assert error.value.filename == str(cache_folder(KEY))


def test_a_salted_digest_is_hmac_of_salt_and_texts_in_any_order():
    salted = new_salt()
    found = salted_digest(TEXTS, salted.salt)
    hashes = sorted(hashlib.sha256(text.encode()).digest() for text in TEXTS)
    key = cache_folder(KEY).read_bytes()
    message = f"set of texts {salted.salt}".encode() + b"".join(hashes)
    assert found == hmac.new(key, message, hashlib.sha256).hexdigest()
    assert salted_digest(reversed(TEXTS), salted.salt) == found
    assert salted_digest(TEXTS[:2], salted.salt) != found


def test_two_runs_on_the_same_texts_cannot_be_compared_by_their_salted_digests():
    """Not even whether a text was removed in between, which an unsalted digest would show."""
    one, other = new_salt(), new_salt()
    assert one.key == other.key
    assert one.salt != other.salt
    assert salted_digest(TEXTS, one.salt) != salted_digest(TEXTS, other.salt)


def test_a_salted_digest_under_another_key_is_another(monkeypatch, tmp_path):
    """So that knowing all texts and the salt, but not the key, does not allow to confirm one."""
    salted = new_salt()
    first = salted_digest(TEXTS, salted.salt)
    monkeypatch.setenv("LIT_MEM_CACHE", str(tmp_path / "of_another_user"))
    assert salted_digest(TEXTS, salted.salt) != first
    assert new_salt().key != salted.key
