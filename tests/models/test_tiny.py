"""The front end against the definition of the DCT, and the tokenizer on biqa's own wording."""

import numpy as np
import pytest
import torch

from biqa.language import features, prompts
from biqa.language.levels import LEVELS
from biqa.models.tiny import CENTRE, CHANNELS, COEFFICIENTS, LogDctImageProcessor, dct_statistics, log_dct


def test_constant_image_has_only_its_mean():
    image = np.full((96, 96, 3), 128 + 40, np.uint8)
    image[..., 1:] = 128
    values = log_dct(image)
    assert values.shape == (12, 12, COEFFICIENTS)
    np.testing.assert_allclose(values[..., 0], 40 / 40, rtol=1e-5)  # the mean above mid-grey, over MEAN_SCALE
    np.testing.assert_allclose(values[..., 1:], 0.0, atol=1e-4)
    np.testing.assert_allclose(log_dct(255 - image)[..., 0], -41 / 40, rtol=1e-5)  # a dark image is not a bright one


def test_a_cosine_of_the_basis_lights_one_coefficient():
    x = np.arange(8)
    basis = np.cos((2 * x + 1) * 3 * np.pi / 16)
    image = np.full((96, 96, 3), 128, np.uint8)
    image[..., 0] = np.round(128 + 100 * np.tile(basis, 12)[None, :])
    values = log_dct(image)[0, 0]
    assert int(values[:64].argmax()) == 3  # horizontal frequency 3: row 0, column 3
    assert values[3] == pytest.approx(np.log1p(100 * np.sqrt(8) * 2), rel=0.01)
    assert np.delete(values, 3).max() < 1.2  # rounding to integers only


def test_chroma_stands_after_luma():
    image = np.full((8, 8, 3), 128, np.uint8)
    image[..., 2] = 128 + 10  # Cr
    values = log_dct(image)[0, 0]
    assert np.flatnonzero(values > 0.01).tolist() == [64 + 6]
    assert values[70] == pytest.approx(10 / 40, rel=1e-4)


@pytest.mark.parametrize("size", [(96, 96), (248, 320), (20, 500)])
def test_statistics_of_a_cell_are_those_of_its_blocks(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    blocks = log_dct(image)
    made = dct_statistics(image, 3)
    assert made.shape == (CHANNELS, 3, 3)
    pooled = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(blocks).permute(2, 0, 1)[None], (3, 3))[0]
    np.testing.assert_allclose(made[:76], (pooled.numpy() - CENTRE[:, None, None]) / 1.5, atol=1e-4)
    rows, columns = blocks.shape[:2]
    corner = blocks[: -(-rows // 3), : -(-columns // 3)].reshape(-1, 76)
    np.testing.assert_allclose(made[76:152, 0, 0], (corner.std(0) - 0.5) / 0.4, atol=1e-4)
    lower = np.quantile(corner, 0.1, axis=0, method="nearest")
    upper = -np.quantile(-corner, 0.1, axis=0, method="nearest")
    np.testing.assert_allclose(made[152:228, 0, 0], (lower - CENTRE) / 1.5, atol=1e-5)
    np.testing.assert_allclose(made[228:, 0, 0], (upper - CENTRE) / 1.5, atol=1e-5)
    assert (made[152:228] <= made[228:]).all()


def test_images_smaller_than_the_grid_are_refused_by_no_one(picture):
    values = LogDctImageProcessor(3)(images=[picture(0, size=20)], return_tensors="pt")["pixel_values"]
    assert values.shape == (1, CHANNELS, 3, 3)
    assert torch.isfinite(values).all()


def test_front_end_survives_saving(tmp_path):
    LogDctImageProcessor(8).save_pretrained(tmp_path)
    assert LogDctImageProcessor.from_pretrained(tmp_path).grid == 8


def test_own_words_are_single_tokens_and_any_text_comes_back(tiny):
    vlm = tiny(vision=False)
    for level in LEVELS:
        assert len(vlm.continuation(f" {level}")) == 1
    for text in [*features.corpus()[:200], prompts.DESCRIBE, "naïve 日本語 ümlaut?"]:
        assert vlm.tokenizer.decode(vlm.continuation(f" {text}")).strip() == text


def test_same_seed_same_weights_with_and_without_the_tower(tiny):
    whole, decoder = tiny(seed=3), tiny(seed=3, vision=False)
    other = tiny(seed=4, vision=False)
    ids = torch.tensor([decoder.prompt("Rate it.").ids])
    mask = torch.ones_like(ids)
    torch.testing.assert_close(whole.hidden(ids, mask), decoder.hidden(ids, mask))
    assert not torch.allclose(other.hidden(ids, mask), decoder.hidden(ids, mask))
