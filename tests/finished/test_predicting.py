"""A finished run as a function of pictures: what it says is what stands in the run's own answers table."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

import biqa
from biqa.errors import BadRecord, IncompatibleChoice, RunNotFound
from biqa.evaluation.answers import PROBABILITIES, read_answers
from biqa.evaluation.predictions import Unreadable
from biqa.evaluation.stability import stability
from biqa.finished import reading
from biqa.finished.predicting import ON_CPU, Scorer
from biqa.finished.restoring import composed_of, stage_one_behind
from biqa.language.levels import LEVELS, WEIGHTS
from biqa.language.prompts import JOINT, STEM
from biqa.models import budget
from biqa.models.sampling import level_probabilities
from biqa.running.loading import load_corpus
from biqa.runs import RunFolder

pytest_plugins = ["small_runs"]

LORA = ("tuning=lora", "stage.epochs=1")


@pytest.fixture(scope="module")
def made(run, finished, tmp_path_factory) -> Path:
    """A run of each stage that gives a score, and the stage 1 that two of them build on; `lora` and `lora-one` are two adapters over one base."""
    runs = tmp_path_factory.mktemp("runs")
    shutil.copytree(finished, runs, dirs_exist_ok=True)
    for name, *options in (
        ("zero", "stage=zero_shot"), ("two", "stage=2", "stage.epochs=1"), ("lora-one", "stage=1", *LORA), ("lora", "stage=2", *LORA),
    ):  # fmt: skip
        outcome = run(runs, name, *options)
        assert outcome.code == 0, outcome.err
    return runs


@pytest.fixture(scope="module")
def images(made) -> dict[str, Path]:
    """Image as the answers table calls it -> its file."""
    config = OmegaConf.load(made / "joint" / "config.yaml")
    return {record.image: record.path for images in load_corpus(config, describe_tests=False).test for record in images.split("test")}


@pytest.fixture(scope="module")
def joint(made) -> Scorer:
    return Scorer(made / "joint", device="cpu")


@pytest.fixture(scope="module")
def two(made) -> Scorer:
    return Scorer(made / "two", device="cpu")


def answers(run: Path) -> pd.DataFrame:
    (file,) = (run / "answers").glob("*.parquet")
    return read_answers(file)


def greedy(run: Path) -> pd.DataFrame:
    rows = answers(run)
    return rows[rows["query"] == 0].set_index("image")


@pytest.mark.parametrize("name", ["joint", "zero", "two", "lora", "probe"])
def test_a_run_says_of_its_own_test_images_what_it_has_answered(made, images, name):
    table = greedy(made / name)
    assert len(table) == len(images) == 12
    scorer = Scorer(made / name, device="cpu")
    learnt = ("nothing (the base weights)", []) if name == "zero" else ("synthetic", ["synthetic"])
    assert (scorer.learnt_from, scorer.stand_ins) == learnt
    for image, prediction in zip(images, scorer(images.values()), strict=True):
        row = table.loc[image]
        assert prediction.image == str(images[image])
        assert prediction.level == row["level"]
        assert prediction.score == pytest.approx(row["score"], abs=1e-4)
        if name == "probe":
            assert prediction.description is prediction.probabilities is None
        else:
            assert prediction.description == row["description"]
            assert list(prediction.probabilities) == list(LEVELS)
            assert list(prediction.probabilities.values()) == pytest.approx(list(row[list(PROBABILITIES)]), abs=1e-4)
            assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-12)
        assert (prediction.levels, prediction.instability, prediction.score_std) == ((), None, None)


@pytest.mark.parametrize("name", ["joint", "two"])
def test_under_the_same_name_the_repeated_answers_are_those_of_the_run(made, images, name, tmp_path, monkeypatch):
    for image, file in images.items():
        (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / image).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    predictions = Scorer(made / name, device="cpu")(list(images), repeats=2)
    rows = answers(made / name)
    sampled = rows[rows["query"] > 0].sort_values(["image", "query"])
    levels, scores = ({image: list(of[column]) for image, of in sampled.groupby("image")} for column in ("level", "score"))
    assert {one.image: list(one.levels) for one in predictions} == levels
    table = stability([[LEVELS.index(word) for word in levels[image]] for image in images], [scores[image] for image in images])
    assert np.mean([one.instability for one in predictions]) == pytest.approx(table["instability"])
    assert np.mean([one.score_std for one in predictions]) == pytest.approx(table["score_std"], abs=1e-5)


def test_scores_are_by_the_scorer_of_the_run(made, images, joint, tmp_path):
    shutil.copytree(made / "joint", tmp_path / "worded")
    config = tmp_path / "worded" / "config.yaml"
    config.write_text(config.read_text().replace("kind: levels", "kind: word"))
    picture = next(iter(images.values()))
    worded, usual = Scorer(tmp_path / "worded", device="cpu")(picture, repeats=2), joint(picture, repeats=2)
    assert worded.score == WEIGHTS[LEVELS.index(worded.level)]
    assert worded.score != usual.score
    assert (worded.level, worded.levels, worded.probabilities) == (usual.level, usual.levels, usual.probabilities)
    shutil.copytree(made / "probe", tmp_path / "regression")
    config = tmp_path / "regression" / "config.yaml"
    config.write_text(config.read_text().replace("kind: levels", "kind: word"))
    found = Scorer(tmp_path / "regression", device="cpu")(picture)
    assert found.score == WEIGHTS[LEVELS.index(found.level)]  # in its answers table too


def test_another_seed_draws_other_answers(made, joint, images):
    def levels(scorer: Scorer) -> list[tuple[str, ...]]:
        return [one.levels for one in scorer(images.values(), repeats=6)]

    assert levels(joint) == levels(Scorer(made / "joint", device="cpu", seed=0)) != levels(Scorer(made / "joint", device="cpu", seed=1))
    assert [stage.seed for stage in Scorer(made / "two", device="cpu", seed=1)._stages] == [1, 1]


def test_two_adapters_over_one_base_lie_in_memory_once(made):
    scorer = Scorer(made / "lora", device="cpu")
    whole, decoder = scorer.models
    places = {parameter.data_ptr() for parameter in whole.parameters()}
    learnt = [parameter for name, parameter in decoder.named_parameters() if "lora_" in name]
    base = [parameter for name, parameter in decoder.named_parameters() if "lora_" not in name]
    assert scorer.shared == sum(parameter.nbytes for parameter in base) > 0
    assert all(parameter.data_ptr() in places for parameter in base)
    assert learnt
    assert any(parameter.data_ptr() not in places for parameter in learnt)


def test_weights_that_both_stages_have_learnt_stay_apart(two):
    describes, judges = two.models
    assert two.shared == 0
    assert not {p.data_ptr() for p in describes.parameters()} & {p.data_ptr() for p in judges.parameters()}


def test_a_folder_of_runs_may_be_moved(made, images, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(made, moved)
    file = next(iter(images.values()))
    expected = Scorer(made / "two", device="cpu")(file)
    two = RunFolder(moved / "two")
    assert stage_one_behind(two, composed_of(two)).path == moved / "one"  # and not the one that still lies where runs lay then
    for perception in (None, "/gone/one"):
        config = OmegaConf.load(moved / "two" / "config.yaml")
        config.runs, config.stage.perception = "/gone", perception
        OmegaConf.save(config, moved / "two" / "config.yaml")
        assert Scorer(moved / "two", device="cpu")(file) == expected
    (moved / "one").rename(tmp_path / "one")
    with pytest.raises(
        RunNotFound, match=r"two builds on another run, stage\.perception=/gone/one, .*neither there nor in .*elsewhere.*perception=FOLDER"
    ):
        Scorer(moved / "two")
    assert Scorer(moved / "two", device="cpu", perception=tmp_path / "one")(file) == expected


def test_which_stage_1_it_is_must_be_clear(made, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(made, moved)
    shutil.copytree(moved / "one", moved / "one-again")
    (file,) = (moved / "one-again" / "model").glob("*.safetensors")
    weights = load_file(file)
    save_file({name: 2 * value for name, value in weights.items()}, file)  # runs that have learnt the same are as good as one
    with pytest.raises(RunNotFound, match=r"two: 2 finished stage-1 runs fit it: .*one, .*one-again\. Say which .*perception=FOLDER"):
        Scorer(moved / "two")
    for name in ("one", "one-again"):
        shutil.rmtree(moved / name)
    config = OmegaConf.load(moved / "two" / "config.yaml")
    config.runs = "/gone"
    OmegaConf.save(config, moved / "two" / "config.yaml")
    with pytest.raises(RunNotFound, match=r"no finished stage 1 of the same model, data and seed \(0\) lies in .*elsewhere or /gone\. Put it beside"):
        Scorer(moved / "two")


def test_pictures_of_pillows_are_what_their_files_are(joint, tmp_path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    picture(1, 64).crop((0, 0, 64, 40)).save(tmp_path / "turned.png", exif=exif)
    Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)).save(tmp_path / "deep.png")
    picture(2, 64).convert("RGBA").save(tmp_path / "alpha.png")
    for file in tmp_path.iterdir():
        with Image.open(file) as opened:
            assert joint(opened) == joint(file)
    assert joint(picture(3)).image == "picture 1"
    scores = [one.score for one in joint([picture(3), picture(4)])]
    assert scores == pytest.approx([joint(picture(3)).score, joint(picture(4)).score], abs=1e-5)


def test_large_pictures_are_reduced_as_those_of_the_run(made, joint, tmp_path, picture):
    shutil.copytree(made / "joint", tmp_path / "joint")
    config = OmegaConf.load(tmp_path / "joint" / "config.yaml")
    config.images.shorter_side = 48
    OmegaConf.save(config, tmp_path / "joint" / "config.yaml")
    small = picture(5, 96).resize((48, 48), Image.Resampling.BICUBIC)
    reduced = Scorer(tmp_path / "joint", device="cpu")(picture(5, 96))
    assert reduced.score == pytest.approx(joint(small).score, abs=1e-6)
    assert reduced.score != joint(picture(5, 96)).score


def test_pictures_are_read_as_they_are_needed(made, picture):
    read = []

    def pictures():
        for number in range(100):
            read.append(number)
            yield picture(number, 32)

    scorer = Scorer(made / "joint", device="cpu", batch_size=2)
    results = scorer.each(pictures())
    next(results)
    assert len(read) <= 2 + reading.AHEAD + 1
    for _ in range(9):
        next(results)
    assert len(read) <= 10 + reading.AHEAD + 1
    results.close()
    assert scorer._reading.seen._of == {}


def test_no_more_wait_at_a_time_than_memory_holds(joint, picture, monkeypatch):
    together = []
    answer = joint.judge.answer
    monkeypatch.setattr(joint.judge, "answer", lambda items: together.append(len(items)) or answer(items))
    one = sum(value.nbytes for value in joint.judge.vlm.prompt("", picture()).image.values())
    monkeypatch.setattr(reading, "HELD", 3 * one)
    list(joint.each(picture(number, 40) for number in range(7)))
    assert together == [3, 3, 1]
    assert joint._reading.seen._of == {}
    monkeypatch.setattr(budget, "memory_of", lambda device: 1)  # as little as there is, one is tried
    list(joint.each(picture(number, 40) for number in range(3)))
    assert together[3:] == [1, 1, 1]


def test_equal_descriptions_of_one_call_are_judged_once(two, picture, monkeypatch):
    judged = []
    judge = two.judge.level_probabilities
    monkeypatch.setattr(two.judge, "level_probabilities", lambda prompts, stem: judged.append(len(prompts)) or judge(prompts, stem))
    monkeypatch.setattr(reading, "HELD", 1)  # each picture by itself
    for _ in range(2):
        assert len({one.score for one in two([picture(1), picture(1)])}) == 1
    assert judged == [1, 1]


def test_results_come_soon_where_there_is_no_gpu(joint, picture, tmp_path, monkeypatch):
    together = []
    answer = joint.judge.answer
    monkeypatch.setattr(joint.judge, "answer", lambda items: together.append(len(items)) or answer(items))
    list(joint.each(picture(number, 32) for number in range(ON_CPU + 1)))
    assert together == [ON_CPU, 1]
    monkeypatch.setattr(reading, "WAITING", 2)  # those that cannot be read
    asked = []
    results = joint.each(asked.append(number) or tmp_path / f"{number}.png" for number in range(100))
    next(results)
    assert len(asked) <= 2 + reading.AHEAD + 1
    results.close()


def test_what_cannot_be_read_is_told_in_its_place(joint, tmp_path, picture):
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("no picture")
    results = list(joint.each([tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "c.png", tmp_path / "a.png"]))
    assert [type(one) is Unreadable for one in results] == [False, True, True, False]
    assert results[1].reason.startswith("cannot be decoded (not recognised as a picture). Known formats: PNG")
    assert results[2].reason == "there is no such file."
    assert results[0] == results[3]
    with pytest.raises(BadRecord, match=r"b\.jpg: cannot be decoded"):
        joint([tmp_path / "a.png", tmp_path / "b.jpg"])


def test_a_shape_that_the_model_does_not_take_costs_no_other_picture_its_score(joint, picture, monkeypatch):
    take = joint.judge.vlm.prompt

    def refuse_strips(question, image=None):
        if image is not None and image.height == 1:
            raise BadRecord("an image of 50 x 1 pixels: too thin")
        return take(question, image)

    monkeypatch.setattr(joint.judge.vlm, "prompt", refuse_strips)
    results = list(joint.each([picture(1), Image.new("RGB", (50, 1)), picture(2)]))
    assert results[1] == Unreadable("picture 2", "an image of 50 x 1 pixels: too thin")
    assert [one.image for one in results] == ["picture 1", "picture 2", "picture 3"]
    assert all(0 <= one.score <= 1 for one in (results[0], results[2]))


def test_the_lens_ends_with_what_the_run_says(joint, two, picture):
    said = two(picture(7))
    rows = two.lens(picture(7), said.description)
    assert [row["layer"] for row in rows] == [1]
    assert [rows[-1][name] for name in PROBABILITIES] == pytest.approx(list(said.probabilities.values()), abs=1e-4)
    vlm, text = joint.judge.vlm, "The image is sharp."  # what so small a model writes is split into other tokens
    prompt = joint.judge.vlm.prompt(JOINT, picture(7))
    stem = [*vlm.opening(text), *vlm.continuation(f" {STEM}")]
    expected = level_probabilities(vlm, [prompt], stem)[0].tolist()
    assert [joint.lens(picture(7), text)[-1][name] for name in PROBABILITIES] == pytest.approx(expected, abs=1e-4)


def test_no_memory_says_what_helps(made, picture, monkeypatch):
    scorer = Scorer(made / "joint", device="cpu", batch_size=2)

    def full(items):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(scorer.judge, "answer", full)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        scorer([picture(), picture()], repeats=3)
    assert scorer._reading.seen._of == {}
    assert raised.value.__notes__ == [
        "Answering 2 pictures at a time with 4 queries each. What helps: a smaller batch_size, fewer repeats, or device=cpu."
    ]


def test_mistakes_are_told(made, joint, tmp_path, picture):
    with pytest.raises(RunNotFound, match=r"run=.*nowhere: no run there"):
        biqa.load(tmp_path / "nowhere")
    with pytest.raises(IncompatibleChoice, match=r"one is a run of stage 1: .*\npython -m biqa\.run stage=2 model=tiny .*stage\.perception=.*one "):
        biqa.load(made / "one")
    with pytest.raises(IncompatibleChoice, match=r"perception=.*one: .*joint is no two-stage run"):
        biqa.load(made / "joint", perception=made / "one")
    with pytest.raises(IncompatibleChoice, match=r"device=abacus is no device: choose auto, cpu or cuda"):
        biqa.load(made / "joint", device="abacus")
    with pytest.raises(IncompatibleChoice, match=r"repeats=1: one answer cannot disagree with itself"):
        joint(picture(), repeats=1)
    with pytest.raises(IncompatibleChoice, match=r"repeats=3: .*probe is a regression: asked again it says the same"):
        biqa.load(made / "probe", device="cpu")(picture(), repeats=3)
    with pytest.raises(IncompatibleChoice, match=r"probe says no word: it is a linear regression\. Choose a run of another stage"):
        biqa.load(made / "probe", device="cpu").lens(picture(), "")
    for name in ("joint", "probe"):
        shutil.copytree(made / name, tmp_path / name)
    shutil.rmtree(tmp_path / "joint" / "model")
    (tmp_path / "probe" / "regression.safetensors").unlink()
    with pytest.raises(RunNotFound, match=r"joint: what it has learnt is gone \(neither model/ nor adapter/ is there\)"):
        biqa.load(tmp_path / "joint")
    with pytest.raises(RunNotFound, match=r"regression\.safetensors is not there: .*Run that run again with overwrite=true"):
        biqa.load(tmp_path / "probe")
    config = OmegaConf.load(made / "zero" / "config.yaml")
    config.sampling.temperature = 0.0
    shutil.copytree(made / "zero", tmp_path / "zero")
    OmegaConf.save(config, tmp_path / "zero" / "config.yaml")
    with pytest.raises(IncompatibleChoice, match=r"repeats=2: .*zero answers greedily \(sampling\.temperature=0\)"):
        biqa.load(tmp_path / "zero", device="cpu")(picture(), repeats=2)


def test_a_run_that_learnt_nothing_answers_with_the_weights_that_it_began_with(made, run, tmp_path, images):
    for name in ("one", "zero"):
        shutil.copytree(made / name, tmp_path / name)
    config = OmegaConf.load(tmp_path / "zero" / "config.yaml")
    config.stage.init_from = str(made / "joint")
    OmegaConf.save(config, tmp_path / "zero" / "config.yaml")
    assert run(tmp_path, "unlearnt", "stage=2", "stage.epochs=0").code == 0
    files = list(images.values())[:3]
    assert [one.score for one in Scorer(tmp_path / "zero", device="cpu")(files)] == pytest.approx(list(greedy(made / "joint")["score"][:3]), abs=1e-4)
    found = Scorer(tmp_path / "unlearnt", device="cpu")(files)
    assert [one.score for one in found] == pytest.approx(list(greedy(tmp_path / "unlearnt")["score"][:3]), abs=1e-4)


def test_importing_biqa_imports_nothing_else(tmp_path):
    script = "import biqa, sys; biqa.load, biqa.create_metric; print(sorted({'torch', 'numpy', 'PIL', 'hydra', 'omegaconf'} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(Path(biqa.__file__).parents[1])}
    said = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
