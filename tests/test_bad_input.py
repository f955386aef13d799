"""What a tired user types, and the files that he points at: one message that says what, where and what next; exit code 2; nothing written.

Called as the user calls it (options as words, in a folder of his own), in this process where that shows the same, and as a real process where not.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image
from scipy.io import savemat

from biqa import config as schema
from biqa import report, run
from biqa.doors.opening import open_door

SMALL = (
    "model.hidden=32", "model.layers=1", "model.heads=2", "model.tower_hidden=32", "model.tower_layers=1", "model.min_steps=0", "stage.epochs=1",
    "sampling.repeats=2", "sampling.max_new_tokens=8", "evaluation.resamples=20", "trainer.progress=false", "trainer.accelerator=cpu", "~logger",
)  # fmt: skip
TABLE = ("data=table", "data.file=scores.csv", "data.low=1", "data.high=5", *SMALL)
"""A sound command on the folder of `place`: a case below adds one mistake to it."""
MADE = ("data.train=6", "data.val=2", "data.test=2", "data.crop=32", "data.workers=0", *SMALL)
LIVEC = ("data=livec", "data.root=release", *SMALL)
NAMES = [f"{number}.png" for number in range(10)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder: ten images, scores.csv with their scores, and nothing else."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / name)
    write_scores(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Lightning sets these two for good
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    return tmp_path


def write_scores(place: Path, *more: str) -> None:
    """scores.csv: the ten images in rows 2..11, and more rows below."""
    rows = [f"{name},{1 + 0.4 * number:.1f}" for number, name in enumerate(NAMES)]
    (place / "scores.csv").write_text("\n".join(["image,mos", *rows, *more]) + "\n")


def write_release(place: Path, missing: str = "", undecodable: str = "") -> None:
    """LIVE in the Wild's layout below release/, one image missing or damaged."""
    images, data = place / "release" / "Images", place / "release" / "Data"
    images.mkdir(parents=True)
    data.mkdir()
    for name in NAMES:
        if name != missing:
            (images / name).write_bytes(b"no image" if name == undecodable else (place / name).read_bytes())
    cells = np.empty((17, 1), dtype=object)
    cells[:, 0] = [f"t{number}.bmp" for number in range(1, 8)] + NAMES
    savemat(data / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(data / "AllMOS_release.mat", {"AllMOS_release": np.linspace(10, 90, 17)[None]})
    savemat(data / "AllStdDev_release.mat", {"AllStdDev_release": np.full((1, 17), 20.0)})


Call = Callable[..., tuple[object, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """A door with these options: exit code (None: it returned), stdout, stderr."""

    def called(*options: str, door: str = "run") -> tuple[object, str, str]:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [f"{door}.py", *options])
        code: object = None
        try:
            if door == "run":  # as its last lines do
                sys.argv[1:] = run.numbers_to_words(sys.argv[1:])
                schema.register()
            open_door(run.main if door == "run" else report.main)
        except SystemExit as end:
            code = end.code
        finally:
            GlobalHydra.instance().clear()
        out, error = capsys.readouterr()
        return code, out, error

    return called


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder with what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(place: Path, call: Call) -> Callable[..., str]:
    """A call that must be refused: its message."""

    def message(*options: str, door: str = "run") -> str:
        before = contents(place)
        code, out, error = call(*options, door=door)
        assert code == 2, error
        assert "Traceback" not in out + error
        assert "HYDRA_FULL_ERROR" not in error
        assert contents(place) == before
        return error

    return message


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["stage.epoch=3"], ["There is no option stage.epoch. Did you mean stage.epochs?"]),
        (["stage.batch_sise=3"], ["There is no option stage.batch_sise. Did you mean stage.batch_size?"]),
        (["batch_size=3"], ["There is no option batch_size. Did you mean model.batch_size, stage.batch_size or sampling.batch_size?"]),
        (["stage.zzz=3"], ["There is no option stage.zzz. What there is beside it: epochs, batch_size, init_from, target, level_weight."]),
        (["model=foo"], ["There is no model=foo. Choices: hf, idefics3, internvl, llava, owl2, qwen2_5_vl,"]),
        (["model=null"], ["There is no model=null. Choices: hf, ", "qwen3_vl, smolvlm, tiny."]),
        (["~stage"], ["stage has no value. Set it: stage=VALUE"]),
        (["stage.epochs=1.5"], ["stage.epochs=1.5: write a whole number."]),
        (["--cfgg"], ["There is no flag --cfgg. Did you mean --cfg? Options are written NAME=VALUE, without dashes; --help lists them."]),
        (["data=livec"], ["datasets: LIVE in the Wild is not there (there is no such folder). Set data.root= to the unpacked folder, or datasets="]),
        (["data=table"], ["data.file has no value. Set it: data.file=VALUE"]),
        (["descriptions=file"], ["descriptions.file has no value. Set it: descriptions.file=VALUE"]),
    ],
)  # fmt: skip
def test_a_slip_of_the_keyboard(refused, options, texts):
    error = refused(*options)
    for text in texts:
        assert text in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["stage.epochs=-1"], "stage.epochs=-1: choose 0 or more."),
        (["seed=-1"], "seed=-1: choose 0 or more, below 2^32."),
        (["seed=4294967296"], "seed=4294967296: choose 0 or more, below 2^32."),
        (["ckpt=latest"], "ckpt=latest is not known: choose last, or leave it out."),
        (["tuning.lr=-1"], "tuning.lr=-1.0: choose a learning rate above 0."),
        (["model.lr=nan"], "tuning.lr=nan: choose a learning rate above 0."),
        (["tuning.weight_decay=-1"], "tuning.weight_decay=-1.0: choose 0 or more."),
        (["tuning=lora", "tuning.dropout=2"], "tuning.dropout=2.0 is a share: choose a value in [0, 1)."),
        (["tuning=lora", "tuning.alpha=0"], "tuning.alpha=0: LoRA needs an alpha of at least 1."),
        (["tuning.freeze='('"], "tuning.freeze=( is no regular expression: missing ), unterminated subpattern at position 0. Correct it."),
        (["tuning.targets='*'"], "tuning.targets=* is no regular expression: nothing to repeat at position 0. Correct it."),
        (["stage.level_weight=nan"], "stage.level_weight=nan: choose 0 or more."),
        (["model.attention=fast"], "model.attention=fast is not known: choose eager or sdpa."),
        (["sampling.repeats=1"],
         "sampling.repeats=1: one answer cannot disagree with itself: it has no instability. Choose 2 or more, or 0 for accuracy alone."),
        (["sampling.temperature=0"],
         "sampling.temperature=0.0: greedy decoding repeats itself, its instability is 0 by construction. "
         "Choose a temperature above 0, or sampling.repeats=0 for accuracy alone."),
        (["sampling.temperature=nan"], "sampling.temperature=nan: choose a number such as 1.0."),
        (["sampling.batch_size=0"], "sampling.batch_size=0: choose 1 or more, or auto."),
        (["sampling.batch_size=many"], "sampling.batch_size=many: choose 1 or more, or auto."),
        (["sampling.compile=true", "strategy=fsdp", "trainer.devices=2"],
         "sampling.compile=true does not go with strategy=fsdp, which divides the weights: choose strategy=ddp, or sampling.compile=false."),
        (["sampling.memory_gb=0"], "sampling.memory_gb=0.0: choose more than 0, or leave it out."),
        (["trainer.clip=nan"], "trainer.clip=nan: choose 0 (no clipping) or more."),
        (["data.seed=-1"], "data.seed=-1: choose 0 or more."),
        (["descriptions.seed=-1"], "descriptions.seed=-1: choose 0 or more."),
        (["name=.."], "name=.. is no name of a folder: leave slashes and dots alone out of it. Where runs lie is runs=FOLDER."),
        (["name=../mine"], "name=../mine is no name of a folder: leave slashes and dots alone out of it. Where runs lie is runs=FOLDER."),
        (["name=a/b"], "name=a/b is no name of a folder: leave slashes and dots alone out of it. Where runs lie is runs=FOLDER."),
        (["name="], "name= is empty: give a value, or leave the option out."),
        (["runs="], "runs= is empty: give a value, or leave the option out."),
        (["data.root="], "data.root= is empty: give a value, or leave the option out."),
        (["model=owl2"], "model=owl2 needs a checkpoint: model.path=FOLDER, or its name on the hub such as MAGAer13/mplug-owl2-llama2-7b. "
            "To see the whole chain run without one: model.size=tiny."),
        (["model._target_=os.system"], "_target_=os.system is refused: a config may only name what biqa or lightning.pytorch.loggers defines."),
        (["stage.init_from=nowhere"], "stage.init_from=nowhere: no run there (a run folder has a config.yaml). "
            "biqa ls runs=FOLDER lists those that there are."),
        (["stage=2", "stage.perception=nowhere"], "stage.perception=nowhere: no run there (a run folder has a "
            "config.yaml). biqa ls runs=FOLDER lists those that there are."),
        (["stage=2", "seed=3"],
         "stage 2 needs a finished stage 1 with model=tiny data=synthetic seed=3 and the same options of model, data, images and descriptions; none lies in "
         "runs/. Run it first: python -m biqa.run stage=1 model=tiny data=synthetic seed=3 (and your other options), or name one: "
         "stage.perception=FOLDER."),
    ],
)  # fmt: skip
def test_a_value_that_makes_no_sense(refused, options, message):
    assert refused(*options) == f"{message}\n"


def test_all_that_is_wrong_is_told_at_once(refused):
    assert refused("stage.epochs=-1", "stage.batch_size=0") == "stage.epochs=-1: choose 0 or more.\nstage.batch_size=0: choose 1 or more.\n"


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (["strategy=fsdp"], ["strategy=fsdp divides a model among devices, and trainer.devices=1 is one.", "or strategy=auto."]),
        (["trainer.nodes=2"], ["trainer.nodes=2: processes on other machines must be started there.", "torchrun --nnodes=2"]),
        (["strategy=deepspeed_zero2", "trainer.accelerator=cpu"], ["strategy=deepspeed_zero2 needs GPUs", "Choose strategy=fsdp"]),
        (["strategy.kind=tactics"], ["strategy.kind=tactics is not known: choose auto, ddp, fsdp, deepspeed_zero2, deepspeed_zero3."]),
        (["trainer.devices=two"], ["trainer.devices=two", "will not do on this machine: `devices` selected with `CPUAccelerator` should be an int > 0."]),
        (["trainer.accelerator=abacus"], ["trainer.accelerator=abacus", "will not do on this machine: You selected an invalid accelerator name"]),
        (["model._target_=biqa.models.nowhere.build"], ["_target_=biqa.models.nowhere.build cannot be had", "No module named 'biqa.models.nowhere'"]),
    ],
)  # fmt: skip
def test_what_this_machine_or_release_has_not(refused, options, texts):
    error = refused(*TABLE, *options)
    for text in texts:
        assert text in error


def test_a_gpu_where_there_is_none(refused, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    error = refused(*TABLE, "trainer.accelerator=gpu")
    assert "trainer.accelerator=gpu trainer.devices=1 trainer.precision=bf16-mixed strategy=auto will not do on this machine: " in error


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ("gone.png,3", [], r"scores\.csv, row 12: the image gone\.png is missing\. Set data\.root= .*or data\.on_bad_image=skip"),
        ("0.txt,3", [], r"Image 0\.txt \(row 11 of 11\): 0\.txt: cannot be decoded .*Unusable images in all: 1\. Repair .*data\.on_bad_image=skip"),
        ("2x2.png,3", [], r"Image 2x2\.png cannot be measured: 2 x 2 pixels are too few .*take its row out; or choose descriptions=file"),
        ("2x2.png,5.5", [], r"scores\.csv, row 12, column mos: score 5\.5 is not within the scale 1\.\.5 of scores\. Correct the row, or declare"),
        ("2x2.png,nan", [], r"scores\.csv, row 12, column mos: score nan is not within the scale 1\.\.5"),
        ("2x2.png,", [], r'scores\.csv, row 12: "" in column mos is not a number\. Correct it, or take the row out\.'),
        ("0.png,3", [], r"scores\.csv, row 12: the image 0\.png stands in scores\.csv, row 2 already"),
        ('"2x2.png,3', [], r"scores\.csv, row 12: 1 cells under a header of 2\. Is there a stray delimiter or quote\?"),
        ('"' + "x" * 200_000, [], r"scores\.csv: not a table \(field larger than field limit \(131072\)\)\. Is there a stray quote\?"),
        ("", ["data.root=nowhere"], r"scores\.csv, row 2: the image nowhere/0\.png is missing\. Set data\.root="),
        ("", ["data.root=scores.csv"], r"scores\.csv, row 2: the image scores\.csv/0\.png is missing\. Set data\.root="),
        ("", ["data.root=nowhere", "data.on_bad_image=skip"], r"no such file\. None of the 10 images can be used\. Set data\.root= to the folder"),
        ("", ["data.file=nowhere.csv"], r"nowhere\.csv: there is no such file\. Give the path of a \.csv, \.tsv, \.jsonl or \.json file\."),
        ("", ["data.file=0.png"], r'0\.png: the ending "\.png" is not known\. Choose a \.csv'),
        ("", ["data.score=dmos", "data.split=set"], r"scores\.csv, row 2: no column dmos, set; found image, mos\. Name the columns of your file"),
        ("", ["data.name=a/b"], r"data\.name=a/b: answers are kept in a file of that name\. Leave slashes out of it\."),
        ("", ["data.low=5", "data.high=1"], r"data\.low=5 and data\.high=1: the lower end of the scale must lie below the upper one\."),
        ("", ["data.val_share=0"], r"The val split holds no image \(of 10: train 8, val 0, test 2\)\. .*data\.val_share="),
        ("", ["data.val_share=0.9"], r"data\.val_share=0\.9 and data\.test_share=0\.2: choose shares .*sum to less than 1"),
        ("", ["descriptions=attributes"], r"Image 0\.png: no annotated value of any attribute\. .*data\.features=.*or choose descriptions=measured"),
        ("", ["descriptions=distortions"], r"has no known distortion\. Choose descriptions=measured"),
        ("", ["descriptions=file", "descriptions.file=nowhere.csv"], r"nowhere\.csv: there is no such file\. Give the path"),
        ("", ["descriptions=file", "descriptions.file=scores.csv"], r"scores\.csv, row 2: no column description; found image, mos\."),
    ],
)  # fmt: skip
def test_a_table_that_will_not_do(place, refused, row, options, message):
    (place / "0.txt").write_text("no image")
    Image.new("RGB", (2, 2)).save(place / "2x2.png")
    write_scores(place, row)
    error = refused(*TABLE, *options)
    assert re.fullmatch(rf".*{message}.*\n", error), error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "scores.csv: the file has no rows. Give one row an image below the header."),
        (b"image,mos\n", "scores.csv: the file has no rows. Give one row an image below the header."),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "scores.csv: the text is not UTF-8 (invalid start byte at byte 0). Save it as UTF-8."),
        (b"name,score\n0.png,1\n", "scores.csv, row 2: no column image, mos; found name, score. Name the columns of your file in the config."),
        (
            b"image;mos\n0.png;1\n",
            "scores.csv, row 2: no column image, mos; found image;mos. "
            "Its cells are parted by semicolons: save it with commas, or with tabs as .tsv.",
        ),
        (b"image,mos,mos\n0.png,1,2\n", "scores.csv, row 1: the column mos stands there twice. Rename one of them."),
    ],
)
def test_a_csv_that_is_none(place, refused, content, message):
    (place / "scores.csv").write_bytes(content)
    assert refused(*TABLE) == f"{message}\n"


def test_live_in_the_wild_is_not_there(refused):
    error = refused("data=livec", "data.root=nowhere", *SMALL)
    assert error.startswith("nowhere: LIVE in the Wild is not there (there is no such folder). Set data.root= to the unpacked folder, ")
    assert "ChallengeDB_release/\n" in error
    assert "Source: https://live.ece.utexas.edu" in error


def test_live_in_the_wild_is_a_file(place, refused):
    (place / "ChallengeDB.zip").write_bytes(b"PK")
    assert refused("data=livec", "data.root=ChallengeDB.zip", *SMALL) == (
        "ChallengeDB.zip: this is a file. LIVE in the Wild is read from its unpacked folder. "
        "Unpack it (unzip ChallengeDB.zip) and set data.root= to the folder.\n"
    )


def test_an_image_of_live_in_the_wild_is_missing_or_damaged(place, refused):
    write_release(place, missing="3.png", undecodable="5.png")
    assert refused(*LIVEC) == (
        "release/Data/AllImages_release.mat, row 11 (3.png): the image release/Images/3.png is missing. "
        "Unpack the release again, or set data.on_bad_image=skip to leave such images out.\n"
    )
    (place / "release" / "Images" / "3.png").write_bytes((place / "3.png").read_bytes())
    assert "Image 5.png (row 6 of 10): release/Images/5.png: cannot be decoded" in refused(*LIVEC)


def test_bad_images_are_left_out_counted_and_listed_where_the_user_says_so(place, call):
    (place / "half.png").write_bytes((place / "0.png").read_bytes()[:500])
    write_scores(place, "half.png,3", "gone.png,3")
    code, out, error = call(*TABLE, "data.on_bad_image=skip", "name=x")
    assert (code, error) == (None, "")
    assert "scores: left out as unusable: 2 (listed in result.json)" in out
    result = json.loads((place / "runs" / "x" / "result.json").read_text())
    skipped = result["data"]["scores"]["skipped"]
    assert [text.split(":")[0] for text in skipped] == ["Image half.png (row 11 of 12)", "Image gone.png (row 12 of 12)"]
    assert "cannot be decoded" in skipped[0]
    assert "there is no such file" in skipped[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.root=scores.csv"], "data.root=scores.csv: images cannot be written there (File exists). Choose a folder that you may write to."),
        (["data.references=nowhere"], "data.references=nowhere: there is no such folder. Name a folder of undistorted photographs, or null"),
        (["data.references=."], "9.png: 24 x 24 pixels, smaller than data.crop=32. Take it out of the folder, or set a smaller crop."),
        (
            ["data.kinds=[blur]"],
            "data.kinds: there is no distortion type 'blur'. Did you mean lens_blur, gaussian_blur or motion_blur? Choose from: ",
        ),
        (["data.pristine=nan"], "data.two_at_once=0.25 and data.pristine=nan are shares of the images: from 0 to 1, also together."),
        (["descriptions=file", "descriptions.file=gone.csv"], "gone.csv: there is no such file."),
        (["runs=scores.csv", "name=x"], "scores.csv/x cannot be made: "),
    ],
)
def test_made_data_that_cannot_be_made(place, refused, options, message):
    for name in NAMES[:9]:
        Image.new("RGB", (40, 40)).save(place / name)
    error = refused(*MADE, *options)
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_made_data_that_were_damaged_later(place, call, refused):
    assert call(*MADE, "name=x")[0] is None
    [labels] = (place / "data" / "synthetic").glob("*/labels.csv")
    labels.unlink()
    folder = labels.parent.relative_to(place)
    assert refused(*MADE, "name=y") == f"{folder}/labels.csv: there is no such file. Delete the folder {folder}: its images are then made again.\n"


def test_a_run_that_is_there_already(place, call, refused):
    assert call(*TABLE, "name=x")[0] is None
    assert refused(*TABLE, "name=x", "sampling.top_p=0.9", "seed=1") == (
        "runs/x holds a run with another config:\n  sampling.top_p: 1.0 there, 0.9 here\n  seed: 0 there, 1 here\n"
        "Choose another name=, or overwrite=true to delete it.\n"
    )
    assert "seed: 0 there, 1 here" in refused(*TABLE, "name=x", "seed=1", "ckpt=last")
    assert refused(*TABLE, "name=y", "stage=2", "stage.perception=runs/x") == (
        "stage.perception=runs/x: that is a run of stage=joint, and one of stage=perception is needed. biqa ls runs=FOLDER shows the stage of each run.\n"
    )
    assert "first model.multi_modal_projector" in refused(*TABLE, "name=y", "model.hidden=64", "stage.init_from=runs/x")
    assert "is missing" in refused(*TABLE, "name=x", "overwrite=true", "seed=1", "data.root=nowhere")  # the old run is still whole
    (place / "runs" / "x" / "result.json").write_text('{"schema": 1, "run')
    assert "runs/x/result.json is not valid JSON" in refused(*TABLE, "name=x")
    (place / "runs" / "x" / "result.json").unlink()
    assert "add ckpt=last to go on with it, or overwrite=true to start again." in refused(*TABLE, "name=x")
    assert "runs/x: that run is not finished (it has no result.json)" in refused(*TABLE, "name=y", "stage.init_from=runs/x")


def test_a_folder_of_something_else(place, refused):
    (place / "runs" / "x").mkdir(parents=True)
    (place / "runs" / "x" / "thesis.tex").write_text("years of work")
    for option in ("ckpt=last", "overwrite=true"):
        assert refused(*TABLE, "name=x", option) == (
            "runs/x is there already and is no run folder (it has no config.yaml). Choose another name= or runs=.\n"
        )


def test_a_sweep_with_one_bad_choice_runs_nothing(place, call):
    before = set(contents(place))
    code, out, error = call("-m", "stage=1,2,7")
    assert code == 2
    assert "There is no stage=7." in error
    assert "Traceback" not in out + error
    assert set(contents(place)) - before <= {"runs", "runs/multirun.yaml"}  # Hydra notes down the sweep before it looks at its jobs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["runs=nowhere"], "runs=nowhere: there is no such folder. Name the folder that holds the runs: runs=FOLDER."),
        (["runs=scores.csv"], "runs=scores.csv: there is no such folder. Name the folder that holds the runs: runs=FOLDER."),
        (["runs=empty"], "runs=empty: no result.json lies below it, so no run there is finished. Make one with python -m biqa.run."),
        (["runs="], "runs= is empty: name a folder."),
        (["out="], "out= is empty: name a folder."),
        (["seed=-1"], "seed=-1: choose 0 or more."),
        (["+resample=5"], "There is no option resample. Did you mean resamples?"),
        (["runs=cut"], "cut/x/result.json is not valid JSON (Expecting value: line 1 column 11 (char 10)). Run that run again with overwrite=true."),
        (["runs=other"], "other/x/result.json has schema None, this version of biqa reads schema 1. Is it a result of biqa? Run that run again."),
        (["runs=less"],
         "less/x/result.json: run, seed, metrics, sampling, data, config, versions, git_commit, hardware, seconds missing; found schema. "
         "Run that run again with overwrite=true."),
    ],
)  # fmt: skip
def test_a_report_of_nothing_or_of_broken_runs(place, refused, options, message):
    (place / "empty").mkdir()
    for name, text in {"cut": '{"schema":', "other": "{}", "less": '{"schema": 1}'}.items():
        (place / name / "x").mkdir(parents=True)
        (place / name / "x" / "result.json").write_text(text)
    assert refused(*options, door="report") == f"{message}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["biqa.run", "stage.epoch=3"], "There is no option stage.epoch. Did you mean stage.epochs?"),
        (
            ["biqa.run", "data=livec", "data.root=nowhere"],
            "nowhere: LIVE in the Wild is not there (there is no such folder). Set data.root= to the unpacked folder",
        ),
        (["biqa.report", "runs=nowhere"], "runs=nowhere: there is no such folder."),
    ],
)
def test_the_real_thing(tmp_path, arguments, message):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())
