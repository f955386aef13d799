"""CSIQ: a made-up copy of its layout, and the real workbook where there is one."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook, load_workbook
from releases import fill
from scipy.stats import spearmanr

from biqa.data.csiq import TYPES, Csiq
from biqa.data.record import Record
from biqa.data.survey import check_images
from biqa.errors import BadRecord, DatasetNotFound
from biqa.language.features import FEATURES

REFERENCES = [1600, "woman", "aerial_city"]
HEADER = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
WORDS = {"noise": "AWGN", "blur": "BLUR", "contrast": "contrast", "fnoise": "fnoise", "jpeg": "JPEG", "jpeg 2000": "jpeg2000"}
ROWS = [
    [reference, index, kind, level, 0.1, round(level / 6 + index / 100, 3)]
    for reference in REFERENCES
    for index, kind in enumerate(WORDS, start=1)
    for level in range(1, 5 if kind == "contrast" else 6)
]
"""As the workbook has them: 29 levels for each reference."""


def names(rows: Sequence[Sequence[object]] = ROWS) -> list[str]:
    return [f"{row[0]}.{WORDS[str(row[2])]}.{row[3]}.png" for row in rows]


def write_workbook(file: Path, rows: Sequence[Sequence[object]] = ROWS) -> None:
    """The official form: other sheets first, the header in row 4, columns D to I."""
    workbook = Workbook()
    workbook.create_sheet("realign").append(HEADER)
    sheet = workbook.create_sheet("all_by_image")
    for _ in range(3):
        sheet.append([])
    for row in [HEADER, *rows]:
        sheet.append([None, None, None, *row])
    file.parent.mkdir(parents=True, exist_ok=True)
    workbook.save(file)


def write_release(place: Path, rows: Sequence[Sequence[object]] = ROWS) -> Path:
    """Folders of images in lower case, the types in the names as published."""
    folder = place / "CSIQ"
    fill(folder / "dst_imgs", [f"{name.split('.')[1].lower()}/{name}" for name in names()])
    write_workbook(folder / "csiq.DMOS.xlsx", rows)
    return folder


def test_records(tmp_path: Path) -> None:
    records = Csiq(root=write_release(tmp_path)).records()
    assert [record.image for record in records] == names()
    assert [record.score for record in records] == [row[5] for row in ROWS]
    assert [record.q for record in records] == pytest.approx([1 - row[5] for row in ROWS])
    assert {record.q_std for record in records} == {0.1}
    assert {record.group for record in records} == {"1600", "woman", "aerial_city"}
    assert check_images(records, "stop")[1] == []


def test_the_reference_that_is_a_number_and_the_type_with_a_space(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    assert load_workbook(folder / "csiq.DMOS.xlsx")["all_by_image"]["D5"].value == 1600  # not the text
    records = {record.image: record for record in Csiq(root=folder).records()}
    record = records["1600.jpeg2000.3.png"]
    assert record.group == "1600"
    assert record.path == folder / "dst_imgs" / "jpeg2000" / "1600.jpeg2000.3.png"
    assert record.distortions == (("jpeg2000", 3),)


def test_every_type_has_a_wording(tmp_path: Path) -> None:
    records = Csiq(root=write_release(tmp_path)).records()
    types = {record.image.split(".")[1]: record.distortions[0][0] for record in records}
    assert types == {
        "AWGN": "white_noise", "BLUR": "gaussian_blur", "contrast": "contrast_loss", "fnoise": "pink_noise", "JPEG": "jpeg", "jpeg2000": "jpeg2000",
    }  # fmt: skip
    assert set(types.values()) <= set(FEATURES)
    assert all(record.distortions[0][1] == int(record.image.split(".")[2]) for record in records)


def test_folders_and_names_in_other_case_and_the_parent_will_do(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "dst_imgs" / "awgn").rename(folder / "dst_imgs" / "AWGN")
    (folder / "dst_imgs" / "jpeg2000").rename(folder / "dst_imgs" / "JPEG2000")
    (folder / "dst_imgs" / "blur" / "woman.BLUR.1.png").rename(folder / "dst_imgs" / "blur" / "woman.blur.1.PNG")
    (folder / "csiq.DMOS.xlsx").rename(folder / "CSIQ.dmos.xlsx")
    folder.rename(tmp_path / "csiq")
    records = Csiq(root=tmp_path).records()
    assert [record.image for record in records] == names()
    assert all(record.path.is_file() for record in records)


def test_a_missing_workbook_is_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "csiq.DMOS.xlsx").unlink()
    with pytest.raises(DatasetNotFound, match=r"CSIQ/csiq\.DMOS\.xlsx: there is no such file"):
        Csiq(root=folder).records()


def test_a_missing_folder_is_answered_with_the_layout(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"(?s)CSIQ is not there \(dst_imgs is missing\)\..*csiq\.DMOS\.xlsx\nSource: https://s2\.smu\.edu"):
        Csiq(root=tmp_path).records()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "dst_type",
            "flicker",
            r', column dst_type: "flicker" is not one of noise, blur, contrast, fnoise, jpeg, jpeg 2000\. Use the workbook of the release\.$',
        ),
        ("dst_lev", 2.5, r': "2\.5" in column dst_lev is not a whole number'),
        ("dst_lev", 6, r", column dst_lev: 6 is not a level 1\.\.5\. Use the workbook of the release\.$"),
        ("dst_lev", 0, r", column dst_lev: 0 is not a level 1\.\.5\."),
        ("dmos", "0,31", r': "0,31" in column dmos is not a number\. Write a decimal point'),
        ("dmos", None, r': "" in column dmos is not a number'),
        ("dmos", 1.01, r": score 1\.01 is not within the scale 0\.\.1 of csiq"),
        ("dmos_std", -0.1, r": a standard deviation of -0\.1 cannot be on the scale 0\.\.1 of csiq"),
        ("image", "man", r": the image .*man\.AWGN\.3\.png is missing"),
        ("image", "../woman", r': "dst_imgs/AWGN/\.\./woman\.AWGN\.3\.png" leads out of'),
    ],
)
def test_a_row_that_cannot_be_is_named(tmp_path: Path, column: str, value: object, message: str) -> None:
    rows = [list(row) for row in ROWS]
    rows[2][HEADER.index(column)] = value
    with pytest.raises(BadRecord, match=rf'csiq\.DMOS\.xlsx, sheet "all_by_image", row 7{message}'):
        Csiq(root=write_release(tmp_path, rows)).records()


def test_a_row_that_stands_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match=r'row 92: the image woman\.AWGN\.1\.png stands in .*sheet "all_by_image", row 34 already'):
        Csiq(root=write_release(tmp_path, [*ROWS, ROWS[29]])).records()


@pytest.fixture
def real(shared: Path, tmp_path: Path) -> Path:
    """The real workbook, under the name that it has in the repository it came from, with images around it."""
    labels = shared / "datasets/labels/csiq"
    listed = [line.split()[0] for line in (labels / "csiq_label.txt").read_text().splitlines()]
    fill(tmp_path / "dst_imgs", [f"{name.split('.')[1].lower()}/{name}" for name in listed])
    (tmp_path / "csiq.beta.xlsx").write_bytes((labels / "csiq.beta.xlsx").read_bytes())
    return tmp_path


def by_level(records: Sequence[Record]) -> list[float]:
    """Mean q of the levels that are there, 1 first."""
    levels = sorted({record.distortions[0][1] for record in records})
    return [float(np.mean([record.q for record in records if record.distortions[0][1] == level])) for level in levels]


def test_real_labels(real: Path, shared: Path) -> None:
    records = Csiq(root=real).records()
    assert len(records) == 866
    assert Counter(record.distortions[0][0] for record in records) == {name: 116 if name == "contrast_loss" else 150 for _, name in TYPES.values()}
    assert len({record.group for record in records}) == 30
    listed = dict(line.split() for line in (shared / "datasets/labels/csiq/csiq_label.txt").read_text().splitlines())
    assert {record.image: record.score for record in records} == pytest.approx({name: float(score) for name, score in listed.items()}, abs=1e-5)
    assert (min(record.score for record in records), max(record.score for record in records)) == (0, 1)
    assert spearmanr([record.q for record in records], [-record.score for record in records]).statistic == pytest.approx(1.0, abs=1e-12)
    assert max(record.q_std for record in records) == pytest.approx(0.391, abs=5e-4)
    assert min(record.q_std for record in records) >= 0


def test_real_quality_falls_with_the_level(real: Path) -> None:
    records = Csiq(root=real).records()
    for kind in [None, *(name for _, name in TYPES.values())]:
        means = by_level([record for record in records if kind in (None, record.distortions[0][0])])
        assert means == sorted(means, reverse=True)


def test_real_references_lie_on_one_side_over_ten_seeds(real: Path) -> None:
    for seed in range(10):
        sides = {(record.group, record.split) for record in Csiq(root=real, split_seed=seed).records()}
        assert Counter(side for _, side in sides) == {"train": 21, "val": 3, "test": 6}
