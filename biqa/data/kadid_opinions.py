"""What KADID-10k's observers thought, on average, of each distortion type at each level."""

import csv
from functools import cache
from importlib.resources import files


@cache
def opinions() -> dict[tuple[str, int], tuple[float, float]]:
    """(type, level 1..5) -> (mean opinion, its standard deviation over the 81 references), on KADID-10k's scale 1..5, 5 = no difference seen.

    From `kadid_opinions.csv` beside this file, whose head names the source. All 25 types of `biqa.data.distortions`, in the same order.
    """
    lines = files("biqa.data").joinpath("kadid_opinions.csv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {(row["type"], int(row["level"])): (float(row["mean"]), float(row["std"])) for row in rows}


def opinion(kind: str, level: int) -> tuple[float, float]:
    """Mean opinion (1..5) and its standard deviation over the references of one type at one level (1..5)."""
    return opinions()[kind, level]
