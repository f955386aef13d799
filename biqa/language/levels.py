"""The five levels, the quality scale, and soft targets (METHOD.md sections 2 to 4). Pure numpy."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, softmax

Level = Literal["bad", "poor", "fair", "good", "excellent"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""The words of ITU-R BT.500, worst first."""

WEIGHTS: NDArray[np.float64] = np.linspace(0.0, 1.0, len(LEVELS))
"""Where each level lies on the quality scale when an answer is scored: (0, .25, .5, .75, 1)."""


def level_index(q: float) -> int:
    """Index of the level whose bin holds q in [0, 1]: five equal-width bins, as Q-Align bins its training scores (METHOD.md choice)."""
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"quality must lie within 0..1, got {q}")
    return min(int(q * len(LEVELS)), len(LEVELS) - 1)


def level_of(q: float) -> Level:
    """The level word for a quality q in [0, 1]."""
    return LEVELS[level_index(q)]


def score_of(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of the level distribution on the quality scale: `sum_k p(k) w_k`, shape (..., 5) -> (...), values in [0, 1]."""
    return np.asarray(probabilities, dtype=np.float64) @ WEIGHTS


def soft_target(q: float, std: float | None = None) -> NDArray[np.float64]:
    """Level distribution whose mean is exactly q.

    With the opinions' standard deviation `std` (on the scale of q): a normal density integrated over the five bins, then tilted
    (`p_k exp(t w_k)`, the closest distribution in KL divergence with the wanted mean) until its mean is q. Without it: linear
    interpolation between the two nearest level centres. Both are METHOD.md choices; DeQA-Score (arXiv 2501.11561) is the model for the first.

    Returns:
        Shape (5,), non-negative, sums to 1, mean q.
    """
    if not 0.0 <= q <= 1.0:
        raise ValueError(f"quality must lie within 0..1, got {q}")
    if std is None or std < 1e-9 or q in (0.0, 1.0):  # a deviation of nothing overflows the density, and would end in the same target
        return _interpolated(q)
    edges = np.array([-np.inf, *np.linspace(0.0, 1.0, len(LEVELS) + 1)[1:-1], np.inf])
    raw = np.diff(ndtr((edges - q) / std))
    tilted = _tilt_to_mean(raw, q)
    return _interpolated(q) if tilted is None else tilted


def _interpolated(q: float) -> NDArray[np.float64]:
    position = q * (len(LEVELS) - 1)
    lower = min(int(position), len(LEVELS) - 2)
    target = np.zeros(len(LEVELS))
    target[lower], target[lower + 1] = lower + 1 - position, position - lower
    return target


def _tilt_to_mean(p: NDArray[np.float64], mean: float) -> NDArray[np.float64] | None:
    """Solve `sum_k p_k exp(t w_k) (w_k - mean) = 0` for t; None where p leaves no mass on one side of the mean."""
    if p[mean > WEIGHTS].sum() < 1e-12 or p[mean < WEIGHTS].sum() < 1e-12:
        return None

    with np.errstate(divide="ignore"):
        log_p = np.log(p)

    def tilt(t: float) -> NDArray[np.float64]:
        return softmax(log_p + t * WEIGHTS)

    t = brentq(lambda t: tilt(t) @ WEIGHTS - mean, -1e4, 1e4, xtol=1e-12)
    return tilt(float(t))  # pyright: ignore[reportArgumentType] (without full_output it is a number)
