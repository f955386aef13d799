"""What all distortions share: pixels as floats, and how far a spatial extent may reach."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from skimage.color import lab2rgb

Image = NDArray[np.uint8]
"""[H, W, 3], RGB, 0..255."""
Pixels = NDArray[np.floating]
"""[H, W, 3], RGB, 0..1, single precision unless a library says otherwise."""
Distortion = Callable[[Pixels, float, np.random.Generator], Pixels]
"""`distortion(pixels, amount, rng)`: pixels in, pixels out, not yet clipped to 0..1. The unit of `amount` is the function's own."""

KADID_AREA = 512 * 384
"""Pixels of a KADID-10k image: the size for which its authors chose counts and extents."""


def to_pixels(image: Image) -> Pixels:
    """0..255 as integers -> 0..1 as floats."""
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def to_image(pixels: NDArray[np.floating]) -> Image:
    """0..1 as floats -> 0..255 as integers: clipped, then rounded to the nearest."""
    return np.rint(np.clip(pixels, 0.0, 1.0) * 255).astype(np.uint8)


def within(extent: float, pixels: Pixels) -> float:
    """An extent in pixels, cut to an eighth of the shorter side.

    A crop shows pixels of the same size as the whole image, so that blur keeps its radius; only what would reach across the crop shrinks
    (METHOD.md section 8). On KADID-10k's 512 x 384 images nothing is cut; on a crop of 96 pixels what lies above 12.
    """
    return min(extent, min(pixels.shape[:2]) / 8)


def lab_to_rgb(lab: Pixels) -> Pixels:
    """Lab -> RGB within 0..1; colours that RGB has not are cut channel by channel.

    A blue so strong that its Z (of XYZ) were negative is first brought to Z = 0, as skimage does too, but with a warning.
    """
    blue_limit = 200 / 116 * (lab[..., 0] + 16)  # f(Z) = (L + 16) / 116 - b / 200 must not be negative
    lab[..., 2] = np.minimum(lab[..., 2], blue_limit - 1e-3)
    return lab2rgb(lab)
