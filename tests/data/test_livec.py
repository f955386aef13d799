"""LIVE in the Wild: a tiny copy of its layout, and the real thing where there is one."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from biqa.data.livec import TRAINING, LiveC
from biqa.data.survey import check_images
from biqa.errors import BadRecord, DatasetNotFound

NAMES = [f"{number}.{'bmp' if number % 2 else 'JPG'}" for number in range(1, 11)]
SCORES = [3.42, 10, 20, 30, 40, 50, 60, 70, 80, 92.43]


def write_release(place: Path, names: Sequence[str] = NAMES, scores: Sequence[float] = SCORES) -> Path:
    """The official layout: cell array of names as a column, scores and deviations as a row, seven training images first."""
    folder = place / "ChallengeDB_release"
    (folder / "Images" / "trainingImages").mkdir(parents=True)
    (folder / "Data").mkdir()
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / "Images" / name)
    cells = np.empty((len(names) + 7, 1), dtype=object)
    cells[:, 0] = [*TRAINING, *names]
    savemat(folder / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(folder / "Data" / "AllMOS_release.mat", {"AllMOS_release": np.array([[99.0] * 7 + list(scores)])})
    savemat(folder / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": np.array([[1.0] * 7 + [20.0] * len(scores)])})
    return folder


def test_records_leave_the_training_images_out_and_keep_names_and_scores(tmp_path: Path) -> None:
    records = LiveC(root=write_release(tmp_path)).records()
    assert [record.image for record in records] == NAMES
    assert [record.score for record in records] == SCORES
    assert [record.q for record in records] == pytest.approx([score / 100 for score in SCORES])
    assert {record.q_std for record in records} == {0.2}
    assert all(record.path.is_file() and record.group == record.image for record in records)
    assert Counter(record.split for record in records) == {"train": 7, "val": 1, "test": 2}


def test_the_folder_above_will_do_too_and_the_seed_draws_the_split(tmp_path: Path) -> None:
    write_release(tmp_path)
    splits = [[record.split for record in LiveC(root=tmp_path, split_seed=seed).records()] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_the_card() -> None:
    card = LiveC(root="anywhere").card
    assert (card.name, card.low, card.high, card.direction, card.stand_in) == ("livec", 0, 100, "mos", False)


def test_a_missing_folder_is_answered_with_the_layout_and_the_source(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetNotFound, match=r"(?s)nowhere: LIVE in the Wild is not there.*data\.root=.*Data/AllImages_release\.mat.*live\.ece\.utexas\.edu"
    ):
        LiveC(root=tmp_path / "nowhere").records()


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "Data" / "AllMOS_release.mat").unlink()
    with pytest.raises(DatasetNotFound, match=r"AllMOS_release\.mat: there is no such file"):
        LiveC(root=folder).records()


@pytest.mark.parametrize("length", [0, 100, 200])
def test_a_damaged_label_file_is_named(tmp_path: Path, length: int) -> None:
    folder = write_release(tmp_path)
    file = folder / "Data" / "AllMOS_release.mat"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(DatasetNotFound, match=r"AllMOS_release\.mat: holds no variable AllMOS_release"):
        LiveC(root=folder).records()


def test_a_missing_image_stops_with_its_row_or_is_left_to_the_check(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    all_records = LiveC(root=folder).records()
    (folder / "Images" / "3.bmp").unlink()
    with pytest.raises(BadRecord, match=r"AllImages_release\.mat, row 10 \(3\.bmp\): the image .*3\.bmp is missing.*data\.on_bad_image=skip"):
        LiveC(root=folder).records()
    usable, skipped = check_images(LiveC(root=folder, on_bad_image="skip").records(), "skip")
    assert usable == [record for record in all_records if record.image != "3.bmp"]  # the others keep their split
    assert len(skipped) == 1
    assert "3.bmp" in skipped[0]


@pytest.mark.parametrize("score", [-1.0, 100.5, float("nan")])
def test_a_score_off_the_scale_is_named(tmp_path: Path, score: float) -> None:
    folder = write_release(tmp_path, scores=[*SCORES[:-1], score])
    with pytest.raises(BadRecord, match=rf"row 17 \(10\.JPG\): score {score} is not within the scale 0\.\.100 of livec"):
        LiveC(root=folder).records()


def test_label_files_that_disagree_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRecord, match="17 image names, 16 scores and 16 deviations"):
        LiveC(root=write_release(tmp_path, scores=SCORES[1:])).records()


def test_a_list_without_the_training_images_is_refused_rather_than_cut(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    cells = np.empty((17, 1), dtype=object)
    cells[:, 0] = [f"{i}.bmp" for i in range(17)]
    savemat(folder / "Data" / "AllImages_release.mat", {"AllImages_release": cells})
    with pytest.raises(BadRecord, match=r"first seven names are 0\.bmp, 1\.bmp, .* and not the training images t1\.bmp to t7\.bmp"):
        LiveC(root=folder).records()


def test_real_photographs(shared: Path) -> None:
    records = LiveC(root=shared / "data" / "livec_dev").records()
    assert len(records) == 400
    assert Counter(record.split for record in records) == {"train": 280, "val": 40, "test": 80}
    assert 3.42 <= min(record.score for record in records) < max(record.score for record in records) <= 92.43
    assert all(record.q_std is not None and 0.0676 <= record.q_std <= 0.286 for record in records)
    assert check_images(records[::40], "stop")[1] == []
