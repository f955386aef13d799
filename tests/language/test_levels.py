"""Levels, scores and soft targets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from biqa.language.levels import LEVELS, WEIGHTS, level_index, level_of, score_of, soft_target


@pytest.mark.parametrize(
    ("q", "level"),
    [(0.0, "bad"), (0.19, "bad"), (0.2, "poor"), (0.39, "poor"), (0.4, "fair"), (0.6, "good"), (0.8, "excellent"), (1.0, "excellent")],
)
def test_five_equal_bins_each_with_its_lower_end(q: float, level: str) -> None:
    assert level_of(q) == level
    assert LEVELS[level_index(q)] == level


@pytest.mark.parametrize("q", [-0.01, 1.01, float("nan")])
def test_a_quality_outside_the_scale_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        level_index(q)
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        soft_target(q)


def test_a_score_is_the_mean_of_the_distribution() -> None:
    assert score_of(np.eye(5)).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert score_of(np.full((2, 3, 5), 0.2)).shape == (2, 3)
    assert score_of(np.full(5, 0.2)) == pytest.approx(0.5)


@given(q=st.floats(0, 1), std=st.none() | st.floats(0, 2))
def test_a_soft_target_is_a_distribution_with_mean_q(q: float, std: float | None) -> None:
    target = soft_target(q, std)
    assert target.shape == (5,)
    assert (target >= 0).all()
    assert target.sum() == pytest.approx(1.0)
    assert target @ WEIGHTS == pytest.approx(q, abs=1e-6)


def test_without_a_deviation_the_two_nearest_levels_share() -> None:
    assert soft_target(0.6) == pytest.approx([0, 0, 0.6, 0.4, 0])
    assert soft_target(0.25) == pytest.approx([0, 1, 0, 0, 0])


def test_in_the_middle_the_normal_density_needs_no_correction() -> None:
    expected = np.diff(norm.cdf([-np.inf, 0.2, 0.4, 0.6, 0.8, np.inf], loc=0.5, scale=0.2))
    assert soft_target(0.5, 0.2) == pytest.approx(expected, abs=1e-9)


def test_a_wider_opinion_gives_a_broader_target() -> None:
    assert soft_target(0.5, 0.3).max() < soft_target(0.5, 0.1).max()
