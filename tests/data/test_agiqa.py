"""AGIQA-3K: a tiny copy of its layout, and the real label file where there is one."""

import csv
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from releases import fill
from scipy.stats import spearmanr

from biqa.data.agiqa import Agiqa
from biqa.data.record import Record
from biqa.data.survey import check_images
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice

COLUMNS = ("name", "prompt", "adj1", "adj2", "style", "mos_quality", "std_quality", "mos_align", "std_align")
ROWS = [
    (f"{generator}_normal_{number:03}.jpg", f"statue of a man, {number}", "", "", "", 0.5 * number + offset, 0.5, 5 - 0.5 * number, 9)
    for number in range(8)
    for generator, offset in (("AttnGAN", 0.0), ("sd1.5", 0.25))
]
NAMES = [row[0] for row in ROWS]


def write_release(place: Path, rows: Sequence[Sequence[object]] = ROWS, columns: Sequence[str] = COLUMNS, images: str = "") -> Path:
    """data.csv, with commas inside prompts, and the images below the folder `images`."""
    folder = place / "AGIQA-3K"
    fill(folder / images, NAMES)
    with (folder / "data.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows([columns, *rows])
    return folder


def changed(column: str, value: object) -> list[tuple[object, ...]]:
    """The rows with another value in the first one."""
    return [tuple(value if name == column else cell for name, cell in zip(COLUMNS, ROWS[0], strict=True)), *ROWS[1:]]


def mixed(records: Sequence[Record], group_of: dict[str, str]) -> list[str]:
    """Groups that lie in several splits."""
    sides: dict[str, set[str]] = {}
    for record in records:
        sides.setdefault(group_of[record.image], set()).add(record.split)
    return [group for group, splits in sides.items() if len(splits) > 1]


PROMPTS = {str(row[0]): str(row[1]) for row in ROWS}


def test_records_have_the_quality_and_not_the_alignment(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    reader = Agiqa(root=folder)
    records = reader.records()
    assert (reader.card.name, reader.card.low, reader.card.high, reader.card.direction) == ("agiqa", 0, 5, "mos")
    assert [record.image for record in records] == NAMES
    assert [record.path for record in records] == [folder / name for name in NAMES]
    assert [record.score for record in records] == [row[5] for row in ROWS]  # the alignment runs the other way
    assert [record.q for record in records] == pytest.approx([row[5] / 5 for row in ROWS])
    assert {record.q_std for record in records} == {0.1}


def test_the_alignment_need_not_be_there(tmp_path: Path) -> None:
    rows = [row[:7] for row in ROWS]
    assert len(Agiqa(root=write_release(tmp_path, rows, COLUMNS[:7])).records()) == 16


def test_prompts_are_groups_where_the_split_is_by_prompt(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    drawn = [Agiqa(root=folder, protocol="prompt", split_seed=seed).records() for seed in range(10)]
    assert [record.group for record in drawn[0]] == [row[1] for row in ROWS]
    assert not any(mixed(records, PROMPTS) for records in drawn)
    assert all(Counter(record.split for record in records) == {"train": 10, "val": 2, "test": 4} for records in drawn)
    assert len({tuple(record.split for record in records) for records in drawn}) > 1


def test_a_random_split_is_by_image_and_parts_prompts(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    drawn = [Agiqa(root=folder, split_seed=seed).records() for seed in range(10)]
    assert [record.group for record in drawn[0]] == NAMES
    assert any(mixed(records, PROMPTS) for records in drawn)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(IncompatibleChoice, match=r"data\.protocol=official is not known for agiqa: choose random, prompt\."):
        Agiqa(root="anywhere", protocol="official")


@pytest.mark.parametrize("images", ["", "images", "AGIQA-3K"])
def test_the_images_may_lie_beside_the_labels_or_below(tmp_path: Path, images: str) -> None:
    folder = write_release(tmp_path, images=images)
    assert [record.path for record in Agiqa(root=folder).records()] == [folder / images / name for name in NAMES]
    assert Agiqa(root=tmp_path).records() == Agiqa(root=folder).records()


@pytest.mark.parametrize("name", ["AGIQA-3k-Database", "AGIQA-3k-Database-main"])
def test_the_folder_of_the_repository_is_known_by_name(tmp_path: Path, name: str) -> None:
    write_release(tmp_path).rename(tmp_path / name)
    assert Agiqa(root=tmp_path).records()[0].path == tmp_path / name / NAMES[0]


def test_a_missing_folder_is_answered_with_the_layout_and_the_source(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetNotFound, match=r"(?s)AGIQA-3K is not there \(data\.csv is missing\).*AttnGAN_normal_000\.jpg, .*github\.com/lcysyzxdxc"
    ):
        Agiqa(root=tmp_path).records()


def test_a_missing_image_stops_with_its_row_or_is_left_to_the_check(tmp_path: Path) -> None:
    folder = write_release(tmp_path, images="images")
    before = Agiqa(root=folder).records()
    (folder / "images" / NAMES[0]).unlink()  # the first one does not decide where the others are looked for
    with pytest.raises(BadRecord, match=r"data\.csv, row 2: the image .*AttnGAN_normal_000\.jpg is missing.*data\.on_bad_image=skip"):
        Agiqa(root=folder).records()
    usable, skipped = check_images(Agiqa(root=folder, on_bad_image="skip").records(), "skip")
    assert usable == before[1:]
    assert len(skipped) == 1


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("mos_quality", "5.2", r"data\.csv, row 2: score 5\.2 is not within the scale 0\.\.5 of agiqa"),
        ("mos_quality", "nan", r"row 2: score nan is not within the scale 0\.\.5"),
        ("mos_quality", "", r'row 2: "" in column mos_quality is not a number'),
        ("std_quality", "nan", r"row 2: a standard deviation of nan cannot be on the scale 0\.\.5 of agiqa"),
        ("name", NAMES[1], r"row 3: the image sd1\.5_normal_000\.jpg stands in .*data\.csv, row 2 already"),
        ("name", "../secret.jpg", r'data\.csv, row 2: "\.\./secret\.jpg" leads out of .*AGIQA-3K\. Names must be relative to that folder'),
        ("name", "/etc/secret.jpg", r'row 2: "/etc/secret\.jpg" leads out of'),
        ("name", "", r"row 2: there is an empty name\. Correct the row"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        Agiqa(root=write_release(tmp_path, changed(column, value))).records()


def test_a_truncated_label_file_is_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    whole = (folder / "data.csv").read_text()
    (folder / "data.csv").write_text(whole[: whole.rindex(",")])
    with pytest.raises(BadRecord, match=r"data\.csv, row 17: 8 cells under a header of 9"):
        Agiqa(root=folder).records()
    (folder / "data.csv").write_text("<!DOCTYPE html>\n<html>\n")
    with pytest.raises(DatasetNotFound, match=r"data\.csv, row 2: no column name, prompt, mos_quality, std_quality; found <!DOCTYPE html>"):
        Agiqa(root=folder).records()


# the real label file


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("agiqa") / "AGIQA-3K"
    folder.mkdir()
    shutil.copy(shared / "datasets" / "labels" / "agiqa3k" / "data.csv", folder)
    fill(folder, pd.read_csv(folder / "data.csv")["name"])
    yield folder
    shutil.rmtree(folder)


def test_the_real_scores(real: Path) -> None:
    published = pd.read_csv(real / "data.csv").set_index("name")
    records = Agiqa(root=real).records()
    scores, names = [record.score for record in records], [record.image for record in records]
    deviations = [5 * record.q_std for record in records]
    assert len(set(names)) == 2982
    assert Counter(record.split for record in records) == {"train": 2088, "val": 298, "test": 596}
    assert spearmanr([record.q for record in records], published.loc[names, "mos_quality"]).statistic == pytest.approx(1, abs=1e-12)
    assert (min(scores), max(scores)) == pytest.approx((0, 4.489), abs=5e-4)
    assert (min(deviations), max(deviations)) == pytest.approx((0.108, 1.452), abs=5e-4)
    generators = Counter(name.split("_")[0] for name in names)
    assert generators == {"sd1.5": 1200, "midjourney": 592, "AttnGAN": 300, "glide": 300, "xl2.2": 300, "DALLE2": 290}


def test_no_real_prompt_is_on_two_sides(real: Path) -> None:
    prompts = pd.read_csv(real / "data.csv").set_index("name")["prompt"].to_dict()
    for seed in range(10):
        records = Agiqa(root=real, protocol="prompt", split_seed=seed).records()
        assert mixed(records, prompts) == []
        groups = {split: {record.group for record in records if record.split == split} for split in ("train", "val", "test")}
        assert {split: len(found) for split, found in groups.items()} == {"train": 210, "val": 30, "test": 60}
