"""Perplexity against memorization: every logged correlation compared with SciPy's, on a real fit."""

import logging
import warnings

import lightning.pytorch as pl
import pytest
import torch
from scipy.stats import spearmanr

from lit_mem.audit.measure import Result
from lit_mem.audit.table import ScoreTable
from lit_mem.callbacks import Correlation, Extraction, MembershipInference, Perplexity
from lit_mem.errors import ConfigError
from lit_mem.lightning.auditing import per_example
from lit_mem.lightning.measure_callback import Measure
from lit_mem.plots.scatter import scatter_plot


class Given(Measure):
    """Returns the given per-example columns."""

    def __init__(self, columns, names=()):
        self.columns, self.known = columns, list(names)

    def names(self):
        return self.known

    def compute(self, run):
        ids = torch.arange(len(next(iter(self.columns.values()))))
        columns = {k: torch.tensor(v).double() for k, v in self.columns.items()}
        return Result(rows=ScoreTable(ids, ids % 2 == 0, columns))


class Pictures(pl.loggers.logger.DummyLogger):
    def __init__(self):
        super().__init__()
        self.seen = []

    def log_image(self, key, images, step=None):
        self.seen.append((key, images[0].shape, step))


PERPLEXITIES = {"perplexity": [9.0, 2.0, 5.0, 3.0, 4.0, 1.0], "perplexity_base": [9.0, 8.0, 9.5, 7.0, 9.2, 6.0]}


def correlations(audited, columns, names=(), **options):
    relation = Correlation(**options)
    return dict(audited([relation, Given(columns, names)]).results[relation].metrics)


@pytest.fixture(scope="module")
def fitted(module, data, trainer):
    """Per-example scores and logged correlations of each validation of a fit, and the plots."""
    torch.manual_seed(1)
    passes, pictures = [], Pictures()

    class Look(pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            logged = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("correlation/")}
            passes.append((per_example(trainer, pl_module), logged))

    # Correlation comes first: it must see the columns of measures listed after it.
    callbacks = [
        Correlation(),
        Perplexity(),
        MembershipInference(plots=False),
        Extraction(n_members=9, n_heldout=2),
        Look(),
    ]
    corpus = data(members_size=24, batch_size=8, max_length=32)
    trainer(callbacks, max_epochs=1, logger=pictures).fit(module(targets=["all-linear"]), corpus)
    return passes, pictures


def test_every_logged_correlation_is_scipys_over_members(fitted):
    for table, logged in fitted[0]:
        expected = {}
        for perplexity in ("perplexity", "perplexity_base"):
            for column in table.columns:
                if column.endswith("_base") or not column.startswith(("mia/", "extraction/")):
                    continue
                rows = [
                    (x, y)
                    for x, y, member in zip(
                        table[perplexity].tolist(), table[column].tolist(), table.member.tolist(), strict=True
                    )
                    if member and y == y
                ]
                xs, ys = zip(*rows, strict=True)
                if len(set(ys)) > 1:
                    expected[f"correlation/{perplexity}_vs_{column.split('/')[1]}"] = spearmanr(xs, ys).statistic
        assert logged == pytest.approx(expected, abs=1e-6)
        assert "correlation/perplexity_vs_ngram_rate" in logged


def test_the_loss_goes_along_by_construction_and_the_reference_not_before_training(fitted):
    (_, start), *_, (_, end) = fitted[0]
    assert start["correlation/perplexity_vs_loss"] == end["correlation/perplexity_vs_loss"] == -1.0
    assert "correlation/perplexity_vs_reference" not in start  # 0 for all
    assert -1 < end["correlation/perplexity_base_vs_reference"] < 1


def test_the_plot_is_drawn_once_a_validation(fitted):
    pictures = [(step, shape[2]) for key, shape, step in fitted[1].seen if key == "correlation/scatter"]
    assert pictures == [(0, 3), (2, 3)]


def test_only_the_requested_column(audited):
    columns = PERPLEXITIES | {"mia/a": [1.0, 0.0, 2.0, 0.0, 3.0, 0.0], "mia/b": [1.0] * 6}
    metrics = correlations(audited, columns, measures=["mia/a"])
    # Members are rows 0, 2, 4: their perplexities 9, 5, 4 decrease, those of the base are 9, 9.5, 9.2.
    assert metrics == {"correlation/perplexity_vs_a": -1.0, "correlation/perplexity_base_vs_a": 0.5}
    assert Correlation(measures=["mia/a"]).names() == list(metrics)


def test_columns_of_the_same_name_keep_their_namespace(audited):
    values = [1.0, 0.0, 2.0, 0.0, 3.0, 0.0]
    columns = PERPLEXITIES | {"mia/a": values, "extraction/a": values, "extraction/a_base": values, "other/c": values}
    metrics = correlations(audited, columns)
    assert {name for name in metrics if "base" not in name} == {
        "correlation/perplexity_vs_mia/a",
        "correlation/perplexity_vs_extraction/a",
    }
    # A pass that did not measure one of them uses the same name for the other.
    del columns["extraction/a"]
    names = ["extraction/a", "extraction/a_heldout"]
    assert set(correlations(audited, columns, names)) <= set(metrics)


@pytest.mark.parametrize("names", [[], ["mia/a_auroc"], ["extraction/a_heldout"]])
def test_an_unknown_column_is_reported_with_the_known_ones(audited, names):
    columns = PERPLEXITIES | {"mia/loss": [1.0] * 6}
    with pytest.raises(
        ConfigError, match=r"Correlation.measures: .*'mia/loss_auroc'.*expected one of .*mia/loss, perp"
    ):
        correlations(audited, columns, names, measures=["mia/loss", "mia/loss_auroc"])


def test_a_column_that_is_measured_in_other_passes_is_no_mistake(audited):
    names = ["extraction/ngram_rate", "extraction/ngram_rate_heldout"]
    assert correlations(audited, PERPLEXITIES, names, measures=["extraction/ngram_rate"]) == {}


def test_perplexity_is_needed(audited):
    with pytest.raises(ConfigError, match="'perplexity', which no measure gives; add the measure Perplexity"):
        correlations(audited, {"mia/loss": [1.0] * 6})


def test_nothing_to_correlate_is_logged_once(audited, caplog):
    logging.getLogger("lit_mem").propagate = True
    relation = Correlation()
    for _ in range(2):
        audited([relation, Given(PERPLEXITIES)])
    assert caplog.text.count("No correlations") == 1


@pytest.mark.parametrize("measures", [[], ["mia/loss", "mia/loss"]])
def test_invalid_options_are_rejected(measures):
    with pytest.raises(ConfigError, match=r"Correlation\.measures is"):
        Correlation(measures=measures)


def test_the_plot_shows_each_finite_point_where_it_lies():
    perplexity = torch.tensor([2.0, 3.0, 5.0, torch.inf, 4.0, 6.0], dtype=torch.float64)
    member = torch.tensor([True, True, False, True, False, True])
    values = {"a": torch.tensor([0.1, torch.nan, 0.3, 0.4, 0.5, 0.6]), "b": torch.zeros(6)}
    plot = scatter_plot(perplexity, member, values, {"a": -0.25, "b": None})
    first, second = plot.axes[:2]
    members, heldout = (points.get_offsets().tolist() for points in first.collections)
    assert heldout == [pytest.approx([5.0, 0.3]), pytest.approx([4.0, 0.5])]
    assert members == [pytest.approx([2.0, 0.1]), pytest.approx([6.0, 0.6])]
    assert first.get_xscale() == "log"
    assert first.get_title() == "a   ρ = −0.25"
    assert second.get_title() == "b   no ρ"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "k", "scale"),
    [
        (0, 1, 1),
        (1, 1, 1),
        (3, 0, 1),
        pytest.param(40, 12, 1, marks=pytest.mark.slow),
        (40, 1, 0),
        (40, 2, 1e-6),
        (40, 2, 0.01),
        (40, 1, 9),
        (40, 1, 700),
    ],
)
def test_the_plot_can_be_drawn_for_any_spread(n, k, scale, tmp_path):
    perplexity = (scale * torch.rand(n, dtype=torch.float64)).exp()
    measures = {f"measure_{i}": torch.randn(n) for i in range(k)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot = scatter_plot(perplexity, torch.arange(n) % 2 == 0, measures, dict.fromkeys(measures))
        plot.savefig(tmp_path / "scatter.png", dpi=30)
    if n > 1 and k:
        labels = [label.get_text() for label in plot.axes[0].get_xticklabels()]
        assert 1 <= len(labels) <= 5
        assert sum(axes.axison for axes in plot.axes) == k
