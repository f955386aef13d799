"""Files to RGB."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biqa.data import images
from biqa.data.images import as_seen, load_image, read_ahead
from biqa.data.record import Reduction
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


@pytest.mark.parametrize("form", ["RGBA", "LA", "I;16", "see-through"])
def test_bands_are_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    rng = np.random.default_rng(0)
    pixels = {"RGBA": rng.integers(0, 256, (23, 11, 4)), "LA": rng.integers(0, 256, (23, 11, 2)), "see-through": rng.integers(0, 256, (23, 11, 3))}
    values = rng.integers(0, 2**16, (23, 11)).astype(np.uint16) if form == "I;16" else pixels[form].astype(np.uint8)
    options = {"transparency": tuple(values[4, 5].tolist())} if form == "see-through" else {}
    Image.fromarray(values).save(tmp_path / "a.png", **options)
    whole = np.asarray(load_image(tmp_path / "a.png"))
    monkeypatch.setattr(images, "BAND", 40)
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), whole)
    if form == "I;16":
        assert np.array_equal(whole[..., 0], np.round(values / 257.0))


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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), r"^a\.png: cannot be read \(Permission denied\)\.$"),
        (MemoryError(), r"cannot be decoded \(MemoryError\)"),
    ],
)
def test_what_the_system_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    with pytest.raises(BadRecord, match=said):
        load_image(Path("a.png"))


def test_an_empty_file_and_a_text_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(BadRecord, match=r"a\.png: cannot be decoded \(0 bytes\)"):
        load_image(tmp_path / "a.png")
    with pytest.raises(BadRecord, match=r"b\.png: cannot be decoded \(not recognised as a picture\)"):
        load_image(tmp_path / "b.png")
    with pytest.raises(BadRecord, match=r"cannot be read \(Is a directory\)"):
        load_image(tmp_path)


def test_an_open_image_is_seen_as_its_file_and_stays_as_it_is(tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, 64).crop((0, 0, 64, 40)).convert("RGBA").save(tmp_path / "a.png", exif=exif)
    for shorter_side in (None, 20):
        expected = load_image(tmp_path / "a.png", Reduction(shorter_side, None) if shorter_side else None)
        with Image.open(tmp_path / "a.png") as opened:
            found = as_seen(opened, "it", shorter_side)
            assert (opened.mode, opened.size) == ("RGBA", (64, 40))
        assert found.size == expected.size
        assert np.array_equal(np.asarray(found), np.asarray(expected))
    picture(0, 400).save(tmp_path / "b.jpg")
    with Image.open(tmp_path / "b.jpg") as opened:
        assert as_seen(opened, "it", 20).size == (20, 20)
        assert opened.size == (400, 400)  # not decoded at part of its size
    with pytest.raises(BadRecord, match="it: 10000 x 9000 pixels are more than 80,000,000"):
        as_seen(Image.new("1", (10000, 9000)), "it")


def test_things_are_read_ahead_in_their_order() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    read = read_ahead(lambda number: 2 * number, numbers(), readers=3, ahead=4)
    assert next(read) == 0
    assert taken == list(range(5))
    assert list(read) == [2 * number for number in range(1, 50)]
    assert list(read_ahead(str, [], readers=1, ahead=1)) == []


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (9000, 9000)).save(tmp_path / "a.png")
    with pytest.raises(BadRecord, match=r"a\.png: 9000 x 9000 pixels are more than 80,000,000\. Scale it down"):
        load_image(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000_000)  # what Pillow itself finds suspicious
    with pytest.raises(BadRecord, match="Scale it down"):
        load_image(tmp_path / "a.png")
