"""`model=tiny`: transformers' own LLaVA class, small, from random weights; trains on a CPU in minutes (METHOD.md section 8).

What lets something this small see quality at all is its front end: the image enters the CLIP tower not as pixels but as statistics of the
log-magnitudes of its 8x8 block DCT (64 luma and 6 + 6 chroma coefficients a block), as `num_channels` of the same tower. Raw 12x12 pixel patches
learnt nothing (SRCC 0.14). The spread over the blocks of a cell stands beside their mean, because a linear patch embedding cannot compute it:
gradient-boosted trees on the validation split reach SRCC 0.77 from the means alone and 0.87 with the spread.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BatchFeature, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast
from transformers.image_processing_utils import BaseImageProcessor

from biqa.language import features, prompts
from biqa.language.levels import LEVELS
from biqa.models.families import LLAVA
from biqa.models.hf import load
from biqa.models.quantization import Quantization, packed
from biqa.models.vlm import VLM, decoder_of

BLOCK = 8
CHROMA_COEFFICIENTS = ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2))
COEFFICIENTS = BLOCK * BLOCK + 2 * len(CHROMA_COEFFICIENTS)
STATISTICS = ("mean", "std", "lower", "upper")
MEANS = [0, BLOCK * BLOCK, BLOCK * BLOCK + len(CHROMA_COEFFICIENTS)]
"""The coefficient of each channel that is BLOCK times its mean over the block."""
MEAN_SCALE = 40.0
"""Grey levels: the means of blocks over this are about as wide as logarithms of the other coefficients."""
CENTRE: NDArray[np.float32] = np.array([0.0 if place in MEANS else 2.0 for place in range(COEFFICIENTS)], dtype=np.float32)
WIDTH = 1.5
"""What coefficients are shifted and scaled by, to about zero mean and unit scale."""
QUANTILE = 0.1
"""`lower` and `upper` are this quantile and its mirror image."""
CHANNELS = COEFFICIENTS * len(STATISTICS)
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% else %} ASSISTANT: {{ message['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


class LogDctImageProcessor(BaseImageProcessor):
    """RGB images of any size to block-DCT statistics, `pixel_values` of shape [images, 304, grid, grid].

    Every 8x8 block of the image is transformed at its native resolution: nothing is resized, which would destroy the traces of compression and noise.

    Args:
        grid: cells a side that the image is divided into. A cell of a 96-pixel crop has 4 x 4 blocks with a grid of 3.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 (transformers' own attribute)

    def __init__(self, grid: int = 3, **kwargs: Any) -> None:  # noqa: ANN401 (transformers' own)
        super().__init__(**kwargs)
        self.grid = grid

    def preprocess(self, images: Any, *_: object, return_tensors: str | None = None, **__: object) -> Any:  # noqa: ANN401 (transformers' own)
        """Transform one or several PIL images; values are about zero mean and unit scale."""
        several = images if isinstance(images, list) else [images]
        pixels = [dct_statistics(np.asarray(image.convert("YCbCr")), self.grid) for image in several]
        return BatchFeature({"pixel_values": pixels}, tensor_type=return_tensors)


def dct_statistics(ycbcr: NDArray[np.uint8], grid: int) -> NDArray[np.float32]:
    """Mean, standard deviation and outer deciles of block-DCT log-magnitudes in each cell of the image.

    Args:
        ycbcr: shape [height, width, 3], at least one block in each direction (smaller images are padded by their edge).
        grid: cells a side; neighbouring cells share a row of blocks where the blocks do not divide evenly.

    Returns:
        Shape [304, grid, grid]: the four statistics in turn, each of 76 coefficients, shifted and scaled by constants.
    """
    blocks = log_dct(ycbcr)
    rows, columns = (_spans(size, grid) for size in blocks.shape[:2])
    cells = [[_statistics(blocks[row, column].reshape(-1, COEFFICIENTS)) for column in columns] for row in rows]
    return np.array(cells, dtype=np.float32).transpose(2, 0, 1)


def log_dct(ycbcr: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`log(1 + |c|)` of the orthonormal DCT of every 8x8 block: [height, width, 3] -> [rows, columns, 76].

    The last axis: 64 luma coefficients row by row, then 6 low ones of Cb and 6 of Cr. The mean of each channel keeps its sign and takes no logarithm,
    which would make a dark block and a bright one alike: with it, the validation loss fell from 0.621 to 0.594 (stage 1) and from 1.044 to 1.033
    (joint) on the synthetic data, and from 0.500 to 0.470 on 400 photographs (stage 1).
    """
    height, width = (max(size // BLOCK, 1) * BLOCK for size in ycbcr.shape[:2])
    padding = [(0, max(height - ycbcr.shape[0], 0)), (0, max(width - ycbcr.shape[1], 0)), (0, 0)]
    image = np.pad(ycbcr, padding, mode="edge")[:height, :width].astype(np.float32) - 128.0
    blocks = image.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK, 3).transpose(4, 0, 2, 1, 3)  # [3, rows, columns, 8, 8]
    vertical, horizontal = zip(*CHROMA_COEFFICIENTS, strict=True)
    coefficients: NDArray[np.float32] = np.asarray(dctn(blocks, axes=(-2, -1), norm="ortho"))
    luma = coefficients[0].reshape(*blocks.shape[1:3], -1)
    chroma = coefficients[1:, ..., vertical, horizontal].transpose(1, 2, 0, 3).reshape(*blocks.shape[1:3], -1)
    together = np.concatenate([luma, chroma], axis=-1)
    seen = np.log1p(np.abs(together))
    seen[..., MEANS] = together[..., MEANS] / (BLOCK * MEAN_SCALE)
    return seen


def _spans(size: int, cells: int) -> list[slice]:
    """Adaptive pooling: cell i covers [floor(i n / cells), ceil((i + 1) n / cells))."""
    return [slice(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]


def _statistics(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Statistics over the blocks of one cell: [blocks, 76] -> [304]. Quantiles by the nearest rank, so that one block is enough."""
    ordered = np.sort(values, axis=0)
    outer = round(QUANTILE * (len(values) - 1))
    shifted = [(statistic - CENTRE) / WIDTH for statistic in (values.mean(0), ordered[outer], ordered[-1 - outer])]
    return np.concatenate([shifted[0], (values.std(0) - 0.5) / 0.4, *shifted[1:]])


@lru_cache(maxsize=4)
def train_tokenizer(vocabulary: int) -> Tokenizer:
    """Byte-level BPE learnt from biqa's own wording, so that its words are single tokens; any other text falls back to bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<s>", "</s>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_wording(), trainer)
    return tokenizer


def _wording() -> Iterable[str]:
    # every line twice: BPE merges only pairs that it has seen more than once
    for _ in range(2):
        yield from (f" {line}" for line in features.corpus())
        yield from (f"USER: {line} ASSISTANT:" for line in (prompts.DESCRIBE, prompts.JOINT, prompts.INFER))
        yield from (f" {prompts.verdict(level)}" for level in LEVELS)


def build_tiny(
    *,
    hidden: int,
    layers: int,
    heads: int,
    tower_hidden: int,
    tower_layers: int,
    grid: int,
    vocabulary: int,
    attention: str,
    vision: bool,
    seed: int,
    quantization: Quantization | None = None,
) -> VLM:
    """The tiny model with random weights drawn from `seed`: the same seed gives the same base, with or without the tower.

    Args:
        hidden: width of the decoder; `layers` and `heads` its depth and attention heads.
        tower_hidden: width of the tower; `tower_layers` its depth.
        grid: cells a side that the image is divided into: grid x grid visual tokens.
        vocabulary: at most so many tokens.
        attention: attention implementation of transformers ("sdpa", "eager").
        vision: False builds the decoder alone: what quality inference runs on.
        seed: draws the weights.
        quantization: of the decoder's linear layers; None: as they are.
    """
    from transformers import LlavaProcessor

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(vocabulary),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )
    token_ids = tokenizer.get_vocab()
    processor = LlavaProcessor(
        LogDctImageProcessor(grid),
        tokenizer,
        patch_size=1,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    tower = CLIPVisionConfig(
        hidden_size=tower_hidden, intermediate_size=2 * tower_hidden, num_hidden_layers=tower_layers, num_attention_heads=heads,
        num_channels=CHANNELS, image_size=grid, patch_size=1,
    )  # fmt: skip
    decoder = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads, max_position_embeddings=1024, pad_token_id=token_ids["<pad>"], bos_token_id=token_ids["<s>"],
        eos_token_id=token_ids["</s>"], tie_word_embeddings=False,
    )  # fmt: skip
    config = LlavaConfig(vision_config=tower, text_config=decoder, image_token_index=token_ids["<image>"], vision_feature_layer=-1)
    config._attn_implementation = attention
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = LlavaForConditionalGeneration(config)
        # CLIP's own start (std 0.02 / width) is made for pretraining at scale; the patch embedding of a shallow tower wants unit-scale outputs
        torch.nn.init.normal_(backbone.model.vision_tower.embeddings.patch_embedding.weight, std=CHANNELS**-0.5)
    if quantization is None:
        return VLM(backbone if vision else decoder_of(backbone, LLAVA), processor, LLAVA, vision=vision)
    how: dict[str, Any] = {"dtype": torch.float32, "attention": attention, "vision": vision, "quantization": quantization}
    return VLM(packed(backbone, lambda folder: load(folder, LLAVA, config, **how)), processor, LLAVA, vision=vision)
