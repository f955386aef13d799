"""SLURM takes the node away: the signal itself, sent to a run in a process of its own, with a stand-in for `scontrol`."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from biqa.running.stopping import awaited, goes_on_here, job, queue_again, signals
from biqa.runs import RunFolder
from biqa.stages.checkpoints import Checkpoints, Stopped

pytest_plugins = ["small_runs"]

OPTIONS = ("stage=joint", "data.train=100", "stage.batch_size=2", "stage.epochs=3", "trainer.checkpoint_steps=7")
WEIGHTS = Path("model") / "model.safetensors"
IN_A_JOB = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "biqa"}


@pytest.fixture
def outside_jobs(monkeypatch):
    """No job that these tests themselves may run in."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    return monkeypatch


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


def signalled(process, number, condition):
    """What the process left after a signal, sent as soon as the condition holds."""
    while not condition():
        assert process.poll() is None, f"over before the signal: {process.communicate()}"
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_the_job_is_saved_queued_again_and_goes_on_by_itself(run, synthetic, scontrol, tmp_path, digest):
    """The second start has `overwrite=true` still in its command, as the first had, and SLURM's count of starts."""
    assert run(tmp_path / "whole", "a", *OPTIONS).code == 0
    folder = tmp_path / "runs" / "a"
    command = (*synthetic, *OPTIONS, f"runs={tmp_path / 'runs'}", "name=a", "overwrite=true")
    code, err = signalled(in_a_job(command), signal.SIGUSR1, lambda: len(list(folder.glob("checkpoints/step=*.ckpt"))) == 2)
    assert code == 128 + signal.SIGUSR1
    assert scontrol.read_text() == "requeue 4711\n"
    newest = max(folder.glob("checkpoints/step=*.ckpt"))
    step = int(re.fullmatch(r"step=(\d+)\.ckpt", newest.name)[1])
    assert err.splitlines()[-2:] == [
        f"Stopped by SIGUSR1 after step {step}; a checkpoint is in {folder / 'checkpoints'}. The same command with ckpt=last goes on.",
        "Job 4711 is queued again and goes on by itself.",
    ]
    assert "Traceback" not in err
    written = newest.stat().st_mtime_ns
    assert not list(folder.glob("checkpoints/*.tmp"))
    assert not list(tmp_path.rglob("hpc_ckpt*"))  # Lightning's own kind
    again = in_a_job(command, SLURM_RESTART_COUNT="1")
    while again.poll() is None and step == max(int(path.stem[5:]) for path in folder.glob("checkpoints/step=*.ckpt")):
        time.sleep(0.002)
    assert not newest.exists() or newest.stat().st_mtime_ns == written  # it went on from there and began nothing anew
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert digest(folder / WEIGHTS) == digest(tmp_path / "whole" / "a" / WEIGHTS)
    assert (folder / "logs" / "metrics.csv").read_text() == (tmp_path / "whole" / "a" / "logs" / "metrics.csv").read_text()


def test_before_training_too(synthetic, scontrol, tmp_path):
    """The signal comes while stage 1 describes or the model answers, or before: then there is nothing to save, and the job is queued again all the same."""
    folder = tmp_path / "a"
    command = (
        *synthetic,
        "stage=zero_shot",
        "data.test=200",
        "sampling.batch_size=1",
        f"runs={tmp_path}",
        "name=a",
        "trainer.requeue_signal=SIGUSR2",
    )
    code, err = signalled(in_a_job(command, SLURM_ARRAY_JOB_ID="12", SLURM_ARRAY_TASK_ID="3"), signal.SIGUSR2, (folder / "config.yaml").is_file)
    assert code == 128 + signal.SIGUSR2, err
    assert err.splitlines()[-1] == "Job 12_3 is queued again and goes on by itself."
    assert scontrol.read_text() == "requeue 12_3\n"
    assert (folder / "job").read_text() == "12_3"


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
