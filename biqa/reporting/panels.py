"""What the figures of the analyses share: panels at fixed places, lines and dots with intervals, an axis of layers."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from biqa.reporting.figures import COLOURS, MARKERS, STYLE
from biqa.reporting.intervals import interval_columns

LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
"""Line styles, so that systems are told apart without colour; as many as there are colours and markers."""
TITLE_WIDTH = 16
"""Characters of a title that fit into an inch."""
TITLE_LINE, MARGIN = 0.15, 0.08
"""Height of a line of title, and the space at the edge of a figure, in inches."""

Estimates = Sequence[Mapping[str, Any]]
"""Figures with intervals, {"value", "low", "high"}; null or NaN where unknown."""


@dataclass(frozen=True)
class Look:
    """How one system (or group, or level) is drawn wherever it stands."""

    colour: Any
    marker: str
    line: Any


LOOKS = tuple(Look(*look) for look in zip(COLOURS, MARKERS, LINES, strict=True))


def look(position: int) -> Look:
    """The look of the system at a position; the seventh is drawn as the first."""
    return LOOKS[position % len(LOOKS)]


@dataclass(frozen=True)
class Grid:
    """Equal panels, row by row from the top. Lengths in inches; fixed sums and no solver, so the same input gives the same file."""

    count: int
    columns: int
    width: float = 2.7
    height: float = 1.7
    left: float = 0.62
    right: float = 0.2
    bottom: float = 0.5
    top: float = 0.62
    across: float = 0.75
    """Space between two columns."""
    between: float = 0.85
    """Space between two rows."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return math.ceil(self.count / self.columns)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        across = self.columns * self.width + (self.columns - 1) * self.across
        return self.left + across + self.right, self.top + self.rows * self.height + (self.rows - 1) * self.between + self.bottom

    def add(self, figure: Figure, position: int) -> Axes:
        """The axes of one panel."""
        row, column = divmod(position, self.columns)
        left = self.left + column * (self.width + self.across)
        bottom = self.size[1] - self.top - self.height - row * (self.height + self.between)
        return add_axes(figure, left, bottom, self.width, self.height)


@contextmanager
def drawing(width: float, height: float, title: str = "") -> Iterator[Figure]:
    """A figure of a size in inches, to be drawn in the style of all our figures; its title stands top left."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        if title:
            figure.text(MARGIN / width, 1 - MARGIN / height, title, ha="left", va="top", fontsize=9, fontweight="bold")
        yield figure


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def title_panel(axes: Axes, text: str) -> None:
    """A title above a panel, wrapped to its width, left aligned."""
    width = axes.get_position().width * axes.figure.get_size_inches()[0]  # pyright: ignore[reportAttributeAccessIssue] (no subfigures here)
    lines = [textwrap.fill(line, max(8, int(TITLE_WIDTH * width))) for line in text.split("\n")]
    axes.set_title("\n".join(lines), loc="left")


def draw_by_layer(axes: Axes, figures: Estimates, style: Look, label: str = "") -> None:
    """A line over layers 1..L with its interval as a band; a model of one layer gets a dot with a bar. Gaps where a figure is unknown."""
    values = interval_columns(figures)
    layers = np.arange(1, len(values) + 1)
    every = max(1, len(layers) // 8)
    axes.plot(
        layers,
        values[:, 0],
        color=style.colour,
        marker=style.marker,
        linestyle=style.line,
        markersize=3.5,
        markevery=every,
        linewidth=1.2,
        label=label,
    )
    if len(layers) > 1:
        axes.fill_between(layers, values[:, 1], values[:, 2], color=style.colour, alpha=0.2, linewidth=0)
    else:
        axes.vlines(layers, values[:, 1], values[:, 2], colors=style.colour, linewidth=1)


def layer_axis(axes: Axes, layers: int) -> None:
    """The x axis of a panel by layer: whole numbers, the first and the last layer among them."""
    ticks = np.arange(1, layers + 1) if layers <= 8 else np.unique(np.round(np.linspace(1, layers, 5)).astype(int))
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    margin = max(0.3, 0.02 * layers)
    axes.set_xlim(1 - margin, layers + margin)
    axes.set_xlabel("layer (1 is the first)")
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def draw_dots(axes: Axes, rows: Mapping[str, str], systems: Mapping[str, Mapping[str, Mapping[str, Any]]], labelled: bool = True) -> None:
    """A row a key (the first on top), in it a dot and an interval a system; a figure that is missing or unknown is left out.

    Args:
        axes: where to.
        rows: key -> what stands at the axis.
        systems: system -> key -> figure with its interval.
        labelled: whether anything stands at the axis.
    """
    heights = np.arange(len(rows))[::-1].astype(float)
    shifts = np.linspace(0.22, -0.22, len(systems)) if len(systems) > 1 else [0.0]
    for position, ((system, figures), shift) in enumerate(zip(systems.items(), shifts, strict=True)):
        values = interval_columns([figures.get(key) for key in rows])
        bars = np.nan_to_num(np.abs(values[:, 1:] - values[:, :1]).T)  # an unknown interval is drawn as none
        style = look(position)
        axes.errorbar(
            values[:, 0], heights + shift, xerr=bars, fmt=style.marker, color=style.colour, markersize=4, capsize=2, linewidth=1, label=system
        )
    axes.set_yticks(heights, list(rows.values()) if labelled else [""] * len(rows))
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(-0.6, max(len(rows), 1) - 0.4)
    axes.grid(axis="x", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def legend_below_title(figure: Figure, axes: Axes, *, across: float = MARGIN, down: float = 0.26, columns: int = 4, title: str = "") -> None:
    """The legend of a panel as a row at the top of the figure, `down` inches from its edge and `across` from its left."""
    handles, labels = axes.get_legend_handles_labels()
    width, height = figure.get_size_inches()
    place = (across / width, 1 - down / height)
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=place, ncols=columns, borderaxespad=0, borderpad=0, title=title or None)
