"""How well scores follow human opinion: SRCC, KRCC, PLCC, PLCC after a logistic fit, RMSE (METHOD.md section 5). Higher is better, except RMSE.

Every function takes `counts`, how often each image stands in a bootstrap resample, so that one call gives all resamples at once:
`counts=None` is the data as they are and gives one figure, shape (); `counts` of shape [resamples, images] gives shape [resamples].
Arguments are finite. A correlation with a constant score or a constant q is undefined: it is NaN, without a warning.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

STEPS = 30
"""Levenberg-Marquardt steps of the logistic fit on the data; a resample starts near its optimum and needs fewer."""
RESAMPLE_STEPS = 8
WIDTHS = (0.02, 10.0)
"""Least and greatest b4 of the logistic fit, in standard deviations of the scores: all but a step, all but a line."""
RESAMPLE_BLOCK = 26
"""Resamples a block in the logistic fit and where pairs are counted: what is at work stays in cache for test sets of ten thousand images."""


def srcc(score: ArrayLike, q: ArrayLike, counts: ArrayLike | None = None) -> Floats:
    """Spearman's rank correlation: Pearson's of the mid-ranks (ties share their mean rank), in -1..1.

    Args:
        score: Predicted scores, shape [images].
        q: Human quality, shape [images].
        counts: Shape [resamples, images], or None; ranks are those within the resample.
    """
    score, q, counts = _prepared(score, q, counts)
    return _pearson(_midranks(score, counts), _midranks(q, counts), counts)


def plcc(score: ArrayLike, q: ArrayLike, counts: ArrayLike | None = None) -> Floats:
    """Pearson's linear correlation of the raw scores with q, in -1..1. Shapes as in `srcc`."""
    score, q, counts = _prepared(score, q, counts)
    return _pearson(score, q, counts)


def krcc(score: ArrayLike, q: ArrayLike, counts: ArrayLike | None = None) -> Floats:
    """Kendall's tau-b, in -1..1. Shapes as in `srcc`.

    tau_b = sum_ij s_ij t_ij / sqrt(sum_ij |s_ij| sum_ij |t_ij|) over all pairs, s and t the signs of the differences in score and in q.
    Two copies of one image are a tie in both, so in a resample each pair counts `c_i c_j` times. All three sums are exact integers: pairs that differ
    are all pairs less those within ties, and concordant pairs are those that differ in both less twice the discordant ones. The time grows with
    images x log(images), not with pairs (Knight 1966).
    """
    score, q, counts = _prepared(score, q, counts)
    order = np.lexsort((q, score))
    score, q, counts = score[order], q[order], counts[..., order]
    pairs = counts.sum(axis=-1) ** 2
    tied_score, tied_q, tied_both = (_pairs_within(labels, counts) for labels in (_labels(score), _labels(q), _labels(score, q)))
    concordant = pairs - tied_score - tied_q + tied_both - 4 * _discordant(q, counts)
    return _ratio(concordant, np.sqrt((pairs - tied_score) * (pairs - tied_q)))[()]


def rmse(score: ArrayLike, q: ArrayLike, counts: ArrayLike | None = None) -> Floats:
    """Root of the mean squared difference of score and q, both on the scale 0..1; 0 is best. Shapes as in `srcc`."""
    score, q, counts = _prepared(score, q, counts)
    return np.sqrt(_mean((score - q) ** 2, counts))


def plcc_logistic4(score: ArrayLike, q: ArrayLike, counts: ArrayLike | None = None) -> Floats:
    """Pearson's correlation of f(score) with q, f the logistic of `logistic4`; each resample has a fit of its own. Shapes as in `srcc`.

    The fit itself may fall as well as rise, and would turn every wrong direction into a positive figure. So the correlation takes the sign of
    the slope of f (our choice): a score that goes against q keeps a negative sign. Where f rises this is the figure of the VQEG protocol.
    """
    score, q, counts = _prepared(score, q, counts)
    shape = _logistic_shape(score, q, counts)
    curve = _sigmoid(_standardised(score), shape)  # f is b2 + (b1 - b2) * curve: the correlation needs no more, its sign is that of b1 - b2
    return _pearson(curve, q, counts)


def logistic4(score: ArrayLike, q: ArrayLike) -> Floats:
    """Parameters (b1, b2, b3, b4) of the four-parameter logistic fitted by least squares, shape (4,).

        f(x) = b2 + (b1 - b2) / (1 + exp(-(x - b3) / |b4|))

    The mapping of VQEG's 2000 report, as DeQA-Score and DepictQA fit it before their PLCC. b1 and b2 follow from (b3, b4) by linear
    regression; (b3, b4) are found by Levenberg-Marquardt from a grid of starts, the best of which wins, so no start value is to be chosen.

    Where the data have no finite optimum (two groups of scores: a step; a straight line), the fit stops at the edge of the search: b3 within
    the range of the scores, b4 between 0.02 and 10 standard deviations of the scores. Constant score or q: four NaN.
    """
    score, q, counts = _prepared(score, q, None)
    if np.ptp(score) == 0 or np.ptp(q) == 0:
        return np.full(4, np.nan)
    shape = _logistic_shape(score, q, counts)
    level, slope = np.stack(_linear_fit(_sigmoid(_standardised(score), shape), q, counts))
    centre, width = shape[0] * score.std() + score.mean(), np.exp(shape[1]) * score.std()
    return np.array([level + slope, level, centre, width])


def _prepared(score: ArrayLike, q: ArrayLike, counts: ArrayLike | None) -> tuple[Floats, Floats, Floats]:
    score, q = np.asarray(score, dtype=np.float64), np.asarray(q, dtype=np.float64)
    return score, q, np.ones(len(q)) if counts is None else np.asarray(counts, dtype=np.float64)


def _mean(values: Floats, counts: Floats) -> Floats:
    """Mean over the images of each resample. A plain sum and not a matrix product: its order, and so its last digit, is the same everywhere."""
    return _ratio((values * counts).sum(axis=-1), counts.sum(axis=-1))


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Quotient; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(denominator), np.nan), where=np.asarray(denominator) > 0)


def _pearson(x: Floats, y: Floats, counts: Floats) -> Floats:
    centred_x, centred_y = (values - _mean(values, counts)[..., None] for values in (x, y))
    spread = np.sqrt(_mean(centred_x**2, counts) * _mean(centred_y**2, counts))
    spread = np.where(_constant(x, counts) | _constant(y, counts), 0.0, spread)  # rounding leaves a constant a tiny spread
    return np.clip(_ratio(_mean(centred_x * centred_y, counts), spread), -1.0, 1.0)


def _constant(values: Floats, counts: Floats) -> NDArray[np.bool_]:
    """Whether all images that stand in a resample have one value."""
    present = counts > 0
    return np.where(present, values, -np.inf).max(axis=-1, initial=-np.inf) <= np.where(present, values, np.inf).min(axis=-1, initial=np.inf)


def _labels(*values: Floats) -> NDArray[np.int64]:
    """Number of the group that each image shares with those that are equal in all of `values`."""
    return np.unique(np.stack(values, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _pairs_within(labels: NDArray[np.int64], counts: Floats) -> Floats:
    """Ordered pairs of images, each with itself included, that have one label; [resamples]."""
    if not len(labels):
        return counts.sum(axis=-1)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    return (np.add.reduceat(counts[..., order], starts, axis=-1) ** 2).sum(axis=-1)


def _discordant(q: Floats, counts: Floats) -> Floats:
    """Pairs of images, counted once, of which the one that comes first has the larger q; [resamples].

    Merge sort: images in blocks of 1, 2, 4, ..., and at each size the pairs across the middle of two neighbouring blocks.
    """
    columns = np.atleast_2d(counts)
    blocks = range(0, len(columns), RESAMPLE_BLOCK)
    found = [_discordant_of(q, np.ascontiguousarray(columns[start : start + RESAMPLE_BLOCK].T)) for start in blocks]
    return np.concatenate(found or [np.zeros(0)]).reshape(counts.shape[:-1])


def _discordant_of(q: Floats, counts: Floats) -> Floats:
    """The same of some resamples, [images, resamples]."""
    number, rank = len(q), _labels(q)
    order = place = np.arange(number)
    found = np.zeros(counts.shape[1])
    size = 1
    while size < number:
        block = place // (2 * size)
        # two sorted halves are merged; of equals the first half's stay first
        order = order[np.argsort((block * number + rank)[order], kind="stable")]
        later = order // size % 2 == 1
        before = np.cumsum(~later)  # images of first halves up to each place
        behind = counts[order[later]]
        passed = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts[order[~later]], axis=0)])
        end = before[np.minimum((block[later] + 1) * 2 * size, number) - 1]  # a block keeps its places
        found += np.einsum("ir,ir->r", behind, passed[end] - passed[before[later]])
        size *= 2
    return found


def _midranks(values: Floats, counts: Floats) -> Floats:
    """Rank of each image's value within each resample, ties share their mean rank; shape of counts."""
    if not len(values):
        return counts
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    tied = np.add.reduceat(counts[..., order], starts, axis=-1)  # how many copies share each distinct value
    rank = np.cumsum(tied, axis=-1) - (tied - 1) / 2
    return rank[..., np.searchsorted(values[order][starts], values)]


# The logistic fit. A shape is (b3, log b4) for scores standardised on all images.


def _standardised(score: Floats) -> Floats:
    spread = score.std() if len(score) else 0.0
    return (score - score.mean()) / spread if spread > 0 else np.zeros_like(score)


def _sigmoid(x: Floats, shape: Floats) -> Floats:
    return 0.5 + 0.5 * np.tanh((x - shape[..., 0, None]) / (2 * np.exp(shape[..., 1, None])))  # the logistic function, without overflow


def _linear_fit(curve: Floats, q: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Level and slope of the regression of q on the curve, each [resamples]; slope 0 where the curve is flat."""
    mean_curve, mean_q = _mean(curve, counts), _mean(q, counts)
    centred = curve - mean_curve[..., None]
    slope = _mean(centred * q, counts) / np.maximum(_mean(centred**2, counts), 1e-12)
    return mean_q - slope * mean_curve, slope


def _logistic_shape(score: Floats, q: Floats, counts: Floats) -> Floats:
    """Best shape on all images, or, for [resamples, images] counts, in each resample; shape counts.shape[:-1] + (2,).

    All images: a grid of starts. Resamples: from the fit on all images and from the middle of the scores, which finds the optimum of a few hundred
    continuous scores. With few images and tied scores some resamples stay short of theirs (80 images with 11 distinct scores: the ends of the
    interval moved by 0.004 at most).
    """
    x = _standardised(score)
    if not x.any():
        return np.zeros((*counts.shape[:-1], 2))
    starts = np.array([(centre, np.log(width)) for centre in np.quantile(x, (0.1, 0.3, 0.5, 0.7, 0.9)) for width in (0.1, 0.4, 1.5)])
    fitted, loss = _levenberg_marquardt(x, q, np.ones((len(starts), len(x))), starts, STEPS)
    best = fitted[np.argmin(loss)]
    if counts.ndim == 1:
        return best
    blocks = (counts[start : start + RESAMPLE_BLOCK] for start in range(0, len(counts), RESAMPLE_BLOCK))
    return np.concatenate([_refit(x, q, block, np.stack([best, np.array([0.0, np.log(0.4)])])) for block in blocks])


def _refit(x: Floats, q: Floats, counts: Floats, starts: Floats) -> Floats:
    """Best shape of each resample over a few starts, [resamples, 2]."""
    fits = [_levenberg_marquardt(x, q, counts, np.tile(start, (len(counts), 1)), RESAMPLE_STEPS) for start in starts]
    shapes, losses = np.stack([shape for shape, _ in fits]), np.stack([loss for _, loss in fits])
    return shapes[losses.argmin(axis=0), np.arange(len(counts))]


def _levenberg_marquardt(x: Floats, q: Floats, counts: Floats, shape: Floats, steps: int) -> tuple[Floats, Floats]:
    """Minimise the squared error over the shape, [fits, 2], level and slope regressed out (variable projection, Golub and Pereyra 1973).

    A step that does not lower a fit's error is not taken, and that fit's damping grows. Returns shapes and errors [fits].
    """
    edges = np.array([[x.min(), np.log(WIDTHS[0])], [x.max(), np.log(WIDTHS[1])]])
    damping = np.full(len(shape), 1e-2)
    loss, gradient, hessian = _expansion(x, q, counts, shape)
    for _ in range(steps):
        scale = np.maximum(np.diagonal(hessian, axis1=1, axis2=2), 1e-12)
        damped = hessian + (damping[:, None] * scale)[:, :, None] * np.eye(2) + 1e-15 * np.eye(2)
        candidate = np.clip(shape - np.linalg.solve(damped, gradient[..., None])[..., 0], *edges)
        new_loss, new_gradient, new_hessian = _expansion(x, q, counts, candidate)
        better = new_loss < loss
        damping = np.where(better, damping * 0.2, damping * 5)
        shape, gradient = np.where(better[:, None], candidate, shape), np.where(better[:, None], new_gradient, gradient)
        loss, hessian = np.where(better, new_loss, loss), np.where(better[:, None, None], new_hessian, hessian)
    return shape, loss


def _beside(direction: Floats, curve: Floats, counts: Floats) -> Floats:
    """What of a derivative level and slope cannot follow: the derivative less its regression on the curve (Kaufman 1975)."""
    level, slope = _linear_fit(curve, direction, counts)
    return direction - level[:, None] - slope[:, None] * curve


def _expansion(x: Floats, q: Floats, counts: Floats, shape: Floats) -> tuple[Floats, Floats, Floats]:
    """Squared error [fits], half its gradient [fits, 2] and the Gauss-Newton matrix [fits, 2, 2] at a shape."""
    curve = _sigmoid(x, shape)
    level, slope = _linear_fit(curve, q, counts)
    residual = level[:, None] + slope[:, None] * curve - q
    by_centre = -slope[:, None] * curve * (1 - curve) / np.exp(shape[:, 1, None])
    by_centre, by_width = (_beside(direction, curve, counts) for direction in (by_centre, by_centre * (x - shape[:, 0, None])))
    weighted = counts * residual
    gradient = np.stack([(weighted * by_centre).sum(axis=1), (weighted * by_width).sum(axis=1)], axis=1)
    cross = (counts * by_centre * by_width).sum(axis=1)
    diagonal = (counts * by_centre**2).sum(axis=1), (counts * by_width**2).sum(axis=1)
    hessian = np.stack([np.stack([diagonal[0], cross], axis=1), np.stack([cross, diagonal[1]], axis=1)], axis=1)
    return (weighted * residual).sum(axis=1), gradient, hessian
