"""biqa: two-stage tuning of vision-language models for blind image quality assessment, and the measures that tell whether it helped.

    from biqa import load

    scorer = load("runs/tiny-joint-synthetic-s0")
    scorer("photo.jpg").score

Importing biqa imports nothing else: torch comes with the first call.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    import torch

    from biqa.finished.metric import RunMetric
    from biqa.finished.predicting import Scorer

__all__ = ["create_metric", "load"]
__version__ = "0.1.0"


def load(
    run: "str | os.PathLike[str]",
    *,
    device: str = "auto",
    perception: "str | os.PathLike[str] | None" = None,
    batch_size: int | str = "auto",
    seed: int | None = None,
) -> "Scorer":
    """A finished run as a function of pictures: `load(run)("photo.jpg")` gives a `Prediction`, a list of pictures a list.

    Args:
        run: the run's folder.
        device: "auto" (a GPU where there is one), "cpu", "cuda", or torch's name of a device.
        perception: folder of the stage 1 of a two-stage run; None: found as the run found it, or beside it.
        batch_size: pictures answered at a time; "auto": as many as fit into memory.
        seed: draws sampled answers; None: the run's own.

    Raises:
        RunNotFound: no finished run there, or one that it builds on is gone.
        IncompatibleChoice: it is a run of stage 1, which judges nothing.
    """
    from biqa.finished.predicting import Scorer

    return Scorer(run, device=device, perception=perception, batch_size=batch_size, seed=seed)


def create_metric(run: "str | os.PathLike[str]", device: "torch.device | str | None" = None) -> "RunMetric":
    """A finished run as a torch module, to be used where pyiqa's metrics are: a batch [N, 3, H, W] in [0, 1], or a path, to scores [N].

    Args:
        run: the run's folder.
        device: where it computes; None: a GPU where there is one.

    Raises:
        RunNotFound, IncompatibleChoice: as `load`.
    """
    from biqa.finished.metric import RunMetric

    return RunMetric(run, device)
