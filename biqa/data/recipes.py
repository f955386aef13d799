"""Recipes of synthetic images (reference, distortions, seed): dividing the references, drawing recipes, their labels, and carrying them out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image as PillowImage

from biqa.data.distortions import distort
from biqa.data.distortions.pixels import Image
from biqa.data.kadid_opinions import opinion
from biqa.data.record import SPLITS, Split
from biqa.data.references import Reference, dead_leaves, pink_noise
from biqa.errors import IncompatibleChoice

STATIONS: dict[str, tuple[str, ...]] = {
    "light": ("brighten", "darken", "mean_shift", "contrast_change"),
    "colour": ("colour_diffusion", "colour_shift", "colour_quantization", "colour_saturation_hsv", "colour_saturation_lab"),
    "optics": ("gaussian_blur", "lens_blur", "motion_blur"),
    "sensor": ("white_noise", "white_noise_ycbcr", "impulse_noise", "multiplicative_noise", "denoise"),
    "processing": ("high_sharpen",),
    "transmission": ("jitter", "non_eccentricity_patch", "pixelate", "quantization", "colour_block"),
    "file": ("jpeg2000", "jpeg"),
}
"""The way of an image through a camera (METHOD.md choice). Two distortions of one image come from two stations, since two of the same would
hide or undo one another, and are applied in this order."""
PLACE = {kind: place for place, kinds in enumerate(STATIONS.values()) for kind in kinds}
"""Type -> place of its station on the way."""

Source = Literal["photograph", "dead_leaves", "pink_noise"]
MIXTURE: dict[Source, float] = {"photograph": 0.7, "dead_leaves": 0.2, "pink_noise": 0.1}
"""Where crops come from in each split: mostly photographs, since that is what the model is for (METHOD.md choice)."""
USERS_MIXTURE: dict[Source, float] = {"photograph": 1.0}
"""With a user's folder."""


@dataclass(frozen=True)
class Recipe:
    """All that makes one image."""

    image: str
    """File name, unique in the data set."""
    split: Split
    source: Source
    group: str
    """Name of the photograph; a procedural reference is made for one image and has a name of its own."""
    distortions: tuple[tuple[str, int], ...]
    """(type, level) in the order of application; () for a pristine image."""
    seed: tuple[int, ...]
    """Seeds the pixels: of this image alone, so that it does not matter which process makes it, and when."""


def divide(references: Sequence[Reference], seed: int) -> dict[Split, list[Reference]]:
    """A seeded division of the photographs: a quarter to test, an eighth to val, the rest to train; at least one each.

    Grey and colour photographs are divided apart where there are three of each.

    Raises:
        IncompatibleChoice: fewer than three photographs.
    """
    if len(references) < 3:
        raise IncompatibleChoice(
            f"data.references has {len(references)} usable photograph(s), but train, val and test need one each. Add photographs to the folder."
        )
    coloured, grey = [r for r in references if r.colour], [r for r in references if not r.colour]
    rng = np.random.default_rng(seed)
    sides: dict[Split, list[Reference]] = {split: [] for split in SPLITS}
    for some in (coloured, grey) if min(len(coloured), len(grey)) >= 3 else (references,):
        order = [some[place] for place in rng.permutation(len(some))]
        test, val = max(1, round(len(some) / 4)), max(1, round(len(some) / 8))
        sides["test"] += order[:test]
        sides["val"] += order[test : test + val]
        sides["train"] += order[test + val :]
    return sides


def draw_recipes(
    split: Split,
    count: int,
    *,
    references: Sequence[Reference],
    mixture: Mapping[Source, float],
    kinds: Sequence[str],
    two_at_once: float,
    pristine: float,
    seed: int,
) -> list[Recipe]:
    """The recipes of one split; the first n of a longer list are the same.

    Args:
        split: which split.
        count: how many images.
        references: the photographs of this split.
        mixture: share of each source, summing to 1.
        kinds: distortion types. Over types and levels the (first) distortions are balanced, by drawing from a shuffled deck.
        two_at_once: probability of two distortions.
        pristine: probability of none.
        seed: seeds all draws, together with the split.
    """
    place = SPLITS.index(split)
    rng = np.random.default_rng((seed, place))
    deck = _deck(kinds, rng)
    recipes = []
    for number in range(count):
        image = f"{split}_{number:05d}.png"
        amount = rng.choice(3, p=(pristine, 1 - pristine - two_at_once, two_at_once))
        distortions = _draw_distortions(int(amount), deck, kinds, rng)
        source = list(mixture)[rng.choice(len(mixture), p=list(mixture.values()))]
        group = _draw_photograph(references, distortions, rng).name if source == "photograph" else f"{source}_{split}_{number:05d}"
        recipes.append(Recipe(image, split, source, group, distortions, seed=(seed, place, number)))
    return recipes


def _deck(kinds: Sequence[str], rng: np.random.Generator) -> Iterator[tuple[str, int]]:
    """Each type at each level once in a random order, then anew, without end."""
    cards = [(kind, level) for kind in kinds for level in range(1, 6)]
    while True:
        for card in rng.permutation(len(cards)):
            yield cards[card]


def _draw_distortions(amount: int, deck: Iterator[tuple[str, int]], kinds: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, int], ...]:
    """None, the next of the deck, or the next and one of another station at any level."""
    if amount == 0:
        return ()
    first = next(deck)
    if amount == 1:
        return (first,)
    others = [kind for kind in kinds if PLACE[kind] != PLACE[first[0]]]
    second = (others[int(rng.integers(len(others)))], int(rng.integers(1, 6)))
    return tuple(sorted((first, second), key=lambda distortion: PLACE[distortion[0]]))


def needs_colour(distortions: Sequence[tuple[str, int]]) -> bool:
    """Whether one of them would not be seen on a grey image."""
    return any(kind in STATIONS["colour"] for kind, _ in distortions)


def _draw_photograph(references: Sequence[Reference], distortions: Sequence[tuple[str, int]], rng: np.random.Generator) -> Reference:
    """Any photograph; one in colour for a distortion of colour, if there is one."""
    coloured = [reference for reference in references if reference.colour]
    choice = coloured if needs_colour(distortions) and coloured else references
    return choice[int(rng.integers(len(choice)))]


def label(distortions: Sequence[tuple[str, int]]) -> tuple[float, float | None]:
    """Quality in [0, 1] and its standard deviation, from the opinions of KADID-10k's observers.

    One distortion: their mean opinion of that type at that level, and its standard deviation over the references. Several: the retained qualities
    multiply, `q = q1 q2` (METHOD.md section 8), and as for independent factors `var = q1^2 var2 + q2^2 var1 + var1 var2`. None: 1, and no deviation.
    """
    if not distortions:
        return 1.0, None
    q, variance = 1.0, 0.0
    for kind, level in distortions:
        mean, std = opinion(kind, level)
        factor, factor_variance = (mean - 1) / 4, (std / 4) ** 2
        variance = q**2 * factor_variance + factor**2 * variance + variance * factor_variance
        q *= factor
    return q, math.sqrt(variance)


def render(recipe: Recipe, reference: Reference | None, crop: int) -> Image:
    """Carry a recipe out.

    Args:
        recipe: what to make.
        reference: its photograph; None for a procedural source.
        crop: side of the image in pixels.

    Returns:
        uint8 [crop, crop, 3], RGB.
    """
    rng = np.random.default_rng(recipe.seed)
    if reference is not None:
        image = cut(_decoded(reference), crop, rng, colour=needs_colour(recipe.distortions))
    elif recipe.source == "dead_leaves":
        image = dead_leaves(rng, crop)
    else:
        image = pink_noise(rng, crop)
    for kind, level in recipe.distortions:
        image = distort(image, kind, level, rng)
    return image


@lru_cache(maxsize=8)
def _decoded(reference: Reference) -> PillowImage.Image:
    """A photograph in memory: recipes come sorted by group."""
    return PillowImage.fromarray(reference.pixels())


SCALES = (1.25, 3.0)
"""A crop is this many times smaller than the square it was cut from: at least so much that the softness of a photograph's own pixels is gone."""
TRIES = 12
STRUCTURE = 6.0
"""Least mean gradient of a crop's luma, in values of 0..255 a pixel; blur would not be seen on a flat crop."""
CHROMA = 25.0
"""Least mean distance between the largest and the smallest channel of a crop, 0..255, where colour matters."""


def cut(photograph: PillowImage.Image, crop: int, rng: np.random.Generator, *, colour: bool = False) -> Image:
    """A random square of a photograph, scaled down to [crop, crop], perhaps mirrored.

    Up to 12 squares are tried until one has structure (`STRUCTURE`) and, with `colour`, colours (`CHROMA`); if none has, the best of them is taken.
    """
    widest = min(photograph.size) / crop
    low, high = min(SCALES[0], widest), min(SCALES[1], widest)
    tries: list[tuple[float, Image]] = []
    for _ in range(TRIES):
        side = crop * math.exp(rng.uniform(math.log(low), math.log(high)))
        left, top = rng.uniform(0, photograph.width - side), rng.uniform(0, photograph.height - side)
        piece = photograph.resize((crop, crop), PillowImage.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        if rng.random() < 0.5:
            piece = piece.transpose(PillowImage.Transpose.FLIP_LEFT_RIGHT)
        worth = min(1.0, _structure(piece) / STRUCTURE, _chroma(piece) / CHROMA if colour else 1.0)
        tries.append((worth, np.asarray(piece)))
        if worth == 1.0:
            break
    return max(tries, key=lambda attempt: attempt[0])[1]


def _structure(piece: PillowImage.Image) -> float:
    """Mean length of the luma's gradient."""
    down, right = np.gradient(np.asarray(piece.convert("L"), dtype=np.float32))
    return float(np.hypot(down, right).mean())


def _chroma(piece: PillowImage.Image) -> float:
    """Mean distance between the largest and the smallest channel."""
    red, green, blue = np.asarray(piece, dtype=np.int16).transpose(2, 0, 1)
    return float((np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)).mean())
