import numpy as np
import pytest

from biqa.evaluation.bootstrap import (
    Estimate,
    bootstrap,
    bootstrap_mean,
    bootstrap_means,
    difference,
    draw_counts,
    drawn_in_blocks,
    draws_of_each,
    estimate,
    paired_difference,
)
from biqa.evaluation.correlation import plcc, srcc


def names(number: int) -> list[str]:
    return [f"image{position}" for position in range(number)]


def test_each_resample_draws_as_many_images_as_there_are():
    counts = draw_counts("koniq", names(40), 300, 0)
    assert counts.shape == (300, 40)
    assert (counts.sum(axis=1) == 40).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=0.25)
    assert counts.var() == pytest.approx(1 - 1 / 40, abs=0.05)  # binomial(40, 1/40)


def test_draws_depend_on_the_images_and_the_seed_alone():
    counts = draw_counts("koniq", names(30), 20, 3)
    assert (counts == draw_counts("koniq", names(30), 20, 3)).all()
    assert (counts != draw_counts("koniq", names(30), 20, 4)).any()
    assert (counts != draw_counts("spaq", names(30), 20, 3)).any()
    assert (counts != draw_counts("koniq", names(30)[::-1], 20, 3)).any()


def test_the_interval_holds_the_truth_95_times_in_100():
    rng = np.random.default_rng(0)
    truth, trials, images = 0.7, 300, 120
    counts = draw_counts("", names(images), 300, 0)
    held = 0
    for _ in range(trials):
        q = rng.normal(size=images)
        score = truth * q + np.sqrt(1 - truth**2) * rng.normal(size=images)
        found = bootstrap(lambda drawn, score=score, q=q: plcc(score, q, drawn), counts)
        held += found.low <= truth <= found.high
    assert 0.90 <= held / trials <= 0.98


def test_interval_of_a_mean_is_close_to_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, size=400)
    found = bootstrap_mean(values, resamples=2000, seed=0)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert found == bootstrap_mean(values, resamples=2000, seed=0)


def test_means_of_several_figures_share_their_resamples():
    """So the mean of a difference, image by image, has the interval of the paired bootstrap."""
    rng = np.random.default_rng(3)
    first, second = rng.random(50), rng.random(50)
    found = bootstrap_means({"first": first, "second": second, "over": first - second}, resamples=300, seed=0)
    assert found["first"] == bootstrap_mean(first, resamples=300, seed=0)
    counts = draw_counts("", [str(position) for position in range(50)], 300, 0)
    paired = paired_difference(mean_of(first), mean_of(second), counts)
    over = found["over"]
    assert (over.value, over.low, over.high) == pytest.approx((paired.value, paired.low, paired.high), abs=1e-12)


def test_images_without_a_figure_are_left_out_of_its_mean():
    """Two columns, the second of which only the last image has: a resample without that image has the mean of the first column alone."""
    values = np.array([[1.0, np.nan], [2.0, np.nan], [6.0, 5.0]])
    counts = draw_counts("", ["0", "1", "2"], 100, 0)
    found = bootstrap_means({"both": values, "first": values[:, 0], "second": values[:, 1]}, resamples=100, seed=0)
    assert found["second"].value == 5
    assert found["first"].value == 3
    assert found["both"].value == 4
    first = counts @ values[:, 0] / 3
    low, high = np.percentile(np.where(counts[:, 2] > 0, (first + 5) / 2, first), (2.5, 97.5))
    assert (found["both"].low, found["both"].high) == pytest.approx((low, high))
    assert np.isnan(bootstrap_means({"": [np.nan, np.nan]}, resamples=10, seed=0)[""].value)


def mean_of(values):
    return lambda counts: np.asarray(np.mean(values) if counts is None else counts @ values / len(values))


def two_systems(images: int = 200):
    """Two scores of the same images whose errors go together; the first has the smaller error."""
    rng = np.random.default_rng(2)
    q, shared = rng.random(images), rng.normal(0, 0.25, images)
    return q, q + shared + rng.normal(0, 0.03, images), q + shared + rng.normal(0, 0.15, images)


def test_pairing_narrows_the_interval_of_correlated_systems():
    q, first, second = two_systems()
    counts = draw_counts("", names(len(q)), 1000, 0)
    paired = paired_difference(lambda drawn: srcc(first, q, drawn), lambda drawn: srcc(second, q, drawn), counts)
    apart = srcc(first, q, counts) - srcc(second, q, draw_counts("other", names(len(q)), 1000, 0))
    unpaired = estimate(paired.value, apart)
    assert paired.value == srcc(first, q) - srcc(second, q)
    assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)
    assert paired.low > 0
    assert paired.p < 0.05


def test_a_system_does_not_differ_from_itself():
    q, first, _ = two_systems()
    found = paired_difference(lambda drawn: srcc(first, q, drawn), lambda drawn: srcc(first, q, drawn), draw_counts("", names(len(q)), 50, 0))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_smallest_p_that_the_resamples_can_give():
    assert difference(1.0, np.full(999, 1.0)).p == 2 / 1000
    assert difference(0.1, np.array([-1.0, 1.0, 1.0, 1.0])).p == pytest.approx(2 * 2 / 5)


def test_undefined_resamples_are_left_out_and_an_undefined_value_stays_so():
    assert estimate(0.5, np.array([0.4, np.nan, 0.4])) == Estimate(0.5, 0.4, 0.4)
    unknown = difference(np.nan, np.array([0.4, 0.5]))
    assert np.isnan([unknown.value, unknown.low, unknown.high, unknown.p]).all()


def test_one_image_has_no_interval():
    found = bootstrap_means({"one": [0.4, np.nan, np.nan], "two": [0.4, 0.6, np.nan]}, resamples=50, seed=0)
    assert found["one"].value == 0.4
    assert np.isnan([found["one"].low, found["one"].high]).all()
    assert (found["two"].value, found["two"].low, found["two"].high) == pytest.approx((0.5, 0.4, 0.6))


def test_resamples_in_blocks_are_those_drawn_at_once(monkeypatch):
    whole = draw_counts("koniq", names(13), 50, 3)
    drawn = {"first": lambda counts: counts[:, 0], "most": lambda counts: counts.max(axis=1)}
    for at_once in (1, 13, 40, 13 * 49, 10**6):
        monkeypatch.setattr("biqa.evaluation.bootstrap.AT_ONCE", at_once)
        blocks = list(drawn_in_blocks("koniq", names(13), 50, 3))
        assert max(map(len, blocks)) == min(50, max(1, at_once // 13))
        np.testing.assert_array_equal(np.concatenate(blocks), whole)
        found = draws_of_each(drawn, "koniq", names(13), 50, 3)
        np.testing.assert_array_equal(found["first"], whole[:, 0])
        np.testing.assert_array_equal(found["most"], whole.max(axis=1))
