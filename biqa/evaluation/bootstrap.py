"""Percentile bootstrap over images: intervals, and the paired comparison of two systems (METHOD.md section 5).

A resample is written as counts, how often each image was drawn, and a statistic is a function of counts: all resamples are computed in one call,
and two systems are compared on the very same resamples by handing both the same counts.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from zlib import crc32

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

Statistic = Callable[[Floats | None], Floats]
"""`statistic(None)` is the figure on the data, shape (); `statistic(counts)`, counts [resamples, images], its value in each resample, [resamples]."""

AT_ONCE = 2**22
"""Counts (resamples x images) that are in memory at a time: 32 MB, and a few times that in what is made of them."""
COVERAGE = (2.5, 97.5)
"""Percentiles of the resamples that bound a 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """As it stands in result.json: value, low, high."""
        return asdict(self)


@dataclass(frozen=True)
class Difference(Estimate):
    """A difference of two systems with its 95 % interval and `p`, the two-sided bootstrap p-value of "no difference"."""

    p: float


def draw_counts(dataset: str, images: Sequence[str], resamples: int, seed: int) -> Floats:
    """How often each image is drawn when as many images as there are are drawn with replacement; shape [resamples, images].

    The draw depends on the names of the data set and its images beside the seed: two systems on the same images, in whatever run, share their
    resamples (that is what makes a comparison paired), and two data sets of equal size do not.
    """
    return np.concatenate([np.zeros((0, len(images))), *drawn_in_blocks(dataset, images, resamples, seed)])


def drawn_in_blocks(dataset: str, images: Sequence[str], resamples: int, seed: int) -> Iterator[Floats]:
    """The rows of `draw_counts`, so many at a time that memory does not grow with images x resamples."""
    number = len(images)
    generator = np.random.default_rng([seed, crc32("\n".join([dataset, *images]).encode())])
    at_a_time = max(1, AT_ONCE // max(number, 1))
    for start in range(0, resamples, at_a_time):
        rows = min(at_a_time, resamples - start)
        drawn = generator.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number).astype(np.float64)


def draws_of_each(statistics: Mapping[str, Statistic], dataset: str, images: Sequence[str], resamples: int, seed: int) -> dict[str, Floats]:
    """Name -> the value of a statistic in each resample of `draw_counts`, shape [resamples]; all on the very same resamples."""
    blocks = [{name: statistic(counts) for name, statistic in statistics.items()} for counts in drawn_in_blocks(dataset, images, resamples, seed)]
    return {name: np.concatenate([np.zeros(0), *(block[name] for block in blocks)]) for name in statistics}


def bootstrap(statistic: Statistic, counts: Floats) -> Estimate:
    """The figure on the data with its 95 % percentile interval over the resamples `counts`, shape [resamples, images]."""
    return estimate(statistic(None), statistic(counts))


def bootstrap_mean(values: ArrayLike, *, resamples: int, seed: int) -> Estimate:
    """The mean of a figure that each image has by itself, shape [images], with its 95 % interval."""
    return bootstrap_means({"": values}, resamples=resamples, seed=seed)[""]


def bootstrap_means(values: Mapping[str, ArrayLike], *, resamples: int, seed: int) -> dict[str, Estimate]:
    """The means of figures that each image has by itself, with their 95 % intervals.

    All are taken over the same resamples. So where one figure is the difference of two others, image by image, its interval is the paired one.

    Args:
        values: name -> figures of the same images, NaN for an image that has none. Shape [images]; or [images, columns] for the mean over columns
            of the mean over the images that have a figure there; a resample that drew none of them goes without that column.
        resamples: number of resamples; `seed` draws them.

    Returns:
        Name -> mean and interval; a single image says nothing of how images differ, so it has no interval (NaN).
    """
    arrays = {name: np.asarray(figures, dtype=np.float64) for name, figures in values.items()}
    number = len(next(iter(arrays.values())))
    means = {name: partial(_mean_of_columns, figures) for name, figures in arrays.items()}
    drawn = draws_of_each(means, "", [str(position) for position in range(number)], resamples, seed)  # pyright: ignore[reportArgumentType] (counts alone)
    found = {}
    for name, figures in arrays.items():
        alone = np.isfinite(figures.reshape(number, -1)).any(axis=1).sum() == 1
        draws = np.full(resamples, np.nan) if alone else drawn[name]
        found[name] = estimate(_mean_of_columns(figures, np.ones((1, number)))[0], draws)
    return found


def _mean_of_columns(figures: Floats, counts: Floats) -> Floats:
    """Mean in each resample, shape [resamples]; NaN in one without any figure."""
    columns = figures.reshape(len(figures), -1)
    known = ~np.isnan(columns)
    total = np.einsum("ri,ic->rc", counts, np.where(known, columns, 0.0))  # not a matrix product: its last digit depends on the number of threads
    number = np.einsum("ri,ic->rc", counts, known.astype(np.float64))
    drawn = (number > 0).sum(axis=1)
    means = total / np.maximum(number, 1)
    return np.divide(means.sum(axis=1), drawn, out=np.full(len(counts), np.nan), where=drawn > 0)


def estimate(value: ArrayLike, draws: Floats) -> Estimate:
    """A value and its percentile interval from its draws, shape [resamples].

    Resamples in which the figure is undefined (a correlation when only one distinct score was drawn) are left out of the percentiles. Where the
    value itself is undefined, so is the interval.
    """
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or not known.size:
        return Estimate(float(np.asarray(value)), np.nan, np.nan)
    low, high = np.percentile(known, COVERAGE)
    return Estimate(float(np.asarray(value)), float(low), float(high))


def paired_difference(statistic: Statistic, other: Statistic, counts: Floats) -> Difference:
    """`statistic - other`, two systems on the same images, both computed in each of the same resamples, shape [resamples, images]."""
    return difference(statistic(None) - other(None), statistic(counts) - other(counts))


def difference(value: ArrayLike, draws: Floats) -> Difference:
    """A difference, its interval and p-value from its draws, shape [resamples].

    p = 2 min(share of draws <= 0, share of draws >= 0), at most 1, one draw added to both counts (Davison and Hinkley 1997, section 4.2), so that
    the smallest p that B resamples can give is 2 / (B + 1) and never 0.
    """
    interval = estimate(value, draws)
    known = draws[~np.isnan(draws)]
    tail = 1 + min((known <= 0).sum(), (known >= 0).sum())
    p = min(1.0, 2 * float(tail) / (known.size + 1))
    return Difference(**interval.as_dict(), p=np.nan if np.isnan(interval.value) else p)
