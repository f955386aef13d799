"""Groups, shares and breadth of planted attention; that rows are right is shown for every backbone in tests/models/test_conformance.py."""

import pandas as pd
import pytest
import torch

from biqa.analysis.attention import attention_summary, masses
from biqa.models.inside import GROUPS, Context
from biqa.models.vlm import Prompt


def test_shares_and_breadth_of_planted_rows():
    contexts = [Context(Prompt((0,) * 4), (0, 1, 2, 3)), Context(Prompt((0,) * 2), (2, 2))]
    rows = torch.tensor([[[0.4, 0.3, 0.2, 0.1], [0.25] * 4], [[0, 0, 0.5, 0.5], [0, 0, 1.0, 0]]])
    first, second = masses(rows, contexts)
    assert [first[0][f"{group}_mass"] for group in GROUPS] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [first[0][f"{group}_tokens"] for group in GROUPS] == [1, 1, 1, 1]
    assert (first[1]["entropy"], first[1]["effective"]) == pytest.approx((2, 4))
    assert [second[0][f"{group}_mass"] for group in GROUPS] == [0, 0, 1, 0]
    assert [second[0][f"{group}_tokens"] for group in GROUPS] == [0, 0, 2, 0]
    assert (second[0]["entropy"], second[1]["entropy"]) == (1, 0)
    assert second[1]["effective"] == 1

    frame = pd.DataFrame([{"image": name, **row} for name, of in (("b", second), ("a", first)) for row in of])
    found = attention_summary(frame, resamples=20, seed=0)
    assert (found["images"], found["layers"], found["context"]) == (2, 2, 3)
    assert found["tokens"] == {"image": 0.5, "question": 0.5, "description": 1.5, "rest": 0.5}
    assert [figure["value"] for figure in found["by_layer"]["description"]] == pytest.approx([0.6, 0.625])
    assert found["mean"]["effective"]["value"] == pytest.approx((2 ** first[0]["entropy"] + 4 + 2 + 1) / 4)
    assert sum(found["mean"][group]["value"] for group in GROUPS) == pytest.approx(1)
    assert found["row_sum_error"] < 1e-6


def test_rounded_weights_are_scaled():
    """A model in bfloat16 gives weights that do not quite sum to 1."""
    [[row]] = masses(torch.tensor([[[0.5, 0.499]]]), [Context(Prompt((0, 0)), (0, 2))])
    assert row["image_mass"] + row["description_mass"] == pytest.approx(1, abs=1e-9)
    assert row["sum"] == pytest.approx(0.999)
    frame = pd.DataFrame([{"image": "a", **row}])
    assert attention_summary(frame, resamples=2, seed=0)["row_sum_error"] == pytest.approx(1e-3, rel=1e-3)
