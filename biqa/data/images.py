"""Image files to RGB; where a run asks for it reduced, with the reduced copies kept."""

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from biqa.data.record import Record, Reduction
from biqa.errors import BadRecord

S = TypeVar("S")
T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "JPEG2000")
"""The only decoders that are tried: the fewer, the less a hostile file can reach."""

MAX_PIXELS = 80_000_000
"""Larger images are refused: below the size where Pillow warns of decompression bombs, above any of the data sets (SPAQ: about 25 million)."""

DRAFT = 3
"""Pixels a side that a JPEG decoded at part of its size has at least, for each that is wanted. Beside a full decode the result is off by 0.3 of 255
grey levels on average, and 5 % less sharp by the variance of its Laplacian; with 2 it would be 0.6 levels and 10 %, with 4 0.2 levels and 3 %."""

SURE = 2**20
"""Bytes that are asked of a file without a look at its size."""

LONGEST_REASON = 200
"""Letters of what a decoder says of a damaged file, at most: some quote the file."""

BAND = 2**20
"""Pixels that are brought to 8-bit RGB at a time, where that takes copies."""

VERSION = 1
"""Of how images are reduced. A change that moves a pixel raises it, so that no old copy is taken for a new one."""


def image_of(record: Record) -> Image.Image:
    """The image of a record as the model sees it: everything that wants its pixels gets them here.

    Raises:
        BadRecord: it could be read when all images were looked at, and cannot any more.
    """
    try:
        return load_image(record.path, record.reduction)
    except BadRecord as error:
        raise BadRecord(
            f"Image {record.image}: {error} It could be read when this command looked at all images. Put it back as it was: "
            f"then the same command goes on (biqa run: with ckpt=last)."
        ) from error


def load_image(path: Path, reduction: Reduction | None = None) -> Image.Image:
    """An image as it is meant to be seen: 8-bit RGB, turned as its EXIF orientation says, reduced where that is asked for.

    Choices: transparent pixels lie on white, as a page would show them; 16-bit grey is scaled (65535 -> 255) and not cut off; of an animation or
    a stack the first frame counts.

    An image whose shorter side is longer than `reduction` says is reduced to it with Pillow's bicubic filter, which averages what it leaves out, as
    the processors of most vision towers do (our choice); none is enlarged. A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, the smallest
    that leaves DRAFT times the wanted pixels a side: two to four times as fast, and after the filter hardly another image.
    Where there is a reduced copy it is read instead; where there is none, or a damaged one, it is made from the file.

    Args:
        path: the file.
        reduction: to which size, and where copies are kept; None: as it is.

    Raises:
        BadRecord: no such file, one that may not be read, not one of FORMATS, more than MAX_PIXELS, undecodable, or 32-bit pixels, whose range no
            file states.
    """
    if reduction is None:
        return _decode(path)[0]
    copy = _copy_of(path, reduction)
    if copy is not None:
        try:
            return _decode(copy)[0]
        except BadRecord:  # none yet, or a damaged one
            pass
    image, reduced = _decode(path, reduction.shorter_side)
    if copy is not None and reduced:
        _keep(image, copy)
    return image


def as_seen(image: Image.Image, name: str, shorter_side: int | None = None) -> Image.Image:
    """An image that somebody has opened already, as `load_image` would show it; that image itself stays as it is.

    One thing differs: a large JPEG is decoded whole before it is reduced (see `DRAFT`).

    Args:
        image: in any mode.
        name: for messages.
        shorter_side: to which it is reduced if it is larger; None: not at all.

    Raises:
        BadRecord: more than MAX_PIXELS, undecodable, or 32-bit pixels.
    """
    with _in_words(name):
        _refuse_many_pixels(image, name)
        return _seen(image.copy(), name, shorter_side)


def read_ahead(read: Callable[[S], T], things: Iterable[S], *, readers: int, ahead: int) -> Iterator[T]:
    """What `read` makes of things, one after another; those that come next are read meanwhile.

    Args:
        read: called in threads of its own.
        things: taken as they are needed.
        readers: how many are read at a time; `ahead` how many are read before they are wanted.
    """
    with ThreadPoolExecutor(readers) as pool:
        coming: deque[Future[T]] = deque()
        for thing in things:
            coming.append(pool.submit(read, thing))
            if len(coming) > ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def _decode(path: Path, shorter_side: int | None = None) -> tuple[Image.Image, bool]:
    """The image, and whether it was reduced."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # opening a pipe would wait for somebody to write into it
        raise BadRecord(f"{path}: no file that holds a picture (a device or a pipe).")
    with _in_words(path), _Within(io.FileIO(path)) as file, Image.open(file, formats=FORMATS) as image:
        _refuse_many_pixels(image, path)
        reduced = shorter_side is not None and min(image.size) > shorter_side
        return _seen(image, path, shorter_side), reduced


class _Within(io.BufferedReader):
    """A file of which no more is asked than it has: for a box that says that it has two gigabytes, Python would ask for as much memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file's."""
        if size is not None and size > SURE:
            size = max(0, min(size, os.fstat(self.fileno()).st_size - self.tell()))
        return super().read(size)


@contextmanager
def _in_words(path: Path | str) -> Iterator[None]:
    """Raise BadRecord in place of whatever decoders raise."""
    try:
        yield
    except BadRecord:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord(f"{path}: more than {MAX_PIXELS:,} pixels. Scale it down.") from error
    except FileNotFoundError as error:
        raise BadRecord(f"{path}: there is no such file.") from error
    except (PermissionError, IsADirectoryError) as error:
        raise BadRecord(f"{path}: cannot be read ({error.strerror}).") from error
    except Exception as error:  # every decoder fails in its own way on a damaged file
        raise BadRecord(f"{path}: cannot be decoded ({_reason(path, error)}). Known formats: {', '.join(FORMATS)}.") from error


def _reason(path: Path | str, error: Exception) -> str:
    if not isinstance(error, UnidentifiedImageError):
        return str(error)[:LONGEST_REASON] or type(error).__name__
    return "0 bytes" if Path(path).is_file() and not Path(path).stat().st_size else "not recognised as a picture"


def _refuse_many_pixels(image: Image.Image, path: Path | str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise BadRecord(f"{path}: {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}. Scale it down.")


def _seen(image: Image.Image, path: Path | str, shorter_side: int | None) -> Image.Image:
    """As `load_image` says."""
    if shorter_side is None or min(image.size) <= shorter_side:
        return _upright(_rgb(image, path), image)
    return _upright(_reduced(image, shorter_side, path), image)


def _reduced(image: Image.Image, shorter_side: int, path: Path | str) -> Image.Image:
    width, height = (round(side * shorter_side / min(image.size)) for side in image.size)
    draft = image.draft(None, (DRAFT * width, DRAFT * height))
    box = draft[1] if draft else None  # decoded at 1/8, 1001 pixels are 126, of which the image fills 125.125
    return _rgb(image, path).resize((width, height), Image.Resampling.BICUBIC, box)


def _upright(image: Image.Image, file: Image.Image) -> Image.Image:
    """Turned as the file says: after reduction, when there is less to turn."""
    orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation != 1:
        image.getexif()[ExifTags.Base.Orientation] = orientation
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _rgb(image: Image.Image, path: Path | str) -> Image.Image:
    image.load()
    if image.mode in ("I", "F"):
        raise BadRecord(f"{path}: 32-bit pixels (mode {image.mode}) have no stated range. Save it with 8 or 16 bits.")
    if image.mode.startswith("I;16"):
        return _in_bands(image, _scaled)
    if image.has_transparency_data:
        return _in_bands(image, _on_white)
    return image.convert("RGB")


def _in_bands(image: Image.Image, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """What `change` makes of an image, a few rows at a time: of a large one, whole copies on the way would take a gigabyte and more."""
    changed = Image.new("RGB", image.size)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        changed.paste(change(image.crop(box)), box)
    return changed


def _on_white(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    return Image.fromarray(_eight_bits()[np.asarray(image)]).convert("RGB")


@cache
def _eight_bits() -> NDArray[np.uint8]:
    """16-bit value -> 8-bit value."""
    return (np.arange(2**16) / 257.0).round().astype(np.uint8)


def _copy_of(path: Path, reduction: Reduction) -> Path | None:
    """Where the reduced copy of a file lies: elsewhere once the file has changed (time or size). None: none are kept, or there is no file."""
    try:
        state = path.stat()
    except (OSError, ValueError):  # ValueError: a name with a zero byte
        return None
    name = hashlib.sha256(repr((VERSION, str(path.absolute()), state.st_mtime_ns, state.st_size)).encode()).hexdigest()[:32]
    return reduction.cache and reduction.cache / "reduced" / str(reduction.shorter_side) / f"{name}.png"


def _keep(image: Image.Image, copy: Path) -> None:
    """Write a copy, under another name first, so that no other process reads half of it. Where it cannot be written the next reader reduces again."""
    temporary = copy.with_name(f"{uuid4().hex}.tmp")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        image.save(temporary, "png", compress_level=1, icc_profile=None)  # level 1: half the time of the default, 7 % more bytes
        temporary.replace(copy)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
