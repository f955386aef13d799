"""Row 3: a two-stage evaluation with the tower's features of its images on disk, against the same without.

Stage 1 describes every image 1 + N times, stage 2 scores the descriptions, both as in a run of biqa. Models have random weights and so write texts
that are as long as they may be and seldom equal: nothing is saved in stage 2, where equal descriptions are scored once.
"""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from statistics import median

import numpy as np
from omegaconf import DictConfig

from benchmarks.answers import LIMIT, least_seconds
from benchmarks.prepare import photograph
from benchmarks.rounds import in_turn, ratio_of, timed
from benchmarks.rows import Machine, Row
from benchmarks.shapes import SMALL, Shape, build, composed, words
from benchmarks.training import verdict_options_of, with_lora
from biqa.data.module import Item
from biqa.data.record import Record
from biqa.language.prompts import DESCRIBE, INFER, STEM
from biqa.running.answering import rows_of
from biqa.running.building import build_stage, build_trainer, known_images, quiet
from biqa.running.serving import Serving
from biqa.runs import STAGE_ONE, RunFolder
from biqa.stages.base import Row as Answer

NUMBERS = (3,)
WIDTH, HEIGHT = 1024, 768
"""Of the photographs: those of KonIQ-10k."""


@dataclass(frozen=True)
class Work:
    """Evaluations of one size: of each shape of a model, so many images."""

    images: Mapping[Shape, int]
    repeats: int = 10
    tokens: int = 32
    """Of a description."""
    size: tuple[int, int] = (WIDTH, HEIGHT)


FULL = Work({Shape(vocabulary=1000): 500, Shape(tower_layers=24, tower_width=1024, vocabulary=1000): 100})
"""The model of the other rows, and one with the tower of LLaVA-1.5."""
GLANCE = Work({SMALL: 4}, repeats=2, tokens=4, size=(64, 48))


def rows(work: Work, machine: Machine, rounds: int, wanted: Sequence[int] = NUMBERS) -> list[Row]:
    """Row 3, for each shape. The images are answered in as many parts as there are rounds; the sides take turns at each part."""
    found = []
    for letter, (shape, images) in zip("abc", work.images.items(), strict=False):
        if 3 in wanted:
            with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
                found.append(_row(f"3{letter}", work, shape, photographs(Path(place), images, work.size), Path(place), machine, rounds))
    return found


def _row(name: str, work: Work, shape: Shape, items: Sequence[Item], folder: Path, machine: Machine, rounds: int) -> Row:  # noqa: PLR0917
    sides = Sides(shape, folder, repeats=work.repeats, tokens=work.tokens)
    computing = sides.keep(items)
    for side in sides.configs:
        sides.evaluated(side, items[:1])
    parts = [[items[place] for place in part] for part in np.array_split(range(len(items)), rounds)]
    taken = [sides.compared(part, number) for number, part in enumerate(parts)]
    medians = {side: median(one[side] for one in taken) for side in sides.configs}
    share = sides.least_seconds(machine, len(parts[0]), kept=True) / medians["features kept"]
    said = f"two-stage evaluation of {len(items)} images of {work.size[0]} x {work.size[1]}, N = {work.repeats}, {work.tokens} tokens, {shape}"
    note = (
        f"identical answers; in {rounds} parts of {len(parts[0])} images, by turns; the tower's pass that puts the features there once "
        f"took {computing:.3g} s for all"
    )
    ratio = ratio_of(taken, "features computed", "features kept")
    return Row(name, said, "the same, features computed", 2.0, ratio, share, LIMIT, medians=medians, note=note)


def photographs(folder: Path, images: int, size: tuple[int, int]) -> list[Item]:
    """Pictures on disk as JPEG, to be asked about."""
    rng, made = np.random.default_rng(0), []
    for number in range(images):
        path = folder / f"{number:05d}.jpg"
        photograph(rng, *size).save(path, quality=90)
        made.append(Item(Record(image=path.name, path=path, q=(number % 9 + 0.5) / 9, split="test", group=path.name, score=0.5), ()))
    return made


class Sides:
    """A two-stage model that answers with features from the disk ("features kept"), or computes them ("features computed").

    Args:
        shape: of the model of stage 1; stage 2 is its decoder.
        folder: for features and tables.
        repeats: sampled descriptions an image, N.
        tokens: of a description.
    """

    def __init__(self, shape: Shape, folder: Path, *, repeats: int, tokens: int) -> None:
        quiet()
        self.shape = shape
        self.repeats = repeats
        self.tokens = tokens
        self.folder = folder
        given = ("stage=inference", f"sampling.repeats={repeats}", f"sampling.max_new_tokens={tokens}", f"images.cache={folder / 'cache'}")
        self.configs: dict[str, DictConfig] = {
            "features kept": composed(*given, "images.features_gb=10"),
            "features computed": composed(*given, "images.features_gb=0"),
        }
        self.describes, self.scores = build(shape), build(shape, vision=False)
        for vlm in (self.describes, self.scores):
            with_lora(vlm, self.configs["features kept"])
            vlm.eval()
        self.tables = 0

    def keep(self, items: Sequence[Item]) -> float:
        """Put the features of images on disk, as an earlier run would have done: seconds."""
        config = self.configs["features kept"]
        known = known_images(config, self.describes)
        assert known is not None, "this config keeps no features"
        computing = build_trainer(config, RunFolder(self.folder / "none"), logs=False).precision_plugin.forward_context()
        with redirect_stdout(StringIO()):  # it says what features are there
            return timed(lambda: known.learn([item.record for item in items], computing, halves=False))[1]

    def evaluated(self, side: str, items: Sequence[Item]) -> list[Answer]:
        """Rows of the answers table about some images, as a run of stage 2 makes them."""
        config = self.configs[side]
        own = Serving(config, None)
        self.tables += 1
        folder = RunFolder(self.folder / f"run-{self.tables}")
        with redirect_stdout(StringIO()):
            stage = build_stage(config, STAGE_ONE, self.describes, steps=0, repeats=self.repeats)
            described = rows_of(own, stage, build_trainer(config, folder, logs=False), items, folder.path / "descriptions.parquet", weights="base")
            texts: dict[str, list[str]] = {}
            for row in described:
                texts.setdefault(row["image"], []).append(row["description"])
            asked = [Item(item.record, tuple(texts[item.record.image])) for item in items]
            stage = build_stage(config, config.stage._target_, self.scores, steps=0, repeats=self.repeats, **verdict_options_of(config))
            return rows_of(own, stage, build_trainer(config, folder, logs=False), asked, folder.path / "answers.parquet", weights="base")

    def seconds(self, side: str, items: Sequence[Item]) -> float:
        """For the answers about some images."""
        return timed(lambda: self.evaluated(side, items))[1]

    def compared(self, items: Sequence[Item], number: int) -> dict[str, float]:
        """Seconds of each side for the same images, in the order of a round; the answers are the same.

        Raises:
            AssertionError: they are not.
        """
        found = {side: timed(lambda side=side: self.evaluated(side, items)) for side in in_turn(list(self.configs), number)}
        kept, computed = (found[side][0] for side in self.configs)
        assert kept == computed, f"the answers differ: {next((one, other) for one, other in zip(kept, computed, strict=True) if one != other)}"
        return {side: seconds for side, (_, seconds, _) in found.items()}

    def least_seconds(self, machine: Machine, images: int, *, kept: bool) -> float:
        """That an evaluation of so many images can take here, reading and preparing them left out."""
        vlm, answers = self.describes, self.repeats + 1
        prompt = len(vlm.question_ids(DESCRIBE, vlm.processor.image_token * self.shape.side**2))
        given = {"prompt": prompt, "images": images, "answers": answers, "tokens": self.tokens, "tower": not kept}
        text = INFER.format(description=words(self.scores, self.tokens))
        scored = len(self.scores.question_ids(text)) + len(self.scores.opening(STEM))
        scoring = least_seconds(self.scores, self.shape, machine, prompt=scored, images=images * answers, answers=1, tokens=1, tower=False)
        return least_seconds(vlm, self.shape, machine, **given) + scoring
