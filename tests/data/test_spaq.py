"""SPAQ: a tiny copy of its layout, and the real workbook where there is one."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from openpyxl import Workbook
from releases import fill
from scipy.stats import spearmanr

from biqa.data.record import Record
from biqa.data.spaq import SCORES, Spaq
from biqa.data.survey import check_images
from biqa.data.targets import AttributeTargets
from biqa.errors import BadRecord, DatasetNotFound
from biqa.language.features import parse
from biqa.language.leak import find_leak

COLUMNS = ("Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness")
ROWS = [[f"{number:05}.jpg", 2 + 9.4 * number, 50.5 + number, 40 - number, 30 + number, 10.0 * number, 5.0 * number] for number in range(1, 11)]


def write_release(place: Path, rows: Sequence[Sequence[object]] = ROWS, columns: Sequence[str] = COLUMNS, sheet: str = "Sheet1") -> Path:
    folder = place / "SPAQ"
    fill(folder / "TestImage", [str(row[0]) for row in ROWS])
    (folder / "Annotations").mkdir()
    workbook = Workbook()
    workbook.active.title = sheet
    for line in (columns, *rows):
        workbook.active.append(list(line))
    workbook.save(folder / SCORES)
    return folder


def changed(column: str, value: object) -> list[list[object]]:
    """The rows with another value in the first one."""
    return [[value if name == column else cell for name, cell in zip(COLUMNS, ROWS[0], strict=True)], *ROWS[1:]]


def test_records_keep_names_and_scores(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    reader = Spaq(root=folder)
    records = reader.records()
    assert (reader.card.name, reader.card.low, reader.card.high, reader.card.direction) == ("spaq", 0, 100, "mos")
    assert [record.image for record in records] == [row[0] for row in ROWS]
    assert [record.path for record in records] == [folder / "TestImage" / str(row[0]) for row in ROWS]
    assert [record.score for record in records] == pytest.approx([row[1] for row in ROWS])
    assert [record.q for record in records] == pytest.approx([row[1] / 100 for row in ROWS])
    assert {record.q_std for record in records} == {None}
    assert all(record.group == record.image for record in records)


def test_noisiness_is_turned_round(tmp_path: Path) -> None:
    records = Spaq(root=write_release(tmp_path)).records()
    assert records[0].attributes == pytest.approx({"brightness": 51.5, "colourfulness": 39, "contrast": 31, "sharpness": 5, "noise": 90})
    targets = AttributeTargets()
    targets.fit(records)
    assert targets.describe(records[0]).features["noise"] == 4  # the lowest Noisiness is the most noise
    assert targets.describe(records[-1]).features["noise"] == 0


def test_the_seed_draws_the_split(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    splits = [[record.split for record in Spaq(root=folder, split_seed=seed).records()] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert Counter(splits[0]) == {"train": 7, "val": 1, "test": 2}


@pytest.mark.parametrize("above", ["SPAQ", "SPAQ/Dataset", "Dataset", "spaq/dataset"])
def test_the_folders_above_will_do_too(tmp_path: Path, above: str) -> None:
    folder = write_release(tmp_path / "unpacked")
    (tmp_path / "data" / above).parent.mkdir(parents=True)
    folder.rename(tmp_path / "data" / above)
    for root in (tmp_path / "data" / above, tmp_path / "data"):
        assert Spaq(root=root).records()[0].path == tmp_path / "data" / above / "TestImage" / "00001.jpg"


def test_a_missing_folder_is_answered_with_the_layout_and_the_source(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    shutil.rmtree(folder / "Annotations")
    message = r"(?s)SPAQ is not there \(Annotations/MOS and Image attribute scores\.xlsx is missing.*SPAQ/\n  TestImage/\*\.jpg.*zip -FF SPAQ\.zip"
    for root in (folder, tmp_path):
        with pytest.raises(DatasetNotFound, match=message):
            Spaq(root=root).records()


def test_an_archive_is_answered_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "SPAQ.zip").touch()
    with pytest.raises(DatasetNotFound, match=r"SPAQ\.zip: this is a file\..*Unpack it \(unzip SPAQ\.zip\) and set data\.root= to the folder"):
        Spaq(root=tmp_path / "SPAQ.zip").records()


def test_a_missing_image_stops_with_its_row_or_is_left_to_the_check(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "TestImage" / "00003.jpg").unlink()
    with pytest.raises(BadRecord, match=r'scores\.xlsx, sheet "Sheet1", row 4: the image .*00003\.jpg is missing.*data\.on_bad_image=skip'):
        Spaq(root=folder).records()
    usable, skipped = check_images(Spaq(root=folder, on_bad_image="skip").records(), "skip")
    assert (len(usable), len(skipped)) == (9, 1)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("MOS", 100.5, r'sheet "Sheet1", row 2: score 100\.5 is not within the scale 0\.\.100 of spaq'),
        ("MOS", "nan", r"row 2: score nan is not within the scale"),
        ("MOS", "48,86", r'row 2: "48,86" in column MOS is not a number\. Write a decimal point'),
        ("MOS", None, r'row 2: "" in column MOS is not a number\. Correct it, or take the row out'),
        ("Noisiness", "low", r'row 2: "low" in column Noisiness is not a number'),
        ("Image name", "00002.jpg", r"row 3: the image 00002\.jpg stands in .*row 2 already"),
        ("Image name", "../../00001.jpg", r'row 2: "TestImage/\.\./\.\./00001\.jpg" leads out of .*SPAQ\. Names must be relative'),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, column: str, value: object, message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        Spaq(root=write_release(tmp_path, changed(column, value))).records()


def test_another_sheet_or_other_columns_are_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r'scores\.xlsx: there is no sheet "Sheet1"; found Tabelle1\. Use the file of the release'):
        Spaq(root=write_release(tmp_path / "sheet", sheet="Tabelle1")).records()
    columns = [name.replace("Noisiness", "Noise") for name in COLUMNS]
    with pytest.raises(
        DatasetNotFound, match=r'sheet "Sheet1", row 1: no column Noisiness; found Image name, MOS, .*Noise, Sharpness\. Use the file'
    ):
        Spaq(root=write_release(tmp_path / "columns", columns=columns)).records()


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_workbook_is_named(tmp_path: Path, share: float) -> None:
    folder = write_release(tmp_path)
    content = (folder / SCORES).read_bytes()
    (folder / SCORES).write_bytes(content[: int(share * len(content))])
    with pytest.raises(BadRecord, match=r"attribute scores\.xlsx: cannot be read as a workbook .*Unpack or download it again"):
        Spaq(root=folder).records()


# the real workbook


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Record]]:
    folder = tmp_path_factory.mktemp("spaq") / "SPAQ"
    (folder / "Annotations").mkdir(parents=True)
    shutil.copy(shared / "datasets" / "labels" / "spaq" / SCORES, folder / SCORES)
    fill(folder / "TestImage", [f"{number:05}.jpg" for number in range(1, 11126)])
    yield Spaq(root=folder).records()
    shutil.rmtree(folder)


def test_the_real_scores(real: list[Record], shared: Path) -> None:
    published = pd.read_excel(shared / "datasets" / "labels" / "spaq" / SCORES).set_index("Image name")
    names = [record.image for record in real]
    scores = [record.score for record in real]
    assert Counter(record.split for record in real) == {"train": 7788, "val": 1112, "test": 2225}
    assert len(set(names)) == len({record.group for record in real}) == 11125
    assert spearmanr([record.q for record in real], published.loc[names, "MOS"]).statistic == pytest.approx(1, abs=1e-12)
    assert (min(scores), max(scores)) == pytest.approx((2, 96), abs=0.005)
    noise = spearmanr([record.q for record in real], [record.attributes["noise"] for record in real]).statistic
    assert noise == pytest.approx(-0.893, abs=5e-4)  # the noisier, the worse


def test_every_real_image_has_a_description(real: list[Record]) -> None:
    targets = AttributeTargets(seed=0)
    targets.fit([record for record in real if record.split == "train"])
    said = [targets.describe(record) for record in real]
    assert {tuple(sorted(d.features)) for d in said} == {("brightness", "colourfulness", "contrast", "noise", "sharpness")}
    assert all(parse(description.text) == description.features for description in said)
    assert not any(find_leak(description.text) for description in said)
    strongest = [record.q for record, d in zip(real, said, strict=True) if d.features["noise"] == 4]
    weakest = [record.q for record, d in zip(real, said, strict=True) if d.features["noise"] == 0]
    assert sum(strongest) / len(strongest) < 0.3 < 0.7 < sum(weakest) / len(weakest)
