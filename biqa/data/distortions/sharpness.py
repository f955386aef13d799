"""Too much sharpening (KADID-10k type 24)."""

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab

from biqa.data.distortions.pixels import Pixels, lab_to_rgb


def high_sharpen(pixels: Pixels, amount: float, rng: np.random.Generator) -> Pixels:
    """Unsharp mask on Lab's lightness: `amount` times the difference to a Gaussian (sigma 6, cut at 6 pixels) is added."""
    lab = rgb2lab(pixels)
    lightness = lab[..., 0]
    lab[..., 0] = np.clip(lightness + amount * (lightness - gaussian_filter(lightness, 6, radius=6, mode="nearest")), 0.0, 100.0)
    return lab_to_rgb(lab)
