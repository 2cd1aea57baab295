"""What happens once for each key."""

from lit_mem.files.once import Once


def test_a_key_is_first_once_until_all_starts_anew():
    once = Once()
    assert [once.first("a"), once.first("b"), once.first("a"), once.first()] == [True, True, False, True]
    assert "a" in once
    assert "c" not in once
    once.reset()
    assert "a" not in once
    assert once.first("a")
