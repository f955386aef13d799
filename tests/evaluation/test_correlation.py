import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from scipy.optimize import curve_fit
from torchmetrics.functional.regression import kendall_rank_corrcoef, pearson_corrcoef, spearman_corrcoef

from biqa.evaluation.correlation import krcc, logistic4, plcc, plcc_logistic4, rmse, srcc

CORRELATIONS = (srcc, krcc, plcc, plcc_logistic4)


def logistic(x, b1, b2, b3, b4):
    return b2 + (b1 - b2) / (1 + np.exp(-(x - b3) / abs(b4)))


def tied_data(seed: int, images: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Scores and qualities that follow each other, with ties in both."""
    rng = np.random.default_rng(seed)
    q = np.round(rng.random(images), 1)
    return np.round(np.clip(q + rng.normal(0, 0.3, images), 0, 1), 1), q


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scipy_and_torchmetrics_with_ties(seed):
    score, q = tied_data(seed)
    x, y = torch.tensor(score), torch.tensor(q)
    assert srcc(score, q) == pytest.approx(stats.spearmanr(score, q)[0], abs=1e-12)
    assert krcc(score, q) == pytest.approx(stats.kendalltau(score, q)[0], abs=1e-12)
    assert plcc(score, q) == pytest.approx(stats.pearsonr(score, q)[0], abs=1e-12)
    assert srcc(score, q) == pytest.approx(float(spearman_corrcoef(x, y)), abs=1e-6)
    assert krcc(score, q) == pytest.approx(float(kendall_rank_corrcoef(x, y)), abs=1e-6)  # pyright: ignore[reportArgumentType]
    assert plcc(score, q) == pytest.approx(float(pearson_corrcoef(x, y)), abs=1e-6)


@pytest.mark.parametrize("metric", [srcc, krcc, plcc, rmse])
def test_counts_are_the_same_as_repeating_the_images(metric):
    score, q = tied_data(0)
    rng = np.random.default_rng(1)
    counts = rng.multinomial(len(q), np.full(len(q), 1 / len(q)), size=4)
    repeated = [np.repeat(np.arange(len(q)), row) for row in counts]
    assert metric(score, q, counts) == pytest.approx([metric(score[rows], q[rows]) for rows in repeated], abs=1e-12)


def test_each_resample_of_the_logistic_has_its_own_fit():
    rng = np.random.default_rng(2)
    q = rng.random(200)
    score = logistic(q, 0.9, 0.1, 0.5, 0.15) + rng.normal(0, 0.1, 200)
    counts = np.random.default_rng(1).multinomial(len(q), np.full(len(q), 1 / len(q)), size=4)
    repeated = [np.repeat(np.arange(len(q)), row) for row in counts]
    assert plcc_logistic4(score, q, counts) == pytest.approx([plcc_logistic4(score[rows], q[rows]) for rows in repeated], abs=1e-6)


def test_pairs_in_several_blocks_give_kendalls_tau():
    rng = np.random.default_rng(0)
    q = rng.random(1100)
    score = q + rng.normal(0, 0.2, 1100)
    assert krcc(score, q) == pytest.approx(stats.kendalltau(score, q)[0], abs=1e-12)


@pytest.mark.parametrize("metric", CORRELATIONS)
@pytest.mark.parametrize(("score", "q"), [([0.1] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]), ([0.1, 0.2, 0.3], [0.7] * 3), ([0.5], [0.1]), ([], [])])
def test_correlation_with_a_constant_is_undefined(metric, score, q):
    assert np.isnan(metric(score, q))


def test_constant_within_one_resample_only():
    values = srcc([0.1, 0.1, 0.9], [0.2, 0.5, 0.7], [[1, 2, 0], [1, 1, 1]])
    assert np.isnan(values[0])
    assert values[1] == pytest.approx(stats.spearmanr([0.1, 0.1, 0.9], [0.2, 0.5, 0.7])[0])


def test_rmse_in_closed_form():
    assert rmse([0.0, 0.5, 1.0], [0.3, 0.5, 0.6]) == pytest.approx(np.sqrt((0.09 + 0.16) / 3))


def test_logistic_recovers_the_parameters_that_made_the_data():
    score = np.linspace(0, 1, 60)
    assert logistic4(score, logistic(score, 0.9, 0.1, 0.4, 0.08)) == pytest.approx([0.9, 0.1, 0.4, 0.08], abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_logistic_is_the_least_squares_fit(seed):
    rng = np.random.default_rng(seed)
    score = rng.random(200)
    q = np.clip(logistic(score, 0.95, 0.1, 0.5, 0.1) + rng.normal(0, 0.1, 200), 0, 1)
    fitted, _ = curve_fit(logistic, score, q, p0=[q.max(), q.min(), score.mean(), 0.5], maxfev=100_000)
    assert logistic4(score, q) == pytest.approx(fitted, abs=1e-3)
    assert plcc_logistic4(score, q) == pytest.approx(stats.pearsonr(logistic(score, *fitted), q)[0], abs=1e-6)


def test_logistic_straightens_a_curve():
    score = np.linspace(0, 1, 50)
    q = logistic(score, 1, 0, 0.5, 0.05)
    assert plcc_logistic4(score, q) == pytest.approx(1, abs=1e-9)
    assert plcc(score, q) < 0.95


def test_logistic_keeps_the_sign_of_a_score_that_goes_against_quality():
    score, q = tied_data(0)
    assert plcc_logistic4(1 - score, q) == pytest.approx(-float(plcc_logistic4(score, q)), abs=1e-6)


def test_logistic_without_an_optimum_stops_at_the_edge_of_the_search():
    line = np.linspace(0, 1, 30)
    assert plcc_logistic4(line, line) == pytest.approx(1, abs=1e-5)
    step = np.array([0.0] * 10 + [1.0] * 10)
    parameters = logistic4(step, step)
    assert np.isfinite(parameters).all()
    assert logistic(step, *parameters) == pytest.approx(step, abs=1e-6)


def test_logistic_of_a_constant_has_no_parameters():
    assert np.isnan(logistic4([0.5] * 4, [0.1, 0.2, 0.3, 0.4])).all()


scores = arrays(np.float64, 12, elements=st.integers(0, 8).map(lambda tenths: tenths / 8))


@settings(max_examples=50, deadline=None)
@given(scores, scores)
def test_invariances(score, q):
    bent = score**3  # strictly increasing and exact in its order
    for metric in (srcc, krcc):
        assert metric(bent, q) == pytest.approx(float(metric(score, q)), nan_ok=True, abs=1e-12)
        assert metric(-score, q) == pytest.approx(-float(metric(score, q)), nan_ok=True, abs=1e-12)
    assert plcc(2 * score + 1, q) == pytest.approx(float(plcc(score, q)), nan_ok=True, abs=1e-9)
    values = np.array([metric(score, q) for metric in CORRELATIONS])
    assert np.isnan(values).all() or (np.abs(values) <= 1).all()
