"""The door to a data set, on a small table of pictures."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from biqa import config as schema
from biqa.data.targets import FileTargets
from biqa.doors.opening import open_door
from biqa.prepare import main

FILES = {"checks.json", "targets.jsonl", "figure.png", "contact_sheet.png"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(20):
        Image.fromarray(rng.integers(0, 12 * i + 20, (40, 40, 3), dtype=np.uint8)).save(f"{i}.png")
    tmp_path.joinpath("scores.csv").write_text("image,mos\n" + "".join(f"{i}.png,{1 + i / 5}\n" for i in range(20)))
    return tmp_path


@pytest.fixture
def call(monkeypatch, capsys):
    def prepare(*arguments: str) -> tuple[int | str, str, str]:
        schema.register()
        monkeypatch.setattr(sys, "argv", ["prepare", *arguments])
        code: int | str = 0
        try:
            open_door(main)
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, " ".join(said.out.split()), said.err

    return prepare


TABLE = ("data=table", "data.file=scores.csv", "data.low=1", "data.high=5", "out=out")


def test_a_sound_folder_is_checked_and_described(place, call):
    code, out, err = call(*TABLE, "examples=2")
    assert (code, err) == (0, "")
    assert "all 20 decode" in out
    assert "20 written, none gives the answer away" in out
    assert {path.name for path in (place / "out").iterdir()} == FILES
    targets = [json.loads(line) for line in (place / "out" / "targets.jsonl").read_text().splitlines()]
    assert sorted(target["image"] for target in targets) == sorted(f"{i}.png" for i in range(20))
    assert sum(target["description"] in out for target in targets) >= 2
    assert len(FileTargets(file=place / "out" / "targets.jsonl").texts) == 20  # what descriptions=file reads
    checks = {check["name"]: check["state"] for check in json.loads((place / "out" / "checks.json").read_text())}
    assert set(checks.values()) <= {"ok", "note"}
    for name in ("figure.png", "contact_sheet.png"):
        with Image.open(place / "out" / name) as picture:
            assert picture.width > 300


def test_what_is_wrong_is_told_and_ends_with_code_2(place, call):
    (place / "3.png").write_bytes(b"no image")
    (place / "5.png").unlink()
    code, out, err = call(*TABLE)
    assert code == 2
    assert "2 of 20 cannot be used" in out
    assert "5.png: there is no such" in " ".join(out.replace("│", " ").replace("images WRONG", "").split())
    assert err == "1 of 9 checks found something wrong with scores: see the table above, or out/checks.json.\n"
    assert {path.name for path in (place / "out").iterdir()} == FILES
    assert len((place / "out" / "targets.jsonl").read_text().splitlines()) == 18


def test_descriptions_that_cannot_be_made_are_a_check_too(place, call):
    code, out, _ = call(*TABLE, "descriptions=attributes")
    assert code == 2
    assert "no annotated value of any attribute" in out


def test_an_image_too_small_to_measure_is_told_and_the_others_are_described(place, call):
    Image.new("RGB", (12, 40)).save("3.png")
    code, out, _ = call(*TABLE, "descriptions=measured")
    assert code == 2
    assert "1 of 20 cannot be used" in out
    assert "19 written" in out
    [state] = [check["text"] for check in json.loads((place / "out" / "checks.json").read_text()) if check["name"] == "images"]
    assert state == "1 of 20 cannot be used: 3.png: 12 x 40 pixels are too few to measure: at least 16 a side"


def test_images_are_checked_at_the_size_of_the_run(place, call):
    code, out, _ = call(*TABLE, "images.shorter_side=20", f"images.cache={place / 'cache'}")
    assert code == 0
    assert "20 of them are 20 x 20" in out
    assert len(list(place.glob("cache/reduced/20/*.png"))) == 20


def test_a_folder_without_a_single_image_is_told(place, call):
    for path in place.glob("*.png"):
        path.unlink()
    code, out, _ = call(*TABLE)
    assert code == 2
    assert "20 of 20 cannot be used" in out
    assert "The train split holds no image" in out
    assert {path.name for path in (place / "out").iterdir()} == {"checks.json", "targets.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "data= is not chosen. Choose one: agiqa, "),
        (("data=nothing",), "There is no data=nothing. Choices: agiqa, "),
        (("data=koniq", "data.root=nowhere"), "KonIQ-10k is not there"),
        (
            ("data=table", "data.file=scores.csv", "data.low=3", "data.high=5"),
            "scores.csv, row 2, column mos: score 1.0 is not within the scale 3..5",
        ),
        ((*TABLE, "near_bits=99"), "near_bits=99: choose 0"),
        ((*TABLE, "outt=x"), "There is no option outt"),
        ((*TABLE, "+x=1"), "There is no option x"),
        ((*TABLE[:-1], "out=scores.csv/x"), "out=scores.csv/x cannot be made"),
    ],
)
def test_a_mistake_is_one_message_and_leaves_nothing(place, call, arguments, message):
    before = {path.name for path in place.iterdir()}
    code, _, err = call(*arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert {path.name for path in place.iterdir()} == before


def test_the_parts_of_a_mixture_are_checked_against_each_other(place, call):
    synthetic = [f"data.parts.synthetic.{option}" for option in ("root=syn", "train=12", "val=3", "test=4", "crop=48", "workers=0")]
    table = [f"data.parts.table.{option}" for option in ("file=scores.csv", "low=1", "high=5")]
    code, out, err = call("data=synthetic+table", *synthetic, *table, "out=out")
    assert (code, err) == (0, "")
    assert {path.name for path in (place / "out").iterdir()} == {"scores", "synthetic"}
    assert all({path.name for path in folder.iterdir()} == FILES for folder in (place / "out").iterdir())
    checks = {check["name"]: check["text"] for check in json.loads((place / "out" / "scores" / "checks.json").read_text())}
    assert checks["pictures of synthetic"] == "none of them is a test picture here"
    assert "19 written" in out
    assert "20 written" in out
