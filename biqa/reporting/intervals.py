"""Figures with their intervals, {"value", "low", "high"} as the JSON files hold them: as text, and as numbers to draw."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = ("value", "low", "high")


def interval_text(figure: Mapping[str, Any] | None, *, digits: tuple[int, int] = (3, 2), scale: float = 1.0, signed: bool = False) -> str:
    """ "0.712 [0.67, 0.75]"; "0.712" where no interval is known, "undefined" for NaN or null, "-" where there is no figure.

    Args:
        figure: value, low, high (null or NaN where unknown); None where it was not measured.
        digits: decimal places of the value and of the bounds.
        scale: every number is multiplied by it: 100 makes percent of a share.
        signed: write a plus before what is positive, for coefficients and changes.
    """
    if figure is None:
        return "-"
    value, low, high = (_number(figure[part]) * scale for part in PARTS)
    if math.isnan(value):
        return "undefined"
    sign = "+" if signed else ""
    interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:{sign}.{digits[1]}f}, {high:{sign}.{digits[1]}f}]"
    return f"{value:{sign}.{digits[0]}f}{interval}"


def interval_columns(figures: Iterable[Mapping[str, Any] | None]) -> NDArray[np.float64]:
    """Figures as numbers, shape [figures, 3]: value, low, high; NaN for null and for a figure that is not there."""
    rows = [[math.nan] * 3 if figure is None else [_number(figure[part]) for part in PARTS] for figure in figures]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
