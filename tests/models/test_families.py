"""How many visual tokens an image of any shape takes, where the parts of a model are, and what a decoder alone is made of."""

import pytest
import torch
from checkpoints import NAMES, write_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoConfig

from biqa.errors import BadRecord, IncompatibleChoice
from biqa.models.families import FAMILIES, within
from biqa.models.hf import build_hf
from biqa.models.processing import Processor

LEAST = {"smolvlm": 4, "idefics3": 4, "internvl": 4, "qwen2_5_vl": 1, "qwen3_vl": 1, "llava": 1}
TOWERS = {
    "dinov2": {"model_type": "dinov2", "image_size": 28, "patch_size": 7},
    "dinov2_with_registers": {"model_type": "dinov2_with_registers", "image_size": 28, "patch_size": 7, "num_register_tokens": 3},
    "siglip": {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7},
}  # fmt: skip
SMALL = {"hidden_size": 32, "intermediate_size": 48, "mlp_ratio": 2, "num_hidden_layers": 2, "num_attention_heads": 2}
PLAIN = {"revision": None, "family": None, "dtype": "float32", "attention": "sdpa", "visual_tokens": None, "image": {}, "vision": True, "seed": 0}


def vlm_of(folder, **options):
    return build_hf(id=str(folder), **(PLAIN | options)).eval()


@pytest.fixture(scope="module")
def llava_with(tmp_path_factory):
    """Writer of a LLaVA with another tower."""
    written = {}

    def write(tower, strategy="default"):
        if (tower, strategy) not in written:
            folder = tmp_path_factory.mktemp("towers") / f"{tower}-{strategy}"
            change = {"vision_config": SMALL | TOWERS[tower], "vision_feature_select_strategy": strategy}
            written[tower, strategy] = write_checkpoint(folder, "llava", **change)
        return written[tower, strategy]

    return write


def count(folder, image, visual_tokens=None):
    """Visual tokens of a blank image, without a model."""
    config = AutoConfig.from_pretrained(folder)
    family = FAMILIES[config.model_type]
    processor = Processor(folder, config.image_token_id)
    assert family.fewer is not None
    fewer = {} if visual_tokens is None else family.fewer(config, processor.image_processor, visual_tokens)
    made = processor.image_processor(images=[image], return_tensors="pt", **{**dict(family.image_options), **fewer})
    return family.placeholder(config, made, "\0").count("\0")


@pytest.mark.parametrize("family", ["smolvlm", "idefics3", "qwen2_5_vl", "qwen3_vl", "internvl", "llava"])
def test_the_cap_holds_for_any_shape(family, checkpoint, llava_with):
    folder = llava_with("dinov2") if family == "llava" else checkpoint(family)

    @settings(max_examples=40, deadline=None)
    @given(width=st.integers(1, 400), height=st.integers(1, 400), most=st.integers(LEAST[family], 120))
    def holds(width, height, most):
        if max(width, height) > min(most, 200) * min(width, height):  # a strip: one row of patches is the least there is
            return
        image = Image.new("RGB", (width, height))
        assert 0 < count(folder, image, most) <= min(most, max(count(folder, image), LEAST[family]))

    holds()


@pytest.mark.parametrize(
    ("family", "size", "expected"),
    [
        ("llava", (300, 30), 16),
        ("smolvlm", (100, 100), 4 * 17),  # four rows of four and the whole
        ("smolvlm", (10, 5), 4 * 9),  # enlarged: four by two
        ("idefics3", (50, 100), 4 * 7),
        ("internvl", (100, 50), 4 * 3),  # two tiles and the whole
        ("internvl", (20, 20), 4),
        ("qwen2_5_vl", (140, 84), 5 * 3),
        ("qwen2_5_vl", (3000, 3000), 5 * 5),  # at most 30
        ("qwen2_5_vl", (14, 14), 4),  # at least 4
        ("qwen3_vl", (160, 96), 5 * 3),
    ],
)
def test_tokens_of_an_image(checkpoint, family, size, expected):
    assert count(checkpoint(family), Image.new("RGB", size)) == expected


@pytest.mark.parametrize(
    ("tower", "strategy", "expected"),
    [("dinov2", "default", 16), ("dinov2", "full", 17), ("dinov2_with_registers", "default", 19), ("siglip", "full", 16)],
)
def test_a_llava_with_another_tower(llava_with, picture, tower, strategy, expected):
    """The tower's own other tokens are counted: the forward pass takes just so many."""
    vlm = vlm_of(llava_with(tower, strategy))
    prompt = vlm.prompt("Rate it.", picture())
    assert vlm.visual_tokens(prompt) == expected
    ids = torch.tensor([prompt.ids])
    assert vlm.hidden(ids, torch.ones_like(ids), image=prompt.image).shape == (1, len(prompt.ids), 32)
    assert vlm.tower_features(prompt).shape == (expected, 32)


def test_smaller_pictures_for_a_tower_of_any_size(llava_with, picture):
    vlm = vlm_of(llava_with("dinov2_with_registers"), visual_tokens=13)
    prompt = vlm.prompt("Rate it.", picture())
    assert prompt.image["pixel_values"].shape[-2:] == (21, 21)
    assert vlm.visual_tokens(prompt) == 9 + 3
    ids = torch.tensor([prompt.ids])
    assert vlm.hidden(ids, torch.ones_like(ids), image=prompt.image).isfinite().all()


def test_a_tower_of_one_size(checkpoint):
    assert count(checkpoint("llava"), Image.new("RGB", (50, 50)), 16) == 16
    with pytest.raises(
        IncompatibleChoice, match=r"model\.visual_tokens=15: a tower of type clip_vision_model takes 28 x 28 pixels only, 16 tokens\."
    ):
        vlm_of(checkpoint("llava"), visual_tokens=15)


def test_a_llava_with_an_unknown_tower(tmp_path):
    folder = write_checkpoint(tmp_path / "x", "llava", vision_config=SMALL | {"model_type": "pixtral", "head_dim": 16})
    with pytest.raises(
        IncompatibleChoice, match="a LLaVA with a tower of type pixtral is not known: choose a checkpoint with one of clip_vision_model"
    ):
        vlm_of(folder)


@pytest.mark.parametrize("family", ["smolvlm", "idefics3", "internvl"])
def test_fewer_tokens_than_a_tile_has(checkpoint, family):
    with pytest.raises(IncompatibleChoice, match=r"model\.visual_tokens=3: an image takes at least 4 tokens in this model\. Choose 4 or more\."):
        vlm_of(checkpoint(family), visual_tokens=3)


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        ("qwen2_5_vl", {"size": {"shortest_edge": 784, "longest_edge": 784 * 6}}, 4),
        ("qwen3_vl", {"size": {"shortest_edge": 1024, "longest_edge": 1024 * 6}}, 4),
        ("smolvlm", {"size": {"longest_edge": 56}}, 4 * 5),
        ("smolvlm", {"do_image_splitting": False}, 4),
        ("internvl", {"max_patches": 1}, 4),
        ("internvl", {"size": {"height": 14, "width": 14}, "crop_to_patches": False}, 1),  # a smaller picture: fewer patches a tile
    ],
)
def test_settings_of_the_image_processor(checkpoint, picture, family, options, expected):
    vlm = vlm_of(checkpoint(family), image=options)
    prompt = vlm.prompt("Rate it.", picture(size=96))
    assert vlm.visual_tokens(prompt) == expected
    ids = torch.tensor([prompt.ids])
    assert vlm.hidden(ids, torch.ones_like(ids), image=prompt.image).isfinite().all()


def test_a_strip_of_pixels(checkpoint):
    with pytest.raises(BadRecord, match=r"an image of 300 x 1 pixels: absolute aspect ratio must be smaller than 200.*Take it out of the data"):
        vlm_of(checkpoint("qwen2_5_vl")).prompt("Rate it.", Image.new("RGB", (300, 1)))


@pytest.mark.parametrize("family", ["smolvlm", "idefics3"])
@pytest.mark.parametrize("grey", [0, 127, 128, 255])
def test_an_even_grey_picture_is_no_padding(checkpoint, family, grey):
    """transformers drops tiles whose every number is 0; no grey of eight bits becomes one."""
    vlm = vlm_of(checkpoint(family))
    prompt = vlm.prompt("Rate it.", Image.new("RGB", (96, 96), (grey, grey, grey)))
    assert (prompt.image["pixel_values"].half() != 0).all()
    ids = torch.tensor([prompt.ids])
    assert vlm.hidden(ids, torch.ones_like(ids), image=prompt.image).isfinite().all()


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights(checkpoint, picture, family, dtype):
    full, half = vlm_of(checkpoint(family)), vlm_of(checkpoint(family), dtype=dtype)
    assert next(half.parameters()).dtype == getattr(torch, dtype)
    prompt = half.prompt("Rate it.", picture())
    ids = torch.tensor([prompt.ids])
    with torch.no_grad():
        told, expected = (vlm.level_logits(vlm.hidden(ids, torch.ones_like(ids), image=prompt.image)[0, -1]) for vlm in (half, full))
    assert told.dtype == torch.float32
    torch.testing.assert_close(told, expected, atol=0.35 if dtype == "bfloat16" else 0.05, rtol=0.05)


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_or_not(tmp_path, family, tied):
    folder = write_checkpoint(tmp_path / family, family, tied=tied, old_names=not tied)
    whole, decoder = vlm_of(folder), vlm_of(folder, vision=False)
    assert (whole.model.get_input_embeddings().weight is whole.model.get_output_embeddings().weight) == tied
    ids = torch.tensor([whole.prompt("Rate it.").ids])
    logits = [vlm.logits(vlm.hidden(ids, torch.ones_like(ids))) for vlm in (whole, decoder)]
    torch.testing.assert_close(logits[1], logits[0], atol=1e-5, rtol=1e-5)
    learning = [sum(parameter.numel() for parameter in vlm.parameters()) for vlm in (whole, decoder)]
    assert learning[1] < learning[0]


@pytest.mark.parametrize("family", NAMES)
def test_parts(checkpoint, family):
    vlm = vlm_of(checkpoint(family))
    of = FAMILIES[family]
    for path in (of.tower, *of.projector, of.decoder, f"{of.decoder}.layers", f"{of.decoder}.norm", of.head):
        vlm.model.get_submodule(path)
    block = vlm.model.get_submodule(f"{of.decoder}.layers.0")
    linears = {name.rpartition(".")[2] for name, module in block.named_modules() if isinstance(module, torch.nn.Linear)}
    assert linears == set(of.linears)
    tower = {
        name.rpartition(".")[2] for name, module in vlm.model.named_modules() if of.part(name) == "tower" and isinstance(module, torch.nn.Linear)
    }
    assert tower == set(of.tower_linears)


def test_a_piece_after_another(checkpoint):
    tokenizer = vlm_of(checkpoint("llava"), vision=False).tokenizer
    assert "".join(tokenizer.convert_ids_to_tokens(within(tokenizer, " good"))) == "▁good"
    assert "".join(tokenizer.convert_ids_to_tokens(within(tokenizer, "good"))) == "good"
    assert tokenizer.convert_ids_to_tokens(within(tokenizer, "."))[0] == "."
