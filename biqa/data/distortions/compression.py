"""Compression: JPEG 2000 and JPEG by Pillow's encoders (KADID-10k types 9 and 10)."""

import io

import numpy as np
from PIL import Image as PillowImage

from biqa.data.distortions.pixels import KADID_AREA, Image, Pixels, to_image, to_pixels

RATIOS = (16, 32, 45, 120, 400)
CROP_PSNR = (33.5, 29.7, 28.3, 24.6, 20.9)
CROP_GRADIENT, PSNR_PER_OCTAVE = 9.4, 4.4
"""What a part of a photograph keeps when the whole is coded. Measured on 96-pixel crops of eight photographs, each coded whole at the five
ratios: a crop whose luma has a mean gradient of 9.4 (values of 0..255 a pixel) has this PSNR in dB, and 4.4 dB less with each doubling of the
gradient (rms error of this fit: 2.3 dB at the lowest ratio, 1.3 at the highest)."""


def jpeg2000(pixels: Pixels, ratio: float, rng: np.random.Generator) -> Pixels:
    """JPEG 2000 (9/7 wavelet) to 1/`ratio` of the raw bytes.

    A crop, that is less than half of 512 x 384 pixels, is coded to the PSNR that it would have as a part of a photograph coded whole. By its
    own bytes a crop with fine detail would be ruined at the lowest ratio, where a photograph spends on it what its flat parts leave over.
    """
    image = to_image(pixels)
    if image.shape[0] * image.shape[1] < KADID_AREA / 2:
        quality = {"quality_mode": "dB", "quality_layers": [crop_psnr(image, ratio)]}
    else:
        quality = {"quality_mode": "rates", "quality_layers": [ratio]}
    stream = io.BytesIO()
    PillowImage.fromarray(image).save(stream, "JPEG2000", irreversible=True, no_jp2=True, **quality)
    return _decoded(stream)


def crop_psnr(image: Image, ratio: float) -> float:
    """PSNR in dB of this crop in a photograph coded at `ratio`, after the measurement above; at least half of its variance is kept."""
    luma = np.asarray(PillowImage.fromarray(image).convert("L"), dtype=np.float32)
    down, right = np.gradient(luma)
    gradient = max(float(np.hypot(down, right).mean()), 1.0)  # a flat crop would have no end of quality
    variance = max(float(image.var(axis=(0, 1)).mean()), 1.0)
    fitted = np.interp(np.log(ratio), np.log(RATIOS), CROP_PSNR) - PSNR_PER_OCTAVE * np.log2(gradient / CROP_GRADIENT)
    return float(max(fitted, 10 * np.log10(255**2 / (variance / 2))))


def jpeg(pixels: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    """JPEG at libjpeg's `quality` 1..100, colour at half the resolution (4:2:0)."""
    stream = io.BytesIO()
    PillowImage.fromarray(to_image(pixels)).save(stream, "JPEG", quality=int(quality), subsampling="4:2:0")
    return _decoded(stream)


def _decoded(stream: io.BytesIO) -> Pixels:
    return to_pixels(np.asarray(PillowImage.open(stream).convert("RGB")))
