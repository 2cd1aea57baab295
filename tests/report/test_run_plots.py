"""Which plots a page has: those of the metrics that were logged, with their numbers."""

from lit_mem.audit.glossary import explained, key_metrics
from lit_mem.report.run_plots import run_plots


def test_what_is_written_unprompted_and_ngram_hits_have_plots_of_their_own():
    leaked = ("leak/verbatim_share", 0.125), ("leak/verbatim_share_heldout", 0.0), ("extraction/ngram_hits", 0.25)
    metrics = [{name: value * epoch for name, value in leaked} for epoch in range(3)]
    report = {
        "validations": [{"epoch": n, "step": 10 * n, "metrics": one} for n, one in enumerate(metrics)],
        "attack": None,
        "verdict": {"limits": []},
        "examples": None,
    }
    plots = {plot.slug: plot for plot in run_plots(report)["more"]}
    assert set(plots) == {"leak-verbatim-share", "extraction-ngram-hits"}
    leak = plots["leak-verbatim-share"]
    assert leak.header[1:] == ["members", "held-out texts"]
    assert [float(row[1]) for row in leak.rows] == [0, 0.125, 0.25]
    names = set(metrics[0])
    assert set(key_metrics(names, None, None)) == names
    assert all(explained(name)[1] for name in names)
