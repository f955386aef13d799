"""Brightness and contrast (KADID-10k types 16 to 18 and 25): curves on the values, no neighbourhood."""

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from skimage.color import rgb2lab

from biqa.data.distortions.pixels import Pixels, lab_to_rgb


def brighten(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Mid-grey lifted by `amount / 2`, black and white kept: two parts of the curve on R, G and B to one part on Lab's lightness."""
    lab = rgb2lab(pixels)
    lab[..., 0] = 100 * bent(lab[..., 0] / 100, amount)
    return (2 * bent(pixels, amount) + lab_to_rgb(lab)) / 3


def darken(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Mid-grey lowered by `amount / 2`, black and white kept."""
    return bent(pixels, -amount)


def mean_shift(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """`amount` added to every value; KADID-10k goes from brighter (level 1) over unchanged (3) to darker (5)."""
    return pixels + np.float32(amount)


def contrast_change(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """A cubic spline through (0, 0), (.3, .25 - amount / 4), (.5, .5), (.7, .75 + amount / 4), (1, 1).

    -0.2 changes nothing: KADID-10k goes from more contrast (level 1) over slightly more (3) to less (5).
    """
    curve = CubicSpline((0.0, 0.3, 0.5, 0.7, 1.0), (0.0, 0.25 - amount / 4, 0.5, 0.75 + amount / 4, 1.0))
    return curve(pixels).astype(np.float32)


def bent(values: NDArray[np.floating], amount: float) -> NDArray[np.floating]:
    """The parabola through (0, 0), (.5, .5 + amount / 2) and (1, 1), cut to 0..1."""
    return np.clip(values + np.float32(2 * amount) * values * (1 - values), 0.0, 1.0)
