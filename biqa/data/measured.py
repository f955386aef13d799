"""Six image measurements on 8-bit RGB, for descriptions of any image (METHOD.md section 7). Their names are those of the attributes in words."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate, sobel

Pixels = NDArray[np.uint8]
"""[H, W, 3], RGB."""
Luma = NDArray[np.float32]
"""[H, W], 0..255."""

SMALLEST_SIDE = 16
"""Pixels: a block edge needs a block on both sides."""

_LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=np.float64)
_IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)


def measure(pixels: Pixels) -> dict[str, float]:
    """All six measurements of one image.

    Raises:
        ValueError: a side is shorter than SMALLEST_SIDE.
    """
    if min(pixels.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels are too few to measure: at least {SMALLEST_SIDE} a side")
    y = luma(pixels)
    return {
        "brightness": brightness(y),
        "contrast": contrast(y),
        "colourfulness": colourfulness(pixels),
        "sharpness": sharpness(y),
        "noise": noise(y),
        "blockiness": blockiness(y),
    }


def luma(pixels: Pixels) -> Luma:
    """Rec. ITU-R BT.601: Y = 0.299 R + 0.587 G + 0.114 B."""
    return sum(
        (pixels[..., channel] * np.float32(weight) for channel, weight in enumerate((0.299, 0.587, 0.114))),
        start=np.zeros(pixels.shape[:2], np.float32),
    )


def brightness(y: Luma) -> float:
    """Mean luma, 0 (black) to 1 (white)."""
    return float(y.mean() / 255.0)


def contrast(y: Luma) -> float:
    """RMS contrast: standard deviation of the luma, 0 to 0.5 (E. Peli, "Contrast in complex images", JOSA A 7(10), 1990)."""
    return float(y.std() / 255.0)


def colourfulness(pixels: Pixels) -> float:
    """M3 of D. Hasler and S. Suesstrunk, "Measuring colourfulness in natural images", SPIE 5007, 2003: 0 (grey) to about 110 (extreme)."""
    red, green, blue = (pixels[..., channel].astype(np.float32) for channel in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def sharpness(y: Luma) -> float:
    """Variance of the Laplacian (J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000). Noise raises it too."""
    return float(correlate(y, _LAPLACIAN)[1:-1, 1:-1].var())


def noise(y: Luma) -> float:
    """Standard deviation of the noise in grey levels, from the flattest tenth of the image.

    The operator N of J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996: sigma = sqrt(pi / 2) / 6 * mean |I * N|. Over a whole
    photograph it measures texture (its rank correlation with the sharpness above is 0.96 on 400 photographs of LIVE in the Wild), so the mean
    is taken where Sobel's gradient is smallest, after S.-C. Tai and S.-M. Yang, "A fast method for image noise estimation using Laplacian
    operator and adaptive edge detection", ISCCSP 2008 (0.29; the tenth is a METHOD.md choice). White noise gives N and Sobel uncorrelated
    answers, so the choice does not bias the estimate. An image without a flat part, such as gravel, still reads as noisy.
    """
    inner = (slice(1, -1), slice(1, -1))
    gradient = np.hypot(sobel(y, axis=0), sobel(y, axis=1))[inner]
    response = np.abs(correlate(y, _IMMERKAER)[inner])
    return float(np.sqrt(np.pi / 2) / 6 * response[gradient <= np.quantile(gradient, 0.1)].mean())


def blockiness(y: Luma) -> float:
    """How much larger steps across the 8 x 8 grid are than steps elsewhere: 1 without blocks, more with them.

    The mean absolute differences of Z. Wang, H. R. Sheikh, A. C. Bovik, "No-reference perceptual quality assessment of JPEG compressed images",
    ICIP 2002, taken as a ratio. One grey level is added to both sides, so that a flat image gives 1 (METHOD.md choice). The grid starts at
    the top left corner: after cropping or scaling a JPEG its blocks are no longer found.
    """
    ratios = []
    for steps in (np.abs(np.diff(y, axis=1)), np.abs(np.diff(y, axis=0)).T):
        on_grid = np.arange(steps.shape[1]) % 8 == 7
        ratios.append((steps[:, on_grid].mean() + 1.0) / (steps[:, ~on_grid].mean() + 1.0))
    return float(np.mean(ratios))
