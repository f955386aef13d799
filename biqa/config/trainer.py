"""Options of Lightning's trainer."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from biqa.config.checks import refuse

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Lightning's words. Its "-true" ones for other types want to convert the batch, whose examples cannot change."""


@dataclass
class TrainerOptions:
    """Lightning's trainer."""

    accelerator: str = MISSING
    """"auto", "cpu", "gpu"."""
    devices: Any = MISSING
    """How many, which, or "auto"."""
    precision: str = MISSING
    """Lightning's word, one of PRECISIONS."""
    accumulate: int = MISSING
    """Batches a step."""
    clip: float = MISSING
    """Largest norm of the gradient."""
    checkpoint_steps: int = MISSING
    """Steps between resumable checkpoints; the end of every epoch is one too."""
    workers: int = MISSING
    """Processes that load images."""
    cache_mb: int = MISSING
    """Memory for prepared training images, in MB; the rest is prepared anew every epoch."""
    progress: bool = True
    """Progress bars."""

    def __post_init__(self) -> None:
        refuse(
            [
                (self.precision not in PRECISIONS, f"trainer.precision={self.precision} is not known: choose {', '.join(PRECISIONS)}."),
                (self.accumulate < 1, f"trainer.accumulate={self.accumulate}: choose 1 or more."),
                (not self.clip >= 0, f"trainer.clip={self.clip}: choose 0 (no clipping) or more."),
                (self.checkpoint_steps < 1, f"trainer.checkpoint_steps={self.checkpoint_steps}: choose 1 or more."),
                (self.workers < 0, f"trainer.workers={self.workers}: choose 0 or more."),
                (self.cache_mb < 0, f"trainer.cache_mb={self.cache_mb}: choose 0 or more."),
            ]
        )
