"""A run that was stopped or killed, and then goes on, ends where an uninterrupted one does, to the bit."""

import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException
from planted import signal_when

from biqa.evaluation.answers import read_answers
from biqa.reporting.result import read_result
from biqa.stages.base import StageModule
from biqa.stages.checkpoints import Stopped

pytest_plugins = ["small_runs"]

STEPS = 50
"""Of an epoch."""
LONG = ("data.train=100", "stage.batch_size=2", "stage.epochs=3", "trainer.checkpoint_steps=7")
TUNINGS = {"full": (), "lora": ("tuning=lora", "tuning.rank=2", "tuning.lr=0.01", "tuning.dropout=0.3")}
"""Dropout draws random numbers in every step, which full tuning does not."""
WEIGHTS = {"full": "model/model.safetensors", "lora": "adapter/adapter_model.safetensors"}


def steps(folder):
    """Steps of the checkpoints there are, ascending."""
    return sorted(int(match[1]) for path in folder.glob("checkpoints/*.ckpt") if (match := re.fullmatch(r"step=(\d{8})\.ckpt", path.name)))


def answers(folder):
    return read_answers(folder / "answers" / "synthetic.parquet")


def assert_same_run(folder, other, tuning, digest):
    assert digest(folder / WEIGHTS[tuning]) == digest(other / WEIGHTS[tuning])
    pd.testing.assert_frame_equal(answers(folder), answers(other), check_exact=True)
    assert read_result(folder / "result.json")["metrics"] == read_result(other / "result.json")["metrics"]


@dataclass(frozen=True)
class Whole:
    """A run that nothing interrupted."""

    folder: Path
    options: tuple[str, ...]


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """Uninterrupted joint runs by tuning, made when first asked for."""
    runs, made = tmp_path_factory.mktemp("whole"), {}

    def of(tuning):
        if tuning not in made:
            made[tuning] = Whole(runs / tuning, (*LONG, "stage=joint", *TUNINGS[tuning]))
            assert run(runs, tuning, *made[tuning].options).code == 0
        return made[tuning]

    return of


@pytest.mark.parametrize(("number", "tuning"), [(signal.SIGINT, "full"), (signal.SIGTERM, "lora")])
def test_stopped_in_mid_epoch_it_goes_on_to_the_same_bits(whole, run, start, synthetic, tmp_path, digest, number, tuning):
    same = whole(tuning)
    folder = tmp_path / "runs" / tuning
    process = start(*synthetic, *same.options, f"runs={tmp_path / 'runs'}", f"name={tuning}")
    code, _, err = signal_when(process, number, lambda: any(step > STEPS and step % STEPS for step in steps(folder)))
    last = steps(folder)[-1]
    assert STEPS < last < 3 * STEPS
    assert last % STEPS
    assert not (folder / "result.json").exists()
    assert not (folder / WEIGHTS[tuning]).exists()
    assert code == 128 + number
    said = f"Stopped by {number.name} after step {last}; a checkpoint is in {folder / 'checkpoints'}. The same command with ckpt=last goes on."
    assert err.splitlines()[-1] == said
    assert "Traceback" not in err
    assert run(tmp_path / "runs", tuning, *same.options, "ckpt=last").code == 0
    assert_same_run(folder, same.folder, tuning, digest)


def remove_end(folder):
    """Leave what a run that was killed after its last checkpoint leaves."""
    for name in ("result.json", "adapter", "model", "answers"):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@pytest.mark.parametrize("tuning", TUNINGS)
def test_it_goes_on_from_the_end_of_an_epoch_where_the_newest_checkpoint_is_damaged(run, tmp_path, digest, tuning):
    """A checkpoint cut off by a full disk or a dying machine is passed over for the one before it, here the end of the second epoch."""
    options = ("stage=joint", *LONG, *TUNINGS[tuning], "trainer.checkpoint_steps=1000", "data.train=24")
    assert run(tmp_path / "whole", tuning, *options).code == 0
    folder = Path(shutil.copytree(tmp_path / "whole" / tuning, tmp_path / "runs" / tuning))
    remove_end(folder)
    assert steps(folder) == [24, 36]
    newest = folder / "checkpoints" / "step=00000036.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert run(tmp_path / "runs", tuning, *options, "ckpt=last").code == 0
    assert_same_run(folder, tmp_path / "whole" / tuning, tuning, digest)


@pytest.fixture(scope="module")
def two_stages(run, tmp_path_factory):
    """A finished stage 2 with its stage 1, adapters both; the options of stage 2."""
    runs = tmp_path_factory.mktemp("two-stages")
    one = ("data.train=40", "data.test=40", "sampling.batch_size=2", "stage.epochs=1", *TUNINGS["lora"])
    assert run(runs, "one", "stage=1", *one).code == 0
    two = ("stage=2", *one, f"stage.perception={runs / 'one'}", "stage.batch_size=8")
    assert run(runs, "two", *two).code == 0
    return Whole(runs / "two", two)


@pytest.mark.faults
def test_killed_while_describing_and_again_while_answering_it_ends_with_the_same_answers(two_stages, run, start, synthetic, tmp_path, digest):
    folder = tmp_path / "runs" / "two"
    command = (*synthetic, *two_stages.options, f"runs={tmp_path / 'runs'}", "name=two")
    described = [folder / "descriptions" / f"synthetic-{split}.parquet" for split in ("train", "val", "test")]
    code, _, _ = signal_when(start(*command), signal.SIGKILL, described[0].is_file)
    assert code == -signal.SIGKILL
    assert not described[2].exists()
    assert not steps(folder)
    first = described[0].stat().st_mtime_ns
    code, _, _ = signal_when(start(*command, "ckpt=last"), signal.SIGKILL, (folder / "adapter").is_dir)
    assert code == -signal.SIGKILL
    assert not (folder / "answers").exists()
    assert described[0].stat().st_mtime_ns == first  # what was described already is not described again
    assert run(tmp_path / "runs", "two", *two_stages.options, "ckpt=last").code == 0
    assert_same_run(folder, two_stages.folder, "lora", digest)


SHORT = ("stage=joint", "stage.epochs=1", "stage.batch_size=8")


def test_ckpt_last_where_no_run_has_started_starts_one(run, tmp_path, digest):
    assert run(tmp_path, "a", *SHORT, "ckpt=last").code == 0
    assert run(tmp_path, "b", *SHORT).code == 0
    assert_same_run(tmp_path / "a", tmp_path / "b", "full", digest)


def test_ckpt_last_of_a_finished_run_shows_its_result(run, tmp_path):
    assert run(tmp_path, "a", *SHORT).code == 0
    written = (tmp_path / "a" / "result.json").stat().st_mtime_ns
    again = run(tmp_path, "a", *SHORT, "ckpt=last")
    assert again.code == 0
    assert "is finished already; its result follows" in again.out
    assert (tmp_path / "a" / "result.json").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "holds an unfinished run of this config: add ckpt=last to go on with it, or overwrite=true to start again."),
        (("ckpt=last", "stage.epochs=2"), "holds a run with another config: stage.epochs: 1 there, 2 here"),
        (("ckpt=last", "overwrite=true"), "ckpt=last goes on with a run and overwrite=true deletes it: choose one."),
    ],
)
def test_an_unfinished_run_is_neither_run_over_nor_mixed_with_another(run, tmp_path, more, message):
    assert run(tmp_path, "a", *SHORT).code == 0
    remove_end(tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused = run(tmp_path, "a", *SHORT, *more)
    assert refused.code == 2
    assert message in refused.err
    assert "Traceback" not in refused.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def exit_of_lightning():
    """How Lightning ends on Ctrl-C where it has the signal: by `sys.exit(1)` while it handles a KeyboardInterrupt."""
    end = SystemExit(1)
    end.__context__ = KeyboardInterrupt()
    return end


@pytest.mark.parametrize(
    ("interruption", "number"),
    [(KeyboardInterrupt(), 2), (exit_of_lightning(), 2), (Stopped(signal.SIGINT), 2), (SIGTERMException(), 15), (Stopped(signal.SIGTERM), 15)],
)
@pytest.mark.parametrize(
    ("begun", "said"),
    [
        (False, "Stopped by {name} before the run began: nothing is written. The same command starts it."),
        (True, "Stopped by {name} before the first checkpoint of {folder}. The same command with ckpt=last goes on."),
    ],
)
def test_stopped_early_it_says_how_to_go_on(run, tmp_path, monkeypatch, interruption, number, begun, said):
    def interrupted(config, composed, choices, folder):
        if begun:
            folder.start({"name": "a"})
        raise interruption

    monkeypatch.setattr("biqa.running.training.train_and_measure", interrupted)
    stopped = run(tmp_path, "a", *SHORT)
    assert (stopped.code, stopped.err) == (128 + number, said.format(folder=tmp_path / "a", name=signal.Signals(number).name))
    assert (tmp_path / "a").exists() == begun


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_two_steps_is_not_lost_and_handlers_are_given_back(run, tmp_path, monkeypatch, number):
    """Lightning looks for SIGTERM itself right after this hook, and would end the run with exit code 0 and no checkpoint."""

    def after_the_second_step(module, *_):
        if module.global_step == 2:
            os.kill(os.getpid(), number)

    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(StageModule, "on_train_batch_end", after_the_second_step)
    stopped = run(tmp_path, "a", *SHORT, "stage.batch_size=2")
    assert stopped.code == 128 + number
    assert stopped.err.startswith(f"Stopped by {number.name} after step 3; a checkpoint is in {tmp_path / 'a' / 'checkpoints'}.")
    assert steps(tmp_path / "a") == [3]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    monkeypatch.undo()
    assert run(tmp_path, "a", *SHORT, "stage.batch_size=2", "ckpt=last").code == 0
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
