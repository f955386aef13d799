"""Description targets from distortions, attributes, measurements and files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from biqa.data.record import Record
from biqa.data.targets import AttributeTargets, DistortionTargets, FileTargets, MeasuredTargets
from biqa.errors import AnswerLeak, BadRecord, DatasetNotFound, IncompatibleChoice
from biqa.language.features import parse
from biqa.language.leak import find_leak


def record(image: str, path: Path = Path("none"), **options: Any) -> Record:
    return Record(**({"image": image, "path": path, "q": 0.5, "split": "train", "group": image, "score": 3.0} | options))


# distortions


def test_distortions_in_words_and_back() -> None:
    targets = DistortionTargets(seed=0)
    records = [record("a", distortions=(("jpeg", 4), ("gaussian_blur", 1))), record("b")]
    targets.fit(records)
    said = [targets.describe(r) for r in records]
    assert [d.features for d in said] == [{"jpeg": 4, "gaussian_blur": 1}, {}]
    assert [parse(d.text) for d in said] == [d.features for d in said]


def test_a_paraphrase_depends_on_seed_and_name_alone() -> None:
    records = [record(f"{i}", distortions=(("jpeg", 4),)) for i in range(50)]
    forth = [DistortionTargets(seed=0).describe(r).text for r in records]
    back = [DistortionTargets(seed=0).describe(r).text for r in records[::-1]][::-1]
    other = [DistortionTargets(seed=1).describe(r).text for r in records]
    assert forth == back != other
    assert len(set(forth)) == 8


def test_a_data_set_without_distortions_is_not_called_free_of_them() -> None:
    with pytest.raises(
        BadRecord, match=r"Image a, like the other 1 training images of its data set, has no known distortion\. Choose descriptions=measured"
    ):
        DistortionTargets().fit([record("a"), record("b")])
    with pytest.raises(BadRecord, match=r"has no known distortion\. a\.txt is missing\. Choose descriptions=measured"):
        DistortionTargets().fit([record("a", absent="a.txt is missing")])


@pytest.mark.parametrize(
    ("distortions", "message"),
    [
        ((("fog", 1),), "Image a: distortion fog at level 1 has no wording. .*gaussian_blur.*descriptions=measured"),
        ((("jpeg", 6),), "distortion jpeg at level 6 has no wording"),
        ((("jpeg", 1), ("jpeg", 2)), "Image a: a distortion type stands twice"),
    ],
)
def test_a_distortion_without_words_is_named(distortions: tuple[tuple[str, int], ...], message: str) -> None:
    with pytest.raises(BadRecord, match=message):
        DistortionTargets().describe(record("a", distortions=distortions))


# attributes


def attributed(count: int = 20) -> list[Record]:
    return [record(f"{i}", attributes={"Sharpness": float(i), "colorfulness": float(-i)}) for i in range(count)]


def test_attributes_go_by_their_names_and_grow_with_their_values() -> None:
    targets = AttributeTargets(seed=0)
    targets.fit(attributed())
    said = [targets.describe(r).features for r in attributed()]
    assert [features["sharpness"] for features in said] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    assert [features["colourfulness"] for features in said] == [4] * 4 + [3] * 4 + [2] * 4 + [1] * 4 + [0] * 4


def test_names_choose_and_turn_round() -> None:
    spaq = [record(f"{i}", attributes={"Noisiness": float(i), "EXIF": 0.0}) for i in range(10)]
    targets = AttributeTargets(seed=0, names={"Noisiness": "-noise"})
    targets.fit(spaq)
    assert [targets.describe(r).features for r in (spaq[0], spaq[-1])] == [{"noise": 4}, {"noise": 0}]


def test_bins_are_those_of_the_training_images() -> None:
    targets = AttributeTargets(seed=0)
    targets.fit(attributed(10))
    assert targets.describe(record("t", attributes={"sharpness": 100.0, "colorfulness": 0.0})).features == {"sharpness": 4, "colourfulness": 4}


def test_attributes_that_cannot_be_worded_are_named() -> None:
    with pytest.raises(BadRecord, match=r"Image a: the attribute Noisiness has no wording\. Name it as one of brightness, .*descriptions=measured"):
        AttributeTargets().fit([record("a", attributes={"Noisiness": 1.0})])
    with pytest.raises(BadRecord, match="Image a: no annotated value of any attribute"):
        AttributeTargets().fit([record("a")])
    with pytest.raises(IncompatibleChoice, match="Attribute x: there is no wording for -smell"):
        AttributeTargets(names={"x": "-smell"})
    with pytest.raises(
        BadRecord, match=r"^Image a: no annotated value of any attribute\. a\.csv is missing: get it at b, or choose descriptions=measured"
    ):
        AttributeTargets().fit([record("a", absent="a.csv is missing: get it at b")])
    targets = AttributeTargets()
    targets.fit(attributed())
    for attributes in ({"sharpness": 1.0}, {"sharpness": 1.0, "colorfulness": float("nan")}):
        with pytest.raises(BadRecord, match=r"Image t: no annotated value of colourfulness.*descriptions=measured"):
            targets.describe(record("t", attributes=attributes))


def test_a_defect_turned_round_has_no_votes_of_zero() -> None:
    records = [record(f"{i}", attributes={"clean": float(i)}) for i in range(5)]
    targets = AttributeTargets(names={"clean": "-visible_blur"})
    targets.fit(records)
    assert [targets.describe(r).features["visible_blur"] for r in records] == [4, 3, 2, 1, 0]


def test_attributes_of_each_data_set_are_binned_by_its_own_training_images() -> None:
    one = [record(f"a{i}", dataset="one", attributes={"brightness": float(i)}) for i in range(5)]
    two = [record(f"b{i}", dataset="two", attributes={"brightness": 1000.0 - 100 * i, "noise": float(i)}) for i in range(5)]
    targets = AttributeTargets()
    targets.fit([*one, *two])
    assert [targets.describe(r).features for r in one] == [{"brightness": i} for i in range(5)]
    assert [targets.describe(r).features for r in two] == [{"brightness": 4 - i, "noise": i} for i in range(5)]
    with pytest.raises(BadRecord, match=r"Image c: three is not trained on, so its attributes have no scale here\. Choose descriptions=measured"):
        targets.describe(record("c", dataset="three", attributes={"brightness": 1.0}))


def test_each_data_set_of_a_mixture_must_have_distortions() -> None:
    known, unknown = record("a", dataset="one", distortions=(("jpeg", 1),)), record("b", dataset="two")
    with pytest.raises(BadRecord, match=r"Image b, like the other 0 training images of its data set, has no known distortion"):
        DistortionTargets().fit([known, unknown])


# measurements


def photographs(place: Path) -> list[Record]:
    """One picture, ever more blurred."""
    sharp = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    records = []
    for i in range(10):
        path = place / f"{i}.png"
        sharp.filter(ImageFilter.GaussianBlur(i / 4)).save(path)
        records.append(record(path.name, path))
    return records


def test_measurements_in_words(tmp_path: Path) -> None:
    records = photographs(tmp_path)
    targets = MeasuredTargets(seed=0)
    targets.fit(records)
    said = [targets.describe(r) for r in records]
    assert [d.features["sharpness"] for d in said] == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]
    assert [parse(d.text) for d in said] == [d.features for d in said]
    assert len(said[0].features) == 6
    assert all(find_leak(d.text) is None for d in said)


def test_an_image_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    targets = MeasuredTargets()
    targets.fit(photographs(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "small.png")
    with pytest.raises(BadRecord, match=r"Image small\.png cannot be measured: 8 x 8 pixels are too few.*descriptions=file"):
        targets.describe(record("small.png", tmp_path / "small.png"))
    with pytest.raises(BadRecord, match=r"Image gone\.png cannot be measured"):
        targets.describe(record("gone.png", tmp_path / "gone.png"))


# files

TEXTS = [
    {"image": "a.png", "description": "A dark street. The image shows slight block artefacts. The quality of the image is poor."},
    {"image": "b.png", "description": "Details are sharp. Therefore, the overall quality is acceptable. The quality of this image is very good."},
    {"image": "c.png", "description": "The quality of the image is bad."},
    {"image": "d.png", "description": "The lighting is good. Details are blurred."},
    {"image": "e.png", "description": "Details are sharp."},
    {"image": "e.png", "description": "Details are very sharp."},
]


def texts(place: Path) -> FileTargets:
    (place / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TEXTS))
    return FileTargets(file=place / "texts.jsonl", seed=0)


def test_verdicts_are_cut_off_counted_and_kept(tmp_path: Path) -> None:
    targets = texts(tmp_path)
    targets.fit([])
    said = targets.describe(record("a.png"))
    assert said.text == "A dark street. The image shows slight block artefacts."
    assert said.features == {"jpeg": 2}
    assert targets.describe(record("b.png")).text == "Details are sharp."
    assert list(targets.verdicts.values()) == [
        "The quality of the image is poor.",
        "Therefore, the overall quality is acceptable. The quality of this image is very good.",
        "The quality of the image is bad.",
    ]


def test_of_several_texts_the_seed_draws_one(tmp_path: Path) -> None:
    texts(tmp_path)
    drawn = [FileTargets(file=tmp_path / "texts.jsonl", seed=seed).describe(record("e.png")).text for seed in range(20)]
    assert set(drawn) == {"Details are sharp.", "Details are very sharp."}


def test_what_a_file_cannot_give_is_named(tmp_path: Path) -> None:
    targets = texts(tmp_path)
    with pytest.raises(BadRecord, match=r"Image z\.png: .*texts\.jsonl has no text for it \(its first image is a\.png\).*descriptions=measured"):
        targets.describe(record("z.png"))
    with pytest.raises(BadRecord, match=r"texts\.jsonl, row 3: the description of image c\.png says nothing but a verdict"):
        targets.describe(record("c.png"))
    with pytest.raises(AnswerLeak, match=r'texts\.jsonl, row 4: the description says "good"'):
        targets.describe(record("d.png"))
    with pytest.raises(DatasetNotFound, match="no column text; found image, description"):
        FileTargets(file=tmp_path / "texts.jsonl", description="text")
