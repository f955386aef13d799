"""The processes of a run on several devices: how many, which of them this one is, and how long they wait for one another.

python -m biqa.run trainer.devices=4                                                   # four processes, started here (`biqa.running.launching`)
torchrun --nnodes=2 --nproc-per-node=4 ... -m biqa.run trainer.devices=4 trainer.nodes=2   # on each of two machines
"""

import ctypes
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from biqa.config.checks import refuse
from biqa.config.strategy import FIRST_TIMEOUT, STILL, TIMEOUT, devices_asked, strategy_problems
from biqa.errors import IncompatibleChoice

STARTED_HERE = "BIQA_STARTED_HERE"
"""Set in the environment of processes that `launch` started."""
SLOW = "Is it slow and not stuck? Choose a larger strategy.timeout; with ckpt=last the run goes on."
LATE = re.compile(r"(?is)(gloo|nccl|store|clients).*timed?[ _-]?out|timed?[ _-]?out.*(gloo|nccl|store|clients)")
"""How gloo, NCCL and the store through which processes meet say that one did not come."""


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
    """How long processes wait for one another, in seconds (`strategy.timeout`, `strategy.first_timeout`), and for one that does nothing
    (`strategy.still`)."""

    step: float = TIMEOUT
    first: float = FIRST_TIMEOUT
    still: float = STILL

    def __str__(self) -> str:
        return f"strategy.timeout={self.step:g}, strategy.first_timeout={self.first:g}, in seconds"


AS_USUAL = Waits()


@contextmanager
def joined(*, gpus: bool, waits: Waits = AS_USUAL, store: str | None = None) -> Iterator[None]:
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
        if late(error):
            error.add_note(f"Another process did not come ({waits}). {SLOW}")
        raise
    finally:
        sys.stdout = said


def late(error: BaseException) -> bool:
    """Whether this is what a process dies of that has waited for another in vain."""
    return isinstance(error, RuntimeError) and LATE.search(str(error)) is not None


def _address_by_slurm() -> None:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    place = SLURMEnvironment()
    os.environ |= {"MASTER_ADDR": place.main_address, "MASTER_PORT": str(place.main_port)}
    os.environ |= {"RANK": str(place.global_rank()), "WORLD_SIZE": str(place.world_size()), "LOCAL_RANK": str(place.local_rank())}


def die_with_the_parent() -> None:
    """Called in a process that was just started: a killed parent must leave none behind that goes on writing into a run's folder."""
    if sys.platform == "linux":
        parent_death = 1  # prctl's PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(parent_death, signal.SIGKILL)
