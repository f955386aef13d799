"""Six image measurements on 8-bit RGB, for descriptions of any image (METHOD.md section 7). Their names are those of the attributes in words."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""[H, W, 3], RGB."""
Channels = NDArray[np.float32]
"""[3, H, W], 0..255: red, then green, then blue."""
Luma = NDArray[np.float32]
"""[H, W], 0..255."""

SMALLEST_SIDE = 16
"""Pixels: a block edge needs a block on both sides."""

BAND = 16384
"""Pixels that are filtered at a time: what is computed of them in double precision stays in the processor's cache, whatever the size of the image."""


def measure(pixels: Pixels) -> dict[str, float]:
    """All six measurements of one image.

    Raises:
        ValueError: a side is shorter than SMALLEST_SIDE.
    """
    if min(pixels.shape[:2]) < SMALLEST_SIDE:
        raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels are too few to measure: at least {SMALLEST_SIDE} a side")
    rgb = channels(pixels)
    y = luma(rgb)
    return {
        "brightness": brightness(y),
        "contrast": contrast(y),
        "colourfulness": colourfulness(rgb),
        "sharpness": sharpness(y),
        "noise": noise(y),
        "blockiness": blockiness(y),
    }


def channels(pixels: Pixels) -> Channels:
    """One channel after the other: interleaved ones are slow to read."""
    return pixels.transpose(2, 0, 1).astype(np.float32, order="C")


def luma(rgb: Channels) -> Luma:
    """Rec. ITU-R BT.601: Y = 0.299 R + 0.587 G + 0.114 B."""
    red, green, blue = rgb
    y = red * np.float32(0.299)
    y += green * np.float32(0.587)
    y += blue * np.float32(0.114)
    return y


def brightness(y: Luma) -> float:
    """Mean luma, 0 (black) to 1 (white)."""
    return float(y.mean() / 255.0)


def contrast(y: Luma) -> float:
    """RMS contrast: standard deviation of the luma, 0 to 0.5 (E. Peli, "Contrast in complex images", JOSA A 7(10), 1990)."""
    return float(y.std() / 255.0)


def colourfulness(rgb: Channels) -> float:
    """M3 of D. Hasler and S. Suesstrunk, "Measuring colourfulness in natural images", SPIE 5007, 2003: 0 (grey) to about 110 (extreme)."""
    red, green, blue = rgb
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def sharpness(y: Luma) -> float:
    """Variance of the Laplacian (J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000). Noise raises it too."""
    laplacian = np.empty(_inner(y), np.float32)
    for rows, band in _bands(y):
        laplacian[rows] = _bend(band)[:, 1:-1] + _bend(band.T).T[1:-1]
    return float(laplacian.var())


def noise(y: Luma) -> float:
    """Standard deviation of the noise in grey levels, from the flattest tenth of the image.

    The operator N of J. Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996: sigma = sqrt(pi / 2) / 6 * mean |I * N|. Over a whole
    photograph it measures texture (its rank correlation with the sharpness above is 0.96 on 400 photographs of LIVE in the Wild), so the mean
    is taken where Sobel's gradient is smallest, after S.-C. Tai and S.-M. Yang, "A fast method for image noise estimation using Laplacian
    operator and adaptive edge detection", ISCCSP 2008 (0.29; the tenth is a METHOD.md choice). White noise gives N and Sobel uncorrelated
    answers, so the choice does not bias the estimate. An image without a flat part, such as gravel, still reads as noisy.
    """
    gradient, response = np.empty(_inner(y), np.float32), np.empty(_inner(y), np.float32)
    for rows, band in _bands(y):
        gradient[rows] = np.hypot(_slope(band), _slope(band.T).T)
        response[rows] = _bend(_bend(band).T).T  # N is the second difference across of the second difference down
    flattest = gradient <= lower_tenth(gradient)
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(response[flattest]).mean())


def lower_tenth(values: NDArray[np.float32]) -> np.float32:
    """`np.quantile(values, 0.1)`, to the bit and several times as fast: a partition at one place instead of four, and no search for NaN.

    Args:
        values: at least two, of any shape.
    """
    place = 0.1 * (values.size - 1)
    below = int(place)
    parted = np.partition(values, below, axis=None)
    low, high = parted[below], parted[below + 1 :].min()
    share = place - below
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


def blockiness(y: Luma) -> float:
    """How much larger steps across the 8 x 8 grid are than steps elsewhere: 1 without blocks, more with them.

    The mean absolute differences of Z. Wang, H. R. Sheikh, A. C. Bovik, "No-reference perceptual quality assessment of JPEG compressed images",
    ICIP 2002, taken as a ratio. One grey level is added to both sides, so that a flat image gives 1 (METHOD.md choice). The grid starts at
    the top left corner: after cropping or scaling a JPEG its blocks are no longer found.
    """
    ratios = []
    for steps in (np.abs(np.diff(y, axis=1)).T, np.abs(np.diff(y, axis=0))):
        on_grid = steps[7::8]
        across, all_of_it = on_grid.sum(dtype=np.float64), steps.sum(dtype=np.float64)
        elsewhere = (all_of_it - across) / (steps.size - on_grid.size)
        ratios.append((across / on_grid.size + 1.0) / (elsewhere + 1.0))
    return float(np.mean(ratios))


def _inner(y: Luma) -> tuple[int, int]:
    """Shape of what is left of an image by a 3 x 3 filter."""
    return y.shape[0] - 2, y.shape[1] - 2


def _bands(y: Luma) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """The image in bands of about BAND pixels: rows of the inner image, and those rows with one above and one below."""
    rows = max(1, BAND // y.shape[1])
    for top in range(0, y.shape[0] - 2, rows):
        yield slice(top, top + rows), y[top : top + rows + 2].astype(np.float64)


def _bend(band: NDArray[np.float64]) -> NDArray[np.float64]:
    """Second difference down the columns, (1, -2, 1): [H - 2, W]."""
    bend = band[2:] + band[:-2]
    bend -= 2 * band[1:-1]
    return bend


def _slope(band: NDArray[np.float64]) -> NDArray[np.float32]:
    """Sobel's gradient down the columns, (-1, 0, 1) down and (1, 2, 1) across: [H - 2, W - 2].

    Each pass is rounded to single precision, as scipy.ndimage.sobel rounds it: of the many equal gradients in a grey image, rounding says which
    ones are under a threshold.
    """
    steps = (band[2:] - band[:-2]).astype(np.float32).astype(np.float64)
    slope = steps[:, 2:] + steps[:, :-2]
    slope += 2 * steps[:, 1:-1]
    return slope.astype(np.float32)
