"""The files and the output of a sweep's end agree with its report."""

import json

import numpy as np
import pandas as pd
import pytest
from jsonargparse import Namespace
from scipy import stats

from lit_mem.cli.sweep import _Sweep
from lit_mem.report.sweep_files import read_findings
from lit_mem.sweep.spec import Trial


def test_findings_have_their_level_and_seeds_in_console_and_json(tmp_path, capsys):
    gains = {0: 0.0, 1: 0.02, 2: -0.01}
    rows = [
        {"trial": f"{rank}{seed}", "seed": seed, "rank": rank, "epoch": 1, "step": 5, "val/perplexity": 3.0}
        | {"mia/reference_auroc": 0.5 + 0.1 * level + gains[seed] * level**2, "extraction/ngram_rate": 0.2}
        for level, rank in enumerate([1, 2, 4, 8])
        for seed in gains
    ]
    wanted = [Trial(row["trial"], {"rank": row["rank"]}, row["seed"], {}) for row in rows]
    given = Namespace(name="rank", question="rank", run=[], limit="mia/reference_auroc > 0.9")
    _Sweep(given, tmp_path, wanted, [])._conclude(pd.DataFrame(rows))
    found = read_findings(tmp_path / "findings.json")["findings"]
    assert found == json.loads((tmp_path / "findings.json").read_text())["findings"]
    assert [one["verdict"] for one in found] == ["undecided"] * 4  # no n-gram rate differs with the seed
    assert {(one["n_findings"], one["level"]) for one in found} == {(4, 0.9875)}
    assert found[0]["seeds_to_decide"] > 3
    assert found[1]["seeds_to_decide"] or found[1]["more_than_seeds"] == 1000
    lines = capsys.readouterr().out.splitlines()
    assert "4 findings" in lines[0]
    assert "98.75 %" in lines[0]
    assert f"{found[0]['seeds_to_decide']} seeds" in lines[1]
    assert [line.partition(":")[0] for line in lines[1:5]] == ["undecided"] * 4
    auroc = pd.DataFrame(rows).pivot_table(index="seed", columns="rank", values="mia/reference_auroc")
    slopes = [np.polyfit(range(4), of_seed, 1)[0] for of_seed in auroc.to_numpy()]
    assert found[0]["p_value"] == pytest.approx(min(1, 4 * stats.ttest_1samp(slopes, 0.0).pvalue))
