"""Row 8: what a door costs that only prints help, against importing what a run needs. Whole processes, in turn."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.rounds import ROOT, clocked, ratio_of, rounds_of
from benchmarks.rows import Machine, Row

NUMBERS = (8,)
IMPORTS = "import torch, lightning, transformers"
COMMANDS = {"biqa.run --help": ("-m", "biqa.run", "--help"), "imports": ("-c", IMPORTS), "python": ("-c", "pass")}


@dataclass(frozen=True)
class Work:
    """There is one size."""


FULL = GLANCE = Work()


def rows(work: Work, machine: Machine, rounds: int, wanted: Sequence[int] = NUMBERS) -> list[Row]:
    """Row 8."""
    if 8 not in wanted:
        return []

    def started(command: Sequence[str]) -> None:
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)

    taken = rounds_of({name: clocked(lambda command=command: started(command)) for name, command in COMMANDS.items()}, rounds)
    medians = {name: median(one[name] for one in taken) for name in COMMANDS}
    ratio = ratio_of(taken, "biqa.run --help", "imports")
    share = medians["python"] / medians["biqa.run --help"]
    return [Row("8", "`python -m biqa.run --help`", f'`python -c "{IMPORTS}"`', 0.25, ratio, share, "starting Python", at_most=True, medians=medians)]
