"""Row 7: the most memory that a stage-1 step holds, with a vocabulary of 128k, against TRL's. A process for each measurement.

What is counted is all that the process holds at once during the step, libraries and weights included.
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.rounds import alone, forget_peak, in_turn, memory_mb, peak_mb, ratio_of
from benchmarks.rows import Machine, Row
from benchmarks.shapes import SMALL, Shape, build, items
from benchmarks.steps import answer_length, config_of
from benchmarks.training import NO_TRL, TRL, Biqa, Trl, with_pictures
from biqa.language.prompts import DESCRIBE

NUMBERS = (7,)
STEPS = 1
SIDES = ("biqa", "trl")


@dataclass(frozen=True)
class Work:
    """Steps of one size."""

    shape: Shape
    batch: int


FULL = Work(Shape(vocabulary=128_000), batch=8)
GLANCE = Work(SMALL, batch=2)


def rows(work: Work, machine: Machine, rounds: int, wanted: Sequence[int] = NUMBERS) -> list[Row]:
    """Row 7. It is measured against nothing where TRL is not installed."""
    if 7 not in wanted:
        return []
    if not TRL:
        print(f"row 7 is left out. {NO_TRL}")
        return []
    size = json.dumps({**asdict(work.shape), "batch": work.batch})
    before: dict[str, list[float]] = {side: [] for side in SIDES}

    def peak(side: str) -> float:
        found = json.loads(alone("peaks", side, size))
        before[side].append(found["before"])
        return found["peak"]

    taken = [{side: peak(side) for side in in_turn(SIDES, number)} for number in range(rounds)]  # nothing is left of a process to warm up
    medians = {side: median(one[side] for one in taken) for side in SIDES}
    held = {side: median(before[side]) for side in SIDES}
    said = f"peak memory of a stage-1 LoRA step, {work.shape}, batch {work.batch}, bf16"
    note = "of the whole process, libraries and weights included; before the step it holds " + ", ".join(
        f"{side} {value:.0f} MB" for side, value in held.items()
    )
    share = held["biqa"] / medians["biqa"]
    limit = "what is held before the step"
    ratio = ratio_of(taken, "biqa", "trl")
    return [Row("7", said, "TRL's SFTTrainer", 0.7, ratio, share, limit, at_most=True, medians=medians, unit="MB", note=note)]


def measure(side: str, shape: Shape, batch: int) -> dict[str, float]:
    """MB that this process holds before a step, and at most during it."""
    with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
        vlm = build(shape)
        made = items(Path(place) / "images", vlm, [answer_length(vlm, shape)] * batch * STEPS, shape)
        config = config_of(batch)
        stepping: Any = (
            Biqa(vlm, config, made, Path(place) / "run") if side == "biqa" else Trl(vlm, config, with_pictures(vlm, made, DESCRIBE), Path(place))
        )
        gc.collect()
        forget_peak()
        before = memory_mb()
        stepping.fit()
        return {"before": before, "peak": peak_mb()}


def main() -> None:
    """Measure one side and print what it held as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("size", help="the shape of the model and the images a step, as JSON")
    options = parser.parse_args()
    size = json.loads(options.size)
    print(json.dumps(measure(options.side, batch=size.pop("batch"), shape=Shape(**size))))


if __name__ == "__main__":
    main()
