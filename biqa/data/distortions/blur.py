"""Blur: Gaussian, lens, motion (KADID-10k types 1 to 3)."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.signal import fftconvolve

from biqa.data.distortions.pixels import Pixels, within


def gaussian_blur(pixels: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Gaussian of standard deviation `sigma` pixels; the smallest of KADID-10k's, 0.1, changes nothing."""
    return np.asarray(gaussian_filter(pixels, within(sigma, pixels), axes=(0, 1), mode="nearest"))


def lens_blur(pixels: Pixels, radius: float, rng: np.random.Generator) -> Pixels:
    """Defocus: mean over a disk of `radius` pixels."""
    return _convolve(pixels, disk(within(radius, pixels)))


def motion_blur(pixels: Pixels, length: float, rng: np.random.Generator) -> Pixels:
    """Mean along a line of `length` pixels in a random direction; a line of one pixel changes nothing."""
    return _convolve(pixels, line(within(length, pixels), angle=rng.uniform(0.0, np.pi)))


def disk(radius: float) -> NDArray[np.float32]:
    """A disk as a kernel that sums to 1; a pixel on the rim weighs as much as the share of it that lies inside (16 x 16 samples)."""
    reach, samples = int(np.ceil(radius)), 16
    side = 2 * reach + 1
    offsets = (np.arange(side * samples) + 0.5) / samples - side / 2
    inside = offsets[:, None] ** 2 + offsets**2 <= radius**2
    kernel = inside.reshape(side, samples, side, samples).mean(axis=(1, 3), dtype=np.float32)
    return kernel / kernel.sum()


def line(length: float, angle: float) -> NDArray[np.float32]:
    """A line through the centre as a kernel that sums to 1: a pixel weighs 1 - its distance to the line, as in Matlab's fspecial("motion")."""
    half = (length - 1) / 2
    reach = int(np.ceil(half))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = np.hypot(across, np.maximum(np.abs(along) - half, 0.0))
    kernel = np.maximum(1.0 - distance, 0.0).astype(np.float32)
    return kernel / kernel.sum()


def _convolve(pixels: Pixels, kernel: NDArray[np.float32]) -> Pixels:
    """The same kernel on each channel; beyond the border the nearest pixel repeats."""
    reach = kernel.shape[0] // 2
    padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    return fftconvolve(padded, kernel[:, :, None], mode="valid", axes=(0, 1))
