"""What the processes of one run tell each other. In a run of one process every function here is what it says and no more.

Objects and flags travel between the CPUs (gloo), so that nobody waits for a GPU's queue of work. Where one may be long at work while the others have
nothing to do (`from_first`, `everywhere`, `wait_for_all`) they wait in a group of their own, which has patience; in a step all come about together.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from biqa.errors import UserError

T = TypeVar("T")

_patient: list[dist.ProcessGroup] = []
"""The group that has patience, where there is one."""


def world() -> int:
    """How many processes work on this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0. The first one writes files and speaks."""
    return dist.get_rank() if dist.is_initialized() else 0


def first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return rank() == 0


@contextmanager
def patient(seconds: float) -> Iterator[None]:
    """Within: processes wait so long for one that is long at work."""
    group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))
    _patient.append(group)
    try:
        yield
    finally:
        _patient.clear()


def _with_patience() -> dist.ProcessGroup | None:
    return _patient[-1] if _patient else None


def wait_for_all() -> None:
    """Until all processes are here."""
    if world() > 1:
        dist.barrier(group=_with_patience())


def from_first(work: Callable[[], T]) -> T:
    """What `work` returns in the first process; the others wait for it and do none of it.

    What it raises there is raised in all, so that none waits for a process that is gone.
    """
    if world() == 1:
        return work()
    said: list[Any] = [None]
    if first():
        try:
            said = [(work(), None)]
        except Exception as error:
            dist.broadcast_object_list([(None, error)], src=0, group=_with_patience())
            raise
    dist.broadcast_object_list(said, src=0, group=_with_patience())
    value, error = said[0]
    if isinstance(error, UserError):
        raise SystemExit(2) from error  # the first process says it
    if error is not None:
        raise error
    return value


def everywhere(work: Callable[[], T]) -> list[T]:
    """What `work` returns in each process, by rank. What it raises in one is raised in all, so that none waits for a process that is gone."""
    if world() == 1:
        return [work()]
    value, error = None, None
    try:
        value = work()
    except Exception as raised:
        error = raised
    said = _gathered((value, error), _with_patience())
    for failed in (error, *(other for _, other in said)):
        if failed is not None:
            raise failed
    return [of for of, _ in said]  # pyright: ignore[reportReturnType] (nothing was raised, so each has its value)


def gathered(value: T) -> list[T]:
    """The value of each process, by rank."""
    return [value] if world() == 1 else _gathered(value, None)


def _gathered(value: T, group: dist.ProcessGroup | None) -> list[T]:
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value, group=group)
    return values


def gathered_by_first(value: T) -> list[T]:
    """The value of each process, by rank, in the first process; nothing in the others."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world() if first() else []
    dist.gather_object(value, values if first() else None)
    return values


def largest(number: int) -> int:
    """The largest of the processes' numbers."""
    if world() == 1:
        return number
    flag = torch.tensor(number)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return int(flag)


def weight_of_means(counts: Tensor) -> Tensor:
    """By how much to scale means over this process's share, so that their plain mean over the processes is the mean over everything.

    Gradients are averaged over processes. With n of N things here and W processes that is W n / N: 1 where the shares are equal.

    Args:
        counts: of how many things each mean here is, [K].

    Returns:
        [K], on the same device.
    """
    everywhere = counts.clone()
    dist.all_reduce(everywhere)
    return counts * world() / everywhere
