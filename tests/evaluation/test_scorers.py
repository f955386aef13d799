"""Scores of an answer, against their formulas on logits."""

import numpy as np
import pytest
from scipy.special import softmax

from biqa.evaluation.answers import PROBABILITIES, answers_frame
from biqa.evaluation.scorers import SCORERS, scored
from biqa.language.levels import LEVELS

LOGITS = np.random.default_rng(0).normal(size=(8, len(LEVELS)))


@pytest.fixture
def answers():
    rows = zip(softmax(LOGITS, axis=1), [*LEVELS, None, "good", "bad"], strict=True)
    return answers_frame(
        {"dataset": "x", "image": f"{row}.png", "query": 0, "level": level, "score": 0.5, "q": 0.5, **dict(zip(PROBABILITIES, p, strict=True))}
        for row, (p, level) in enumerate(rows)
    )


def test_levels_is_the_mean_on_the_scale(answers):
    assert scored(answers, "levels")["score"].to_numpy() == pytest.approx(softmax(LOGITS, axis=1) @ [0, 0.25, 0.5, 0.75, 1])


def test_good_poor_is_the_softmax_of_two_logits(answers):
    poor, good = LOGITS[:, LEVELS.index("poor")], LOGITS[:, LEVELS.index("good")]
    assert scored(answers, "good_poor")["score"].to_numpy() == pytest.approx(1 / (1 + np.exp(poor - good)))


def test_word_is_the_weight_of_the_word_and_nothing_where_there_is_none(answers):
    found = scored(answers, "word")["score"].to_numpy()
    assert found == pytest.approx([0, 0.25, 0.5, 0.75, 1, np.nan, 0.75, 0], nan_ok=True)


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_score_without_a_distribution_stays(answers, scorer):
    answers.loc[2, list(PROBABILITIES)] = np.nan
    assert scored(answers, scorer).loc[2, "score"] == 0.5
    assert list(scored(answers, scorer).columns) == list(answers.columns)
