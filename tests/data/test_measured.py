"""Measurements against closed forms."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from biqa.data.measured import blockiness, brightness, channels, colourfulness, contrast, lower_tenth, luma, measure, noise, sharpness
from biqa.language.features import ATTRIBUTES


def grey(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def test_names_are_the_attributes_that_have_words() -> None:
    assert list(measure(grey(np.zeros((16, 16))))) == [spec.name for spec in ATTRIBUTES]


def test_a_flat_image_has_nothing_but_its_brightness() -> None:
    assert measure(grey(np.full((32, 24), 51))) == pytest.approx(
        {"brightness": 0.2, "contrast": 0, "colourfulness": 0, "sharpness": 0, "noise": 0, "blockiness": 1}, abs=1e-6
    )


def test_luma_is_bt601() -> None:
    assert luma(channels(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)))[0] == pytest.approx([76.245, 149.685, 29.07], abs=1e-4)


def test_half_black_half_white_has_the_largest_contrast() -> None:
    y = np.zeros((16, 16), np.float32)
    y[:, 8:] = 255
    assert contrast(y) == pytest.approx(0.5)
    assert brightness(y) == pytest.approx(0.5)


def test_colourfulness_of_one_colour_and_of_two() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200  # rg = 200, yb = 100 everywhere: only the means count
    assert colourfulness(channels(red)) == pytest.approx(0.3 * np.hypot(200, 100), rel=1e-5)
    half = red.copy()
    half[:8] = 0  # halves: deviations are half the range, and so are the means
    assert colourfulness(channels(half)) == pytest.approx(1.3 * np.hypot(100, 50), rel=1e-5)


def test_laplacian_of_a_checkerboard_and_of_a_ramp() -> None:
    board = np.indices((16, 16)).sum(0) % 2 * 10.0
    assert sharpness(board.astype(np.float32)) == pytest.approx(40.0**2)  # the response is +-40
    ramp = np.tile(np.arange(16.0, dtype=np.float32), (16, 1))
    assert sharpness(ramp) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("sigma", [1.0, 5.0, 20.0])
def test_noise_is_the_deviation_that_was_added(sigma: float) -> None:
    ramp = np.linspace(50, 200, 256)[None, :]
    y = (ramp + np.random.default_rng(0).normal(0, sigma, (256, 256))).astype(np.float32)
    assert noise(y) == pytest.approx(sigma, rel=0.05)


def test_edges_are_not_taken_for_noise() -> None:
    stripes = np.repeat((np.arange(16) % 2 * 200.0)[None, :], 128, axis=0).repeat(8, axis=1)
    y = (stripes + np.random.default_rng(0).normal(0, 2, stripes.shape)).astype(np.float32)
    assert noise(y) == pytest.approx(2.0, rel=0.1)


def test_blocks_are_found_on_their_grid_only() -> None:
    blocks = np.random.default_rng(0).uniform(0, 200, (8, 8)).repeat(8, 0).repeat(8, 1).astype(np.float32)
    steps = [np.abs(np.diff(blocks[::8, ::8], axis=axis)).mean() for axis in (0, 1)]
    assert blockiness(blocks) == pytest.approx(1 + np.mean(steps), rel=1e-5)  # inside a block nothing changes
    shifted = np.pad(blocks, ((0, 0), (4, 0)), mode="edge")[:, :-4]
    assert blockiness(shifted) < blockiness(blocks)
    assert blockiness(np.random.default_rng(0).normal(100, 20, (256, 256)).astype(np.float32)) == pytest.approx(1, abs=0.03)


def test_an_image_without_a_block_edge_is_refused() -> None:
    with pytest.raises(ValueError, match="20 x 15 pixels are too few to measure: at least 16 a side"):
        measure(grey(np.zeros((15, 20))))


@pytest.mark.parametrize("shape", [(16, 16), (17, 300), (403, 131), (90, 20000)], ids=str)
@pytest.mark.parametrize("colours", [256, 4], ids=["many values", "few values"])
def test_filters_in_bands_are_those_of_scipy(shape: tuple[int, int], colours: int) -> None:
    """Few values of grey: whole plateaus of one gradient lie at the threshold of the flattest tenth, and rounding says which part of them counts."""
    values = np.random.default_rng(0).integers(0, colours, (*shape, 1)) * (255 // (colours - 1))
    y = luma(channels(np.repeat(values, 3, axis=2).astype(np.uint8)))
    inner = (slice(1, -1), slice(1, -1))
    gradient = np.hypot(ndimage.sobel(y, axis=0), ndimage.sobel(y, axis=1))[inner]
    response = ndimage.correlate(y, np.outer([1, -2, 1], [1, -2, 1]))[inner]
    flattest = gradient <= np.quantile(gradient, 0.1)
    assert noise(y) == pytest.approx(np.sqrt(np.pi / 2) / 6 * np.abs(response[flattest]).mean(), rel=1e-6)
    assert sharpness(y) == pytest.approx(ndimage.laplace(y)[inner].var(), rel=1e-6)


@pytest.mark.parametrize("size", [2, 10, 11, 12, 256, 4097])
def test_the_lower_tenth_is_the_quantile_to_the_bit(size: int) -> None:
    rng = np.random.default_rng(size)
    for values in (rng.random(size), rng.integers(0, 3, size), 29 + rng.integers(0, 5, size) * 2e-6):
        single = values.astype(np.float32)
        assert lower_tenth(single) == np.quantile(single, 0.1)
