"""Where each family of VLMs keeps its parts. The one table that the rest of biqa reads instead of knowing architectures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from biqa.errors import IncompatibleChoice


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
    """Linear layers inside a decoder block: what LoRA adapts by default."""
    image_tokens: Callable[[Any, Mapping[str, Tensor]], int]
    """(model config, the tower's inputs for one image) -> how many positions the image takes in the prompt."""

    def text_key(self, key: str) -> str | None:
        """Name of a weight in the decoder-only class (`...ForCausalLM`), or None when the weight belongs to tower or projector."""
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


def unavailable(*, name: str, **_: object) -> None:
    """What a backbone answers whose config group stands and whose code comes later.

    Raises:
        IncompatibleChoice: always.
    """
    raise IncompatibleChoice(f"model={name} is not in this release: it comes with its own issue. Choose model=tiny.")
