"""KonIQ-10k: a tiny copy of its layout, and the real label files where there are any."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from releases import fill
from scipy.stats import pearsonr, spearmanr

from biqa.data.koniq import INDICATORS, SCORES, SETS, SIZES, Koniq
from biqa.data.splits import fingerprint
from biqa.data.survey import check_images
from biqa.data.targets import AttributeTargets
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice
from biqa.language.features import parse
from biqa.language.leak import find_leak

NAMES = [f"{100 + number}.jpg" for number in range(10)]
COUNTS = [(number, 3, 20 - number, 2 * number, 10 - number) for number in range(10)]
ZSCORES = [3.91, 12, 20, 30, 40, 50, 60, 70, 80, 88.39]
SETS_OF = ["training"] * 6 + ["validation"] * 2 + ["test"] * 2


def ratings(counts: tuple[int, ...]) -> list[int]:
    return [grade for grade, count in enumerate(counts, start=1) for _ in range(count)]


MEANS = [np.mean(ratings(counts)) for counts in COUNTS]
DEVIATIONS = [np.std(ratings(counts), ddof=1) for counts in COUNTS]


def write_release(place: Path, without: tuple[str, ...] = (), sizes: tuple[str, ...] = ("1024x768",)) -> Path:
    """The official layout: counts and both means in one file, shares, the z-score as "MOS" and the split in the other, indicators by number."""
    folder = place / "koniq10k"
    for size in sizes:
        fill(folder / size, NAMES)
    counts = pd.DataFrame(COUNTS, columns=["c1", "c2", "c3", "c4", "c5"])
    total = counts.sum(axis=1)
    scores = counts.assign(c_total=total, MOS=MEANS, SD=DEVIATIONS, MOS_zscore=ZSCORES)
    sets = counts.div(total, axis=0).round(12).assign(c_total=total, MOS=ZSCORES, SD=DEVIATIONS, set=SETS_OF)
    shown = [number / 20 for number in range(10)]
    indicators = pd.DataFrame({"image_id": [int(name.removesuffix(".jpg")) for name in NAMES], "brightness": shown, "contrast": shown[::-1]})
    indicators = indicators.assign(colorfulness=0.2, sharpness=[5.0 + number for number in range(10)], quality_factor=90, bitrate=0.5)
    scores.insert(0, "image_name", NAMES)
    sets.insert(0, "image_name", NAMES)
    for file, table in ((SCORES, scores), (SETS, sets), (INDICATORS, indicators[::-1])):  # the real one has another order than the scores too
        if file not in without:
            table.to_csv(folder / file, index=False, quoting=2 if file == SCORES else 0)
    return folder


def change(file: Path, column: str, value: object, row: int = 0) -> None:
    table = pd.read_csv(file, dtype=str)
    table.loc[row, column] = str(value)
    table.to_csv(file, index=False)


# scores


@pytest.mark.parametrize("options", [{}, {"protocol": "random"}])
def test_the_mean_of_the_votes_comes_from_shares(tmp_path: Path, options: dict[str, str]) -> None:
    records = Koniq(root=write_release(tmp_path, without=(SCORES,)), **options).records()
    assert [record.image for record in records] == NAMES
    assert [record.score for record in records] == pytest.approx(MEANS)
    assert [record.q for record in records] == pytest.approx([(mean - 1) / 4 for mean in MEANS])
    assert [record.q_std for record in records] == pytest.approx([deviation / 4 for deviation in DEVIATIONS])
    assert all(record.group == record.image and record.path.is_file() for record in records)


def test_and_from_counts_to_the_last_digit(tmp_path: Path) -> None:
    shares = Koniq(root=write_release(tmp_path / "both"), protocol="random").records()
    records = Koniq(root=write_release(tmp_path, without=(SETS,)), protocol="random").records()
    assert fingerprint(records) == fingerprint(shares)
    assert [record.score for record in records] == pytest.approx(MEANS)
    assert [record.q_std for record in records] == pytest.approx([deviation / 4 for deviation in DEVIATIONS])


@pytest.mark.parametrize("without", [SCORES, SETS])
def test_the_z_score_is_mos_in_one_file_and_mos_zscore_in_the_other(tmp_path: Path, without: str) -> None:
    reader = Koniq(root=write_release(tmp_path, without=(without,)), scale="zscore", protocol="random")
    records = reader.records()
    assert (reader.card.low, reader.card.high, reader.card.direction) == (0, 100, "mos")
    assert [record.score for record in records] == pytest.approx(ZSCORES)
    assert [record.q for record in records] == pytest.approx([zscore / 100 for zscore in ZSCORES])
    assert [record.q_std for record in records] == pytest.approx([deviation / 4 for deviation in DEVIATIONS])  # of votes 1..5 on either scale


# split


def test_the_official_split(tmp_path: Path) -> None:
    records = Koniq(root=write_release(tmp_path), split_seed=3).records()
    assert [record.split for record in records] == ["train"] * 6 + ["val"] * 2 + ["test"] * 2


def test_a_random_split_leaves_the_official_one_aside(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    splits = [[record.split for record in Koniq(root=folder, protocol="random", split_seed=seed).records()] for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert Counter(splits[0]) == {"train": 7, "val": 1, "test": 2}


def test_without_its_file_there_is_no_official_split(tmp_path: Path) -> None:
    folder = write_release(tmp_path, without=(SETS,))
    message = rf"{re.escape(str(folder / SETS))}: missing, and with it the official split\. Get it at https://github\.com/subpic/koniq, or set data\.protocol=random"
    with pytest.raises(DatasetNotFound, match=message):
        Koniq(root=folder).records()


# indicators


def test_indicators_are_joined_by_number(tmp_path: Path) -> None:
    records = Koniq(root=write_release(tmp_path)).records()
    assert [record.attributes for record in records] == [
        {"brightness": number / 20, "contrast": (9 - number) / 20, "colourfulness": 0.2, "sharpness": 5.0 + number} for number in range(10)
    ]
    (tmp_path / "koniq10k" / INDICATORS).unlink()
    assert all(record.attributes == {} for record in Koniq(root=tmp_path).records())


def test_an_image_without_indicators_is_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    change(folder / INDICATORS, "image_id", 999, row=9)
    with pytest.raises(
        BadRecord, match=r"sets\.csv, row 2: koniq10k_indicators\.csv has no row for the image 100\.jpg\. Use the file of the release"
    ):
        Koniq(root=folder).records()


# folders


@pytest.mark.parametrize(
    ("sizes", "asked", "read"),
    [(SIZES, None, "1024x768"), (("512x384",), None, "512x384"), (SIZES, "512x384", "512x384")],
)
def test_the_size_of_the_images(tmp_path: Path, sizes: tuple[str, ...], asked: str | None, read: str) -> None:
    folder = write_release(tmp_path, sizes=sizes)
    assert [record.path for record in Koniq(root=folder, size=asked).records()] == [folder / read / name for name in NAMES]


def test_the_folder_above_will_do_too_and_a_size_must_be_there(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    with pytest.raises(BadRecord, match=r"sets\.csv, row 2: the image .*512x384/100\.jpg is missing\. Unpack the release again"):
        Koniq(root=folder, size="512x384").records()
    assert Koniq(root=tmp_path).records() == Koniq(root=folder).records()


def test_a_folder_without_scores_is_answered_with_the_layout_and_the_source(tmp_path: Path) -> None:
    message = r"(?s)KonIQ-10k is not there \(neither koniq10k_distributions_sets\.csv nor .*data\.root=.*1024x768/\*\.jpg.*database\.mmsp-kn\.de"
    for root in (tmp_path, write_release(tmp_path, without=(SCORES, SETS))):
        with pytest.raises(DatasetNotFound, match=message):
            Koniq(root=root).records()
    with pytest.raises(DatasetNotFound, match=r"(?s)nowhere: KonIQ-10k is not there \(there is no such folder\).*1024x768/\*\.jpg"):
        Koniq(root=tmp_path / "nowhere").records()


def test_a_missing_image_stops_with_its_row_or_is_left_to_the_check(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    before = Koniq(root=folder).records()
    (folder / "1024x768" / "103.jpg").unlink()
    with pytest.raises(BadRecord, match=r"sets\.csv, row 5: the image .*103\.jpg is missing.*data\.on_bad_image=skip"):
        Koniq(root=folder).records()
    usable, skipped = check_images(Koniq(root=folder, on_bad_image="skip").records(), "skip")
    assert usable == [record for record in before if record.image != "103.jpg"]
    assert len(skipped) == 1


# nonsense


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": "mos"}, r"data\.scale=mos is not known for KonIQ-10k: choose acr or zscore\."),
        ({"size": "224"}, r"data\.size=224 is not known for KonIQ-10k: choose 1024x768 or 512x384\."),
        ({"attributes": "votes"}, r"data\.attributes=votes is not known for KonIQ-10k: choose indicators, defects, both\."),
        ({"protocol": "reference"}, r"data\.protocol=reference is not known for koniq: choose official, random\."),
    ],
)
def test_unknown_options_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(IncompatibleChoice, match=message):
        Koniq(root="anywhere", **options)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("set", "train", r'row 2, column set: "train" is no split\. Expected one of training, validation, test\. Use the file of the release'),
        ("image_name", "101.jpg", r"row 3: the image 101\.jpg stands in .*sets\.csv, row 2 already"),
        ("image_name", "../101.jpg", r'row 2: "1024x768/\.\./101\.jpg" leads out of .*koniq10k\. Names must be relative to that folder'),
        ("c3", "few", r'row 2: "few" in column c3 is not a number'),
        ("c3", "nan", r"row 2: there are no votes in c1\.\.c5"),
        ("SD", "", r'row 2: "" in column SD is not a number'),
        ("SD", "nan", r"row 2: a standard deviation of nan cannot be on the scale 0\.\.100 of koniq"),
        ("MOS", "-0.5", r"sets\.csv, row 2: score -0\.5 is not within the scale 0\.\.100 of koniq"),
        ("MOS", "100.5", r"row 2: score 100\.5 is not within"),
        ("MOS", "nan", r"row 2: score nan is not within"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    folder = write_release(tmp_path)
    change(folder / SETS, column, value)
    with pytest.raises(BadRecord, match=message):
        Koniq(root=folder, scale="acr" if column.startswith("c") else "zscore").records()


def test_a_mean_on_1_to_5_is_not_taken_for_a_z_score(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    for row, mean in enumerate(MEANS):
        change(folder / SETS, "MOS", mean, row)
    with pytest.raises(BadRecord, match=r"sets\.csv: its MOS is on 1\.\.5 and no z-score\. Use the file of the release, or data\.scale=acr"):
        Koniq(root=folder, scale="zscore").records()
    assert [record.score for record in Koniq(root=folder).records()] == pytest.approx(MEANS)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("MOS", "77.4", r"scores_and_distributions\.csv, row 2: MOS 77\.4 is not the mean of the votes c1\.\.c5 \(3\.515\)"),
        ("c5", "100", r"row 2: MOS 3\.51515151515\d* is not the mean of the votes c1\.\.c5 \(4\.602\)"),
    ],
)
def test_votes_and_mean_that_disagree_are_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    folder = write_release(tmp_path, without=(SETS,))
    change(folder / SCORES, column, value)
    with pytest.raises(BadRecord, match=message):
        Koniq(root=folder, protocol="random").records()


def test_truncated_label_files_are_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    for file in (SETS, INDICATORS):
        whole = (folder / file).read_text()
        (folder / file).write_text(whole[: whole.rindex(",")])
        with pytest.raises(BadRecord, match=rf"{file}, row 11: \d cells under a header of \d+"):
            Koniq(root=folder).records()
        (folder / file).write_text(whole)
    shutil.copy(folder / SCORES, folder / SETS)
    with pytest.raises(DatasetNotFound, match=rf"{SETS}, row 2: no column set; found image_name, c1, .*MOS_zscore"):
        Koniq(root=folder).records()


# the real label files


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("koniq") / "koniq10k"
    shutil.copytree(shared / "datasets" / "labels" / "koniq10k", folder)
    fill(folder / "512x384", pd.read_csv(folder / SETS)["image_name"])
    yield folder
    shutil.rmtree(folder)


def test_the_real_scores(real: Path) -> None:
    published = pd.read_csv(real / SCORES).set_index("image_name")
    records = {scale: Koniq(root=real, scale=scale).records() for scale in ("acr", "zscore")}
    names = [record.image for record in records["acr"]]
    q = {scale: [record.q for record in found] for scale, found in records.items()}
    assert Counter(record.split for record in records["acr"]) == {"train": 7058, "val": 1000, "test": 2015}
    assert [record.score for record in records["acr"]] == pytest.approx(published.loc[names, "MOS"].to_list(), abs=1e-9)
    assert spearmanr(q["acr"], published.loc[names, "MOS"]).statistic == pytest.approx(1, abs=1e-12)
    assert spearmanr(q["zscore"], published.loc[names, "MOS_zscore"]).statistic == pytest.approx(1, abs=1e-12)
    assert pearsonr(q["acr"], q["zscore"]).statistic == pytest.approx(0.9954, abs=5e-5)
    for scale, low, high in (("acr", 1.096, 4.310), ("zscore", 3.91, 88.39)):
        scores = [record.score for record in records[scale]]
        assert (min(scores), max(scores)) == pytest.approx((low, high), abs=0.005)
    deviations = [4 * record.q_std for record in records["acr"]]
    assert (min(deviations), max(deviations)) == pytest.approx((0.296, 1.098), abs=5e-4)
    assert len(set(names)) == len({record.group for record in records["acr"]}) == 10073


def test_the_real_counts_say_what_the_real_shares_say(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = Koniq(root=real, protocol="random").records()
    monkeypatch.setattr("biqa.data.koniq.SETS", "missing.csv")
    counts = Koniq(root=real, protocol="random").records()
    assert fingerprint(counts) == fingerprint(shares)


def test_every_real_image_has_a_description(real: Path) -> None:
    records = Koniq(root=real).records()
    targets = AttributeTargets(seed=0)
    targets.fit([record for record in records if record.split == "train"])
    said = [targets.describe(record) for record in records]
    assert {len(description.features) for description in said} == {4}
    assert all(parse(description.text) == description.features for description in said)
    assert not any(find_leak(description.text) for description in said)
    for attribute in ("brightness", "contrast", "colourfulness", "sharpness"):
        shares = Counter(d.features[attribute] for d, record in zip(said, records, strict=True) if record.split == "train")
        assert [shares[strength] / 7058 for strength in range(5)] == pytest.approx([0.2] * 5, abs=0.001)
