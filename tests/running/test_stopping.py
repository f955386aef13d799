"""SLURM takes the node away: the signal itself, sent to a run in a process of its own, with a stand-in for `scontrol`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from planted import signal_when

from biqa.running.stopping import awaited, goes_on_here, job, queue_again, signals
from biqa.runs import RunFolder
from biqa.stages.base import StageModule
from biqa.stages.checkpoints import Checkpoints, Stopped

pytest_plugins = ["small_runs"]

OPTIONS = ("stage=joint", "data.train=60", "stage.batch_size=2", "stage.epochs=2", "trainer.checkpoint_steps=7", "sampling.repeats=0")
WEIGHTS = Path("model") / "model.safetensors"
IN_A_JOB = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "biqa"}


@pytest.fixture
def outside_jobs(monkeypatch):
    """No job that these tests themselves may run in, and no `nohup`."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield monkeypatch
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def scontrol(outside_jobs, tmp_path):
    """A command of that name which writes down how it was called."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexit ${{REFUSED:-0}}\n')
    (place / "scontrol").chmod(0o755)
    outside_jobs.setenv("PATH", str(place), prepend=os.pathsep)
    return tmp_path / "calls"


def in_a_job(arguments, **more):
    """`python -m biqa.run` as SLURM starts it."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | IN_A_JOB | more
    command = [sys.executable, "-m", "biqa.run", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """A run that nothing stopped."""
    runs = tmp_path_factory.mktemp("whole")
    assert run(runs, "a", *OPTIONS).code == 0
    return runs / "a"


def before_step(patch, number, do):
    """Do something before the training step of that number here, from 1; gives the steps that were begun."""
    training_step, begun = StageModule.training_step, []

    def step(module, *arguments):
        begun.append(module.global_step)
        if len(begun) == number:
            do()
        return training_step(module, *arguments)

    patch.setattr(StageModule, "training_step", step)
    return begun


def newest(folder):
    return max(int(path.stem.removeprefix("step=")) for path in folder.glob("checkpoints/step=*.ckpt"))


def test_the_job_is_saved_queued_again_and_goes_on_by_itself(run, whole, synthetic, scontrol, outside_jobs, tmp_path, digest):
    """The second start has `overwrite=true` still in its command, as the first had, and SLURM's count of starts."""
    folder = tmp_path / "runs" / "a"
    command = (*synthetic, *OPTIONS, f"runs={tmp_path / 'runs'}", "name=a", "overwrite=true")
    code, _, err = signal_when(in_a_job(command), signal.SIGUSR1, lambda: len(list(folder.glob("checkpoints/step=*.ckpt"))) == 2)
    assert code == 128 + signal.SIGUSR1
    assert scontrol.read_text() == "requeue 4711\n"
    step = newest(folder)
    assert err.splitlines()[-2:] == [
        f"Stopped by SIGUSR1 after step {step}; a checkpoint is in {folder / 'checkpoints'}. The same command with ckpt=last goes on.",
        "Job 4711 is queued again and goes on by itself.",
    ]
    assert "Traceback" not in err
    assert not list(folder.glob("checkpoints/*.tmp"))
    assert not list(tmp_path.rglob("hpc_ckpt*"))  # Lightning's own kind
    for name, value in {**IN_A_JOB, "SLURM_RESTART_COUNT": "1"}.items():
        outside_jobs.setenv(name, value)
    begun = before_step(outside_jobs, 0, list)
    again = run(tmp_path / "runs", "a", *OPTIONS, "overwrite=true")
    assert again.code == 0, again.err
    assert begun[0] == step  # it went on from there and began nothing anew
    assert digest(folder / WEIGHTS) == digest(whole / WEIGHTS)
    assert (folder / "logs" / "metrics.csv").read_text() == (whole / "logs" / "metrics.csv").read_text()


def test_before_training_too(run, scontrol, outside_jobs, tmp_path):
    """The signal comes while stage 1 describes or the model answers, or before: then there is nothing to save, and the job is queued again all the same."""
    for name, value in {**IN_A_JOB, "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}.items():
        outside_jobs.setenv(name, value)
    asked, predict_step = [], StageModule.predict_step

    def answer(module, batch, *arguments):
        asked.append(len(batch))
        if len(asked) == 3:
            os.kill(os.getpid(), signal.SIGUSR2)
        return predict_step(module, batch, *arguments)

    outside_jobs.setattr(StageModule, "predict_step", answer)
    stopped = run(tmp_path, "a", "stage=zero_shot", "sampling.batch_size=1", "trainer.requeue_signal=SIGUSR2")
    assert stopped.code == 128 + signal.SIGUSR2, stopped.err
    assert len(asked) == 3  # of twelve
    assert stopped.err.endswith("Job 12_3 is queued again and goes on by itself.")
    assert scontrol.read_text() == "requeue 12_3\n"
    assert (tmp_path / "a" / "job").read_text() == "12_3"


@pytest.mark.trust
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_ends_a_run_after_the_step_in_progress(run, whole, outside_jobs, tmp_path, digest, tally, number):
    """Outside of a job too: a terminal that is closed, a batch system that warns."""
    folder, sent = tmp_path / "a", []
    begun = before_step(outside_jobs, 24, lambda: (sent.append(time.monotonic()), os.kill(os.getpid(), number)))
    stopped = run(tmp_path, "a", *OPTIONS)
    taken = time.monotonic() - sent[0]
    outside_jobs.undo()
    assert stopped.code == 128 + number
    assert taken < 20  # of the 30 that SLURM leaves between SIGTERM and SIGKILL
    assert begun[-1] == 23
    assert (
        stopped.err
        == f"Stopped by {number.name} after step 24; a checkpoint is in {folder / 'checkpoints'}. The same command with ckpt=last goes on."
    )
    assert newest(folder) == 24
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    if number == signal.SIGHUP:
        assert run(tmp_path, "a", *OPTIONS, "ckpt=last").code == 0
        assert digest(folder / WEIGHTS) == digest(whole / WEIGHTS)
    tally("signals", seconds_to_stop=taken)


def test_where_a_signal_is_ignored_the_run_goes_on(run, outside_jobs, tmp_path):
    """`nohup` has SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        before_step(outside_jobs, 3, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert run(tmp_path, "a", "stage=joint", "stage.epochs=1", "sampling.repeats=0").code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_requeue_that_is_refused_is_told(scontrol, outside_jobs, capsys):
    outside_jobs.setenv("SLURM_JOB_ID", "5")
    outside_jobs.setenv("REFUSED", "1")
    queue_again(signal.SIGUSR1)
    assert capsys.readouterr().err == "Job 5 is not queued again: scontrol requeue failed ().\n"
    outside_jobs.setenv("PATH", "/nowhere")
    queue_again(signal.SIGUSR1)
    assert "Job 5 is not queued again: scontrol requeue failed ([Errno 2] No such file" in capsys.readouterr().err
    outside_jobs.setenv("SLURM_PROCID", "1")
    queue_again(signal.SIGUSR1)
    assert capsys.readouterr().err == ""  # one call a job


def test_submitit_has_its_signal_back(outside_jobs):
    """In a job of submitit the signal has a handler: it comes after the checkpoint and queues the job again."""
    called = []
    before = signal.signal(signal.SIGUSR2, lambda number, _: called.append(number))
    outside_jobs.setenv("SLURM_JOB_ID", "5")
    outside_jobs.setenv("SUBMITIT_EXECUTOR", "slurm")
    try:
        numbers = signals("SIGUSR1")
        assert set(numbers) == {signal.SIGUSR1, signal.SIGUSR2}
        with awaited(numbers):
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGUSR1)
            signal.raise_signal(signal.SIGUSR2)
        assert called == [signal.SIGUSR2]
        queue_again(signal.SIGUSR2)
        assert called == [signal.SIGUSR2] * 2
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_outside_of_a_job_the_signals_are_left_alone(outside_jobs):
    assert job() is None
    assert signals("SIGUSR1") == ()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_JOB_ID": "5", "SLURM_RESTART_COUNT": "1"}, True),
        ({"SLURM_JOB_ID": "5"}, False),  # the same command a second time in one allocation
        ({"SLURM_JOB_ID": "6", "SLURM_RESTART_COUNT": "1"}, False),  # a run that another job began
        ({"SUBMITIT_LOCAL_JOB_ID": "5", "SUBMITIT_EXECUTOR": "local"}, True),
        ({}, False),
    ],
)
def test_a_run_goes_on_by_itself_in_the_job_that_began_it(outside_jobs, tmp_path, environment, expected):
    outside_jobs.setenv("SLURM_JOB_ID", "5")
    RunFolder(tmp_path).start({}, job=job())
    outside_jobs.delenv("SLURM_JOB_ID")
    for name, value in environment.items():
        outside_jobs.setenv(name, value)
    assert goes_on_here(tmp_path) is expected
    assert not goes_on_here(tmp_path / "nothing")


def test_sigterm_beside_the_signal_does_not_end_the_run_for_good(tmp_path):
    callback = Checkpoints(tmp_path, 1, requeue=(signal.SIGUSR1,))
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
        callback._note(number, None)
    assert callback.stop_signal == signal.SIGUSR1
