"""LIVE release 2: a made-up copy of its layout, and the real label files where there are some."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from releases import fill
from scipy.io import loadmat, savemat
from scipy.stats import spearmanr

from biqa.data.live import COUNTS, Live
from biqa.data.survey import check_images
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice

DISTORTED = {"jp2k": 169, "jpeg": 175, "wn": 145, "gblur": 145, "fastfading": 145}
IMAGES = [f"{place}/img{number}.bmp" for place, count in COUNTS.items() for number in range(1, count + 1)]
RNG = np.random.default_rng(0)
COPIES = np.concatenate([RNG.permutation(count) < count - DISTORTED[place] for place, count in COUNTS.items()])
REFERENCES = [f"reference{entry % 29}.bmp" for entry in range(982)]
REALIGNED = np.where(COPIES, 0.0, RNG.permutation(np.linspace(-2.64, 111.77, 982)))
OLD = np.where(COPIES, 0.0, RNG.permutation(np.linspace(17.9, 84.5, 982)))


def write_release(
    place: Path, *, realigned: np.ndarray[Any, Any] = REALIGNED, copies: np.ndarray[Any, Any] = COPIES, references: Sequence[str] = REFERENCES
) -> Path:
    """The official layout: scores and marks as rows, names as a row of cells."""
    folder = place / "databaserelease2"
    fill(folder, IMAGES)
    orgs = copies.astype(np.uint8)[None]
    savemat(folder / "dmos.mat", {"dmos": OLD[None], "orgs": orgs})
    savemat(folder / "dmos_realigned.mat", {"dmos_new": realigned[None], "dmos_std": np.ones((1, 982)), "orgs": orgs})
    cells = np.empty((1, len(references)), dtype=object)
    cells[0, :] = references
    savemat(folder / "refnames_all.mat", {"refnames_all": cells})
    return folder


def test_the_copies_of_references_are_left_out_and_the_rest_keeps_its_place(tmp_path: Path) -> None:
    records = Live(root=write_release(tmp_path)).records()
    assert COPIES.sum() == 203
    assert len(records) == 779
    kept = np.flatnonzero(~COPIES)
    assert [record.image for record in records] == [IMAGES[entry] for entry in kept]
    assert [record.score for record in records] == list(REALIGNED[kept])
    assert [record.group for record in records] == [REFERENCES[entry] for entry in kept]
    assert Counter(record.path.parent.name for record in records) == DISTORTED
    assert {(record.q_std, record.distortions) for record in records} == {(None, ())}
    assert check_images(records[::100], "stop")[1] == []


def test_files_of_the_copies_are_not_needed(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    for entry in np.flatnonzero(COPIES):
        (folder / IMAGES[entry]).unlink()
    assert len(Live(root=folder).records()) == 779


def test_higher_is_worse_and_below_zero_is_better_than_the_reference(tmp_path: Path) -> None:
    records = Live(root=write_release(tmp_path)).records()
    assert [record.q for record in records] == pytest.approx([(112 - record.score) / 115 for record in records])
    best = max(records, key=lambda record: record.q)
    assert best.score < 0
    assert best.q > 112 / 115


def test_the_two_versions_of_the_dmos_are_told_apart(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    realigned, old = Live(root=folder).records(), Live(root=folder, version="old").records()
    assert [record.score for record in old] == list(OLD[~COPIES])
    assert [record.q for record in old] == pytest.approx([1 - record.score / 100 for record in old])
    assert [(record.image, record.group, record.split) for record in old] == [(record.image, record.group, record.split) for record in realigned]
    with pytest.raises(IncompatibleChoice, match=r"^data\.version=new is not known for LIVE: choose realigned or old\.$"):
        Live(root=folder, version="new")


def test_the_parent_and_names_in_other_case_will_do(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "jpeg").rename(folder / "JPEG")
    (folder / "wn" / "img1.bmp").rename(folder / "wn" / "Img1.BMP")
    (folder / "refnames_all.mat").rename(folder / "RefNames_All.mat")
    folder.rename(tmp_path / "DatabaseRelease2")
    records = Live(root=tmp_path).records()
    assert len(records) == 779
    assert all(record.path.is_file() for record in records)


def test_altered_copies_without_the_references_are_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = write_release(tmp_path, copies=np.zeros(779), references=[name for name, copy in zip(REFERENCES, COPIES, strict=True) if not copy])
    with pytest.raises(BadRecord) as error:
        Live(root=folder).records()
    assert str(error.value) == (
        f"{folder}: 982 scores, 779 marks (orgs) and 779 reference names, not 982. "
        f"Altered copies of these files are about, without the references and in another order; use those of the official archive."
    )


@pytest.mark.parametrize(("name", "version"), [("dmos_realigned.mat", "realigned"), ("dmos.mat", "old")])
def test_each_version_needs_its_own_file_only(tmp_path: Path, name: str, version: str) -> None:
    folder = write_release(tmp_path)
    (folder / name).unlink()
    (other,) = {"realigned", "old"} - {version}
    assert len(Live(root=folder, version=other).records()) == 779
    with pytest.raises(DatasetNotFound, match=rf"/{name}: there is no such file"):
        Live(root=folder, version=version).records()


def test_a_missing_folder_is_answered_with_the_layout(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    (folder / "refnames_all.mat").unlink()
    (folder / "wn").rename(folder / "whitenoise")
    with pytest.raises(
        DatasetNotFound, match=r"(?s)LIVE release 2 is not there \(wn, refnames_all\.mat is missing\)\..*dmos_realigned\.mat.*live\.ece\.utexas\.edu"
    ):
        Live(root=folder).records()


@pytest.mark.parametrize("score", [-3.1, 112.5, float("nan")])
def test_a_score_off_the_scale_is_named_with_its_entry(tmp_path: Path, score: float) -> None:
    entry = int(np.flatnonzero(~COPIES)[400])
    changed = REALIGNED.copy()
    changed[entry] = score
    with pytest.raises(BadRecord, match=rf"dmos_realigned\.mat, entry {entry + 1}: score {score} is not within the scale -3\.\.112 of live"):
        Live(root=write_release(tmp_path, realigned=changed)).records()


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    entry = int(np.flatnonzero(~COPIES)[-1])
    (folder / IMAGES[entry]).unlink()
    with pytest.raises(BadRecord, match=rf"dmos_realigned\.mat, entry {entry + 1}: the image .*{IMAGES[entry]} is missing"):
        Live(root=folder).records()


def unified(shared: Path) -> dict[str, dict[str, str]]:
    """The list that another project made of the official files: image -> its row."""
    with (shared / "datasets/labels/iqa_dataset_unified/LIVE.txt").open() as file:
        return {row["dis_img_path"].removeprefix("LIVE/"): row for row in csv.DictReader(file)}


@pytest.fixture
def real(shared: Path, tmp_path: Path) -> Path:
    """The official form of the label files, rebuilt: the copies that are at hand lack the 203 marks and references.

    Their scores are whole, and exactly the references have DMOS 0. Their reference names are those of the distorted images, folder by folder in
    alphabetical order (img1, img10, img100 ...). The names of the 203 are lost; they are left out anyway.
    """
    labels = shared / "datasets/labels/live"
    dmos = loadmat(labels / "dmos_realigned.mat")["dmos_new"].ravel()
    distorted = [image for image, score in zip(IMAGES, dmos, strict=True) if score != 0]
    alphabetical = sorted(distorted, key=lambda image: (list(COUNTS).index(image.split("/")[0]), image))
    names = [cell.item() for cell in loadmat(labels / "refnames_all.mat")["refnames_all"].ravel()]
    reference = dict(zip(alphabetical, names, strict=True))
    return write_release(tmp_path, realigned=dmos, copies=dmos == 0, references=[reference.get(image, "unknown.bmp") for image in IMAGES])


def test_real_labels(real: Path, shared: Path) -> None:
    records = Live(root=real).records()
    assert len(records) == 779
    assert Counter(record.path.parent.name for record in records) == DISTORTED
    assert min(record.score for record in records) == pytest.approx(-2.64, abs=0.005)
    assert max(record.score for record in records) == pytest.approx(111.77, abs=0.005)
    assert spearmanr([record.q for record in records], [-record.score for record in records]).statistic == pytest.approx(1.0, abs=1e-12)
    outside = unified(shared)
    assert {record.image for record in records} == set(outside)
    for record in records:
        assert record.score == pytest.approx(float(outside[record.image]["score"]), abs=1e-12)
        assert record.group == Path(outside[record.image]["ref_img_path"]).name
        assert record.path.parent.name == outside[record.image]["dis_type"]
    assert len({record.group for record in records}) == 29


def test_real_references_are_better_than_what_was_made_of_them(real: Path) -> None:
    labels = loadmat(real / "dmos_realigned.mat")
    dmos, copies = labels["dmos_new"].ravel(), labels["orgs"].ravel() == 1
    assert copies.sum() == 203
    card = Live(root=real).card
    q = np.array([card.quality(score, "") for score in dmos])
    for start, count in zip(np.cumsum([0, *COUNTS.values()]), COUNTS.values(), strict=False):
        kind = slice(start, start + count)
        assert set(q[kind][copies[kind]]) == {112 / 115}
        assert q[kind][~copies[kind]].mean() < 0.75 < 112 / 115
        assert spearmanr(copies[kind], q[kind]).statistic > 0.5


def test_real_references_lie_on_one_side_over_ten_seeds(real: Path) -> None:
    drawn = set()
    for seed in range(10):
        records = Live(root=real, split_seed=seed).records()
        sides = {(record.group, record.split) for record in records}
        assert len(sides) == 29
        assert Counter(side for _, side in sides) == {"train": 20, "val": 3, "test": 6}
        drawn.add(frozenset(group for group, side in sides if side == "test"))
    assert len(drawn) == 10


def test_real_copies_as_they_are_about_are_refused(real: Path, shared: Path) -> None:
    for name in ("dmos_realigned.mat", "refnames_all.mat"):
        (real / name).write_bytes((shared / "datasets/labels/live" / name).read_bytes())
    with pytest.raises(BadRecord, match=r"982 scores, 779 marks \(orgs\) and 779 reference names, not 982\. Altered copies"):
        Live(root=real).records()
