"""A dry run writes nothing, shows the mask that the loss has, refuses what the run refuses, and tells numbers that the run then has."""

import json
import math
import re
import shutil
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from biqa import config as schema
from biqa.data.collate import IGNORED
from biqa.errors import BadRecord, IncompatibleChoice
from biqa.files import free_for
from biqa.models.features import FeatureStore
from biqa.models.sampling import NO_TOKEN, Answers
from biqa.planning.dry_run import refuse_no_file
from biqa.planning.rehearsal import Rehearsal, alone
from biqa.reporting.estimate import Estimate, amount, duration, read_estimate, write_estimate
from biqa.reporting.result import read_result
from biqa.run import numbers_to_words
from biqa.running.building import build_data, build_model, build_stage, quiet
from biqa.running.loading import load_corpus
from biqa.running.training import verdict_options
from biqa.stages.base import StageModule
from biqa.stages.clock import Clock, ask

pytest_plugins = ["small_runs"]

EIGHT = ("stage.batch_size=8", "stage.epochs=1")
STAGES = {
    "joint": ("stage=joint", *EIGHT),
    "perception": ("stage=1", *EIGHT),
    "inference": ("stage=2", *EIGHT),
    "zero_shot": ("stage=zero_shot",),
    "probe": ("stage=probe",),
}
LEARNING = ("joint", "perception", "inference")
FILE = "estimate.json"


@pytest.fixture(scope="module")
def real(run, tmp_path_factory):
    """A folder of runs, one of each stage that learns by steps, the stage 1 first."""
    runs = tmp_path_factory.mktemp("real")
    for stage in ("perception", "joint", "inference"):
        assert run(runs, stage, *STAGES[stage]).code == 0
    return runs


@pytest.fixture(scope="module")
def dry(run, real, tmp_path_factory):
    """A dry run of each stage beside a finished stage 1: what each said and found, the folder of runs, and what it held before."""
    runs, place = tmp_path_factory.mktemp("dry"), tmp_path_factory.mktemp("estimates")
    shutil.copytree(real / "perception", runs / "one")
    before = state(runs)
    said, found = {}, {}
    random = torch.get_rng_state()
    for stage, options in STAGES.items():
        said[stage] = run(runs, stage, *options, f"estimate={place / stage}.json")
        assert (said[stage].code, said[stage].err) == (0, ""), stage
        found[stage] = read_estimate(place / f"{stage}.json")
        assert torch.equal(torch.get_rng_state(), random)
    return said, found, runs, before


def state(folder):
    """Every file and folder below one, with its time and size."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def as_told(estimate):
    """The parts of a run that learns are what its sources say of them, shared among its processes: the whole, of what was measured of some."""
    number = r"([\d.e+-]+)"
    told = re.search(rf"of {number} images of synthetic \({number} ms each\)", estimate.sources["answer"])
    images, milliseconds = map(float, told.groups())
    assert estimate.parts["answer"]["synthetic"] == pytest.approx(images * milliseconds / 1000 / estimate.processes, rel=0.01, abs=0.006)
    told = re.search(
        rf"{number} steps of {number} s .*?, {number} validations on {number} images \({number} took {number} s", estimate.sources["fit"]
    )
    steps, step, times, images, some, took = map(float, told.groups())
    assert took > 0
    assert estimate.parts["fit"]["steps"] == pytest.approx(steps * step, rel=0.01, abs=0.006)
    assert estimate.parts["fit"]["validation"] == pytest.approx(times * images / some * took / estimate.processes, rel=0.06, abs=0.006)


def words(text):
    return " ".join(text.split())


def test_nothing_is_written_where_runs_lie(dry):
    *_, runs, before = dry
    assert state(runs) == before


@pytest.mark.parametrize("stage", STAGES)
def test_phases_are_those_of_the_run_and_numbers_are_numbers(dry, real, stage):
    estimate = dry[1][stage]
    phases = read_result(real / stage / "result.json")["seconds"].keys() if stage in LEARNING else {"build", "data", "answer", "evaluate"}
    assert estimate.seconds.keys() == phases
    assert estimate.sources.keys() == estimate.seconds.keys()
    assert all(math.isfinite(seconds) and seconds >= 0 for seconds in estimate.seconds.values())
    assert estimate.total_seconds == pytest.approx(sum(estimate.seconds.values()), abs=0.006)
    assert estimate.total_seconds > 0
    for phase, parts in estimate.parts.items():
        assert estimate.seconds[phase] == pytest.approx(sum(parts.values()), abs=0.006 * (len(parts) + 1))
    if stage in LEARNING:
        as_told(estimate)
    assert 0 < estimate.peak_memory_bytes["host"] < estimate.memory_bytes["host"]
    assert estimate.disk_bytes < estimate.free_bytes["runs"]
    assert not estimate.finished
    assert (estimate.name, estimate.processes) == (stage, 1)


@pytest.mark.parametrize("stage", STAGES)
def test_images_steps_and_what_they_cost_are_told(dry, real, stage):
    said, estimate = dry[0][stage].out, dry[1][stage]
    learns = stage in LEARNING
    counts = {"train": 24 if learns or stage == "probe" else 0, "val": 6 if learns else 0, "test": 12}
    assert estimate.images == {"synthetic": {**counts, "skipped": 0}}
    assert f"synthetic: {counts['train']} images to learn from, {counts['val']} to validate on, 12 to answer" in said
    assert (estimate.epochs, estimate.steps) == ({"joint": (1, 3), "perception": (1, 3), "inference": (1, 6)}.get(stage, (0, 0)))
    assert ("1 epochs, " in said) == learns
    assert ("as long as the descriptions to learn" in estimate.sources["answer"]) == (stage in ("joint", "perception"))
    assert ("visual tokens an image" in said) == (stage != "inference")
    assert "Estimated time" in said
    assert "Disk: the run's folder takes about" in said
    assert "of the host: what this dry run held and prepared training images" in said


@pytest.mark.parametrize("stage", LEARNING)
def test_the_disk_is_what_the_run_takes(dry, real, stage):
    disk, folder = dry[1][stage].disk, real / stage
    assert disk.keys() == {"answers", "weights", "checkpoints", *(["descriptions"] if stage == "inference" else [])}
    assert disk["answers"] == pytest.approx(size(folder / "answers"), rel=0.2)
    assert disk["weights"] == pytest.approx(size(folder / "model"), abs=2**14)  # model card, config and header are not counted
    files = list((folder / "checkpoints").iterdir())
    assert disk["checkpoints"] / 2 == pytest.approx(size(folder / "checkpoints") / len(files), rel=0.1)
    if stage == "inference":
        assert disk["descriptions"] == pytest.approx(size(folder / "descriptions"), rel=0.3)


# the example


def first_batch(synthetic, *options):
    """Stage and first batch of a run's training, made by what the run is made of."""
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        composed = compose("config", [*numbers_to_words([*synthetic, *options]), "name=x"])
    quiet()
    vlm = build_model(composed, vision="inference" not in composed.stage._target_, weights=None)
    own = verdict_options(OmegaConf.to_object(composed).stage)
    stage = build_stage(composed, composed.stage._target_, vlm, steps=1, repeats=2, **own)
    data = build_data(composed, stage, train=load_corpus(composed, describe_tests=False).items("train"))
    return stage, next(iter(data.train_dataloader()))


def as_masked(stage, batch, number):
    """The answer of one example of a batch, its tokens in brackets as the labels of the whole batch have them."""
    example = batch.examples[number]
    ids = [*example.prompt, *example.answer]
    row, start = next(
        (row, start)
        for row in range(len(batch.input_ids))
        for start in range(batch.input_ids.shape[1] - len(ids) + 1)
        if batch.input_ids[row, start : start + len(ids)].tolist() == ids
    )
    said = ""
    for place in range(start + len(example.prompt), start + len(ids)):  # the output before a token is scored against it
        piece = stage.vlm.tokenizer.decode([int(batch.input_ids[row, place])])
        learnt = int(batch.labels[row, place - 1]) != IGNORED
        assert not learnt or int(batch.labels[row, place - 1]) == int(batch.input_ids[row, place])
        level = batch.examples[number].level_at is not None and (row, place - 1) == (int(batch.level_row[number]), int(batch.level_position[number]))
        said += f"{{{piece}}}" if level else f"[{piece}]" if learnt else piece
    return words(said)


@pytest.mark.parametrize(
    ("known", "stage"),
    [
        ("joint", ("stage=joint",)),
        ("perception", ("stage=1",)),
        (None, ("stage=joint", "stage.target=hard", "stage.level_weight=3")),
        (None, ("stage=2", "stage.descriptions=target")),
    ],
)
def test_the_example_is_the_first_of_the_run_with_the_mask_of_the_loss(known, stage, run, synthetic, dry):
    said = dry[0][known].out if known else run(dry[2], "shown", *stage, *EIGHT, "dry_run=true").out
    module, batch = first_batch(synthetic, *stage, *EIGHT)
    example = batch.examples[0]
    answer = as_masked(module, batch, 0)
    assert answer in said
    assert answer.count("[") == int((batch.labels != IGNORED).sum()) - sum(len(one.answer) - (one.level_at is not None) for one in batch.examples[1:])
    visual = sum(token == module.vlm.image_token_id for token in example.prompt)
    assert (f"<image> x {visual}" in said) == (visual > 0)
    assert f"Prompt, {len(example.prompt)} tokens" in said
    assert "; none learnt:" in said
    assert f"Answer, {len(example.answer)} tokens, {len(example.answer) - (example.level_at is not None)} learnt as tokens" in said
    if example.level_at is not None:
        target = ", ".join(
            f"{level} {share:.3f}" for level, share in zip(("bad", "poor", "fair", "good", "excellent"), example.level_target, strict=True)
        )
        assert f"token {example.level_at + 1} of the answer, position {len(example.prompt) + example.level_at} of the row" in said
        assert (
            f"({module.target}: {target}), whose loss weighs {module.level_weight:g} beside the mean over the other {len(example.answer) - 1}" in said
        )


def test_stage_two_shows_what_stage_one_writes(dry, real):
    said = dry[0]["inference"].out
    image = re.search(r"(\S+) of synthetic, q = ", said)[1]
    written = pd.read_parquet(real / "inference" / "descriptions" / "synthetic-train.parquet").set_index("image").loc[image, "description"]
    assert any(words(f"described as: {text} How would you rate") in said for text in written)


def test_what_is_not_learnt_is_asked(dry):
    assert "Nothing is learnt. Asked of" in dry[0]["zero_shot"].out
    assert "Describe and evaluate the quality of the image." in dry[0]["zero_shot"].out
    assert "a ridge regression on what the tower makes of the images" in dry[0]["probe"].out


# what is refused


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("one", ("stage=1", "stage.epochs=3")),
        ("new", ("stage=2", "seed=5")),
        ("new", ("stage=zero_shot", "sampling.memory_gb=0.00001")),
    ],
)
def test_what_a_run_refuses_is_refused_in_the_same_words(name, options, run, dry, tmp_path):
    shutil.copytree(dry[2] / "one", tmp_path / "one")
    before = state(tmp_path)
    rehearsed = run(tmp_path, name, *options, "dry_run=true")
    assert state(tmp_path) == before
    assert (rehearsed.code, rehearsed.err) == (2, run(tmp_path, name, *options).err)
    assert rehearsed.err


def test_the_file_must_be_one_that_can_be_written(tmp_path, monkeypatch):
    with pytest.raises(IncompatibleChoice, match=rf"estimate={tmp_path}: that is a folder\. Name another file\."):
        refuse_no_file(tmp_path)
    refuse_no_file(tmp_path / "new" / FILE)
    monkeypatch.setattr("os.access", lambda place, _: place != tmp_path)
    with pytest.raises(IncompatibleChoice, match=rf"{FILE}: you may not write in {tmp_path}\. Name another file\."):
        refuse_no_file(tmp_path / "new" / FILE)


def test_several_processes_are_one_that_counts_for_all(run, tmp_path, monkeypatch):
    monkeypatch.setattr("biqa.stages.clock.ENOUGH", 1e-6)  # what is trained ends within the epoch, and is validated all the same
    told = run(tmp_path, "a", "stage=joint", *EIGHT, "trainer.accelerator=cpu", "trainer.devices=2", "strategy=ddp", f"estimate={tmp_path / FILE}")
    assert told.code == 0, told.err
    estimate = read_estimate(tmp_path / FILE)
    assert (estimate.processes, estimate.steps) == (2, 2)
    as_told(estimate)
    assert "(median of 1)" in estimate.sources["fit"]
    assert "A batch has 8 examples, a step 16." in told.out
    assert "Measured in one process and divided among 2: what they tell each other is not counted." in told.out
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused = run(tmp_path, "a", "stage=joint", "dry_run=true")
    assert (refused.code, "start it without torchrun or srun" in refused.err) == (2, True)


def test_a_run_that_was_begun_is_told_from_its_start(run, real, tmp_path):
    shutil.copytree(real / "perception", tmp_path / "perception")
    (tmp_path / "perception" / "result.json").unlink()
    before = state(tmp_path / "perception")
    told = run(tmp_path, "perception", *STAGES["perception"], "ckpt=last", f"estimate={tmp_path / FILE}")
    assert "perception is begun already. What follows is of making it from its start." in told.out
    assert read_estimate(tmp_path / FILE).seconds["fit"] > 0
    assert state(tmp_path / "perception") == before


# a machine that is not enough


def test_a_disk_that_is_too_small_is_told_before(run, tmp_path, monkeypatch):
    monkeypatch.setattr("biqa.files.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    full = run(tmp_path, "a", "stage=zero_shot", f"estimate={tmp_path / FILE}")
    assert full.code == 1
    assert re.fullmatch(rf"{tmp_path / 'a'} takes about [\d.]+ kB, and 1 kB are free there\. Make room, or choose another runs=FOLDER\.", full.err)
    assert read_estimate(tmp_path / FILE).free_bytes["runs"] == 1000


@pytest.mark.parametrize("where", ["training_step", "predict_step"])
def test_too_little_memory_is_told_as_in_a_run(run, tmp_path, monkeypatch, where):
    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(StageModule, where, fails)
    full = run(tmp_path, "a", *STAGES["joint" if where == "training_step" else "zero_shot"], "dry_run=true")
    assert full.code == 1
    assert "Out of memory (CUDA out of memory. Tried to allocate 20.00 GiB)." in full.err
    assert ("a batch of 8 (stage.batch_size)" if where == "training_step" else "Answering: 2 images") in full.err
    assert list(tmp_path.iterdir()) == []


# what comes after it


def test_a_run_after_it_is_the_same(dry, run, real, tmp_path, digest):
    assert run(tmp_path, "joint", *STAGES["joint"]).code == 0
    weights = "joint/model/model.safetensors"
    assert digest(tmp_path / weights) == digest(real / weights)
    assert "dry_run: false" in (tmp_path / "joint" / "config.yaml").read_text()


def test_features_of_a_frozen_tower_are_counted_until_they_are_there(run, tmp_path):
    options = ("stage=joint", *EIGHT, "tuning=lora", "tuning.rank=2", f"images.cache={tmp_path / 'cache'}", "trainer.accelerator=cpu")
    assert run(tmp_path, "a", *options, f"estimate={tmp_path / FILE}").code == 0
    before = read_estimate(tmp_path / FILE)
    assert run(tmp_path, "a", *options).code == 0
    assert before.features_bytes == pytest.approx(size(tmp_path / "cache" / "features"), rel=0.3)
    assert run(tmp_path, "a", *options, f"estimate={tmp_path / FILE}").code == 0
    assert read_estimate(tmp_path / FILE).features_bytes == 0
    assert "they take" in FeatureStore(tmp_path, "0" * 24, most_gb=1e-6).too_much(900, kept=200)
    assert not FeatureStore(tmp_path, "0" * 24, most_gb=1e-6).too_much(900, kept=100)


# parts


def test_answers_are_rehearsed_in_the_lengths_of_texts_to_learn():
    some = SimpleNamespace(rehearsed=[3, 99], max_new_tokens=16)
    assert StageModule.lengths(some, 5) == [3, 16, 3, 16, 3]
    assert StageModule.lengths(SimpleNamespace(rehearsed=(), max_new_tokens=16), 5) is None


def test_a_step_is_the_median_without_the_first():
    clock = Clock()
    clock.stepping, clock.fetching, clock.collating = [9.0], [0.5, 0.3, 0.4], [0.1]
    assert (clock.step, clock.encoding, clock.collation) == (9.0, pytest.approx(0.3), 0.1)
    clock.stepping += [1.0, 3.0, 2.0]
    assert clock.step == 2.0


@pytest.mark.parametrize(("an_image", "asked"), [(0.01, [2, 16, 64]), (2.0, [2, 10]), (0.8, [2, 16]), (30.0, [2, 2])])
def test_more_images_are_asked_until_that_takes_long(an_image, asked, monkeypatch):
    numbers = []

    def answered(stage, trainer, items):
        numbers.append(len(items))
        return list(items), an_image * len(items)

    monkeypatch.setattr("biqa.stages.clock.ready_to_answer", lambda *_: nullcontext())
    monkeypatch.setattr("biqa.stages.clock.answered", answered)
    found = ask(None, None, range(100), 64)
    assert (numbers, found.images, found.seconds, found.rows) == (asked, asked[-1], pytest.approx(an_image), list(range(asked[-1])))


@pytest.mark.parametrize(
    ("workers", "cache_mb", "step", "seconds", "kept_mb"),
    [
        (0, 0, 1.0, 2 * (10 * 0.3 + 10 * 0.1), 0),
        (0, 100, 1.0, 10 * 0.3 + 2 * 10 * 0.1, 10),
        (0, 5, 1.0, 15 * 0.3 + 2 * 10 * 0.1, 5),
        (2, 100, 0.0, (10 * 0.3 + 10 * 0.1 + 5 * 0.3 + 10 * 0.1) / 2, 20),
        (2, 0, 1.0, 0.0, 0),
        (2, 0, 0.25, 2 * ((10 * 0.3 + 10 * 0.1) / 2 - 5 * 0.25), 0),
    ],
)
def test_images_cost_what_no_process_prepares_meanwhile(workers, cache_mb, step, seconds, kept_mb):
    """Two epochs of 5 steps, of 10 images of 1 MB."""
    clock = Clock()
    clock.stepping, clock.fetching, clock.collating, clock.example_bytes = [step], [0.4], [0.1], [2**20]
    options = SimpleNamespace(trainer=SimpleNamespace(workers=workers, cache_mb=cache_mb))
    rehearsal: Any = SimpleNamespace(config=options, length=(2, 10), shown=20, processes=2, kept=0)
    assert Rehearsal._waiting(rehearsal, clock) == pytest.approx(seconds)
    assert rehearsal.kept == kept_mb * 2**20


@pytest.mark.parametrize(("devices", "one"), [(4, 1), ("auto", 1), (-1, 1), ("2,3", [2]), ([3, 1], [3])])
def test_the_one_process_takes_the_first_device_that_is_named(devices, one):
    composed = OmegaConf.create({"trainer": {"devices": devices, "cache_mb": 100}, "strategy": {"kind": "ddp"}, "sampling": {"compile": True}})
    told = alone(composed)
    assert (told.trainer.devices, told.trainer.cache_mb, told.strategy.kind, told.sampling.compile) == (one, 0, "auto", False)


def test_what_a_folder_holds_is_free_for_it(tmp_path, monkeypatch):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "weights").write_bytes(bytes(500))
    monkeypatch.setattr("biqa.files.shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000 if path == tmp_path else -1))
    assert free_for(tmp_path) == 1500
    assert free_for(tmp_path / "new" / "run") == 1000


def test_answers_of_given_lengths_end_there_whatever_is_said():
    answers = Answers(3, [1, 2, 4], [7, 8], NO_TOKEN)
    for number in range(4):
        answers.write(sorted(answers.writing), [number] * len(answers.writing))
    assert answers.tokens == [[0, 7, 8], [0, 1, 7, 8], [0, 1, 2, 3, 7, 8]]
    assert not answers.writing


def test_an_estimate_is_read_back_as_it_was_written(dry, tmp_path):
    estimate = dry[1]["inference"]
    write_estimate(estimate, tmp_path / FILE)
    assert read_estimate(tmp_path / FILE) == estimate
    values = json.loads((tmp_path / FILE).read_text())
    assert values["seconds"]["total"] == estimate.total_seconds
    assert values["disk_bytes"] == sum(values["disk"].values())
    assert {"schema", "seconds", "disk_bytes", "peak_memory_bytes", "images", "steps", "notes"} <= values.keys()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": 2, "seconds": {"total": 1}, "disk_bytes": 0}', '{"schema": 1, "seconds": {"total": 1}, "disk_bytes": 0, "x": 1}'],
)
def test_a_file_of_something_else_is_no_estimate(text, tmp_path):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BadRecord, match="is no estimate of this version of biqa"):
        read_estimate(tmp_path / FILE)


def test_seconds_and_bytes_in_words():
    assert [amount(size) for size in (1000, 2**20, 1.5 * 2**30, 2**41)] == ["1 kB", "1.0 MB", "1.5 GB", "2,048.0 GB"]
    assert [duration(seconds) for seconds in (0.04, 9.96, 299, 301, 7199, 7201)] == ["0.0 s", "10 s", "299 s", "5 min", "120 min", "2.0 h"]
    assert Estimate("a", seconds={"fit": 1.5, "answer": 2.25}).total_seconds == 3.75
