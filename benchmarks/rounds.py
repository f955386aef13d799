"""What all benchmarks share: rounds in which the sides take turns, ratios within a round, and the file of results."""

import json
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]

Found = TypeVar("Found")
Side = TypeVar("Side")


@dataclass(frozen=True)
class Ratio:
    """The median of the rounds' ratios, and how far to trust it."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Ratio":
        """Of one ratio a round."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f} to {self.highest:.2f})"


def in_turn(sides: Sequence[Side], number: int) -> Sequence[Side]:
    """The sides in the order of a round: who begins alternates, so that a machine that warms up or slows down favours neither."""
    return sides[::-1] if number % 2 else sides


def rounds_of(sides: Mapping[str, Callable[[], float]], rounds: int) -> list[dict[str, float]]:
    """What the sides measure of themselves, such as seconds, round by round. Each goes once before that: what is made at the first call."""
    for measure in sides.values():
        measure()
    return [{name: sides[name]() for name in in_turn(list(sides), number)} for number in range(rounds)]


def ratio_of(rounds: Sequence[Mapping[str, float]], above: str, below: str) -> Ratio:
    """How many times as much one side took as another."""
    return Ratio.of([one[above] / one[below] for one in rounds])


def clocked(work: Callable[[], object]) -> Callable[[], float]:
    """The work as a side: seconds by the clock."""
    return lambda: timed(work)[1]


def timed(work: Callable[[], Found]) -> tuple[Found, float, float]:
    """What it gives, and the wall and processor seconds that it took, processes that it started and ended included."""
    cpu, start = cpu_seconds(), time.perf_counter()
    found = work()
    return found, time.perf_counter() - start, cpu_seconds() - cpu


def cpu_seconds() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def alone(module: str, *arguments: str) -> str:
    """The last line that a benchmark prints in a process of its own.

    Raises:
        subprocess.CalledProcessError: it failed; what it wrote to standard error is in there, and was shown.
    """
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    done.check_returncode()
    return done.stdout.splitlines()[-1]


def peak_mb() -> float:
    """Most memory in MB that this process held, libraries included, since it began or since `forget_peak`.

    Not getrusage's: what that says of a process begins with the memory of the one that started it.
    """
    return _memory("VmHWM")


def memory_mb() -> float:
    """Memory in MB that this process holds now."""
    return _memory("VmRSS")


def forget_peak() -> None:
    """Let `peak_mb` begin anew from what is held now (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> float:
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found, f"no {name} in /proc/self/status"
    return int(found[1]) / 1024


def write_result(name: str, result: Mapping[str, Any]) -> None:
    """Write results/<name>.json, with what it was measured on."""
    machine = {"cores": os.cpu_count(), "load": os.getloadavg(), "python": platform.python_version(), "processor": platform.machine()}
    written(f"{name}.json", json.dumps({**result, "machine": machine}, indent=2) + "\n")


def written(name: str, text: str) -> Path:
    """A file of results/, whole or not at all."""
    place = result(name)
    place.with_suffix(".tmp").write_text(text, encoding="utf-8")
    return place.with_suffix(".tmp").replace(place)


def result(name: str) -> Path:
    """Where a file of results/ lies or will lie."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    return RESULTS / name
