"""Reference images that need no download: photographs inside installed packages, procedural images, or a folder of the user's."""

import hashlib
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageOps

from biqa.data.distortions.pixels import Image, Pixels, lab_to_rgb, to_image
from biqa.data.images import FORMATS, MAX_PIXELS
from biqa.errors import BadRecord, DatasetNotFound

PHOTOGRAPHS: tuple[tuple[str, str, str, bool], ...] = (
    ("astronaut", "skimage", "data/astronaut.png", True),
    ("chelsea", "skimage", "data/chelsea.png", True),
    ("china", "sklearn", "datasets/images/china.jpg", True),
    ("coffee", "skimage", "data/coffee.png", True),
    ("flower", "sklearn", "datasets/images/flower.jpg", True),
    ("grace_hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", True),
    ("motorcycle", "skimage", "data/motorcycle_left.png", True),
    ("rocket", "skimage", "data/rocket.jpg", True),
    ("brick", "skimage", "data/brick.png", False),
    ("camera", "skimage", "data/camera.png", False),
    ("coins", "skimage", "data/coins.png", False),
    ("grass", "skimage", "data/grass.png", False),
    ("gravel", "skimage", "data/gravel.png", False),
)
"""(name, package, file in it, in colour?). Left out after a look at each: what is no photograph or is one of text, microscope slides and the retina
(soft), the Moon (hardly any contrast), the Hubble deep field (stars look like impulse noise), and the second view of the motorcycle."""

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""What counts as an image in a user's folder."""
EIGHT_BIT = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's modes that become RGB without a guess at the range of values."""

GREY = 3.0
"""A photograph whose channels lie closer together than this, on average over its pixels (0..255), counts as grey."""


@dataclass(frozen=True)
class Reference:
    """An undistorted photograph on disk."""

    name: str
    path: Path
    colour: bool
    """False for a grey photograph, on which a colour distortion would not be seen."""

    def pixels(self) -> Image:
        """uint8 [H, W, 3], RGB, turned as its EXIF data say.

        Raises:
            BadRecord: the file does not decode, or has more than 8 bits a channel.
        """
        try:
            with PillowImage.open(self.path, formats=(*FORMATS, "PPM")) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
                if image.mode not in EIGHT_BIT:
                    raise ValueError(f"its mode {image.mode} is not one of 8 bits a channel")
                return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, SyntaxError, ValueError, PillowImage.DecompressionBombError) as error:  # what Pillow's decoders raise
            raise BadRecord(f"{self.path}: this reference cannot be read ({error}). Replace it or take it out of the folder.") from error


def photographs() -> tuple[Reference, ...]:
    """The 13 photographs, read straight out of the installed scikit-image, scikit-learn and matplotlib (no network)."""
    return tuple(Reference(name, Path(str(files(package).joinpath(file))), colour) for name, package, file, colour in PHOTOGRAPHS)


def image_files(folder: str | Path) -> list[Path]:
    """All images of a user's folder and its sub-folders, sorted.

    Raises:
        DatasetNotFound: the folder is not there, or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetNotFound(
            f"data.references={folder}: there is no such folder. Name a folder of undistorted photographs, or null for the built-in ones."
        )
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DatasetNotFound(
            f"data.references={folder}: no image inside (looked for {' '.join(SUFFIXES)}). Name a folder of undistorted photographs."
        )
    return found


def folder_references(folder: str | Path, *, smallest: int = 1, on_bad_image: Literal["stop", "skip"] = "stop") -> tuple[Reference, ...]:
    """The photographs of a user's folder, each decoded once; their names are paths inside the folder.

    Args:
        folder: the folder; sub-folders count too.
        smallest: least length in pixels of the shorter side.
        on_bad_image: what to do with one that does not decode or is too small: "stop" names it and ends, "skip" leaves it out.

    Raises:
        DatasetNotFound: the folder is not there, or holds no image that can be used.
        BadRecord: an image does not decode or is too small, and `on_bad_image` is "stop".
    """
    good = []
    for path in image_files(folder):
        try:
            good.append(_checked(Reference(path.relative_to(folder).as_posix(), path, colour=True), smallest))
        except BadRecord:
            if on_bad_image == "stop":
                raise
    if not good:
        raise DatasetNotFound(
            f"data.references={folder}: none of its images can be used. Each must decode and be at least {smallest} pixels wide and high."
        )
    return tuple(good)


def _checked(reference: Reference, smallest: int) -> Reference:
    """The reference with `colour` as its pixels say."""
    pixels = reference.pixels()
    height, width, _ = pixels.shape
    if min(height, width) < smallest:
        raise BadRecord(
            f"{reference.path}: {width} x {height} pixels, smaller than data.crop={smallest}. Take it out of the folder, or set a smaller crop."
        )
    return replace(reference, colour=bool(np.ptp(pixels, axis=2).mean() >= GREY))


def fingerprint(folder: str | Path) -> str:
    """SHA-256 over names and contents of the images of a user's folder.

    Raises:
        DatasetNotFound: the folder is not there, or holds no image.
    """
    digest = hashlib.sha256()
    for path in image_files(folder):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


LAYERS = 4.6
"""How often the leaves of an image cover it on average; exp(-4.6), one pixel in a hundred, shows the ground."""


def dead_leaves(rng: np.random.Generator, size: int) -> Image:
    """Discs that cover one another, of radii r with density r^-3: sharp edges, and the statistics of natural images at all scales.

    The dead-leaves model with power-law radii is that of Lee, Mumford and Huang (Occlusion models for natural images, IJCV 2001). Here each
    leaf also has a gradient and a 1/f texture of its own strength, and its colour comes from a palette of the image.

    Returns:
        uint8 [size, size, 3], RGB. Drawn at twice the size and averaged, so that edges are smooth.
    """
    side = 2 * size
    smallest, largest = 3.0, side / 3
    mean_area = np.pi * 2 * smallest**2 * np.log(largest / smallest)
    leaves = round(LAYERS * side**2 / mean_area)
    radius = (smallest**-2 + rng.random(leaves) * (largest**-2 - smallest**-2)) ** -0.5  # inverse of the distribution function
    centre = rng.uniform(0, side, (leaves, 2))
    radius[0], centre[0] = side, side / 2  # the ground
    canvas = PillowImage.new("I", (side, side))
    draw = ImageDraw.Draw(canvas)
    for leaf in range(leaves):
        (x, y), r = centre[leaf], radius[leaf]
        draw.ellipse((x - r, y - r, x + r, y + r), fill=leaf)
    leaf_at = np.asarray(canvas)

    slope = rng.normal(0, 0.12, (leaves, 2)) / radius[:, None]
    roughness = np.abs(rng.normal(0, 0.10, leaves))
    axis = np.arange(side)
    gradient = slope[leaf_at, 0] * (axis - centre[leaf_at, 0]) + slope[leaf_at, 1] * (axis[:, None] - centre[leaf_at, 1])
    light = np.exp(gradient + roughness[leaf_at] * pink_field(rng, side, exponent=1.0))
    picture = _palette(rng, leaves)[leaf_at] * light[..., None]
    return to_image(picture.reshape(size, 2, size, 2, 3).mean(axis=(1, 3)))


def _palette(rng: np.random.Generator, colours: int) -> Pixels:
    """Colours of one image: any lightness; hues around a mean that leans to yellow, as those of natural scenes do. [colours, 3], RGB, 0..1."""
    mean = rng.normal((0, 6), (7, 10))
    lab = np.column_stack([rng.uniform(8, 92, colours), mean + rng.normal(0, (9, 13), (colours, 2))])
    return lab_to_rgb(lab[None])[0]


def pink_noise(rng: np.random.Generator, size: int) -> Image:
    """A colour image whose amplitude spectrum falls as 1/f^a, a in 0.9..1.4: natural scenes have about 1.2 (Tolhurst, Tadmor, Chao 1992).

    Lightness and the two colour axes of Lab are independent fields; most contrast is in the lightness, as in natural scenes.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    exponent = rng.uniform(0.9, 1.4)
    fields = np.stack([pink_field(rng, size, exponent) for _ in range(3)], axis=-1)
    contrast, mean = rng.uniform((14, 3, 3), (24, 10, 12)), rng.normal((50, 0, 4), (8, 6, 8))
    lab = mean + contrast * fields
    lab[..., 0] = np.clip(lab[..., 0], 0, 100)
    return to_image(lab_to_rgb(lab))


def pink_field(rng: np.random.Generator, size: int, exponent: float) -> NDArray[np.float64]:
    """A random field whose amplitudes fall as 1/f^exponent. [size, size], mean 0, standard deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf  # no mean
    spectrum = (rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)) / frequency**exponent
    field = np.fft.irfft2(spectrum, s=(size, size))
    return field / field.std()
