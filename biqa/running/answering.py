"""Answers and descriptions of many images: kept as they are made, so that a killed run goes on with those that it has not asked.

What was made lies in `<table>.parts/` beside the table until that is whole. Which images a process takes and which of them are asked together depends
on the list of images alone, so a run that goes on ends with the table of one that nothing interrupted.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import pandas as pd
from omegaconf import DictConfig, OmegaConf

from biqa import config as schema
from biqa.data.module import Item
from biqa.data.record import Split
from biqa.data.shares import share
from biqa.evaluation.answers import answers_frame, made_by, read_table, refuse_other_answers, write_answers
from biqa.evaluation.scorers import scored
from biqa.running.building import build_data, build_stage, build_stage_one, build_trainer
from biqa.running.origin import print_of_weights
from biqa.running.parts import RowsInParts
from biqa.running.serving import Serving
from biqa.runs import STAGE_ONE, RunFolder
from biqa.stages.base import Row, StageModule
from biqa.stages.together import first, from_first, gathered_by_first, rank, world

if TYPE_CHECKING:
    from biqa.running.loading import Corpus, Images

SECONDS = 20.0
"""Between two files of rows, at least: what a kill costs at most, with the batch that is being asked."""


class Keep(L.Callback):
    """Writes the rows of each batch, of all processes, as they come.

    Args:
        parts: where they are kept; only the first process writes.
    """

    def __init__(self, parts: RowsInParts) -> None:
        self.parts = parts
        self.written = time.monotonic()

    def on_predict_batch_end(  # noqa: PLR0917 (Lightning's hook)
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 (rows)
        batch: Any,  # noqa: ANN401 (items)
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the rows of a batch; write a file once in a while."""
        for rows in gathered_by_first(outputs):
            self.parts.add(rows)
        if time.monotonic() - self.written >= SECONDS:
            self._write()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is left."""
        self._write()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Write what is left, where the run ends before its time."""
        self._write()

    def _write(self) -> None:
        self.parts.write()
        self.written = time.monotonic()


def rows_of(serving: Serving, stage: StageModule, trainer: L.Trainer, items: Sequence[Item], table: Path, *, weights: str) -> list[Row]:
    """Rows of some images, asked now or before a kill: in the first process those of all, image by image in the order of the items.

    Args:
        serving: the run's config, and what answers in the place of the stage's model, if anything does.
        stage: what answers.
        trainer: with it.
        items: of images with different names.
        table: the file that they will end in. What is kept beside it may go once that is written (`RowsInParts.clear`).
        weights: print of those that answer.
    """
    parts = RowsInParts(table, weights)
    done = from_first(parts.images)
    left = [item for item in items if item.record.image not in done]
    if left:
        if done and stage.recalls:
            made = from_first(parts.rows)
            stage.recall(row for item in share(items, rank(), world()) for row in made.get(item.record.image, ()))
        together = serving.take_over(stage, trainer, left)
        # it lies on the host until Lightning moves it, and how many fit is asked of its device; divided weights may be too large for one
        if together is None and serving.composed.strategy.kind in ("auto", "ddp"):
            stage.to(trainer.strategy.root_device)
        keep = Keep(parts)
        callbacks: list[Any] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] (set under another name)
        callbacks.insert(0, keep)  # before the one that ends a run on a signal
        try:
            trainer.predict(stage, build_data(serving.composed, stage, predict=left, together=together), return_predictions=False)
        finally:
            callbacks.remove(keep)
    by_image = parts.rows() if first() else {}
    return [row for item in items if by_image for row in by_image[item.record.image]]


def answer(serving: Serving, folder: RunFolder, stage: StageModule, trainer: L.Trainer, test: Mapping[str, list[Item]]) -> None:
    """A table of answers for each data set that has none yet, scored as the run's config says."""
    scorer = OmegaConf.select(serving.composed, "scorer.kind", default="levels")  # absent in runs of releases that had no choice
    weights = from_first(lambda: answered_by(serving))
    for dataset, items in test.items():
        table = folder.answers(dataset)
        if not from_first(lambda table=table: is_made(table, weights)):
            rows = rows_of(serving, stage, trainer, items, table, weights=weights)
            if first():
                frame = answers_frame({"dataset": dataset, **row} for row in rows)
                write_answers(scored(frame, scorer), table, weights)
        if first():
            RowsInParts(table).clear()  # also those that a kill left beside a table that was whole


def answered_by(serving: Serving) -> str:
    """Print of the weights that answer."""
    return "base" if serving.learnt is None else print_of_weights(serving.learnt.path)


def is_made(table: Path, weights: str) -> bool:
    """Whether a table is there, made by these weights. One that others have made goes: answers of two models in one run are of neither."""
    if not table.is_file():
        return False
    others = made_by(table)
    if others in (None, weights):  # none: of a release that kept no print
        return True
    print(f"WARNING: {table} was made by other weights ({others}, and here are {weights}): it is made anew.", file=sys.stderr)
    table.unlink()
    return False


def described_items(
    config: schema.Config, composed: DictConfig, folder: RunFolder, stage_one: RunFolder, corpus: "Corpus"
) -> tuple[list[Item], list[Item], dict[str, list[Item]]]:
    """Items of stage 2: descriptions to learn from, to validate on, and by data set (one for each query) to answer from."""
    assert isinstance(config.stage, schema.InferenceStage)
    source = config.stage.descriptions
    train = [] if source == "generated" else corpus.items("train")
    val: list[Item] = []
    test: dict[str, list[Item]] = {}
    with Serving(composed, stage_one) as serving:
        for images in corpus.training:
            if source != "target":
                written = describe(serving, folder, images, split="train", repeats=config.stage.generated_per_image - 1)
                train += images.items("train", written)
            val += images.items("val", describe(serving, folder, images, split="val", repeats=0))
        for images in corpus.test:
            written = describe(serving, folder, images, split="test", repeats=config.sampling.repeats)
            test[images.card.name] = [Item(record, tuple(written[record.image])) for record in images.split("test")]
    return train, val, test


def describe(serving: Serving, folder: RunFolder, images: "Images", *, split: Split, repeats: int) -> dict[str, list[str]]:
    """What stage 1 writes about the images of a split: image -> greedy description, then sampled ones. Kept in the run folder for a resumed run.

    Raises:
        BadRecord: what is kept is not of these images.
    """
    table = folder.descriptions / f"{images.card.name}-{split}.parquet"
    weights = from_first(lambda: answered_by(serving))
    if not from_first(lambda: is_made(table, weights)):
        composed, stage_one = serving.composed, serving.learnt
        assert stage_one is not None, "a stage 1 has learnt"
        stage = build_stage(composed, STAGE_ONE, serving.model(lambda: build_stage_one(composed, stage_one)), steps=0, repeats=repeats)
        rows = rows_of(serving, stage, build_trainer(composed, folder, logs=False), images.items(split), table, weights=weights)
        if first():
            write_answers(pd.DataFrame(rows), table, weights)
            RowsInParts(table).clear()
    found = from_first(lambda: read_table(table)).sort_values(["image", "query"], kind="stable")
    refuse_other_answers(found, table, images={record.image for record in images.split(split)}, queries=repeats + 1)
    return {str(image): list(rows["description"]) for image, rows in found.groupby("image", sort=False)}
