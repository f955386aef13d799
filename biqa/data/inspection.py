"""What can be wrong with a data set on disk, checked before anything is trained on it."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from biqa.data.record import SPLITS, Card, Record
from biqa.data.survey import Look, Part

State = Literal["ok", "note", "wrong"]
NEAR_BITS = 4
"""Of 64: images whose perceptual hashes differ in so few are taken for one picture, if nothing else is said."""
TELLING = 30
"""Images, at least, by which the direction of a scale is judged."""
RISE = 0.3
"""Rank correlation from which on it seems to run the wrong way."""
BEYOND_CHANCE = 3.29
"""Standard deviations of a rank correlation of unrelated numbers: p = 0.001."""
NAMED = 5
"""So many cases are named; the others are counted."""


@dataclass(frozen=True)
class Check:
    """The outcome of one check: "wrong" should be mended before training; a "note" is worth knowing."""

    name: str
    state: State
    text: str


def inspect(card: Card, records: Sequence[Record], looks: Mapping[Path, Look], *, near_bits: int, parts: Collection[Part] = ()) -> list[Check]:
    """All checks.

    Args:
        card: of the data set.
        records: all labelled images, usable or not.
        looks: path -> what was found in the image, with its perceptual hash.
        near_bits: images whose hashes differ in so many of 64 bits or fewer count as the same picture.
        parts: what the descriptions need of every image.
    """
    usable = [record for record in records if looks[record.path].unusable(parts) is None]
    return [
        check_count(card, records),
        check_files(records, looks, parts),
        check_scores(card, records),
        check_direction(card, records),
        check_splits(records),
        check_groups(records),
        *check_copies(usable, looks),
        check_overlap(usable, looks, near_bits),
    ]


def check_count(card: Card, records: Sequence[Record]) -> Check:
    """The number of labelled images against that of the whole release."""
    if card.images is None:
        return Check("labels", "ok", f"{len(records)} labelled images")
    if len(records) == card.images:
        return Check("labels", "ok", f"{len(records)} labelled images, as in the release")
    return Check("labels", "note", f"{len(records)} labelled images, of {card.images} in the whole release")


def check_files(records: Sequence[Record], looks: Mapping[Path, Look], parts: Collection[Part] = ()) -> Check:
    """Every image is there and decodes, and is large enough to measure where `parts` says that it is measured."""
    found = [(record.path, looks[record.path]) for record in records]
    problems = [look.problem or f"{path}: {reason}" for path, look in found if (reason := look.unusable(parts))]
    if problems:
        return Check("images", "wrong", f"{len(problems)} of {len(records)} cannot be used: {_some(problems)}")
    sizes = [(look.width, look.height) for record in records for look in [looks[record.path]]]
    (width, height), most = Counter(sizes).most_common(1)[0]
    largest = max(w * h for w, h in sizes) / 1e6
    return Check("images", "ok", f"all {len(records)} decode; {most} of them are {width} x {height}, the largest has {largest:.1f} megapixels")


def check_scores(card: Card, records: Sequence[Record]) -> Check:
    """The scores against the range that the release has."""
    scores = np.array([record.score for record in records])
    found = f"{card.direction.upper()} {scores.min():g}..{scores.max():g} on a scale of {card.low:g}..{card.high:g}"
    if card.published is not None and (scores.min() < card.published[0] - 1e-6 or scores.max() > card.published[1] + 1e-6):
        return Check(
            "scores", "wrong", f"{found}: outside the published range {card.published[0]:g}..{card.published[1]:g}. Another version of the labels?"
        )
    if len(np.unique(scores)) < 3:
        return Check("scores", "wrong", f"{found}: fewer than three different scores. Is it the right column?")
    return Check("scores", "ok", found)


def check_direction(card: Card, records: Sequence[Record]) -> Check:
    """Where the strength of distortions is known, quality must fall with it: else the scale is upside down."""
    by_strength: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if len(record.distortions) == 1:
            kind, strength = record.distortions[0]
            by_strength[kind][strength].append(record.q)
    graded = [strengths for strengths in by_strength.values() if len(strengths) > 1]
    if not graded:
        return Check("direction", "note", f"cannot be tested (no graded distortions); taken as {card.direction}")
    falling = sum(np.mean(strengths[min(strengths)]) > np.mean(strengths[max(strengths)]) for strengths in graded)
    text = f"mean quality falls from the weakest to the strongest level in {falling} of {len(graded)} distortion types"
    if falling > len(graded) / 2:
        return Check("direction", "ok", text)
    return Check("direction", "wrong", f"{text}: is the scale upside down?")


def upside_down(card: Card, records: Sequence[Record], looks: Mapping[Path, Look]) -> tuple[str, bool] | None:
    """Whether the scale seems to run the wrong way: DMOS taken as MOS, or the other way round.

    Two facts tell. Where the strength of distortions is known, quality falls with it in every data set. Where images were measured, quality rises
    with sharpness: a Spearman correlation of 0.36 to 0.90 in photographs and in mixed distortions; of noise alone it may be slightly negative.

    Args:
        card: of the data set.
        records: its usable images.
        looks: path -> what was found in the image; with the part "measured" for the second fact.

    Returns:
        A sentence with figures, and whether it is beyond doubt (the first fact); None: nothing seems wrong, or nothing is known.
    """
    found, images = _rise_with_strength(records)
    if images >= TELLING and found >= RISE:
        return (
            f"quality rises with the strength of distortions (mean Spearman correlation within types {found:.2f}, {images} images), taken as "
            f"{card.direction}: the scale is upside down."
        ), True
    measured = [(look.measured["sharpness"], record.q) for record in records if (look := looks[record.path]).measured]
    rho = _spearman(measured) if len(measured) >= TELLING else 0.0
    if rho > -RISE or not -rho * (len(measured) - 1) ** 0.5 > BEYOND_CHANCE:
        return None
    return (
        f"the sharper an image, the lower its quality (Spearman correlation {rho:.2f}, {len(measured)} images), taken as {card.direction}: in most "
        f"data sets it is the other way round. Is higher better (mos) or worse (dmos)?"
    ), False


def _rise_with_strength(records: Sequence[Record]) -> tuple[float, int]:
    """Mean over types of single distortions of the rank correlation of strength and quality, weighted by images; and how many images there are."""
    by_kind: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for record in records:
        if len(record.distortions) == 1:
            kind, strength = record.distortions[0]
            by_kind[kind].append((strength, record.q))
    graded = [pairs for pairs in by_kind.values() if len({strength for strength, _ in pairs}) > 1 and len({q for _, q in pairs}) > 1]
    images = sum(map(len, graded))
    return (sum(_spearman(pairs) * len(pairs) for pairs in graded) / images if images else 0.0), images


def _spearman(pairs: Sequence[tuple[float, float]]) -> float:
    first, second = np.array(pairs, dtype=np.float64).T
    if not np.ptp(first) or not np.ptp(second):
        return 0.0
    return float(spearmanr(first, second).statistic)  # pyright: ignore[reportAttributeAccessIssue] (scipy says less of it than it is)


def check_splits(records: Sequence[Record]) -> Check:
    """No split is empty, and each spans the qualities."""
    counts = Counter(record.split for record in records)
    text = ", ".join(f"{split} {counts[split]}" for split in SPLITS)
    return Check("splits", "ok" if all(counts[split] for split in SPLITS) else "wrong", text)


def check_groups(records: Sequence[Record]) -> Check:
    """No group (reference, prompt) on two sides."""
    sides: dict[str, set[str]] = defaultdict(set)
    for record in records:
        sides[record.group].add(record.split)
    torn = [group for group, splits in sides.items() if len(splits) > 1]
    if torn:
        return Check("groups", "wrong", f"{len(torn)} of {len(sides)} groups lie in several splits: {_some(torn)}")
    return Check("groups", "ok", f"{len(sides)} groups, each in one split")


def check_copies(records: Sequence[Record], looks: Mapping[Path, Look]) -> list[Check]:
    """No test picture is learnt from, pixel for pixel: a run refuses it. No check where pixels were not looked at."""
    if any(looks[record.path].pixels is None for record in records):
        return []
    pairs = copies([record for record in records if record.split == "test"], [record for record in records if record.split != "test"], looks)
    if not pairs:
        return [Check("copies", "ok", "no test picture is learnt from, pixel for pixel")]
    named = _some([f"{first.image} is {twin.image} ({twin.split})" for first, twin in pairs])
    return [Check("copies", "wrong", f"{len(pairs)} test pictures are learnt from, pixel for pixel: {named}")]


def copies(test: Sequence[Record], learnt: Sequence[Record], looks: Mapping[Path, Look]) -> list[tuple[Record, Record]]:
    """Each test record that has the pixels of a learnt one, with the first such."""
    by_pixels: dict[str, Record] = {}
    for record in learnt:
        by_pixels.setdefault(looks[record.path].pixels or str(record.path), record)
    return [(record, twin) for record in test if (twin := by_pixels.get(looks[record.path].pixels or "")) is not None]


def check_overlap(records: Sequence[Record], looks: Mapping[Path, Look], near_bits: int) -> Check:
    """No picture is in two splits under two names, as far as perceptual hashes tell."""
    found = near_duplicates(records, looks, near_bits)
    if not found.pairs:
        return Check("overlap", "ok", f"no picture stands in two splits (perceptual hashes differ in more than {near_bits} bits)")
    named = [f"{first.image} ({first.split}) and {second.image} ({second.split})" for first, second in found.named]
    return Check("overlap", "note", f"{found.pairs} pairs across splits look alike: {_some(named, found.pairs)}")


def check_shared_pictures(records: Sequence[Record], others: Sequence[Record], looks: Mapping[Path, Look], near_bits: int) -> Check:
    """No test picture of this part of a mixture is learnt in the other one."""
    learnt = [record for record in others if record.split != "test"]
    found = alike([record for record in records if record.split == "test"], learnt, looks, near_bits)
    name = f"pictures of {others[0].dataset}" if others else "pictures"
    if not found.pairs:
        return Check(name, "ok", "none of them is a test picture here")
    named = [f"{first.image} like {second.image}" for first, second in found.named]
    return Check(name, "note", f"{len(found.of_each)} test pictures here look like pictures that are learnt there: {_some(named, found.pairs)}")


@dataclass(frozen=True)
class Alike:
    """Pairs of images that look like one picture. They are counted and not kept: where thousands are one picture, there are millions of pairs."""

    pairs: int
    of_each: tuple[tuple[Record, Record], ...]
    """Each image on the first side of a pair, with the first that looks like it."""
    named: tuple[tuple[Record, Record], ...]
    """The first `NAMED` pairs."""


def near_duplicates(records: Sequence[Record], looks: Mapping[Path, Look], near_bits: int) -> Alike:
    """Pairs of images in different splits whose 64-bit perceptual hashes differ in `near_bits` or fewer."""
    by_split = {split: [record for record in records if record.split == split] for split in SPLITS}
    found = [alike(by_split[one], by_split[other], looks, near_bits) for one, other in combinations(SPLITS, 2)]
    named = tuple(pair for one in found for pair in one.named)
    return Alike(sum(one.pairs for one in found), tuple(pair for one in found for pair in one.of_each), named[:NAMED])


def alike(first: Sequence[Record], second: Sequence[Record], looks: Mapping[Path, Look], near_bits: int = NEAR_BITS) -> Alike:
    """Pairs of an image of `first` and one of `second` whose 64-bit perceptual hashes differ in `near_bits` or fewer."""
    others = _hashes(second, looks)
    pairs = 0
    of_each: list[tuple[Record, Record]] = []
    named: list[tuple[Record, Record]] = []
    for row, value in enumerate(_hashes(first, looks)):
        near = np.flatnonzero(np.bitwise_count(others ^ value) <= near_bits)
        pairs += near.size
        of_each += [(first[row], second[column]) for column in near[:1].tolist()]
        named += [(first[row], second[column]) for column in near[: NAMED - len(named)].tolist()]
    return Alike(pairs, tuple(of_each), tuple(named))


def _hashes(records: Sequence[Record], looks: Mapping[Path, Look]) -> NDArray[np.uint64]:
    return np.array([int(looks[record.path].hash or "0", 16) for record in records], dtype=np.uint64)


def _some(texts: Sequence[str], number: int | None = None) -> str:
    """The first texts, and how many more there are of `number`, or of all texts."""
    more = (len(texts) if number is None else number) - NAMED
    return "; ".join(texts[:NAMED]) + (f"; and {more} more" if more > 0 else "")
