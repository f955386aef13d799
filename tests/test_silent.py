"""What would end in a figure that is wrong and looks right ends in a message instead: each planted, beside the sound run that passes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from biqa.reporting.result import read_result

pytest_plugins = ["small_runs"]
pytestmark = pytest.mark.trust

KIND = "silent-wrongness"
SIDES = ("train",) * 8 + ("val",) * 2 + ("test",) * 4
QUICK = ("stage.epochs=1", "stage.batch_size=8", "sampling.repeats=0", "sampling.max_new_tokens=8", "~logger")


def write_table(folder: Path, *, first: int = 0, sides=SIDES) -> Path:
    """Pictures with waves of their own, and their scores."""
    folder.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[0:1:48j, 0:1:48j]
    lines = ["image,mos,side"]
    for number, side in enumerate(sides):
        rng = np.random.default_rng(first + number)
        waves = sum(np.sin(rng.uniform(2, 20) * x + rng.uniform(2, 20) * y + rng.uniform(0, 6)) for _ in range(4))
        pixels = np.stack([(waves + 4) * 30 * rng.uniform(0.5, 1) for _ in range(3)], axis=-1)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{1 + number % 5},{side}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return folder / "scores.csv"


def of_table(file: Path) -> tuple[str, ...]:
    return ("data=table", f"data.file={file}", "data.low=1", "data.high=5", "data.split=side")


@pytest.fixture(scope="module")
def small(synthetic) -> tuple[str, ...]:
    return tuple(option for option in synthetic if not option.startswith("data.")) + QUICK


@pytest.fixture(scope="module")
def chain(call, small, tmp_path_factory) -> Path:
    """A sound folder: a table, a stage 1 on it, and a stage 2 on that. Who changes it copies it first."""
    place = tmp_path_factory.mktemp("chain")
    file = write_table(place / "data")
    for name, stage in (("one", "1"), ("two", "2")):
        done = call("biqa.run", *small, *of_table(file), f"stage={stage}", f"runs={place / 'runs'}", f"name={name}")
        assert done.code == 0, done.err
        assert all(text.startswith(" scores: COLLAPSED") for text in done.err.split("WARNING:")[1:])  # a model that has hardly learnt
    return place


@pytest.fixture
def copied(chain, tmp_path) -> Path:
    """The same, for a test that changes it."""
    return Path(shutil.copytree(chain, tmp_path / "chain"))


@pytest.fixture
def again(call, small):
    """A run on the table of a folder: `again(folder, name, *options)`."""

    def run(place: Path, name: str, *options: str):
        return call("biqa.run", *small, *of_table(place / "data" / "scores.csv"), f"runs={place / 'runs'}", f"name={name}", *options)

    return run


def unfinished(place: Path, name: str) -> None:
    """Leave what a run leaves that was killed before it had a result."""
    for thing in ("result.json", "answers"):
        path = place / "runs" / name / thing
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# pictures that are learnt and tested


def test_a_test_picture_that_is_learnt_under_another_name_stops_the_run(again, tmp_path, tally):
    file = write_table(tmp_path / "data")
    with Image.open(tmp_path / "data" / "3.png") as image:
        image.save(tmp_path / "data" / "copy.bmp")
    file.write_text(file.read_text() + "copy.bmp,2,test\n")
    done = again(tmp_path, "a", "stage=zero_shot", "stage.epochs=0")
    assert done.code == 2
    assert "1 of the 5 test images of scores are learnt from in scores, pixel for pixel (first: copy.bmp is 3.png)" in done.err
    assert everything(tmp_path / "runs") == {}
    noted = again(tmp_path, "a", "stage=zero_shot", "stage.epochs=0", "overlap=note")
    assert noted.code == 0
    assert "WARNING: scores: 1 of the 5 test images of scores are learnt from" in noted.err
    assert "WARNING: scores: 1 of the 5 test images" in noted.out
    assert len(read_result(tmp_path / "runs" / "a" / "result.json")["data"]["scores"]["alarms"]) == 1
    tally(KIND, tried=1)


@pytest.mark.parametrize("how", ["jpeg", "blurred"])
def test_one_that_was_encoded_or_distorted_anew_is_announced(again, tmp_path, tally, how):
    file = write_table(tmp_path / "data")
    with Image.open(tmp_path / "data" / "3.png") as image:
        changed = image.filter(ImageFilter.GaussianBlur(1)) if how == "blurred" else image
        changed.save(tmp_path / "data" / "copy.jpg", quality=60)
    file.write_text(file.read_text() + "copy.jpg,2,test\n")
    done = again(tmp_path, "a", "stage=zero_shot", "stage.epochs=0")
    assert done.code == 0
    assert (
        "1 of the 5 test images of scores show what is learnt from in scores, encoded or distorted otherwise (first: copy.jpg is 3.png)" in done.err
    )
    tally(KIND, tried=1)


def test_a_stage_one_that_has_learnt_the_test_pictures_is_refused(copied, again, tally):
    """By another split of the same pictures, and under other names: the test pictures of stage 2 would be known to what describes them."""
    data, other = copied / "data", copied / "other" / "data"
    other.mkdir(parents=True)
    lines = ["image,mos,side"]
    for number, side in enumerate(("test",) * 4 + ("val",) * 2 + ("train",) * 8):
        shutil.copy(data / f"{number}.png", other / f"x{number}.png")
        lines.append(f"x{number}.png,{1 + number % 5},{side}")
    (other / "scores.csv").write_text("\n".join(lines) + "\n")
    shutil.copytree(copied / "runs" / "one", copied / "other" / "runs" / "one")
    done = again(copied / "other", "leaky", "stage=2", f"stage.perception={copied / 'runs' / 'one'}")
    assert done.code == 2
    assert f"4 of the 4 test images of scores are learnt from in {copied / 'runs' / 'one'} (which this run builds on), pixel for pixel" in done.err
    begun = again(copied / "other", "leaky", "stage=joint", f"stage.init_from={copied / 'runs' / 'one'}")
    assert begun.code == 2
    # what a run in between has learnt from is not forgotten
    noted = again(copied / "other", "between", "stage=1", f"stage.init_from={copied / 'runs' / 'one'}", "overlap=note")
    assert noted.code == 0, noted.err
    third = again(copied, "third", "stage=2", f"stage.perception={copied / 'other' / 'runs' / 'between'}")
    assert third.code == 2
    assert "4 of the 4 test images" in third.err
    tally(KIND, tried=3)


# labels that run the wrong way


def write_blurred(folder: Path) -> Path:
    """Forty noisy pictures, the blurrier the worse, scored 1 to 5."""
    folder.mkdir(parents=True)
    rng, lines = np.random.default_rng(0), ["image,mos"]
    for number in range(40):
        noise = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        noise.filter(ImageFilter.GaussianBlur(0.3 + number / 15)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{5 - number / 10:.1f}")
    (folder / "scores.csv").write_text("\n".join(lines))
    return folder / "scores.csv"


@pytest.mark.parametrize("direction", ["mos", "dmos"])
def test_a_table_whose_scores_run_the_wrong_way_is_announced(call, small, tmp_path, tally, direction):
    file = write_blurred(tmp_path / "data")
    where = ("data=table", f"data.file={file}", "data.low=1", "data.high=5", f"data.direction={direction}", f"runs={tmp_path}", "name=a")
    done = call("biqa.run", *small, *where, "stage=zero_shot", "stage.epochs=0")
    assert done.code == 0
    told = "the sharper an image, the lower its quality (Spearman correlation -1.00, 40 images), taken as dmos"
    assert (f"WARNING: scores: {told}" in done.err) == (direction == "dmos")
    assert (told in done.out) == (direction == "dmos")
    tally(KIND, tried=1)


# what has changed since a run began


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: Image.new("RGB", (48, 48), "green").save(data / "2.png"), "2.png of scores: other pixels"),
        (
            lambda data: (data / "scores.csv").write_text((data / "scores.csv").read_text().replace("2.png,3", "2.png,4")),
            "2.png of scores: another quality",
        ),
        (lambda data: (data / "scores.csv").write_text((data / "scores.csv").read_text().replace("2.png,3,train", "2.png,3,test")), "another split"),
        (lambda data: (data / "scores.csv").write_text((data / "scores.csv").read_text().replace("2.png,3,train\n", "")), "2.png of scores: is gone"),
    ],
    ids=["pixels", "label", "split", "row"],
)
def test_a_run_does_not_go_on_with_other_data(copied, again, tally, change, told):
    unfinished(copied, "one")
    change(copied / "data")
    before = everything(copied / "runs")
    done = again(copied, "one", "stage=1", "ckpt=last")
    assert done.code == 2
    assert "its data have changed since it began" in done.err
    assert told in done.err
    assert "overwrite=true" in done.err
    assert everything(copied / "runs") == before
    tally(KIND, tried=1)


def test_a_run_goes_on_with_the_same_data_and_says_where_the_code_is_another(copied, again, tally):
    unfinished(copied, "one")
    done = again(copied, "one", "stage=1", "ckpt=last")
    assert done.code == 0, done.err
    assert "other code" not in done.err
    unfinished(copied, "one")
    origin = copied / "runs" / "one" / "origin.json"
    kept = json.loads(origin.read_text())
    origin.write_text(json.dumps(kept | {"code": kept["code"] | {"source": "0123456789ab", "torch": "1.0"}}))
    done = again(copied, "one", "stage=1", "ckpt=last")
    assert done.code == 0, done.err
    assert "the run was begun with other code than it goes on with: torch 1.0 -> " in done.err
    assert "begun with other code" in read_result(copied / "runs" / "one" / "result.json")["data"]["scores"]["alarms"][0]
    tally(KIND, tried=1)


def test_a_stage_two_does_not_go_on_with_another_stage_one(copied, again, tally):
    unfinished(copied, "two")
    assert again(copied, "one", "stage=1", "stage.epochs=2", "overwrite=true").code == 0
    done = again(copied, "two", "stage=2", f"stage.perception={copied / 'runs' / 'one'}", "ckpt=last", "overwrite=false")
    assert done.code == 2
    config = copied / "runs" / "two" / "config.yaml"
    config.write_text(config.read_text().replace("perception: null", f"perception: {copied / 'runs' / 'one'}"))
    done = again(copied, "two", "stage=2", f"stage.perception={copied / 'runs' / 'one'}", "ckpt=last")
    assert done.code == 2
    assert "has other weights than when it began: it was made anew" in done.err
    tally(KIND, tried=1)


def test_answers_of_other_weights_are_never_taken_for_those_of_these(copied, again, tally):
    """They stay where a run is made anew in a folder that could not be emptied, or whose weights somebody has taken away."""
    answers = copied / "runs" / "two" / "answers" / "scores.parquet"
    before = answers.read_bytes()
    (copied / "runs" / "two" / "result.json").unlink()
    kept = again(copied, "two", "stage=2", "ckpt=last")
    assert kept.code == 0
    assert "made by other weights" not in kept.err
    assert answers.read_bytes() == before
    planted = pd.read_parquet(answers).assign(score=0.5)
    planted.attrs = {"weights": "0123456789abcdef"}
    planted.to_parquet(answers, index=False)
    (copied / "runs" / "two" / "result.json").unlink()
    done = again(copied, "two", "stage=2", "ckpt=last")
    assert done.code == 0
    assert f"{answers} was made by other weights (0123456789abcdef, and here are " in done.err
    assert answers.read_bytes() == before
    tally(KIND, tried=1)


def test_answers_of_other_images_or_labels_have_no_figures(copied, again, tally):
    answers = copied / "runs" / "two" / "answers" / "scores.parquet"
    table = pd.read_parquet(answers)
    for planted, told in (
        (table[table["image"] != "11.png"], "1 of 4 images are missing, first 11.png"),
        (table.assign(image=table["image"].replace("11.png", "99.png")), "1 of 4 images are missing, first 11.png"),
        (table.assign(q=table["q"].where(table["image"] != "11.png", 0.125)), "image 11.png has quality 0.125 in it and 0.25 in the labels"),
        (pd.concat([table, table.iloc[:1]]), "needs the queries 0..0 once each, and has 0, 0"),
        (table.assign(score=table["score"].where(table["image"] != "11.png")), "11.png has a level and no score"),
    ):
        planted.attrs = table.attrs
        planted.to_parquet(answers, index=False)
        (copied / "runs" / "two" / "result.json").unlink(missing_ok=True)
        done = again(copied, "two", "stage=2", "ckpt=last")
        assert done.code == 2
        assert told in done.err
        assert not (copied / "runs" / "two" / "result.json").exists()
    tally(KIND, tried=5)


def test_predict_refuses_a_stage_one_that_was_made_anew(copied, again, tally):
    from biqa.errors import IncompatibleChoice
    from biqa.finished.predicting import Scorer

    picture = copied / "data" / "11.png"
    answered = pd.read_parquet(copied / "runs" / "two" / "answers" / "scores.parquet").set_index("image")
    assert Scorer(copied / "runs" / "two", device="cpu")(picture).score == pytest.approx(answered.loc["11.png", "score"], abs=1e-6)
    assert again(copied, "one", "stage=1", "tuning.lr=1e-2", "overwrite=true").code == 0
    for named in (None, copied / "runs" / "one"):
        with pytest.raises(IncompatibleChoice, match=r"is not the stage 1 that .* was taught on: it has other weights"):
            Scorer(copied / "runs" / "two", device="cpu", perception=named)
    tally(KIND, tried=1)


def test_questions_that_the_weights_were_not_taught_are_refused(copied, again, tally):
    origin = copied / "runs" / "one" / "origin.json"
    kept = json.loads(origin.read_text())
    words = kept["questions"]["words"]
    for planted, told in (
        ({"words": words | {"stage 1": "What do you see?"}, "tokens": "0"}, "the words of stage 1 are others"),
        ({"words": words, "tokens": "0"}, "the tokenizer or the chat template is another"),
    ):
        origin.write_text(json.dumps(kept | {"questions": planted}))
        done = again(copied, "two", "stage=2", "overwrite=true")
        assert done.code == 2
        assert f"its weights were taught with other questions than are asked here: {told}" in done.err
    tally(KIND, tried=2)


def test_what_a_run_began_with_is_kept_and_no_more(chain):
    pictures = pd.read_parquet(chain / "runs" / "two" / "pictures.parquet")
    own, before = (pictures.loc[rows] for rows in (pictures["by"] == "", pictures["by"] != ""))
    assert (len(own), len(before)) == (14, 10)
    assert np.count_nonzero(own["learnt"].to_numpy()) == 10
    assert before["by"].tolist() == ["one"] * 10
    assert len(set(own["pixels"])) == 14
    kept = json.loads((chain / "runs" / "two" / "origin.json").read_text())
    assert [*kept["builds_on"].values()] == [kept["builds_on"][str(chain / "runs" / "one")]]
    assert read_result(chain / "runs" / "two" / "result.json")["data"]["scores"]["notes"] == []
