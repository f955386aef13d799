"""Runs in a folder and in the folders in it, with their figures.

biqa ls                            all below runs/, by name
biqa ls runs/main_table sort=srcc  those of another folder, the best first
biqa ls --json                     all figures of all data sets, for programs

Options (option=value)
  runs   folder that holds the runs; its name alone will do
  sort   name, age (the newest first), srcc (the highest first), instability (sampled, the lowest first) or size (the largest first)
  json   JSON instead of a table

SRCC and instability (in percent, of both decisions) are means over the data sets that a run was tested on. The age of a run is that of its result
or, where it is not finished, of its newest file. "damaged" is a run whose result or config cannot be read.
"""

import sys

from biqa.doors.arguments import open_light_door, read_options, show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from biqa.config import choice_of
from biqa.config.reading import read_json, yaml_text
from biqa.errors import IncompatibleChoice, RunNotFound

RESULT, CONFIG = "result.json", "config.yaml"
SHOWN = ("srcc", "instability_sampled", "instability_argmax")
HEADINGS = ("run", "", "model", "stage", "data", "seed", "SRCC", "instab. sampled", "arg-max", "age", "size")
NUMBERS = 5
"""The first column of numbers: they are flush right."""


@dataclass
class LsOptions:
    """What to list."""

    runs: str = "runs"
    """Folder that holds the runs, at any depth."""
    sort: str = "name"
    """One of `ORDERS`."""
    json: bool = False
    """Print JSON."""

    def __post_init__(self) -> None:
        if self.sort not in ORDERS:
            raise IncompatibleChoice(f"sort={self.sort} is not known: choose {', '.join(ORDERS)}.")


@dataclass(frozen=True)
class ListedRun:
    """One run as its folder tells."""

    folder: str
    state: str
    """"finished", "unfinished" or "damaged"."""
    model: str = ""
    stage: str = ""
    data: str = ""
    seed: int | None = None
    metrics: Mapping[str, Mapping[str, Mapping[str, float | None]]] = field(default_factory=dict)
    """{data set: {metric: {"value", "low", "high"}}}, None where undefined."""
    changed: float = 0.0
    """Of the result, or of the newest file where there is none: seconds since 1970."""
    bytes: int = 0
    """Of all its files."""

    def figure(self, metric: str) -> float:
        """Mean over data sets; NaN where it was not measured on one."""
        values = [figures.get(metric, {}).get("value") for figures in self.metrics.values()]
        return fmean(value for value in values if value is not None) if values and None not in values else math.nan


ORDERS: dict[str, Callable[[ListedRun], Any]] = {
    "name": lambda run: run.folder,
    "age": lambda run: -run.changed,
    "srcc": lambda run: _last_if_unknown(-run.figure("srcc")),
    "instability": lambda run: _last_if_unknown(run.figure("instability_sampled")),
    "size": lambda run: -run.bytes,
}
"""Word -> what runs are sorted by; of equals the name decides."""


def _last_if_unknown(value: float) -> float:
    return math.inf if math.isnan(value) else value


def main(arguments: Sequence[str]) -> int:
    """List the runs.

    Raises:
        RunNotFound: there is no such folder.
    """
    options = read_options(arguments, LsOptions, alone=("runs",))
    root = Path(options.runs)
    if not root.is_dir():
        raise RunNotFound(f"runs={root}: there is no such folder. Name the one that holds the runs, runs=FOLDER, or make a run: biqa run")
    runs = sorted((look(folder) for folder in run_folders(root)), key=lambda run: (ORDERS[options.sort](run), run.folder))
    if options.json:
        print(json.dumps([asdict(run) for run in runs], indent=1))
    elif runs:
        print("\n".join(table([HEADINGS, *map(row, runs)])))
        print(summary(runs))
    else:
        print(f"No run lies below {root}. Make one: biqa run")
    return 0


def run_folders(root: Path) -> Iterator[Path]:
    """Folders with a config or a result, at any depth; what lies in such a folder is its own, and hidden folders are not looked into."""
    with os.scandir(root) as entries:
        found = list(entries)
    if any(entry.name in (CONFIG, RESULT) for entry in found):
        yield root
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and os.access(entry.path, os.R_OK | os.X_OK):
            yield from run_folders(root / entry.name)


def look(folder: Path) -> ListedRun:
    """What a run folder tells, without loading what made it."""
    size, newest = _extent(folder)
    result = folder / RESULT
    told: dict[str, Any]
    try:
        told = _of_result(read_json(result)) if result.is_file() else _of_config(folder / CONFIG)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, yaml.YAMLError):
        told = {"state": "damaged"}
    changed = result.stat().st_mtime if result.is_file() else newest
    return ListedRun(folder=str(folder), **told, changed=changed, bytes=size)


def _of_result(result: Mapping[str, Any]) -> dict[str, Any]:
    choices = {group: str(result["run"][group]) for group in ("model", "stage", "data")}
    metrics = {dataset: {metric: dict(figure) for metric, figure in figures.items()} for dataset, figures in result["metrics"].items()}
    return {"state": "finished", **choices, "seed": int(result["seed"]), "metrics": metrics}


def _of_config(file: Path) -> dict[str, Any]:
    """Of a run without a result: choices are known by what they name."""
    config = yaml.load(yaml_text(file), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    data, model = config["data"], config["model"]
    return {
        "state": "unfinished",
        "model": model.get("family") or choice_of(model["_target_"]),
        "stage": choice_of(config["stage"]["_target_"]),
        "data": "+".join(data["parts"]) if "parts" in data else choice_of(data["_target_"]),
        "seed": int(config["seed"]),
    }


def _extent(folder: Path) -> tuple[int, float]:
    """Bytes of all files below a folder, and when the newest was written."""
    size, newest = 0, 0.0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                stat = os.stat(os.path.join(place, name), follow_symlinks=False)
            except FileNotFoundError:  # of a run that goes on while it is looked at
                continue
            size, newest = size + stat.st_size, max(newest, stat.st_mtime)
    return size, newest


def row(run: ListedRun) -> tuple[str, ...]:
    """The cells of a run, in the order of `HEADINGS`."""
    srcc, sampled, likeliest = map(run.figure, SHOWN)
    percent = ["-" if math.isnan(value) else f"{value:.1f}" for value in (sampled, likeliest)]
    correlation = "-" if math.isnan(srcc) else f"{srcc:.3f}"
    seed = "-" if run.seed is None else str(run.seed)
    state = "" if run.state == "finished" else run.state
    return run.folder, state, run.model, run.stage, run.data, seed, correlation, *percent, age(time.time() - run.changed), size_in_words(run.bytes)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns. Nothing is cut off, so that a name can be copied or searched for; a column without a word is left out."""
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]))]
    kept = [column for column, width in enumerate(widths) if width]
    lines = ["  ".join(cells[c].rjust(widths[c]) if c >= NUMBERS else cells[c].ljust(widths[c]) for c in kept) for cells in rows]
    return [line.rstrip() for line in lines]


def summary(runs: Sequence[ListedRun]) -> str:
    """How many there are, and their size."""
    states = [f"{number} {state}" for state in ("finished", "unfinished", "damaged") if (number := sum(run.state == state for run in runs))]
    several = any(len(run.metrics) > 1 for run in runs)
    note = " Of a run that was tested on several data sets the figures are means over them." if several else ""
    return f"{', '.join(states)}, {size_in_words(sum(run.bytes for run in runs))}.{note}"


def age(seconds: float) -> str:
    """A duration in its largest unit: "40 s", "12 min", "5 h", "31 d"."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def size_in_words(number: int) -> str:
    """Bytes in the unit that gives one to three digits before the point: "812 B", "4.1 MB", "13 GB"."""
    value, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if value >= 10 or units[0] == "B" else f"{value:.1f} {units[0]}"


if __name__ == "__main__":
    open_light_door(main)
