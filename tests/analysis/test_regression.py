import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import logistic, t

from biqa.analysis import regression
from biqa.analysis.regression import NoFit, agreement, held_out, linear_effects, ordered_logit, separates
from biqa.evaluation.correlation import srcc
from biqa.evaluation.described import Design

ORDINAL = ("brightness", "contrast", "sharpness", "noise", "jpeg", "white_noise")
SLOPES = np.array([0.0, 0.01, 0.05, -0.04, -0.03, -0.02])
"""Planted change of the score a step of each feature."""


def described(rng, images):
    """Texts that name four attributes, and each of two distortions in three of ten; and their strengths, [images, 6]."""
    strengths = np.column_stack([rng.integers(5, size=(images, 4)), rng.integers(1, 6, size=(images, 2)) * (rng.random((images, 2)) < 0.3)])
    return [{name: int(s) for name, s in zip(ORDINAL, row, strict=True) if s or name not in ORDINAL[4:]} for row in strengths], strengths


def planted(seed, images, *, uneven=False):
    """Texts and scores from `SLOPES` and noise; uneven: noise up to eight times as strong where the text names more noise."""
    rng = np.random.default_rng(seed)
    texts, strengths = described(rng, images)
    spread = 0.08 * (0.3 + 0.5 * strengths[:, 3]) if uneven else 0.08
    return texts, 0.5 + strengths @ SLOPES + spread * rng.normal(size=images)


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize("images", [100, 300])
def test_planted_slopes_lie_within_their_intervals_in_95_of_100_draws(images, uneven):
    held = []
    for seed in range(100):
        texts, score = planted(seed, images, uneven=uneven)
        effects, _ = linear_effects(Design.fit(texts), score)
        held += [effects[name].slope.low <= slope <= effects[name].slope.high for name, slope in zip(ORDINAL, SLOPES, strict=True)]
    assert len(held) == 600
    assert 0.93 <= np.mean(held) <= 0.975


def test_intervals_of_equal_spread_would_miss_uneven_noise():
    """The slope of noise is where the spread grows: without HC3 its interval holds the truth clearly less often than 95 times in 100."""
    robust, plain = [], []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        strengths = rng.integers(5, size=120)
        score = -0.04 * strengths + 0.02 * np.abs(strengths - 2) ** 2 * rng.normal(size=120)
        found = linear_effects(Design.fit([{"noise": int(s)} for s in strengths]), score)[0]["noise"].slope
        low, high = sm.OLS(score, sm.add_constant(strengths)).fit().conf_int()[1]
        robust.append(found.low <= -0.04 <= found.high)
        plain.append(low <= -0.04 <= high)
    assert 0.92 <= np.mean(robust) <= 0.98
    assert np.mean(plain) < 0.88


def test_least_squares_and_hc3_are_the_closed_form():
    """Coefficients (X'X)^-1 X'y; variance (X'X)^-1 X' diag(e^2 / (1 - h)^2) X (X'X)^-1."""
    texts, score = planted(0, 80, uneven=True)
    design = Design.fit(texts)
    x = np.column_stack([np.ones(80), design.values])
    inverse = np.linalg.inv(x.T @ x)
    slopes = inverse @ x.T @ score
    leverage = ((x @ inverse) * x).sum(axis=1)
    residual = score - x @ slopes
    errors = np.sqrt(np.diag(inverse @ x.T @ np.diag((residual / (1 - leverage)) ** 2) @ x @ inverse))
    width = t.ppf(0.975, 80 - 7) * errors
    p = 2 * t.sf(np.abs(slopes / errors), 80 - 7)
    effects, r2 = linear_effects(design, score)
    assert tuple(effects) == ORDINAL
    for position, effect in enumerate(effects.values(), start=1):
        expected = np.array([slopes[position], slopes[position] - width[position], slopes[position] + width[position]])
        assert tuple(effect.slope.as_dict().values()) == pytest.approx(expected)
        unit = design.values[:, position - 1].std() / score.std()
        assert tuple(effect.coefficient.as_dict().values()) == pytest.approx(expected * unit)
        assert effect.p == pytest.approx(p[position])
    assert r2 == pytest.approx(1 - residual.var() / score.var())


def test_a_single_standardised_coefficient_is_the_correlation():
    rng = np.random.default_rng(1)
    strengths, score = rng.integers(5, size=100), rng.random(100)
    effects, r2 = linear_effects(Design.fit([{"sharpness": int(s)} for s in strengths]), score)
    correlation = np.corrcoef(strengths, score)[0, 1]
    assert effects["sharpness"].coefficient.value == pytest.approx(correlation)
    assert r2 == pytest.approx(correlation**2)


def test_a_score_that_is_a_sum_of_strengths_is_explained_whole():
    texts, strengths = described(np.random.default_rng(2), 100)
    effects, r2 = linear_effects(Design.fit(texts), 0.5 + strengths @ SLOPES)
    assert r2 == pytest.approx(1)
    assert [effect.slope.value for effect in effects.values()] == pytest.approx(SLOPES)
    assert effects["sharpness"].p < 1e-6


def test_one_score_for_all_is_explained_by_nothing_and_no_columns_explain_nothing():
    design = Design.fit(planted(0, 50)[0])
    effects, r2 = linear_effects(design, np.full(50, 0.3) + np.linspace(0, 1e-12, 50))
    assert np.isnan([r2, *(effect.p for effect in effects.values()), *(effect.coefficient.value for effect in effects.values())]).all()
    assert linear_effects(Design.fit([{}] * 50), np.linspace(0, 1, 50)) == ({}, 0.0)


# The ordered logit

LOG_ODDS = np.array([0.8, -0.5])
"""A step of sharpness, a step of noise."""


def graded(seed, images):
    """Texts, and levels of a proportional-odds model with `LOG_ODDS`."""
    rng = np.random.default_rng(seed)
    strengths = rng.integers(5, size=(images, 2))
    levels = np.digitize(strengths @ LOG_ODDS + logistic.rvs(size=images, random_state=rng), [-1.5, 0, 1, 2.5])
    return [{"sharpness": int(a), "noise": int(b)} for a, b in strengths], levels


def test_planted_log_odds_lie_within_their_intervals_in_95_of_100_draws():
    held = []
    for seed in range(100):
        texts, levels = graded(seed, 400)
        design = Design.fit(texts)
        effects = ordered_logit(design, levels)
        for effect, log_odds, spread in zip(effects.values(), LOG_ODDS, design.values.std(axis=0), strict=True):
            held.append(effect.coefficient.low <= log_odds * spread <= effect.coefficient.high)
    assert 0.92 <= np.mean(held) <= 0.985  # 200 intervals


def test_two_levels_are_a_logistic_regression():
    texts, levels = graded(0, 200)
    design = Design.fit(texts)
    high = (levels > 2).astype(np.int64)
    x = (design.values - design.values.mean(axis=0)) / design.values.std(axis=0)
    expected = sm.Logit(high, sm.add_constant(x)).fit(disp=0)
    found = ordered_logit(design, np.where(high, 4, 1))
    for position, effect in enumerate(found.values(), start=1):
        values = [expected.params[position], *expected.conf_int()[position]]
        assert tuple(effect.coefficient.as_dict().values()) == pytest.approx(values, abs=2e-4)
        assert effect.p == pytest.approx(expected.pvalues[position], rel=1e-2)


def test_images_without_a_level_have_no_part():
    texts, levels = graded(1, 200)
    design = Design.fit(texts)
    masked = np.where(np.arange(200) % 10 == 0, -1, levels)
    found = ordered_logit(design, masked)["sharpness"].coefficient
    rows = masked >= 0
    x = ((design.values - design.values.mean(axis=0)) / design.values.std(axis=0))[rows]
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    assert found.value == pytest.approx(OrderedModel(levels[rows], x, distr="logit").fit(method="newton", disp=0).params[0], abs=2e-4)


def test_what_keeps_the_logit_from_a_fit_is_said():
    texts, levels = graded(2, 60)
    design = Design.fit(texts)
    strengths = np.array([text["sharpness"] for text in texts])
    with pytest.raises(NoFit, match="1 of the five levels are given, at least 2 are needed"):
        ordered_logit(design, np.full(60, 3))
    with pytest.raises(NoFit, match="0 of the five levels"):
        ordered_logit(design, np.full(60, -1))
    with pytest.raises(NoFit, match="separate levels"):
        ordered_logit(design, strengths)
    with pytest.raises(NoFit, match="no described feature varies"):
        ordered_logit(Design.fit([{}] * 60), levels)
    with pytest.raises(NoFit, match="cannot be told apart on the images that have a level"):
        ordered_logit(design, np.where(strengths == 2, levels, -1))


def test_a_search_that_does_not_end_is_said(monkeypatch):
    texts, levels = graded(2, 60)
    monkeypatch.setattr(regression, "ITERATIONS", 2)
    with pytest.raises(NoFit, match="did not converge in 2 steps"):
        ordered_logit(Design.fit(texts), levels)


def test_a_maximum_without_standard_errors_is_said(monkeypatch):
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    texts, levels = graded(2, 60)
    monkeypatch.setattr(OrderedModel, "hessian", lambda self, params: np.zeros((len(params), len(params))))
    with pytest.raises(NoFit, match="the likelihood is singular, so there are no standard errors"):
        ordered_logit(Design.fit(texts), levels)


@pytest.mark.parametrize(
    ("strengths", "levels", "separate"),
    [
        ([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], True),  # every level has a strength of its own
        ([0, 0, 1, 1, 2, 2], [0, 0, 0, 1, 1, 1], True),  # but for a tie at 1: half-way still grows for ever
        ([0, 1, 0, 1, 2, 2], [0, 0, 1, 1, 1, 0], False),
        ([0, 0, 1, 2, 3, 3], [0, 1, 0, 1, 0, 1], False),
        ([0, 0, 1, 1, 2, 2], [2, 2, 1, 1, 0, 0], True),  # downward
        ([0, 1, 2, 0, 1, 2], [0, 1, 2, 2, 1, 0], False),
    ],
)
def test_separation_of_a_single_column(strengths, levels, separate):
    x = np.array(strengths, dtype=np.float64)[:, None]
    assert separates((x - x.mean()) / x.std(), np.array(levels)) == separate


def test_separation_by_one_kind_among_levels_that_overlap():
    """All images of one kind are bad: its coefficient has no bound, whatever the other column does."""
    rng = np.random.default_rng(3)
    kind, other = np.repeat([0.0, 1.0], [60, 20]), rng.normal(size=80)
    levels = np.where(kind == 1, 0, rng.integers(3, size=80))
    x = np.column_stack([kind, other])
    assert separates(x, levels)
    assert not separates(x, np.where(np.arange(80) == 79, 1, levels))
    assert not separates(x[:, 1:], levels)


def test_no_draw_of_overlapping_levels_is_taken_for_separated():
    assert not any(separates(Design.fit(texts).values - 2, levels) for texts, levels in (graded(seed, 60) for seed in range(50)))


# Cross-validation


def test_an_unrelated_score_is_not_explained_on_images_held_out():
    """R2 at most 0.05 in all of 100 draws of 200 images, and below 0 in most; on the images of the fit it is above 0 by construction."""
    found = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        texts, _ = described(rng, 200)
        score = rng.random(200)
        found.append(agreement(score, *held_out(texts, score, folds=10, seed=seed), resamples=2, seed=0)[0].value)
    assert max(found) <= 0.05
    assert np.mean(np.array(found) < 0) > 0.8


def test_a_planted_score_is_explained_as_far_as_it_goes():
    """Without noise whole; with noise up to the share of the variance that is not noise."""
    texts, strengths = described(np.random.default_rng(4), 400)
    clean = 0.5 + strengths @ SLOPES
    noisy = clean + clean.std() * np.random.default_rng(5).normal(size=400)
    r2, rank = agreement(clean, *held_out(texts, clean, folds=10, seed=0), resamples=100, seed=0)
    assert r2.value == pytest.approx(1)
    assert rank.value > 0.999  # rounding parts equal predictions
    r2, rank = agreement(noisy, *held_out(texts, noisy, folds=10, seed=0), resamples=300, seed=0)
    assert r2.low < 0.5 < r2.high
    assert rank.low < rank.value < rank.high


def test_each_fold_is_predicted_from_the_others():
    """By hand: the held-out prediction of an image does not move with its own score, nor with that of its fold."""
    from sklearn.model_selection import KFold

    texts, score = planted(6, 60)
    predicted, naive = held_out(texts, score, folds=5, seed=7)
    for others, held in KFold(5, shuffle=True, random_state=7).split(score):
        x = np.column_stack([np.ones(60), Design.fit(texts).values])
        slopes = np.linalg.lstsq(x[others], score[others])[0]
        assert predicted[held] == pytest.approx(x[held] @ slopes)
        assert naive[held] == pytest.approx(score[others].mean())


def test_the_design_is_made_without_the_images_held_out():
    """A text that does not name the scale has the mean of the training folds, and so the mean of their scores."""
    texts = [{"brightness": position % 5} for position in range(59)] + [{}]
    score = np.random.default_rng(8).random(60)
    predicted, naive = held_out(texts, score, folds=6, seed=0)
    assert predicted[-1] == pytest.approx(naive[-1])


def test_agreement_in_figures():
    score, predicted, naive = np.array([0.0, 0.5, 1.0, 0.5]), np.array([0.1, 0.5, 0.8, 0.6]), np.full(4, 0.5)
    r2, rank = agreement(score, predicted, naive, resamples=50, seed=0)
    assert r2.value == pytest.approx(1 - (0.01 + 0.04 + 0.01) / 0.5)
    assert rank.value == srcc(predicted, score)
    assert np.isfinite([r2.low, r2.high]).all()  # without the resamples of the two images in the middle, which have nothing to explain
    assert np.isnan([agreement(np.full(4, 0.5), predicted, naive, resamples=5, seed=0)[side].value for side in (0, 1)]).all()
