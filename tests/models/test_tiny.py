"""The front end against the definition of the DCT, and the tokenizer on biqa's own wording."""

import numpy as np
import pytest
import torch

from biqa.language import features, prompts
from biqa.language.levels import LEVELS
from biqa.models.tiny import CHANNELS, LogDctImageProcessor, log_dct


def test_constant_image_has_only_its_mean():
    image = np.full((96, 96, 3), 128 + 40, np.uint8)
    image[..., 1:] = 128
    values = log_dct(image, 12) * 1.5 + 2.0
    assert values.shape == (CHANNELS, 12, 12)
    np.testing.assert_allclose(values[0], np.log1p(8 * 40), rtol=1e-5)  # orthonormal 8x8: DC = 8 x mean
    np.testing.assert_allclose(values[1:], 0.0, atol=1e-4)


def test_a_cosine_of_the_basis_lights_one_coefficient():
    x = np.arange(8)
    basis = np.cos((2 * x + 1) * 3 * np.pi / 16)
    image = np.full((96, 96, 3), 128, np.uint8)
    image[..., 0] = np.round(128 + 100 * np.tile(basis, 12)[None, :])
    values = (log_dct(image, 12) * 1.5 + 2.0)[:, 0, 0]
    assert int(values[:64].argmax()) == 3
    assert values[3] == pytest.approx(np.log1p(100 * np.sqrt(8) * 2), rel=0.01)
    assert np.delete(values, 3).max() < 1.2  # rounding to integers only


def test_larger_images_are_averaged_like_torch_does():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8 * 31, 8 * 40, 3), dtype=np.uint8)
    blocks = torch.stack(
        [
            torch.stack([torch.from_numpy(log_dct(image[8 * r : 8 * r + 8, 8 * c : 8 * c + 8], 1))[:, 0, 0] for c in range(40)], -1)
            for r in range(31)
        ],
        -2,
    )  # fmt: skip
    expected = torch.nn.functional.adaptive_avg_pool2d(blocks, (12, 12))
    np.testing.assert_allclose(log_dct(image, 12), expected.numpy(), atol=1e-4)


def test_images_smaller_than_the_grid_are_refused_by_no_one(picture):
    values = LogDctImageProcessor(12)(images=[picture(0, size=20)], return_tensors="pt")["pixel_values"]
    assert values.shape == (1, CHANNELS, 12, 12)
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
