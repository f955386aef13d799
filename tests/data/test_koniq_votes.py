"""KonIQ++'s votes for defects beside KonIQ-10k, in the form in which public readers have its file (no real one is at hand)."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_koniq import NAMES, change, write_release

from biqa.data.koniq import INDICATORS, VOTES, Koniq
from biqa.data.targets import AttributeTargets
from biqa.errors import BadRecord, DatasetNotFound
from biqa.language.features import parse
from biqa.language.leak import find_leak

SHARES = [
    {"visible_artefacts": number / 10, "visible_blur": (9 - number) / 10, "contrast_defect": float(number > 5), "colour_defect": 0.0}
    for number in range(10)
]


def write_votes(folder: Path, name: str = VOTES[0], images: list[str] = NAMES) -> Path:
    """KonIQ++'s file: ever more votes for artefacts, ever fewer for blur, some for contrast, none for colours."""
    share = np.arange(len(images)) / 10
    table = pd.DataFrame(
        {"filename": images, "qmos": 3.0, "sd": 0.5, "votes": 20, "artifacts": share, "blur": share[::-1], "contrast": share.round()}
    )
    table.assign(colors=0.0, other=0.1, **{"degraded.amount": 0.2})[::-1].to_csv(folder / name, index=False)
    return folder / name


@pytest.mark.parametrize("name", VOTES)
def test_votes_are_preferred_where_they_are(tmp_path: Path, name: str) -> None:
    folder = write_release(tmp_path)
    indicators = [record.attributes for record in Koniq(root=folder).records()]
    write_votes(folder, name)

    def attributes(choice: str | None) -> list[dict[str, float]]:
        return [record.attributes for record in Koniq(root=folder, attributes=choice).records()]

    assert attributes(None) == attributes("defects") == SHARES
    assert attributes("indicators") == indicators
    assert attributes("both") == [votes | rest for votes, rest in zip(SHARES, indicators, strict=True)]


def test_votes_become_words_and_nobody_s_vote_is_no(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    write_votes(folder)
    records = Koniq(root=folder).records()
    targets = AttributeTargets(seed=0)
    targets.fit(records)
    said = [targets.describe(record) for record in records]
    assert [d.features["visible_artefacts"] for d in said] == [0, 1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert [d.features["visible_blur"] for d in said] == [0, 1, 1, 1, 2, 2, 3, 3, 4, 4][::-1]
    assert [d.features["contrast_defect"] for d in said] == [0] * 6 + [1] * 4
    assert all("colour_defect" not in d.features for d in said)  # nobody saw one: it tells the images nothing
    assert all(parse(d.text) == d.features and find_leak(d.text) is None for d in said)


def test_without_either_file_descriptions_of_attributes_name_one_and_its_source(tmp_path: Path) -> None:
    folder = write_release(tmp_path, without=(INDICATORS,))
    message = (
        rf"^Image 100\.jpg: no annotated value of any attribute\. {re.escape(str(folder / INDICATORS))} is missing: get it at "
        rf"https://database\.mmsp-kn\.de/koniq-10k-database\.html \(koniq\+\+database\.csv of KonIQ\+\+ will do too\), or choose descriptions=measured"
    )
    with pytest.raises(BadRecord, match=message):
        AttributeTargets().fit(Koniq(root=folder).records())


@pytest.mark.parametrize(
    ("choice", "missing", "source"),
    [
        ("indicators", INDICATORS, "koniq-10k-database"),
        ("defects", VOTES[0], "koniq-image-defects-database"),
        ("both", INDICATORS, "koniq-10k-database"),
    ],
)
def test_attributes_that_are_asked_for_must_be_there(tmp_path: Path, choice: str, missing: str, source: str) -> None:
    folder = write_release(tmp_path, without=(INDICATORS,))
    message = rf"^{re.escape(str(folder / missing))} is missing: get it at https://database\.mmsp-kn\.de/{source}\.html, or leave out data\.attributes={choice}\.$"
    with pytest.raises(DatasetNotFound, match=message):
        Koniq(root=folder, attributes=choice).records()


def test_votes_of_too_few_images_are_named(tmp_path: Path) -> None:
    folder = write_release(tmp_path)
    write_votes(folder, images=[name for name in NAMES if name != "104.jpg"])
    with pytest.raises(BadRecord, match=r"sets\.csv, row 6: koniq\+\+database\.csv has no row for the image 104\.jpg\. Use the file of the release"):
        Koniq(root=folder).records()
    assert len(Koniq(root=folder, attributes="indicators").records()) == 10


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("blur", "1.2", r"koniq\+\+database\.csv, row 2, column blur: 1\.2 is no share of votes 0\.\.1\. Use the file of the release\."),
        ("colors", "-0.1", r"row 2, column colors: -0\.1 is no share of votes"),
        ("contrast", "nan", r"row 2, column contrast: nan is no share of votes"),
        ("artifacts", "few", r'row 2: "few" in column artifacts is not a number'),
        ("filename", "108.jpg", r"row 3: the image 108\.jpg stands in koniq\+\+database\.csv twice\."),
    ],
)
def test_bad_votes_are_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    folder = write_release(tmp_path)
    change(write_votes(folder), column, value)
    with pytest.raises(BadRecord, match=message):
        Koniq(root=folder).records()
