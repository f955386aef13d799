"""A finished run as a metric: a torch module from a batch of pictures to their scores, to be used where pyiqa's metrics are.

metric = biqa.create_metric("runs/tiny-joint-synthetic-s0", device="cuda")
metric(batch)            # [N, 3, H, W] in [0, 1] -> [N], 1 = best
metric("photo.jpg")      # -> [1]
"""

import os
from collections.abc import Iterable

import torch
from PIL import Image
from torch import Tensor, nn

from biqa.errors import BadRecord
from biqa.finished.predicting import Scorer
from biqa.finished.reading import Source

SLACK = 1e-3
"""By how much a value may leave [0, 1]: less than half a grey level, so that it rounds to what it would have been."""


class RunMetric(nn.Module):
    """The score of a run. Pictures are rounded to 8 bits, which the run has learnt from; no gradient flows.

    Args:
        run: the run's folder.
        device: torch's name of a device, or a device; None: a GPU where there is one.

    Raises:
        RunNotFound, IncompatibleChoice: as `Scorer` says.
    """

    lower_better = False
    score_range = "0, 1"
    metric_mode = "NR"
    """No reference, as pyiqa calls it."""

    def __init__(self, run: str | os.PathLike[str], device: torch.device | str | None = None) -> None:
        super().__init__()
        self.scorer = Scorer(run, device="auto" if device is None else str(device))
        self.metric_name = self.scorer.name
        self.models = nn.ModuleList(self.scorer.models)
        self.train(False)

    def train(self, mode: bool = True) -> "RunMetric":
        """It does not learn: it stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor | Source | Iterable[Source], ref: object = None) -> Tensor:
        """Scores of pictures.

        Args:
            x: [N, 3, H, W], RGB in [0, 1]; or the path of a picture, a picture of Pillow's, or several of these.
            ref: not looked at: no reference is needed.

        Returns:
            [N] float32 on the metric's device, values in [0, 1], 1 = best.

        Raises:
            BadRecord: another shape, values that are no numbers or not in [0, 1], or a picture that cannot be read.
        """
        images = pictures(x) if isinstance(x, Tensor) else x
        one = isinstance(images, str | os.PathLike | Image.Image)
        found = self.scorer([images] if one else images)
        return torch.tensor([prediction.score for prediction in found], dtype=torch.float32, device=self.scorer.models[-1].device)


def pictures(x: Tensor) -> list[Image.Image]:
    """A batch as pictures.

    Args:
        x: [N, 3, H, W] in [0, 1].

    Raises:
        BadRecord: another shape, another type, values that are no numbers or not in [0, 1].
    """
    shape = tuple(x.shape)
    if x.ndim != 4 or shape[1] != 3 or not x.is_floating_point() or 0 in shape[2:]:
        raise BadRecord(
            f"A batch of shape {shape} and type {str(x.dtype).removeprefix('torch.')}: give [N, 3, H, W], RGB as floating-point numbers in [0, 1]"
            f"{', as x / 255 makes them of bytes' if not x.is_floating_point() else ''}."
        )
    if not x.isfinite().all():
        raise BadRecord(f"A batch of shape {shape} holds values that are no numbers (NaN or infinite).")
    if x.numel() and not -SLACK <= float(x.min()) <= float(x.max()) <= 1 + SLACK:
        raise BadRecord(
            f"A batch of shape {shape} has values from {float(x.min()):g} to {float(x.max()):g}: give them in [0, 1]. Divide bytes by 255, undo a "
            f"normalisation, and clamp what a filter has pushed beyond (x.clamp(0, 1))."
        )
    rounded = (x.detach().float() * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in rounded]
