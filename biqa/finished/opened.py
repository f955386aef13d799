"""A finished run, opened to look inside: its answers, and its model and images once they are asked for."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from biqa.errors import BadRecord, IncompatibleChoice, RunNotFound
from biqa.evaluation.answers import read_answers
from biqa.language.prompts import INFER, JOINT
from biqa.runs import RunFolder, find_run

if TYPE_CHECKING:
    from PIL import Image

    from biqa.data.record import Record
    from biqa.models.inside import Context
    from biqa.models.vlm import VLM
    from biqa.running.loading import Corpus

QUESTIONS = {"joint": JOINT, "zero_shot": JOINT, "inference": INFER}
"""Stages that describe and judge -> the question after which the level is given."""


class OpenedRun:
    """A finished run whose answers have descriptions and levels.

    Args:
        path: its folder.
        option: what names it on the command line, for messages.
        most: images of each data set that are looked at, at most; of more, a seeded draw. None: all.
        always: images that are looked at whatever is drawn.
        seed: of that draw.
        accelerator: "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises:
        RunNotFound: no finished run, or its answers are gone.
        IncompatibleChoice: its stage gives no level after a description.
    """

    def __init__(
        self, path: str, *, option: str = "run", most: int | None = None, always: Sequence[str] = (), seed: int = 0, accelerator: str = "auto"
    ) -> None:
        from biqa.reporting.result import read_result

        self.folder: RunFolder = find_run(path, option)
        self.result: dict[str, Any] = read_result(self.folder.result)
        self.stage: str = self.result["run"]["stage"]
        self.accelerator = accelerator
        if self.stage not in QUESTIONS:
            raise IncompatibleChoice(
                f"{option}={path} is a run of stage={self.stage}, whose answers are no level after a description. "
                f"Choose a run of {', '.join(QUESTIONS)}."
            )
        self.answers = {dataset: self._read(option, path, dataset) for dataset in sorted(self.result["metrics"])}
        """Data set -> its answers table."""
        self.greedy = {dataset: _some(frame.loc[frame["query"] == 0, :], most, seed, always) for dataset, frame in self.answers.items()}
        """Data set -> the greedy answers (query 0) of the images that are looked at, an image a row."""

    def _read(self, option: str, path: str, dataset: str) -> pd.DataFrame:
        file = self.folder.answers(dataset)
        if not file.is_file():
            raise RunNotFound(f"{option}={path}: its answers are gone ({file.name} is not there). Make the run again: biqa rerun {path}")
        return read_answers(file)

    @property
    def name(self) -> str:
        """Its name."""
        return self.result["run"]["name"]

    @property
    def question(self) -> str:
        """What is asked before the level; with a place for the description where the level follows from the text alone."""
        return QUESTIONS[self.stage]

    @property
    def sees(self) -> bool:
        """Whether the model that gives the level sees the image."""
        return self.stage != "inference"

    @property
    def digest(self) -> str:
        """Hash of the answers: an analysis of other answers is another one."""
        files = [self.folder.answers(dataset).read_bytes() for dataset in self.answers]
        return sha256(b"".join(files)).hexdigest()[:16]

    @cached_property
    def config(self) -> DictConfig:
        """The run's config, as it was composed."""
        from biqa.finished.restoring import composed_of

        return composed_of(self.folder)

    @cached_property
    def vlm(self) -> "VLM":
        """The model that gives the level, with what was learnt, on its device and in evaluation mode."""
        from biqa.finished.restoring import answered_with, chosen_device, whole
        from biqa.running.building import build_model, quiet

        quiet()
        with whole(self.folder):
            vlm = build_model(self.config, vision=self.sees, weights=answered_with(self.folder, self.config))
        return vlm.to(chosen_device(self.accelerator)).eval()

    def precision(self) -> AbstractContextManager[Any]:
        """The run's own precision: its answers were made in it."""
        from biqa.finished.restoring import computing

        return computing(self.config, self.vlm.device)

    @cached_property
    def corpus(self) -> "Corpus":
        """The data sets of the run, with the description targets of what it was trained on."""
        from biqa.finished.restoring import whole
        from biqa.running.loading import load_corpus

        with whole(self.folder):
            return load_corpus(self.config, describe_tests=False, ask=False)

    @cached_property
    def records(self) -> "dict[tuple[str, str], Record]":
        """(data set, image) -> test image."""
        return {(images.card.name, record.image): record for images in self.corpus.test for record in images.split("test")}

    def picture(self, dataset: str, image: str) -> "Image.Image":
        """A test image as the model sees it.

        Raises:
            BadRecord: the data set has no such test image any more.
        """
        from biqa.data.images import image_of

        if (dataset, image) not in self.records:
            raise BadRecord(
                f"{self.folder.path}: {image} was answered and is no test image of {dataset} now. The data have changed since: run it again."
            )
        return image_of(self.records[dataset, image])

    def contexts(self, dataset: str, images: Sequence[str], descriptions: Sequence[str]) -> "list[Context]":
        """All that the model has read when it gives the level after each description."""
        from biqa.models.inside import context_of

        pictures = [self.picture(dataset, image) if self.sees else None for image in images]
        return [context_of(self.vlm, self.question, text, picture) for text, picture in zip(descriptions, pictures, strict=True)]


def _some(rows: pd.DataFrame, most: int | None, seed: int, always: Sequence[str]) -> pd.DataFrame:
    """The rows, or a seeded draw of so many and those of the images that are named, in their order."""
    rows = rows.sort_values("image", kind="stable", ignore_index=True)
    if most is None or len(rows) <= most:
        return rows
    drawn = np.isin(np.arange(len(rows)), np.random.default_rng(seed).permutation(len(rows))[:most])
    return rows.loc[drawn | rows["image"].isin(list(always)).to_numpy(), :].reset_index(drop=True)
