"""A threshold on n-gram hits, the early warning, ends training."""

import lightning.pytorch as pl

from lit_mem.lightning.memorization import Memorization


class Kept(pl.Callback):
    """The metrics of each validation."""

    def __init__(self):
        self.rows = []

    def on_validation_end(self, trainer, pl_module):
        self.rows.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def test_ngram_hits_stop_a_run(module, data, trainer):
    kept = Kept()
    t = trainer([Memorization("quick", stop=["extraction/ngram_hits > 0.3"]), kept], max_epochs=6)
    corpus = data(train_size=8, heldout_size=8, batch_size=2, max_length=40)
    t.fit(module(rank=8, dropout=0.0, targets=["all-linear"], lr=5e-3), corpus)
    start, last = kept.rows[0], kept.rows[-1]
    assert start["extraction/ngram_hits"] == start["extraction/ngram_hits_base"]
    assert [row["extraction/ngram_hits"] > 0.3 for row in kept.rows] == [False] * (len(kept.rows) - 1) + [True]
    assert t.current_epoch == len(kept.rows) - 1 < 6
    assert last["extraction/ngram_hits"] > last["extraction/ngram_hits_heldout"]
