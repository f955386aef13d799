"""Label files of other projects, with the defects that theirs are known to have."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from biqa.config import LabelsJsonData
from biqa.data.import_report import AnswerReport, ImportReport
from biqa.data.labels_json import LabelsJson
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice

ASK = "How would you rate the quality of this image?\n<|image|>"
CSIQ = {"low": 0, "high": 1, "direction": "dmos"}


def label(image: str, score: Any = None, word: str | None = None, ask: str = ASK, **fields: Any) -> dict[str, Any]:
    """An entry in the form of Q-Align's files; without a score it has no gt_score, without a word no conversation."""
    entry: dict[str, Any] = {"image": image} | ({} if score is None else {"gt_score": score}) | fields
    if word is not None:
        entry["conversations"] = [{"from": "human", "value": ask}, {"from": "gpt", "value": f"The quality of the image is {word}."}]
    return entry


def write(file: Path, entries: list[dict[str, Any]]) -> Path:
    """A label file, and an empty file for each image."""
    file.write_text(json.dumps(entries))
    for entry in entries:
        path = file.parent / entry.get("image", entry.get("img_path")).replace("\\", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return file


def source(place: Path, train: list[dict[str, Any]], test: list[dict[str, Any]] | None = None, **options: Any) -> LabelsJson:
    files = {"train": write(place / "train.json", train), "test": None if test is None else write(place / "test.json", test)}
    return LabelsJson(**(files | {"root": place, "low": 1, "high": 5, "direction": "mos", "val_share": 0.0} | options))


def told(imported: LabelsJson) -> list[str]:
    return imported.report.problems if imported.records() else []


# what is read


def test_q_align_files_in_all_their_forms(tmp_path: Path) -> None:
    numbers = [label("koniq/a.png", 4.5, "excellent", id="a.png->4.5"), label("koniq/b.png", "2.65 ", "fair")]
    train = [*numbers, label("koniq/c.png", None, "bad", id="c.png->1.2")]
    test = [{"img_path": "koniq/d.png", "gt_score": "3"}, {"image": "koniq/e.png", "gt_score": 5}]
    imported = source(tmp_path, train, test)
    records = imported.records()
    assert [(r.image, r.score, r.split, r.path) for r in records] == [
        (f"koniq/{name}.png", score, split, tmp_path / "koniq" / f"{name}.png")
        for name, score, split in [("a", 4.5, "train"), ("b", 2.65, "train"), ("c", 1.2, "train"), ("d", 3, "test"), ("e", 5, "test")]
    ]
    assert [r.q for r in records] == pytest.approx([0.875, 0.4125, 0.05, 0.5, 1])
    assert {r.q_std for r in records} == {None}
    assert imported.report == ImportReport(rows=5, answers=AnswerReport(count=3))
    assert imported.card.name == "train"


def test_deqa_files_give_the_deviation_on_the_scale_of_q(tmp_path: Path) -> None:
    def meta(image: str, score: float, probabilities: list[float], word: str) -> dict[str, Any]:
        return label(image, score, word, std=0.4, std_norm=0.4, gt_score_norm=score, level_probs=probabilities, level_probs_org=probabilities)

    train = [meta("a.png", 4.6, [0.6, 0.4, 0, 0, 0], "excellent"), meta("b.png", 1.6, [0, 0, 0, 0.6, 0.4], "bad")]
    imported = source(tmp_path, train, [label("c.png", 3.0, std=0.2, gt_score_norm=3.0)])
    assert [(r.q, r.q_std) for r in imported.records()] == [
        (pytest.approx(q), pytest.approx(std)) for q, std in [(0.9, 0.1), (0.15, 0.1), (0.5, 0.05)]
    ]
    assert imported.report.problems == []


def test_one_file_is_split_by_group(tmp_path: Path) -> None:
    train = [label(f"{ref}.jpeg.{level}.png", 3) for ref in "abcdefghij" for level in range(5)]
    records = source(tmp_path, train, group="^[^.]+", val_share=0.2, test_share=0.3).records()
    assert Counter(r.split for r in records) == {"train": 25, "val": 10, "test": 15}
    assert {(r.group, r.split) for r in records} == {(r.group, r.split) for r in records[::5]}


def test_with_a_test_file_only_validation_is_drawn(tmp_path: Path) -> None:
    train = [label(f"I{ref:02}_01_{level:02}.png", 3) for ref in range(10) for level in range(3)]
    records = source(tmp_path, train, [label("i99_01_01.png", 3)], group="^[iI]([0-9]+)", val_share=0.2).records()
    assert Counter(r.split for r in records) == {"train": 24, "val": 6, "test": 1}
    assert len({(r.group, r.split) for r in records}) == 11
    assert [r.group for r in records[:4]] == ["00", "00", "00", "01"]


# known defects


def test_answers_made_in_the_wrong_direction_are_replaced(tmp_path: Path) -> None:
    words = ["bad", "poor", "fair", "good", "excellent"]  # of DMOS 0.1, 0.3, ... as if it were MOS: Q-Align's ft/csiq
    imported = source(tmp_path, [label(f"{i}.png", 0.1 + 0.2 * i, word) for i, word in enumerate(words)], **CSIQ)
    assert [r.q for r in imported.records()] == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    answers = imported.report.answers
    assert answers.contradicting == (
        ("0.png", "bad", "excellent"), ("1.png", "poor", "good"), ("3.png", "good", "poor"), ("4.png", "excellent", "bad")
    )  # fmt: skip
    assert answers.inverted
    assert imported.report.problems == [
        "4 of 5 answers are two or more levels from their score and were replaced by the score's level. "
        'First: 0.png, "bad" for a score that means excellent.',
        "The levels of the 5 answers fall as quality rises: they were made in the wrong direction (as Q-Align's ft/live and ft/csiq), "
        "or data.direction= is wrong.",
    ]


def test_bins_of_another_range_are_told_apart_from_contradictions(tmp_path: Path) -> None:
    imported = source(tmp_path, [label("a.png", 1.1, "poor"), label("b.png", 3, "fair"), label("c.png", 4.0, "excellent")])
    assert told(imported) == ["2 of 3 answers are one level from their score (bins of another range); the score's level counts."]


def test_words_that_are_no_level_are_counted(tmp_path: Path) -> None:
    words = ["pristine", "average", "average", "Satisfactory", "good", "fair"]
    imported = source(tmp_path, [label(f"{i}.png", 3.5, word) for i, word in enumerate(words)])
    assert told(imported)[-1] == "4 of 6 answers name no level (average 2, pristine 1, satisfactory 1) and were replaced by the score's level."
    assert imported.report.answers.stray == {"average": 2, "pristine": 1, "satisfactory": 1}


def test_references_are_dropped(tmp_path: Path) -> None:
    train = [
        label("live/jp2k/img1.bmp", 0.0, "bad"),  # an unchanged copy
        label("live/jp2k/img2.bmp", 30.5),
        label("live/refimgs/ocean.bmp", 12),
        label("csiq/src_imgs/woman.png", 12),
        label("csiq/dst_imgs/awgn/log_seaside.AWGN.1.png", 0),  # of DMOS 0, but its name says that it is distorted
        label("live/jpeg/img3.bmp", "0"),
    ]
    imported = source(tmp_path, train, [label("live/wn/img1.bmp", 60), label("live/wn/img2.bmp", 0)], low=0, high=100, direction="dmos")
    assert [r.image for r in imported.records()] == ["live/jp2k/img2.bmp", "csiq/dst_imgs/awgn/log_seaside.AWGN.1.png", "live/wn/img1.bmp"]
    assert imported.report.references == (
        "live/jp2k/img1.bmp", "live/refimgs/ocean.bmp", "csiq/src_imgs/woman.png", "live/jpeg/img3.bmp", "live/wn/img2.bmp"
    )  # fmt: skip
    assert imported.report.problems == [
        "5 of 8 entries are reference images (score 0 of a DMOS set, or in a folder refimgs or src_imgs) and were dropped. First: live/jp2k/img1.bmp."
    ]


def test_a_mos_of_nothing_is_no_reference(tmp_path: Path) -> None:
    assert [r.q for r in source(tmp_path, [label("a.png", 0), label("b.png", 5)], low=0).records()] == [0, 1]


def test_doubled_questions_are_counted(tmp_path: Path) -> None:
    asks = [
        ASK,
        "How would you rate the quality of this image?How do you assess the quality of this image?\n<|image|>",
        "Rate the quality of this image.\n<|image|>Judge it.\n<|image|>",
        "<image>\nRate the quality of this image.",
    ]
    imported = source(tmp_path, [label(f"{i}.png", 3, "fair", ask) for i, ask in enumerate(asks)])
    assert told(imported) == ["2 of 4 entries have two questions or two image tokens in one, which biqa does not use. First: 1.png."]
    assert imported.report.doubled == ("1.png", "2.png")


def test_negative_dmos_may_be_declared_either_way(tmp_path: Path) -> None:
    train = [label("csiq/a.AWGN.1.png", -0.0, gt_score_norm=5.0), label("csiq/a.AWGN.2.png", -0.3, gt_score_norm=3.8)]
    test = [label("csiq/b.AWGN.5.png", -1.0, gt_score_norm=1.0)]
    as_dmos, as_stored = source(tmp_path, train, test, **CSIQ), source(tmp_path, train, test, low=-1, high=0)
    assert [(r.q, r.score) for r in as_dmos.records()] == [(1, 0), (0.7, 0.3), (0, 1)]
    assert [(r.q, r.score) for r in as_stored.records()] == [(1, 0), (0.7, -0.3), (0, -1)]
    assert [as_dmos.report.turned, as_stored.report.turned] == [3, 0]
    assert as_dmos.report.problems == ["No score of 3 is above 0, as DeQA-Score stores DMOS: all signs were turned."]


@pytest.mark.parametrize(("low", "scores"), [(-3, [-2.64, 1.11]), (-3, [-2.64, -1.5]), (0, [0, 0])])
def test_other_signs_stay(tmp_path: Path, low: float, scores: list[float]) -> None:  # LIVE has DMOS below 0
    imported = source(tmp_path, [label(f"a.AWGN.{i}.png", score) for i, score in enumerate(scores)], low=low, high=9, direction="dmos")
    assert ([r.score for r in imported.records()], imported.report.turned) == (scores, 0)


def test_a_repeated_image_counts_once(tmp_path: Path) -> None:
    imported = source(tmp_path, [label("x/a.png", 3), label("b.png", 4), label("./x/a.png", "3.0"), label("x\\a.png", 3)])
    assert [r.image for r in imported.records()] == ["x/a.png", "b.png"]
    assert imported.report.problems == ["2 of 4 entries repeat an image with its score and were dropped. First: x/a.png."]


def test_probabilities_in_another_order_are_told(tmp_path: Path) -> None:
    worst_first = [label("a.png", 4.6, level_probs=[0, 0, 0, 0.4, 0.6]), label("b.png", 1.4, level_probs=[0.6, 0.4, 0, 0, 0])]
    assert told(source(tmp_path, worst_first)) == [
        "level_probs fall as quality rises: they do not run from excellent to bad. biqa makes its own from score and std."
    ]


def test_a_direction_that_the_file_speaks_against_is_refused(tmp_path: Path) -> None:
    train = [label("a.png", 0.1, gt_score_norm=4.6), label("b.png", 0.9, gt_score_norm=1.4)]
    with pytest.raises(IncompatibleChoice, match=r"train\.json: gt_score_norm, .*data\.direction=mos\. Choose data\.direction=dmos\."):
        source(tmp_path, train, low=0, high=1).records()
    assert len(source(tmp_path, train, **CSIQ).records()) == 2


# nothing on both sides


def test_an_image_in_both_files_is_refused(tmp_path: Path) -> None:
    imported = source(tmp_path, [label("a.png", 3), label("b.png", 3)], [label("d.png", 3), {"img_path": "B.PNG", "gt_score": 3}])
    (tmp_path / "B.PNG").unlink()
    message = r"test\.json, entry 2: the image B\.PNG stands in .*train\.json, entry 2 too, so test images would be known from training\. Take it out"
    with pytest.raises(BadRecord, match=message):
        imported.records()


def test_a_group_in_both_files_is_refused(tmp_path: Path) -> None:
    imported = source(tmp_path, [label("I01_01.png", 3), label("I02_01.png", 3)], [label("i02_03.png", 3)], group="^[iI][0-9]+")
    with pytest.raises(BadRecord, match=r"entry 1: the image i02_03\.png is of group i02, of which images stand in .*train\.json, entry 2 too"):
        imported.records()


# bad input


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"gt_score": 3}, r"train\.json, entry 2: there is no image name under image or img_path; found gt_score\. Name the image file"),
        ({"image": ["a.png"], "gt_score": 3}, r"entry 2: there is no image name"),
        ({"image": "z.png"}, r'entry 2: there is no score under gt_score, nor in an id such as "a\.png->3\.5"; found image\. Add it'),
        ({"image": "z.png", "gt_score": None, "id": "7"}, r"entry 2: there is no score under gt_score"),
        ({"image": "z.png", "id": "z.png->good"}, r"entry 2: 'good' under id is not a number"),
        ({"image": "z.png", "gt_score": "3,5"}, r"entry 2: '3,5' under gt_score is not a number\. Correct it"),
        ({"image": "z.png", "gt_score": True}, r"entry 2: True under gt_score is not a number"),
        ({"image": "z.png", "gt_score": 3, "std": [1]}, r"entry 2: \[1\] under std is not a number"),
        ({"image": "z.png", "gt_score": float("nan")}, r"entry 2: score nan is not within the scale 1\.\.5 of train"),
        ({"image": "z.png", "gt_score": 88.4}, r"entry 2: score 88\.4 is not within the scale 1\.\.5"),
        ({"image": "z.png", "gt_score": 3, "std": 17}, r"entry 2: a standard deviation of 17 cannot be on a scale of 1\.\.5\. Give std"),
        ({"image": "z.png", "gt_score": 3, "std": float("nan")}, r"entry 2: a standard deviation of nan"),
        ({"image": "z.png", "gt_score": 3, "level_probs": [1, 0]}, r"entry 2: level_probs must be a list of 5 numbers, from excellent to bad"),
        ({"image": "/etc/z.png", "gt_score": 3}, r'entry 2: "/etc/z\.png" leads out of .*Names must be relative'),
        ({"image": "../z.png", "gt_score": 3}, r'entry 2: "\.\./z\.png" leads out of'),
        ({"image": "C:\\z.png", "gt_score": 3}, r'entry 2: "C:/z\.png" leads out of'),
        ({"image": "gone.png", "gt_score": 3}, r"entry 2: the image .*gone\.png is missing\. Set data\.root="),
        ({"image": "a.png", "gt_score": 4}, r"entry 2: the image a\.png has score 4, and 3 in .*train\.json, entry 1\. Keep the entry that is right"),
        ({"image": "z.png", "gt_score": 3, "conversations": "good"}, r"entry 2: there is no list under conversations; found image, gt_score"),
        ({"image": "z.png", "gt_score": 3, "conversations": [{"from": "ape", "value": ""}]}, r"entry 2, turn 1: not a turn such as"),
    ],
)
def test_an_unusable_entry_is_named(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "z.png").touch()
    (tmp_path / "train.json").write_text(json.dumps([label("a.png", 3), entry]))
    with pytest.raises(BadRecord, match=message):
        LabelsJson(train=tmp_path / "train.json", root=tmp_path, low=1, high=5, direction="mos").records()


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.png").touch()
    place = tmp_path / "images"
    place.mkdir()
    (place / "a.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "train.json").write_text(json.dumps([label("a.png", 3)]))
    with pytest.raises(BadRecord, match=r"a\.png: this link leads out of"):
        LabelsJson(train=tmp_path / "train.json", root=place, low=1, high=5, direction="mos").records()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"image": "a.png", "gt_sc', r"train\.json: not JSON \(Unterminated string .* at line 1, column 21\)\. Was the download complete\?"),
        (b'{"train": ["a.png"], "test": []}', r"train\.json: this is no list of objects, one an image\. .*not split\.json or mos\.json"),
        (b"[]", r"train\.json: the file has no entries\. Give one object an image"),
        (b'[{"image": "a.png", "gt_score": 3}, "b.png"]', r"train\.json, entry 2: not an object with keys"),
        ('[{"image": "é.png"}]'.encode("latin-1"), r"train\.json: the text is not UTF-8 .*Save it as UTF-8"),
        (b"[" * 200_000, r"train\.json: cannot be read as JSON .*download the file again"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(BadRecord, match=message):
        LabelsJson(train=tmp_path / "train.json", root=tmp_path, low=1, high=5, direction="mos").records()


def test_missing_places_are_named(tmp_path: Path) -> None:
    options = {"root": tmp_path / "none", "low": 1, "high": 5, "direction": "mos"}
    with pytest.raises(DatasetNotFound, match=r"none\.json: there is no such file"):
        LabelsJson(train=tmp_path / "none.json", **options).records()
    with pytest.raises(DatasetNotFound, match=r"none: there is no such folder\. Set data\.root="):
        LabelsJson(train=write(tmp_path / "train.json", [label("a.png", 3)]), **options).records()


def test_missing_images_can_be_left_to_the_check(tmp_path: Path) -> None:
    imported = source(tmp_path, [label("a.png", 1), label("z.png", 1)], on_bad_image="skip")
    (tmp_path / "z.png").unlink()
    assert [r.path.is_file() for r in imported.records()] == [True, False]


def test_options_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleChoice, match=r"data\.low=5 and data\.high=1"):
        source(tmp_path, [], low=5, high=1)
    with pytest.raises(
        IncompatibleChoice, match=r"data\.direction=dmos with data\.low=-1 and data\.high=0: .*Choose data\.direction=mos.*data\.high=1"
    ):
        source(tmp_path, [], low=-1, high=0, direction="dmos")
    with pytest.raises(BadRecord, match=r"train\.json, entry 1: data\.group=\^ref finds nothing in the file name of a\.png"):
        source(tmp_path, [label("a.png", 3)], group="^ref").records()
    with pytest.raises(IncompatibleChoice, match=r"data\.group=\( is no regular expression"):
        LabelsJsonData(group="(")
