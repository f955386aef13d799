"""Options of the backbones."""

from dataclasses import dataclass
from typing import Any

from biqa.config.checks import MISSING, refuse


@dataclass
class Model:
    """Which backbone."""

    _target_: str = MISSING
    lr: float = MISSING
    """Peak learning rate that suits full tuning of these weights."""
    batch_size: int = MISSING
    """Images a step and device that suit the size of this model, and images answered at a time: what stage and sampling take if nothing is said."""
    text_batch_size: int = MISSING
    """Descriptions a step of quality inference, likewise."""
    min_steps: int = 0
    """Optimiser steps that these weights need at least: on a small data set the epochs are more than the stage says. 0: as the stage says."""


@dataclass
class TinyModel(Model):
    """transformers' LLaVA class, small, from random weights."""

    _target_: str = "biqa.models.tiny.build_tiny"
    hidden: int = MISSING
    """Width of the decoder."""
    layers: int = MISSING
    """Layers of the decoder."""
    heads: int = MISSING
    """Attention heads of decoder and tower."""
    tower_hidden: int = MISSING
    """Width of the tower."""
    tower_layers: int = MISSING
    """Layers of the tower."""
    grid: int = MISSING
    """Cells a side that the image is divided into: grid x grid visual tokens."""
    vocabulary: int = MISSING
    """At most so many tokens."""
    attention: str = "eager"
    """Attention implementation of transformers. For sequences this short "eager" trains 1.6 times as fast as "sdpa" on a CPU."""

    def __post_init__(self) -> None:
        sizes = ("hidden", "layers", "heads", "tower_hidden", "tower_layers", "grid")
        refuse([(getattr(self, name) < 1, f"model.{name}={getattr(self, name)}: choose 1 or more.") for name in sizes])
        refuse(
            [
                (self.hidden % (2 * self.heads) != 0, f"model.hidden={self.hidden}: choose a multiple of {2 * self.heads} (2 x model.heads)."),
                (self.tower_hidden % self.heads != 0, f"model.tower_hidden={self.tower_hidden}: choose a multiple of {self.heads} (model.heads)."),
                (self.attention not in ("eager", "sdpa"), f"model.attention={self.attention} is not known: choose eager or sdpa."),
            ]
        )


@dataclass
class Owl2Model(Model):
    """mPLUG-Owl2."""

    _target_: str = "biqa.models.owl2.build.build_owl2"
    size: str = MISSING
    """"7b": a published checkpoint, whose config.json says the sizes; "tiny": a small one from random weights."""
    path: str | None = None
    """Folder of the checkpoint, or its name on the hub; null for tiny."""
    template: str = MISSING
    """Form of the prompts: "owl2" (USER: ... ASSISTANT:) or "v1" (with the system text that all published training scripts use)."""
    pre_step: str = MISSING
    """An image that is not square is padded ("pad", as in training), resized to a square ("squash") or cut ("crop")."""
    dtype: str = MISSING
    """Of the weights: "float32", "bfloat16" or "float16"."""
    attention: str = MISSING
    """Attention implementation of transformers: "sdpa", "eager", "flash_attention_2"."""

    def __post_init__(self) -> None:
        choices = {
            "size": ("7b", "tiny"), "template": ("owl2", "v1"), "pre_step": ("pad", "squash", "crop"),
            "dtype": ("float32", "bfloat16", "float16"), "attention": ("sdpa", "eager", "flash_attention_2"),
        }  # fmt: skip
        refuse(
            [
                (getattr(self, name) not in known, f"model.{name}={getattr(self, name)} is not known: choose {', '.join(map(str, known))}.")
                for name, known in choices.items()
            ]
        )


@dataclass
class HfModel(Model):
    """A checkpoint of a known family, read by transformers."""

    _target_: str = "biqa.models.hf.build_hf"
    id: str | None = None
    """Folder of the checkpoint, or its name on the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null: the newest."""
    family: str | None = None
    """What the checkpoint must be of (`model_type` of its config.json); null: any known family."""
    dtype: str = MISSING
    """Of the weights that do not learn: "float32", "bfloat16" or "float16"; those that learn are float32."""
    attention: str = MISSING
    """Attention implementation of transformers: "sdpa", "eager", "flash_attention_2"."""
    visual_tokens: int | None = None
    """At most so many visual tokens an image: fewer pixels or tiles, as the family has it; null: as the checkpoint says."""
    image: Any = None
    """Settings of the image processor that replace the checkpoint's, by transformers' names: `model.image={size:{longest_edge:1024}}`; null: none."""

    def __post_init__(self) -> None:
        choices = {"dtype": ("float32", "bfloat16", "float16"), "attention": ("sdpa", "eager", "flash_attention_2")}
        refuse(
            [
                (getattr(self, name) not in known, f"model.{name}={getattr(self, name)} is not known: choose {', '.join(known)}.")
                for name, known in choices.items()
            ]
        )
        refuse(
            [
                (self.visual_tokens is not None and self.visual_tokens < 1, f"model.visual_tokens={self.visual_tokens}: choose 1 or more."),
                (
                    self.image is not None and not isinstance(self.image, dict),
                    f"model.image={self.image}: give settings by name, such as model.image={{size:{{longest_edge:1024}}}}.",
                ),
            ]
        )
