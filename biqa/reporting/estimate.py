"""What a dry run finds: how long a run takes, how much memory and disk, and from what that is concluded. On the terminal, and as a JSON file.

python -m biqa.run stage=1 model=tiny dry_run=true estimate=estimate.json
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from biqa.errors import BadRecord
from biqa.reporting.result import write_json

SCHEMA = 1
"""Number of the layout of the file; a reader refuses another."""


@dataclass(frozen=True)
class Estimate:
    """Of one run. In the file all fields stand under their names; `seconds` has a `total` there, and `disk_bytes` is that of `disk`."""

    name: str
    """Of the run."""
    finished: bool = False
    """Whether the run is finished already; the estimate is that of making it anew."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by phase, the phases of result.json: build, data, describe, fit, answer, evaluate."""
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What some phases consist of: fit of steps, images, validation, checkpoints, features; describe and answer of data sets."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """From what the seconds of a phase are concluded."""
    images: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Data set -> train, val, test (images of each split that the run uses) and skipped (left out as unusable)."""
    epochs: int = 0
    """Passes over the training images."""
    steps: int = 0
    """Optimiser steps of the whole run."""
    processes: int = 1
    """Among which the run is divided."""
    disk: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the run's folder: weights, checkpoints, descriptions, answers, merged."""
    features_bytes: int = 0
    """That features of images take in `images.cache` beyond what is there."""
    free_bytes: Mapping[str, int] = field(default_factory=dict)
    """Free on the disk of `runs`, what the run's folder holds already included, and on that of the cache: runs, cache."""
    peak_memory_bytes: Mapping[str, int] = field(default_factory=dict)
    """The most that the dry run has held, and on the host the prepared training images that the run keeps: host, and gpu where there is one."""
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    """What the machine has: host, and gpu where there is one."""
    notes: tuple[str, ...] = ()
    """What is not counted, and where the run may differ."""

    @property
    def total_seconds(self) -> float:
        """Of all phases."""
        return round(sum(self.seconds.values()), 2)

    @property
    def disk_bytes(self) -> int:
        """Of the run's folder."""
        return sum(self.disk.values())


def write_estimate(estimate: Estimate, path: Path) -> None:
    """Write it as JSON, under a temporary name first."""
    values: dict[str, Any] = {"schema": SCHEMA, **asdict(estimate)}
    values |= {"seconds": {**estimate.seconds, "total": estimate.total_seconds}, "disk_bytes": estimate.disk_bytes}
    write_json(values, path)


def read_estimate(path: Path) -> Estimate:
    """Read it back.

    Raises:
        BadRecord: there is no such file, or it is none of these.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        assert values.pop("schema") == SCHEMA
        del values["seconds"]["total"], values["disk_bytes"]
        return replace(Estimate(**values), notes=tuple(values["notes"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise BadRecord(f"{path} is no estimate of this version of biqa ({error}). Make it again: python -m biqa.run ... estimate={path}.") from error


def render_estimate(estimate: Estimate) -> Group:
    """It in words, for the terminal."""
    table = Table(title="Estimated time", title_justify="left")
    for heading in ("phase", "time", "from"):
        table.add_column(heading, justify="right" if heading == "time" else "left", overflow="fold")
    for phase, seconds in estimate.seconds.items():
        table.add_row(phase, duration(seconds), Text(estimate.sources.get(phase, "")))
        for part, its in estimate.parts.get(phase, {}).items():
            table.add_row(Text(f"  {part}", style="dim"), Text(duration(its), style="dim"), "")
    table.add_section()
    table.add_row("together", duration(estimate.total_seconds), "")
    return Group(table, *(Text(line) for line in (*_disk(estimate), *_memory(estimate), *estimate.notes)))


def _disk(estimate: Estimate) -> list[str]:
    what = ", ".join(f"{name} {amount(size)}" for name, size in estimate.disk.items())
    lines = [f"Disk: the run's folder takes about {amount(estimate.disk_bytes)} ({what}); {amount(estimate.free_bytes['runs'])} are free there."]
    if estimate.features_bytes:
        lines.append(
            f"Features of images take {amount(estimate.features_bytes)} more in images.cache; {amount(estimate.free_bytes['cache'])} are free."
        )
    return lines


def _memory(estimate: Estimate) -> list[str]:
    held = [
        f"{amount(size)} of the {amount(estimate.memory_bytes[of])} of the {of.replace('gpu', 'GPU')}"
        for of, size in estimate.peak_memory_bytes.items()
    ]
    whole = "what this dry run held and prepared training images (trainer.cache_mb) take; a whole run may need somewhat more"
    return [f"Memory: about {' and '.join(held)}: {whole}."]


def duration(seconds: float) -> str:
    """Seconds in words: 0.4 s, 175 s, 12 min, 5.3 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def amount(size: float) -> str:
    """Bytes in words: 40 kB, 12.1 MB, 1.4 GB, of 1024 to the next."""
    if size < 2**20 / 10:
        return f"{size / 2**10:.0f} kB"
    return f"{size / 2**30:,.1f} GB" if size >= 2**30 else f"{size / 2**20:,.1f} MB"
