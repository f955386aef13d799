"""Are the figures of the experiments those that were expected, and those that the runs here give?

make check-experiments
python -m biqa.experiments                        all below experiments/
python -m biqa.experiments experiments/main_table

Options (option=value)
  folder  folder of an experiment, or of several; its name may be left out

A folder with an expected.csv (table, system, dataset, metric, value, tolerance) is an experiment. Where the runs that its table.md names are here,
their answers are read and the figures computed again; else those of its table.csv are compared. Exit code 1 when a figure is further from what is
expected than its tolerance, or is not there; 2 for a mistake in the command.
"""

import sys

from biqa.doors.arguments import open_light_door, read_options, show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

import csv
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from biqa.errors import BadRecord, DatasetNotFound

COLUMNS = ("table", "system", "dataset", "metric", "value", "tolerance")
COMMAND = re.compile(r"Made with `(python -m biqa\.report [^`]*)`")

Place = tuple[str, str, str, str]
"""Table, system, data set, metric."""


@dataclass
class ExperimentsOptions:
    """Which experiments."""

    folder: str = "experiments"
    """Of one, or of several."""


@dataclass(frozen=True)
class Expected:
    """A figure, and how far another machine or release may be from it."""

    value: float
    tolerance: float


def main(arguments: Sequence[str]) -> int:
    """Check the experiments below a folder; the exit code."""
    folder = Path(read_options(arguments, ExperimentsOptions, alone=("folder",)).folder)
    files = sorted(folder.rglob("expected.csv"))
    if not files:
        raise DatasetNotFound(f"{folder}: no expected.csv lies there or below, so no experiment does. Name a folder of experiments/.")
    wrong = 0
    for file in files:
        expected = read_expected(file)
        found, source = figures_of(file.parent)
        differ = differences(expected, found)
        wrong += len(differ)
        print(f"{file.parent}: {len(expected) - len(differ)} of {len(expected)} figures as expected, {source}")
        for line in differ:
            print(f"  {line}")
    return int(wrong > 0)


def read_expected(file: Path) -> dict[Place, Expected]:
    """The figures that an experiment is held to.

    Raises:
        BadRecord: a column is missing, or a row holds no numbers.
    """
    with file.open(newline="", encoding="utf-8") as opened:
        rows = list(csv.DictReader(opened))
    if not rows or set(COLUMNS) - set(rows[0]):
        raise BadRecord(f"{file}: the columns {', '.join(COLUMNS)} and a row are needed; found {', '.join(rows[0]) if rows else 'no row'}.")
    found: dict[Place, Expected] = {}
    for number, row in enumerate(rows, start=2):
        try:
            found[_place(row)] = Expected(float(row["value"]), float(row["tolerance"]))
        except ValueError as error:
            raise BadRecord(f"{file}, row {number}: value and tolerance must be numbers ({error}). Correct the row.") from error
    return found


def figures_of(folder: Path) -> tuple[dict[Place, float], str]:
    """The figures of an experiment and where they were taken from: its runs where they are here, else its table.csv.

    Raises:
        DatasetNotFound: neither is there.
    """
    written = folder / "table.md"
    command = COMMAND.search(written.read_text(encoding="utf-8")) if written.is_file() else None
    options = dict(option.split("=", 1) for option in shlex.split(command[1])[3:]) if command else {}
    if Path(options.get("runs", "")).is_dir() and options:
        return _computed(options), f"computed from the answers in {options['runs']}"
    table = folder / "table.csv"
    if not table.is_file():
        raise DatasetNotFound(f"{table} is not there, and the runs of {folder} are not here. Make them with the commands in its README.md.")
    with table.open(newline="", encoding="utf-8") as opened:
        rows = csv.DictReader(opened)
        return {_place(row): float(row["value"]) for row in rows if row["paper"] == "false" and row["value"]}, "read from its table.csv"


def _computed(options: Mapping[str, str]) -> dict[Place, float]:
    from biqa.report import keep, tables_of
    from biqa.reporting.result import find_results
    from biqa.reporting.tables import study_runs

    runs, only = options["runs"], options.get("only", "[*]").strip("[]").split(",")
    baseline, resamples, seed = options.get("baseline", "joint"), int(options.get("resamples", 1000)), int(options.get("seed", 0))
    study = study_runs(keep(find_results(Path(runs)), only, runs), baseline=baseline, resamples=resamples, seed=seed)
    return {
        (table.name, row.system, column.dataset, column.metric): cell.value
        for table in tables_of(study, options.get("reference"), "")
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell is not None and not row.paper
    }


def differences(expected: Mapping[Place, Expected], found: Mapping[Place, float]) -> list[str]:
    """A line for each figure that is not there, or further away than its tolerance."""
    lines = []
    for place, wanted in expected.items():
        value = found.get(place, math.nan)
        if not abs(value - wanted.value) <= wanted.tolerance:  # NaN fails this comparison too
            said = "is not there" if place not in found else f"is {value:g}"
            lines.append(f"{', '.join(place)}: {said}; {wanted.value:g} +- {wanted.tolerance:g} is expected")
    return lines


def _place(row: Mapping[str, str]) -> Place:
    return row["table"], row["system"], row["dataset"], row["metric"]


if __name__ == "__main__":
    open_light_door(main)
