"""A row of the table of speed, what the machine can do at most, and the table as a file."""

import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.rounds import Ratio, written
from biqa.reporting.result import hardware

PACKAGES = ("torch", "transformers", "peft", "lightning", "trl", "accelerate", "datasets")
PEAK = "the bf16 matrix product"
"""What most rows are held against: `Machine.bfloat16`."""
TRIED: dict[str, str] = {
    "3a": "the tower is a quarter of this evaluation; writing and scoring 11 descriptions an image are the rest. 3b has the tower of LLaVA-1.5",
}
"""Of rows that miss what is wanted, by their name: what was tried, and why it stops there."""
SIDES = (512, 1024, 2048, 4096)
"""Of the square matrices whose product is timed."""
READ = 2**30
"""Bytes that are read to time the memory."""


@dataclass(frozen=True)
class Machine:
    """What the CPU does at most, as measured with the threads that the benchmarks have."""

    cpu: str
    threads: int
    float32: float
    """Operations a second of a product of square matrices."""
    bfloat16: float
    """The same in bfloat16."""
    bandwidth: float
    """Bytes read a second."""

    @property
    def slug(self) -> str:
        """A name for files: "intel-r-xeon-r-processor-2"."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.cpu} {self.threads}".lower()).strip("-")

    def __str__(self) -> str:
        flops = f"matrix product {self.float32 / 1e9:.0f} GFLOP/s in float32, {self.bfloat16 / 1e9:.0f} in bfloat16"
        return f"{self.cpu}, {self.threads} threads: {flops}; {self.bandwidth / 1e9:.1f} GB/s read"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    """Its number in the table of what is wanted, with a letter where several rows share one: "4a"."""
    work: str
    against: str
    wanted: float
    ratio: Ratio
    share: float
    """Of the limit, as far as it was reached."""
    limit: str
    """What the limit is, in words."""
    at_most: bool = False
    """Whether the ratio is a cost that must not be above `wanted`, not a gain that must reach it."""
    medians: Mapping[str, float] = field(default_factory=dict)
    """Of each side, in `unit`."""
    unit: str = "s"
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the median ratio is what is wanted."""
        return self.ratio.median <= self.wanted if self.at_most else self.ratio.median >= self.wanted

    @property
    def notes(self) -> str:
        """What there is to say, with what was tried where it is not met."""
        return ". ".join(note for note in (self.note, "" if self.met else TRIED.get(self.name, "")) if note)

    @property
    def cells(self) -> tuple[str, ...]:
        """Of the table, after its name: work, against, wanted, ratio, share of the limit, medians, notes."""
        wanted = f"{'<=' if self.at_most else '>='} {self.wanted:g}, {'met' if self.met else 'missed'}"
        sides = ", ".join(
            f"{name} {value:.0f} {self.unit}" if value >= 1000 else f"{name} {value:.3g} {self.unit}" for name, value in self.medians.items()
        )
        return self.work, self.against, wanted, str(self.ratio), f"{self.share:.0%} of {self.limit}", sides, self.notes

    def __str__(self) -> str:
        work, against, wanted, ratio, share, sides, notes = self.cells
        return "\n  ".join(line for line in (f"row {self.name}: {work}", f"against {against}: {ratio}; {wanted}; {share}", sides, notes) if line)


@dataclass(frozen=True)
class Growth:
    """Seconds that a side took for more and more of something."""

    what: str
    """What there was more of, in words."""
    side: str
    at: Sequence[int]
    seconds: Sequence[float]

    @property
    def exponent(self) -> float:
        """Slope of the line through the logarithms, by least squares: 1 where twice as much takes twice as long."""
        import numpy as np

        return float(np.polyfit(np.log(self.at), np.log(self.seconds), 1)[0])


def best(work: Callable[[], object], times: int) -> float:
    """The fewest seconds that it took."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def measured_machine(sides: Sequence[int] = SIDES, read: int = READ) -> Machine:
    """Peak of the matrix product in both types over several sizes, and memory read by sums; the best of several runs."""
    import torch

    def peak(dtype: torch.dtype) -> float:
        found = []
        for side in sides:
            left, right = (torch.randn(side, side, dtype=dtype) for _ in range(2))
            found.append(2 * side**3 / best(lambda left=left, right=right: left @ right, 8))
        return max(found)

    numbers, few = torch.ones(read // 4).view(-1, 4096), torch.ones(4096)
    seconds = min(best(numbers.sum, 4), best(lambda: numbers @ few, 4))
    return Machine(hardware()["cpu"], torch.get_num_threads(), peak(torch.float32), peak(torch.bfloat16), read / seconds)


def versions() -> dict[str, str]:
    """Of the packages that the rows compare; those that are there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_table(name: str, rows: Sequence[Row], machine: Machine, options: Mapping[str, object], growth: Sequence[Growth] = ()) -> Path:
    """Write results/<name>.md and .json; the path of the table."""
    told = {"machine": asdict(machine), "options": dict(options), "versions": versions(), "load": os.getloadavg()}
    found = {"rows": [asdict(row) | {"met": row.met} for row in rows], "growth": [asdict(one) | {"exponent": one.exponent} for one in growth]}
    written(f"{name}.json", json.dumps(told | found, indent=1) + "\n")
    return written(f"{name}.md", table(rows, machine, options, growth))


def table(rows: Sequence[Row], machine: Machine, options: Mapping[str, object], growth: Sequence[Growth] = ()) -> str:
    """The rows as Markdown, under what they were measured on; and how the work grows."""
    lines = [
        "# Speed on this machine",
        "",
        f"{machine}. Load when the last row ended: {os.getloadavg()[0]:.1f}.",
        f"{', '.join(f'{name} {number}' for name, number in versions().items())}.",
        f"Options: {', '.join(f'{name} {value}' for name, value in options.items())}.",
        "",
        "| # | work | against | wanted | ratio: median (lowest to highest) | share of the limit | medians | note |",
        "|---|---|---|---|---|---|---|---|",
        *(f"| {' | '.join((row.name, *row.cells))} |" for row in rows),
    ]
    if growth:
        lines += ["", "| time grows with | " + " | ".join(["at", "side", "seconds", "exponent"]) + " |", "|---|---|---|---|---|"]
    for one in growth:
        at, seconds = (", ".join(f"{value:.3g}" if isinstance(value, float) else f"{value:,}" for value in of) for of in (one.at, one.seconds))
        lines.append(f"| {one.what} | {at} | {one.side} | {seconds} | {one.exponent:.2f} |")
    return "\n".join(lines) + "\n"
