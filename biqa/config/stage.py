"""Options of the stages, of sampling and of evaluation."""

import math
from dataclasses import dataclass
from typing import Any

from biqa.config.checks import MISSING, refuse


@dataclass
class Stage:
    """What is learnt from what (METHOD.md section 3)."""

    _target_: str = MISSING
    epochs: int = MISSING
    """Passes over the training images; 0 trains nothing."""
    batch_size: int = MISSING
    """Images a step and device."""
    init_from: str | None = None
    """Run folder to start from; null: what the stage says (its stage 1, or the base weights); "base": the base weights."""

    def __post_init__(self) -> None:
        refuse(
            [
                (self.epochs < 0, f"stage.epochs={self.epochs}: choose 0 or more."),
                (self.batch_size < 1, f"stage.batch_size={self.batch_size}: choose 1 or more."),
            ]
        )


@dataclass
class PerceptionStage(Stage):
    """Stage 1: image to description."""

    _target_: str = "biqa.stages.perception.Perception"


@dataclass
class VerdictStage(Stage):
    """A stage that ends in a level word."""

    target: str = MISSING
    """"hard": the level of the image's quality; "soft": a level distribution whose mean is the quality."""
    level_weight: float = MISSING
    """Weight of the level word's loss beside the mean loss of the other tokens."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(
            [
                (self.target not in ("hard", "soft"), f"stage.target={self.target} is not known: choose hard or soft."),
                (not 0 <= self.level_weight < math.inf, f"stage.level_weight={self.level_weight}: choose 0 or more."),
            ]
        )


@dataclass
class JointStage(VerdictStage):
    """One-stage tuning: image to description and level in one answer."""

    _target_: str = "biqa.stages.joint.Joint"


@dataclass
class ZeroShotStage(JointStage):
    """As joint, with nothing trained."""

    _target_: str = "biqa.stages.joint.ZeroShot"

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse([(self.epochs != 0, f"stage.epochs={self.epochs}: this stage trains nothing by steps. Choose stage=joint to train.")])


@dataclass
class ProbeStage(ZeroShotStage):
    """Ridge regression on the frozen tower's features: nothing is trained by steps."""

    _target_: str = "biqa.stages.probe.Probe"


@dataclass
class InferenceStage(VerdictStage):
    """Stage 2: description to level, from the text alone."""

    _target_: str = "biqa.stages.inference.Inference"
    descriptions: str = MISSING
    """What it trains on: "target" (annotated), "generated" (written by stage 1) or "mixed" (both)."""
    perception: str | None = None
    """Run folder of the stage 1 that describes the images; null: found by model, data and seed."""
    generated_per_image: int = MISSING
    """Generated descriptions of each training image: the greedy one first, then sampled ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse(
            [
                (
                    self.descriptions not in ("target", "generated", "mixed"),
                    f"stage.descriptions={self.descriptions} is not known: choose target, generated or mixed.",
                ),
                (self.generated_per_image < 1, f"stage.generated_per_image={self.generated_per_image}: choose 1 or more."),
            ]
        )


@dataclass
class Sampling:
    """How often and how hot each image is asked (METHOD.md section 2)."""

    repeats: int = MISSING
    """N, sampled queries an image for instability; 0 measures accuracy only."""
    temperature: float = MISSING
    """T of the sampled queries."""
    top_p: float = MISSING
    """Nucleus of the sampled queries; 1 keeps the whole distribution."""
    max_new_tokens: int = MISSING
    """A description is cut there."""
    batch_size: Any = MISSING
    """Images answered at a time, each with N + 1 queries (more where a step asks fewer); "auto": as many as fit into `memory_gb`."""
    memory_gb: float | None = None
    """With batch_size=auto: GiB that answering may take beside the weights; null: 0.8 of what the GPU has free, or a quarter of the host's memory."""
    compile: bool = False
    """Compile the step of decoding (torch.compile with CUDA graphs, keys and values at a fixed place): minutes at first, then less time a step on a
    GPU. The same answers but for rounding."""

    def __post_init__(self) -> None:
        refuse(
            [
                (self.repeats < 0, f"sampling.repeats={self.repeats}: choose 2 or more, or 0 for accuracy alone."),
                (
                    self.repeats == 1,
                    "sampling.repeats=1: one answer cannot disagree with itself: it has no instability. Choose 2 or more, or 0 for accuracy alone.",
                ),
                (
                    self.repeats > 0 and self.temperature <= 0,
                    f"sampling.temperature={self.temperature}: greedy decoding repeats itself, its instability is 0 by construction. "
                    f"Choose a temperature above 0, or sampling.repeats=0 for accuracy alone.",
                ),
                (not self.temperature < math.inf, f"sampling.temperature={self.temperature}: choose a number such as 1.0."),
                (not 0 < self.top_p <= 1, f"sampling.top_p={self.top_p}: choose a value in (0, 1]."),
                (self.max_new_tokens < 1, f"sampling.max_new_tokens={self.max_new_tokens}: choose 1 or more."),
                (not _images(self.batch_size), f"sampling.batch_size={self.batch_size}: choose 1 or more, or auto."),
                (self.memory_gb is not None and not self.memory_gb > 0, f"sampling.memory_gb={self.memory_gb}: choose more than 0, or leave it out."),
            ]
        )


def _images(batch_size: object) -> bool:
    return batch_size == "auto" or (isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size >= 1)


@dataclass
class Scorer:
    """How an answer becomes a number (METHOD.md section 4)."""

    kind: str = MISSING
    """"levels": mean of the level distribution; "good_poor": the share of "good" between "good" and "poor"; "word": the level word given."""

    def __post_init__(self) -> None:
        known = ("levels", "good_poor", "word")
        refuse([(self.kind not in known, f"scorer.kind={self.kind} is not known: choose {', '.join(known)}.")])


@dataclass
class Evaluation:
    """How the figures are computed."""

    resamples: int = MISSING
    """Bootstrap resamples behind each interval."""

    def __post_init__(self) -> None:
        refuse([(self.resamples < 1, f"evaluation.resamples={self.resamples}: choose 1 or more.")])
