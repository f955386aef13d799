"""Compression: JPEG 2000 and JPEG by Pillow's encoders (KADID-10k types 9 and 10)."""

import io

import numpy as np
from PIL import Image as PillowImage

from biqa.data.distortions.pixels import Pixels, to_image, to_pixels

JPEG2000_OVERHEAD = 200
"""Bytes of headers in a small code stream, which the ratio must not have to pay for."""


def jpeg2000(pixels: Pixels, ratio: float, rng: np.random.Generator) -> Pixels:
    """JPEG 2000 (9/7 wavelet) to 1/`ratio` of the raw size, headers apart.

    The headers are 3 % of a KADID-10k image at the highest ratio, and more than the whole budget of a crop of 96 pixels.
    """
    image = to_image(pixels)
    budget = image.size / ratio + JPEG2000_OVERHEAD
    return _through(image, format="JPEG2000", quality_mode="rates", quality_layers=[image.size / budget], irreversible=True, no_jp2=True)


def jpeg(pixels: Pixels, quality: float, rng: np.random.Generator) -> Pixels:
    """JPEG at libjpeg's `quality` 1..100, colour at half the resolution (4:2:0)."""
    return _through(to_image(pixels), format="JPEG", quality=int(quality), subsampling="4:2:0")


def _through(image: np.ndarray, **options: object) -> Pixels:
    """Encode and decode again."""
    stream = io.BytesIO()
    PillowImage.fromarray(image).save(stream, **options)
    return to_pixels(np.asarray(PillowImage.open(stream).convert("RGB")))
