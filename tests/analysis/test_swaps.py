"""Which way a score moves when a text is changed: on scorers whose dependence on the text is known."""

import numpy as np
import pandas as pd
import pytest

from biqa.analysis.swaps import swap_rows, swaps_of, swaps_summary
from biqa.language.features import ATTRIBUTES, FEATURES, KADID_DISTORTIONS, describe
from biqa.language.lexicon import better, read

FREE = (
    "The photo is quite sharp, with hardly any noise, but the colours look washed out.",
    "A heavily blurred picture with a lot of grain and low contrast.",
)


@pytest.fixture
def described():
    """Descriptions in the project's own words of 120 images, with a score each."""
    rng = np.random.default_rng(0)
    texts = []
    for number in range(120):
        specs = rng.choice(np.array([*ATTRIBUTES, *KADID_DISTORTIONS], dtype=object), 3, replace=False)
        features = {spec.name: int(rng.integers(spec.lowest, spec.lowest + len(spec.strengths))) for spec in specs}
        texts.append((f"{number:03d}", describe(features, rng), float(rng.random())))
    return [*texts, *((f"free{number}", text, 0.5) for number, text in enumerate(FREE))]


def test_a_swap_changes_one_feature_to_the_far_end(described):
    for image, text, _ in described:
        said = read(text).features
        swaps = swaps_of(image, text)
        assert {swap.feature for swap in swaps} <= set(said)
        for swap in swaps:
            spec = FEATURES[swap.feature]
            lowest, highest = spec.lowest, spec.lowest + len(spec.strengths) - 1
            assert swap.strength == said[swap.feature]
            assert swap.to in (lowest, highest)
            assert abs(swap.to - swap.strength) >= (highest - lowest) / 2
            assert read(swap.text).features == {**said, swap.feature: swap.to}


def test_every_named_scale_is_swapped(described):
    """In the project's own words none is lost."""
    for image, text, _ in described[:120]:
        assert {swap.feature for swap in swaps_of(image, text)} == {name for name in read(text).features if FEATURES[name].ordered}


def planted(pairs):
    """A scorer that reads nothing but the text: better features up, worse ones down."""
    scores = []
    for _, text in pairs:
        of = [(better(name) or 0) * (strength - FEATURES[name].lowest) for name, strength in read(text).features.items()]
        scores.append(0.5 + 0.01 * sum(of))
    return np.array(scores)


def test_a_scorer_that_follows_the_text_moves_the_right_way_always(described):
    before = planted([(image, text) for image, text, _ in described])
    rows = swap_rows([(image, text, float(score)) for (image, text, _), score in zip(described, before, strict=True)], planted)
    found = swaps_summary(pd.DataFrame(rows), resamples=100, seed=0)
    assert found["right_way"] == {"value": 1, "low": 1, "high": 1}
    for feature, figures in found["swaps"].items():
        if better(feature) is None:
            assert figures["right_way"] is None
            assert figures["change"]["value"] == pytest.approx(0)
        else:
            assert figures["right_way"]["value"] == 1
            assert figures["change"]["value"] > 0


def test_one_that_follows_it_backwards_never_does(described):
    def backwards(pairs):
        return 1 - planted(pairs)

    before = backwards([(image, text) for image, text, _ in described])
    rows = swap_rows([(image, text, float(score)) for (image, text, _), score in zip(described, before, strict=True)], backwards)
    assert swaps_summary(pd.DataFrame(rows), resamples=20, seed=0)["right_way"]["value"] == 0


def test_one_that_sees_the_picture_alone_is_at_chance(described):
    rows = swap_rows(described, lambda pairs: np.array([dict((image, score) for image, _, score in described)[image] for image, _ in pairs]))
    found = swaps_summary(pd.DataFrame(rows), resamples=20, seed=0)
    assert found["right_way"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert all(figures["change"]["value"] == 0 for figures in found["swaps"].values())


def test_one_that_answers_anything_is_at_chance(described):
    shares = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = swap_rows([(image, text, float(rng.random())) for image, text, _ in described], lambda pairs, rng=rng: rng.random(len(pairs)))
        shares.append(swaps_summary(pd.DataFrame(rows), resamples=2, seed=0)["right_way"]["value"])
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


def test_texts_that_name_nothing():
    rows = swap_rows([("a", "Nothing to say.", 0.5), ("b", "", 0.5)], lambda pairs: np.zeros(len(pairs)))
    assert rows == []
    assert swaps_summary(pd.DataFrame(rows), resamples=5, seed=0) == {"swaps": {}, "right_way": None}


def test_figures_of_planted_rows():
    rows = pd.DataFrame(
        [
            {"image": "a", "feature": "noise", "change": 0.2, "right": 1.0},
            {"image": "a", "feature": "sharpness", "change": -0.1, "right": 0.0},
            {"image": "b", "feature": "noise", "change": 0.4, "right": 1.0},
            {"image": "b", "feature": "brightness", "change": 0.4, "right": None},
        ]
    )
    found = swaps_summary(rows, resamples=50, seed=0)
    assert found["right_way"]["value"] == pytest.approx((0.5 + 1) / 2)
    assert found["swaps"]["noise"]["images"] == 2
    assert found["swaps"]["noise"]["change"]["value"] == pytest.approx(0.3)
    assert found["swaps"]["sharpness"]["right_way"]["value"] == 0
    assert found["swaps"]["brightness"]["right_way"] is None
