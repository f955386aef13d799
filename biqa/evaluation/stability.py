"""How often a model changes its mind when it is asked the same thing again (METHOD.md section 5).

The paper names instability and reports it; the formula is our choice. Every measure is a mean over images of a figure that each image has by itself,
so the bootstrap over images needs no more than these figures.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from biqa.errors import IncompatibleChoice
from biqa.language.levels import LEVELS

Floats = NDArray[np.float64]

UNPARSED = -1
"""Index of an answer without a level. It counts as a sixth level: it can be the mode of an image, and it differs from every other level. An image
none of whose answers has a level is not steady for that: it has no figure."""

LEVEL_MEASURES = ("instability", "flip_rate", "pairwise_disagreement", "level_entropy")


def stability(levels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """All measures of one decision: the means over images of `level_measures` and `score_std`.

    Args:
        levels: Index of each query's level (0 = bad .. 4 = excellent, -1 = could not be parsed), shape [images, N].
        scores: Score of each query in [0, 1], NaN where it has none, shape [images, N].

    Returns:
        instability, flip_rate, pairwise_disagreement and unparsed in percent, level_entropy in bits, score_std on the scale of q.

    Raises:
        IncompatibleChoice: N < 2.
    """
    levels = np.asarray(levels)
    per_image = level_measures(levels)
    spread = score_std(scores)
    means = {name: _mean_of_known(values) for name, values in per_image.items()}
    return {**means, "score_std": _mean_of_known(spread), "unparsed": 100 * float((levels == UNPARSED).mean())}


def level_measures(levels: ArrayLike) -> dict[str, Floats]:
    """Each image's own figures from its N levels, arrays of shape [images]; NaN for an image none of whose answers has a level.

    With c_k of the N levels equal to k (the five levels and "unparsed"):

    - `instability`: 100 (1 - max_k c_k / N), percent; the queries that do not give the commonest level. 0 .. 80 (83.3 with unparsed answers).
      It grows with N, as the commonest of few answers is common by chance.
    - `flip_rate`: 100 where the N levels are not all equal, else 0, percent. Its mean is 100 - the consistency rate. It grows with N.
    - `pairwise_disagreement`: 100 (1 - sum_k c_k (c_k - 1) / (N (N - 1))), percent; the chance that two different queries differ. Unbiased in N.
    - `level_entropy`: - sum_k c_k/N log2(c_k/N), bits, 0 .. log2 6.

    Args:
        levels: As in `stability`, shape [images, N].

    Raises:
        IncompatibleChoice: N < 2.
    """
    levels = np.asarray(levels)
    queries = _queries(levels)
    counts = (levels[:, :, None] == np.arange(UNPARSED, len(LEVELS))).sum(axis=1)
    share = counts / queries
    most = counts.max(axis=1)
    agreeing_pairs = (counts * (counts - 1)).sum(axis=1) / (queries * (queries - 1))
    surprise = np.log2(share, out=np.zeros_like(share), where=share > 0)
    values = 100 * (1 - most / queries), 100.0 * (most < queries), 100 * (1 - agreeing_pairs), np.abs((share * surprise).sum(axis=1))
    read = (levels != UNPARSED).any(axis=1)
    return {name: np.where(read, of_images, np.nan) for name, of_images in zip(LEVEL_MEASURES, values, strict=True)}


def score_std(scores: ArrayLike) -> Floats:
    """Each image's standard deviation of its scores (divided by the number of scores - 1), on the scale of q; shape [images, N] -> [images].

    Queries without a score (NaN) are left out; an image with fewer than two scores has none: NaN.

    Raises:
        IncompatibleChoice: N < 2.
    """
    scores = np.asarray(scores, dtype=np.float64)
    _queries(scores)
    known = ~np.isnan(scores)
    number = known.sum(axis=1)
    filled = np.where(known, scores, 0.0)
    mean = filled.sum(axis=1) / np.maximum(number, 1)
    squares = np.where(known, (filled - mean[:, None]) ** 2, 0.0).sum(axis=1)
    return np.where(number > 1, np.sqrt(squares / np.maximum(number - 1, 1)), np.nan)


def _queries(answers: NDArray) -> int:
    queries = answers.shape[1]
    if queries < 2:
        raise IncompatibleChoice(
            f"Instability needs at least 2 sampled queries an image, found {queries}: one answer cannot disagree with itself, "
            f"so the figure would be 0 by construction. Answer again with sampling.repeats=2 or more (or 0, which measures accuracy alone)."
        )
    return queries


def _mean_of_known(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
