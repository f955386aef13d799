import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm, rankdata

from biqa.data.distortions import AMOUNTS, DISTORTIONS, distort
from biqa.data.distortions.blur import disk, line
from biqa.data.distortions.compression import crop_psnr
from biqa.data.kadid_opinions import opinion
from biqa.data.recipes import cut
from biqa.data.references import photographs
from biqa.errors import IncompatibleChoice

UNCHANGED = {("gaussian_blur", 1), ("motion_blur", 1), ("colour_saturation_lab", 1), ("mean_shift", 3)}
SIGNED = {"mean_shift", "contrast_change"}
SATURATING = {"colour_shift"}  # once the shift exceeds the width of the edges, more of it is no longer farther away


def generator(seed=0):
    return np.random.default_rng(seed)


def grey(value, size=96):
    return np.full((size, size, 3), value, dtype=np.uint8)


def rms(a, b):
    return math.sqrt(np.mean((a.astype(float) - b) ** 2))


@pytest.fixture(scope="module")
def crops():
    """Crops of 96 pixels out of four colour photographs."""
    chosen = [reference for reference in photographs() if reference.name in ("astronaut", "china", "coffee", "motorcycle")]
    return [cut(Image.fromarray(reference.pixels()), 96, generator(seed), colour=True) for reference in chosen for seed in (1, 2)]


@pytest.fixture(scope="module")
def distances(crops):
    """Type -> mean distance to the reference at level 1 to 5."""
    return {
        kind: [float(np.mean([rms(distort(crop, kind, level, generator(7)), crop) for crop in crops])) for level in range(1, 6)]
        for kind in DISTORTIONS
    }


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_shape_type_and_determinism(kind, crops):
    for level in range(1, 6):
        before = crops[0].copy()
        once, again = distort(crops[0], kind, level, generator(3)), distort(crops[0], kind, level, generator(3))
        assert once.shape == (96, 96, 3)
        assert once.dtype == np.uint8
        np.testing.assert_array_equal(once, again)
        np.testing.assert_array_equal(crops[0], before)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_takes_any_shape(kind):
    image = generator().integers(0, 256, (50, 64, 3), dtype=np.uint8)
    assert distort(image, kind, 5, generator()).shape == (50, 64, 3)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_changes_the_image_and_level_by_level_more(kind, distances):
    for level, distance in enumerate(distances[kind], start=1):
        assert distance < 0.6 if (kind, level) in UNCHANGED else distance > 2
    if kind not in SIGNED | SATURATING:
        assert np.all(np.diff(distances[kind]) > 0)


@pytest.mark.parametrize("kind", DISTORTIONS)
def test_distance_ranks_levels_as_the_observers_of_kadid_do(kind, distances):
    opinions = [opinion(kind, level)[0] for level in range(1, 6)]
    srcc = np.corrcoef(rankdata(distances[kind]), rankdata(opinions))[0, 1]
    assert srcc <= (-0.79 if kind in SIGNED else -0.89)


def test_random_types_follow_the_generator(crops):
    for kind in ("motion_blur", "colour_shift", "white_noise", "impulse_noise", "jitter", "non_eccentricity_patch", "colour_block"):
        assert not np.array_equal(distort(crops[0], kind, 5, generator(1)), distort(crops[0], kind, 5, generator(2)))


def test_order_and_number_of_types():
    assert len(DISTORTIONS) == 25
    assert DISTORTIONS[0] == "gaussian_blur"
    assert DISTORTIONS[9] == "jpeg"
    assert DISTORTIONS[24] == "contrast_change"


def test_unknown_type_and_level_are_refused():
    with pytest.raises(IncompatibleChoice, match=r"no distortion type 'fog'. Choose from: gaussian_blur, lens_blur"):
        distort(grey(0), "fog", 1, generator())
    with pytest.raises(IncompatibleChoice, match="jpeg has the levels 1 to 5, not 6"):
        distort(grey(0), "jpeg", 6, generator())


def test_gaussian_blur_of_an_edge_is_the_normal_distribution():
    image = grey(0)
    image[:, 48:] = 255
    blurred = distort(image, "gaussian_blur", 4, generator())
    np.testing.assert_allclose(blurred[50, :, 0], 255 * norm.cdf(np.arange(96) + 0.5, loc=48, scale=2), atol=1.5)


@pytest.mark.parametrize("radius", [1, 2, 8])
def test_disk_has_the_area_of_a_circle(radius):
    kernel = disk(radius)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert kernel.max() == pytest.approx(1 / (math.pi * radius**2), rel=0.03)
    np.testing.assert_array_equal(kernel, kernel.T)


def test_line_weighs_its_pixels_evenly():
    kernel = line(10, angle=0.0)
    assert kernel.shape == (11, 11)
    np.testing.assert_allclose(kernel[5], [0.05, *[0.1] * 9, 0.05], atol=1e-6)
    np.testing.assert_allclose(line(10, angle=math.pi / 2), kernel.T, atol=1e-6)
    np.testing.assert_array_equal(line(1, angle=0.7), [[1.0]])


def test_blur_that_would_reach_across_a_small_crop_is_cut():
    image = generator().integers(0, 256, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(distort(image, "lens_blur", 3, generator()), distort(image, "lens_blur", 5, generator()))


@pytest.mark.parametrize("level", [1, 3, 5])
def test_white_noise_has_the_variance_of_the_table(level):
    noisy = distort(grey(128, 256), "white_noise", level, generator())
    assert np.var(noisy / 255) == pytest.approx(AMOUNTS["white_noise"][1][level - 1], rel=0.02)
    assert noisy.mean() == pytest.approx(128, abs=0.3)


def test_noise_in_ycbcr_spreads_to_rgb_by_the_matrix_of_bt601():
    noisy = distort(grey(128, 256), "white_noise_ycbcr", 5, generator()) / 255
    assert noisy[..., 0].var() == pytest.approx(0.003 * (1.164**2 + 1.596**2), rel=0.03)
    assert noisy[..., 2].var() == pytest.approx(0.003 * (1.164**2 + 2.017**2), rel=0.03)


def test_multiplicative_noise_grows_with_brightness():
    for value in (60, 120):
        noisy = distort(grey(value, 256), "multiplicative_noise", 4, generator())
        assert np.var(noisy / 255) == pytest.approx(0.02 * (value / 255) ** 2, rel=0.03)


def test_impulse_noise_replaces_its_share_by_black_and_white():
    noisy = distort(grey(128, 256), "impulse_noise", 5, generator())
    assert np.mean(noisy == 0) == pytest.approx(0.015, rel=0.05)
    assert np.mean(noisy == 255) == pytest.approx(0.015, rel=0.05)
    assert np.mean(noisy == 128) == pytest.approx(0.97, rel=0.01)


def test_denoise_takes_most_of_the_noise_away():
    assert np.std(distort(grey(128), "denoise", 3, generator()) / 255) < math.sqrt(0.05) / 3


def test_brighten_of_a_grey():
    x = 100 / 255

    def bent(v):
        return v + 2 * 0.2 * v * (1 - v)

    # the textbook: sRGB -> Y -> L, curve, and back
    lightness = (116 * (((x + 0.055) / 1.055) ** 2.4) ** (1 / 3) - 16) / 100
    through_lab = 1.055 * (((100 * bent(lightness) + 16) / 116) ** 3) ** (1 / 2.4) - 0.055
    brightened = distort(grey(100), "brighten", 2, generator())
    np.testing.assert_allclose(brightened, 255 * (2 * bent(x) + through_lab) / 3, atol=0.6)


@pytest.mark.parametrize("kind", ["brighten", "darken", "contrast_change"])
def test_curves_keep_black_and_white(kind):
    for level in range(1, 6):
        np.testing.assert_array_equal(distort(grey(0), kind, level, generator()), grey(0))
        np.testing.assert_array_equal(distort(grey(255), kind, level, generator()), grey(255))


def test_darken_of_a_grey():
    x = 128 / 255
    np.testing.assert_allclose(distort(grey(128), "darken", 4, generator()), 255 * (x - 2 * 0.4 * x * (1 - x)), atol=0.51)


def test_mean_shift_goes_from_brighter_to_darker():
    assert [int(distort(grey(100), "mean_shift", level, generator())[0, 0, 0]) for level in range(1, 6)] == [138, 120, 100, 80, 62]


def test_contrast_goes_from_more_to_less():
    dark = [int(distort(grey(76), "contrast_change", level, generator())[0, 0, 0]) for level in range(1, 6)]  # 76 = 0.298 * 255
    np.testing.assert_allclose(dark, [255 * (0.25 - amount / 4) for amount in AMOUNTS["contrast_change"][1]], atol=1.5)


def test_saturation_in_hsv_of_zero_leaves_the_largest_channel(crops):
    distorted = distort(crops[0], "colour_saturation_hsv", 4, generator())
    np.testing.assert_allclose(distorted, np.repeat(crops[0].max(axis=2, keepdims=True), 3, axis=2), atol=1)


@pytest.mark.parametrize("kind", ["colour_diffusion", "colour_shift", "colour_saturation_hsv", "colour_saturation_lab"])
def test_colour_distortions_leave_a_grey_image(kind):
    np.testing.assert_allclose(distort(grey(90), kind, 5, generator()), grey(90), atol=1)


def test_colour_diffusion_keeps_lightness(crops):
    from skimage.color import rgb2lab

    diffused = distort(crops[0], "colour_diffusion", 1, generator())
    assert np.abs(rgb2lab(diffused)[..., 0] - rgb2lab(crops[0])[..., 0]).mean() < 1


def test_colour_quantization_leaves_that_many_colours(crops):
    for level, colours in ((1, 64), (5, 8)):
        distorted = distort(crops[1], "colour_quantization", level, generator())
        assert len(np.unique(distorted.reshape(-1, 3), axis=0)) == colours


def test_quantization_leaves_evenly_spaced_values():
    ramp = np.repeat(np.arange(96, dtype=np.uint8)[:, None, None] * 2, 3, axis=2).repeat(96, axis=1)
    values = np.unique(distort(ramp, "quantization", 5, generator()))
    np.testing.assert_array_equal(values, np.rint(np.linspace(0, 255, 7))[: len(values)])


def test_pixelate_blocks_are_constant():
    image = generator().integers(0, 256, (96, 96, 3), dtype=np.uint8)
    pixelated = distort(image, "pixelate", 5, generator())
    rows = int(96 * (0.95 - 0.5**0.6))
    assert len(np.unique(pixelated.reshape(96, -1), axis=0)) == rows
    assert np.count_nonzero(np.any(np.diff(pixelated.astype(int), axis=1), axis=(0, 2))) == rows - 1


def test_jitter_only_moves_and_mixes():
    image = generator().integers(60, 190, (96, 96, 3), dtype=np.uint8)
    jittered = distort(image, "jitter", 5, generator())
    assert jittered.min() >= 60
    assert jittered.max() < 190
    np.testing.assert_array_equal(distort(grey(77), "jitter", 5, generator()), grey(77))


@pytest.mark.parametrize(("shape", "count", "side"), [((384, 512), 100, 16), ((96, 96), 5, 16), ((48, 48), 5, 8)])
def test_patches_keep_their_share_of_the_area(shape, count, side):
    image = np.arange(shape[0] * shape[1], dtype=np.uint32)
    image = np.stack([image >> 16, image >> 8 & 255, image & 255], axis=-1).astype(np.uint8).reshape(*shape, 3)  # no two pixels alike
    changed = np.any(distort(image, "non_eccentricity_patch", 5, generator()) != image, axis=2)
    assert 0.5 * count * side**2 < changed.sum() <= count * side**2


@pytest.mark.parametrize(("shape", "side"), [((384, 512), 32), ((96, 96), 7)])
def test_colour_blocks_keep_their_share_of_the_area(shape, side):
    image = np.zeros((*shape, 3), dtype=np.uint8)
    blocked = distort(image, "colour_block", 1, generator(1))
    assert np.any(blocked, axis=2).sum() == 2 * side**2
    assert len(np.unique(blocked.reshape(-1, 3), axis=0)) == 3


def test_sharpening_overshoots_at_edges_only():
    image = grey(100)
    image[:, 48:] = 150
    sharp = distort(image, "high_sharpen", 1, generator())
    np.testing.assert_allclose(sharp[:, :40], 100, atol=1)
    assert sharp[50, 47, 0] < 80
    assert sharp[50, 48, 0] > 170


def test_jpeg_is_pillows():
    image = generator().integers(0, 256, (96, 96, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=7)
    np.testing.assert_array_equal(distort(image, "jpeg", 4, generator()), np.asarray(Image.open(stream)))


def test_jpeg2000_of_a_whole_image_has_the_ratio(crops):
    whole = np.tile(crops[0], (4, 5, 1))
    stream = io.BytesIO()
    Image.fromarray(whole).save(stream, "JPEG2000", quality_mode="rates", quality_layers=[120], irreversible=True, no_jp2=True)
    assert stream.tell() == pytest.approx(whole.size / 120, rel=0.02)
    np.testing.assert_array_equal(distort(whole, "jpeg2000", 4, generator()), np.asarray(Image.open(stream)))


def test_jpeg2000_of_a_crop_has_the_quality_of_a_part_of_a_photograph(crops):
    for crop in crops:
        for level, ratio in ((1, 16), (4, 120)):
            error = rms(distort(crop, "jpeg2000", level, generator()), crop)
            assert 20 * math.log10(255 / error) == pytest.approx(crop_psnr(crop, ratio), abs=1.5)
