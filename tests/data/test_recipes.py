from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from biqa.data.distortions import DISTORTIONS
from biqa.data.recipes import MIXTURE, PLACE, USERS_MIXTURE, cut, divide, draw_recipes, label, render
from biqa.data.references import Reference, photographs
from biqa.data.synthetic import TEN_KINDS

ARGUMENTS: dict[str, Any] = {
    "references": photographs(),
    "mixture": MIXTURE,
    "kinds": TEN_KINDS,
    "two_at_once": 0.25,
    "pristine": 0.05,
    "seed": 0,
}


def draw(split, count, **changes):
    return draw_recipes(split, count, **{**ARGUMENTS, **changes})


def test_each_split_has_colour_and_grey_photographs():
    for seed in range(10):
        sides = divide(photographs(), seed)
        assert sorted(reference.name for side in sides.values() for reference in side) == sorted(reference.name for reference in photographs())
        for side in sides.values():
            assert {reference.colour for reference in side} == {True, False}
    assert divide(photographs(), 0) != divide(photographs(), 1)


@pytest.mark.parametrize("count", [3, 4, 20])
def test_division_gives_each_split_something(count):
    sides = divide([Reference(str(number), Path(str(number)), colour=number > 0) for number in range(count)], seed=0)
    assert sum(map(len, sides.values())) == count
    assert len(sides["train"]) >= len(sides["test"]) >= len(sides["val"]) >= 1


def test_label_of_one_distortion_is_the_opinion():
    q, std = label([("gaussian_blur", 3)])
    assert q == pytest.approx((2.9111 - 1) / 4)
    assert std == pytest.approx(0.4279 / 4)


def test_label_of_two_is_the_product():
    q1, s1, q2, s2 = (2.9111 - 1) / 4, 0.4279 / 4, (4.338 - 1) / 4, 0.2223 / 4
    q, std = label([("gaussian_blur", 3), ("jpeg", 1)])
    assert q == pytest.approx(q1 * q2)
    # the variance of a product of independent factors, by simulation
    rng = np.random.default_rng(0)
    product = rng.normal(q1, s1, 400_000) * rng.normal(q2, s2, 400_000)
    assert std == pytest.approx(product.std(), rel=0.01)


def test_label_of_none_is_the_best_and_has_no_deviation():
    assert label([]) == (1.0, None)


def test_every_type_has_a_station():
    assert set(PLACE) == set(DISTORTIONS)


def test_types_and_levels_are_balanced():
    recipes = draw("train", 500, two_at_once=0.0, pristine=0.0)
    assert set(Counter(recipe.distortions for recipe in recipes).values()) == {10}


def test_shares_are_those_asked_for():
    recipes = draw("train", 4000)
    amounts = Counter(len(recipe.distortions) for recipe in recipes)
    assert amounts[2] / 4000 == pytest.approx(0.25, abs=0.03)
    assert amounts[0] / 4000 == pytest.approx(0.05, abs=0.015)
    sources = Counter(recipe.source for recipe in recipes)
    for source, share in MIXTURE.items():
        assert sources[source] / 4000 == pytest.approx(share, abs=0.03)


def test_two_at_once_come_from_two_stations_in_the_order_of_the_camera():
    recipes = draw("train", 300, two_at_once=1.0, pristine=0.0)
    for recipe in recipes:
        (first, _), (second, _) = recipe.distortions
        assert PLACE[first] < PLACE[second]
    assert {("gaussian_blur", "jpeg"), ("darken", "white_noise")} <= {tuple(kind for kind, _ in recipe.distortions) for recipe in recipes}


def test_a_longer_list_begins_with_the_shorter_one():
    assert draw("train", 50) == draw("train", 80)[:50]


def test_splits_and_seeds_differ():
    train, val = draw("train", 50), draw("val", 50)
    other = draw("train", 50, seed=1)
    assert [recipe.distortions for recipe in train] != [recipe.distortions for recipe in val]
    assert [recipe.distortions for recipe in train] != [recipe.distortions for recipe in other]
    assert not {recipe.seed for recipe in train} & {recipe.seed for recipe in (*val, *other)}


def test_colour_distortions_fall_on_colour_photographs():
    options = {"mixture": USERS_MIXTURE, "kinds": ("colour_saturation_lab", "jpeg"), "two_at_once": 0.0, "pristine": 0.0}
    recipes = draw("train", 200, **options)
    grey = {reference.name for reference in photographs() if not reference.colour}
    groups = {kind: {recipe.group for recipe in recipes if recipe.distortions[0][0] == kind} for kind in ("colour_saturation_lab", "jpeg")}
    assert not groups["colour_saturation_lab"] & grey
    assert groups["jpeg"] & grey


def test_pristine_crop_is_the_cut_itself():
    (recipe,) = draw("train", 1, mixture=USERS_MIXTURE, two_at_once=0.0, pristine=1.0)
    reference = next(reference for reference in photographs() if reference.name == recipe.group)
    expected = cut(Image.fromarray(reference.pixels()), 64, np.random.default_rng(recipe.seed))
    np.testing.assert_array_equal(render(recipe, reference, 64), expected)


def test_cut_looks_for_structure_and_colour():
    rng = np.random.default_rng(0)
    pixels = np.full((600, 600, 3), 120, dtype=np.uint8)
    noise = np.asarray(Image.fromarray(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8)).resize((200, 200), Image.Resampling.NEAREST))
    pixels[:200, :200] = noise[..., :1]  # grey structure
    pixels[400:, 400:] = noise
    photograph = Image.fromarray(pixels)
    for seed in range(5):
        assert cut(photograph, 64, np.random.default_rng(seed)).std() > 5
        coloured = cut(photograph, 64, np.random.default_rng(seed), colour=True)
        assert np.ptp(coloured, axis=2).mean() > 5


def test_cut_of_a_flat_photograph_still_is_a_crop():
    flat = Image.new("RGB", (200, 100), (9, 8, 7))
    assert np.unique(cut(flat, 96, np.random.default_rng(0)).reshape(-1, 3), axis=0).tolist() == [[9, 8, 7]]


def test_cut_scales_down_by_1_25_to_3():
    ramp = np.repeat(np.arange(1000, dtype=np.float32)[None, :, None] / 1000 * 255, 400, axis=0).repeat(3, axis=2)
    photograph = Image.fromarray(ramp.astype(np.uint8))
    for seed in range(20):
        row = cut(photograph, 100, np.random.default_rng(seed))[50, :, 0].astype(float)
        scale = abs(row[-5] - row[5]) / 90 * 1000 / 255
        assert 1.25 - 0.06 < scale < 3.06


def test_reference_outside_the_packages(tmp_path: Path):
    Image.new("RGB", (100, 100), (255, 0, 0)).save(tmp_path / "red.png")
    (recipe,) = draw("val", 1, references=[Reference("red.png", tmp_path / "red.png", True)], mixture=USERS_MIXTURE, pristine=1.0, two_at_once=0.0)
    assert recipe.group == "red.png"
    assert render(recipe, Reference("red.png", tmp_path / "red.png", True), 64)[0, 0].tolist() == [255, 0, 0]
