"""How the cost grows with the work: repeats, visual tokens, images. Seconds, the exponent of a line through their logarithms, and a figure."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.answers import Sides as Answers
from benchmarks.evaluation import Sides as Evaluations
from benchmarks.rounds import result, rounds_of
from benchmarks.rows import Growth
from benchmarks.shapes import SMALL, Shape, build, items


@dataclass(frozen=True)
class Work:
    """What grows, and how far."""

    shape: Shape
    batch: int
    """Images that are answered together, of the first two."""
    repeats: Sequence[int] = (1, 5, 10, 20, 50)
    sides: Sequence[int] = (8, 16, 24)
    """Visual tokens: the squares of these."""
    images: Sequence[int] = (100, 1000, 10_000)
    tokens: int = 32
    """Of an answer."""
    evaluated: Shape = field(default=Shape(tower_layers=2, tower_width=128, layers=2, width=128, vocabulary=1000, side=8))
    """Of the model of the last one, whose answers are of `few` tokens."""
    few: int = 8


FULL = Work(Shape(), batch=4)
GLANCE = Work(SMALL, batch=1, repeats=(1, 2), sides=(2, 3), images=(2, 4), tokens=3, evaluated=SMALL, few=3)
FIXED = 10
"""Repeats where something else grows."""


def growths(work: Work) -> list[Growth]:
    """Each kind of growth, of each side that is compared there."""
    return [*_with_repeats(work), *_with_visual_tokens(work), *_with_images(work)]


def _with_repeats(work: Work) -> list[Growth]:
    found = {number: _answered(work, work.shape, number) for number in work.repeats}
    return _growths(f"sampled answers an image, {work.batch} images, {work.tokens} tokens, {work.shape}", found)


def _with_visual_tokens(work: Work) -> list[Growth]:
    shapes = [replace(work.shape, side=side) for side in work.sides]
    found = {shape.side**2: _answered(work, shape, FIXED) for shape in shapes}
    tower = f"tower {work.shape.tower_layers} x {work.shape.tower_width}, decoder {work.shape.layers} x {work.shape.width}"
    return _growths(f"visual tokens, {work.batch} images, {FIXED} sampled answers of {work.tokens} tokens, {tower}", found)


def _answered(work: Work, shape: Shape, repeats: int) -> dict[str, float]:
    """Seconds of each side, once after a pass that does not count."""
    sides = Answers(shape, work.batch, repeats, work.tokens)
    ways: dict[str, Callable[[], float]] = {
        "biqa": lambda: sides.biqa(work.batch),
        "generate(num_return_sequences=N)": lambda: sides.generate(work.batch),
    }
    (seconds,) = rounds_of(ways, 1)
    return seconds


def _with_images(work: Work) -> list[Growth]:
    """Each number of images once: new ones, so that nothing is known of them before."""
    with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
        vlm = build(work.evaluated)
        made = items(Path(place) / "images", vlm, [1] * sum(work.images), work.evaluated)
        sides = Evaluations(work.evaluated, Path(place), repeats=FIXED, tokens=work.few)
        sides.evaluated("features computed", made[-1:])
        found, first = {}, 0
        for number in work.images:
            found[number] = {"biqa": sides.seconds("features computed", made[first : first + number])}
            first += number
    return _growths(f"images, two-stage evaluation, {FIXED} sampled answers of {work.few} tokens, {work.evaluated}", found)


def _growths(what: str, found: Mapping[int, Mapping[str, float]]) -> list[Growth]:
    sides = next(iter(found.values()))
    return [Growth(what, side, list(found), [seconds[side] for seconds in found.values()]) for side in sides]


def draw(growths: Sequence[Growth], name: str) -> Path:
    """Write results/<name>.png: a panel for each kind of growth, with the exponents; the path."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    kinds = list(dict.fromkeys(one.what for one in growths))
    figure = Figure(figsize=(5 * len(kinds), 4), layout="constrained")
    for place, kind in enumerate(kinds, 1):
        axes = figure.add_subplot(1, len(kinds), place)
        for one in growths:
            if one.what == kind:
                axes.loglog(one.at, one.seconds, marker="o", label=f"{one.side}: exponent {one.exponent:.2f}")
        at = next(one.at for one in growths if one.what == kind)
        axes.set_xticks(at, [f"{value:,}" for value in at])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(kind.split(",")[0])
        axes.set_ylabel("seconds")
        axes.legend(fontsize="small")
    path = result(f"{name}.png")
    figure.savefig(path, dpi=120)
    return path
