"""A few steps and answers by the clock, before anybody waits for all of them. What is trained here is thrown away."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import lightning as L
import torch

from biqa.data.collate import Batch
from biqa.data.module import DataModule, Item, kept_bytes
from biqa.stages.base import Row, StageModule
from biqa.stages.limits import BatchInMemory, size_of

MOST = 12
"""Steps that are taken, at most; the first one warms up."""
ENOUGH = 3.0
"""Seconds after which no further step is taken, once one beyond the first is done."""
LONG = 20.0
"""Seconds that one kind of work may take here: of slower ones less is done, and of all the rest it is concluded."""
FEW, GROWTH = 2, 8
"""Images that are answered first, to warm up, and how many times more follow, up to as many as the run answers together."""


def now() -> float:
    """Seconds, when all that was begun on a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Clock(L.Callback):
    """Times steps and a validation, and ends training when it has seen enough.

    Attributes:
        fetching: seconds an image until it is read, encoded and in a batch, by batch; `collating` the last part of that.
        stepping: seconds of each optimiser step, without that.
        validating: seconds of the validation.
        example_bytes: what the first examples take in memory when they are kept, each.
        checkpoint_bytes: of weights that learn and of the optimiser's state.
    """

    def __init__(self) -> None:
        self.fetching: list[float] = []
        self.collating: list[float] = []
        self.stepping: list[float] = []
        self.validating = 0.0
        self.example_bytes: list[int] = []
        self.checkpoint_bytes = 0
        self._since = 0.0
        self._step = 0.0
        self._validation = 0.0

    @property
    def step(self) -> float:
        """Seconds of a step, after the first."""
        return median(self.stepping[1:] or self.stepping)

    @property
    def encoding(self) -> float:
        """Seconds an image to read and encode it; `collation` to put it into a batch."""
        return max(0.0, median(self.fetching) - self.collation)

    @property
    def collation(self) -> float:
        """Seconds an image to put it into a batch."""
        return median(self.collating)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin."""
        self._since = now()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        """A batch is there."""
        self.fetching.append((now() - self._since) / len(batch.examples))
        self._since = now()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ANN401 (Lightning's hook)
        """It is learnt from; after enough steps training ends."""
        self._step += now() - self._since
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.stepping.append(self._step)
            self._step = 0.0
            spent = sum(self.stepping)
            trainer.should_stop = len(self.stepping) == MOST or spent - self.stepping[0] >= ENOUGH or spent >= LONG
        started = now()
        data: DataModule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue] (Lightning leaves it out)
        data.collate(batch.examples)
        self.collating.append((now() - started) / len(batch.examples))
        self.example_bytes = self.example_bytes or [kept_bytes(example) for example in batch.examples]
        self._since = now()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to validate."""
        self._validation = now()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """That was it."""
        self.validating = now() - self._validation

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See how large a checkpoint is."""
        learning = [weight.detach() for weight in pl_module.parameters() if weight.requires_grad]
        self.checkpoint_bytes = size_of(learning) + sum(size_of(optimizer.state_dict()["state"]) for optimizer in trainer.optimizers)


@dataclass(frozen=True)
class Asked:
    """Images that were answered by the clock."""

    rows: list[Row]
    images: int
    """Of the last batch."""
    seconds: float
    """An image of it."""


def ask(stage: StageModule, trainer: L.Trainer, items: Sequence[Item], together: int) -> Asked:
    """Answer some images as a prediction would, first a few, then more, up to `together`; fewer where that would take long.

    Args:
        stage: what answers; its model is moved to the device of the trainer.
        trainer: says where and in which precision.
        items: some, at least one; the first of them are asked.
        together: images answered at a time.
    """
    most = min(together, len(items))
    with ready_to_answer(stage, trainer):
        number = min(FEW, most)
        rows, spent = answered(stage, trainer, items[:number])
        while True:
            number = max(number, min(most, GROWTH * number, int(number * LONG / spent)))
            rows, spent = answered(stage, trainer, items[:number])
            if number == most or 2 * spent > LONG:
                break
    return Asked(rows, number, spent / number)


@contextmanager
def ready_to_answer(stage: StageModule, trainer: L.Trainer) -> Iterator[None]:
    """The model where it answers, in the precision in which it does."""
    stage.vlm.to(trainer.strategy.root_device).eval()
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        yield


def answered(stage: StageModule, trainer: L.Trainer, items: Sequence[Item]) -> tuple[list[Row], float]:
    """Rows of some images, and the seconds that they took. An error of memory says what was in it."""
    in_memory = BatchInMemory()
    in_memory.on_predict_batch_start(trainer, stage, list(items), 0)
    started = now()
    try:
        rows = stage.predict_step(list(items))
    except Exception as error:
        in_memory.on_exception(trainer, cast(L.LightningModule, stage), error)
        raise
    return rows, now() - started
