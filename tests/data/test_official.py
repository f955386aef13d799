"""What all official sets share, on a made-up one: protocols, splits without leaks, scales, repeated and missing images."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from releases import fill

from biqa.data.layout import Folder
from biqa.data.official import Entry, OfficialSet, Release
from biqa.data.record import Card, Record, Split
from biqa.data.survey import check_images
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice


class MadeUp(OfficialSet):
    """Ten references with three images each; the official split is by reference."""

    card = Card(name="madeup", low=1.0, high=5.0, direction="mos")
    protocols = ("reference", "official")
    release = Release(title="Made-up", folders=("madeup",), needs=("images",), layout="madeup/\n  images/*.png", source="https://example.org")

    def __init__(self, rows: Sequence[Entry], **options: Any) -> None:
        self.rows = list(rows)
        super().__init__(**options)

    def entries(self, folder: Folder) -> list[Entry]:
        assert (folder.path / "images").is_dir()
        return self.rows


class MadeUpDmos(MadeUp):
    card = Card(name="madeup", low=-10.0, high=90.0, direction="dmos")


ROWS = [
    Entry(where=f"labels.csv, row {3 * group + level + 2}", image=f"r{group}_{level}.png", file=f"images/r{group}_{level}.png", score=1.0 + level, group=f"r{group}",
          side="train" if group < 8 else "test")
    for group in range(10)
    for level in range(3)
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "madeup", [row.file for row in ROWS])
    return tmp_path


def sides_by_group(records: Sequence[Record]) -> dict[str, set[Split]]:
    sides: defaultdict[str, set[Split]] = defaultdict(set)
    for record in records:
        sides[record.group].add(record.split)
    return dict(sides)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(IncompatibleChoice, match=r"^data\.protocol=random is not known for madeup: choose reference, official\.$"):
        MadeUp(ROWS, root="anywhere", protocol="random")


def test_records_keep_the_order_and_what_the_entries_say(root: Path) -> None:
    rows = [replace(row, std=0.5, distortions=(("jpeg", 2),), attributes={"contrast": 3.0}, subset="a") for row in ROWS]
    records = MadeUp(rows, root=root).records()
    assert [record.image for record in records] == [row.image for row in ROWS]
    assert all(record.path == root / "madeup" / "images" / record.image for record in records)
    assert {(record.distortions, record.attributes["contrast"], record.subset) for record in records} == {((("jpeg", 2),), 3.0, "a")}
    assert check_images(records, "stop")[1] == []


def test_the_first_protocol_is_the_usual_one_and_draws_by_group(root: Path) -> None:
    records = MadeUp(ROWS, root=root, val_share=0.1, test_share=0.2).records()
    sides = sides_by_group(records)
    assert sorted(sorted(side) for side in sides.values()) == [["test"]] * 2 + [["train"]] * 7 + [["val"]]
    assert records != MadeUp(ROWS, root=root, split_seed=1).records()
    assert records == MadeUp(ROWS, root=root, split_seed=0, protocol="reference").records()


def test_a_published_split_keeps_its_test_side_and_validates_on_training_groups(root: Path) -> None:
    drawn = set()
    for seed in range(10):
        records = MadeUp(ROWS, root=root, protocol="official", split_seed=seed, val_share=0.25, test_share=0.9).records()
        sides = sides_by_group(records)
        assert all(len(side) == 1 for side in sides.values())
        assert {group for group, side in sides.items() if side == {"test"}} == {"r8", "r9"}
        val = frozenset(group for group, side in sides.items() if side == {"val"})
        assert len(val) == 2  # a quarter of the eight training groups
        drawn.add(val)
    assert len(drawn) > 1


def test_a_published_validation_side_is_kept(root: Path) -> None:
    rows = [replace(row, side="val") if row.group == "r3" else row for row in ROWS]
    records = MadeUp(rows, root=root, protocol="official", split_seed=4, val_share=0.5).records()
    assert [record.split for record in records] == [row.side for row in rows]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(st.text(max_size=2), min_size=30, max_size=30),
    test_groups=st.sets(st.text(max_size=2)),
    shares=st.tuples(st.floats(0, 0.4), st.floats(0, 0.5)),
)
@pytest.mark.parametrize("protocol", ["reference", "official"])
def test_no_group_lies_on_two_sides(root: Path, protocol: str, groups: list[str], test_groups: set[str], shares: tuple[float, float]) -> None:
    rows = [replace(row, group=group, side="test" if group in test_groups else "train") for row, group in zip(ROWS, groups, strict=True)]
    for seed in range(10):
        records = MadeUp(rows, root=root, protocol=protocol, split_seed=seed, val_share=shares[0], test_share=shares[1]).records()
        assert [record.group for record in records] == groups
        sides = sides_by_group(records)
        assert all(len(side) == 1 for side in sides.values())
        if protocol == "official":
            assert {group for group, side in sides.items() if side == {"test"}} == test_groups & set(groups)


def test_shares_that_leave_nothing_are_refused(root: Path) -> None:
    with pytest.raises(IncompatibleChoice, match=r"data\.val_share=0\.5 and data\.test_share=0\.5"):
        MadeUp(ROWS, root=root, val_share=0.5, test_share=0.5).records()


def test_higher_is_better_or_worse_and_the_deviation_follows_the_scale(root: Path) -> None:
    rows = [replace(row, std=1.2) for row in ROWS]
    mos = MadeUp(rows, root=root).records()
    assert [record.q for record in mos[:3]] == [0.0, 0.25, 0.5]
    assert [record.score for record in mos[:3]] == [1.0, 2.0, 3.0]
    assert {record.q_std for record in mos} == {1.2 / 4}
    dmos = MadeUpDmos([replace(row, score=score, std=20.0) for row, score in zip(ROWS, [-10.0, 0.0, 90.0] * 10, strict=True)], root=root).records()
    assert [record.q for record in dmos[:3]] == pytest.approx([1.0, 0.9, 0.0])
    assert {record.q_std for record in dmos} == {0.2}
    assert {record.q_std for record in MadeUp(ROWS, root=root).records()} == {None}


@pytest.mark.parametrize("score", [0.99, 5.01, -1.0, float("nan"), float("inf")])
def test_a_score_off_the_scale_is_named_with_its_row(root: Path, score: float) -> None:
    rows = [*ROWS[:7], replace(ROWS[7], score=score), *ROWS[8:]]
    with pytest.raises(BadRecord, match=rf"^labels\.csv, row 9: score {score} is not within the scale 1\.\.5 of madeup\."):
        MadeUp(rows, root=root).records()


@pytest.mark.parametrize("std", [-0.1, 4.5, float("nan"), float("inf")])
def test_a_deviation_that_cannot_be_is_named_with_its_row(root: Path, std: float) -> None:
    rows = [*ROWS[:7], replace(ROWS[7], std=std), *ROWS[8:]]
    text = rf"^labels\.csv, row 9: a standard deviation of {std:g} cannot be on the scale 1\.\.5 of madeup\. Use the label file of the release\.$"
    with pytest.raises(BadRecord, match=text):
        MadeUp(rows, root=root).records()


def test_an_image_that_stands_twice_is_named_with_both_rows(root: Path) -> None:
    again = replace(ROWS[4], where="labels.csv, row 32", score=3.5)
    text = r"^labels\.csv, row 32: the image r1_1\.png stands in labels\.csv, row 6 already\. Use the label file of the release\.$"
    with pytest.raises(BadRecord, match=text):
        MadeUp([*ROWS, again], root=root).records()


@pytest.mark.parametrize("missing", [False, True])
def test_two_names_of_one_file_are_refused_so_that_no_image_lies_on_two_sides(root: Path, missing: bool) -> None:
    again = replace(ROWS[4], where="labels.csv, row 32", image="R1_1.PNG", file="images/R1_1.PNG", group="R1")
    if missing:  # on disk only under the other name
        (root / "madeup" / "images" / "r1_1.png").rename(root / "madeup" / "images" / "R1_1.PNG")
    with pytest.raises(BadRecord, match=r"^labels\.csv, row 32: the image R1_1\.PNG stands in labels\.csv, row 6 already\."):
        MadeUp([*ROWS, again], root=root).records()


def test_names_that_differ_in_capitals_are_two_images_where_both_files_are_there(root: Path) -> None:
    other = replace(ROWS[4], where="labels.csv, row 32", image="R1_1.PNG", file="images/R1_1.PNG")
    fill(root / "madeup", [other.file])
    records = MadeUp([*ROWS, other], root=root).records()
    assert [record.path.name for record in records if record.image.lower() == "r1_1.png"] == ["r1_1.png", "R1_1.PNG"]


def test_a_missing_image_stops_with_its_row_or_is_left_to_the_check(root: Path) -> None:
    whole = MadeUp(ROWS, root=root).records()
    file = root / "madeup" / "images" / "r2_0.png"
    file.unlink()
    with pytest.raises(BadRecord) as error:
        MadeUp(ROWS, root=root).records()
    assert str(error.value) == (
        f"labels.csv, row 8: the image {file} is missing. Unpack the release again, or set data.on_bad_image=skip to leave such images out."
    )
    usable, skipped = check_images(MadeUp(ROWS, root=root, on_bad_image="skip").records(), "skip")
    assert usable == [record for record in whole if record.image != "r2_0.png"]  # the others keep their sides
    assert skipped == [f"Image r2_0.png (row 7 of 30): {file}: there is no such file."]


def test_a_folder_in_place_of_an_image_is_missing_too(root: Path) -> None:
    file = root / "madeup" / "images" / "r2_0.png"
    file.unlink()
    file.mkdir()
    with pytest.raises(BadRecord, match=r"row 8: the image .*r2_0\.png is missing"):
        MadeUp(ROWS, root=root).records()


@pytest.mark.parametrize("file", ["/etc/passwd", "//etc/passwd", "../x.png", "C:\\x.png"])
@pytest.mark.parametrize("on_bad_image", ["stop", "skip"])
def test_a_name_that_leads_out_stops_also_where_bad_images_are_skipped(root: Path, file: str, on_bad_image: Any) -> None:
    rows = [*ROWS, replace(ROWS[0], where="labels.csv, row 32", image="x", file=file)]
    with pytest.raises(BadRecord, match=r'^labels\.csv, row 32: ".*" leads out of .*madeup\. Names must be relative'):
        MadeUp(rows, root=root, on_bad_image=on_bad_image).records()


def test_a_missing_release_is_answered_with_its_layout(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetNotFound, match=r"(?s)^.*: Made-up is not there \(images is missing\)\..*madeup/\n  images/\*\.png\nSource: https://example\.org$"
    ):
        MadeUp(ROWS, root=tmp_path).records()
