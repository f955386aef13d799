"""A curve on disk goes on where its run does: no step missing, none twice. What it costs: nothing between its rows."""

import csv
import traceback
from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from biqa.stages.checkpoints import Checkpoints
from biqa.stages.curves import CurveLogger, Progress, TrainingLoss
from biqa.stages.limits import BatchInMemory


def read(logger):
    return list(csv.DictReader(logger.file.read_text().splitlines()))


def test_a_figure_that_is_new_becomes_a_column(tmp_path):
    logger = CurveLogger(str(tmp_path), "logs")
    logger.log_metrics({"train/loss": 1.5, "epoch": 0}, step=9)
    logger.log_metrics({"val/srcc": 0.25, "epoch": 0}, step=9)
    assert logger.file == tmp_path / "logs" / "metrics.csv"
    assert read(logger) == [
        {"step": "9", "epoch": "0", "train/loss": "1.5", "val/srcc": ""},
        {"step": "9", "epoch": "0", "train/loss": "", "val/srcc": "0.25"},
    ]


def test_a_run_that_goes_on_writes_its_rows_anew(tmp_path):
    """Killed after step 40 (number 39) with a checkpoint of step 25; its last row is cut off. Another process goes on."""
    logger = CurveLogger(str(tmp_path), "logs")
    for step in (9, 19, 29, 39):
        logger.log_metrics({"train/loss": step / 2}, step=step)
    whole = logger.file.read_text()
    logger.log_metrics({"val/srcc": 0.5}, step=39)
    logger.file.write_text(logger.file.read_text() + "49,0.")
    again = CurveLogger(str(tmp_path), "logs")
    again.go_on_from(25)
    assert [row["step"] for row in read(again)] == ["9", "19"]
    for step in (29, 39):
        again.log_metrics({"train/loss": step / 2}, step=step)
    assert again.file.read_text() == whole


def test_a_run_that_begins_again_forgets_all(tmp_path):
    CurveLogger(str(tmp_path), "logs").log_metrics({"train/loss": 1.0}, step=9)
    again = CurveLogger(str(tmp_path), "logs")
    again.go_on_from(0)
    again.log_metrics({"val/loss": 2.0}, step=9)
    assert read(again) == [{"step": "9", "val/loss": "2.0"}]


def test_the_step_of_a_checkpoint_itself_is_done(tmp_path):
    logger = CurveLogger(str(tmp_path), "logs")
    logger.go_on_from(0)  # nothing there yet
    logger.log_metrics({"train/loss": 1.0}, step=9)
    logger.go_on_from(10)
    assert len(read(logger)) == 1
    logger.go_on_from(9)
    assert read(logger) == []


# a step waits for no device, but where a row is written

aten = torch.ops.aten
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.equal, aten.is_nonzero}
"""What `item()`, `float()`, `bool()`, `tolist()` of one number and the like come down to: the host wants to know what a device has computed."""
AT_HOME = ("data/collate.py", "torch/optim/")
"""The host's own: batches are made there, and AdamW counts its steps there, also for weights on a GPU."""


class Waits(TorchDispatchMode):
    """Notes where in biqa or Lightning a number is asked for. What transformers asks for itself is left out."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func.overloadpacket in (aten.index, aten.index_put_) and any(at is not None and at.dtype == torch.bool for at in args[1])
        if func.overloadpacket in WAITS or by_mask:
            stack = [frame for frame in traceback.extract_stack()[:-1] if "/torch/utils/" not in frame.filename]
            if not any(home in frame.filename for frame in stack for home in AT_HOME):
                caller = next(frame for frame in reversed(stack) if "/torch/" not in frame.filename)
                if "/transformers/" not in caller.filename:
                    self.seen.append(f"{Path(caller.filename).name}:{caller.name}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["perception", "inference", "joint"])
@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_between_rows_a_step_waits_for_no_device(stage, items, data_of, tmp_path, name, progress):
    module = stage(name).train()
    waits, seen = Waits(), []

    class Steps(L.Callback):
        def on_train_batch_start(self, *_, **__):
            waits.seen = []

        def on_train_batch_end(self, *_, **__):
            seen.append(waits.seen)

    loss = TrainingLoss(every=3)
    callbacks = [BatchInMemory(), loss, Checkpoints(tmp_path / "checkpoints", every=1000), *([Progress(loss)] if progress else []), Steps()]
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=CurveLogger(str(tmp_path), "logs"), enable_checkpointing=False,
        enable_progress_bar=progress, enable_model_summary=False, limit_val_batches=0, num_sanity_val_steps=0, gradient_clip_val=1.0,
        precision="bf16-mixed", callbacks=callbacks, default_root_dir=tmp_path,
    )  # fmt: skip
    with waits:
        trainer.fit(module, data_of(module, items(4) * 4))
    assert len(seen) == 8
    assert [set(step) for step in seen] == [{"curves.py:on_train_batch_end"} if number % 3 == 0 else set() for number in range(1, 9)]
    assert [row["step"] for row in read(trainer.logger)] == ["2", "5"]
    assert loss.shown == {"train/loss": float(read(trainer.logger)[-1]["train/loss"])}
    if progress:
        assert Progress(loss).get_metrics(trainer, module)["train/loss"] == loss.shown["train/loss"]


def test_a_row_has_the_mean_of_all_processes(stage, items, data_of, tmp_path, trainer, monkeypatch):
    module = stage("perception").train()
    of_others = [2.5, 4.25]
    monkeypatch.setattr("biqa.stages.curves.gathered", lambda own: [own, *of_others])
    runner = trainer()
    runner.callbacks += [TrainingLoss(every=1)]
    runner.loggers = [CurveLogger(str(tmp_path), "logs")]
    steps = []
    monkeypatch.setattr(module, "training_step", noting(module.training_step, steps))
    runner.fit(module, data_of(module, items(4)))
    rows = read(runner.loggers[0])
    assert [float(row["train/loss"]) for row in rows if row["train/loss"]] == pytest.approx([(own + sum(of_others)) / 3 for own in steps])


def noting(step, found):
    def noted(*given):
        loss = step(*given)
        found.append(float(loss.detach()))
        return loss

    return noted
