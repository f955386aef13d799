"""The figure beside the tables: predicted score against human quality by system (left), and instability by system (right)."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from biqa.files import write_whole
from biqa.reporting.published import INSTABILITY_SETS
from biqa.reporting.systems import System, load_answers
from biqa.reporting.tables import Study

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, told apart with any common colour blindness and in grey."""
MARKERS = ("o", "s", "^", "D", "v", "P")
DECISIONS = {"instability_sampled": "sampled", "instability_argmax": "arg-max"}
PANELS_A_ROW = {1: 1, 2: 2, 4: 2}
"""Panels side by side by number of systems; 3 for every other number."""
TICKS = (0, 0.5, 1)
LABEL_WIDTH = 24
"""Characters that fit above a panel."""

STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "biqa",  # element ids in the SVG are random without it
    "text.parse_math": False,  # names, tokens and texts may hold a $
}

PANEL, GAP, LINE = 1.4, 0.25, 0.14
"""Side of a score panel, space between two, height of a line of text; all lengths in inches."""
LEFT, RIGHT, BOTTOM, TOP = 0.6, 0.15, 0.65, 0.5
"""Margins: axis labels and ticks; half a tick label; two lines of label; the legend."""
NAMES, BARS = 1.75, 2.1
"""Widths of the right panel: the systems' names, and its axes."""


@dataclass(frozen=True)
class Layout:
    """Where things go, in inches. Fixed sums and no solver: its last digits would change the SVG from call to call."""

    rows: int
    columns: int
    title_lines: int

    @property
    def title(self) -> float:
        """Height of the titles above a row of panels."""
        return LINE * self.title_lines + GAP

    @property
    def scores(self) -> float:
        """Width of all score panels."""
        return self.columns * PANEL + (self.columns - 1) * GAP

    @property
    def width(self) -> float:
        """Width of the figure."""
        return LEFT + self.scores + NAMES + BARS + RIGHT

    @property
    def height(self) -> float:
        """Height of the figure."""
        return BOTTOM + self.rows * (PANEL + self.title) + TOP

    def panel(self, position: int) -> tuple[float, float, float, float]:
        """Left, bottom, width, height of a score panel, as shares of the figure; panels go row by row from the top."""
        row, column = divmod(position, self.columns)
        left = LEFT + column * (PANEL + GAP)
        bottom = BOTTOM + (self.rows - 1 - row) * (PANEL + self.title)
        return left / self.width, bottom / self.height, PANEL / self.width, PANEL / self.height

    @property
    def bars(self) -> tuple[float, float, float, float]:
        """The same for the axes of the right panel."""
        left = LEFT + self.scores + NAMES
        return left / self.width, BOTTOM / self.height, BARS / self.width, (self.height - BOTTOM - TOP) / self.height


def draw_figure(study: Study) -> Figure:
    """Both panels as one figure, about 190 mm wide for four systems.

    Left: a panel a system; query 0 of its lowest seed, a point an image, a colour a data set; the line is score = q. Right: instability of both
    decisions with 95 % intervals, the mean over data sets where there are several.
    """
    columns = PANELS_A_ROW.get(len(study.systems), 3)
    lines = max(_wrapped(system.name).count("\n") + 2 for system in study.systems)
    layout = Layout(math.ceil(len(study.systems) / columns), columns, lines)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(layout.width, layout.height))
        FigureCanvasAgg(figure)
        _draw_scores(figure, layout, study)
        _draw_instability(figure, layout, study)
    return figure


def write_figure(figure: Figure, png: Path, svg: Path) -> None:
    """Write both formats, each whole or not at all. The same figures give the same bytes: no date, fixed ids."""
    with mpl.rc_context(STYLE):
        for path, metadata in ((png, None), (svg, {"Date": None})):
            figure.savefig(drawn := BytesIO(), format=path.suffix[1:], dpi=200, metadata=metadata)
            write_whole(path, drawn.getvalue())


def _draw_scores(figure: Figure, layout: Layout, study: Study) -> None:
    panels = [figure.add_axes(layout.panel(position)) for position in range(len(study.systems))]
    for position, (system, axes) in enumerate(zip(study.systems, panels, strict=True)):
        _draw_system(axes, study, system)
        below = position + layout.columns < len(study.systems)  # only the lowest panel of a column has numbers, only the first of a row
        axes.tick_params(labelbottom=not below, labelleft=position % layout.columns == 0)
    shown = f"; {_label(study, study.datasets[0])}" if len(study.datasets) == 1 else ""
    centre = (LEFT + layout.scores / 2) / layout.width
    figure.text(centre, 0.1 / layout.height, f"human quality q (0 worst, 1 best)\nline: score = q{shown}", ha="center", va="bottom")
    middle = (BOTTOM + (layout.height - BOTTOM - TOP) / 2) / layout.height
    figure.text(0.1 / layout.width, middle, "predicted score (0..1)", ha="left", va="center", rotation="vertical")
    if len(study.datasets) > 1:
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(centre, 1), ncols=3, markerscale=2)


def _draw_system(axes: Axes, study: Study, system: System) -> None:
    """Scores of one system against q, with its SRCC (mean over seeds and data sets) in the title."""
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=1)
    for dataset, colour, marker in zip(study.datasets, cycle(COLOURS), cycle(MARKERS), strict=False):
        runs = system.runs_on(dataset)
        answers = load_answers(runs[0], dataset) if runs else None
        x, y = (answers.q, answers.score) if answers else (np.empty(0), np.empty(0))
        label = _label(study, dataset)
        axes.scatter(x, y, s=4, color=colour, marker=marker, alpha=0.5, linewidths=0, rasterized=True, label=label, zorder=2)
    found = study.of(system, "srcc", study.datasets)
    average = "mean SRCC" if len(found) > 1 else "SRCC"
    axes.set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.set_title(f"{_wrapped(system.name)}\n{average} {np.mean([measure.value for measure in found]):.3f}")


def _draw_instability(figure: Figure, layout: Layout, study: Study) -> None:
    axes = figure.add_axes(layout.bars)
    averaged = study.averaged(INSTABILITY_SETS)
    heights = np.arange(len(study.systems))[::-1]
    for (metric, label), colour, marker, shift in zip(DECISIONS.items(), COLOURS, MARKERS, (0.12, -0.12), strict=False):
        measures = [study.mean(system, metric, averaged) for system in study.systems]
        drawn = [(height + shift, measure.estimate) for height, measure in zip(heights, measures, strict=True) if measure is not None]
        values = np.array([(height, found.value, found.value - found.low, found.high - found.value) for height, found in drawn]).reshape(-1, 4)
        bars = np.nan_to_num(values[:, 2:].T)  # an unknown interval is drawn as none
        axes.errorbar(values[:, 1], values[:, 0], xerr=bars, fmt=marker, color=colour, markersize=4, capsize=2, linewidth=1, label=label)
    axes.set_yticks(heights, [_wrapped(system.name) for system in study.systems])
    axes.set_ylim(-0.6, len(study.systems) - 0.4)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    of = f"{study.heading(averaged)}, " if len(study.datasets) > 1 else ""
    centre = (layout.width - RIGHT - (NAMES + BARS) / 2) / layout.width
    text = f"instability (%){_asked(study.systems)}\n{of}bars: 95 % intervals over images"
    figure.text(centre, 0.1 / layout.height, text, ha="center", va="bottom")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(centre, 1), ncols=2, title="level of a query")


def _asked(systems: Sequence[System]) -> str:
    """N and T, where they are the same for all."""
    ways = {f", N = {system.sampling['repeats']}, T = {system.sampling['temperature']:g}" for system in systems}
    return ways.pop() if len(ways) == 1 else ""


def _label(study: Study, dataset: str) -> str:
    return f"{dataset} (stand-in)" if study.stand_in(dataset) else dataset


def _wrapped(name: str) -> str:
    return textwrap.fill(name, LABEL_WIDTH)
