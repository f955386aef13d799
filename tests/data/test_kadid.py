"""KADID-10k: a tiny copy of its layout, and the real scores where there are any."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from releases import fill
from scipy.stats import spearmanr

from biqa.data.kadid import Kadid
from biqa.data.layout import Folder
from biqa.data.record import Record
from biqa.data.survey import check_images
from biqa.data.targets import DistortionTargets
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice
from biqa.language.features import KADID_DISTORTIONS, parse
from biqa.language.leak import find_leak

REFERENCES = (1, 2, 3, 4, 30, 64, 65, 66, 80, 81)
ROWS = [
    (f"I{reference:02}_{kind:02}_{level:02}.png", f"I{reference:02}.png", 5.25 - 0.75 * level - kind / 100, 0.5)
    for reference in REFERENCES
    for kind in (1, 10, 25)
    for level in (1, 5)
]


def write_release(place: Path, rows: Sequence[Sequence[object]] = ROWS, columns: str = "dist_img,ref_img,dmos,var") -> Path:
    """The official layout: references beside their distortions, one csv."""
    folder = place / "kadid10k"
    fill(folder / "images", [*(row[0] for row in ROWS), *(f"I{reference:02}.png" for reference in REFERENCES)])
    (folder / "dmos.csv").write_text("\n".join([columns, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return folder


def sides(records: Sequence[Record]) -> dict[str, set[str]]:
    """Group -> splits it lies in."""
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(record.group, set()).add(record.split)
    return found


def test_the_column_dmos_is_higher_for_better(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    reader = Kadid(root=folder)
    records = reader.records()
    assert (reader.card.name, reader.card.low, reader.card.high, reader.card.direction) == ("kadid", 1, 5, "mos")
    assert [record.image for record in records] == [row[0] for row in ROWS]
    assert [record.path for record in records] == [folder / "images" / row[0] for row in ROWS]
    assert [record.score for record in records] == pytest.approx([row[2] for row in ROWS])
    assert [record.q for record in records] == pytest.approx([(row[2] - 1) / 4 for row in ROWS])
    assert {record.q_std for record in records} == {0.125}
    assert [record.group for record in records] == [row[1] for row in ROWS]


def test_the_column_var_is_a_standard_deviation(tmp_path: Path) -> None:
    published = ("I01_01_01.png", "I01.png", 4.57, 0.496)  # the first row of the release
    record = Kadid(root=write_release(tmp_path, [published, *ROWS[1:]])).records()[0]
    ratings = [5] * 17 + [4] * 13
    assert (record.q, record.q_std) == pytest.approx(((np.mean(ratings) - 1) / 4, np.std(ratings) / 4), abs=0.001)


def test_type_and_level_come_from_the_name(tmp_path: Path) -> None:
    records = Kadid(root=write_release(tmp_path)).records()
    assert [record.distortions for record in records[:6]] == [
        ((kind, level),) for kind in ("gaussian_blur", "jpeg", "contrast_change") for level in (1, 5)
    ]


@pytest.mark.parametrize("protocol", ["reference", "q-align"])
def test_no_reference_is_on_two_sides(tmp_path: Path, protocol: str) -> None:
    folder = write_release(tmp_path)
    drawn = [sides(Kadid(root=folder, protocol=protocol, split_seed=seed).records()) for seed in range(10)]
    assert all(len(splits) == 1 for groups in drawn for splits in groups.values())
    assert len({tuple(sorted(splits)[0] for splits in groups.values()) for groups in drawn}) > 1
    counts = {"reference": {"train": 7, "val": 1, "test": 2}, "q-align": {"train": 6, "val": 1, "test": 3}}[protocol]
    assert all(Counter(split for splits in groups.values() for split in splits) == counts for groups in drawn)


def test_q_align_tests_on_the_last_references(tmp_path: Path) -> None:
    found = sides(Kadid(root=write_release(tmp_path), protocol="q-align").records())
    assert [group for group, splits in found.items() if splits == {"test"}] == ["I66.png", "I80.png", "I81.png"]


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(IncompatibleChoice, match=r"data\.protocol=random is not known for kadid: choose reference, q-align\."):
        Kadid(root="anywhere", protocol="random")


def test_the_folder_above_and_any_case_will_do_too(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    expected = [record.image for record in Kadid(root=folder).records()]
    folder.rename(tmp_path / "KADID10K")
    (tmp_path / "KADID10K" / "images").rename(tmp_path / "KADID10K" / "Images")
    assert [record.image for record in Kadid(root=tmp_path).records()] == expected


def test_a_missing_folder_is_answered_with_the_layout_and_the_source(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "dmos.csv").unlink()
    with pytest.raises(
        DatasetNotFound, match=r"(?s)KADID-10k is not there \(dmos\.csv is missing\).*kadid10k/\n  images/I01_01_01\.png.*mmsp-kn\.de"
    ):
        Kadid(root=folder).records()


def test_a_missing_image_stops_with_its_row_or_is_left_to_the_check(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    before = Kadid(root=folder).records()
    (folder / "images" / "I01_10_01.png").unlink()
    with pytest.raises(BadRecord, match=r"dmos\.csv, row 4: the image .*I01_10_01\.png is missing.*data\.on_bad_image=skip"):
        Kadid(root=folder).records()
    usable, skipped = check_images(Kadid(root=folder, on_bad_image="skip").records(), "skip")
    assert usable == [record for record in before if record.image != "I01_10_01.png"]
    assert len(skipped) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("I01.png", "I01.png", 5, 0), r'dmos\.csv, row 2: "I01\.png" is no name of KADID-10k \(I01_01_01\.png: reference 01\.\.81, type 01\.\.25'),
        (("I01_26_01.png", "I01.png", 5, 0), r'row 2: "I01_26_01\.png" is no name of KADID-10k'),
        (("I01_01_06.png", "I01.png", 5, 0), r'row 2: "I01_01_06\.png" is no name of KADID-10k'),
        (("I82_01_01.png", "I82.png", 5, 0), r'row 2: "I82_01_01\.png" is no name of KADID-10k'),
        (("../I01_01_01.png", "I01.png", 5, 0), r'row 2: "\.\./I01_01_01\.png" is no name of KADID-10k'),
        (("I01_01_01.png", "I02.png", 5, 0), r'row 2: "I01_01_01\.png" is of the reference I01\.png, not I02\.png\. Use the file of the release'),
        (("I01_01_05.png", "I01.png", 4, 0), r"row 3: the image I01_01_05\.png stands in .*dmos\.csv, row 2 already"),
        (("I01_01_01.png", "I01.png", 0.9, 0), r"row 2: score 0\.9 is not within the scale 1\.\.5 of kadid"),
        (("I01_01_01.png", "I01.png", "nan", 0), r"row 2: score nan is not within the scale 1\.\.5 of kadid"),
        (("I01_01_01.png", "I01.png", 4, "nan"), r"row 2: a standard deviation of nan cannot be on the scale 1\.\.5 of kadid"),
        (("I01_01_01.png", "I01.png", 4, "?"), r'row 2: "\?" in column var is not a number'),
        (("I01_01_01.png", "I01.png", 4), r"row 2: 3 cells under a header of 4"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        Kadid(root=write_release(tmp_path, [row, *ROWS[1:]])).records()


def test_another_file_is_told_by_its_columns(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match=r"dmos\.csv, row 2: no column dmos; found dist_img, ref_img, mos, var"):
        Kadid(root=write_release(tmp_path, columns="dist_img,ref_img,mos,var")).records()


# the real scores


@pytest.fixture(scope="module")
def published(shared: Path) -> pd.DataFrame:
    file = shared / "datasets" / "labels" / "kadid10k" / "maniqa_kadid10k_label.txt"
    return pd.read_csv(file, names=["dist_img", "dmos"], skipinitialspace=True, dtype={"dmos": str})


@pytest.fixture(scope="module")
def real(published: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The official layout around the scores. The deviations are made up: they stand in no file here."""
    folder = tmp_path_factory.mktemp("kadid") / "kadid10k"
    fill(folder / "images", published["dist_img"])
    table = published.assign(ref_img=published["dist_img"].str[:3] + ".png", var=0.5)
    table[["dist_img", "ref_img", "dmos", "var"]].to_csv(folder / "dmos.csv", index=False)
    yield folder
    shutil.rmtree(folder)


def test_the_real_scores(real: Path, published: pd.DataFrame) -> None:
    records = Kadid(root=real).records()
    scores = [record.score for record in records]
    assert [record.image for record in records] == published["dist_img"].to_list()
    assert len(records) == 10125
    assert spearmanr([record.q for record in records], published["dmos"].astype(float)).statistic == pytest.approx(1, abs=1e-12)
    assert (min(scores), max(scores)) == (1.00, 4.93)
    assert Counter(record.distortions[0][0] for record in records) == dict.fromkeys((spec.name for spec in KADID_DISTORTIONS), 405)
    means = [np.mean([record.q for record in records if record.distortions[0][1] == level]) for level in range(1, 6)]
    assert means == sorted(means, reverse=True)  # the least distorted are the best


def test_the_real_splits(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = Kadid(root=real).entries(Folder(real))
    monkeypatch.setattr(Kadid, "entries", lambda *_: entries)  # read once, not eleven times
    records = Kadid(root=real).records()
    for seed in range(10):
        drawn = Kadid(root=real, split_seed=seed)._sides(entries)  # ten thousand records are made once: the side is all that a seed changes
        found = sides([replace(record, split=side) for record, side in zip(records, drawn, strict=True)])
        assert all(len(splits) == 1 for splits in found.values())
        assert Counter(split for splits in found.values() for split in splits) == {"train": 57, "val": 8, "test": 16}
    q_align = Kadid(root=real, protocol="q-align").records()
    assert {record.group for record in q_align if record.split == "test"} == {f"I{reference}.png" for reference in range(66, 82)}
    assert Counter(record.split for record in q_align) == {"train": 59 * 125, "val": 6 * 125, "test": 16 * 125}


def test_every_real_image_has_a_description(real: Path) -> None:
    records = Kadid(root=real).records()
    targets = DistortionTargets(seed=0)
    targets.fit([record for record in records if record.split == "train"])
    said = [targets.describe(record) for record in records]
    assert [parse(description.text) for description in said] == [dict(record.distortions) for record in records]
    assert not any(find_leak(description.text) for description in said)
