"""A training whose loss or weights are no numbers any more ends there, before anything of it is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from biqa.errors import Diverged
from biqa.stages.base import ends_step
from biqa.stages.checkpoint_files import numbered
from biqa.stages.together import first, gathered

NAMED = 8
"""Images of a batch that are named, at most."""


@dataclass(frozen=True)
class Bad:
    """A step that gave no numbers."""

    step: int
    """From 1."""
    found: str
    """What was found, in words."""
    images: Sequence[str]
    """Of its batch, as far as this process knows them."""


class OnlyNumbers(L.Callback):
    """Ends a training that has diverged: the step, the images of its batch, and what helps are told, and no checkpoint holds any of it.

    No step waits for the device: its loss is kept there, a number of four bytes, and looked at with those of the steps before at the next of every
    `every` steps, at which the training loss is read anyway (`biqa.stages.curves.TrainingLoss`). A checkpoint copies all that learns from the device,
    and before that the losses since and the weights are looked at: a step whose loss was a number may have made none of the weights. So it is at the
    end of an epoch, before the validation; the weights of a finished training are numbers too.

    Args:
        folder: of the checkpoints.
        every: steps between two looks.

    Raises:
        Diverged: from the hooks of all processes at the same step.
    """

    def __init__(self, folder: Path, every: int = 10) -> None:
        self.folder = folder
        self.every = every
        self.unseen: list[tuple[int, int, int, Tensor]] = []
        """Step, epoch and batch of losses that nobody has looked at, and of the one before them."""

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 (Lightning's hook)
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Keep the loss of a batch; look once in a while."""
        stage: Any = pl_module
        last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        stepped = ends_step(trainer, batch_idx)
        self.unseen.append((trainer.global_step + (not stepped), trainer.current_epoch, batch_idx, stage.step_loss))
        if last:  # before a validation
            self._look(trainer, stage, list(stage.parameters()))
        elif stepped and trainer.global_step % self.every == 0:
            self._look(trainer, stage, None)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Look before anything is written."""
        self._look(trainer, pl_module, list(pl_module.parameters()))

    def _look(self, trainer: L.Trainer, stage: Any, weights: Sequence[Tensor] | None) -> None:  # noqa: ANN401 (a stage)
        found = min((bad for bad in gathered(self._bad(trainer, weights)) if bad is not None), key=lambda bad: bad.step, default=None)
        self.unseen = self.unseen[-1:]  # weights may be looked at after it
        if found is None:
            return
        if not first():
            raise SystemExit(2)  # the first process says it
        there = numbered(self.folder)
        kept = f"the newest checkpoint is {there[-1][1]}" if there else "there is no checkpoint yet"
        named = ", ".join(found.images[:NAMED]) + (f" and {len(found.images) - NAMED} more" if len(found.images) > NAMED else "")
        raise Diverged(
            f"Training has diverged: {found.found} Its batch: {named}. Nothing of that step is kept: {kept}.\n"
            f"What helps: a smaller tuning.lr (now {stage.lr:g}), trainer.precision=bf16-mixed or 32-true (now {trainer.precision}), a smaller "
            f"trainer.clip (now {trainer.gradient_clip_val:g}). These are other runs: choose another name=, or overwrite=true."
        )

    def _bad(self, trainer: L.Trainer, weights: Sequence[Tensor] | None) -> Bad | None:
        """The first loss here that is no number; where all are, what the last step has made of the weights."""
        if not self.unseen:
            return None
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue] (Lightning leaves it out)
        for (step, epoch, batch, _), loss in zip(self.unseen, torch.stack([loss.float() for *_, loss in self.unseen]).tolist(), strict=True):
            if not abs(loss) < float("inf"):
                return Bad(step, f"the loss of step {step} is {loss:g}.", data.images_of(epoch, batch))
        step, epoch, batch, _ = self.unseen[-1]
        if weights is not None and not _numbers(weights):
            return Bad(step, f"step {step} has made weights that are no numbers, of a loss that is one.", data.images_of(epoch, batch))
        return None


def _numbers(weights: Sequence[Tensor]) -> bool:
    """Whether all weights that learn are finite; of divided ones, this process's share."""
    shares = [getattr(weight, "to_local", lambda weight=weight: weight)().detach() for weight in weights if weight.requires_grad]
    ends = [end.float() for share in shares if share.numel() for end in torch.aminmax(share)]  # neither copies, and NaN passes through both
    return not ends or bool(torch.stack([end.to(ends[0].device) for end in ends]).isfinite().all())
