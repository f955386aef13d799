"""The models of the table and what they read: LLaVA from its config classes with random weights, pictures of noise, texts of a wanted length."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from biqa.data.module import Item
from biqa.data.record import Record
from biqa.models.families import LLAVA
from biqa.models.tiny import TEMPLATE, train_tokenizer
from biqa.models.vlm import VLM, decoder_of

PATCH = 14
"""Pixels a side of a visual token."""
HEAD = 64
"""Width of an attention head."""
TEXT = "The image is dark. The contrast is low. The picture is pale. Details are blurred. There is heavy noise. Block edges show."


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA. The vocabulary is that of the embeddings and the head; texts use the few tokens of biqa's own wording."""

    tower_layers: int = 12
    tower_width: int = 384
    layers: int = 8
    width: int = 384
    vocabulary: int = 32_000
    side: int = 16
    """Visual tokens: side x side."""

    def __str__(self) -> str:
        tower = f"tower {self.tower_layers} x {self.tower_width}"
        return f"{tower}, decoder {self.layers} x {self.width}, vocabulary {self.vocabulary // 1000}k, {self.side**2} visual tokens"


SMALL = Shape(tower_layers=1, tower_width=64, layers=1, width=64, vocabulary=1024, side=3)
"""To see that a benchmark runs."""


def build(shape: Shape, *, dtype: torch.dtype = torch.bfloat16, vision: bool = True) -> VLM:
    """A LLaVA, or its decoder alone; the same weights at every call."""
    processor = _processor(shape)
    ids = processor.tokenizer.get_vocab()
    tower = CLIPVisionConfig(
        hidden_size=shape.tower_width, intermediate_size=4 * shape.tower_width, num_hidden_layers=shape.tower_layers,
        num_attention_heads=shape.tower_width // HEAD, image_size=shape.side * PATCH, patch_size=PATCH,
    )  # fmt: skip
    decoder = LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.width, intermediate_size=8 * shape.width // 3, num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // HEAD, num_key_value_heads=shape.width // HEAD, max_position_embeddings=4096,
        pad_token_id=ids["<pad>"], bos_token_id=ids["<s>"], eos_token_id=ids["</s>"], tie_word_embeddings=False,
    )  # fmt: skip
    # the last layer, not the usual last but one: every layer that is computed counts
    config = LlavaConfig(vision_config=tower, text_config=decoder, image_token_index=ids["<image>"], vision_feature_layer=-1)
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = LlavaForConditionalGeneration(config)
    whole: Any = backbone if vision else decoder_of(backbone, LLAVA)
    return VLM(whole.to(dtype), processor, LLAVA, vision=vision)


def as_transformers_has_it(vlm: VLM) -> VLM:
    """The model for a peer: with transformers' own attention, which biqa replaces on a CPU (`biqa.models.attention`)."""
    vlm.model.set_attn_implementation("sdpa")
    return vlm


def _processor(shape: Shape) -> Any:  # noqa: ANN401 (transformers' own, whose parts are untyped)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(1000), pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pixels = shape.side * PATCH
    images = CLIPImageProcessorPil(size={"shortest_edge": pixels}, crop_size={"height": pixels, "width": pixels})
    return LlavaProcessor(
        images, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=TEMPLATE
    )


def composed(*overrides: str) -> DictConfig:
    """biqa's own config with these options: LoRA on a LLaVA on the CPU, silent, without features of images on disk."""
    from hydra import compose, initialize_config_dir

    from biqa import config as schema

    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        fixed = ("model=llava", "tuning=lora", "trainer.accelerator=cpu", "trainer.progress=false", "images.features_gb=0", "name=bench")
        return compose("config", [*fixed, *overrides])


def picture(number: int, side: int) -> Image.Image:
    """Noise, side x side pixels."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8))


def words(vlm: VLM, tokens: int, first: int = 0) -> str:
    """A text of so many tokens, beginning at some word of a list that goes round."""
    text, known = "", TEXT.split()
    for word in islice(cycle(known), first % len(known), None):
        longer = f"{text} {word}".strip()
        if len(vlm.opening(longer)) > tokens:
            break
        text = longer
    short = tokens - len(vlm.opening(text))
    return text + "." * short  # a word and its full stop are two tokens


def items(folder: Path, vlm: VLM, lengths: Sequence[int], shape: Shape) -> list[Item]:
    """Pictures on disk, each with a description of so many tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, length in enumerate(lengths):
        path = folder / f"{number}.png"
        if vlm.vision:
            picture(number, shape.side * PATCH).save(path)
        record = Record(image=path.name, path=path, q=(number % 9 + 0.5) / 9, split="train", group=path.name, score=0.5)
        made.append(Item(record, (words(vlm, length, number),)))
    return made


def linear_weights(vlm: VLM, part: str) -> int:
    """Weights of the matrices of a part ("tower", "projector", "decoder") through which every token goes: no embeddings, no head, no LoRA."""
    others = ("embed", "lora_", "lm_head")
    return sum(
        weight.numel()
        for name, weight in vlm.backbone.named_parameters()
        if weight.ndim == 2 and not any(other in name for other in others) and vlm.part_of(name.replace(".base_layer", "")) == part
    )
