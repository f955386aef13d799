"""How much memory answering an image takes, by arithmetic, and so how many images can be answered at a time.

Counted is what grows with the number of images: keys and values of prompt and answers, what is alive while the prompt is read (in the tower, then in
a block of the decoder), and what drawing the next tokens needs. Weights are not.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from biqa.errors import IncompatibleChoice
from biqa.models.vlm import VLM, Prompt

FLOAT = 4
"""Bytes of a float32 number: the residual stream and the logits are float32, whatever the weights are."""
ALIVE = 10
"""Vectors of a block's width that are alive at a time: residual stream, norm, queries, keys, values, the turned ones, what attention makes of it."""
DRAWING = 32
"""Bytes for each logit while a token is drawn: logits, probabilities, their running sum in float64, and the orders of top-p."""
ROWS = 512
"""Answers at a time, at most: from about 200 on a large GPU is busy with products rather than with reading weights, and more gains little."""
OF_GPU, OF_HOST = 0.8, 0.25
"""Share of a GPU's free memory, or of the host's memory, that answering may take."""


def bytes_an_image(vlm: VLM, prompt: Prompt, *, queries: int, tokens: int, kind: torch.dtype) -> int:
    """Bytes that one image takes while its answers are made.

    Args:
        vlm: the model.
        prompt: the question about it.
        queries: answers an image; `tokens` of each, at most. 0 tokens: the prompt is read and no answer written.
        kind: type in which keys and values are computed.
    """
    config = vlm.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    length = len(prompt.ids)
    kept = 2 * config.num_hidden_layers * heads * head * kind.itemsize * (length + queries * tokens)
    reading = max(_block(length, config), _tower(vlm, prompt))
    writing = queries * (config.vocab_size * DRAWING + ALIVE * FLOAT * config.hidden_size) if tokens else 0
    return kept + max(reading, writing)


def _block(positions: int, config: Any) -> int:  # noqa: ANN401 (as families differ)
    """Of a block that reads so many positions: its vectors, those of its feed-forward layer, and who sees whom."""
    return positions * FLOAT * (ALIVE * config.hidden_size + 2 * config.intermediate_size) + (FLOAT + 1) * positions**2


def _tower(vlm: VLM, prompt: Prompt) -> int:
    """Of the tower; nothing where its features are known."""
    pixels = prompt.image.get("pixel_values")
    config = getattr(vlm.model.config, "vision_config", None)
    if pixels is None or config is None:
        return 0
    channels = getattr(config, "num_channels", None) or getattr(config, "in_channels", 3)
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    patches = pixels.numel() // (channels * patch**2 * getattr(config, "temporal_patch_size", 1))
    tiles = pixels.shape[0] if pixels.ndim > 2 else 1
    return pixels.numel() * FLOAT + tiles * _block(patches // tiles, config)


def images_at_a_time(vlm: VLM, prompts: Sequence[Prompt], *, queries: int, tokens: int, kind: torch.dtype, memory_gb: float | None) -> int:
    """How many images fit, counted by the largest of some prompts; with `ROWS` answers at most.

    Args:
        vlm: the model, on its device.
        prompts: about some of the images.
        queries: answers an image; `tokens` of each, at most.
        kind: type in which keys and values are computed.
        memory_gb: what they may take together beside the weights, in GiB; None: `OF_GPU` of what the GPU has free, or `OF_HOST` of the host's memory.

    Raises:
        IncompatibleChoice: not even one fits.
    """
    needed = max(bytes_an_image(vlm, prompt, queries=queries, tokens=tokens, kind=kind) for prompt in prompts)
    given = memory_of(vlm.device) if memory_gb is None else int(memory_gb * 2**30)
    if needed > given:
        longest = max(len(prompt.ids) for prompt in prompts)
        asked = "The memory here" if memory_gb is None else f"sampling.memory_gb={memory_gb:g}"
        raise IncompatibleChoice(
            f"{asked} is too small for one image: {longest} positions with {queries} answers of up to {tokens} tokens take about "
            f"{in_gb(needed)} beside the weights, and {in_gb(given)} may be taken. Give at least sampling.memory_gb={needed / 2**30 + 5e-5:.4f}, "
            f"fewer sampling.repeats, or fewer visual tokens (model.visual_tokens)."
        )
    return max(1, min(given // needed, ROWS // queries))


def in_gb(size: int) -> str:
    """Bytes in words."""
    return f"{size / 2**30:.3g} GB"


def memory_of(device: torch.device) -> int:
    """Bytes that may be taken by default."""
    if device.type == "cuda":
        return int(OF_GPU * torch.cuda.mem_get_info(device)[0])
    return int(OF_HOST * host_memory())


def host_memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of memory of this machine, or those that the container may use."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return min(physical, int(allowed)) if allowed.isdigit() else physical
