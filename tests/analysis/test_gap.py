import numpy as np
import pandas as pd
import pytest
from scipy import stats

from biqa.analysis.gap import gap_summary, worst_gaps


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    q = rng.random(60)
    return pd.DataFrame(
        {
            "image": [f"{at:03d}" for at in range(60)],
            "q": q,
            "score_image": q + rng.normal(0, 0.1, 60),
            "score_text": q + rng.normal(0, 0.5, 60),
            "score_answer": rng.random(60),
        }
    )


def test_correlations_are_scipys_and_gaps_their_differences(rows):
    found = gap_summary("d", rows.sample(frac=1, random_state=1), resamples=200, seed=0)
    for name, correlation in (("srcc", stats.spearmanr), ("plcc", stats.pearsonr)):
        image = correlation(rows["score_image"], rows["q"]).statistic
        assert found[f"{name}_image"]["value"] == pytest.approx(image)
        for text in ("text", "answer"):
            alone = correlation(rows[f"score_{text}"], rows["q"]).statistic
            assert found[f"{name}_{text}"]["value"] == pytest.approx(alone)
            assert found[f"{name}_gap_{text}"]["value"] == pytest.approx(image - alone)
            assert found[f"{name}_gap_{text}"]["low"] < image - alone < found[f"{name}_gap_{text}"]["high"]
    assert found["srcc_gap_answer"]["p"] < 0.02


def test_a_model_that_sees_no_picture_has_no_gap(rows):
    same = rows.assign(score_text=rows["score_image"], score_answer=rows["score_image"])
    found = gap_summary("d", same, resamples=50, seed=0)
    assert found["srcc_gap_text"] == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_the_worst_come_first(rows):
    worst = worst_gaps(rows, 5)
    gap = (rows["score_image"] - rows["score_answer"]).abs().sort_values(ascending=False)
    assert worst["gap"].tolist() == gap.head(5).tolist()
