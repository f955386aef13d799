import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

import biqa.data.synthetic as module
from biqa.data.distortions import DISTORTIONS
from biqa.data.references import photographs
from biqa.data.synthetic import Synthetic
from biqa.errors import BadRecord, DatasetNotFound, IncompatibleChoice

SMALL: dict[str, Any] = {"train": 14, "val": 3, "test": 5, "crop": 48, "workers": 1}


def small(root, **changes):
    return Synthetic(root=root, **{**SMALL, **changes})


def pixels(records):
    return {record.image: np.asarray(Image.open(record.path)) for record in records}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set: its source and its records."""
    source = small(tmp_path_factory.mktemp("cache"))
    return source, source.records()


@pytest.fixture
def users_folder(tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    for seed in range(4):
        small = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
        Image.fromarray(small).resize((150, 120)).save(folder / f"{seed}.png")
    return folder


def test_images_and_records(made):
    source, records = made
    assert [sum(record.split == split for record in records) for split in ("train", "val", "test")] == [14, 3, 5]
    assert len({record.image for record in records}) == 22
    for record in records:
        image = np.asarray(Image.open(record.path))
        assert image.shape == (48, 48, 3)
        assert image.dtype == np.uint8
        assert record.q == pytest.approx((record.score - 1) / 4)
        assert (record.q_std is None) == (record.distortions == ()) == (record.score == 5.0)
        assert all(kind in DISTORTIONS and 1 <= level <= 5 for kind, level in record.distortions)
    assert source.card.stand_in
    assert (source.card.low, source.card.high, source.card.direction) == (1.0, 5.0, "mos")


def test_score_of_two_at_once_multiplies_the_qualities(tmp_path):
    from biqa.data.kadid_opinions import opinion

    for record in small(tmp_path, two_at_once=1.0, pristine=0.0).records():
        (kind, level), (other_kind, other_level) = record.distortions
        expected = (opinion(kind, level)[0] - 1) / 4 * (opinion(other_kind, other_level)[0] - 1) / 4
        assert record.q == pytest.approx(expected, abs=1e-6)


def test_second_call_reads_the_cache(made, monkeypatch):
    source, records = made

    def refuse(*_, **__):
        raise AssertionError("generated again")

    monkeypatch.setattr(module, "render", refuse)
    assert source.records() == records
    assert small(source.root, workers=7).records() == records


@pytest.mark.parametrize(
    "change",
    [{"train": 15}, {"crop": 49}, {"kinds": ["jpeg", "white_noise"]}, {"two_at_once": 0.3}, {"pristine": 0.1}, {"seed": 1}],
    ids=lambda change: next(iter(change)),
)
def test_changed_argument_is_another_folder(made, change):
    source, _ = made
    assert small(source.root, **change).folder() != source.folder()


def test_order_of_kinds_does_not_matter(tmp_path):
    there, back = (Synthetic(root=tmp_path, kinds=kinds) for kinds in (["jpeg", "darken"], ["darken", "jpeg"]))
    assert there.folder() == back.folder()


def test_number_of_workers_does_not_change_the_pixels(made, tmp_path):
    _, records = made
    parallel = small(tmp_path, workers=2).records()
    assert [(r.image, r.score, r.group) for r in parallel] == [(r.image, r.score, r.group) for r in records]
    for image, expected in pixels(records).items():
        np.testing.assert_array_equal(pixels(parallel)[image], expected)


def test_card_json_says_what_was_asked_for(made):
    source, _ = made
    facts = json.loads((source.folder() / "card.json").read_text())
    assert facts["crop"] == 48
    assert "stand-in" in facts["what"]
    assert sum(len(names) for names in facts["photographs"].values()) == 13


def test_no_group_on_two_sides(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "render", lambda recipe, reference, crop: np.zeros((crop, crop, 3), dtype=np.uint8))
    records = Synthetic(root=tmp_path, train=300, val=80, test=80, crop=48, workers=1).records()
    sides = {split: {record.group for record in records if record.split == split} for split in ("train", "val", "test")}
    assert not sides["train"] & sides["val"] | sides["train"] & sides["test"] | sides["val"] & sides["test"]
    names = {reference.name for reference in photographs()}
    for groups in sides.values():
        assert groups & names
        assert any(group.startswith("dead_leaves") for group in groups)
        assert any(group.startswith("pink_noise") for group in groups)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_interrupted_generation_leaves_nothing(tmp_path, monkeypatch, error):
    real, done = module.render, []

    def interrupted(*arguments):
        if len(done) == 5:
            raise error
        done.append(1)
        return real(*arguments)

    monkeypatch.setattr(module, "render", interrupted)
    source = small(tmp_path)
    with pytest.raises(error):
        source.records()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(module, "render", real)
    assert len(source.records()) == 22


def test_the_first_of_two_processes_wins(tmp_path, monkeypatch):
    source = small(tmp_path)
    real = module.write_labels

    def meanwhile(recipes, path):
        real(recipes, path)
        other = source.folder()
        (other / "images").mkdir(parents=True)
        real(recipes, other / "labels.csv")

    monkeypatch.setattr(module, "write_labels", meanwhile)
    assert len(source.records()) == 22
    assert list(tmp_path.iterdir()) == [source.folder()]


def test_users_photographs_replace_the_built_in_ones(users_folder, tmp_path):
    source = small(tmp_path / "cache", references=users_folder)
    assert {record.group for record in source.records()} == {"0.png", "1.png", "2.png", "3.png"}
    before = source.folder()
    (users_folder / "3.png").write_bytes((users_folder / "2.png").read_bytes())
    assert source.folder() != before


def test_bad_photograph_stops_or_is_left_out(users_folder, tmp_path):
    (users_folder / "bad.png").write_text("no image")
    with pytest.raises(BadRecord, match=r"bad\.png"):
        small(tmp_path / "cache", references=users_folder).records()
    source = small(tmp_path / "cache", references=users_folder, on_bad_image="skip")
    assert {record.group for record in source.records()} == {"0.png", "1.png", "2.png", "3.png"}
    assert json.loads((source.folder() / "card.json").read_text())["left_out"] == ["bad.png"]


def test_folder_problems_are_named(users_folder, tmp_path):
    with pytest.raises(DatasetNotFound, match="there is no such folder"):
        small(tmp_path, references=tmp_path / "nowhere").records()
    (users_folder / "0.png").unlink()
    (users_folder / "1.png").unlink()
    with pytest.raises(IncompatibleChoice, match=r"2 usable photograph\(s\), but train, val and test need one each"):
        small(tmp_path, references=users_folder).records()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": ["fog"]}, r"data.kinds: there is no distortion type 'fog'. Choose from: gaussian_blur, "),
        ({"kinds": []}, "data.kinds is empty"),
        ({"val": 0}, "data.train, data.val and data.test must each be at least 1"),
        ({"crop": 16}, "data.crop=16 is too small"),
        ({"crop": 400}, "data.crop=400 is more than the built-in photographs have: use 300 or less"),
        ({"two_at_once": 0.7, "pristine": 0.5}, "data.two_at_once=0.7 and data.pristine=0.5 are shares"),
        ({"pristine": -0.1}, "data.pristine=-0.1 are shares"),
        ({"kinds": ["gaussian_blur", "lens_blur"]}, "data.two_at_once=0.25 needs types of two sorts .* but data.kinds has gaussian_blur, lens_blur"),
    ],
)
def test_arguments_without_sense_are_refused(tmp_path, options, message):
    with pytest.raises(IncompatibleChoice, match=message):
        Synthetic(root=tmp_path, **options)
