"""Where each family of VLMs keeps its parts, and how an image enters its prompts. The one table that the rest of biqa reads instead of knowing
architectures.
"""

import copy
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import Qwen2Config, Qwen3Config

from biqa.errors import IncompatibleChoice

ANY_SIZE = ("dinov2", "dinov2_with_registers")
"""Towers that take pictures of any size."""
BEFORE_PATCHES: dict[str, Callable[[Any], int]] = {
    "clip_vision_model": lambda vision: 1, "siglip_vision_model": lambda vision: 0,
    "dinov2": lambda vision: 1, "dinov2_with_registers": lambda vision: 1 + vision.num_register_tokens,
}  # fmt: skip
"""LLaVA's towers: tokens of a class and the like that each puts before those of the patches."""
LLAMA_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def within(tokenizer: Any, text: str, before: str = "1") -> list[int]:  # noqa: ANN401 (any tokenizer of transformers)
    """Token ids of a piece of a text as they are after `before`.

    Sentencepiece tokenizers would put a space of their own before a piece that stands alone. A digit shares no token with what follows it.
    """
    first, together = (tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in (before, before + text))
    assert together[: len(first)] == first, f"{before!r} and {text!r} share a token in this tokenizer"
    return together[len(first) :]


def _text_config(config: Any) -> Any:  # noqa: ANN401 (each family has a config class of its own)
    text = copy.deepcopy(config.get_text_config())
    text.tie_word_embeddings = config.tie_word_embeddings  # what counts in the whole model
    return text


@dataclass(frozen=True)
class Grid:
    """Visual tokens that lie row by row over the whole picture: each stands for one cell of it."""

    first: int
    """How many visual tokens stand before them."""
    rows: int
    columns: int


@dataclass(frozen=True)
class Family:
    """Module paths inside a transformers `...ForConditionalGeneration` class, and what an image is in its prompts."""

    name: str
    """`model_type` of its config.json."""
    tower: str
    """The vision tower; where the projector lies inside it, that counts as projector."""
    projector: tuple[str, ...]
    """What maps tower features to decoder width."""
    decoder: str
    """The language model without its head: its blocks are `layers`, its final norm is `norm`."""
    head: str
    """The output head."""
    placeholder: Callable[[Any, Mapping[str, Any], str], str]
    """(model config, what the image processor made of one image, the image token) -> the text that takes the place of one image token."""
    linears: tuple[str, ...] = LLAMA_LINEARS
    """Linear layers inside a decoder block, as regular expressions of their last names: what LoRA adapts by default."""
    tower_linears: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    """The same of the tower."""
    inputs: tuple[str, ...] = ("pixel_values",)
    """What the tower needs of what the image processor makes."""
    image_options: tuple[tuple[str, Any], ...] = ()
    """Settings of the image processor that this family's own processor would add."""
    fewer: Callable[[Any, Any, int], dict[str, Any]] | None = None
    """(model config, image processor, number) -> settings with which an image takes at most so many visual tokens, and never more than without them.

    None: the number is fixed."""
    tiles: bool = False
    """Whether the image processor puts the tiles of an image on an axis of their own, which the model wants back."""
    positions_in_space: bool = False
    """Whether visual tokens have positions in rows and columns (M-RoPE, arXiv 2409.12191 section 2.1), so that text after an image goes on early."""
    features_whole: bool = False
    """Whether transformers takes what the projector made of all images as one tensor; else in a tuple."""
    first_type: bool = False
    """Whether transformers gives visual tokens the type of the model's first weight, whatever that of the other tokens is."""
    grid: Callable[[Any, Mapping[str, Tensor], int], Grid | None] = lambda config, seen, tokens: None
    """(model config, the tower's inputs of one image, number of its visual tokens) -> those of them that lie on a grid over the whole picture."""
    visual: str | None = None
    """Regular expression of weights inside the decoder that only visual tokens use: a decoder alone has none of them."""
    stored: tuple[tuple[str, str], ...] = ()
    """Names in checkpoints of years ago, (regular expression, today's name of the decoder alone)."""
    text_config: Callable[[Any], Any] = _text_config
    """Config of the decoder as a causal language model of its own."""
    continuation: Callable[[Any, str], list[int]] = within
    """(tokenizer, piece of an answer) -> its token ids as they are inside a text."""

    def part(self, key: str) -> str:
        """Which part a weight or module belongs to: "projector", "tower" or "decoder" (with its head)."""
        if _inside(key, self.projector):
            return "projector"
        return "tower" if _inside(key, (self.tower,)) else "decoder"

    def text_key(self, key: str) -> str | None:
        """Name of a weight in the decoder-only class (`...ForCausalLM`), or None when the weight serves what is seen alone."""
        if self.part(key) != "decoder" or (self.visual and re.search(self.visual, key)):
            return None
        if key.startswith(self.decoder + "."):
            return "model." + key.removeprefix(self.decoder + ".")
        return key if key.startswith(self.head + ".") else None

    def whole_key(self, key: str) -> str:
        """Name in the whole model of a weight or module of the decoder-only class: the inverse of `text_key`."""
        return f"{self.decoder}.{key.removeprefix('model.')}" if key.startswith("model.") else key

    def renamed(self) -> dict[str, str]:
        """Names of weights in a checkpoint of the whole model -> those of the decoder alone, as regular expressions."""
        return {**dict(self.stored), rf"^{re.escape(self.decoder)}\.": "model."}

    def seen(self, made: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tower's inputs out of what the image processor made of one image, so that those of several images can be put one after another."""
        return {name: made[name][0] if self.tiles and name.startswith("pixel") else made[name] for name in self.inputs}

    def batch(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tower's inputs of several images, as the model wants them."""
        return {name: value[None] if self.tiles and name.startswith("pixel") else value for name, value in seen.items()}


def _inside(key: str, modules: tuple[str, ...]) -> bool:
    return any(key == module or key.startswith(f"{module}.") for module in modules)


def _patches(config: Any, made: Mapping[str, Any], token: str) -> str:  # noqa: ANN401
    height, width = made["pixel_values"].shape[-2:]
    patch = config.vision_config.patch_size
    return token * ((height // patch) * (width // patch) + _others(config))


def _others(config: Any) -> int:  # noqa: ANN401
    """Visual tokens of LLaVA that are no patches."""
    kind = config.vision_config.model_type
    if kind not in BEFORE_PATCHES:
        raise IncompatibleChoice(f"a LLaVA with a tower of type {kind} is not known: choose a checkpoint with one of {', '.join(BEFORE_PATCHES)}.")
    return BEFORE_PATCHES[kind](config.vision_config) - (config.vision_feature_select_strategy == "default")


def _merged_patches(config: Any, made: Mapping[str, Any], token: str) -> str:  # noqa: ANN401
    return token * (int(made["image_grid_thw"][0].prod()) // config.vision_config.spatial_merge_size**2)


def _tiles_in_a_frame(config: Any, made: Mapping[str, Any], token: str) -> str:  # noqa: ANN401
    tiles, _, height, width = made["pixel_values"].shape
    patch = config.vision_config.patch_size
    return f"<img>{token * (tiles * int((height // patch[0]) * (width // patch[1]) * config.downsample_ratio**2))}</img>"


def _named_tiles(config: Any, made: Mapping[str, Any], token: str) -> str:  # noqa: ANN401
    """Rows of tiles, each with its row and column, then the whole image in small."""
    frame = "<fake_token_around_image>"
    tile = token * _tokens_a_tile(config, made["pixel_values"].shape[-1])
    rows, columns = int(made["rows"][0][0]), int(made["cols"][0][0])
    grid = "".join("".join(f"{frame}<row_{r + 1}_col_{c + 1}>{tile}" for c in range(columns)) + "\n" for r in range(rows))
    return f"{grid}{chr(10) * bool(grid)}{frame}<global-img>{tile}{frame}"


def _grid_of_patches(config: Any, seen: Mapping[str, Tensor], tokens: int) -> Grid:  # noqa: ANN401
    height, width = seen["pixel_values"].shape[-2:]
    patch = config.vision_config.patch_size
    return Grid(_others(config), height // patch, width // patch)


def _grid_of_merged_patches(config: Any, seen: Mapping[str, Tensor], tokens: int) -> Grid:  # noqa: ANN401
    _, rows, columns = seen["image_grid_thw"][0].tolist()
    return Grid(0, rows // config.vision_config.spatial_merge_size, columns // config.vision_config.spatial_merge_size)


def _grid_of_last_tile(config: Any, seen: Mapping[str, Tensor], tokens: int) -> Grid:  # noqa: ANN401
    """The last tile is the whole image in small, or the only one."""
    tile = tokens // seen["pixel_values"].shape[0]
    side = math.isqrt(tile)
    return Grid(tokens - tile, side, side)


def _smaller_square(config: Any, images: Any, tokens: int) -> dict[str, Any]:  # noqa: ANN401
    """A smaller picture, for towers that stretch their positions over any size."""
    vision = config.vision_config
    if vision.model_type not in ANY_SIZE:
        if tokens >= (fixed := (vision.image_size // vision.patch_size) ** 2 + _others(config)):
            return {}
        raise IncompatibleChoice(
            f"model.visual_tokens={tokens}: a tower of type {vision.model_type} takes {vision.image_size} x {vision.image_size} pixels only, "
            f"{fixed} tokens. Leave it out, or choose a checkpoint with a tower of {' or '.join(ANY_SIZE)}."
        )
    if tokens <= _others(config):
        raise IncompatibleChoice(
            f"model.visual_tokens={tokens}: an image takes at least {_others(config) + 1} tokens in this model. Choose that or more."
        )
    side = min(vision.patch_size * math.isqrt(tokens - _others(config)), images.crop_size.height)
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}


def _fewer_pixels(config: Any, images: Any, tokens: int) -> dict[str, Any]:  # noqa: ANN401
    """A smaller area. An image of more than `tokens` times its width takes more: a row of patches is the least there is."""
    vision = config.vision_config
    pixels = (vision.patch_size * vision.spatial_merge_size) ** 2
    least = max(1, min(4, tokens // 4))  # what small images are enlarged to: rounded up to whole patches, it must stay below the most
    return {"size": {"shortest_edge": least * pixels, "longest_edge": min(tokens * pixels, images.size["longest_edge"])}}


def _fewer_tiles(config: Any, images: Any, tokens: int) -> dict[str, Any]:  # noqa: ANN401
    """Tiles and a small copy of the whole image, or that alone."""
    tiles = _tiles_for(tokens, config.image_seq_length)
    return {"crop_to_patches": tiles > 2, "max_patches": max(1, min(tiles - 1, images.max_patches))}  # two: a tile and its copy


def _smaller_grid(config: Any, images: Any, tokens: int) -> dict[str, Any]:  # noqa: ANN401
    """A square grid of tiles and a small copy of the whole image, or that alone."""
    tile = images.max_image_size["longest_edge"]
    side = min(math.isqrt(_tiles_for(tokens, _tokens_a_tile(config, tile)) - 1), images.size["longest_edge"] // tile)
    return {"do_image_splitting": side > 1, **({"size": {"longest_edge": side * tile}} if side > 1 else {})}


def _tiles_for(tokens: int, tile: int) -> int:
    if tokens < tile:
        raise IncompatibleChoice(f"model.visual_tokens={tokens}: an image takes at least {tile} tokens in this model. Choose {tile} or more.")
    return tokens // tile


def _tokens_a_tile(config: Any, pixels: int) -> int:  # noqa: ANN401
    return (pixels // config.vision_config.patch_size) ** 2 // config.scale_factor**2


def _qwen2_decoder(config: Any) -> Qwen2Config:  # noqa: ANN401
    """Qwen2.5-VL's decoder reads text as Qwen2 does: positions in space are the same three times over."""
    return Qwen2Config(**_decoder_values(config))


def _qwen3_decoder(config: Any) -> Qwen3Config:  # noqa: ANN401
    return Qwen3Config(**_decoder_values(config))


def _decoder_values(config: Any) -> dict[str, Any]:  # noqa: ANN401
    values = config.get_text_config().to_dict()
    for name in ("model_type", "transformers_version", "architectures"):
        values.pop(name, None)
    rope = {name: value for name, value in values["rope_parameters"].items() if not name.startswith("mrope")}
    return {**values, "rope_parameters": rope, "tie_word_embeddings": config.tie_word_embeddings}


LLAVA = Family(
    name="llava",
    tower="model.vision_tower",
    projector=("model.multi_modal_projector",),
    decoder="model.language_model",
    head="lm_head",
    placeholder=_patches,
    grid=_grid_of_patches,
    fewer=_smaller_square,
    stored=((r"^language_model\.model\.", "model."), (r"^language_model\.lm_head\.", "lm_head.")),
)

INTERNVL = Family(
    name="internvl",
    tower="model.vision_tower",
    projector=("model.multi_modal_projector",),
    decoder="model.language_model",
    head="lm_head",
    placeholder=_tiles_in_a_frame,
    grid=_grid_of_last_tile,
    image_options=(("crop_to_patches", True),),
    features_whole=True,
    fewer=_fewer_tiles,
    tower_linears=("q_proj", "k_proj", "v_proj", "projection_layer", "fc1", "fc2"),
    stored=((r"^language_model\.model\.", "model."), (r"^language_model\.lm_head\.", "lm_head.")),
)

IDEFICS3 = Family(
    name="idefics3",
    tower="model.vision_model",
    projector=("model.connector",),
    decoder="model.text_model",
    head="lm_head",
    placeholder=_named_tiles,
    grid=_grid_of_last_tile,
    image_options=(("return_row_col_info", True),),
    fewer=_smaller_grid,
    inputs=("pixel_values", "pixel_attention_mask"),
    tiles=True,
    features_whole=True,  # later releases of transformers would take a tuple too
)

SMOLVLM = Family(**{**vars(IDEFICS3), "name": "smolvlm", "first_type": True})

QWEN2_5_VL = Family(
    name="qwen2_5_vl",
    tower="model.visual",
    projector=("model.visual.merger",),
    decoder="model.language_model",
    head="lm_head",
    placeholder=_merged_patches,
    grid=_grid_of_merged_patches,
    fewer=_fewer_pixels,
    tower_linears=("qkv", "proj", "gate_proj", "up_proj", "down_proj"),
    inputs=("pixel_values", "image_grid_thw"),
    positions_in_space=True,
    text_config=_qwen2_decoder,
)

QWEN3_VL = Family(
    name="qwen3_vl",
    tower="model.visual",
    projector=("model.visual.merger", "model.visual.deepstack_merger_list"),
    decoder="model.language_model",
    head="lm_head",
    placeholder=_merged_patches,
    grid=_grid_of_merged_patches,
    fewer=_fewer_pixels,
    tower_linears=("qkv", "proj", "linear_fc1", "linear_fc2"),
    inputs=("pixel_values", "image_grid_thw"),
    positions_in_space=True,
    text_config=_qwen3_decoder,
)

OWL2 = Family(
    name="owl2",
    tower="model.vision_model",
    projector=("model.visual_abstractor",),
    decoder="model",
    head="lm_head",
    placeholder=lambda config, made, token: token * config.tokens_per_image,
    linears=("q_proj", r"[kv]_proj\.multiway\.[01]", "o_proj", "gate_proj", "up_proj", "down_proj"),
    tower_linears=("query_key_value", "dense", "fc1", "fc2"),
    visual=r"\.multiway\.1\.",
    continuation=lambda tokenizer, text: tokenizer.continuation(text),
)

FAMILIES = {family.name: family for family in (LLAVA, SMOLVLM, IDEFICS3, QWEN2_5_VL, QWEN3_VL, INTERNVL)}
"""Families whose checkpoints transformers reads by itself, by `model_type`."""
