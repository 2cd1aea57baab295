"""Work on many rows: batches pass a bar unchanged, and garbage is collected again afterwards."""

import gc

import pytest

from lit_mem.data.progress import shown_progress, uncollected


def test_batches_pass_and_no_bar_is_shown_without_a_terminal(capsys):
    batches = [[1, 2, 3], [4, 5, 6], [7]]
    assert list(shown_progress(iter(batches), 3, 7, "Tokenizing")) == batches
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("before", [True, False])
def test_garbage_is_collected_again_as_before(before):
    enabled = gc.isenabled()
    (gc.enable if before else gc.disable)()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled() == before
        with pytest.raises(ValueError, match="x"), uncollected():
            raise ValueError("x")
        assert gc.isenabled() == before
    finally:
        (gc.enable if enabled else gc.disable)()
