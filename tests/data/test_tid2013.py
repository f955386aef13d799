"""TID2013: a made-up copy of its layout, and the real list where there is one."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from releases import fill
from scipy.stats import spearmanr

from biqa.data.survey import check_images
from biqa.data.tid2013 import TYPES, Tid2013
from biqa.errors import BadRecord, DatasetNotFound
from biqa.language.features import FEATURES

LINES = [
    f"{7 - level - reference / 10:.5f} {'I' if kind == level == 1 else 'i'}{reference:02d}_{kind:02d}_{level}.bmp"
    for reference in range(1, 4)
    for kind in range(1, 25)
    for level in range(1, 6)
]
"""Three references. The case is mixed, as in the official list: some names start with I."""
NAMES = [line.split()[1] for line in LINES]


def write_release(place: Path, lines: Sequence[str] = LINES) -> Path:
    """Files that start with i, except those of the third reference; the list with the line ends of Windows."""
    folder = place / "tid2013"
    fill(folder / "distorted_images", [name.upper() if name.lower().startswith("i03") else name.lower() for name in NAMES])
    (folder / "mos_with_names.txt").write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return folder


def test_records(tmp_path: Path) -> None:
    records = Tid2013(root=write_release(tmp_path)).records()
    assert [record.image for record in records] == NAMES
    assert [record.score for record in records] == [float(line.split()[0]) for line in LINES]
    assert [record.q for record in records] == pytest.approx([record.score / 9 for record in records])
    assert {record.q_std for record in records} == {None}
    assert check_images(records, "stop")[1] == []


def test_names_of_mixed_case_are_one_reference_and_found_on_disk(tmp_path: Path) -> None:
    records = Tid2013(root=write_release(tmp_path)).records()
    assert {record.image[0] for record in records} == {"I", "i"}
    assert Counter(record.group for record in records) == {"I01": 120, "I02": 120, "I03": 120}
    assert (records[0].image, records[0].path.name) == ("I01_01_1.bmp", "i01_01_1.bmp")
    assert (records[-1].image, records[-1].path.name) == ("i03_24_5.bmp", "I03_24_5.BMP")


def test_types_and_levels_come_from_the_name(tmp_path: Path) -> None:
    records = Tid2013(root=write_release(tmp_path)).records()
    distortions = {record.image.lower(): record.distortions for record in records}
    for name, kind in {
        "01_1": "white_noise",
        "08_3": "gaussian_blur",
        "10_5": "jpeg",
        "11_2": "jpeg2000",
        "16_4": "tone_shift",
        "24_5": "sparse_sampling",
    }.items():
        assert distortions[f"i01_{name}.bmp"] == ((kind, int(name[-1])),)
    assert len(set(TYPES)) == 24
    assert set(TYPES) <= set(FEATURES)


def test_the_parent_and_folders_in_other_case_will_do(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "distorted_images").rename(folder / "Distorted_Images")
    (folder / "mos_with_names.txt").rename(folder / "MOS_with_names.txt")
    folder.rename(tmp_path / "TID2013")
    assert len(Tid2013(root=tmp_path).records()) == 360


def test_blank_lines_and_a_byte_order_mark_change_nothing(tmp_path: Path) -> None:
    records = Tid2013(root=write_release(tmp_path)).records()
    folder = write_release(tmp_path / "again")
    (folder / "mos_with_names.txt").write_text("\ufeff" + "\n\n".join(f"  {line.replace(' ', chr(9))} " for line in LINES) + "\n\n", encoding="utf-8")
    assert [(record.image, record.score) for record in Tid2013(root=folder).records()] == [(record.image, record.score) for record in records]


@pytest.mark.parametrize(
    "line",
    ["5.5 i01_00_1.bmp", "5.5 i01_25_1.bmp", "5.5 i01_01_0.bmp", "5.5 i01_01_6.bmp", "5.5 i01_01_1.png", "5.5 i1_01_1.bmp", "i01_01_1.bmp 5.5", "5.5",
     "5.5 ../i01_01_1.bmp", "5.5 i01_01_1.bmp x"],
)  # fmt: skip
def test_a_line_that_is_no_score_and_name_is_refused(tmp_path: Path, line: str) -> None:
    folder = write_release(tmp_path, [*LINES[:6], line, *LINES[7:]])
    with pytest.raises(BadRecord) as error:
        Tid2013(root=folder).records()
    assert str(error.value) == (
        f'{folder}/mos_with_names.txt, line 7: "{line}" is not a score and a name such as "5.51429 I01_01_1.bmp". Use the file of the release.'
    )


@pytest.mark.parametrize(
    ("score", "message"),
    [
        ("5,51", r': "5,51" is not a number\. Use the file of the release\.$'),
        ("high", r': "high" is not a number\. Use the file of the release\.$'),
        ("nan", r": score nan is not within the scale 0\.\.9 of tid2013"),
        ("9.01", r": score 9\.01 is not within the scale 0\.\.9 of tid2013"),
        ("-0.1", r": score -0\.1 is not within the scale 0\.\.9 of tid2013"),
    ],
)
def test_a_score_that_cannot_be_is_named_with_its_line(tmp_path: Path, score: str, message: str) -> None:
    folder = write_release(tmp_path, [*LINES[:6], f"{score} {NAMES[6]}", *LINES[7:]])
    with pytest.raises(BadRecord, match=rf"mos_with_names\.txt, line 7{message}"):
        Tid2013(root=folder).records()


def test_an_image_that_stands_twice_in_other_case_is_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path, [*LINES, "5.0 i01_01_1.bmp"])
    with pytest.raises(BadRecord, match=r"mos_with_names\.txt, line 361: the image i01_01_1\.bmp stands in .*mos_with_names\.txt, line 1 already"):
        Tid2013(root=folder).records()


def test_a_list_that_is_empty_or_no_text_is_refused(tmp_path: Path) -> None:
    folder = write_release(tmp_path, [])
    with pytest.raises(DatasetNotFound, match=r"mos_with_names\.txt: the file is empty\. Unpack the release again\.$"):
        Tid2013(root=folder).records()
    (folder / "mos_with_names.txt").write_bytes(b"5.5 \xff\xfe i01_01_1.bmp")
    with pytest.raises(BadRecord, match=r"mos_with_names\.txt: not a text\. Unpack the release again\.$"):
        Tid2013(root=folder).records()


def test_a_missing_image_and_a_missing_list_are_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "distorted_images" / "i02_01_1.bmp").unlink()
    with pytest.raises(BadRecord, match=r"mos_with_names\.txt, line 121: the image .*distorted_images/I02_01_1\.bmp is missing"):
        Tid2013(root=folder).records()
    (folder / "mos_with_names.txt").unlink()
    with pytest.raises(DatasetNotFound, match=r"(?s)TID2013 is not there \(mos_with_names\.txt is missing in .*tid2013\)\..*ponomarenko"):
        Tid2013(root=tmp_path).records()


def test_an_archive_is_answered_with_how_to_unpack_it(tmp_path: Path) -> None:
    (tmp_path / "tid2013.rar").touch()
    with pytest.raises(DatasetNotFound, match=r"TID2013 is read from its unpacked folder\. Unpack it \(unrar x tid2013\.rar\)"):
        Tid2013(root=tmp_path / "tid2013.rar").records()


@pytest.fixture
def real(shared: Path, tmp_path: Path) -> Path:
    """The real list, with images around it: on disk all names start with i, as on a system that ignores case."""
    text = (shared / "datasets/labels/tid2013/mos_with_names.txt").read_bytes()
    (tmp_path / "mos_with_names.txt").write_bytes(text)
    fill(tmp_path / "distorted_images", [line.split()[1].lower() for line in text.decode().splitlines()])
    return tmp_path


def test_real_labels(real: Path, shared: Path) -> None:
    records = Tid2013(root=real).records()
    assert len(records) == 3000
    assert [record.score for record in records] == [float(line) for line in (shared / "datasets/labels/tid2013/mos.txt").read_text().split()]
    assert min(record.score for record in records) == pytest.approx(0.242, abs=5e-4)
    assert max(record.score for record in records) == pytest.approx(7.214, abs=5e-4)
    assert spearmanr([record.q for record in records], [record.score for record in records]).statistic == pytest.approx(1.0, abs=1e-12)
    assert Counter(record.image[0] for record in records) == {"I": 75, "i": 2925}
    assert set(Counter(record.distortions for record in records).values()) == {25}
    assert set(Counter(record.group for record in records).values()) == {120}
    assert len({record.group for record in records}) == 25


def test_real_quality_falls_with_the_strength(real: Path) -> None:
    records = Tid2013(root=real).records()
    means = [np.mean([record.q for record in records if record.distortions[0][1] == level]) for level in range(1, 6)]
    assert means == sorted(means, reverse=True)
    by_type = {kind: [np.mean([record.q for record in records if record.distortions == ((kind, level),)]) for level in range(1, 6)] for kind in TYPES}
    assert [kind for kind, levels in by_type.items() if levels != sorted(levels, reverse=True)] == [
        "non_eccentricity_patch"
    ]  # .636 .655 .592 .524 .429


def test_real_references_lie_on_one_side_over_ten_seeds(real: Path) -> None:
    for seed in range(10):
        sides = {(record.group, record.split) for record in Tid2013(root=real, split_seed=seed).records()}
        assert Counter(side for _, side in sides) == {"train": 18, "val": 2, "test": 5}
