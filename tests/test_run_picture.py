"""The plot of a run in the README, by its script."""

import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from lit_mem.report.history import History, Validation

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SIZE = (1320, 960)
VALIDATIONS = 4


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("run_picture", ROOT / "docs" / "run_picture.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def history(*names):
    """Metrics that rise by 0.1 per epoch from 0.5 on; the second is missing once."""
    found = [
        Validation(epoch, epoch, {name: 0.5 + 0.1 * epoch for i, name in enumerate(names) if (i, epoch) != (1, 2)})
        for epoch in range(VALIDATIONS)
    ]
    return History(found, set(names))


EVERY = (
    "memorization/perplexity_members", "val/perplexity", "mia/reference_auroc", "mia/reference_auroc_low",
    "mia/reference_auroc_high", "mia/loss_auroc", "mia/zlib_auroc", "extraction/ngram_rate",
    "extraction/ngram_rate_heldout", "extraction/ngram_rate_base", "extraction/exact_rate",
)  # fmt: skip
COPIES = [f"slice/duplicates/{value}/exact_rate" for value in ("0", "1", "2_or_more")]
CANARIES = ["canary/extraction_rate", "canary/exposure_mean", *(f"canary/exposure_mean_x{n}" for n in (16, 1, 4))]


def lines_of(axes):
    """Label -> points of each line over the epochs."""
    return {line.get_label(): line.get_ydata().tolist() for line in axes.lines if len(line.get_xdata()) == VALIDATIONS}


def test_each_panel_has_its_metrics_and_the_limits_on_them(script):
    limits = {"mia/reference_auroc": 0.7, "extraction/exact_rate": 0.05, "elsewhere": 1.0}
    drawn = script.picture(history(*EVERY, *COPIES, *CANARIES), limits)
    perplexity, attacks, words, whole = map(lines_of, drawn.axes)
    assert perplexity["members"] == pytest.approx([0.5, 0.6, 0.7, 0.8])
    assert perplexity["held-out texts"] == pytest.approx([0.5, 0.6, float("nan"), 0.8], nan_ok=True)
    assert len(attacks) == 3
    assert len(drawn.axes[1].collections) == 1  # the interval
    assert [line.get_ydata()[0] for line in drawn.axes[1].lines if line.get_label() == "limit (0.7)"] == [0.7]
    assert len(words) == 3
    assert len(whole) == 5
    assert [line.get_label() for line in drawn.axes[3].lines if "limit" in line.get_label()] == ["limit (0.05)"]
    assert all(axes.get_title(loc="left") and axes.get_legend() for axes in drawn.axes)


def test_without_copies_the_last_panel_is_of_canaries_in_the_order_of_their_copies(script):
    drawn = script.picture(history(*EVERY, *CANARIES), {})
    assert list(lines_of(drawn.axes[3])) == ["all canaries", "1-fold", "4-fold", "16-fold"]


def test_without_canaries_either_the_last_panel_is_of_members_and_held_out_texts(script):
    drawn = script.picture(history(*EVERY, "extraction/exact_rate_heldout"), {})
    assert list(lines_of(drawn.axes[3])) == ["members", "held-out texts"]


def test_a_run_becomes_a_light_picture(script, quickstart_run, tmp_path):
    assert script.main([str(quickstart_run.version), str(tmp_path / "run.png")]) == 0
    with Image.open(tmp_path / "run.png") as picture:
        assert (picture.format, picture.size) == ("PNG", SIZE)
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert len(colours) > 5
    assert (tmp_path / "run.png").stat().st_size < 120_000


def test_the_picture_of_the_readme_is_one_of_these():
    path = ROOT / "docs" / "tensorboard.png"
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", SIZE)
    assert path.stat().st_size < 120_000


def test_a_folder_without_a_run_is_rejected(script, tmp_path, capsys):
    with pytest.raises(SystemExit):
        script.main([str(tmp_path), str(tmp_path / "run.png")])
    assert "has no memorization.jsonl; expected a run's log folder" in capsys.readouterr().err
