"""Regressions of scores and levels on described features: least squares, ordered logit, predictions held out (METHOD.md section 6.1)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biqa.evaluation.bootstrap import Estimate, bootstrap, draw_counts
from biqa.evaluation.correlation import srcc
from biqa.evaluation.described import Design, Features, LinearModel

Floats = NDArray[np.float64]

CONSTANT = 1e-9
"""Range of scores, on their scale 0..1, within which they count as one score: rounding of the sums in a model."""
ITERATIONS = 500
"""Of the ordered logit."""
SEPARATED = 1e-4
"""Least gain of an image along a direction, all within -1..1, along which no other loses: far above the tolerance 1e-7 of the linear program."""


class NoFit(ValueError):
    """A model cannot be fitted to these images; the text says why."""


@dataclass(frozen=True)
class Effect:
    """What one column does to the score, all other columns held."""

    coefficient: Estimate
    """Standardised, with its 95 % interval."""
    p: float
    """Two-sided, of no effect."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the summary: coefficient, p."""
        return {"coefficient": self.coefficient.as_dict(), "p": self.p}


@dataclass(frozen=True)
class LinearEffect(Effect):
    """An effect of the linear regression."""

    slope: Estimate
    """The same effect in what is read off an image: change of the score (0..1) a step of strength."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the summary: coefficient, p, slope."""
        return {**super().as_dict(), "slope": self.slope.as_dict()}


def linear_effects(design: Design, score: Floats) -> tuple[dict[str, LinearEffect], float]:
    """Ordinary least squares of the scores, with intervals that hold where the spread differs between images (HC3, MacKinnon and White 1985).

    Intervals and p-values are those of Student's t with images - columns - 1 degrees of freedom, which few images need (our choice). Columns and
    score are standardised: a coefficient says by how many of its standard deviations the score moves with one of the column's. The interval takes
    the two standard deviations as given.

    Args:
        design: of the images, values [images, columns].
        score: shape [images]; where all are one score, every figure is NaN.

    Returns:
        Column -> effect, and R2 on these images.
    """
    from statsmodels.regression.linear_model import OLS

    if np.ptp(score) <= CONSTANT:
        unknown = Estimate(np.nan, np.nan, np.nan)
        return dict.fromkeys(design.columns, LinearEffect(unknown, np.nan, unknown)), np.nan
    if not design.columns:
        return {}, 0.0
    x, spread = _standardised(design)
    found = OLS((score - score.mean()) / score.std(), np.column_stack([np.ones(len(x)), x])).fit(cov_type="HC3", use_t=True)
    rows = np.column_stack([found.params, found.conf_int()])[1:]
    pairs = zip(design.columns, rows, score.std() / spread, found.pvalues[1:], strict=True)
    return {name: LinearEffect(_estimate(row), float(p), _estimate(row * unit)) for name, row, unit, p in pairs}, float(found.rsquared)


def ordered_logit(design: Design, levels: NDArray[np.int64]) -> dict[str, Effect]:
    """Proportional-odds model of the level (McCullagh 1980) by maximum likelihood, with Wald intervals.

    With few images these are a little short: of simulated 95 % intervals, 93.7 % held the truth with 200 images and 94.6 % with 400.

    A coefficient is the change of the log odds of a better level with one standard deviation of the column. Images without a level are left out; of
    the five levels those that were given count.

    Args:
        design: of the images, values [images, columns].
        levels: shape [images], -1 without one.

    Raises:
        NoFit: no column, fewer than two levels given; features separate the levels, so that the likelihood grows for ever; the search for its
            maximum did not converge; no standard error at the maximum.
    """
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    given, y = np.unique(levels[levels >= 0], return_inverse=True)
    x = _standardised(design)[0][levels >= 0]
    if not design.columns:
        raise NoFit("no described feature varies")
    if len(given) < 2:
        raise NoFit(f"{len(given)} of the five levels are given, at least 2 are needed")
    if np.linalg.matrix_rank(np.column_stack([np.ones(len(x)), x])) <= x.shape[1]:
        raise NoFit("the columns cannot be told apart on the images that have a level")
    if separates(x, y):
        raise NoFit("the described features separate levels (perfectly, or all but ties), so the likelihood has no maximum")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of all that they warn of, the figures below tell
        found = OrderedModel(y, x, distr="logit").fit(method="bfgs", maxiter=ITERATIONS, disp=0)
        errors = np.asarray(found.bse)
        rows = np.column_stack([found.params, found.conf_int()])[: len(design.columns)]
        p = np.asarray(found.pvalues)
    if not found.mle_retvals["converged"]:
        raise NoFit(f"the likelihood did not converge in {ITERATIONS} steps")
    if not (np.isfinite(errors) & (errors > 0)).all():
        raise NoFit("the second derivative of the likelihood is singular, so there are no standard errors")
    return {name: Effect(_estimate(row), float(value)) for name, row, value in zip(design.columns, rows, p, strict=False)}


def separates(x: Floats, y: NDArray[np.int64]) -> bool:
    """Whether an ordered logit of y on x has no maximum, because some direction of its parameters makes no image less likely and one more.

    The likelihood is log-concave (Pratt 1981), so it has a maximum unless there is such a direction (Albert and Anderson 1984): slopes b and
    thresholds t with t_{y-1} <= b x <= t_y for all images, and not equal for all. A linear program looks for it.

    Args:
        x: shape [images, columns], together with a constant of full rank.
        y: levels 0..K-1, each of which occurs, shape [images].
    """
    from scipy.optimize import linprog

    steps = np.eye(int(y.max()) + 2)[:, 1:-1]  # threshold k - 1 in row k; beyond both ends there is none
    above, below = y > 0, y < y.max()
    gains = np.concatenate([np.hstack([x[above], -steps[y[above]]]), np.hstack([-x[below], steps[y[below] + 1]])])
    found = linprog(-gains.sum(axis=0), A_ub=-gains, b_ub=np.zeros(len(gains)), bounds=(-1, 1), method="highs")
    return bool((gains @ found.x).max() > SEPARATED)


def held_out(features: Sequence[Features], score: Floats, *, folds: int, seed: int) -> tuple[Floats, Floats]:
    """Predictions of each image by ordinary least squares on the other folds, [images], and the mean score of these other folds, [images].

    The design too is made on the other folds alone. Folds are drawn from the order of the images and `seed`.
    """
    from sklearn.model_selection import KFold

    predicted, naive = np.empty(len(score)), np.empty(len(score))
    for others, held in KFold(folds, shuffle=True, random_state=seed).split(score):
        model = LinearModel.fit([features[position] for position in others], score[others])
        predicted[held] = model.predict([features[position] for position in held])
        naive[held] = score[others].mean()
    return predicted, naive


def agreement(score: Floats, predicted: Floats, naive: Floats, *, resamples: int, seed: int) -> tuple[Estimate, Estimate]:
    """R2 and SRCC of held-out predictions, all [images], over all folds together, with 95 % bootstrap intervals over images.

    R2 = 1 - sum (score - predicted)^2 / sum (score - naive)^2. The predictions stay what they are in each resample. Both are NaN where all scores
    are one.
    """
    counts = draw_counts("", [str(position) for position in range(len(score))], resamples, seed)
    if np.ptp(score) <= CONSTANT:
        return Estimate(np.nan, np.nan, np.nan), Estimate(np.nan, np.nan, np.nan)
    missed, spread = (score - predicted) ** 2, (score - naive) ** 2

    def r2(drawn: Floats | None) -> Floats:
        weight = np.ones(len(score)) if drawn is None else drawn
        whole = (weight * spread).sum(axis=-1)
        return 1 - np.divide((weight * missed).sum(axis=-1), whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)

    return bootstrap(r2, counts), bootstrap(lambda drawn: srcc(predicted, score, drawn), counts)


def _standardised(design: Design) -> tuple[Floats, Floats]:
    """Columns with mean 0 and standard deviation 1, and the standard deviations they had."""
    spread = design.values.std(axis=0)
    return (design.values - design.values.mean(axis=0)) / spread, spread


def _estimate(row: Floats) -> Estimate:
    return Estimate(*(float(figure) for figure in row))
