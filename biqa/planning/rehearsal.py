"""A run that is tried in small, by the clock: some steps, a validation and some answers, of which what the whole run takes is concluded.

They are those of the run, on images of the run (`biqa.stages.clock`); what is trained is thrown away. A model that has learnt nothing yet writes on
until it is cut, so where descriptions are to be learnt, answers end after as many tokens as those that are learnt from.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO, StringIO
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from biqa import config as schema
from biqa.files import free_for, nearest_folder
from biqa.planning.machine import memory_held, written_a_second
from biqa.reporting.estimate import Estimate, amount
from biqa.running.processes import devices_named
from biqa.running.training import Ready, Seconds, figures, make_ready, verdict_options
from biqa.runs import STAGE_ONE, RunFolder, plain

if TYPE_CHECKING:
    import lightning as L
    import pandas as pd

    from biqa.data.module import Item
    from biqa.data.record import Record, Split
    from biqa.models.vlm import VLM
    from biqa.running.loading import Images
    from biqa.stages.base import Row, StageModule
    from biqa.stages.clock import Asked, Clock

PHASES = ("build", "data", "describe", "fit", "answer", "evaluate")
EVALUATED = 256
"""Images, at most, whose evaluation is timed."""
AT_ONCE = 32
"""Training images, at most, by which it is seen how long a stage takes that learns without steps."""


def alone(composed: DictConfig) -> DictConfig:
    """The config of the one process that rehearses: images are encoded when they are needed, so that it is seen how long that takes."""
    values = plain(OmegaConf.to_container(composed, resolve=True))
    named = devices_named(values["trainer"]["devices"])
    values["trainer"] |= {"devices": named[:1] if named else 1, "nodes": 1, "workers": 0, "cache_mb": 0, "progress": False}
    values["strategy"] |= {"kind": "auto"}
    values["sampling"] |= {"compile": False}
    return OmegaConf.create(values)


@dataclass
class Rehearsal:
    """What is found out bit by bit. Of work that several processes divide among them, the share of one is told."""

    config: schema.Config
    """As it was asked for."""
    one: DictConfig
    """Of the process that rehearses."""
    processes: int
    folder: RunFolder
    ready: Ready
    seconds: dict[str, float]
    """By phase, of those that are over."""
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)
    features: int = 0
    """Bytes on disk."""
    kept: int = 0
    """Bytes of memory that prepared training images take in the run, and not here."""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, config: schema.Config, composed: DictConfig, choices: Mapping[str, str], processes: int, folder: RunFolder) -> "Rehearsal":
        """Build the model and load the data, as the run would.

        Raises:
            UserError: as the run would.
        """
        one, taken = alone(composed), Seconds()
        ready = make_ready(config, one, choices, folder, taken)
        sources = {"build": "as it took now", "data": "as it took now; what is remembered of images takes less time again"}
        return cls(config, one, processes, folder, ready, dict(taken.of), sources=sources)

    def images(self) -> dict[str, dict[str, int]]:
        """Data set -> images of each split that the run uses, and those that are left out."""
        corpus, steps = self.ready.corpus, self.config.stage.epochs > 0
        used = {
            "train": corpus.training if steps or isinstance(self.config.stage, schema.ProbeStage) else [],
            "val": corpus.training if steps else [],
        }
        used["test"] = corpus.test
        splits: tuple[Split, ...] = ("train", "val", "test")
        return {
            images.card.name: {
                **{split: len(images.split(split)) if images in used[split] else 0 for split in splits},
                "skipped": len(images.skipped),
            }
            for images in corpus.sets
        }

    @cached_property
    def shown(self) -> int:
        """Examples an epoch."""
        from biqa.data.module import items_an_epoch

        items, copies = self.ready.corpus.items("train"), 1
        if isinstance(self.config.stage, schema.InferenceStage):
            generated = self.config.stage.generated_per_image
            copies = {"target": 1, "generated": generated, "mixed": 1 + generated}[self.config.stage.descriptions]
        return items_an_epoch(self.ready.corpus.weights(items * copies))

    @cached_property
    def length(self) -> tuple[int, int]:
        """Epochs and steps of the whole run."""
        from biqa.running.building import training_length

        return training_length(self.one, self.shown, self.processes)

    def stage(self) -> "StageModule":
        """The stage, around the model."""
        from biqa.running.building import build_stage

        options = self.config.stage
        return build_stage(
            self.one, options._target_, self.ready.vlm, steps=self.length[1], repeats=self.config.sampling.repeats, **verdict_options(options)
        )

    # what is learnt from

    def items(self) -> tuple[list["Item"], list["Item"], dict[str, list["Item"]]]:
        """What is learnt from, validated on and, by data set, answered: all of it, and of a stage 2 some, with what stage 1 really writes."""
        corpus = self.ready.corpus
        if self.ready.stage_one is not None:
            return self._described(self.ready.stage_one)
        return corpus.items("train"), corpus.items("val"), {images.card.name: images.items("test") for images in corpus.test}

    def _described(self, stage_one: RunFolder) -> tuple[list["Item"], list["Item"], dict[str, list["Item"]]]:
        from biqa.data.module import Item
        from biqa.running.building import build_stage_one

        assert isinstance(self.config.stage, schema.InferenceStage)
        options, corpus = self.config.stage, self.ready.corpus
        started = time.perf_counter()
        vlm = build_stage_one(self.one, stage_one)
        building = time.perf_counter() - started
        train = [] if options.descriptions == "generated" else corpus.items("train")
        val: list[Item] = []
        test: dict[str, list[Item]] = {}
        self.parts["describe"] = {}

        def written(images: "Images", split: "Split", repeats: int) -> list[tuple["Record", list[str]]]:
            return self._written(vlm, images, split, repeats, building)

        for images in corpus.training:
            if options.descriptions != "target":
                train += [Item(record, (text,)) for record, texts in written(images, "train", options.generated_per_image - 1) for text in texts]
            val += [Item(record, (text,)) for record, [text] in written(images, "val", 0)]
        for images in corpus.test:
            test[images.card.name] = [Item(record, tuple(texts)) for record, texts in written(images, "test", self.config.sampling.repeats)]
        self.seconds["describe"] = sum(self.parts["describe"].values())
        self.sources["describe"] = f"some images of each split, described by {stage_one.path}"
        return train, val, test

    def _written(self, vlm: "VLM", images: "Images", split: "Split", repeats: int, building: float) -> list[tuple["Record", list[str]]]:
        """What stage 1 writes about some images of a split."""
        import pandas as pd

        from biqa.running.building import answered_at_a_time, build_stage, build_trainer

        stage = build_stage(self.one, STAGE_ONE, vlm, steps=0, repeats=repeats)
        trainer, items = build_trainer(self.one, self.folder, logs=False), images.items(split)
        asked, looking = self._ask(stage, trainer, items, items, answered_at_a_time(self.one, stage, items))
        self.parts["describe"][f"{images.card.name} {split}"] = building + looking + asked.seconds * len(items) / self.processes
        self.disk["descriptions"] = self.disk.get("descriptions", 0) + table_bytes(pd.DataFrame(asked.rows), len(items) * (repeats + 1))
        texts: dict[str, list[str]] = {}
        for row in asked.rows:  # image by image, in the order of the queries
            texts.setdefault(row["image"], []).append(row["description"])
        return [(item.record, texts[item.record.image]) for item in items[: asked.images]]

    def first_examples(self, stage: "StageModule", train: Sequence["Item"]) -> list["Item"]:
        """Those that the run learns from first, in its order; where there are too few for some steps, some come again."""
        from biqa.running.building import build_data
        from biqa.stages.clock import MOST

        batches = build_data(self.one, stage, train=train, weights=self.ready.corpus.weights(train)).batches
        wanted, order = MOST * self.config.stage.batch_size * self.config.trainer.accumulate, list[int]()
        while len(order) < wanted:
            order += [place for batch in batches for place in batch]
        return [train[place] for place in order[:wanted]]

    # what is measured

    def fit(self, stage: "StageModule", examples: Sequence["Item"], val: Sequence["Item"]) -> None:
        """Some steps and a validation."""
        from biqa.models.adapters import written_bytes
        from biqa.running.building import build_data, build_trainer, epochs_a_validation
        from biqa.stages.clock import Clock

        clock, some, corpus, (epochs, steps) = Clock(), val[: self.config.stage.batch_size], self.ready.corpus, self.length
        trainer = build_trainer(self.one, self.folder, 1, logs=False, instead=[clock])
        stage.rehearsed = [] if self.ready.stage_one else [stage.described_length(item) for item in examples]
        with self._knowing(stage, trainer, [*corpus.items("train"), *corpus.items("val")], halves=True) as looking, silent():
            trainer.fit(stage, build_data(self.one, stage, train=examples, val=some))
        validated = len(corpus.items("val"))
        validations, saved = epochs // epochs_a_validation(epochs), epochs + steps // self.config.trainer.checkpoint_steps
        pace = written_a_second(nearest_folder(self.folder.path))
        self.disk |= {"weights": written_bytes(stage.vlm), "checkpoints": 2 * clock.checkpoint_bytes}
        self.parts["fit"] = {
            "steps": steps * clock.step,
            "images": self._waiting(clock),
            "validation": validations * validated / self.processes * clock.validating / len(some),
            "checkpoints": saved * clock.checkpoint_bytes / pace,
        } | ({"features": looking} if looking else {})
        self.seconds["fit"] = sum(self.parts["fit"].values())
        self.sources["fit"] = (
            f"{steps} steps of {clock.step:.3g} s (median of {max(1, len(clock.stepping) - 1)}), {validations} validations on {validated} images "
            f"({len(some)} took {clock.validating:.2g} s), {saved} checkpoints of {amount(clock.checkpoint_bytes)} at {amount(pace)} a second"
        )
        if len(clock.stepping) == 1:
            self.notes.append("A step takes so long that one was measured, without another before it to warm up.")

    def _waiting(self, clock: "Clock") -> float:
        """Seconds of a whole training that go into reading, encoding and collating images, beyond what other processes do meanwhile."""
        options, (epochs, steps) = self.config.trainer, self.length
        workers, images = max(1, options.workers), self.shown / self.processes
        needed, room = sum(clock.example_bytes) / len(clock.example_bytes) * images, options.cache_mb * 2**20
        kept = min(1.0, room / needed)
        self.kept = int(min(room, needed)) * workers
        seconds = 0.0
        for epoch in range(epochs):  # what a process has kept, another one encodes anew
            encoded = images * (1 - kept * (1 - (1 - 1 / workers) ** epoch))
            busy = encoded * clock.encoding + images * clock.collation
            seconds += max(0.0, busy / workers - clock.step * steps / epochs) if options.workers else busy
        return seconds

    def answer(self, stage: "StageModule", train: Sequence["Item"], test: Mapping[str, Sequence["Item"]]) -> None:
        """Some answers of each data set, and their evaluation."""
        from biqa.evaluation.answers import answers_frame
        from biqa.running.building import answered_at_a_time, build_trainer

        trainer = build_trainer(self.one, self.folder, logs=False)
        by_name = {images.card.name: images for images in self.ready.corpus.test}
        together = {name: answered_at_a_time(self.one, stage, items) for name, items in test.items()}
        self.parts["answer"] = {"training images": self._learnt_at_once(stage, trainer, train)} if stage.learns_without_steps else {}
        self.disk["answers"], self.seconds["evaluate"], said = 0, 0.0, []
        for name, items in test.items():
            everything = by_name[name].items("test")
            asked, looking = self._ask(stage, trainer, items, everything, together[name])
            self.parts["answer"][name] = looking + asked.seconds * len(everything) / self.processes
            self.disk["answers"] += table_bytes(answers_frame({"dataset": name, **row} for row in asked.rows), len(everything) * (stage.repeats + 1))
            self.seconds["evaluate"] += self._evaluated(by_name[name], everything, asked.rows)
            said.append(f"{asked.images} of {len(everything)} images of {name} ({1000 * asked.seconds:.3g} ms each)")
            if asked.images < min(together[name], len(items)):
                self.notes.append(
                    f"The run answers {together[name]} images of {name} at a time; here {asked.images} were, so memory may rise higher."
                )
        self.seconds["answer"] = sum(self.parts["answer"].values())
        queries = f"{stage.repeats + 1} queries each" if stage.repeats else "a query each"
        self.sources["answer"] = f"{', '.join(said)}, {queries}" + (", as long as the descriptions to learn" if stage.rehearsed else "")
        if stage.recalls:
            self.sources["answer"] += ", as if no text came twice"
        self.sources["evaluate"] = f"{self.config.evaluation.resamples} resamples of at most {EVALUATED} images a data set"

    def _learnt_at_once(self, stage: "StageModule", trainer: "L.Trainer", train: Sequence["Item"]) -> float:
        """Seconds that a stage without steps takes for its training images, by some of them."""
        from biqa.stages.clock import now, ready_to_answer

        some = train[:AT_ONCE]
        with ready_to_answer(stage, trainer):
            stage.learn_without_steps(some[:2])
            stage.on_predict_start()  # warms up
            started = now()
            stage.learn_without_steps(some)
            stage.on_predict_start()
            return (now() - started) / len(some) * len(train)

    def _ask(
        self, stage: "StageModule", trainer: "L.Trainer", items: Sequence["Item"], everything: Sequence["Item"], together: int
    ) -> tuple["Asked", float]:
        """Some images answered by the clock, and the seconds that it takes to know the features of all of them."""
        from biqa.stages.clock import ask
        from biqa.stages.features import KnownImages

        with self._knowing(stage, trainer, everything, halves=False) as looking, silent():
            if isinstance(stage.known, KnownImages):
                stage.known.learn([item.record for item in items[:together]], trainer.precision_plugin.forward_context(), halves=False)
            return ask(stage, trainer, items, together), looking

    @contextmanager
    def _knowing(self, stage: "StageModule", trainer: "L.Trainer", items: Sequence["Item"], *, halves: bool) -> Iterator[float]:
        """Let features of these images be looked up inside if the run would; yields the seconds that computing those that are missing takes there."""
        from biqa.stages.features import KnownImages

        known = stage.known
        if not isinstance(known, KnownImages):
            yield 0.0
            return
        stage.vlm.to(trainer.strategy.root_device)
        if not halves:
            stage.vlm.eval()
        needs = known.needs([item.record for item in items], trainer.precision_plugin.forward_context(), halves=halves)
        if needs.refused:
            stage.known = None
            self.notes.append(f"Features of images are not kept: {needs.refused}.")
        else:
            self.features += needs.size * needs.missing
        try:
            yield 0.0 if needs.refused else needs.seconds * needs.missing / self.processes
        finally:
            stage.known = known

    def _evaluated(self, images: "Images", items: Sequence["Item"], rows: Sequence["Row"]) -> float:
        """Seconds to evaluate the answers about all images, by a table that repeats those about a few."""
        from biqa.evaluation.answers import answers_frame

        number = min(EVALUATED, len(items))
        by_image: dict[str, list[Row]] = {}
        for row in rows:
            by_image.setdefault(row["image"], []).append(row)
        few, made = list(by_image.values()), []
        for place, item in enumerate(items[:number]):
            own = {"image": item.record.image, "q": item.record.q, "subset": item.record.subset}
            made += [{"dataset": images.card.name, **row, **own} for row in few[place % len(few)]]
        frame = answers_frame(made)
        started = time.perf_counter()
        figures(self.config, self.ready.corpus, images, frame)
        return (time.perf_counter() - started) * len(items) / number

    # what is concluded

    def concluded(self) -> Estimate:
        """All of it."""
        from biqa.models.adapters import merged_bytes

        if self.config.export.merge:
            self.disk["merged"] = merged_bytes(self.ready.vlm)
        peak, memory = memory_held()
        peak["host"] += self.kept
        free, cache = {"runs": free_for(self.folder.path)}, self.config.images.cache
        if cache:
            free["cache"] = disk_usage(nearest_folder(Path(cache).expanduser())).free
        return Estimate(
            name=self.config.name,
            seconds={phase: round(self.seconds[phase], 2) for phase in PHASES if phase in self.seconds},
            parts={phase: {part: round(seconds, 2) for part, seconds in of.items()} for phase, of in self.parts.items()},
            sources=self.sources, images=self.images(), epochs=self.length[0], steps=self.length[1], processes=self.processes,
            disk=self.disk, features_bytes=self.features, free_bytes=free, peak_memory_bytes=peak, memory_bytes=memory,
            notes=tuple(dict.fromkeys([*self.notes, *self._uncounted()])),
        )  # fmt: skip

    def _uncounted(self) -> Iterator[str]:
        """What the estimate leaves out."""
        config = self.config
        if self.processes > 1:
            divided = "" if config.strategy.kind in ("auto", "ddp") else f", nor how strategy={config.strategy.kind} divides memory"
            yield f"Measured in one process and divided among {self.processes}: what they tell each other is not counted{divided}."
        if config.sampling.compile:
            yield "sampling.compile=true is not rehearsed: answers were timed with steps that are not compiled."
        if config.answers.engine == "vllm":
            yield "answers=vllm is not rehearsed: answers were timed by the run's own model, which takes longer."
        if config.tuning.projector_start == "words" and self.length[0]:
            yield "tuning.projector_start=words is not counted: up to 2,000 images go through the tower once before the first step."
        if config.export.merge:
            yield "Writing merged/ (export.merge=true) is not counted in the time."


@contextmanager
def silent() -> Iterator[None]:
    """Without what the run would say of the images that it works on: here it is a few of them."""
    with redirect_stdout(StringIO()):
        yield


def table_bytes(frame: "pd.DataFrame", rows: int) -> int:
    """Bytes of a parquet file of so many rows such as these."""
    sizes = []
    for part in (frame, frame[:0]):
        part.to_parquet(file := BytesIO(), index=False)
        sizes.append(len(file.getvalue()))
    whole, empty = sizes
    return empty + round((whole - empty) / len(frame) * rows)
