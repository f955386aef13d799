"""Is biqa fast? Each kind of work beside what one would run otherwise, and beside what this machine can do at most, in interleaved rounds.

python -m benchmarks.speed                            # all rows and the growth of the cost: about 20 minutes on two cores
python -m benchmarks.speed --only 1 2 --rounds 3      # some rows
python -m benchmarks.speed --small --rounds 1         # small models: a glance at all of it, whose figures mean nothing

Writes results/<machine>.md, .json and -growth.png. Rows chosen by --only go to files of their own.
"""

import argparse
import ctypes
import gc
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are made here; before transformers is imported

from benchmarks.rows import READ, SIDES, Machine, Row, measured_machine, write_table

GROUPS = ("answers", "evaluation", "steps", "texts", "peaks", "doors")
"""Modules with rows, each with its sizes FULL and GLANCE and the NUMBERS of its rows."""
GROWTH = "growth"
OTHERS_WARNINGS = (
    r"Total length of `DataLoader` across ranks is zero",  # there are no validation items
    r"`is_gradient_checkpointing` is deprecated",  # peft 0.21 against transformers 5.23
    r"The '.*_dataloader' does not have many workers",
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning 2.6.6 against torch 2.13
)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int
    small: bool
    only: Sequence[str]
    """Numbers of rows, or "growth"; none: everything."""

    def wants(self, name: object) -> bool:
        """Whether a row of that number, or the growth, is to be measured."""
        return not self.only or str(name) in self.only

    @property
    def suffix(self) -> str:
        """Of the names of files, so that a glance or a few rows leave the whole table alone."""
        return "-small" * self.small + "".join(f"-{name}" for name in self.only)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the machine, then the rows; print each as it is there, and write the table anew after each group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", choices=[*map(str, range(1, 10)), GROWTH], help=f"1 to 9, {GROWTH}")
    parser.add_argument("--small", action="store_true")
    options = Options(**vars(parser.parse_args(arguments)))
    for message in OTHERS_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    machine = measured_machine(SIDES[:1], READ // 64) if options.small else measured_machine()
    print(machine, flush=True)
    report(options, machine)


def report(options: Options, machine: Machine) -> None:
    """All that is wanted, printed and written."""
    name = f"{machine.slug}{options.suffix}"
    told = {"rounds": options.rounds, "small": options.small}
    rows: list[Row] = []
    for group in GROUPS:
        found, seconds = _freed(lambda group=group: _rows(group, options, machine))
        for row in found:
            print(row)
        if found:
            print(f"({seconds / 60:.1f} minutes)", flush=True)
            rows = sorted([*rows, *found], key=lambda row: row.name)
            write_table(name, rows, machine, told)
    if options.wants(GROWTH):
        growth = import_module(f"benchmarks.{GROWTH}")
        growths, seconds = _freed(lambda: growth.growths(growth.GLANCE if options.small else growth.FULL))
        for one in growths:
            print(f"{one.side} grows with the {one.exponent:.2f}th power of {one.what}: {', '.join(f'{value:.3g}' for value in one.seconds)} s")
        print(f"({seconds / 60:.1f} minutes)", flush=True)
        growth.draw(growths, f"{name.removesuffix(f'-{GROWTH}')}-{GROWTH}")
        write_table(name, rows, machine, told, growths)
    print(f"results/{name}.md")


def _rows(group: str, options: Options, machine: Machine) -> list[Row]:
    module: Any = import_module(f"benchmarks.{group}")
    wanted = [number for number in module.NUMBERS if options.wants(number)]
    return module.rows(module.GLANCE if options.small else module.FULL, machine, options.rounds, wanted) if wanted else []


def _freed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives and its seconds; its models are let go, and their memory goes back to the system."""
    start = time.perf_counter()
    found = work()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return found, time.perf_counter() - start


if __name__ == "__main__":
    main()
