"""From config to data sets: one, a mixture, others to test on."""

import shutil

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from biqa import config as schema
from biqa.data.images import image_of
from biqa.data.splits import fingerprint
from biqa.errors import BadRecord, EmptySplit, IncompatibleChoice
from biqa.run import numbers_to_words
from biqa.running.loading import Images, load_corpus


def composed(*overrides):
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        return compose("config", [*numbers_to_words(list(overrides)), "name=x"])


def loaded(config) -> Images:
    [images] = load_corpus(config, describe_tests=False).training
    return images


def test_a_data_set_is_read_looked_at_and_put_into_words(table):
    images = loaded(composed(*table()))
    assert images.card.name == "scores"
    assert images.skipped == []
    assert [record.image for record in images.split("train")] == ["0.png", "1.png", "2.png"]
    assert [record.q for record in images.split("test")] == [0.5, 0.625]
    items = images.items("test")
    assert [(item.record.image, item.descriptions) for item in items] == [(name, (images.targets[name].text,)) for name in ("4.png", "5.png")]
    assert all(images.targets[record.image].text for record in images.records)
    written = images.items("val", {"3.png": ["One.", "Another."]})
    assert [item.descriptions for item in written] == [("One.",), ("Another.",)]


def test_a_bad_image_stops_or_is_left_out(table, tmp_path):
    overrides = table()
    (tmp_path / "1.png").write_text("no picture")
    with pytest.raises(BadRecord, match=r"Image 1\.png \(row 2 of 6\)"):
        loaded(composed(*overrides))
    images = loaded(composed(*overrides, "data.on_bad_image=skip"))
    assert [record.image for record in images.split("train")] == ["0.png", "2.png"]
    assert len(images.skipped) == 1
    assert "1.png" not in images.targets


def test_an_image_too_small_to_measure_stops_or_is_left_out(table, tmp_path):
    overrides = table()
    Image.new("RGB", (40, 12)).save(tmp_path / "1.png")
    with pytest.raises(BadRecord, match=r"Image 1\.png cannot be measured: 40 x 12 pixels are too few to measure"):
        loaded(composed(*overrides))
    images = loaded(composed(*overrides, "data.on_bad_image=skip"))
    assert [record.image for record in images.split("train")] == ["0.png", "2.png"]
    assert images.skipped == ["Image 1.png (row 2 of 6): 40 x 12 pixels are too few to measure: at least 16 a side"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_shorter_side_reduces_what_is_measured_and_what_the_model_sees(table, tmp_path, kept):
    cache = tmp_path / "cache"
    overrides = (*table(), f"images.cache={cache if kept else 'null'}")
    whole, reduced = (loaded(composed(*overrides, f"images.shorter_side={side}")) for side in ("null", "20"))
    sizes = [{image_of(record).size for record in images.records} for images in (whole, reduced)]
    assert sizes == [{(32, 32)}, {(20, 20)}]
    assert len(list(cache.glob("reduced/20/*.png"))) == (6 if kept else 0)
    assert whole.fingerprint == reduced.fingerprint


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_an_empty_split_is_refused(table, missing):
    other = "val" if missing == "train" else "train"
    splits = [other if split == missing else split for split in ("train", "train", "train", "val", "test", "test")]
    with pytest.raises(EmptySplit, match=f"The {missing} split holds no image"):
        loaded(composed(*table(splits)))


# several data sets


@pytest.fixture
def tables(tmp_path):
    """Writer of a `table` data set in a folder of its own; returns its csv. Pictures are of the seeds given."""

    def write(name, seeds, scores="12345", splits=("train", "train", "val", "test", "test")):
        folder = tmp_path / name
        folder.mkdir()
        lines = ["image,mos,side"]
        for number, (seed, score, split) in enumerate(zip(seeds, scores, splits, strict=True)):
            scene = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8))
            scene.resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
            lines.append(f"{number}.png,{score},{split}")
        (folder / f"{name}.csv").write_text("\n".join(lines))
        return folder / f"{name}.csv"

    return write


def table_options(prefix, file, *more):
    return (f"{prefix}.file={file}", f"{prefix}.low=1", f"{prefix}.high=5", *(f"{prefix}.{option}" for option in more))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """Options of a small synthetic data set below a prefix."""
    root = tmp_path_factory.mktemp("synthetic")
    return lambda prefix: tuple(
        f"{prefix}.{option}" for option in (f"root={root}", "train=6", "val=2", "test=3", "crop=48", "workers=0", "kinds=[jpeg,white_noise]")
    )


def test_a_mixture_trains_on_its_parts_by_their_weights(tables, stand_in):
    file = tables("mine", range(5))
    options = (*table_options("data.parts.table", file, "split=side"), *stand_in("data.parts.synthetic"))
    corpus = load_corpus(composed("data=synthetic+table", "data.weights.table=3", *options), describe_tests=False)
    assert [(images.card.name, images.weight) for images in corpus.training] == [("synthetic", 1.0), ("mine", 3.0)]
    assert corpus.test == corpus.training == corpus.sets
    items = corpus.items("train")
    assert [item.record.dataset for item in items] == ["synthetic"] * 6 + ["mine"] * 2
    assert corpus.weights(items) == [1.0] * 6 + [3.0] * 2
    assert all(item.descriptions for item in items)
    assert len(corpus.items("val")) == 3


def test_a_picture_is_measured_by_the_bins_of_the_training_images_whatever_set_it_is_of(tables):
    # one picture in three sets, among dark ones, among bright ones, and tested on alone: by bins of its own set it would be bright, dark and bright
    dark, bright, other = tables("dark", (0, 1, 2, 3, 4)), tables("bright", (0, 6, 7, 8, 9)), tables("other", (0, 11, 12, 13, 14))
    for file, shift in ((dark, -100), (bright, 100), (other, -100)):
        for number in range(1, 5):
            with Image.open(file.parent / f"{number}.png") as image:
                changed = image.point(lambda value, shift=shift: value + shift)
            changed.save(file.parent / f"{number}.png")
    mixed = load_corpus(composed("data=table", *table_options("data", dark, "split=side")), describe_tests=False).training[0].targets["0.png"]
    alone = load_corpus(composed("data=table", *table_options("data", bright, "split=side")), describe_tests=False).training[0].targets["0.png"]
    assert mixed.features["brightness"] > alone.features["brightness"]
    options = (*table_options("data", bright, "split=side"), *table_options("test.table", other), "overlap=note")
    trained, tested = load_corpus(composed("data=table", "test=[table]", *options), describe_tests=True).sets
    assert trained.targets["0.png"].features == tested.targets["0.png"].features == alone.features


def test_what_is_tested_on_alone_is_answered_as_a_whole_unless_its_split_is_published(tables):
    mine = table_options("data", tables("mine", range(5)), "split=side")
    other = tables("other", range(10, 15))
    for more, wanted in (
        ((), [0, 1, 2, 3, 4]),  # split drawn here: nothing of it was trained on, so all of it tests
        (("test.table.split=side",), [3, 4]),
        (("test.table.split=side", "test_images=all"), [0, 1, 2, 3, 4]),
        (("test.table.split=null", "test_images=split", "test.table.test_share=0.4"), None),
    ):
        corpus = load_corpus(composed("data=table", "test=[table]", *mine, *table_options("test.table", other), *more), describe_tests=False)
        [images] = corpus.test
        assert (images.card.name, images.weight, images.targets) == ("other", 0, {})
        assert {record.split for record in images.records} == {"test"}
        assert len(images.records) == 2 if wanted is None else [record.image for record in images.records] == [f"{n}.png" for n in wanted]
        assert images.fingerprint == fingerprint(images.records)
        assert [images.card.name for images in corpus.training] == ["mine"]


def test_of_what_is_trained_on_the_test_split_is_tested(tables, stand_in):
    file = tables("mine", range(5))
    options = (*table_options("data", file, "split=side"), *table_options("test.table", file), *stand_in("test.synthetic"))
    corpus = load_corpus(composed("data=table", "test=[synthetic,table]", *options), describe_tests=False)
    assert [images.card.name for images in corpus.test] == ["mine", "synthetic"]
    assert [record.image for record in corpus.test[0].split("test")] == ["3.png", "4.png"]
    assert corpus.test[0] is corpus.training[0]
    assert corpus.test[0].notes == ["It is trained on, so its test split is that of the data options; of test.table not used: data.split."]


def test_a_picture_that_is_trained_on_under_another_name_is_told(tables, tmp_path):
    mine, other = tables("mine", range(5)), tables("other", (20, 21, 22, 23, 1))
    with Image.open(other.parent / "4.png") as image:
        image.save(other.parent / "4.png".replace("png", "jpg"), quality=80)
    shutil.move(other.parent / "4.jpg", other.parent / "4.png")
    options = (*table_options("data", mine, "split=side"), *table_options("test.table", other))
    [images] = load_corpus(composed("data=table", "test=[table]", *options), describe_tests=False).test
    assert images.notes == [
        "1 of its 5 test images look like images that are trained on in mine (first: 4.png like 1.png, by perceptual hash). "
        "Accuracy on them is not that on unseen content."
    ]


def test_a_data_set_that_cannot_be_described_is_tested_all_the_same(tables, stand_in):
    file = tables("annotated", range(5, 10))
    file.write_text(file.read_text().replace("mos", "brightness,mos").replace(".png,", ".png,3,"))
    options = (*table_options("data", file, "split=side", "features=[brightness]"), *stand_in("test.synthetic"))
    corpus = load_corpus(composed("data=table", "descriptions=attributes", "test=[synthetic]", *options), describe_tests=True)
    [images] = corpus.test
    assert images.targets == {}
    assert [len(item.descriptions) for item in images.items("test")] == [0] * 3
    assert len(images.notes) == 1
    assert images.notes[0].startswith("Its descriptions are written and not measured, for want of targets. Image ")
    assert images.notes[0].endswith("Choose descriptions=measured, which describes any image.")
    assert len(corpus.training[0].targets) == 5


def test_two_data_sets_of_one_name_are_refused(tables, tmp_path):
    mine = tables("mine", range(5))
    copy = shutil.copytree(mine.parent, tmp_path / "copy") / "mine.csv"
    with pytest.raises(IncompatibleChoice, match=r"Two data sets are called mine: answers are kept by name\. Give one of them another: name=\."):
        load_corpus(composed("data=table", "test=[table]", *table_options("data", mine), *table_options("test.table", copy)), describe_tests=False)


def test_an_epoch_of_a_part_that_has_no_training_images_is_refused(tables, stand_in):
    file = tables("mine", range(5), splits=("val", "val", "val", "test", "test"))
    with pytest.raises(EmptySplit, match="The train split holds no image"):
        load_corpus(
            composed("data=synthetic+table", *stand_in("data.parts.synthetic"), *table_options("data.parts.table", file, "split=side")),
            describe_tests=False,
        )
