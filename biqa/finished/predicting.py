"""A finished run as a function of pictures: what it says of some that no data set holds, from the run's folder alone.

    scorer = Scorer("runs/tiny-joint-synthetic-s0")
    scorer("photo.jpg").score

The stages answer as they did in the run: in its precision, with its temperature, from pictures reduced as its own were. So a picture that was among
the run's test images gets what stands in its answers table.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, overload

import pandas as pd
import torch
from omegaconf import OmegaConf
from PIL import Image

from biqa.data.module import Item
from biqa.data.record import Reduction
from biqa.errors import BadRecord, IncompatibleChoice
from biqa.evaluation.predictions import Prediction, Unreadable, prediction_of
from biqa.evaluation.scorers import scored
from biqa.finished.reading import Reading, Source, name_of
from biqa.finished.restoring import answered_with, chosen_device, composed_of, computing, stage_one_behind, whole
from biqa.language.prompts import INFER, JOINT
from biqa.models.sharing import share_weights
from biqa.models.vlm import VLM
from biqa.reporting.result import read_result
from biqa.running.building import answered_at_a_time, build_model, build_stage, build_stage_one, quiet
from biqa.running.instantiate import allowed
from biqa.running.origin import refuse_other_stage_one
from biqa.runs import STAGE_ONE, RunFolder, find_run
from biqa.stages.base import Row, StageModule
from biqa.stages.inference import Inference
from biqa.stages.limits import memory_error
from biqa.stages.probe import Probe, Regression
from biqa.stages.verdict import VerdictModule

ON_CPU = 16
"""Pictures at a time where there is no GPU to fill: results come sooner."""


class Scorer:
    """What a finished run says of pictures.

    A two-stage run describes with the stage 1 that it was built on and judges that text alone. Where both are adapters over one backbone, that lies
    in memory once.

    Args:
        run: the run's folder.
        device: "auto" (a GPU where there is one), "cpu", "cuda", or torch's name of a device.
        perception: folder of the stage 1 of a two-stage run; None: found as the run found it, or beside it.
        batch_size: pictures answered at a time; "auto": as many as fit into memory.
        seed: draws sampled answers; None: the run's own.
        option: what names the device, for messages.

    Raises:
        RunNotFound: no finished run there, or one that it builds on is gone.
        RunExists, BadRecord: its config or its result is damaged, or was edited.
        IncompatibleChoice: it is a run of stage 1, which judges nothing; or of stage 2, and the stage 1 has other weights than the one that it was
            taught on; or there is no such device.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        *,
        device: str = "auto",
        perception: str | os.PathLike[str] | None = None,
        batch_size: int | str = "auto",
        seed: int | None = None,
        option: str = "device",
    ) -> None:
        self.folder: RunFolder = find_run(Path(run), "run")
        self.result: dict[str, Any] = read_result(self.folder.result)
        self.config = composed_of(self.folder)
        with whole(self.folder):
            self._refuse_stage_one()
            kind = allowed(str(self.config.stage._target_))
            two_stage = isinstance(kind, type) and issubclass(kind, Inference)
            if perception is not None and not two_stage:
                raise IncompatibleChoice(
                    f"perception={os.fspath(perception)}: {self.folder.path} is no two-stage run: it describes by itself. Leave it out."
                )
            found = stage_one_behind(self.folder, self.config, perception) if two_stage else None
            if found is not None:
                refuse_other_stage_one(self.folder, found)
            on = chosen_device(device, option)
            quiet()
            # nothing is kept on disk, and compiling a step takes longer than some pictures do
            for name, value in (
                ("images.cache", None),
                ("sampling.compile", False),
                ("sampling.memory_gb", None),
                ("sampling.batch_size", batch_size),
            ):
                OmegaConf.update(self.config, name, value, force_add=True)
            self._build(found, on, self.config.seed if seed is None else seed)
        self._option = option
        self._alone = threading.Lock()

    def _build(self, stage_one: RunFolder | None, device: torch.device, seed: int) -> None:
        options = {name: self.config.stage[name] for name in ("target", "level_weight")}
        weights = answered_with(self.folder, self.config, stage_one)
        vlm = build_model(self.config, vision=stage_one is None, weights=weights)
        judge = build_stage(self.config, str(self.config.stage._target_), vlm, steps=0, repeats=0, **options)
        assert isinstance(judge, VerdictModule)
        self.judge: VerdictModule = judge
        """Gives the level."""
        self.describer = None
        """Describes for it; None: it sees the picture itself."""
        self.shared = 0
        """Bytes of memory that the two have in common."""
        if stage_one is not None:
            self.describer = build_stage(self.config, STAGE_ONE, build_stage_one(self.config, stage_one), steps=0, repeats=0)
            self.shared = share_weights(self.describer.vlm, vlm)
        if isinstance(judge, Probe):
            judge.regression = Regression.read(self.folder.regression)
        side = self.config.images.get("shorter_side")
        self._reading = Reading(self._stages[0], None if side is None else Reduction(int(side), None))
        for stage in self._stages:
            stage.seed = seed
            stage.vlm.requires_grad_(False)
            stage.vlm.to(device).eval()

    @property
    def _stages(self) -> list[StageModule]:
        return [stage for stage in (self.describer, self.judge) if stage is not None]

    @property
    def models(self) -> list[VLM]:
        """The models that answer: one, or that of stage 1 and that of stage 2."""
        return [stage.vlm for stage in self._stages]

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.result["run"]["name"]

    @property
    def describes(self) -> bool:
        """Whether its answers have words."""
        return not isinstance(self.judge, Probe)

    @property
    def learnt_from(self) -> str:
        """The data sets that it learnt from, in words."""
        learnt = [name for name, facts in self.result["data"].items() if facts["trained_on"]]
        return ", ".join(learnt) or "nothing (the base weights)"

    @property
    def stand_ins(self) -> list[str]:
        """The data sets that it learnt from whose labels are no human opinions of those very pictures."""
        return [name for name, facts in self.result["data"].items() if facts["trained_on"] and facts["stand_in"]]

    @overload
    def __call__(self, images: Source, *, repeats: int = 0) -> Prediction: ...

    @overload
    def __call__(self, images: Iterable[Source], *, repeats: int = 0) -> list[Prediction]: ...

    def __call__(self, images: Source | Iterable[Source], *, repeats: int = 0) -> Prediction | list[Prediction]:
        """What it says of a picture, or of each of several.

        Args:
            images: files, or pictures of Pillow's.
            repeats: N, how often each is asked again, for its instability; 0: once, greedily.

        Raises:
            BadRecord: one of them cannot be read (`each` goes on).
            IncompatibleChoice: `repeats` is 1, or this run always says the same.
        """
        one = isinstance(images, str | os.PathLike | Image.Image)
        found: list[Prediction] = []
        for result in self.each([images] if one else images, repeats=repeats):
            if isinstance(result, Unreadable):
                raise BadRecord(f"{result.image}: {result.reason}")
            found.append(result)
        return found[0] if one else found

    def each(self, images: Iterable[Source], *, repeats: int = 0) -> Iterator[Prediction | Unreadable]:
        """One result after another, in the order of the pictures. Some are decoded ahead; no more than some are in memory at a time.

        Args:
            images: as they are needed.
            repeats: as above.

        Raises:
            IncompatibleChoice: as above.
        """
        self._refuse_repeats(repeats)
        return self._each(images, repeats)

    def lens(self, image: Source, description: str) -> list[dict[str, Any]]:
        """What each layer of the model that gives the level would answer after a description (`biqa.analysis.lens.lens_rows`), layer 1 first.

        The last one gives the level distribution itself; nearly so where a one-stage run wrote odd words, which are split into tokens anew.

        Args:
            image: the picture; a two-stage run does not look at it.
            description: what the run said of it (`Prediction.description`).

        Raises:
            BadRecord: the picture cannot be read.
            IncompatibleChoice: the run says no word, or its decoder's layers cannot be read.
        """
        from biqa.analysis.lens import lens_rows
        from biqa.models.inside import context_of

        if not self.describes:
            raise IncompatibleChoice(f"{self.folder.path} says no word: it is a linear regression. Choose a run of another stage.")
        picture = None if self.describer else self._reading.pixels(image, name_of(image, 1))
        with self._alone, torch.inference_mode(), computing(self.config, self.judge.vlm.device):
            return lens_rows(self.judge.vlm, [context_of(self.judge.vlm, INFER if self.describer else JOINT, description, picture)])[0]

    def _refuse_stage_one(self) -> None:
        if self.config.stage._target_ != STAGE_ONE:
            return
        choices = " ".join(f"{group}={self.result['run'][group]}" for group in ("model", "data", "tuning"))
        path, seed = self.folder.path, self.result["seed"]
        raise IncompatibleChoice(
            f"{path} is a run of stage 1: it describes pictures and judges none. Train a stage 2 on it, and predict with that:\n"
            f"python -m biqa.run stage=2 {choices} seed={seed} stage.perception={path} (and the further options of that run)"
        )

    def _refuse_repeats(self, repeats: int) -> None:
        if repeats < 0 or repeats == 1:
            raise IncompatibleChoice(f"repeats={repeats}: one answer cannot disagree with itself. Choose 2 or more, or 0 to ask once.")
        if repeats and not self.describes:
            raise IncompatibleChoice(f"repeats={repeats}: {self.folder.path} is a regression: asked again it says the same. Choose repeats=0.")
        if repeats and not self.config.sampling.temperature > 0:
            raise IncompatibleChoice(
                f"repeats={repeats}: {self.folder.path} answers greedily (sampling.temperature={self.config.sampling.temperature:g}): asked again "
                f"it says the same. Choose repeats=0."
            )

    def _each(self, images: Iterable[Source], repeats: int) -> Iterator[Prediction | Unreadable]:
        self.judge.recall(())  # from here on equal descriptions are judged once; what was kept of earlier pictures goes
        for some in self._reading.batches(images, partial(self._at_a_time, repeats)):
            answers = iter(self._answered([item for item in some if isinstance(item, Item)], repeats))
            for one in some:
                yield one if isinstance(one, Unreadable) else next(answers)

    def _at_a_time(self, repeats: int, item: Item) -> int:
        size = self.config.sampling.batch_size
        if size != "auto":
            return int(size)
        fit = 1
        with self._alone, suppress(IncompatibleChoice):  # by that count not even one fits: it keeps some in reserve
            self._set_repeats(repeats)
            fit = answered_at_a_time(self.config, self._stages[0], [item])
        return fit if self.judge.vlm.device.type == "cuda" else min(fit, ON_CPU)

    def _set_repeats(self, repeats: int) -> None:
        for stage in self._stages:
            stage.repeats = repeats

    def _answered(self, items: list[Item], repeats: int) -> list[Prediction]:
        if not items:
            return []
        try:
            rows = self._scored(self._rows(items, repeats))
        finally:
            self._reading.forget(items)
        made = partial(prediction_of, described=self.describes)
        return [made(item.record.image, of) for item, of in zip(items, _by_item(rows, items), strict=True)]

    def _scored(self, rows: list[Row]) -> list[Row]:
        """The rows with the scores that the run gives, where it has another scorer than the mean of the level distribution."""
        scorer = OmegaConf.select(self.config, "scorer.kind", default="levels")  # absent in runs of releases that had no choice
        if scorer == "levels":
            return rows
        return [{str(name): value for name, value in row.items()} for row in scored(pd.DataFrame(rows), scorer).to_dict("records")]

    def _rows(self, items: list[Item], repeats: int) -> list[Row]:
        """Rows of the answers table, 1 + N for each item, item by item."""
        try:
            with self._alone, torch.inference_mode(), computing(self.config, self.judge.vlm.device):
                self._set_repeats(repeats)
                if self.describer is not None:
                    told = _by_item(self.describer.answer(items), items)
                    items = [replace(item, descriptions=tuple(row["description"] for row in of)) for item, of in zip(items, told, strict=True)]
                return self.judge.answer(items)
        except Exception as error:
            if memory_error(error):
                error.add_note(
                    f"Answering {len(items)} pictures at a time with {repeats + 1} queries each. What helps: a smaller batch_size, fewer repeats, "
                    f"or {self._option}=cpu."
                )
            raise


def _by_item(rows: Sequence[Row], items: Sequence[Item]) -> list[Sequence[Row]]:
    """Rows in as many parts of one length."""
    queries = len(rows) // len(items)
    return [rows[at : at + queries] for at in range(0, len(rows), queries)]
