"""Spatial: jitter, misplaced patches, pixelation, quantization, colour blocks (KADID-10k types 19 to 23)."""

import math

import numpy as np
from PIL import Image as PillowImage
from scipy.ndimage import map_coordinates

from biqa.data.distortions.pixels import KADID_AREA, Pixels, to_image, to_pixels

PATCH = 16
"""Side of a misplaced patch in pixels."""
BLOCK = 32
"""Side of a colour block in a KADID-10k image, in pixels."""


def jitter(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Five times: every pixel is fetched from a place that lies Gaussian noise of `sigma` pixels away (bilinear)."""
    height, width, channels = pixels.shape
    grid = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(5):
        places = grid + np.float32(sigma) * rng.standard_normal(grid.shape, dtype=np.float32)
        pixels = np.stack([map_coordinates(pixels[..., c], places, order=1, mode="nearest") for c in range(channels)], axis=-1)
    return pixels


def non_eccentricity_patch(pixels: Pixels, count: float, rng: np.random.Generator) -> Pixels:
    """Patches of 16 pixels copied to a place up to 8 pixels away.

    `count` is for a KADID-10k image: a crop gets as many as its area has a share, at least one, and a patch at most a sixth of its side.
    """
    height, width, _ = pixels.shape
    side = min(PATCH, min(height, width) // 6)
    patches = max(1, round(count * height * width / KADID_AREA * (PATCH / side) ** 2))
    moved = pixels.copy()
    for _ in range(patches):
        y, x = rng.integers(side // 2, (height - side - side // 2, width - side - side // 2), endpoint=True)
        dy, dx = rng.integers(-(side // 2), side // 2, size=2, endpoint=True)
        moved[y + dy : y + dy + side, x + dx : x + dx + side] = moved[y : y + side, x : x + side].copy()
    return moved


def pixelate(pixels: Pixels, strength: float, rng: np.random.Generator) -> Pixels:
    """Shrunk to `0.95 - strength^0.6` of its size and enlarged again, both by the nearest pixel."""
    height, width, _ = pixels.shape
    share = 0.95 - strength**0.6
    image = PillowImage.fromarray(to_image(pixels))
    small = image.resize((int(share * width), int(share * height)), PillowImage.Resampling.NEAREST)
    return to_pixels(np.asarray(small.resize((width, height), PillowImage.Resampling.NEAREST)))


def quantization(pixels: Pixels, values: float, rng: np.random.Generator) -> Pixels:
    """Each channel to that many evenly spaced values, so that gradients show bands."""
    steps = np.float32(values - 1)
    return np.rint(pixels * steps) / steps


def colour_block(pixels: Pixels, count: float, rng: np.random.Generator) -> Pixels:
    """`count` squares of a random colour; a side of 32 pixels in a KADID-10k image, and the same share of the area in any other."""
    height, width, _ = pixels.shape
    side = max(1, round(BLOCK * math.sqrt(height * width / KADID_AREA)))
    blocked = pixels.copy()
    for _ in range(int(count)):
        y, x = rng.integers(0, (height - side, width - side), endpoint=True)
        blocked[y : y + side, x : x + side] = rng.random(3, dtype=np.float32)
    return blocked
