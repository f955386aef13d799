"""What can be wrong with a data set, made wrong on purpose."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from biqa.data.inspection import check_overlap, inspect, near_duplicates, upside_down
from biqa.data.record import Card, Record
from biqa.data.survey import Look

CARD = Card(name="made", low=1.0, high=5.0, direction="mos", images=10, published=(1.0, 4.7))
SIDES = ("train", "train", "train", "train", "train", "train", "val", "val", "test", "test")


def records(card: Card = CARD) -> list[Record]:
    scores = [4.7, 4.1, 3.2, 2.2, 1.0, 4.4, 3.9, 3.0, 2.4, 1.5]  # jpeg 1..5, then white noise 1..5
    return [
        Record(
            image=f"{i}.png", path=Path(f"{i}.png"), q=card.quality(score, "here"), split=SIDES[i], group=f"{i}", score=score,
            distortions=((("jpeg", "white_noise")[i // 5], i % 5 + 1),),
        )
        for i, score in enumerate(scores)
    ]  # fmt: skip


def looks(of: list[Record]) -> dict[Path, Look]:
    return {
        record.path: Look(problem=None, width=640, height=480, hash=f"{(0x9E3779B97F4A7C15 * (i + 1)) % 2**64:016x}") for i, record in enumerate(of)
    }


def states(of: list[Record], seen: dict[Path, Look], card: Card = CARD) -> dict[str, tuple[str, str]]:
    return {check.name: (check.state, check.text) for check in inspect(card, of, seen, near_bits=4)}


def test_nothing_is_wrong() -> None:
    made = records()
    assert states(made, looks(made)) == {
        "labels": ("ok", "10 labelled images, as in the release"),
        "images": ("ok", "all 10 decode; 10 of them are 640 x 480, the largest has 0.3 megapixels"),
        "scores": ("ok", "MOS 1..4.7 on a scale of 1..5"),
        "direction": ("ok", "mean quality falls from the weakest to the strongest level in 2 of 2 distortion types"),
        "splits": ("ok", "train 6, val 2, test 2"),
        "groups": ("ok", "10 groups, each in one split"),
        "overlap": ("ok", "no picture stands in two splits (perceptual hashes differ in more than 4 bits)"),
    }


def test_a_scale_upside_down_is_seen() -> None:
    card = replace(CARD, direction="dmos")
    made = records(card)
    state, text = states(made, looks(made), card)["direction"]
    assert state == "wrong"
    assert text.endswith("in 0 of 2 distortion types: is the scale upside down?")
    plain = [replace(record, distortions=()) for record in made]
    assert states(plain, looks(plain), card)["direction"] == ("note", "cannot be tested (no graded distortions); taken as dmos")


def many(direction: str, *, kinds: int = 4, noise: float = 0.1) -> list[Record]:
    """Graded distortions, whose DMOS rises with their strength, in a data set whose card says `direction`."""
    rng = np.random.default_rng(0)
    card = replace(CARD, low=0.0, high=1.0, direction=direction)
    scores = [
        (kind, strength, float(np.clip(strength / 6 + noise * rng.normal(), 0, 1))) for kind in range(kinds) for strength in (1, 2, 3, 4, 5)
    ] * 3
    return [
        Record(image=f"{i}", path=Path(f"{i}"), q=card.quality(score, ""), split="train", group=f"{i}", score=score, distortions=((f"{kind}", strength),))
        for i, (kind, strength, score) in enumerate(scores)
    ]  # fmt: skip


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_labels_of_known_distortions_that_rise_with_their_strength_are_upside_down(noise: float) -> None:
    """Also of noisy opinions; and sound ones never are, nor a handful of images."""
    right, wrong = many("dmos", noise=noise), many("mos", noise=noise)
    assert upside_down(CARD, right, looks(right)) is None
    said, certain = upside_down(CARD, wrong, looks(wrong)) or ("", False)
    assert certain
    assert said.startswith("quality rises with the strength of distortions (mean Spearman correlation within types ")
    assert upside_down(CARD, wrong[:20], looks(wrong)) is None


def sharp(number: int, rho: float) -> tuple[list[Record], dict[Path, Look]]:
    """Photographs whose quality and sharpness have exactly that Pearson correlation, of normal numbers."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, number))
    x = (x - x.mean()) / x.std()
    noise -= noise.mean() + x * (x @ noise) / number
    y = rho * x + (1 - rho**2) ** 0.5 * noise / noise.std()
    made = [
        Record(image=f"{i}", path=Path(f"{i}"), q=(value + 5) / 10, split="train", group=f"{i}", score=value)
        for i, value in enumerate(y.tolist())
    ]  # fmt: skip
    return made, {record.path: Look(problem=None, measured={"sharpness": value}) for record, value in zip(made, x.tolist(), strict=True)}


@pytest.mark.parametrize(
    ("number", "rho", "announced"),
    [
        (300, -0.5, True),
        (300, 0.5, False),
        (300, -0.15, False),  # weak
        (60, -0.4, False),  # may be chance: 0.4 is 3.07 standard deviations of nothing
        (25, -0.95, False),  # a handful
    ],
)
def test_quality_that_falls_with_sharpness_is_announced_where_it_is_no_chance(number: int, rho: float, announced: bool) -> None:
    found = upside_down(CARD, *sharp(number, rho))
    assert (found is not None) == announced
    if found is not None:
        said, certain = found
        assert said.startswith("the sharper an image, the lower its quality (Spearman correlation -0.")
        assert not certain


def test_images_that_cannot_be_used_are_counted_and_the_first_named() -> None:
    made = records()
    seen = looks(made) | {made[i].path: Look(problem=f"{i}.png: there is no such file.") for i in range(7)}
    state, text = states(made, seen)["images"]
    assert state == "wrong"
    assert text.startswith("7 of 10 cannot be used: 0.png: there is no such file.; 1.png")
    assert text.endswith("; and 2 more")


def test_labels_of_another_version_are_seen() -> None:
    made = [*records()[:9], replace(records()[9], score=4.9)]
    assert states(made, looks(made))["scores"] == (
        "wrong", "MOS 1..4.9 on a scale of 1..5: outside the published range 1..4.7. Another version of the labels?",
    )  # fmt: skip
    same = [replace(record, score=3.0) for record in made]
    assert states(same, looks(same))["scores"][0] == "wrong"
    assert states(made[:4], looks(made[:4]))["labels"] == ("note", "4 labelled images, of 10 in the whole release")


def test_empty_splits_and_torn_groups_are_wrong() -> None:
    made = [replace(record, group="one") if i in (0, 9) else record for i, record in enumerate(records())]
    assert states(made, looks(made))["groups"] == ("wrong", "1 of 9 groups lie in several splits: one")
    training = [record for record in made if record.split == "train"]
    assert states(training, looks(training))["splits"] == ("wrong", "train 6, val 0, test 0")


@pytest.mark.parametrize(("bits", "found"), [(0, True), (4, True), (5, False)])
def test_the_same_picture_in_two_splits(bits: int, found: bool) -> None:
    made = records()
    seen = looks(made)
    other = int(seen[made[0].path].hash or "", 16) ^ (2**bits - 1)
    seen[made[8].path] = replace(seen[made[8].path], hash=f"{other:016x}")
    seen[made[1].path] = seen[made[0].path]  # twice within one split: no leak
    near = near_duplicates(made, seen, near_bits=4)
    assert [(first.image, second.image) for first, second in near.named] == ([("0.png", "8.png"), ("1.png", "8.png")] if found else [])
    assert (near.pairs, len(near.of_each)) == ((2, 2) if found else (0, 0))
    assert states(made, seen)["overlap"][0] == ("note" if found else "ok")


def test_thousands_of_copies_of_one_picture_are_counted_and_not_kept() -> None:
    made, seen = records(), looks(records())
    copies = [replace(made[0], image=f"{i}.png", split="train" if i < 3000 else "test") for i in range(4000)]
    tracemalloc.start()
    found = near_duplicates(copies, seen, near_bits=4)
    assert tracemalloc.get_traced_memory()[1] < 2**23  # three million pairs would be 200 MB
    tracemalloc.stop()
    assert (found.pairs, len(found.of_each)) == (3_000_000, 3000)
    assert [(first.image, second.image) for first, second in found.named] == [("0.png", f"{3000 + i}.png") for i in range(5)]
    assert check_overlap(copies, seen, near_bits=4).text.endswith("; and 2999995 more")
