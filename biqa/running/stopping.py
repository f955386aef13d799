"""How a run ends before its time: a signal, a machine that is not enough, and SLURM, which gives the node to another job.

In a SLURM job a signal makes the run save, queue the job again, and go on by itself when it starts anew:

    sbatch --signal=USR1@120 --requeue --wrap "srun python -m biqa.run stage=1 ..."

120 seconds before the time is up (or, where the cluster has `PreemptParameters=send_user_signal`, when the job is preempted) the run writes a
checkpoint, calls `scontrol requeue` and ends. SLURM starts the same command again, which goes on from the newest checkpoint although nobody typed
`ckpt=last`, and does not begin anew although somebody typed `overwrite=true`. So does a job that SLURM queues again after a node has died. With
`hydra/launcher=submitit_slurm` it is submitit that queues the job: its signal (SIGUSR2, or `SUBMITIT_PREEMPT_SIGNAL`) is handed on after that.

Not Lightning's `SLURMEnvironment(auto_requeue=True)`: that saves inside the signal handler, in the middle of a step, where weights, optimizer and
random numbers are those of no step, so that the run would not end with the same weights; it trains on until it is killed; it does nothing while
images are described or answered; and its `hpc_ckpt_1.ckpt` is a second kind of checkpoint beside ours. It stands back by itself where the signal
has a handler already.
"""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from biqa.runs import RunFolder

ENDING = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What ends a run as SIGINT and SIGTERM do, where nobody has said what else it does (`nohup` has, of SIGHUP): the system would end it without a
checkpoint when a terminal is closed or a batch system warns."""


def job(environment: Mapping[str, str] = os.environ) -> str | None:
    """The job that this process is part of, as `scontrol` names it (`12`, in an array `12_3`), or submitit's on this machine; None: no job."""
    if "SLURM_ARRAY_JOB_ID" in environment:
        return f"{environment['SLURM_ARRAY_JOB_ID']}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID") or environment.get("SUBMITIT_LOCAL_JOB_ID")


def signals(name: str) -> tuple[int, ...]:
    """What announces the end of the job, where this is one: the signal of that name, and submitit's in a job that it started."""
    if job() is None:
        return ()
    submitit = (f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}",) if "SUBMITIT_EXECUTOR" in os.environ else ()
    return tuple({int(signal.Signals[one]) for one in (name, *submitit)})


def goes_on_here(folder: Path) -> bool:
    """Whether this is a job that was queued again, and the run in `folder` is one that it began."""
    restarted = int(os.environ.get("SLURM_RESTART_COUNT", "0")) > 0 or os.environ.get("SUBMITIT_EXECUTOR") == "local"
    begun = RunFolder(folder).job
    return restarted and begun.is_file() and begun.read_text(encoding="utf-8") == job()


def stop(number: int, _: FrameType | None) -> None:
    """End what is being done, wherever it stands."""
    from biqa.stages.checkpoints import Stopped

    raise Stopped(number)


def ending() -> tuple[int, ...]:
    """Those of `ENDING` that are awaited: what training takes over, to end after a step."""
    return tuple(number for number in ENDING if signal.getsignal(number) is stop)


@contextmanager
def awaited(numbers: tuple[int, ...]) -> Iterator[None]:
    """Signals without a handler end what is inside with `Stopped`, wherever it stands; training takes them over and ends after a step."""
    taken = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def queue_again(number: int) -> None:
    """After `awaited`: let the one who had the signal do it (submitit, which does not return), or call `scontrol requeue` from the first process."""
    if signal.getsignal(number) is not signal.SIG_DFL:
        signal.raise_signal(number)
    if os.environ.get("SLURM_PROCID", "0") != "0":
        return
    try:
        done = subprocess.run(["scontrol", "requeue", str(job())], capture_output=True, text=True, check=False)
        problem = done.stderr.strip() if done.returncode else None
    except OSError as error:
        problem = str(error)
    said = f"is not queued again: scontrol requeue failed ({problem})." if problem is not None else "is queued again and goes on by itself."
    print(f"Job {job()} {said}", file=sys.stderr)


@contextmanager
def stoppable(folder: RunFolder, requeue: tuple[int, ...] = ()) -> Iterator[None]:
    """Ctrl-C and SIGTERM end in a sentence that says how to go on, and in the shell's exit code for that signal (130, 143).

    So do SIGHUP (129), SIGUSR1 (138) and SIGUSR2 (140); after those of them that are `requeue`, a SLURM job is queued again.
    """
    from biqa.stages.checkpoint_files import NAME, newest_checkpoint
    from biqa.stages.checkpoints import Stopped, signal_behind
    from biqa.stages.together import first

    before = folder.config.stat().st_mtime_ns if folder.config.is_file() else None
    try:
        with awaited((*requeue, *(number for number in ENDING if number not in requeue))):
            yield
    except (Stopped, KeyboardInterrupt, SystemExit) as stop:
        number = signal_behind(stop)
        if number is None:
            raise
        newest = newest_checkpoint(folder.checkpoints, whole=False)  # the node may be given to others in seconds
        step = NAME.fullmatch(newest.name) if newest else None
        if not folder.config.is_file() or folder.config.stat().st_mtime_ns == before:
            where = " before the run began: nothing is written. The same command starts it."
        elif step is None:
            where = f" before the first checkpoint of {folder.path}. The same command with ckpt=last goes on."
        else:
            where = f" after step {int(step[1])}; a checkpoint is in {folder.checkpoints}. The same command with ckpt=last goes on."
        if first():
            print(f"Stopped by {signal.Signals(number).name}{where}", file=sys.stderr)
        if number in requeue:
            queue_again(number)
        raise SystemExit(128 + number) from None


def told_in_words(work: Callable[..., None]) -> Callable[..., None]:
    """Decorator of what gets a run folder as its last argument: a full disk and a lack of memory are told in a sentence."""

    @functools.wraps(work)
    def told(*given: Any) -> None:  # noqa: ANN401 (whatever the work takes)
        from biqa.stages.limits import limits_in_words

        with limits_in_words(given[-1].path):
            work(*given)

    return told
