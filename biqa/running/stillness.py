"""Does a process still work? One that sleeps for ever computes nothing, waits for no disk, and has started none that does.

One that only takes long computes: so this tells a step that is slow from one that never ends, whatever a step may take.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

EVERY = 3.0
"""Seconds between two looks, at most."""
LIFE = 0.02
"""Share of a core above which a process is at work. Below it lie threads that look at a clock, draw a progress bar or wait for messages."""
BESIDE = ("wandb-core", "wandb-symon", "wandb-xpu", "gpu_stats")
"""Programs that a run starts and that go on while it stands still."""
ELSEWHERE = ("/openai/", "/httpx/", "/urllib3/", "/requests/", "/huggingface_hub/", "/wandb/")
"""Packages that wait for another machine, and have time limits of their own."""
TOGETHER = ("/torch/distributed/", "/torch/autograd/")
"""Where a process waits for the others: it asks them, or a backward pass averages gradients."""
INNERMOST = 6
"""Calls of a stack that say what it waits for."""


@dataclass(frozen=True)
class Work:
    """What a process and those that it has started have done."""

    processes: frozenset[int]
    seconds: float
    """Of processors, since they began."""
    on_disk: bool
    """Whether one waits for a disk at this moment."""


class Watch:
    """Says when a process has done nothing for a while.

    Args:
        process: its number.
        patience: the while, in seconds.
        look: what says how far it is.
        clock: seconds that never run backwards.
    """

    def __init__(self, process: int, patience: float, look: Callable[[int], Work] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._process, self._patience, self._look, self._clock = process, patience, look or work_of, clock
        self._every = min(EVERY, patience / 5)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Count from now on."""
        self._since = self._looked = self._clock()
        self._before = self._look(self._process)

    def still(self) -> bool:
        """Whether it has done nothing for that while. To be asked again and again: a gap, in which all may have been stopped, begins it anew."""
        now = self._clock()
        gap = now - self._looked
        if gap >= self._every:
            self._looked = now
            work = self._look(self._process)
            worked = work.seconds - self._before.seconds > LIFE * (now - self._since)
            if worked or work.on_disk or work.processes != self._before.processes or gap > 3 * self._every + 1.0:
                self._since, self._before = now, work
        return now - self._since >= self._patience


def work_of(process: int) -> Work:
    """What it and all that it has started have done until now. Those that are gone count as nothing."""
    seen, seconds, on_disk = set[int](), 0.0, False
    try:
        family = [psutil.Process(process), *psutil.Process(process).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for one in family:
        try:
            if one.name() not in BESIDE:
                times = one.cpu_times()
                seconds += times.user + times.system
                on_disk |= one.status() == psutil.STATUS_DISK_SLEEP
                seen.add(one.pid)
        except psutil.NoSuchProcess:
            continue
    return Work(frozenset(seen), seconds, on_disk)


def waits_for(places: tuple[str, ...], stack: str) -> bool:
    """Whether a stack, as faulthandler writes it (most recent call first), waits in one of these packages."""
    calls = [line for line in stack.splitlines() if line.lstrip().startswith("File ")]
    return any(place in call for call in calls[:INNERMOST] for place in places)
