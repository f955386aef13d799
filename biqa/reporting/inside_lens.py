"""Figures of the logit lens (METHOD.md 6.2): over a set of images, and for one image (the paper's Fig. 3)."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from biqa.evaluation.answers import PROBABILITIES
from biqa.language.levels import LEVELS
from biqa.reporting.figures import COLOURS, MARKERS
from biqa.reporting.intervals import interval_columns
from biqa.reporting.panels import MARGIN, Grid, Look, add_axes, draw_by_layer, drawing, layer_axis, legend_below_title, look, title_panel
from biqa.reporting.tokens import fitting, visible

PANELS = {
    "agrees": ("the top level is already the final one\nvertical: mean commit depth", "share of images (0..1)"),
    "level_mass": ("first tokens of the five level words", "probability (0..1)"),
    "entropy": ("uncertainty over the whole vocabulary", "entropy (bits)"),
    "level_entropy": ("uncertainty over the five levels", "entropy (bits)"),
}
"""Figures by layer that all systems share a panel for: title and y axis."""
SHARES = ("agrees", "level_mass")
MOST_BITS = {"level_entropy": float(np.log2(len(LEVELS)))}

SCALE = mpl.colormaps["viridis"]
LEVEL_LOOKS = {
    level: Look(SCALE(position), marker, line)
    for level, position, marker, line in zip(LEVELS, np.linspace(0, 0.88, len(LEVELS)), MARKERS, ("-", "--", "-.", ":", "-"), strict=False)
}
"""Levels from dark (bad) to light (excellent), with markers for grey print."""

TOKENS = 4
CELL, LEVEL_CELL, ROW = 1.12, 0.44, 0.2
"""Widths of a token's cell and of a level's, and height of a layer, in inches."""
FONT = 6.5


def draw_logit_lens(systems: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """The lens over a set, by layer, with 95 % intervals over images as bands.

    Panels: share of images whose top level is already the final one (with the commit depth as a vertical line), probability of the level words,
    entropy over the vocabulary and over the levels; then a panel a system with the mean probability of each level.

    Args:
        systems: label -> what the summary of analysis=logit_lens holds of one data set.
        title: stands top left, for example the data set.
    """
    grid = Grid(len(PANELS) + len(systems), 2, top=0.85)
    with drawing(*grid.size, title) as figure:
        panels = [grid.add(figure, position) for position in range(grid.count)]
        reach = _highest_level(systems)
        for axes, (key, (name, unit)) in zip(panels, PANELS.items(), strict=False):
            _draw_shared(axes, systems, key)
            title_panel(axes, name)
            axes.set_ylabel(unit)
        for axes, (system, summary) in zip(panels[len(PANELS) :], systems.items(), strict=True):
            _draw_levels(axes, summary, reach)
            title_panel(axes, f"{system}: mean probability of each level")
        legend_below_title(figure, panels[0])
        panels[len(PANELS)].legend(ncols=3, fontsize=6.5, loc="upper left", borderaxespad=0.2, columnspacing=1, handlelength=2.6)
    return figure


def draw_lens_of_image(systems: Mapping[str, pd.DataFrame], title: str = "") -> Figure:
    """The lens for one image: a row a layer, the first on top and the last, which is the model's own answer, at the bottom.

    Left of each system the four likeliest tokens with their probabilities, right the probability of each level among the five; the darker the
    likelier. A space is drawn as ␣, a line end as ↵, a character without a glyph as its code; level words are bold, a top level has a frame.

    Args:
        systems: label -> the rows of logit_lens.parquet of one image, one a layer.
        title: stands top left, for example the image and its human quality.
    """
    block = TOKENS * CELL + 0.12 + len(LEVELS) * LEVEL_CELL
    layers = max(len(frame) for frame in systems.values())
    left, right, above, below, between = 0.5, 0.15, 0.85, 0.42, 0.55
    width = left + len(systems) * block + (len(systems) - 1) * between + right
    height = above + layers * ROW + below
    with drawing(width, height, fitting(title, (width - 0.2) * 72, 10)) as figure:
        for position, (system, frame) in enumerate(systems.items()):
            axes = add_axes(figure, left + position * (block + between), height - above - len(frame) * ROW, block, len(frame) * ROW)
            _draw_grid(axes, frame.sort_values("layer"), block)
            axes.text(0, -1.75, system, fontsize=8, fontweight="bold", va="bottom")
        note = (
            "numbers: probability (0..1), the darker the likelier; last row: the model's own answer\n"
            "bold: a level word; frame: the likeliest of the five levels; ␣ space, ↵ line end"
        )
        figure.text(left / width, MARGIN / height, note, fontsize=6.5, va="bottom")
    return figure


def _draw_shared(axes: Axes, systems: Mapping[str, Mapping[str, Any]], key: str) -> None:
    """One figure by layer, a line a system."""
    for position, (system, summary) in enumerate(systems.items()):
        draw_by_layer(axes, summary["by_layer"][key], look(position), system)
        if key == "agrees":
            _mark_commit(axes, summary, look(position))
    layer_axis(axes, max(summary["layers"] for summary in systems.values()))
    if key in SHARES:
        axes.set_ylim(-0.03, 1.03)
    else:
        axes.set_ylim(bottom=0, top=MOST_BITS[key] * 1.03 if key in MOST_BITS else None)


def _mark_commit(axes: Axes, summary: Mapping[str, Any], style: Look) -> None:
    """The mean commit depth: a vertical line with its number, the interval as a strip."""
    depth, low, high = interval_columns([summary["commit_depth"]])[0]
    if np.isnan(depth):
        return
    axes.axvline(depth, color=style.colour, linestyle=style.line, linewidth=0.8)
    if not np.isnan(low):
        axes.axvspan(low, high, color=style.colour, alpha=0.12, linewidth=0)
    place = axes.get_xaxis_transform()
    axes.plot([depth], [0], marker=style.marker, color=style.colour, markersize=5, transform=place, clip_on=False, linestyle="")


def _highest_level(systems: Mapping[str, Mapping[str, Any]]) -> float:
    """The highest bound of all level probabilities: where the panels of levels end."""
    figures = [figure for summary in systems.values() for level in LEVELS for figure in summary["by_layer"][f"p_{level}"]]
    numbers = interval_columns(figures)
    return min(1.0, float(np.nanmax(numbers))) if np.isfinite(numbers).any() else 1.0


def _draw_levels(axes: Axes, summary: Mapping[str, Any], reach: float) -> None:
    """Mean probability of each level, a line a level; above them room for the legend."""
    for level, style in LEVEL_LOOKS.items():
        draw_by_layer(axes, summary["by_layer"][f"p_{level}"], style, level)
    layer_axis(axes, summary["layers"])
    axes.set_ylim(-0.03 * reach, 1.35 * reach)
    axes.set_yticks([tick for tick in np.arange(0, 1.01, 0.1 if reach <= 0.5 else 0.25) if tick <= reach])
    axes.set_ylabel("probability (0..1)")


def _draw_grid(axes: Axes, frame: pd.DataFrame, width: float) -> None:
    """Tokens and level probabilities of one image, x in inches and y in layers from the top."""
    axes.set(xlim=(0, width), ylim=(len(frame), 0))
    axes.set_xticks([])
    axes.set_yticks(np.arange(len(frame)) + 0.5, [str(layer) for layer in frame["layer"]])
    axes.tick_params(length=0, labelsize=FONT)
    axes.set_ylabel("layer")
    axes.spines[:].set_visible(False)
    start = width - len(LEVELS) * LEVEL_CELL
    headings = {(rank - 0.5) * CELL: f"{_ordinal(rank)} token" for rank in range(1, TOKENS + 1)}
    headings |= {start + (number + 0.5) * LEVEL_CELL: level for number, level in enumerate(LEVELS)}
    for place, heading in headings.items():
        axes.text(place, -0.25, heading, fontsize=6, ha="center", va="bottom")
    for row, values in enumerate(frame.to_dict("records")):
        for rank in range(TOKENS):
            _token_cell(axes, rank * CELL, row, str(values[f"token_{rank + 1}"]), values[f"prob_{rank + 1}"])
        probabilities = np.array([values[name] for name in PROBABILITIES], dtype=np.float64)
        for number, probability in enumerate(probabilities):
            _shade(axes, start + number * LEVEL_CELL, row, LEVEL_CELL, probability)
            colour = _ink(probability)
            axes.text(
                start + (number + 0.5) * LEVEL_CELL, row + 0.54, _probability(probability), fontsize=FONT, ha="center", va="center", color=colour
            )
        top = start + LEVELS.index(values["level"]) * LEVEL_CELL
        axes.add_patch(Rectangle((top + 0.015, row + 0.06), LEVEL_CELL - 0.03, 0.88, fill=False, edgecolor=COLOURS[1], linewidth=1.2))


def _token_cell(axes: Axes, left: float, row: int, token: str, probability: float) -> None:
    _shade(axes, left, row, CELL, probability)
    ink = _ink(probability)
    weight = "bold" if token.strip().lower() in LEVELS else "normal"
    shown = fitting(visible(token), (CELL - 0.42) * 72, FONT)
    axes.text(left + 0.05, row + 0.54, shown, fontsize=FONT, ha="left", va="center", color=ink, fontweight=weight)
    axes.text(left + CELL - 0.05, row + 0.54, _probability(probability), fontsize=FONT, ha="right", va="center", color=ink)


def _shade(axes: Axes, left: float, row: int, width: float, probability: float) -> None:
    face = "white" if np.isnan(probability) else _shades()(probability)
    axes.add_patch(Rectangle((left, row), width, 1, facecolor=face, edgecolor="0.8", linewidth=0.4))


def _shades() -> Colormap:
    return mpl.colormaps["Blues"]


def _ink(probability: float) -> str:
    return "white" if probability > 0.6 else "black"


def _probability(probability: float) -> str:
    return "" if np.isnan(probability) else f"{probability:.2f}"


def _ordinal(rank: int) -> str:
    return ("1st", "2nd", "3rd", "4th")[rank - 1]
