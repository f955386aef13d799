"""What is summed up from rows; that the rows are right is shown for every backbone in tests/models/test_conformance.py."""

import numpy as np
import pandas as pd
import pytest
import torch

from biqa.analysis.lens import commit_depth, lens_rows, lens_summary
from biqa.evaluation.answers import PROBABILITIES
from biqa.language.levels import LEVELS
from biqa.language.prompts import JOINT
from biqa.models.inside import context_of, layer_states


def rows_of(levels: list[list[str]], tokens: list[list[str]]) -> pd.DataFrame:
    """Planted rows: for each image the level and the token on top, by layer."""
    rows = []
    for image, (said, on_top) in enumerate(zip(levels, tokens, strict=True)):
        for layer, (level, token) in enumerate(zip(said, on_top, strict=True), 1):
            p = {name: float(name == f"p_{level}") for name in PROBABILITIES}
            rows.append(
                {
                    "image": f"i{image}",
                    "layer": layer,
                    "level": level,
                    **p,
                    "level_mass": 0.5,
                    "entropy": layer,
                    "level_entropy": 0.0,
                    "token_1": token,
                }
            )
    return pd.DataFrame(rows)


def test_planted_rows():
    levels = [["bad"] * 4 + ["good"] * 4, ["good"] * 8, ["bad", "good"] * 4]
    tokens = [["a"] * 8, ["a", "b", "c", "d", "e", "f", "g", "h"], ["a", "b"] * 4]
    found = lens_summary(rows_of(levels, tokens).sample(frac=1, random_state=0), resamples=50, seed=0)
    assert (found["images"], found["layers"]) == (3, 8)
    assert found["commit_depth"]["value"] == pytest.approx((5 + 1 + 8) / 3)
    assert found["commit_share"]["value"] == pytest.approx((5 + 1 + 8) / 24)
    assert found["switches"]["value"] == pytest.approx((1 + 1 + 2) / 3)  # of layers 7 and 8
    assert found["candidates"]["value"] == pytest.approx((1 + 8 + 2) / 3)
    by_layer = found["by_layer"]
    assert [figure["value"] for figure in by_layer["agrees"]] == pytest.approx([1 / 3, 2 / 3, 1 / 3, 2 / 3, 2 / 3, 1, 2 / 3, 1])
    assert [figure["value"] for figure in by_layer["p_good"]] == [figure["value"] for figure in by_layer["agrees"]]
    assert [figure["value"] for figure in by_layer["entropy"]] == list(range(1, 9))
    low, value, high = (by_layer["agrees"][0][part] for part in ("low", "value", "high"))
    assert low < value < high


def test_commit_depth():
    agrees = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 1]], dtype=bool)
    assert commit_depth(agrees).tolist() == [3, 2, 1, 3]
    assert commit_depth(np.ones((2, 1), dtype=bool)).tolist() == [1, 1]


def test_one_layer():
    found = lens_summary(rows_of([["bad"], ["good"]], [["a"], ["b"]]), resamples=10, seed=0)
    assert found["commit_depth"] == found["switches"] == {"value": 1, "low": 1, "high": 1}


def test_entropy_and_tokens_are_those_of_the_whole_vocabulary(tiny, picture):
    vlm = tiny()
    context = context_of(vlm, JOINT, "The image is dark.", picture())
    [rows] = lens_rows(vlm, [context])
    with torch.no_grad():
        logits = vlm.logits(vlm.model.model.language_model.norm(layer_states(vlm, [context.prompt])[0]))
    for row, of_layer in zip(rows, logits, strict=True):
        whole = torch.distributions.Categorical(logits=of_layer)
        assert row["entropy"] == pytest.approx(float(whole.entropy()) / np.log(2), abs=1e-4)
        order = of_layer.softmax(-1).sort(descending=True)
        assert [row[f"prob_{place}"] for place in range(1, 5)] == pytest.approx(order.values[:4].tolist())
        assert [row[f"token_{place}"] for place in range(1, 5)] == [vlm.tokenizer.decode([token]) for token in order.indices[:4]]
        five = of_layer[vlm.level_ids].softmax(-1)
        assert row["level_entropy"] == pytest.approx(float(torch.distributions.Categorical(probs=five).entropy()) / np.log(2), abs=1e-4)
        assert row["level_mass"] == pytest.approx(float(whole.probs[vlm.level_ids].sum()), rel=1e-4)
        assert row["level"] == LEVELS[int(five.argmax())]
