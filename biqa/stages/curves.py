"""Training curves: logs/metrics.csv of a run is one curve, however often the run was killed and went on."""

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers.logger import Logger

from biqa.files import told_as, write_whole
from biqa.stages.base import ends_step
from biqa.stages.together import gathered


class CurveLogger(Logger):
    """Rows of figures in `<save_dir>/<name>/metrics.csv`, on disk as soon as they are logged; `step` counts from 0.

    Not Lightning's CSVLogger: that begins another file in each process, and what a killed run did after its last checkpoint stands in two of them.

    Args:
        save_dir: the run folder.
        name: the folder of logs in it.
    """

    def __init__(self, save_dir: str, name: str) -> None:
        super().__init__()
        self._name = name
        self.file = Path(save_dir) / name / "metrics.csv"
        self.columns: list[str] = []

    @property
    def name(self) -> str:
        """The folder of logs."""
        return self._name

    @property
    def version(self) -> str:
        """None but this one."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (Lightning's method)
        """Nothing: the run folder has its config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row. A name that is new becomes a column, empty in the rows before."""
        row = {"step": step, **metrics}
        if set(row) - set(self.columns):
            self.columns = [*self.columns, *sorted(set(row) - set(self.columns))]
            self._write(self.rows())
        with told_as(self.file), self.file.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    @rank_zero_only
    def go_on_from(self, step: int) -> None:
        """Forget rows of step number `step` and later: so many steps are done, and those rows will come again."""
        if not self.file.is_file():
            return
        rows = [row for row in self.rows() if int(row["step"]) < step]
        self.columns = list(dict.fromkeys(name for row in rows for name in row if any(other[name] for other in rows)))
        self._write(rows)

    def rows(self) -> list[dict[str, str]]:
        """What the file holds; the end of a row that a kill cut off is left out."""
        if not self.file.is_file():
            return []
        text = self.file.read_text(encoding="utf-8")
        return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))

    def _write(self, rows: list[dict[str, str]]) -> None:
        writer = csv.DictWriter(text := StringIO(), self.columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.file, text.getvalue())


class TrainingLoss(L.Callback):
    """Log the training loss every so many steps, before a checkpoint is written at the same step.

    Lightning would log it afterwards: a run that went on from that checkpoint would lack the row. So this callback stands before `Checkpoints`.
    Between those steps nobody asks what the loss is, and a GPU goes on with its queue of work.

    Args:
        every: steps between two rows.

    Attributes:
        shown: the last figure, for the progress bar.
    """

    def __init__(self, every: int = 10) -> None:
        self.every = every
        self.shown: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take what the curve says beyond the checkpoint out of it."""
        for logger in trainer.loggers:
            if isinstance(logger, CurveLogger):
                logger.go_on_from(trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401 (Lightning's hook)
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Log the loss of the batch that ended a step: the mean over the processes."""
        if ends_step(trainer, batch_idx) and trainer.global_step % self.every == 0:
            stage: Any = pl_module
            self.shown = {"train/loss": float(torch.tensor(gathered(float(stage.step_loss))).mean())}
            for logger in trainer.loggers:
                logger.log_metrics({**self.shown, "epoch": trainer.current_epoch}, step=trainer.global_step - 1)


class Progress(RichProgressBar):
    """Lightning's bar, with the training loss as it was last logged.

    Args:
        loss: logs it.
    """

    def __init__(self, loss: TrainingLoss) -> None:
        super().__init__()
        self.loss = loss

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """What stands behind the bar."""
        return {**super().get_metrics(trainer, pl_module), **self.loss.shown}
