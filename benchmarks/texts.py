"""Row 5: an epoch of stage 2, from texts alone, against TRL without and with its packing."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.rounds import ratio_of, rounds_of
from benchmarks.rows import PEAK, Machine, Row
from benchmarks.shapes import SMALL, Shape, build, composed, items
from benchmarks.steps import SAME, check_same, operations
from benchmarks.training import NO_TRL, TRL, Biqa, Trl, of_tokens
from biqa.data.collate import Batch, Encoded, collate
from biqa.data.module import Item
from biqa.models.vlm import VLM

NUMBERS = (5,)
LONGEST = 120
"""Tokens of a text: question, description and answer, from what question and answer take to this, all lengths equally often."""


@dataclass(frozen=True)
class Work:
    """Texts of one size."""

    shape: Shape
    texts: int
    """An epoch."""
    batch: int
    """Texts a step."""


FULL = Work(Shape(), texts=64, batch=16)
GLANCE = Work(SMALL, texts=16, batch=8)


def rows(work: Work, machine: Machine, rounds: int, wanted: Sequence[int] = NUMBERS) -> list[Row]:
    """Row 5, twice. It is measured against nothing where TRL is not installed."""
    if 5 not in wanted:
        return []
    if not TRL:
        print(f"row 5 is left out. {NO_TRL}")
        return []
    with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
        return _rows(Sides(work, Path(place)), work, machine, rounds)


class Sides:
    """The ways to learn from the same texts, an epoch each.

    Args:
        work: its size.
        folder: for runs.
    """

    def __init__(self, work: Work, folder: Path) -> None:
        self.config = composed("stage=inference", f"stage.batch_size={work.batch}", "stage.target=hard")
        self.work = work
        vlm = build(work.shape, vision=False)
        self.biqa = Biqa(vlm, self.config, [], folder / "none")
        self.items = self._items(folder, vlm)
        self.biqa = Biqa(build(work.shape, vision=False), self.config, self.items, folder / "run")
        self.encoded = [self.biqa.stage.encode(item) for item in self.items]
        self.lengths = [len(one.prompt) + len(one.answer) for one in self.encoded]
        whole = round(sum(self.lengths) / work.texts * work.batch)  # tokens of an unpacked step, which TRL's packing gets as a row
        packing = {"packing": True, "max_length": max(whole, LONGEST)}
        sides = {"trl": partial(self._trl, folder), "trl, packed": partial(self._trl, folder, **packing, per_device_train_batch_size=1)}
        for name, side in sides.items():
            self._check(name, side(self.items[: work.batch], per_device_train_batch_size=work.batch))
        self.ways: dict[str, Callable[[], float]] = {"biqa": self.biqa.epoch} | {name: side(self.items).epoch for name, side in sides.items()}

    def _items(self, folder: Path, vlm: VLM) -> list[Item]:
        short = items(folder, vlm, [1], self.work.shape)
        encoded = self.biqa.stage.encode(short[0])
        around = len(encoded.prompt) + len(encoded.answer) - 1
        return items(folder, vlm, np.random.default_rng(0).integers(1, LONGEST - around + 1, self.work.texts).tolist(), self.work.shape)

    def _trl(self, folder: Path, texts: Sequence[Item], **options: object) -> Trl:
        return Trl(build(self.work.shape, vision=False), self.config, of_tokens(self.biqa.stage, texts), folder / "trl", **options)

    def _check(self, name: str, trl: Trl) -> None:
        """TRL's loss of the first texts is biqa's, packed or not."""
        trl.fit()
        batch = all_tokens(self.encoded[: self.work.batch], self.biqa.stage.vlm.pad_id, pack=True)
        check_same(name, self.biqa.loss(batch), trl.first_loss)


def all_tokens(examples: Sequence[Encoded], pad_id: int, *, pack: bool) -> Batch:
    """A batch in which the level word is a token like the others: biqa's stage has a loss of its own for it, TRL has not."""
    return collate([replace(one, level_at=None) for one in examples], pad_id, pack=pack)


def _rows(sides: Sides, work: Work, machine: Machine, rounds: int) -> list[Row]:
    taken = rounds_of(sides.ways, rounds)
    medians = {name: median(one[name] for one in taken) for name in sides.ways}
    stage = sides.biqa.stage
    share = operations(stage.vlm, collate(sides.encoded, stage.vlm.pad_id), work.shape) / medians["biqa"] / machine.bfloat16
    shortest, longest = min(sides.lengths), max(sides.lengths)
    decoder = f"decoder {work.shape.layers} x {work.shape.width}, vocabulary {work.shape.vocabulary // 1000}k"
    said = f"stage-2 LoRA epoch, {work.texts} texts of {shortest} to {longest} tokens, {work.batch} a step, {decoder}, bf16"
    note = f"same losses within {SAME:g}"
    return [
        Row(name, said, against, wanted, ratio_of(taken, peer, "biqa"), share, PEAK,
            medians={side: medians[side] for side in ("biqa", peer)}, note=note)
        for name, peer, against, wanted in (
            ("5a", "trl", "TRL's SFTTrainer", 2.0), ("5b", "trl, packed", "TRL's SFTTrainer with its packing, as many tokens a step", 1.1)
        )
    ]  # fmt: skip
