"""Images of mPLUG-Owl2 against what the original processing put out, and against what each pre-step means.

Folder $BIQA_OWL2_FIXTURE, else owl2/fixture of $BIQA_SHARED, holds the outputs.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from biqa.errors import BadRecord, IncompatibleChoice
from biqa.models.owl2.images import Owl2ImageProcessor

SMALL = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
MEAN_COLOUR = (122, 116, 104)  # 255 times CLIP's mean, rounded down
STEPS = {"pad": "pad", "squash": "resize", "crop": "centercrop"}
AS_IT_IS = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}


@pytest.fixture(scope="module")
def recorded():
    place = os.environ.get("BIQA_OWL2_FIXTURE") or (os.environ.get("BIQA_SHARED") and os.environ["BIQA_SHARED"] + "/owl2/fixture")
    if not place:
        pytest.skip("neither BIQA_OWL2_FIXTURE nor BIQA_SHARED is set: no outputs of the original here")
    return load_file(Path(place) / "preprocess.safetensors")


def pixels(image, **options):
    """The image as it goes to CLIP's processing: [height, width, 3] of 0..255."""
    return np.moveaxis(Owl2ImageProcessor(**SMALL, **AS_IT_IS, **options)(image)["pixel_values"][0], 0, -1)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("case", ["small_wide", "square", "tall", "wide"])
def test_pixels_are_those_of_the_original(recorded, case, step):
    image = Image.fromarray(recorded[f"{case}.in.rgb_u8"].numpy())
    made = Owl2ImageProcessor(pre_step=step, **SMALL)(image, return_tensors="pt")["pixel_values"]
    assert made.shape == (1, 3, 56, 56)
    assert torch.equal(made[0], recorded[f"{case}.out.{STEPS[step]}"])


@pytest.mark.parametrize("case", ["small_wide", "square", "tall", "wide"])
def test_the_square_is_that_of_the_original(recorded, case):
    image = Image.fromarray(recorded[f"{case}.in.rgb_u8"].numpy())
    np.testing.assert_array_equal(pixels(image), recorded[f"{case}.out.padded_rgb_u8"].numpy())


def test_pad_is_what_nothing_says():
    assert Owl2ImageProcessor().pre_step == "pad"
    assert Owl2ImageProcessor()(Image.new("RGB", (60, 20)), return_tensors="pt")["pixel_values"].shape == (1, 3, 448, 448)


def test_pad_centres_on_the_mean_colour():
    square = pixels(Image.new("RGB", (5, 2), (9, 8, 7)))
    assert square.shape == (5, 5, 3)
    assert (square[1:3] == (9, 8, 7)).all()  # (5 - 2) // 2 rows above
    assert (square[[0, 3, 4]] == MEAN_COLOUR).all()


def test_squash_stretches_and_crop_cuts():
    flag = Image.new("RGB", (90, 30), "blue")
    flag.paste("red", (30, 0, 60, 30))
    squashed, cropped = (
        Owl2ImageProcessor(pre_step=step, do_rescale=False, do_normalize=False, **SMALL)(flag)["pixel_values"][0] for step in ("squash", "crop")
    )
    assert (cropped[0] > 200).all()  # the middle third, red, is all that is left, with edges of the filter
    assert (cropped[2] < 55).all()
    assert [tuple(squashed[:, 28, column]) for column in (5, 28, 50)] == [(0, 0, 255), (255, 0, 0), (0, 0, 255)]


def test_the_background_is_that_of_the_mean():
    assert (pixels(Image.new("RGB", (1, 3)), image_mean=[0.5, 0.25, 0.75])[:, 0] == (127, 63, 191)).all()


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (4, 4), 77), (77, 77, 77)),
        (Image.new("1", (4, 4), 1), (255, 255, 255)),
        (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.fromarray(np.full((4, 4), 257 * 50, np.uint16)), (50, 50, 50)),
        (Image.new("RGBA", (4, 4), (9, 9, 9, 0)), MEAN_COLOUR),
        (Image.new("LA", (4, 4), (9, 0)), MEAN_COLOUR),
        (Image.new("RGBA", (4, 4), (1, 2, 3, 255)), (1, 2, 3)),
    ],
    ids=["grey", "one bit", "cmyk", "16 bit", "transparent", "transparent grey", "opaque"],
)
@pytest.mark.parametrize("step", STEPS)
def test_every_mode_becomes_rgb(image, colour, step):
    made = pixels(image, pre_step=step)
    assert made.shape == (4, 4, 3)
    assert (made == colour).all()


def test_a_transparent_palette_lies_on_the_mean_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 1
    assert pixels(image, pre_step="crop").tolist() == [[[10, 20, 30], list(MEAN_COLOUR)]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode):
    with pytest.raises(BadRecord, match=f"32-bit pixels \\(mode {mode}\\) has no stated range. Give it 8 or 16 bits"):
        pixels(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("step", STEPS)
def test_one_pixel_is_an_image(step):
    made = Owl2ImageProcessor(pre_step=step, do_rescale=False, do_normalize=False)(Image.new("RGB", (1, 1), (1, 2, 3)))["pixel_values"][0]
    assert made.shape == (3, 448, 448)
    assert all((plane == value).all() for plane, value in zip(made, (1, 2, 3), strict=True))


@pytest.mark.parametrize(("step", "count"), [("pad", "100,000,000"), ("squash", "100,000,000"), ("crop", "200,704,000")])
def test_what_would_fill_the_memory_is_refused(step, count):
    with pytest.raises(BadRecord, match=f"an image of 10000 x 10 pixels takes {count} pixels on its way .*pre_step={step}.*Scale it down, or cut it"):
        Owl2ImageProcessor(pre_step=step)(Image.new("RGB", (10000, 10)))


def test_arrays_are_images_too():
    array = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    make = Owl2ImageProcessor(**SMALL)
    one, other = (make(image, return_tensors="pt")["pixel_values"] for image in (array, Image.fromarray(array)))
    assert torch.equal(one, other)


def test_an_unknown_pre_step_is_refused():
    with pytest.raises(IncompatibleChoice, match="pre_step=stretch is none of pad, squash, crop"):
        Owl2ImageProcessor(pre_step="stretch")
    with pytest.raises(IncompatibleChoice, match="pre_step=stretch is none of pad, squash, crop"):
        Owl2ImageProcessor()(Image.new("RGB", (4, 4)), pre_step="stretch")


def test_a_call_may_choose_another_step(picture):
    image = picture(0, size=60).resize((60, 20))
    made = [Owl2ImageProcessor(pre_step=step, **SMALL) for step in STEPS]
    for step, processor in zip(STEPS, made, strict=True):
        chosen = made[0](image, pre_step=step, return_tensors="pt")["pixel_values"]
        assert torch.equal(chosen, processor(image, return_tensors="pt")["pixel_values"])
    assert made[0].pre_step == "pad"


@pytest.mark.parametrize("step", STEPS)
def test_saving_keeps_the_pre_step(tmp_path, step):
    Owl2ImageProcessor(pre_step=step, **SMALL).save_pretrained(tmp_path)
    again = Owl2ImageProcessor.from_pretrained(tmp_path)
    assert (again.pre_step, again.size.shortest_edge, again.crop_size.height) == (step, 56, 56)
    assert Owl2ImageProcessor.from_pretrained(tmp_path, pre_step="pad").pre_step == "pad"


def test_files_of_old_checkpoints_are_read(tmp_path, picture):
    old = {"crop_size": 448, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor"}
    old |= {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 448}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    image = picture(1, size=70)
    made = [
        processor(image, return_tensors="pt")["pixel_values"] for processor in (Owl2ImageProcessor.from_pretrained(tmp_path), Owl2ImageProcessor())
    ]
    assert torch.equal(*made)
