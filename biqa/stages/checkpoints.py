"""When checkpoints are taken: every so many steps, at the end of an epoch, and when the user stops a run."""

import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from biqa.stages.base import ends_step
from biqa.stages.checkpoint_files import numbered
from biqa.stages.together import gathered, largest, rank


class Stopped(BaseException):
    """The user stopped the run (Ctrl-C, SIGTERM), or SLURM; what was done so far is on disk.

    No `Exception`: a signal may come while a library tries something and catches all that goes wrong.

    Args:
        number: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def __reduce__(self) -> tuple[type["Stopped"], tuple[int]]:
        """So that it travels between processes."""
        return type(self), (self.number,)


def signal_behind(error: BaseException) -> int | None:
    """The signal that ended a run, or None when it was none.

    Lightning answers signals itself before the first batch and after the last one: SIGTERM by an exception of its own, whose exit code would be 0,
    and Ctrl-C by `sys.exit(1)`.
    """
    if isinstance(error, Stopped):
        return error.number
    if isinstance(error, SIGTERMException):
        return signal.SIGTERM
    return signal.SIGINT if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt) else None


class Checkpoints(L.Callback):
    """Save every `every` steps, at the end of every epoch and when a signal comes; keep the newest two. Answering images stops after a batch.

    The states of the random number generators travel with the checkpoint, so that a resumed run draws what the uninterrupted one would have.

    Args:
        folder: where checkpoints lie.
        every: steps between checkpoints inside an epoch.
        requeue: signals that end the run as SIGINT and SIGTERM do, and win over them: SLURM may send SIGTERM beside them.
    """

    def __init__(self, folder: Path, every: int, requeue: Sequence[int] = ()) -> None:
        self.folder = folder
        self.every = every
        self.requeue = requeue
        self.stop_signal: int | None = None
        self.handlers: dict[int, Any] = {}
        self.generators: dict[str, Any] | None = None
        """Their states at the checkpoint that the next batch follows."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals: they end the run after the step in progress.

        Not in `on_fit_start`: Lightning sets its own handler for SIGTERM after that, which may end the run first, without a checkpoint.
        """
        for number in (signal.SIGINT, signal.SIGTERM, *self.requeue):
            self.handlers[number] = signal.signal(number, self._note)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over the signals: they end the run after the batch in progress."""
        self.on_train_start(trainer, pl_module)

    def on_predict_batch_end(  # noqa: PLR0917 (Lightning's hook)
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 (Lightning's hook)
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop when a signal has come."""
        self._stop_if_asked()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back."""
        self._give_back()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Give the signals back, before Lightning does so with those that it found."""
        self._give_back()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Give the signals back."""
        self._give_back()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Put the generators where the checkpoint before this batch has them.

        Lightning makes data loaders' iterators in between, more of them in a resumed run, and each draws from the generators.
        """
        if self.generators is not None:
            self._put(self.generators)
            self.generators = None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 (Lightning's hook)
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Save every `every` steps and when a signal has come. The last batch of an epoch is left to the end of the epoch."""
        if trainer.fit_loop.epoch_loop.batch_progress.is_last_batch or not ends_step(trainer, batch_idx):
            return
        stop = self._asked_to_stop()
        if trainer.global_step % self.every == 0 or stop:
            self._save(trainer)
        if stop:
            raise Stopped(stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save, after validation."""
        self._save(trainer)
        self._stop_if_asked()

    def state_dict(self) -> dict[str, Any]:
        """States of the random number generators of each process, by rank."""
        return {"ranks": gathered(self._states())}

    def _states(self) -> dict[str, Any]:
        numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002 (libraries still draw from the global generator)
        state = {
            "torch": torch.get_rng_state(),
            "numpy": {**numpy_state["state"], "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))},
        }
        return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Put the generators of this process back, now and again before the next training batch."""
        self._put(state_dict["ranks"][rank()])

    def _put(self, state_dict: dict[str, Any]) -> None:
        self.generators = state_dict
        torch.set_rng_state(state_dict["torch"].cpu())
        key = state_dict["numpy"]["key"].cpu().numpy().astype(np.uint32)
        np.random.set_state({"bit_generator": "MT19937", "state": {"key": key, "pos": state_dict["numpy"]["pos"]}, "has_gauss": 0, "gauss": 0.0})  # noqa: NPY002
        if "cuda" in state_dict and torch.cuda.is_available():
            torch.cuda.set_rng_state(state_dict["cuda"].cpu())

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.stop_signal not in self.requeue:
            self.stop_signal = number

    def _asked_to_stop(self) -> int:
        """The signal that this process or another has got, so that all stop after the same step; 0: none."""
        return largest(self.stop_signal or 0)

    def _stop_if_asked(self) -> None:
        if stop := self._asked_to_stop():
            raise Stopped(stop)

    def _give_back(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.folder / f"step={trainer.global_step:08d}.ckpt")
        self.generators = self._states()
        if trainer.is_global_zero:
            self._tidy(trainer.global_step)

    def _tidy(self, step: int) -> None:
        """Keep the newest two up to `step`. Those of later steps are damaged, as the run went on from before them; whole ones must not give way."""
        found = numbered(self.folder)
        past = [path for number, path in found if number <= step]
        for path in (*past[:-2], *(path for number, path in found if number > step)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in self.folder.glob("*.tmp"):
            path.unlink()
