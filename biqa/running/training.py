"""A run's work, in the one process or in each of several: fit -> answer -> evaluate -> result.json."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from biqa import config as schema
from biqa.config.stage import VerdictStage
from biqa.running.stopping import job, told_in_words
from biqa.runs import STAGE_ONE, RunFolder, find_run, find_stage_one, plain

if TYPE_CHECKING:
    import lightning as L
    import pandas as pd
    import torch

    from biqa.data.module import DataModule, Item
    from biqa.models.vlm import VLM
    from biqa.running.loading import Corpus, Images
    from biqa.stages.base import StageModule


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


def logged(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], folder: RunFolder) -> None:
    """What each process of a run does."""
    with closed_logs():
        train_and_measure(config, composed, choices, folder)


@contextmanager
def closed_logs() -> Iterator[None]:
    """End the loggers of others, if there are any, however this run ends."""
    try:
        yield
    finally:
        if "biqa.stages.aside" in sys.modules:
            sys.modules["biqa.stages.aside"].close_all(int(sys.exc_info()[0] is not None))


@told_in_words
def train_and_measure(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], folder: RunFolder) -> None:
    """Fit, answer, evaluate, write result.json. Nothing is written before config, data and model are known to be sound."""
    import lightning as L

    from biqa.data.module import items_an_epoch
    from biqa.models.adapters import save_weights
    from biqa.models.learning import learning_summary
    from biqa.running.answering import answer, described_items
    from biqa.running.building import build_data, build_stage, build_trainer, training_length
    from biqa.running.room import refuse_model_without_room
    from biqa.running.serving import Serving
    from biqa.stages.together import first, from_first, rank

    seconds = Seconds()
    ready = make_ready(config, composed, choices, folder, seconds)
    stage_one, vlm, corpus = ready.stage_one, ready.vlm, ready.corpus
    answers = sum(len(images.split("test")) for images in corpus.test) * (config.sampling.repeats + 1)
    from_first(lambda: refuse_model_without_room(config, folder, vlm, answers=answers))
    changed = from_first(lambda: begin(config, composed, folder, ready))

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
            fit(config, folder, trainer, stage, data)
        save_weights(vlm, folder.path, write=first())
    stage.learn_without_steps(train, folder.regression)
    with seconds.phase("answer"), Serving(composed, folder if epochs else ready.weights) as serving:
        answer(serving, folder, stage, trainer, test)
    if first():
        with seconds.phase("evaluate"):
            metrics, said = measure(config, folder, corpus, queries=stage.repeats + 1)
        announce(said)
        said = {images.card.name: [*changed, *images.alarms, *said.get(images.card.name, ())] for images in corpus.sets}
        write(config, composed, choices, folder, corpus, metrics=metrics, said=said, seconds=seconds, stage=stage)


def begin(config: schema.Config, composed: DictConfig, folder: RunFolder, ready: "Ready") -> list[str]:
    """Make the run's folder, with what it begins with; or, of a run that goes on, check that it is what it began with.

    Returns:
        What is to be said of a run that goes on.

    Raises:
        RunExists: data or the runs that it builds on have changed since it began.
    """
    from biqa.running.origin import Origin, refuse_changed

    learns = config.stage.epochs > 0 or isinstance(config.stage, schema.ProbeStage)
    origin = Origin.of(ready.corpus, ready.vlm, (ready.stage_one, ready.weights), learns=learns)
    changed = refuse_changed(folder, origin) if folder.config.is_file() and not config.overwrite else []
    folder.start(plain(OmegaConf.to_container(composed)), overwrite=config.overwrite, job=job())
    if not changed:  # it stays a run of two codes
        origin.write(folder)
    for text in changed:
        print(f"WARNING: {text}", file=sys.stderr)
    return changed


@dataclass(frozen=True)
class Ready:
    """What a run begins with, known to be sound."""

    stage_one: RunFolder | None
    """That a stage 2 builds on."""
    weights: RunFolder | None
    """The run to start from."""
    vlm: "VLM"
    corpus: "Corpus"


def make_ready(config: schema.Config, composed: DictConfig, choices: Mapping[str, str], folder: RunFolder, seconds: Seconds) -> Ready:
    """Build the model and load the data of a run, by its seed, and say what is odd about them. Nothing is written in its folder.

    Raises:
        UserError: something is not there, or does not go together.
    """
    import lightning as L

    from biqa.running.building import quiet, weights_to_start_from
    from biqa.running.loading import load_corpus
    from biqa.running.origin import tell_learnt_before
    from biqa.running.room import refuse_model_without_room
    from biqa.stages.together import first, from_first

    quiet()
    L.seed_everything(config.seed, workers=True, verbose=False)
    stage_one = stage_one_of(config, composed, choices)
    weights = weights_to_start_from(config, default=stage_one)
    with seconds.phase("build"):  # before the data: a choice that will not do must not cost the time of making or reading images
        vlm = sound_model(config, composed, folder, stage_one, weights)
    if not (config.dry_run or config.estimate):  # which say more, and then the same
        from_first(lambda: refuse_model_without_room(config, folder, vlm))
    with seconds.phase("data"):
        corpus = from_first(lambda: load_corpus(composed, describe_tests=config.stage._target_ == STAGE_ONE))
    stop = config.overlap == "stop"
    from_first(lambda: tell_learnt_before(corpus, (stage_one, weights), stop=stop))
    print_notes(corpus)
    if first():
        announce({images.card.name: images.alarms for images in corpus.sets})
    return Ready(stage_one, weights, vlm, corpus)


def sound_model(config: schema.Config, composed: DictConfig, folder: RunFolder, stage_one: RunFolder | None, weights: RunFolder | None) -> "VLM":
    """The model of a run for which there is all that its options ask for.

    Args:
        config: the whole config; `composed` as Hydra has it.
        folder: of the run.
        stage_one: what a stage 2 builds on.
        weights: the run to start from.

    Raises:
        IncompatibleChoice: something is not there, or does not go together.
    """
    from biqa.models.liger import use_liger
    from biqa.running.building import build_model, build_trainer
    from biqa.running.serving import refuse_no_engine, refuse_no_service

    refuse_no_engine(composed)
    vlm = build_model(composed, vision=stage_one is None, weights=weights)
    if config.trainer.liger:
        use_liger(vlm, accelerator=config.trainer.accelerator)
    refuse_no_service(composed, vlm, stage_one, None if config.stage.epochs else weights)
    build_trainer(composed, folder, logs=False)
    return vlm


def cost_of_images(stage: "StageModule", items: "list[Item]") -> str:
    """What a picture costs the decoder, from some of them: families differ, and those that keep a picture's shape by picture."""
    prompts = [stage.question(item) for item in items]
    counts = ([stage.vlm.visual_tokens(prompt) for prompt in prompts], [len(prompt.ids) for prompt in prompts])
    tokens, positions = (f"{min(of)}" if min(of) == max(of) else f"{min(of)} to {max(of)}" for of in counts)
    return f"{tokens} visual tokens an image, {positions} positions a prompt"


def fit(config: schema.Config, folder: RunFolder, trainer: "L.Trainer", stage: "StageModule", data: "DataModule") -> None:
    """Train, from the newest checkpoint if there is one."""
    import torch

    from biqa.stages.checkpoint_files import newest_checkpoint
    from biqa.stages.together import from_first

    checkpoint = from_first(lambda: newest_checkpoint(folder.checkpoints, tell=partial(print, file=sys.stderr)))
    if config.tuning.projector_start == "words" and stage.vlm.vision and checkpoint is None:
        divided = config.strategy.kind not in ("auto", "ddp")  # perhaps because it is too large for one device
        start_projector(stage, data, torch.device("cpu") if divided else trainer.strategy.root_device)
    trainer.fit(stage, data, ckpt_path=checkpoint, weights_only=True)


def start_projector(stage: "StageModule", data: "DataModule", device: "torch.device") -> None:
    """Begin with a projector that was fitted to training images: several processes all with the first one's."""
    from biqa.models.projector import MOST, begin_with, fitted_to_words
    from biqa.models.vlm import Prompt
    from biqa.stages.together import from_first

    stage.vlm.to(device)
    some = range(0, len(data.train), -(-len(data.train) // MOST))  # of a mixture, some of each part
    examples = (data.train[place] for place in some)
    asked = ((Prompt(tuple(one.prompt), data.collate([one]).image), one.answer) for one in examples)
    start = from_first(lambda: fitted_to_words(stage.vlm, asked))
    begin_with(stage.vlm, start)
    print(start)


def print_notes(corpus: "Corpus") -> None:
    """What is odd about the data sets, before time is spent on them."""
    for images in corpus.sets:
        for note in images.notes:
            print(f"{images.card.name}: {note}")
        if images.skipped:
            print(f"{images.card.name}: left out as unusable: {len(images.skipped)} (listed in result.json), first: {images.skipped[0]}")


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


def measure(config: schema.Config, folder: RunFolder, corpus: "Corpus", *, queries: int) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Figures by data set, from the answers tables on disk: what a later reading of them gives too. And what is to be said loudly of them.

    Raises:
        BadRecord: a table does not hold `queries` answers about each test image, with its quality.
    """
    from biqa.evaluation.alarms import alarms, alarms_of_descriptions
    from biqa.evaluation.answers import read_answers, refuse_other_answers, refuse_other_qualities

    found, said = {}, {}
    for images in corpus.test:
        name = images.card.name
        path = folder.answers(name)
        answers = read_answers(path)
        asked = {record.image: record.q for record in images.split("test")}
        refuse_other_answers(answers, path, images=asked.keys(), queries=queries)
        if config.stage._target_ != STAGE_ONE:
            refuse_other_qualities(answers, asked, path)
        found[name] = figures(config, corpus, images, answers)
        said[name] = (alarms_of_descriptions if config.stage._target_ == STAGE_ONE else alarms)(answers)
    return found, said


def announce(said: Mapping[str, Sequence[str]]) -> None:
    """Say loudly, on stderr, what makes figures mislead."""
    for name, texts in said.items():
        for text in texts:
            print(f"WARNING: {name}: {text}", file=sys.stderr)


def figures(config: schema.Config, corpus: "Corpus", images: "Images", answers: "pd.DataFrame") -> dict[str, Any]:
    """Of the answers of one data set, by name."""
    from biqa.evaluation.descriptions import evaluate_descriptions
    from biqa.evaluation.evaluate import evaluate

    resamples = config.evaluation.resamples
    if config.stage._target_ != STAGE_ONE:
        return evaluate(answers, resamples=resamples, seed=0)[images.card.name]
    features = {image: target.features for image, target in images.targets.items()} or None
    taught = [images] if images.weight else corpus.training  # the majority answer of its own training images, where it has some
    training = [one.targets[record.image].features for one in taught for record in one.split("train")]
    return evaluate_descriptions(answers, features, training=training, resamples=resamples, seed=0)


def write(
    config: schema.Config,
    composed: DictConfig,
    choices: Mapping[str, str],
    folder: RunFolder,
    corpus: "Corpus",
    *,
    metrics: dict[str, Any],
    said: Mapping[str, Sequence[str]],
    seconds: Seconds,
    stage: "StageModule",
) -> None:
    """result.json: the figures and all that is needed to know where they come from. Before it, the cards of the weights, which say the same."""
    from biqa.reporting.card import write_cards
    from biqa.reporting.result import collect_versions, git_commit, hardware, write_result
    from biqa.stages.together import world

    result = {
        "schema": 1,
        "run": {"name": config.name, **{group: choices[group] for group in ("model", "stage", "data", "descriptions", "tuning", "quantization")}},
        "seed": config.seed,
        "metrics": metrics,
        "sampling": {"repeats": stage.repeats, "temperature": config.sampling.temperature, "top_p": config.sampling.top_p},
        "data": {
            images.card.name: {
                "images": len(images.split("test")) if images in corpus.test else 0,
                "trained_on": len(images.split("train")) if images.weight and (config.stage.epochs or stage.learns_without_steps) else 0,
                "fingerprint": images.fingerprint,
                "stand_in": images.card.stand_in,
                "skipped": images.skipped,
                "notes": images.notes,
                "alarms": list(said.get(images.card.name, ())),
            }
            for images in corpus.sets
        },
        "config": OmegaConf.to_container(composed),
        "versions": collect_versions(),
        "git_commit": git_commit(),
        "hardware": {**hardware(), "processes": world()},
        "seconds": seconds.of,
    }
    write_cards(folder.path, result, stage.vlm)
    write_result(result, folder.result)
