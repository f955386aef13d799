"""BIQ2021: a tiny copy of its layout, and the real label files where there are any."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from releases import fill
from scipy.stats import spearmanr

from biqa.data.biq2021 import FILES, Biq2021
from biqa.data.splits import split_by_group
from biqa.data.survey import check_images
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice

TRAIN = [(f"ss0{1 + number % 3} ({number}).jpg", f"{number / 20:.4f}") for number in range(1, 11)]
TEST = [(f"ss0{1 + number % 3} ({number}).jpg", f"{number / 20:.4f}") for number in range(11, 16)]
ROWS = [*TRAIN, *TEST]


def write_release(place: Path, train: Sequence[Sequence[str]] = TRAIN, test: Sequence[Sequence[str]] = TEST) -> Path:
    """The official layout: two empty columns behind the training labels, none behind those of the test."""
    folder = place / "BIQ2021"
    fill(folder / "Images", [name for name, _ in ROWS])
    (folder / FILES["train"]).write_text("\r\n".join(["Image Name,MOS,,", *(",".join([*row, "", ""]) for row in train)]))
    (folder / FILES["test"]).write_text("\r\n".join(["Image Name,MOS", *(",".join(row) for row in test)]))
    return folder


def test_records_keep_names_scores_and_subsets(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    reader = Biq2021(root=folder)
    records = reader.records()
    assert (reader.card.name, reader.card.low, reader.card.high, reader.card.direction) == ("biq2021", 0, 1, "mos")
    assert [record.image for record in records] == [name for name, _ in ROWS]
    assert [record.path for record in records] == [folder / "Images" / name for name, _ in ROWS]
    assert [record.score for record in records] == [record.q for record in records] == [float(mos) for _, mos in ROWS]
    assert [record.subset for record in records[:4]] == ["ss02", "ss03", "ss01", "ss02"]
    assert {record.q_std for record in records} == {None}
    assert all(record.group == record.image for record in records)


def test_validation_comes_out_of_the_official_training_images(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    drawn = [[record.split for record in Biq2021(root=folder, val_share=0.2, split_seed=seed).records()] for seed in range(10)]
    assert all(Counter(splits[:10]) == {"train": 8, "val": 2} and set(splits[10:]) == {"test"} for splits in drawn)
    assert drawn[0] == [record.split for record in Biq2021(root=folder, val_share=0.2, test_share=0.5).records()]  # there is no test to draw
    assert len(set(map(tuple, drawn))) > 1


def test_a_random_split_mixes_both_files(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    drawn = [[record.split for record in Biq2021(root=folder, protocol="random", split_seed=seed).records()] for seed in range(10)]
    assert drawn[3] == split_by_group([name for name, _ in ROWS], val_share=0.1, test_share=0.2, seed=3)
    assert any("test" in splits[:10] for splits in drawn)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(IncompatibleChoice, match=r"data\.protocol=prompt is not known for biq2021: choose official, random\."):
        Biq2021(root="anywhere", protocol="prompt")


def test_the_folder_above_will_do_too(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    expected = Biq2021(root=folder).records()
    assert Biq2021(root=tmp_path).records() == expected
    folder.rename(tmp_path / "BIQ2021-main")
    assert [record.image for record in Biq2021(root=tmp_path).records()] == [record.image for record in expected]


def test_a_missing_label_file_is_answered_with_the_layout_and_the_source(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / FILES["test"]).unlink()
    message = r"(?s)BIQ2021 is not there \(Test \(Images and MOS\)\.csv is missing\).*Images/ss01 \(1\)\.jpg.*github\.com/nisarahmedrana/BIQ2021"
    with pytest.raises(DatasetNotFound, match=message):
        Biq2021(root=folder).records()


def test_a_missing_image_stops_with_its_row_or_is_left_to_the_check(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    before = Biq2021(root=folder).records()
    (folder / "Images" / "ss03 (2).jpg").unlink()
    with pytest.raises(BadRecord, match=r"Train \(Images and MOS\)\.csv, row 3: the image .*ss03 \(2\)\.jpg is missing.*data\.on_bad_image=skip"):
        Biq2021(root=folder).records()
    usable, skipped = check_images(Biq2021(root=folder, on_bad_image="skip").records(), "skip")
    assert usable == [record for record in before if record.image != "ss03 (2).jpg"]
    assert len(skipped) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("ss04 (1).jpg", "0.5"), r'Train \(Images and MOS\)\.csv, row 2: "ss04 \(1\)\.jpg" is no name of BIQ2021, such as "ss01 \(1726\)\.jpg"'),
        (("../ss01 (1).jpg", "0.5"), r'row 2: "\.\./ss01 \(1\)\.jpg" is no name of BIQ2021'),
        (("ss02 (1).jpg", "1.01"), r"row 2: score 1\.01 is not within the scale 0\.\.1 of biq2021"),
        (("ss02 (1).jpg", "nan"), r"row 2: score nan is not within the scale 0\.\.1 of biq2021"),
        (("ss02 (1).jpg", ""), r'row 2: "" in column MOS is not a number'),
        (("ss03 (2).jpg", "0.5"), r"row 3: the image ss03 \(2\)\.jpg stands in .*Train \(Images and MOS\)\.csv, row 2 already"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: tuple[str, str], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        Biq2021(root=write_release(tmp_path, train=[row, *TRAIN[1:]])).records()


def test_an_image_of_both_files_is_named(tmp_path: Path) -> None:
    message = r"Test \(Images and MOS\)\.csv, row 2: the image ss02 \(1\)\.jpg stands in .*Train \(Images and MOS\)\.csv, row 2 already"
    with pytest.raises(BadRecord, match=message):
        Biq2021(root=write_release(tmp_path, test=[TRAIN[0], *TEST])).records()


def test_truncated_label_files_are_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    file = folder / FILES["train"]
    file.write_text(file.read_text()[:-1])
    with pytest.raises(BadRecord, match=r"Train \(Images and MOS\)\.csv, row 11: 3 cells under a header of 4"):
        Biq2021(root=folder).records()
    file.write_text("Image Name,MO")
    with pytest.raises(BadRecord, match=r"Train \(Images and MOS\)\.csv: the file has no rows"):
        Biq2021(root=folder).records()


# the real label files


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("biq2021") / "BIQ2021"
    folder.mkdir()
    for file in FILES.values():
        shutil.copy(shared / "datasets" / "labels" / "biq2021" / file, folder)
        fill(folder / "Images", pd.read_csv(folder / file)["Image Name"])
    yield folder
    shutil.rmtree(folder)


def test_the_real_scores(real: Path) -> None:
    published = pd.concat(pd.read_csv(real / file)[["Image Name", "MOS"]] for file in FILES.values()).set_index("Image Name")["MOS"]
    records = Biq2021(root=real).records()
    scores, names = [record.score for record in records], [record.image for record in records]
    assert len(set(names)) == len({record.group for record in records}) == 12000
    assert Counter(record.split for record in records) == {"train": 9000, "val": 1000, "test": 2000}
    assert {record.image for record in records if record.split == "test"} == set(pd.read_csv(real / FILES["test"])["Image Name"])
    assert spearmanr([record.q for record in records], published.loc[names]).statistic == pytest.approx(1, abs=1e-12)
    assert (min(scores), max(scores)) == (0, 1)
    assert Counter(record.subset for record in records) == {"ss01": 2000, "ss02": 2000, "ss03": 8000}
