"""Where each family of VLMs keeps its parts. The one table that the rest of biqa reads instead of knowing architectures."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


def _plain(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401 (any tokenizer of transformers)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@dataclass(frozen=True)
class Family:
    """Module paths inside a transformers `...ForConditionalGeneration` class, and the names of the linear layers of its decoder."""

    name: str
    tower: str
    """The vision tower."""
    projector: str
    """What maps tower features to decoder width."""
    decoder: str
    """The language model without its head."""
    head: str
    """The output head."""
    linears: tuple[str, ...]
    """Linear layers inside a decoder block, as regular expressions of their last names: what LoRA adapts by default."""
    image_tokens: Callable[[Any, Mapping[str, Tensor]], int]
    """(model config, the tower's inputs for one image) -> how many positions the image takes in the prompt."""
    visual: str | None = None
    """Regular expression of weights inside the decoder that only visual tokens use: a decoder alone has none of them."""
    continuation: Callable[[Any, str], list[int]] = _plain
    """(tokenizer, piece of an answer) -> its token ids as they are inside a text."""

    def text_key(self, key: str) -> str | None:
        """Name of a weight in the decoder-only class (`...ForCausalLM`), or None when the weight serves what is seen alone."""
        if key.startswith((self.tower + ".", self.projector + ".")) or (self.visual and re.search(self.visual, key)):
            return None
        if key.startswith(self.decoder + "."):
            return "model." + key.removeprefix(self.decoder + ".")
        return key if key.startswith(self.head + ".") else None


def _patches(config: Any, image: Mapping[str, Tensor]) -> int:  # noqa: ANN401 (each family has a config class of its own)
    height, width = image["pixel_values"].shape[-2:]
    patch = config.vision_config.patch_size
    return (height // patch) * (width // patch)


LLAVA = Family(
    name="llava",
    tower="model.vision_tower",
    projector="model.multi_modal_projector",
    decoder="model.language_model",
    head="lm_head",
    linears=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    image_tokens=_patches,
)

OWL2 = Family(
    name="owl2",
    tower="model.vision_model",
    projector="model.visual_abstractor",
    decoder="model",
    head="lm_head",
    linears=("q_proj", r"[kv]_proj\.multiway\.[01]", "o_proj", "gate_proj", "up_proj", "down_proj"),
    image_tokens=lambda config, _: config.tokens_per_image,
    visual=r"\.multiway\.1\.",
    continuation=lambda tokenizer, text: tokenizer.continuation(text),
)
