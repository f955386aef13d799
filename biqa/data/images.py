"""Image files to RGB."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from biqa.errors import BadRecord

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "JPEG2000")
"""The only decoders that are tried: the fewer, the less a hostile file can reach."""

MAX_PIXELS = 80_000_000
"""Larger images are refused: below the size where Pillow warns of decompression bombs, above any of the data sets (SPAQ: about 25 million)."""


def load_image(path: Path) -> Image.Image:
    """An image as it is meant to be seen: 8-bit RGB, turned as its EXIF orientation says.

    Choices: transparent pixels lie on white, as a page would show them; 16-bit grey is scaled (65535 -> 255) and not cut off; of an animation or
    a stack the first frame counts.

    Raises:
        BadRecord: no such file, not one of FORMATS, more than MAX_PIXELS, undecodable, or 32-bit pixels, whose range no file states.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadRecord(f"{path}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}. Scale it down.")
            image.load()
            return _rgb(ImageOps.exif_transpose(image), path)
    except BadRecord:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord(f"{path}: more than {MAX_PIXELS:,} pixels. Scale it down.") from error
    except FileNotFoundError as error:
        raise BadRecord(f"{path}: there is no such file.") from error
    except Exception as error:  # every decoder fails in its own way on a damaged file
        raise BadRecord(f"{path}: cannot be decoded ({str(error) or type(error).__name__}). Known formats: {', '.join(FORMATS)}.") from error


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in ("I", "F"):
        raise BadRecord(f"{path}: 32-bit pixels (mode {image.mode}) have no stated range. Save it with 8 or 16 bits.")
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257.0).round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        return Image.alpha_composite(white, seen).convert("RGB")
    return image.convert("RGB")
