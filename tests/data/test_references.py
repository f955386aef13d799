import numpy as np
import pytest
from PIL import Image

from biqa.data.references import dead_leaves, fingerprint, folder_references, photographs, pink_field, pink_noise
from biqa.errors import BadRecord, DatasetNotFound


def photograph(path, size=(64, 48), colour=True, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels if colour else pixels[..., 0]).save(path)


def test_photographs_of_the_installed_packages():
    found = photographs()
    assert len(found) == 13
    assert len({reference.path for reference in found}) == 13
    for reference in found:
        pixels = reference.pixels()
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert min(pixels.shape[:2]) >= 300
        assert bool(np.ptp(pixels, axis=2).any()) == reference.colour, reference.name


@pytest.mark.parametrize("make", [dead_leaves, pink_noise])
def test_procedural_images_are_seeded_and_have_contrast(make):
    image = make(np.random.default_rng(1), 96)
    assert image.shape == (96, 96, 3)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, make(np.random.default_rng(1), 96))
    assert not np.array_equal(image, make(np.random.default_rng(2), 96))
    for seed in range(20):
        assert 20 < make(np.random.default_rng(seed), 64).std() < 100


def spectral_exponent(field):
    """Slope of log amplitude over log frequency."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(field.shape[0]), np.fft.fftfreq(field.shape[1]), indexing="ij"))
    inside = (frequency > 0.02) & (frequency < 0.4)
    return -np.polyfit(np.log(frequency[inside]), np.log(np.abs(np.fft.fft2(field))[inside]), 1)[0]


@pytest.mark.parametrize("exponent", [0.8, 1.4])
def test_pink_field_falls_with_its_exponent(exponent):
    field = pink_field(np.random.default_rng(0), 128, exponent)
    assert field.mean() == pytest.approx(0, abs=1e-9)
    assert field.std() == pytest.approx(1)
    assert spectral_exponent(field) == pytest.approx(exponent, abs=0.05)


def test_dead_leaves_have_the_spectrum_of_natural_scenes():
    slopes = [spectral_exponent(dead_leaves(np.random.default_rng(seed), 128).mean(axis=2)) for seed in range(10)]
    assert 0.9 < np.mean(slopes) < 1.5


def test_folder_takes_images_of_sub_folders_and_sees_colour(tmp_path):
    (tmp_path / "deep").mkdir()
    photograph(tmp_path / "b.png")
    photograph(tmp_path / "deep" / "a.JPG", colour=False)
    (tmp_path / "notes.txt").write_text("no image")
    found = folder_references(tmp_path)
    assert [(reference.name, reference.colour) for reference in found] == [("b.png", True), ("deep/a.JPG", False)]
    assert found[0].pixels().shape == (48, 64, 3)


def test_photograph_is_turned_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
    assert folder_references(tmp_path)[0].pixels().shape == (64, 48, 3)


def test_missing_and_empty_folder_are_named(tmp_path):
    with pytest.raises(DatasetNotFound, match=r"data.references=.*nowhere: there is no such folder. Name a folder"):
        folder_references(tmp_path / "nowhere")
    with pytest.raises(DatasetNotFound, match=r"no image inside \(looked for .bmp"):
        folder_references(tmp_path)


def test_undecodable_image_is_named_or_left_out(tmp_path):
    photograph(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:500])
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(BadRecord, match=r"broken.png: this reference cannot be read \(.*\). Replace it or take it out"):
        folder_references(tmp_path)
    assert [reference.name for reference in folder_references(tmp_path, on_bad_image="skip")] == ["good.png"]


def test_image_of_16_bits_is_refused(tmp_path):
    Image.fromarray(np.full((40, 40), 30000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(BadRecord, match=r"deep.png: this reference cannot be read .its mode I;16 is not one of 8 bits"):
        folder_references(tmp_path)


def test_small_image_is_named(tmp_path):
    photograph(tmp_path / "small.png")
    with pytest.raises(BadRecord, match=r"small.png: 64 x 48 pixels, smaller than data.crop=96"):
        folder_references(tmp_path, smallest=96)
    with pytest.raises(DatasetNotFound, match=r"none of its images can be used. Each must decode and be at least 96"):
        folder_references(tmp_path, smallest=96, on_bad_image="skip")


def test_fingerprint_follows_names_and_content(tmp_path):
    prints = set()
    photograph(tmp_path / "a.png")
    prints.add(fingerprint(tmp_path))
    assert fingerprint(tmp_path) in prints
    (tmp_path / "a.png").rename(tmp_path / "b.png")
    prints.add(fingerprint(tmp_path))
    photograph(tmp_path / "b.png", seed=1)
    prints.add(fingerprint(tmp_path))
    photograph(tmp_path / "c.png")
    prints.add(fingerprint(tmp_path))
    assert len(prints) == 4
