"""Bins of attributes, measurements and votes."""

from collections import Counter

import numpy as np

from biqa.data.bins import QuantileBins


def test_quintiles_hold_a_fifth_of_the_training_values_each() -> None:
    values = np.random.default_rng(0).lognormal(size=1000)
    bins = QuantileBins({"x": values.tolist(), "constant": [3.0] * 5})
    assert Counter(bins.strengths({"x": value, "constant": 3.0})["x"] for value in values) == dict.fromkeys(range(5), 200)
    assert bins.strengths({"x": -1e9, "constant": 9}) == {"x": 0}
    assert bins.strengths({"x": 1e9, "constant": 9}) == {"x": 4}


def test_ties_stay_together_in_the_lowest_bin() -> None:
    bins = QuantileBins({"x": [0.0] * 70 + [1.0] * 30})
    assert bins.strengths({"x": 0.0}) == {"x": 0}
    assert bins.strengths({"x": 1.0})["x"] > 0


def test_no_means_no_votes_and_nothing_else() -> None:
    few_without = [0.0] * 5 + [0.1, 0.2, 0.3, 0.4] * 10  # the lowest fifth reaches into those with votes
    most_without = [0.0] * 70 + [0.1] * 10 + [0.2] * 10 + [0.4] * 5 + [0.6] * 5  # three of four quintiles lie at 0
    for votes in (few_without, most_without):
        bins = QuantileBins({"visible_blur": votes})
        said = {vote: bins.strengths({"visible_blur": vote})["visible_blur"] for vote in sorted(set(votes))}
        assert [vote for vote, strength in said.items() if strength == 0] == [0.0]
        assert list(said.values()) == sorted(said.values())
        assert said[min(vote for vote in votes if vote)] == 1
        assert said[max(votes)] == 4
    assert QuantileBins({"visible_blur": most_without}).strengths({"visible_blur": 1e-6}) == {"visible_blur": 1}
    assert QuantileBins({"visible_blur": [0.0] * 9}).strengths({"visible_blur": 0.5}) == {}


def test_votes_are_binned_by_the_quartiles_of_the_images_that_have_some() -> None:
    votes = [0.0] * 100 + [vote / 100 for vote in range(1, 101)]
    bins = QuantileBins({"colour_defect": votes})
    assert Counter(bins.strengths({"colour_defect": vote})["colour_defect"] for vote in votes) == {0: 100, 1: 25, 2: 25, 3: 25, 4: 25}
