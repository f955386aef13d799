"""A run as a metric beside pyiqa's."""

import numpy as np
import pytest
import torch
from PIL import Image

import biqa
from biqa.errors import BadRecord
from biqa.finished.metric import pictures

pytest_plugins = ["small_runs"]


@pytest.fixture(scope="module")
def folder(finished):
    return finished / "joint"


@pytest.fixture(scope="module")
def metric(folder):
    return biqa.create_metric(folder, device="cpu")


@pytest.fixture
def batch(picture):
    """Three pictures as pyiqa takes them."""
    return torch.stack([torch.from_numpy(np.array(picture(seed, 48))).permute(2, 0, 1) / 255 for seed in range(3)])


def test_a_batch_has_the_scores_of_its_pictures(metric, folder, batch, picture, tmp_path):
    expected = [prediction.score for prediction in biqa.load(folder, device="cpu")([picture(seed, 48) for seed in range(3)])]
    scores = metric(batch)
    assert (scores.shape, scores.dtype, scores.requires_grad) == ((3,), torch.float32, False)
    assert scores.tolist() == pytest.approx(expected, abs=1e-6)
    assert metric(batch, batch).tolist() == scores.tolist()
    picture(0, 48).save(tmp_path / "a.png")
    for one in (tmp_path / "a.png", str(tmp_path / "a.png"), picture(0, 48), batch[:1], batch[:1].double()):
        assert metric(one).tolist() == pytest.approx(expected[:1], abs=1e-5)
    assert metric([tmp_path / "a.png", picture(1, 48)]).tolist() == pytest.approx(expected[:2], abs=1e-5)
    assert metric(batch[:0]).shape == (0,)


def test_it_says_what_it_is(metric):
    assert (metric.lower_better, metric.score_range, metric.metric_name, metric.metric_mode) == (False, "0, 1", "joint", "NR")
    assert isinstance(metric, torch.nn.Module)
    assert sum(parameter.numel() for parameter in metric.parameters()) > 0
    assert not metric.train().training
    assert not any(module.training for module in metric.modules())
    assert not any(parameter.requires_grad for parameter in metric.parameters())


def test_what_rounds_to_the_same_picture_is_the_same(batch):
    seen = pictures(batch)
    assert [np.asarray(one).tolist() for one in pictures((batch + 9e-4).clamp(-9e-4, 1.0009))] == [np.asarray(one).tolist() for one in seen]
    assert seen[0].mode == "RGB"
    assert (torch.from_numpy(np.array(seen[1])).permute(2, 0, 1) == (batch[1] * 255).round()).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x[0], r"shape \(3, 48, 48\) and type float32: give \[N, 3, H, W\]"),
        (lambda x: x[:, :1], r"shape \(3, 1, 48, 48\)"),
        (lambda x: x.permute(0, 2, 3, 1), r"shape \(3, 48, 48, 3\)"),
        (lambda x: x[:, :, :0], r"shape \(3, 3, 0, 48\)"),
        (lambda x: (x * 255).byte(), r"type uint8: .* as x / 255 makes them of bytes"),
        (lambda x: x * 255, r"values from [\d.]+ to [\d.]+: give them in \[0, 1\]\. Divide bytes by 255"),
        (lambda x: x / x.max() + 2e-3, r"values from [\d.]+ to 1\.002: give them in"),
        (lambda x: x * 2 - 1, r"values from -[\d.]+ to"),
        (lambda x: x.masked_fill(x > 0.7, float("nan")), r"holds values that are no numbers"),
        (lambda x: x / 0, r"holds values that are no numbers"),
    ],
)
def test_anything_else_is_refused(metric, batch, change, said):
    with pytest.raises(BadRecord, match=said):
        metric(change(batch))


def test_a_file_that_is_no_picture_is_refused(metric, tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(BadRecord, match=r"a\.jpg: cannot be decoded"):
        metric(tmp_path / "a.jpg")
    with pytest.raises(BadRecord, match="32-bit pixels"):
        metric(Image.fromarray(np.ones((8, 8), np.float32)))
