"""Figures of contradiction and of the image-text gap (METHOD.md section 5)."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from biqa.evaluation.contradiction import STEPS
from biqa.language.levels import LEVELS
from biqa.reporting.figures import COLOURS
from biqa.reporting.intervals import interval_columns, interval_text
from biqa.reporting.panels import Grid, drawing, legend_below_title, title_panel

CORRELATIONS = {"srcc": "SRCC", "plcc": "PLCC"}
IMAGE = "from the image"
TEXTS = {"answer": "from its answer, picture taken away", "text": "from its text, in stage 2's question"}
"""Ways to show a model its own text alone, as the summary of analysis=gap names them, and what a figure calls them."""
BARS = {"image": (COLOURS[0], ""), "answer": (COLOURS[4], "////"), "text": (COLOURS[5], "\\\\\\\\")}
"""Colour and hatching by source."""


def draw_contradiction(systems: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """A panel a system: how many images got which level, by the level that their own description implies. Framed cells are contradictions.

    Args:
        systems: label -> rows of contradiction.parquet of one data set; of these the greedy answers (query 0) with an implied level count.
        title: stands top left, for example the data set.
    """
    counts = {system: level_counts(frame) for system, frame in systems.items()}
    grid = Grid(len(systems), min(3, len(systems)), width=2.3, height=2.3, left=0.9, right=0.9, top=0.85, bottom=0.45, across=0.85, between=1.3)
    with drawing(*grid.size, title) as figure:
        for position, (system, table) in enumerate(counts.items()):
            axes = grid.add(figure, position)
            _draw_counts(axes, table)
            better, worse = _shares(table)
            text = f"{system} ({table.sum()} images)\nbetter than described {better:.1f} %\nworse than described {worse:.1f} %"
            title_panel(axes, text)
        width, height = grid.size
        note = "frame: two steps\nor more apart\n\nupper left: better\nthan described\n\nlower right: worse"
        figure.text(1 - 0.82 / width, 1 - 0.9 / height, note, fontsize=6, va="top")
    return figure


def level_counts(frame: pd.DataFrame) -> NDArray[np.int64]:
    """Greedy answers by given level (row) and implied level (column), worst level first: shape [5, 5]."""
    rows = frame[(frame["query"] == 0) & frame["implied"].notna() & frame["level"].notna()]
    counts = np.zeros((len(LEVELS), len(LEVELS)), dtype=np.int64)
    for given, implied in zip(rows["level"], rows["implied"], strict=True):
        counts[LEVELS.index(given), LEVELS.index(implied)] += 1
    return counts


def draw_gap(systems: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """Correlation with human quality of the score from the image and of those from the model's own text alone, with 95 % intervals.

    Args:
        systems: label -> what the summary of analysis=gap holds of one data set.
        title: stands top left, for example the data set.
    """
    grid = Grid(len(CORRELATIONS), 2, width=max(2.7, 1.6 * len(systems)), height=2.0, top=0.65, bottom=0.3, across=0.65)
    with drawing(*grid.size, title) as figure:
        panels = [grid.add(figure, position) for position in range(grid.count)]
        for axes, (key, name) in zip(panels, CORRELATIONS.items(), strict=True):
            _draw_bars(axes, systems, key)
            axes.set_ylabel(f"{name} with human quality")
        legend_below_title(figure, panels[0], columns=1 + len(TEXTS))
    return figure


def _draw_counts(axes: Axes, table: NDArray[np.int64]) -> None:
    """Counts as shaded cells, the best given level on top; contradictions framed."""
    most = max(int(table.max()), 1)
    for given in range(len(LEVELS)):
        for implied in range(len(LEVELS)):
            count = int(table[given, implied])
            axes.add_patch(Rectangle((implied, given), 1, 1, facecolor=mpl.colormaps["Blues"](0.85 * count / most), edgecolor="0.85", linewidth=0.5))
            ink = "white" if count > 0.65 * most else "black" if count else "0.6"
            axes.text(implied + 0.5, given + 0.48, str(count), ha="center", va="center", color=ink)
            if abs(given - implied) >= STEPS:
                frame = Rectangle((implied + 0.07, given + 0.07), 0.86, 0.86, fill=False, edgecolor=COLOURS[1], linewidth=1.1)
                axes.add_patch(frame)
    axes.set(xlim=(0, len(LEVELS)), ylim=(0, len(LEVELS)), xlabel="level that the description implies", ylabel="level given")
    places = np.arange(len(LEVELS)) + 0.5
    axes.set_xticks(places, LEVELS, fontsize=7)
    axes.set_yticks(places, LEVELS, fontsize=7)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _shares(table: NDArray[np.int64]) -> tuple[float, float]:
    """Percent of the images whose level is better, and worse, than described, by `STEPS` or more; NaN without images."""
    steps = np.arange(len(LEVELS))[:, None] - np.arange(len(LEVELS))[None, :]
    total = table.sum() or np.nan
    return 100.0 * table[steps >= STEPS].sum() / total, 100.0 * table[steps <= -STEPS].sum() / total


def _draw_bars(axes: Axes, systems: Mapping[str, Mapping[str, Any]], key: str) -> None:
    """A bar a source in each system, the gaps written above them."""
    places = np.arange(len(systems), dtype=float)
    sources = {"image": IMAGE} | TEXTS
    shifts = np.linspace(-0.26, 0.26, len(sources))
    values = {source: interval_columns([summary[f"{key}_{source}"] for summary in systems.values()]) for source in sources}
    for shift, (source, label) in zip(shifts, sources.items(), strict=True):
        numbers, (colour, hatch) = values[source], BARS[source]
        bars = np.nan_to_num(np.abs(numbers[:, 1:] - numbers[:, :1]).T)  # an unknown interval is drawn as none
        axes.bar(places + shift, np.nan_to_num(numbers[:, 0]), 0.24, color=colour, hatch=hatch, edgecolor="white", linewidth=0, label=label)
        axes.errorbar(places + shift, numbers[:, 0], yerr=bars, fmt="none", ecolor="0.15", capsize=2, linewidth=1)
    reached = np.concatenate([numbers.ravel() for numbers in values.values()])
    reached = reached[np.isfinite(reached)]
    top, low = (max(float(reached.max()), 0.2), min(float(reached.min()), 0.0)) if reached.size else (1.0, 0.0)
    for place, summary in zip(places, systems.values(), strict=True):
        gaps = [f"{source}: {interval_text(summary[f'{key}_gap_{source}'], digits=(2, 2), signed=True)}" for source in TEXTS]
        axes.text(place, top + 0.04 * (top - low), "\n".join(["image minus", *gaps]), ha="center", va="bottom", fontsize=6)
    axes.axhline(0, color="0.3", linewidth=0.8)
    axes.set_ylim(low - 0.05 * (top - low) if low < 0 else 0, top + 0.32 * (top - low))
    axes.set_yticks([tick for tick in axes.get_yticks() if low - 0.05 <= tick <= top + 0.01])
    axes.set_xlim(-0.6, len(systems) - 0.4)
    axes.set_xticks(places, list(systems))
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
