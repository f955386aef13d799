"""Rows 4, 6 and 9: a LoRA step of stage 1 against TRL, a bare loop of transformers, a bare loop of its own loss, and the limit."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from omegaconf import DictConfig

from benchmarks.rounds import Ratio, ratio_of, rounds_of
from benchmarks.rows import PEAK, Machine, Row
from benchmarks.shapes import SMALL, Shape, build, composed, items, linear_weights
from benchmarks.training import NO_TRL, TRL, Biqa, Plain, Trl, with_pictures
from biqa.data.collate import IGNORED, Batch
from biqa.data.module import Item
from biqa.language.prompts import DESCRIBE
from biqa.models.vlm import VLM

NUMBERS = (4, 6, 9)
TOKENS = 32
"""Of text in a row: question, answer and its end."""
SAME = 1e-3
"""Losses of two sides on one batch differ by no more."""


@dataclass(frozen=True)
class Work:
    """Steps of one size."""

    shape: Shape
    batch: int
    """Images a step."""
    steps: int
    """A round, after a first one."""
    wide: Shape
    """Of row 9."""

    @property
    def images(self) -> int:
        """A round."""
        return self.batch * (self.steps + 1)


FULL = Work(Shape(), batch=8, steps=2, wide=Shape(layers=12, width=768))
GLANCE = Work(SMALL, batch=2, steps=2, wide=replace(SMALL, width=128))


def rows(work: Work, machine: Machine, rounds: int, wanted: Sequence[int] = NUMBERS) -> list[Row]:
    """Those of rows 4, 6 and 9 that are wanted."""
    found = []
    with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
        if 4 in wanted or 6 in wanted:
            found += _compared(work, machine, rounds, Path(place), wanted)
        if 9 in wanted:
            found.append(_share(replace(work, shape=work.wide), machine, rounds, Path(place) / "wide"))
    return found


def config_of(batch: int, *overrides: str) -> DictConfig:
    """A run of stage 1."""
    return composed("stage=perception", f"stage.batch_size={batch}", *overrides)


def answer_length(vlm: VLM, shape: Shape) -> int:
    """Tokens of a description so that image, question, description and end fill a row."""
    prompt = len(vlm.question_ids(DESCRIBE, vlm.processor.image_token * shape.side**2))
    return shape.side**2 + TOKENS - prompt - 1


def operations(vlm: VLM, batch: Batch, shape: Shape, *, tower: bool = True) -> float:
    """Of matrix products with weights in one LoRA step.

    Forward through the tower and the projector (2 a weight and token); forward and the gradient of the activations, but none of weights, through the
    decoder's blocks (4); the same through the head, at supervised positions only. Attention's own products are left out.
    """
    tokens = int((batch.attention_mask > 0).sum())
    seen = len(batch.input_ids) * (shape.side**2 + 1) if vlm.vision and tower else 0
    supervised = int((batch.labels != IGNORED).sum()) + int((batch.level_position >= 0).sum())
    frozen = 2 * seen * (linear_weights(vlm, "tower") + linear_weights(vlm, "projector"))
    return frozen + 4 * tokens * linear_weights(vlm, "decoder") + 4 * supervised * shape.vocabulary * shape.width


class Sides:
    """The ways to do the step, on the same pictures and texts.

    Args:
        work: its size.
        folder: for pictures and runs.
        peers: whether there are others than biqa: transformers, TRL where it is installed, and biqa with the tower's features on disk.
    """

    def __init__(self, work: Work, folder: Path, *, peers: bool) -> None:
        self.work = work
        vlm = build(work.shape)
        made = items(folder / "images", vlm, [answer_length(vlm, work.shape)] * work.images, work.shape)
        config = config_of(work.batch)
        self.biqa = Biqa(vlm, config, made, folder / "run")
        self.first = self.biqa.batch(work.batch)
        self.ways: dict[str, Callable[[], float]] = {"biqa": self.biqa.step, "its own loss, bare": self.biqa.bare_step}
        if peers:
            kept = config_of(work.batch, "images.features_gb=1", f"images.cache={folder / 'cache'}")
            self.known = Biqa(build(work.shape), kept, made, folder / "known")
            self._check_known()
            self.ways["biqa, features kept"] = self.known.step
            plain = Plain(build(work.shape), config, list(self.biqa.data.train_dataloader()))
            check_same("transformers", self.biqa.loss(self.first), plain.loss(self.first))
            self.ways["transformers, bare"] = plain.step
        if peers and TRL:
            trl = partial(self._trl, config, folder)
            self._check_trl(trl(made[: work.batch]))
            self.ways["trl"] = trl(made).step

    def _trl(self, config: DictConfig, folder: Path, made: Sequence[Item]) -> Trl:
        vlm = build(self.work.shape)
        return Trl(vlm, config, with_pictures(vlm, made, DESCRIBE), folder / "trl")

    def _check_trl(self, trl: Trl) -> None:
        """TRL's first loss is biqa's: LoRA begins as nothing, so before the first step there is no chance in it."""
        trl.fit()
        check_same("TRL", self.biqa.loss(self.first), trl.first_loss)

    def _check_known(self) -> None:
        """With features from the disk the loss is that with pixels. Before the first step, as with the others: learning makes more of what bfloat16
        rounds in batches of other images."""
        self.known.know()
        known = self.known.batch(self.work.batch)
        assert "features" in known.image, f"the tower's features are not on disk: {list(known.image)}"
        check_same("features", self.known.loss(self.first), self.known.loss(known))


def check_same(side: str, ours: float, theirs: float) -> None:
    """Two losses of the same batch.

    Raises:
        AssertionError: they differ.
    """
    assert abs(ours - theirs) <= SAME, f"{side}: the losses differ: {ours} and {theirs}"


def _compared(work: Work, machine: Machine, rounds: int, folder: Path, wanted: Sequence[int]) -> list[Row]:
    sides = Sides(work, folder, peers=4 in wanted)
    taken = rounds_of(sides.ways, rounds)
    medians = {name: median(one[name] for one in taken) for name in sides.ways}
    said = f"stage-1 LoRA step, {work.shape}, batch {work.batch} x {sides.first.input_ids.shape[1]}, bf16"
    found = []
    if 4 in wanted:
        for letters, side in (("ab", "biqa"), ("cd", "biqa, features kept")):
            kept = side != "biqa"
            share = operations(sides.biqa.stage.vlm, sides.first, work.shape, tower=not kept) / medians[side] / machine.bfloat16
            for letter, peer, against, least in (
                (letters[0], "trl", "TRL's SFTTrainer", 6.0 if kept else 4.0),
                (letters[1], "transformers, bare", "`model(**batch, labels=...)`", 3.0 if kept else 2.0),
            ):
                if peer in medians:
                    shown = {name: medians[name] for name in (side, peer)}
                    which = ", the tower's features on disk" if kept else ""
                    row = Row(f"4{letter}", f"{said}{which}", against, least, ratio_of(taken, peer, side), share, PEAK, medians=shown)
                    found.append(replace(row, note=f"same losses within {SAME:g}" if TRL else f"TRL left out. {NO_TRL}"))
    if 6 in wanted:
        shown = {name: medians[name] for name in ("biqa", "its own loss, bare")}
        ratio = ratio_of(taken, "biqa", "its own loss, bare")
        found.append(
            Row("6", f"{said}, through Lightning", "a bare loop of the same loss", 1.05, ratio, 1 / ratio.median, "the bare loop", at_most=True,
                medians=shown)
        )  # fmt: skip
    return found


def _share(work: Work, machine: Machine, rounds: int, folder: Path) -> Row:
    sides = Sides(work, folder, peers=False)
    count = operations(sides.biqa.stage.vlm, sides.first, work.shape)
    taken = rounds_of({"biqa": sides.biqa.step}, rounds)
    shares = Ratio.of([count / seconds["biqa"] / machine.bfloat16 for seconds in taken])
    said = f"stage-1 LoRA step, {work.shape}, batch {work.batch} x {sides.first.input_ids.shape[1]}, bf16"
    note = f"{count / 1e12:.2f} TFLOP a step, LoRA at 4 a weight and token"
    return Row("9", said, PEAK, 0.45, shares, shares.median, PEAK, medians={"biqa": median(one["biqa"] for one in taken)}, note=note)
