"""Which weights learn, how those of the base are packed, what is written beside the adapter, and what of it goes together."""

import math
from dataclasses import dataclass, field

from biqa.config.checks import MISSING, pattern_problem, refuse

PARTS = ("tower", "projector", "decoder")
QUANTIZATIONS = ("none", "int8", "nf4")
STARTS = ("loaded", "words")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class Quantization:
    """How the linear layers of the decoder's blocks are packed; tower, projector and head keep their precision."""

    kind: str = MISSING
    """"none", "int8" (a byte a weight) or "nf4" (half a byte)."""
    double_quant: bool = False
    """nf4: whether the scales are packed too, which saves 0.4 bits a weight."""
    compute_dtype: str | None = None
    """nf4: in which type packed layers compute: "float32", "bfloat16" or "float16"; null: model.dtype."""

    def __post_init__(self) -> None:
        only_nf4 = self.double_quant or self.compute_dtype is not None
        refuse(
            [
                (self.kind not in QUANTIZATIONS, f"quantization.kind={self.kind} is not known: choose {', '.join(QUANTIZATIONS)}."),
                (
                    self.compute_dtype not in (None, *DTYPES),
                    f"quantization.compute_dtype={self.compute_dtype} is not known: choose {', '.join(DTYPES)}.",
                ),
                (
                    self.kind in ("none", "int8") and only_nf4,
                    f"quantization.double_quant and quantization.compute_dtype say nothing with quantization={self.kind}: leave them out, "
                    f"or choose nf4.",
                ),
            ]
        )


@dataclass
class Tuning:
    """Which weights learn, and how fast. They are float32; those that do not have model.dtype."""

    kind: str = MISSING
    """"full" or "lora"."""
    lr: float = MISSING
    """Peak learning rate."""
    projector_lr: float | None = None
    """That of the projector, where it learns: one that starts untrained needs more than LoRA does; null: as `lr`."""
    projector_start: str = "loaded"
    """How the projector begins: "loaded", or for one that was never taught "words": fitted at once to those of the answers."""
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
    """LoRA: regular expression of the decoder's modules to adapt, as `.*[qv]_proj`; null: every linear layer of its blocks."""
    projector: bool = False
    """LoRA: the projector learns too, whole."""
    tower: bool = False
    """LoRA: the linear layers of the tower's blocks are adapted too."""
    frozen: list[str] = field(default_factory=list)
    """Full: parts that stay as they are, of "tower", "projector", "decoder"."""
    freeze: str | None = None
    """Full: regular expression of further parameters that stay as they are; null: none."""

    def __post_init__(self) -> None:
        unknown = [part for part in self.frozen if part not in PARTS]
        more = [f"tuning.{name}=true" for name in ("projector", "tower") if getattr(self, name)]
        less = [f"tuning.{name}=" for name in ("frozen", "freeze") if getattr(self, name)]
        refuse(
            [
                (self.kind not in ("full", "lora"), f"tuning.kind={self.kind} is not known: choose full or lora."),
                (self.kind == "lora" and self.rank < 1, f"tuning.rank={self.rank}: LoRA needs a rank of at least 1."),
                (not 0 < self.lr < math.inf, f"tuning.lr={self.lr}: choose a learning rate above 0."),
                (
                    self.projector_lr is not None and not 0 < self.projector_lr < math.inf,
                    f"tuning.projector_lr={self.projector_lr}: choose a learning rate above 0, or null for tuning.lr.",
                ),
                (
                    self.projector_start not in STARTS,
                    f"tuning.projector_start={self.projector_start} is not known: choose {' or '.join(STARTS)}.",
                ),
                (not 0 <= self.weight_decay < math.inf, f"tuning.weight_decay={self.weight_decay}: choose 0 or more."),
                (self.kind == "lora" and self.alpha < 1, f"tuning.alpha={self.alpha}: LoRA needs an alpha of at least 1."),
                (not 0 <= self.dropout < 1, f"tuning.dropout={self.dropout} is a share: choose a value in [0, 1)."),
                pattern_problem("tuning.targets", self.targets),
                pattern_problem("tuning.freeze", self.freeze),
                (not 0 <= self.warmup < 1, f"tuning.warmup={self.warmup} is a share of the steps: choose a value in [0, 1)."),
                (bool(unknown), f"tuning.frozen=[{','.join(unknown)}] is not known: choose of {', '.join(PARTS)}."),
                (
                    self.kind == "full" and set(PARTS) <= set(self.frozen),
                    "tuning.frozen=[tower,projector,decoder]: nothing would learn. Take a part out.",
                ),
                (
                    self.kind == "full" and bool(more),
                    f"{' '.join(more)} with tuning=full, with which every part learns but those in tuning.frozen. "
                    f"Leave it out, or choose tuning=lora.",
                ),
                (
                    self.kind == "lora" and bool(less),
                    f"{' '.join(less)} with tuning=lora, with which nothing of the base learns. Leave it out, or choose tuning=full.",
                ),
            ]
        )

    @property
    def projector_learns(self) -> bool:
        """Whether there is something for `of_projector`."""
        return self.projector if self.kind == "lora" else "projector" not in self.frozen

    @property
    def of_projector(self) -> list[str]:
        """Options given that say how a projector learns."""
        return ["tuning.projector_lr="] * (self.projector_lr is not None) + ["tuning.projector_start=words"] * (self.projector_start == "words")


@dataclass
class Export:
    """What is written beside what was learnt."""

    merge: bool = False
    """merged/: base and adapter as one model that transformers loads alone. On a finished run the same command with export.merge=true adds it."""


def tuning_problems(
    *, tuning: str, frozen: list[str], quantization: str, learns: bool, text_alone: bool, merge: bool, no_use: list[str], started_twice: bool
) -> list[tuple[bool, str]]:
    """What cannot go together, entries for `refuse`; each names the nearest that can.

    Args:
        tuning: "full" or "lora".
        frozen: parts that stay, with "full".
        quantization: "none", "int8" or "nf4".
        learns: whether the stage trains at all.
        text_alone: whether it runs on the decoder alone.
        merge: whether base and adapter shall be merged.
        no_use: options of a projector that learns, and it does not.
        started_twice: whether the projector is to begin anew and that of another run is to be gone on with.
    """
    return [
        (
            quantization != "none" and tuning == "full" and learns,
            f"quantization={quantization} with tuning=full: packed weights cannot learn. Choose tuning=lora (tuning.projector=true and "
            f"tuning.tower=true let those learn beside it), or quantization=none.",
        ),
        (
            text_alone and learns and tuning == "full" and "decoder" in frozen,
            "tuning.frozen=[decoder] with stage=inference, which runs on the decoder alone: nothing would learn. Take it out.",
        ),
        (
            merge and not learns,
            "export.merge=true with stage.epochs=0: nothing is learnt that could be merged. Leave it out, or choose a stage that trains.",
        ),
        (
            merge and learns and tuning == "full",
            "export.merge=true with tuning=full: model/ is a whole model already, which transformers loads. Leave it out.",
        ),
        (
            bool(no_use),
            f"{' and '.join(no_use)} and the projector does not learn. Choose tuning.projector=true (tuning=lora), take it out of tuning.frozen "
            "(tuning=full), or leave it out.",
        ),
        (
            started_twice,
            "tuning.projector_start=words with stage.init_from=: that run's projector would be thrown away. Choose tuning.projector_start=loaded, "
            "or stage.init_from=base.",
        ),
    ]
