"""Large images: how they are reduced, and what becomes of the copies."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from biqa.data import images as module
from biqa.data.images import image_of, load_image
from biqa.data.measured import measure
from biqa.data.record import Record, Reduction
from biqa.errors import BadRecord


def natural(width: int, height: int, seed: int = 0) -> Image.Image:
    """Noise whose amplitude falls with the frequency, as that of photographs does, in three channels of which two follow the first."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    rng = np.random.default_rng(seed)
    waves = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(3, height, width))) / frequency**1.1, s=(height, width))
    waves /= waves.std(axis=(1, 2), keepdims=True)
    mixed = np.stack([waves[0], waves[0] + 0.3 * waves[1], waves[0] + 0.3 * waves[2]], axis=-1)
    return Image.fromarray((120 + 35 * mixed).clip(0, 255).astype(np.uint8))


def pixels(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image, np.int16)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    natural(640, 480).save(tmp_path / "a.jpg", quality=92)
    return tmp_path / "a.jpg"


@pytest.fixture
def to_100(tmp_path: Path) -> Reduction:
    return Reduction(100, tmp_path / "cache")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is decoded, in order."""
    paths: list[Path] = []
    decode = module._decode

    def noted(path: Path, shorter_side: int | None = None) -> tuple[Image.Image, bool]:
        decoded = decode(path, shorter_side)
        paths.append(path)
        return decoded

    monkeypatch.setattr(module, "_decode", noted)
    return paths


def copies(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


# the size


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "a.jpg"
    natural(1601, 1203).save(path, quality=92)
    return path


@pytest.mark.parametrize(
    ("size", "shorter_side", "reduced"),
    [
        ((1600, 1200), 300, (400, 300)),
        ((100, 400), 64, (64, 256)),
        ((1001, 667), 100, (150, 100)),
        ((4002, 4001), 16, (16, 16)),
        ((64, 80), 64, (64, 80)),
        ((50, 900), 64, (50, 900)),
    ],
)
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_the_shorter_side_is_reduced_and_never_enlarged(
    tmp_path: Path, size: tuple[int, int], shorter_side: int, reduced: tuple[int, int], ending: str
) -> None:
    Image.new("RGB", size).save(tmp_path / f"a.{ending}")
    assert load_image(tmp_path / f"a.{ending}", Reduction(shorter_side, None)).size == reduced


@pytest.mark.parametrize(("shorter_side", "scale"), [(210, 1), (200, 2), (100, 4), (48, 8)])
def test_a_jpeg_decoded_at_part_of_its_size_is_hardly_another_image(
    large: Path, monkeypatch: pytest.MonkeyPatch, shorter_side: int, scale: int
) -> None:
    """Against a full decode and the same filter: 0.4 of 255 grey levels on average, 3 for all but one value in a thousand, sharpness within 6 %."""
    scales = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def noted(self: JpegImagePlugin.JpegImageFile, mode: str | None, size: tuple[int, int]) -> object:
        result = draft(self, mode, size)
        scales.append(self.decoderconfig[0])
        return result

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", noted)
    image = load_image(large, Reduction(shorter_side, None))
    assert scales == [scale]
    whole = Image.open(large).resize(image.size, Image.Resampling.BICUBIC)
    difference = np.abs(pixels(image) - pixels(whole))
    assert difference.mean() <= 0.4
    assert np.quantile(difference, 0.999) <= 3
    assert measure(np.asarray(image))["sharpness"] == pytest.approx(measure(np.asarray(whole))["sharpness"], rel=0.06)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_an_image_is_reduced_as_it_is_meant_to_be_seen(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if ending == "jpg" else {}
    natural(600, 401).save(tmp_path / f"a.{ending}", exif=exif, **options)
    image = load_image(tmp_path / f"a.{ending}", Reduction(80, None))
    assert image.size == ((120, 80) if orientation <= 4 else (80, 120))
    upright = load_image(tmp_path / f"a.{ending}").resize(image.size, Image.Resampling.BICUBIC)
    assert np.abs(pixels(image) - pixels(upright)).mean() <= 1.0


def transparent() -> Image.Image:
    image = natural(200, 150).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((200, 150)))
    return image


@pytest.mark.parametrize(
    "make",
    [
        transparent,
        lambda: Image.fromarray(np.linspace(0, 65535, 200 * 150).reshape(150, 200).astype(np.uint16)),
        lambda: natural(200, 150).quantize(17),
        lambda: natural(200, 150).convert("CMYK"),
    ],
    ids=["transparent", "16 bits", "palette", "CMYK"],
)
def test_what_is_reduced_is_what_would_be_seen(tmp_path: Path, make: Callable[[], Image.Image]) -> None:
    make().save(tmp_path / "a.tif")
    reduced = load_image(tmp_path / "a.tif", Reduction(50, None))
    assert reduced.mode == "RGB"
    assert np.array_equal(pixels(reduced), pixels(load_image(tmp_path / "a.tif").resize((67, 50), Image.Resampling.BICUBIC)))


def test_what_is_refused_is_refused_at_any_size(tmp_path: Path, file: Path) -> None:
    small = Reduction(32, tmp_path / "cache")
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    with pytest.raises(BadRecord, match=r"huge\.png: 9000 x 9000 pixels are more than 80,000,000"):
        load_image(tmp_path / "huge.png", small)
    Image.new("RGB", (400, 400)).save(tmp_path / "a.gif")
    with pytest.raises(BadRecord, match=r"a\.gif: cannot be decoded"):
        load_image(tmp_path / "a.gif", small)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(BadRecord, match=r"a\.jpg: cannot be decoded \(image file is truncated"):
        load_image(file, small)
    with pytest.raises(BadRecord, match=r"gone\.jpg: there is no such file"):
        load_image(tmp_path / "gone.jpg", small)
    assert copies(tmp_path / "cache") == []


# the copies


def test_an_image_is_decoded_once_and_its_copy_read_from_then_on(file: Path, to_100: Reduction, read: list[Path]) -> None:
    first = load_image(file, to_100)
    [copy] = copies(to_100.cache)
    assert copy.parts[-3:-1] == ("reduced", "100")
    again = image_of(Record(image="a", path=file, q=0.5, split="train", group="a", score=3.0, reduction=to_100))
    assert read == [file, copy]
    assert first.size == again.size == (133, 100)
    assert np.array_equal(pixels(first), pixels(again))


def damage(copy: Path, how: str) -> None:
    content = copy.read_bytes()
    if how == "deleted":
        copy.unlink()
    elif how == "one bit":
        place = len(content) // 2
        copy.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
    else:
        copy.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "garbage": b"no image " * 99}[how])


@pytest.mark.parametrize("how", ["truncated", "empty", "garbage", "one bit", "deleted"])
def test_a_broken_copy_is_made_again(file: Path, to_100: Reduction, read: list[Path], how: str) -> None:
    first = load_image(file, to_100)
    [copy] = copies(to_100.cache)
    content = copy.read_bytes()
    damage(copy, how)
    again = load_image(file, to_100)
    assert read == [file, file], "the damaged copy was refused"
    assert np.array_equal(pixels(first), pixels(again))
    assert copies(to_100.cache) == [copy]
    assert copy.read_bytes() == content


def test_several_readers_may_meet_a_broken_copy_at_once(file: Path, to_100: Reduction) -> None:
    first = load_image(file, to_100)
    [copy] = copies(to_100.cache)
    content = copy.read_bytes()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            damage(copy, "truncated")
            assert all(np.array_equal(pixels(image), pixels(first)) for image in pool.map(lambda _: load_image(file, to_100), range(16)))
    assert copies(to_100.cache) == [copy]
    assert copy.read_bytes() == content


def test_two_sizes_live_side_by_side(file: Path, to_100: Reduction, read: list[Path]) -> None:
    to_60 = Reduction(60, to_100.cache)
    sizes = [load_image(file, reduction).size for reduction in (to_100, to_60, to_100, to_60)]
    assert sizes == [(133, 100), (80, 60)] * 2
    assert len(copies(to_100.cache)) == 2
    assert read.count(file) == 2


def test_a_changed_file_is_reduced_anew(file: Path, to_100: Reduction) -> None:
    before = load_image(file, to_100)
    natural(640, 480, seed=1).save(file, quality=92)
    os.utime(file, ns=(1, 1))
    after = load_image(file, to_100)
    assert not np.array_equal(pixels(before), pixels(after))
    assert np.array_equal(pixels(after), pixels(load_image(file, Reduction(100, None))))


def test_no_copy_is_made_of_what_is_small_or_where_none_is_kept(tmp_path: Path, file: Path, to_100: Reduction) -> None:
    natural(100, 140).save(tmp_path / "small.png")
    assert load_image(tmp_path / "small.png", to_100).size == (100, 140)
    assert load_image(file, Reduction(100, None)).size == (133, 100)
    assert copies(tmp_path) == [file, tmp_path / "small.png"]


def test_where_nothing_can_be_written_images_are_reduced_all_the_same(tmp_path: Path, file: Path, read: list[Path]) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert load_image(file, Reduction(100, tmp_path / "cache")).size == (133, 100)
    assert read == [file, file]
    assert copies(tmp_path) == [file, tmp_path / "cache"]


def test_a_copy_carries_nothing_but_pixels(tmp_path: Path, to_100: Reduction) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    natural(300, 200).save(tmp_path / "a.jpg", exif=exif, icc_profile=b"profile " * 9000)
    first, again = load_image(tmp_path / "a.jpg", to_100), load_image(tmp_path / "a.jpg", to_100)
    assert first.size == again.size == (100, 150), "turned once, not again when the copy is read"
    [copy] = copies(to_100.cache)
    with Image.open(copy) as image:
        assert image.info == {}
