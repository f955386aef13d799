"""Options of the backbones, and of what learns in them."""

import math
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from biqa.config.checks import pattern_problem, refuse


@dataclass
class Model:
    """Which backbone."""

    _target_: str = MISSING
    lr: float = MISSING
    """Peak learning rate that suits full tuning of these weights."""
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
    quantization: str | None = None
    """Of the decoder's linear layers, for LoRA: "nf4" or "int8"; null: as they are."""

    def __post_init__(self) -> None:
        choices = {
            "size": ("7b", "tiny"), "template": ("owl2", "v1"), "pre_step": ("pad", "squash", "crop"),
            "dtype": ("float32", "bfloat16", "float16"), "attention": ("sdpa", "eager", "flash_attention_2"), "quantization": (None, "nf4", "int8"),
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
    image: dict[str, Any] = field(default_factory=dict)
    """Settings of the image processor that replace the checkpoint's, by transformers' names: `model.image={size:{longest_edge:1024}}`."""

    def __post_init__(self) -> None:
        choices = {"dtype": ("float32", "bfloat16", "float16"), "attention": ("sdpa", "eager", "flash_attention_2")}
        refuse(
            [
                (getattr(self, name) not in known, f"model.{name}={getattr(self, name)} is not known: choose {', '.join(known)}.")
                for name, known in choices.items()
            ]
        )
        refuse([(self.visual_tokens is not None and self.visual_tokens < 1, f"model.visual_tokens={self.visual_tokens}: choose 1 or more.")])


@dataclass
class Tuning:
    """Which weights learn, and how fast."""

    kind: str = MISSING
    """"full" or "lora"."""
    lr: float = MISSING
    """Peak learning rate."""
    weight_decay: float = MISSING
    """AdamW's, on weight matrices."""
    warmup: float = MISSING
    """Share of the steps over which the learning rate rises; it then falls along a cosine to zero."""
    rank: int = 0
    """LoRA: rank of the update."""
    alpha: int = 0
    """LoRA: the update is scaled by alpha / rank."""
    dropout: float = 0.0
    """LoRA: dropout on its input."""
    targets: str | None = None
    """LoRA: regular expression of the modules to adapt; null: every linear layer of the decoder."""
    freeze: str | None = None
    """Full: regular expression of the parameters that stay as they are; null: none."""

    def __post_init__(self) -> None:
        refuse(
            [
                (self.kind not in ("full", "lora"), f"tuning.kind={self.kind} is not known: choose full or lora."),
                (self.kind == "lora" and self.rank < 1, f"tuning.rank={self.rank}: LoRA needs a rank of at least 1."),
                (not 0 < self.lr < math.inf, f"tuning.lr={self.lr}: choose a learning rate above 0."),
                (not 0 <= self.weight_decay < math.inf, f"tuning.weight_decay={self.weight_decay}: choose 0 or more."),
                (self.kind == "lora" and self.alpha < 1, f"tuning.alpha={self.alpha}: LoRA needs an alpha of at least 1."),
                (not 0 <= self.dropout < 1, f"tuning.dropout={self.dropout} is a share: choose a value in [0, 1)."),
                pattern_problem("tuning.targets", self.targets),
                pattern_problem("tuning.freeze", self.freeze),
                (not 0 <= self.warmup < 1, f"tuning.warmup={self.warmup} is a share of the steps: choose a value in [0, 1)."),
            ]
        )
