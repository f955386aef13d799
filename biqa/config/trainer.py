"""Options of Lightning's trainer."""

from dataclasses import dataclass
from typing import Any

from biqa.config.checks import MISSING, refuse

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Lightning's words. Its "-true" ones for other types want to convert the batch, whose examples cannot change."""

REQUEUE_SIGNALS = ("SIGUSR1", "SIGUSR2")
"""SIGINT and SIGTERM stop a run for good."""


@dataclass
class TrainerOptions:
    """Lightning's trainer."""

    accelerator: str = MISSING
    """"auto", "cpu", "gpu"."""
    devices: Any = MISSING
    """How many on each machine (a process for each), which of them, or "auto": all GPUs, or the CPU once."""
    nodes: int = 1
    """Machines. More than one are started by torchrun or srun, or by a launcher of Hydra: `biqa.running.processes`."""
    precision: str = MISSING
    """Lightning's word: "32-true", "bf16-mixed" or "16-mixed"."""
    accumulate: int = MISSING
    """Batches a step."""
    clip: float = MISSING
    """Largest norm of the gradient."""
    checkpoint_activations: bool = False
    """Compute a block's activations again in the backward pass instead of keeping them: less memory, about a third more time, the same result."""
    pack: bool = True
    """Texts of a batch of stage 2 share rows where that takes fewer: less padding, the same result but for rounding (and what dropout draws)."""
    group_by_length: bool = False
    """Whether a batch to learn from has descriptions of similar length, which pads less. Another order of the images, so another run."""
    liger: bool = False
    """Liger's Triton kernels for norms and MLPs of the decoder, on a GPU: faster, less memory, the same result but for rounding."""
    checkpoint_steps: int = MISSING
    """Steps between resumable checkpoints; the end of every epoch is one too."""
    requeue_signal: str = MISSING
    """In a SLURM job: what announces its end (sbatch --signal=USR1@120). The run saves, queues the job again and goes on when it starts anew."""
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
                (self.nodes < 1, f"trainer.nodes={self.nodes}: choose 1 or more."),
                (self.accumulate < 1, f"trainer.accumulate={self.accumulate}: choose 1 or more."),
                (not self.clip >= 0, f"trainer.clip={self.clip}: choose 0 (no clipping) or more."),
                (self.checkpoint_steps < 1, f"trainer.checkpoint_steps={self.checkpoint_steps}: choose 1 or more."),
                (
                    self.requeue_signal not in REQUEUE_SIGNALS,
                    f"trainer.requeue_signal={self.requeue_signal} is not known: choose {' or '.join(REQUEUE_SIGNALS)}.",
                ),
                (self.workers < 0, f"trainer.workers={self.workers}: choose 0 or more."),
                (self.cache_mb < 0, f"trainer.cache_mb={self.cache_mb}: choose 0 or more."),
            ]
        )
