"""Image files to RGB, and a look at every file before a run starts."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from biqa.data.record import Record
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


def check_images(records: Sequence[Record], on_bad_image: Literal["stop", "skip"], workers: int = 4) -> tuple[list[Record], list[str]]:
    """Decode every image once, so that a bad one is known by name before a run starts and not hours into it.

    Args:
        records: what the data set lists.
        on_bad_image: "stop" ends at the first bad image; "skip" leaves bad images out.
        workers: threads that decode. A file seen before in this process and not changed since is not decoded again.

    Returns:
        The usable records in their order, and a sentence for each image left out.

    Raises:
        BadRecord: an image is missing or does not decode, and on_bad_image is "stop"; or none can be used. Names image, row and file, and says how
            many there are.
    """
    with ThreadPoolExecutor(workers) as pool:
        problems = list(pool.map(lambda record: _problem(record.path), records))
    bad = [
        f"Image {record.image} (row {row} of {len(records)}): {problem}"
        for row, (record, problem) in enumerate(zip(records, problems, strict=True), start=1)
        if problem
    ]
    if bad and on_bad_image == "stop":
        raise BadRecord(f"{bad[0]} Unusable images in all: {len(bad)}. Repair the file, or set data.on_bad_image=skip to leave such images out.")
    if len(bad) == len(records):
        raise BadRecord(f"{bad[0]} None of the {len(records)} images can be used. Set data.root= to the folder of the images.")
    return [record for record, problem in zip(records, problems, strict=True) if not problem], bad


def _problem(path: Path) -> str | None:
    try:
        state = path.stat()
    except OSError:
        return f"{path}: there is no such file."
    return _problem_of_version(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1_000_000)
def _problem_of_version(path: Path, changed_ns: int, size: int) -> str | None:
    try:
        load_image(path)
    except BadRecord as error:
        return str(error)
    return None
