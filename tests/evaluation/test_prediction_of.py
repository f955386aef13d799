"""One picture's rows in one result."""

import numpy as np
import pytest

from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.predictions import prediction_of
from biqa.evaluation.stability import stability


def row(query, level, score, p=(0.1, 0.1, 0.2, 0.5, 0.1)):
    return {"query": query, "description": f"text {query}", "level": level, "score": score, **dict(zip(PROBABILITIES, p, strict=True))}


def test_the_greedy_answer_is_the_result():
    found = prediction_of("a.jpg", [row(0, "good", 0.6)], described=True)
    assert (found.image, found.description, found.level, found.score) == ("a.jpg", "text 0", "good", 0.6)
    assert found.probabilities == {"bad": 0.1, "poor": 0.1, "fair": 0.2, "good": 0.5, "excellent": 0.1}
    assert (found.levels, found.instability, found.score_std) == ((), None, None)


def test_the_sampled_ones_are_its_instability():
    words, scores = ["good", "fair", "good", "bad"], [0.7, 0.5, 0.6, 0.2]
    rows = [row(0, "good", 0.6), *(row(query, *answer) for query, answer in enumerate(zip(words, scores, strict=True), 1))]
    found = prediction_of("a.jpg", rows, described=True)
    assert found.levels == tuple(words)
    assert found.instability == 50
    assert found.score_std == pytest.approx(np.std(scores, ddof=1))
    assert found.instability == stability([[3, 2, 3, 0]], [scores])["instability"]


def test_a_regression_has_no_words():
    found = prediction_of("a.jpg", [row(0, "good", 0.6)], described=False)
    assert (found.description, found.probabilities, found.score, found.level) == (None, None, 0.6, "good")


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        prediction_of("a.jpg", [row(0, "good", 0.6)], described=True).score = 1.0
