"""mPLUG-Owl2's configuration, as its checkpoints have it: LLaMA's options, and `visual_config` for what sees."""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig

from biqa.errors import IncompatibleChoice

IMAGE_TOKEN_ID = -200
"""Stands in the input ids wherever a visual token goes. It lies outside every vocabulary, so that no text can ask for pixels."""

_Part = TypeVar("_Part")


@dataclass(frozen=True)
class TowerConfig:
    """The vision tower, a ViT like CLIP's (defaults: ViT-L/14 at 448 pixels)."""

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    image_size: int = 448
    """Pixels a side."""
    patch_size: int = 14
    """Pixels a side of a patch."""
    num_channels: int = 3
    layer_norm_eps: float = 1e-6
    hidden_act: str = "quick_gelu"
    use_cls_token: bool = True
    use_post_layernorm: bool = True

    def __post_init__(self) -> None:
        if not (self.use_cls_token and self.use_post_layernorm and self.hidden_act == "quick_gelu"):
            raise IncompatibleChoice(
                f"visual_config.visual_model: use_cls_token={self.use_cls_token}, use_post_layernorm={self.use_post_layernorm}, "
                f"hidden_act={self.hidden_act}. Only mPLUG-Owl2's tower is known here, not mPLUG-Owl2.1's: true, true, quick_gelu."
            )

    @property
    def grid_size(self) -> int:
        """Patches a side."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class AbstractorConfig:
    """The visual abstractor, which sums an image up in a fixed number of tokens."""

    hidden_size: int = 1024
    encoder_hidden_size: int = 1024
    """Width of the tower."""
    intermediate_size: int = 2816
    num_hidden_layers: int = 6
    num_attention_heads: int = 16
    num_learnable_queries: int = 64
    """Tokens that an image becomes, before the closing one."""
    layer_norm_eps: float = 1e-6
    """Of the norm inside the feed-forward part alone: the others have torch's 1e-5."""
    grid_size: int = 32
    """Patches a side."""


def _known(kind: type[_Part], values: dict[str, Any]) -> _Part:
    """An instance from those values that it has a field for: checkpoints hold many leftovers of old transformers."""
    names = {field.name for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    return kind(**{name: value for name, value in values.items() if name in names})


@strict
class Owl2Config(LlamaConfig):
    """LLaMA's options and `visual_config: {"visual_model": {...}, "visual_abstractor": {...}}`, the names of the original config.json.

    Values such as `rms_norm_eps` come from the checkpoint's file. Other keys of it are kept as attributes and mean nothing here, but for `auto_map`,
    which names code to run: it is dropped.
    """

    model_type = "mplug_owl2"
    # LLaMA's name keys and values without their ways
    base_model_tp_plan = None
    base_model_pp_plan = None

    visual_config: dict | None = None
    has_vision: bool = True
    """False: the decoder alone, with the way of text alone, as `Owl2ForCausalLM` builds it."""

    def __post_init__(self, **kwargs: Any) -> None:  # noqa: ANN401 (whatever config.json holds)
        kwargs.pop("auto_map", None)
        super().__post_init__(**kwargs)

    @property
    def tower(self) -> TowerConfig:
        """The vision tower.

        Raises:
            IncompatibleChoice: a variant that this port does not know.
        """
        return _known(TowerConfig, (self.visual_config or {}).get("visual_model", {}))

    @property
    def abstractor(self) -> AbstractorConfig:
        """The visual abstractor.

        Raises:
            IncompatibleChoice: it does not fit the tower.
        """
        abstractor, tower = _known(AbstractorConfig, (self.visual_config or {}).get("visual_abstractor", {})), self.tower
        widths, grids = (tower.hidden_size, abstractor.encoder_hidden_size, abstractor.hidden_size), (tower.grid_size, abstractor.grid_size)
        if len({*widths}) > 1 or len({*grids}) > 1:
            raise IncompatibleChoice(
                f"visual_config: the tower gives {grids[0]} x {grids[0]} patches of width {widths[0]}, the abstractor takes "
                f"{grids[1]} x {grids[1]} of width {widths[1]} and works at width {widths[2]}. Both grids, and all three widths, must be equal."
            )
        return abstractor

    @property
    def image_token_id(self) -> int:
        """The place of an image in a text, by the name that transformers' own families have for it."""
        return IMAGE_TOKEN_ID

    @property
    def tokens_per_image(self) -> int:
        """Positions that an image takes in a prompt: the abstractor's queries and one closing token."""
        return self.abstractor.num_learnable_queries + 1
