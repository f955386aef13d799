"""The processes of a run on several devices: started here on one machine, or by torchrun or srun on several.

    python -m biqa.run trainer.devices=4                                                   # four processes, started here
    torchrun --nnodes=2 --nproc-per-node=4 ... -m biqa.run trainer.devices=4 trainer.nodes=2   # on each of two machines

Not Lightning's own launcher: that runs the command line again in every process, and a job of a sweep has none of its own. Not torch's elastic agent:
it restarts and negotiates, which one machine needs not, and tells what went wrong in a box of its own. Here each process gets the job as it is, the
first that fails ends all, and its error is raised here as if it had happened here. One that stands still while the others wait for it fails them
after `strategy.timeout`, and is told with the place where it stands.
"""

import ctypes
import faulthandler
import logging
import os
import pickle
import re
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from biqa.config.checks import refuse
from biqa.config.strategy import FIRST_TIMEOUT, TIMEOUT, devices_asked, strategy_problems
from biqa.errors import IncompatibleChoice, MachineLimit, UserError

STARTED_HERE = "BIQA_STARTED_HERE"
"""Set in the environment of processes that `launch` started."""
PATIENCE = 120.0
"""Seconds that processes get to finish a step and write a checkpoint when the user stops the run."""
AFTERMATH = 2.0
"""Seconds that the others get to say what they died of when one has failed, before they are killed."""
PAUSE = 0.2
"""Seconds between two looks at what they have told."""
NOTHING = "nothing. Was there too little memory?"
SLOW = "Is it slow and not stuck? Choose a larger strategy.timeout; with ckpt=last the run goes on."
LATE = re.compile(r"(?is)(gloo|nccl|store|clients).*timed?[ _-]?out|timed?[ _-]?out.*(gloo|nccl|store|clients)")
"""How gloo, NCCL and the store through which processes meet say that one did not come."""


class ProcessDied(RuntimeError):
    """A process of the run ended by a defect, or was killed."""


def processes_wanted(*, kind: str, devices: Any, nodes: int, accelerator: str, precision: str, quantization: str) -> tuple[int, bool]:  # noqa: ANN401
    """How many processes this machine needs (1 where Lightning has to say what is wrong with `devices`), and whether they use GPUs.

    Args:
        kind: of the strategy; the others: see `strategy_problems`, `devices` as typed.

    Raises:
        IncompatibleChoice: the options cannot go together on this machine.
    """
    import torch

    gpus = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    present = torch.cuda.device_count() if gpus else None
    number = devices_asked(devices, present if gpus else 1)
    known = "gpu" if gpus else "cpu" if accelerator == "auto" else accelerator
    choice: dict[str, Any] = {"kind": kind, "nodes": nodes, "precision": precision, "quantization": quantization}
    refuse(strategy_problems(devices=number, accelerator=known, present=present, **choice))
    if kind.startswith("deepspeed") and find_spec("deepspeed") is None:
        raise IncompatibleChoice(
            f"strategy={kind} needs the package deepspeed: pip install 'biqa[deepspeed]'. Or choose strategy=fsdp, which needs none."
        )
    if kind.startswith("deepspeed") and devices_named(devices) not in (None, list(range(number or 1))):
        named = ",".join(map(str, devices_named(devices) or ()))
        raise IncompatibleChoice(
            f"strategy={kind} takes GPUs from the first on, not trainer.devices={devices}. "
            f"Set CUDA_VISIBLE_DEVICES={named} and trainer.devices={number}."
        )
    return number or 1, gpus


def devices_named(devices: Any) -> list[int] | None:  # noqa: ANN401
    """The devices where they are named one by one."""
    named = devices.split(",") if isinstance(devices, str) and "," in devices else devices
    return [int(one) for one in named if str(one).strip()] if isinstance(named, list | tuple) else None


def placed(environment: Mapping[str, str]) -> bool:
    """Whether torchrun or srun started this process as one of several."""
    return ("TORCHELASTIC_RUN_ID" in environment and int(environment["WORLD_SIZE"]) > 1) or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def refuse_alone(nodes: int) -> None:
    """Check that a process that nobody started as one of several may go ahead.

    Raises:
        IncompatibleChoice: the run wants several machines.
    """
    if nodes > 1:
        raise IncompatibleChoice(
            f"trainer.nodes={nodes}: processes on other machines must be started there. Start the same command on each by torchrun "
            f"(torchrun --nnodes={nodes} --nproc-per-node=DEVICES --rdzv-backend=c10d --rdzv-endpoint=HOST:PORT -m biqa.run ...) or by srun, "
            f"or choose trainer.nodes=1."
        )


def refuse_other_number(environment: Mapping[str, str], devices: int, nodes: int) -> None:
    """Check that torchrun or srun started as many processes as the options say.

    Raises:
        IncompatibleChoice: it did not.
    """
    started = int(environment["WORLD_SIZE"] if "TORCHELASTIC_RUN_ID" in environment else environment["SLURM_STEP_NUM_TASKS"])
    if started != devices * nodes:
        raise IncompatibleChoice(
            f"{started} processes were started, and trainer.devices={devices} trainer.nodes={nodes} ask for {devices * nodes}: one a device. "
            f"Give the same numbers to both."
        )


@dataclass(frozen=True)
class Waits:
    """How long processes wait for one another, in seconds (`strategy.timeout`, `strategy.first_timeout`)."""

    step: float = TIMEOUT
    first: float = FIRST_TIMEOUT

    def __str__(self) -> str:
        return f"strategy.timeout={self.step:g}, strategy.first_timeout={self.first:g}, in seconds"


@contextmanager
def joined(*, gpus: bool, waits: Waits = Waits(), store: str | None = None) -> Iterator[None]:
    """Be one of the processes of a run, whose number and place the environment says.

    Objects travel by gloo, and what lies on GPUs by NCCL. Only the first process speaks.

    Args:
        gpus: whether the run is on GPUs.
        waits: how long they wait for one another.
        store: file through which they find each other; None: as torchrun or srun have it.
    """
    import torch.distributed as dist

    from biqa.stages.together import patient, wait_for_all

    if store is None and "TORCHELASTIC_RUN_ID" not in os.environ:
        _address_by_slurm()
    place = {"init_method": f"file://{store}", "rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])} if store else {}
    said = sys.stdout
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=timedelta(seconds=waits.step), **place)
        if dist.get_rank() > 0:
            warnings.simplefilter("ignore")
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (as long as the process)
        with patient(waits.first):
            yield
            # neither after an error: it would wait for those that wait for this one. Together: gloo aborts one whose partner left in mid-farewell
            wait_for_all()
        dist.destroy_process_group()
    except Exception as error:
        if _late(error):
            error.add_note(f"Another process did not come ({waits}). {SLOW}")
        raise
    finally:
        sys.stdout = said


def _late(error: BaseException) -> bool:
    """Whether this is what a process dies of that has waited for another in vain."""
    return isinstance(error, RuntimeError) and LATE.search(str(error)) is not None


def _address_by_slurm() -> None:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    place = SLURMEnvironment()
    os.environ |= {"MASTER_ADDR": place.main_address, "MASTER_PORT": str(place.main_port)}
    os.environ |= {"RANK": str(place.global_rank()), "WORLD_SIZE": str(place.world_size()), "LOCAL_RANK": str(place.local_rank())}


@dataclass
class _Member:
    """One of the processes that were started here, what it says when it goes wrong, and where it leaves its stack."""

    process: BaseProcess
    words: Connection
    stack: Path
    told: tuple[float, BaseException | None, str, bool] | None = None
    """When it went wrong, by what if that can travel, its stack trace in words, and whether it has waited for another in vain."""

    @property
    def alive(self) -> bool:
        return self.process.pid is not None and self.process.is_alive()

    def listen(self) -> None:
        """Take what it has said. Through a pipe and not a file: where the disk is full it has to say so."""
        if self.told is None and not self.words.closed:
            with suppress(EOFError, OSError):
                if self.words.poll():
                    self.told = pickle.loads(self.words.recv_bytes())

    def where(self, *, ask: bool) -> str:
        """Its stack, most recent call first: that of its death if it had time for one, or the present one where it is asked to say it."""
        if ask and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGQUIT)
            time.sleep(2 * PAUSE)
        return self.stack.read_text(encoding="utf-8", errors="replace") if self.stack.is_file() else ""


def launch(number: int, work: Callable[..., object], *given: Any, gpus: bool, waits: Waits = Waits()) -> None:  # noqa: ANN401 (whatever the work takes)
    """Run `work(*given)` in so many processes on this machine, and wait for them.

    SIGINT and SIGTERM are handed on, so that they stop after the step in progress. They die with this process.

    Raises:
        UserError: whatever mistake one of them found.
        ProcessDied: one of them met a defect; the text has its stack trace.
        Stopped, KeyboardInterrupt: the user stopped the run.
    """
    from biqa.stages.checkpoints import Stopped

    def stopped(number: int, _: FrameType | None) -> None:
        raise Stopped(number)

    with tempfile.TemporaryDirectory() as name:
        context, level = get_context("spawn"), logging.getLogger().level
        members: list[_Member] = []
        before = signal.signal(signal.SIGTERM, stopped)
        try:
            for place in range(number):
                ours, theirs = Pipe(duplex=False)
                started = (place, number, Path(name), theirs, gpus, waits, level, work, given)
                process = context.Process(target=_one_of, args=started, name=f"rank {place}")
                members.append(_Member(process, ours, Path(name) / f"rank {place}.stack"))
                with _environment(place, number):
                    process.start()
                theirs.close()  # so that the pipe ends where the process does
            failed, silent = _wait_for(members)
            late = [member for member in members if member.alive] if failed and _waited_in_vain(members, silent) else []
            stacks = {member.process.name: member.where(ask=True) for member in late}
        except (KeyboardInterrupt, Stopped):
            _end(members, PATIENCE)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            _end(members, 0.0)
        if failed:
            _raise_what_happened(members, silent, stacks, waits)


@contextmanager
def _environment(place: int, number: int) -> Iterator[None]:
    """What a process finds in its environment from its first moment: its place, and its part of the cores."""
    cores = len(os.sched_getaffinity(0)) // number
    before = dict(os.environ)
    os.environ |= {"RANK": str(place), "LOCAL_RANK": str(place), "WORLD_SIZE": str(number), STARTED_HERE: "1"}
    os.environ |= {"OMP_NUM_THREADS": str(max(1, cores)), "GLOO_SOCKET_IFNAME": "lo"} | {
        name: before[name] for name in ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME") if name in before
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


def _wait_for(members: Sequence[_Member]) -> tuple[bool, _Member | None]:
    """Until all are done, or one has failed and the others had time to say what they died of.

    Returns:
        Whether one failed, and the process that died without a word, if that is what began it.
    """
    running, until, silent = list(members), None, None
    while running and (until is None or time.monotonic() < until):
        wait([member.process.sentinel for member in running], PAUSE)
        codes = {id(member): member.process.exitcode for member in running}  # asked once: one may end between two questions
        ended = [member for member in running if codes[id(member)]]
        running = [member for member in running if codes[id(member)] is None]
        for member in members:
            member.listen()
        told = any(member.told for member in members)
        # a death without a word is the cause, also where it is seen after what those tell that were left alone: nobody here has sent a signal yet.
        # Not an abort: so gloo ends a process whose partner has left
        unsaid = [member for member in ended if not member.told and member.process.exitcode != -signal.SIGABRT]
        if until is None and (ended or told):
            until = time.monotonic() + AFTERMATH
            silent = None if told else ended[0]
        silent = next(iter(unsaid), silent)
    return until is not None, silent


def _end(members: Sequence[_Member], patience: float) -> None:
    """Ask those that still run to stop (with patience), then kill them."""
    running = [member.process for member in members if member.alive]
    if patience:
        for process in running:
            process.terminate()
        until = time.monotonic() + patience
        for process in running:
            process.join(max(0.0, until - time.monotonic()))
    for process in running:
        process.kill()
        process.join()


def _waited_in_vain(members: Sequence[_Member], silent: _Member | None) -> bool:
    """Whether those that have failed did so because another did not come. NCCL's guard aborts a process that waits, and tells nobody here."""
    if silent is not None:
        return silent.process.exitcode == -signal.SIGABRT
    return min((member.told for member in members if member.told), key=lambda told: told[0])[3]


def _raise_what_happened(members: Sequence[_Member], silent: _Member | None, stacks: Mapping[str, str], waits: Waits) -> None:
    """The cause, not what followed from it: what can be put in words, else who did not come, else a death without a word, else what was told first.

    Args:
        members: all of them.
        silent: died without a word, and began it.
        stacks: of those that did not come, by name.
        waits: how long the others have waited for them.
    """
    told = [member.told for member in members if member.told]
    for _, error, _, _ in told:
        if isinstance(error, UserError | MachineLimit):
            raise error
    if stacks:
        stood = "\n".join(f"{name} stood here:\n{stack or 'it did not say where.'}" for name, stack in stacks.items())
        names = " and ".join(stacks)
        raise ProcessDied(f"The process of {names} did not come while others waited for it ({waits}).\n{stood}\n{SLOW}")
    if silent is not None:
        code = silent.process.exitcode or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        stood = silent.where(ask=False)
        raise ProcessDied(f"The process of {silent.process.name} {how} and said {f'this:{chr(10)}{stood}' if stood else NOTHING}")
    _, error, text, _ = min(told, key=lambda outcome: outcome[0])
    if type(error).__name__ == "Stopped" or isinstance(error, SystemExit):
        assert error is not None
        raise error
    raise ProcessDied(text)


def _one_of(  # noqa: PLR0917 (a process's own)
    place: int, total: int, folder: Path, words: Connection, gpus: bool, waits: Waits, level: int, work: Callable[..., object], given: tuple[Any, ...]
) -> None:
    """A process: do the work, or leave word of what went wrong."""
    die_with_the_parent()
    logging.getLogger().setLevel(level)  # Hydra has set it in the one that started this
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # may reach every process; the one that started them hands it on as SIGTERM
    with suppress(OSError):  # where the disk is full there are no stacks
        stack = (folder / f"rank {place}.stack").open("w")
        faulthandler.enable(stack, all_threads=False)  # of a crash
        faulthandler.register(signal.SIGQUIT, stack, all_threads=False)  # of one that stands still, when it is asked
    raised = None
    try:
        with joined(gpus=gpus, waits=waits, store=str(folder / "store")):
            try:
                work(*given)
            finally:
                raised = time.time()  # before it leaves the others, who then have something to tell too
    except BaseException as error:
        text = f"In process {place} of {total}:\n{traceback.format_exc()}"
        words.send_bytes(pickle.dumps((raised or time.time(), _portable(error), text, _late(error))))
        raise SystemExit(1) from None


def _portable(error: BaseException) -> BaseException | None:
    """The error if it can travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return None
    return error


def die_with_the_parent() -> None:
    """Called in a process that was just started: a killed parent must leave none behind that goes on writing into a run's folder."""
    if sys.platform == "linux":
        parent_death = 1  # prctl's PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death, signal.SIGKILL)
