"""The main defect of authentic images: a made-up list, and LIQE's real ones where they are."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biqa.data.defects import WORDS, DefectTargets
from biqa.data.livec import LiveC
from biqa.data.record import Record
from biqa.data.targets import MeasuredTargets
from biqa.errors import BadRecord, DatasetNotFound
from biqa.language.features import MAIN_DEFECT, parse
from biqa.language.leak import find_leak

ROWS = [f"{number}.png,{word},night" for number, word in enumerate(WORDS)]


def record(image: str, path: Path = Path("none")) -> Record:
    return Record(image=image, path=path, q=0.5, split="train", group=image, score=3.0)


def write_list(place: Path, rows: list[str], header: str = "image,distortion,scenes") -> Path:
    file = place / "defects.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def photographs(place: Path) -> list[Record]:
    records = []
    for number in range(len(WORDS)):
        path = place / f"{number}.png"
        Image.fromarray(np.random.default_rng(number).integers(0, 40 * (number + 1), (32, 32, 3), np.uint8)).save(path)
        records.append(record(path.name, path))
    return records


def test_every_word_of_liqe_has_a_kind() -> None:
    assert len(WORDS) == len(set(WORDS)) == len(MAIN_DEFECT.strengths)
    named = {"realistic blur": "blur", "realistic noise": "noise", "underexposure": "underexposure", "overexposure": "overexposure"}
    for word, said in {**named, "realistic contrast change": "changed contrast", "other realistic": "of another kind"}.items():
        assert MAIN_DEFECT.strengths[WORDS.index(word)] == said


def test_the_word_alone(tmp_path: Path) -> None:
    targets = DefectTargets(file=write_list(tmp_path, ROWS), measured=False)
    assert targets.parts == ()
    records = [record(f"{number}.png") for number in range(len(WORDS))]
    targets.fit(records)
    said = [targets.describe(r) for r in records]
    assert [d.features for d in said] == [{"main_defect": number} for number in range(len(WORDS))]
    assert [parse(d.text) for d in said] == [d.features for d in said]
    assert all(find_leak(d.text) is None for d in said)


def test_the_measurements_stand_before_it(tmp_path: Path) -> None:
    records = photographs(tmp_path)
    targets, measured = DefectTargets(file=write_list(tmp_path, ROWS)), MeasuredTargets()
    assert targets.parts == measured.parts
    for source in (targets, measured):
        source.fit(records)
    for number, r in enumerate(records):
        found = targets.describe(r)
        assert found.features == {**measured.describe(r).features, "main_defect": number}
        assert parse(found.text) == found.features
        assert list(parse(found.text))[-1] == "main_defect"


def test_paraphrases_are_those_of_seed_and_name(tmp_path: Path) -> None:
    file = write_list(tmp_path, [f"{number}.png,underexposure,night" for number in range(50)])
    records = [record(f"{number}.png") for number in range(50)]
    texts = [[DefectTargets(file=file, seed=seed, measured=False).describe(r).text for r in records] for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert set(texts[0]) == {sentence for sentence, kind in MAIN_DEFECT.sentences() if kind == WORDS.index("underexposure")}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x.png,fog,night", r'defects\.csv, row 8, column distortion: "fog" is not one of realistic blur, .*, other realistic\. Correct it, or take'),
        ("x.png,Realistic Blur,night", r'"Realistic Blur" is not one of realistic blur'),
        ("x.png,,night", r"defects\.csv, row 8, column distortion: the cell is empty\. Fill it in, or take the row out\."),
        (",underexposure,night", r"defects\.csv, row 8, column image: the cell is empty"),
        ("2.png,underexposure,night", r"defects\.csv, row 8: the image 2\.png stands in .*defects\.csv, row 4 already\. Keep one word an image\."),
        ("x.png,underexposure", r"defects\.csv, row 8: 2 cells under a header of 3"),
    ],
)
def test_a_row_that_says_no_kind_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        DefectTargets(file=write_list(tmp_path, [*ROWS, row]))


def test_a_file_or_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"nowhere\.csv: there is no such file"):
        DefectTargets(file=tmp_path / "nowhere.csv")
    with pytest.raises(DatasetNotFound, match=r"row 2: no column distortion; found image, word, scenes"):
        DefectTargets(file=write_list(tmp_path, ROWS, header="image,word,scenes"))
    targets = DefectTargets(file=write_list(tmp_path, ROWS), measured=False)
    with pytest.raises(
        BadRecord, match=r"^Image y\.png: .*defects\.csv has no row for it \(its first image is 0\.png\)\. Add a row .*descriptions=measured"
    ):
        targets.describe(record("y.png"))


@pytest.mark.parametrize("measured", [True, False])
def test_real_photographs_of_clive_have_a_target(shared: Path, measured: bool) -> None:
    records = LiveC(root=shared / "data" / "livec_dev").records()[:: 5 if measured else 1]
    targets = DefectTargets(file=shared / "datasets/labels/liqe/ChallengeDB_release.csv", measured=measured)
    targets.fit(records)
    said = [targets.describe(r) for r in records]
    assert len(said) == (80 if measured else 400)
    assert {len(d.features) for d in said} == {7 if measured else 1}
    assert all(parse(d.text) == d.features and find_leak(d.text) is None for d in said)


def test_the_real_lists(shared: Path) -> None:
    for name, counts in (("ChallengeDB_release", [499, 62, 105, 29, 30, 437]), ("koniq-10k", [3578, 1015, 435, 345, 179, 4521])):
        kinds = DefectTargets(file=shared / f"datasets/labels/liqe/{name}.csv", measured=False).kinds
        assert [Counter(kinds.values())[kind] for kind in range(len(WORDS))] == counts
