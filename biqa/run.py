"""The door: compose -> check -> build -> fit -> answer -> evaluate -> result.json.

python -m biqa.run stage=1 model=tiny
python -m biqa.run -m stage=1,2 seed=0,1
python -m biqa.run --help
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from biqa import config as schema
from biqa.config.stage import VerdictStage
from biqa.doors import open_door, user_errors
from biqa.errors import IncompatibleChoice
from biqa.processes import joined, launch, placed, processes_wanted, refuse_alone, refuse_other_number
from biqa.runs import STAGE_ONE, RunFolder, find_run, find_stage_one, plain
from biqa.stopping import goes_on_here, mark, signals, stoppable, told_in_words
from biqa.sweeps import in_order

if TYPE_CHECKING:
    import lightning as L

    from biqa.data.module import DataModule, Item
    from biqa.data.record import Split
    from biqa.loading import Corpus, Images
    from biqa.stages.base import Row, StageModule

STAGE_NUMBERS = {"1": "perception", "2": "inference"}
MAY_BE_NULL = ("logger", "sweep")


@dataclass
class Seconds:
    """Wall seconds of each phase of a run."""

    of: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to phase `name`."""
        start = time.perf_counter()
        yield
        self.of[name] = round(self.of.get(name, 0.0) + time.perf_counter() - start, 2)


def numbers_to_words(arguments: list[str]) -> list[str]:
    """`stage=1,2` -> `stage=perception,inference`: a choice of a config group must be a word for Hydra.

    `test=[live,csiq]` -> `test=live+csiq`: so is the choice of several data sets called (`biqa.config.combined`).
    `logger=null` -> `~logger`, as Hydra has it. Other numbers and nulls become quoted words, so that Hydra answers with its list of choices.
    """

    def words(match: re.Match[str]) -> str:
        if match[1] in MAY_BE_NULL and match[2] == "null":
            return f"~{match[1]}"
        numbers = STAGE_NUMBERS if match[1] == "stage" else {}
        choices = [numbers.get(choice, f"'{choice}'" if choice.isdigit() or choice == "null" else choice) for choice in match[2].split(",")]
        return f"{match[1]}={','.join(choices)}"

    groups = "|".join(path.name for path in Path(schema.config_directory()).iterdir() if path.is_dir())
    lists = [
        re.sub(r"\[([\w+,\s]*)\]", lambda names: re.sub(r"\s*,\s*", "+", names[1].strip()), a) if a.startswith("test=") else a for a in arguments
    ]
    return [re.sub(rf"^({groups})=([\w,]+)$", words, argument) for argument in lists]


@hydra.main(version_base="1.3", config_path=schema.config_directory(), config_name="config")
@user_errors
def main(composed: DictConfig) -> float | None:
    """One run. Returns the SRCC of its first data set, for sweepers that want an objective."""
    schema.register()  # again in a job of a launcher, which gets this function alone
    OmegaConf.resolve(composed)
    OmegaConf.set_readonly(composed, True)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema.Config)
    if unknown := schema.unknown_options(config):
        raise IncompatibleChoice(f"There is no option {', '.join(unknown)}. See --cfg job for those that there are.")
    choices = {group: str(choice) for group, choice in HydraConfig.get().runtime.choices.items() if "/" not in group}
    return run(config, composed, choices)


def run(config: schema.Config, composed: DictConfig, choices: Mapping[str, str]) -> float | None:
    """Everything after the config is known to be sound: as one process, which may start others, or as one of those that torchrun or srun started."""
    if not placed(os.environ):
        refuse_alone(config.trainer.nodes)
        return finish(config, composed, choices, decide=lambda work: work())

    from biqa.stages.together import from_first

    devices, gpus = processes_of(config)
    refuse_other_number(os.environ, devices, config.trainer.nodes)
    with joined(gpus=gpus):
        return finish(config, composed, choices, decide=from_first)


def finish(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], decide: Callable[[Callable[[], Any]], Any]) -> float | None:
    """Train and measure unless that is done already, then print the result. `decide` gives all processes what one of them finds."""
    from rich.console import Console

    from biqa.reporting.result import read_result, render_result

    folder = RunFolder(Path(config.runs) / config.name)
    if goes_on_here(folder.path):
        config = replace(config, ckpt="last", overwrite=False)
    if decide(lambda: folder.open(plain(OmegaConf.to_container(composed)), resume=config.ckpt == "last", overwrite=config.overwrite)):
        print(f"{folder.path} is finished already; its result follows. Add overwrite=true to run it again.")
    else:
        devices, gpus = processes_of(config)
        start_here = not placed(os.environ) and (devices > 1 or config.strategy.kind.startswith("deepspeed"))
        with stoppable(folder, signals(config.trainer.requeue_signal)):
            if start_here:
                launch(devices, logged, config, composed, choices, folder, gpus=gpus)
            else:
                logged(config, composed, choices, folder)
    if config.export.merge:
        decide(lambda: export(config, composed, folder))
    result = decide(lambda: read_result(folder.result))
    Console().print(render_result(result))
    first = next(iter(result["metrics"].values()))
    return first["srcc"]["value"] if "srcc" in first else None


def export(config: schema.Config, composed: DictConfig, folder: RunFolder) -> None:
    """`merged/` of a finished run that has none yet."""
    if folder.merged.is_dir():
        return
    from biqa.building import merge, quiet
    from biqa.stages.limits import limits_in_words

    quiet()
    text_alone = isinstance(config.stage, schema.InferenceStage)
    with limits_in_words(folder.path):
        merge(composed, folder, vision=not text_alone)
    kind = "AutoModelForCausalLM" if text_alone else "AutoModelForImageTextToText"
    print(f"{folder.merged}: base and adapter as one model, for transformers' {kind}.from_pretrained.")


def processes_of(config: schema.Config) -> tuple[int, bool]:
    """How many processes this machine needs, and whether they use GPUs."""
    return processes_wanted(
        kind=config.strategy.kind, devices=config.trainer.devices, nodes=config.trainer.nodes, accelerator=config.trainer.accelerator,
        precision=config.trainer.precision, quantization=config.quantization.kind,
    )  # fmt: skip


def logged(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], folder: RunFolder) -> None:
    """What each process of a run does."""
    with closed_logs():
        train_and_measure(config, composed, choices, folder)


@contextmanager
def closed_logs() -> Iterator[None]:
    """End the W&B run, if one was begun, however this run ends: a process has one at a time, and the next job of a sweep would write into it."""
    try:
        yield
    finally:
        if "wandb" in sys.modules:
            sys.modules["wandb"].finish(exit_code=int(sys.exc_info()[0] is not None))


@told_in_words
def train_and_measure(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], folder: RunFolder) -> None:
    """Fit, answer, evaluate, write result.json. Nothing is written before config, data and model are known to be sound."""
    import lightning as L

    from biqa.building import build_data, build_model, build_stage, build_trainer, quiet, training_length, weights_to_start_from
    from biqa.data.module import items_an_epoch
    from biqa.loading import load_corpus
    from biqa.models.adapters import save_weights
    from biqa.models.learning import learning_summary
    from biqa.stages.checkpoints import newest_checkpoint
    from biqa.stages.together import first, from_first, rank

    quiet()
    seconds = Seconds()
    L.seed_everything(config.seed, workers=True, verbose=False)
    stage_one = stage_one_of(config, composed, choices)
    weights = weights_to_start_from(config, default=stage_one)
    with seconds.phase("build"):  # before the data: a choice that will not do must not cost the time of making or reading images
        vlm = build_model(composed, vision=stage_one is None, weights=weights)
        build_trainer(composed, folder, logs=False)
    with seconds.phase("data"):
        corpus = from_first(lambda: load_corpus(composed, describe_tests=config.stage._target_ == STAGE_ONE))
    print_notes(corpus)
    if first():
        folder.start(plain(OmegaConf.to_container(composed)), overwrite=config.overwrite)
        mark(folder.path)

    if stage_one is None:
        train, val = corpus.items("train"), corpus.items("val")
        test = {images.card.name: images.items("test") for images in corpus.test}
    else:
        with seconds.phase("describe"):
            train, val, test = described_items(config, composed, folder, stage_one, corpus)
    shown = corpus.weights(train)
    epochs, steps = training_length(composed, items_an_epoch(shown))
    stage = build_stage(composed, config.stage._target_, vlm, steps=steps, repeats=config.sampling.repeats, **verdict_options(config.stage))
    if vlm.vision and first():
        print(cost_of_images(stage, [*train, *(item for items in test.values() for item in items)][:8]))
    data = build_data(composed, stage, train=train, weights=shown, val=val)
    trainer = build_trainer(composed, folder, epochs)
    if epochs:
        print(f"{learning_summary(vlm)}\n{epochs} epochs, {steps} steps")
        # again: a resumed stage 2 has not described its images since. Dropout draws other numbers in each process
        L.seed_everything((config.seed + rank()) % 2**32, workers=True, verbose=False)
        with seconds.phase("fit"):
            trainer.fit(stage, data, ckpt_path=from_first(lambda: newest_checkpoint(folder.checkpoints)), weights_only=True)
        save_weights(vlm, folder.path, write=first())
    stage.learn_without_steps(train)
    with seconds.phase("answer"):
        answer(composed, folder, stage, trainer, test)
    if first():
        with seconds.phase("evaluate"):
            metrics = measure(config, folder, corpus)
        write(config, composed, choices, folder, corpus, metrics=metrics, seconds=seconds, repeats=stage.repeats)


def cost_of_images(stage: "StageModule", items: "list[Item]") -> str:
    """What a picture costs the decoder, from some of them: families differ, and those that keep a picture's shape by picture."""
    from biqa.language.prompts import JOINT

    prompts = [stage.image_prompt(item, JOINT) for item in items]
    counts = ([stage.vlm.visual_tokens(prompt) for prompt in prompts], [len(prompt.ids) for prompt in prompts])
    tokens, positions = (f"{min(of)}" if min(of) == max(of) else f"{min(of)} to {max(of)}" for of in counts)
    return f"{tokens} visual tokens an image, {positions} positions a prompt"


def print_notes(corpus: "Corpus") -> None:
    """What is odd about the data sets, before time is spent on them."""
    for images in corpus.sets:
        for note in images.notes:
            print(f"{images.card.name}: {note}")
        if images.skipped:
            print(f"{images.card.name}: left out as unusable: {len(images.skipped)} (listed in result.json), first: {images.skipped[0]}")


def answer(composed: DictConfig, folder: RunFolder, stage: "StageModule", trainer: "L.Trainer", test: "Mapping[str, list[Item]]") -> None:
    """A table of answers for each data set that has none yet (a killed run has some)."""
    from biqa.building import build_data
    from biqa.evaluation.answers import answers_frame, write_answers
    from biqa.stages.together import first, from_first

    for dataset, items in test.items():
        if not from_first(folder.answers(dataset).is_file):
            rows = rows_of(trainer, stage, build_data(composed, stage, predict=items), len(items))
            if first():
                write_answers(answers_frame({"dataset": dataset, **row} for row in rows), folder.answers(dataset))


def stage_one_of(config: schema.Config, composed: DictConfig, choices: Mapping[str, str]) -> RunFolder | None:
    """The stage 1 that a stage-2 run builds on, or None for the other stages."""
    if not isinstance(config.stage, schema.InferenceStage):
        return None
    if config.stage.perception is not None:
        return find_run(config.stage.perception, "stage.perception", stage_class=STAGE_ONE)
    return find_stage_one(plain(OmegaConf.to_container(composed)), choices, STAGE_ONE)


def verdict_options(stage: schema.Stage) -> dict[str, Any]:
    """What a stage that ends in a level word takes beyond the others."""
    return {"target": stage.target, "level_weight": stage.level_weight} if isinstance(stage, VerdictStage) else {}


def rows_of(trainer: "L.Trainer", stage: "StageModule", data: "DataModule", images: int) -> "list[Row]":
    """Rows of so many images in their order: in the first process those of all, in the others their own."""
    from biqa.data.shares import merged
    from biqa.stages.together import gathered_by_first

    batches: Any = trainer.predict(stage, data) or []  # Lightning's union
    rows: list[Row] = [row for batch in batches for row in batch]
    if not rows:
        return []
    queries = len(rows) // len(data.predict)
    assert len(rows) == queries * len(data.predict), "images were answered unequally often"
    by_image = [rows[at : at + queries] for at in range(0, len(rows), queries)]
    parts = gathered_by_first(by_image)
    return [row for of_image in (merged(parts, images) if parts else by_image) for row in of_image]


def described_items(
    config: schema.Config, composed: DictConfig, folder: RunFolder, stage_one: RunFolder, corpus: "Corpus"
) -> "tuple[list[Item], list[Item], dict[str, list[Item]]]":
    """Items of stage 2: descriptions to learn from, to validate on, and by data set (one for each query) to answer from."""
    from biqa.data.module import Item

    assert isinstance(config.stage, schema.InferenceStage)
    source = config.stage.descriptions
    train = [] if source == "generated" else corpus.items("train")
    val: list[Item] = []
    for images in corpus.training:
        if source != "target":
            written = describe(composed, folder, stage_one, images, split="train", repeats=config.stage.generated_per_image - 1)
            train += images.items("train", written)
        val += images.items("val", describe(composed, folder, stage_one, images, split="val", repeats=0))
    test: dict[str, list[Item]] = {}
    for images in corpus.test:
        written = describe(composed, folder, stage_one, images, split="test", repeats=config.sampling.repeats)
        test[images.card.name] = [Item(record, tuple(written[record.image])) for record in images.split("test")]
    return train, val, test


def describe(
    composed: DictConfig, folder: RunFolder, stage_one: RunFolder, images: "Images", *, split: "Split", repeats: int
) -> dict[str, list[str]]:
    """What stage 1 writes about the images of a split: image -> greedy description, then sampled ones. Kept in the run folder for a resumed run."""
    import pandas as pd

    from biqa.building import build_data, build_stage, build_stage_one, build_trainer
    from biqa.stages.together import first, from_first

    file = folder.descriptions / f"{images.card.name}-{split}.parquet"
    if not from_first(file.is_file):
        vlm = build_stage_one(composed, stage_one)
        stage = build_stage(composed, STAGE_ONE, vlm, steps=0, repeats=repeats)
        items = images.items(split)
        rows = rows_of(build_trainer(composed, folder, logs=False), stage, build_data(composed, stage, predict=items), len(items))
        if first():
            folder.descriptions.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_parquet(file.with_suffix(".tmp"), index=False)
            file.with_suffix(".tmp").replace(file)
    table = from_first(lambda: pd.read_parquet(file)).sort_values(["image", "query"], kind="stable")
    return {str(image): list(rows["description"]) for image, rows in table.groupby("image", sort=False)}


def measure(config: schema.Config, folder: RunFolder, corpus: "Corpus") -> dict[str, Any]:
    """Figures by data set, from the answers tables on disk: what a later reading of them gives too."""
    from biqa.evaluation.answers import read_answers
    from biqa.evaluation.descriptions import evaluate_descriptions
    from biqa.evaluation.evaluate import evaluate

    resamples = config.evaluation.resamples
    metrics: dict[str, Any] = {}
    for images in corpus.test:
        answers = read_answers(folder.answers(images.card.name))
        if config.stage._target_ == STAGE_ONE:
            features = {image: target.features for image, target in images.targets.items()} or None
            taught = [images] if images.weight else corpus.training  # the majority answer of its own training images, where it has some
            training = [one.targets[record.image].features for one in taught for record in one.split("train")]
            metrics[images.card.name] = evaluate_descriptions(answers, features, training=training, resamples=resamples, seed=0)
        else:
            metrics |= evaluate(answers, resamples=resamples, seed=0)
    return metrics


def write(
    config: schema.Config,
    composed: DictConfig,
    choices: Mapping[str, str],
    folder: RunFolder,
    corpus: "Corpus",
    *,
    metrics: dict[str, Any],
    seconds: Seconds,
    repeats: int,
) -> None:
    """result.json: the figures and all that is needed to know where they come from."""
    from biqa.reporting.result import collect_versions, git_commit, hardware, write_result

    result = {
        "schema": 1,
        "run": {"name": config.name, **{group: choices[group] for group in ("model", "stage", "data", "descriptions", "tuning", "quantization")}},
        "seed": config.seed,
        "metrics": metrics,
        "sampling": {"repeats": repeats, "temperature": config.sampling.temperature, "top_p": config.sampling.top_p},
        "data": {
            images.card.name: {
                "images": len(images.split("test")) if images in corpus.test else 0,
                "trained_on": len(images.split("train")) if images.weight and config.stage.epochs else 0,
                "fingerprint": images.fingerprint,
                "stand_in": images.card.stand_in,
                "skipped": images.skipped,
                "notes": images.notes,
            }
            for images in corpus.sets
        },
        "config": OmegaConf.to_container(composed),
        "versions": collect_versions(),
        "git_commit": git_commit(),
        "hardware": hardware(),
        "seconds": seconds.of,
    }
    write_result(result, folder.result)


if __name__ == "__main__":
    schema.register()
    for arguments in in_order(numbers_to_words(sys.argv[1:]), Path(schema.config_directory())):
        sys.argv[1:] = arguments
        open_door(main)
