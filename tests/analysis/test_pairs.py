import numpy as np
import pandas as pd
import pytest

from biqa.analysis.pairs import BY_IMAGE, differences

DRAWS = {"resamples": 200, "seed": 0}


def swaps(images, right):
    return pd.DataFrame({"image": images, "feature": "noise", "right": right, "change": 0.1})


def test_pairs_are_made_by_the_names_of_images():
    ours = swaps(["a", "a", "b", "c"], [1.0, 0.0, 1.0, 1.0])
    theirs = swaps(["d", "c", "b", "a"], [0.0, 0.0, 1.0, 0.0])
    found = differences("grounding", ours, theirs, **DRAWS)
    assert found["right_way"]["value"] == pytest.approx(((0.5 - 0) + (1 - 1) + (1 - 0)) / 3)


def test_a_run_beside_itself_is_no_different():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        [
            {"image": f"{image}", "layer": layer, "level": "bad", "token_1": "a", "entropy": rng.random(), "level_entropy": 1.0, "level_mass": 0.5}
            for image in range(9)
            for layer in (1, 2)
        ]
    )
    for figure in differences("logit_lens", rows, rows.sample(frac=1, random_state=0), **DRAWS).values():
        assert figure == {"value": 0, "low": 0, "high": 0}


def test_paired_intervals_are_narrower_where_images_differ_more_than_runs():
    rng = np.random.default_rng(0)
    common = rng.random(200)

    def contradictions(shift):
        queries = [
            {"image": f"{at:03d}", "query": query, "difference": 2.0 * (value + shift > 0.5)} for at, value in enumerate(common) for query in (0, 1)
        ]
        return pd.DataFrame(queries)

    ours, theirs = contradictions(0.02), contradictions(0.0)
    found = differences("contradiction", ours, theirs, **DRAWS)
    share = np.mean(common + 0.02 > 0.5) - np.mean(common > 0.5)
    assert found["greedy"]["value"] == found["sampled"]["value"] == pytest.approx(share)
    assert found["greedy"]["high"] - found["greedy"]["low"] < 0.06  # unpaired: about 0.2


def test_nothing_in_common():
    assert differences("grounding", swaps(["a"], [1.0]), swaps(["b"], [1.0]), **DRAWS) == {}
    assert differences("grounding", swaps(["a"], [None]), pd.DataFrame(), **DRAWS) == {}
    assert "gap" not in BY_IMAGE  # a gap is a difference already
