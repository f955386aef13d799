"""The work of `biqa.prepare` on one image as one would write it in an afternoon: Pillow, numpy and scipy, one image after the other.

Written apart from `biqa.data.measured`, after the same definitions (its docstrings say whose they are), so that equal figures mean something.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from imagehash import phash
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])


def prepare(paths: Iterable[Path]) -> list[tuple[str, dict[str, float]]]:
    """Perceptual hash (16 hex digits) and the six measurements of each image."""
    found = []
    for path in paths:
        with Image.open(path) as file:
            image = file.convert("RGB")
        found.append((str(phash(image)), measurements(np.asarray(image))))
    return found


def measurements(pixels: NDArray[np.uint8]) -> dict[str, float]:
    """The six measurements of an image [H, W, 3]."""
    red, green, blue = (pixels[..., channel].astype(np.float32) for channel in range(3))
    y = 0.299 * red + 0.587 * green + 0.114 * blue
    rg, yb = red - green, (red + green) / 2 - blue
    inner = (slice(1, -1), slice(1, -1))
    gradient = np.hypot(ndimage.sobel(y, axis=0), ndimage.sobel(y, axis=1))[inner]
    flattest = gradient <= np.quantile(gradient, 0.1)
    return {
        "brightness": float(y.mean() / 255),
        "contrast": float(y.std() / 255),
        "colourfulness": float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())),
        "sharpness": float(ndimage.laplace(y)[inner].var()),
        "noise": float(np.sqrt(np.pi / 2) / 6 * np.abs(ndimage.convolve(y, IMMERKAER)[inner][flattest]).mean()),
        "blockiness": float(np.mean([grid_steps(np.abs(np.diff(y, axis=1))), grid_steps(np.abs(np.diff(y, axis=0)).T)])),
    }


def grid_steps(steps: NDArray[np.float32]) -> float:
    """Mean step between columns 8 k and 8 k - 1 over that between others, one grey level added to both."""
    on_grid = np.arange(steps.shape[1]) % 8 == 7
    return float((steps[:, on_grid].mean() + 1) / (steps[:, ~on_grid].mean() + 1))
