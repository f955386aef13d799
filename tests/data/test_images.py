"""Files to RGB."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biqa.data.images import load_image
from biqa.errors import BadRecord

RED = (200, 10, 20)


@pytest.mark.parametrize(
    ("ending", "options"), [("png", {}), ("bmp", {}), ("JPG", {"quality": 100}), ("tif", {}), ("webp", {"lossless": True}), ("jp2", {})]
)
def test_the_known_formats_give_rgb(tmp_path: Path, ending: str, options: dict[str, Any]) -> None:
    Image.new("RGB", (20, 10), RED).save(tmp_path / f"a.{ending}", **options)
    image = load_image(tmp_path / f"a.{ending}")
    assert (image.mode, image.size) == ("RGB", (20, 10))
    assert np.abs(np.asarray(image, np.int16) - RED).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (8, 8), "white").convert("L" if mode == "LA" else mode).convert(mode).save(tmp_path / "a.tif")
    image = load_image(tmp_path / "a.tif")
    assert image.mode == "RGB"
    assert np.asarray(image).min() >= 250


def test_transparent_pixels_lie_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (*RED, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))
    image.save(tmp_path / "a.png")
    assert np.asarray(load_image(tmp_path / "a.png"))[0].tolist() == [[255] * 3, list(RED), [204] * 3]


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(load_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 100, 255]


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert load_image(tmp_path / "a.jpg").size == (10, 20)


def test_pixels_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(BadRecord, match=r"a\.tif: 32-bit pixels \(mode F\) have no stated range"):
        load_image(tmp_path / "a.tif")


def test_other_formats_are_not_even_tried(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif")
    with pytest.raises(BadRecord, match=r"a\.gif: cannot be decoded .*Known formats: PNG, JPEG, BMP, TIFF, WEBP, JPEG2000"):
        load_image(tmp_path / "a.gif")


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "a.png")
    with pytest.raises(BadRecord, match=r"a\.png: 9000 x 9000 pixels are more than 80,000,000\. Scale it down"):
        load_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000_000)  # what Pillow itself finds suspicious
    with pytest.raises(BadRecord, match="Scale it down"):
        load_image(tmp_path / "a.png")
