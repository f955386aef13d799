"""Figures of grounding (METHOD.md 6.1): what the score hangs on, how it goes with each feature, and what happens when a text is changed."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from biqa.language.features import FEATURES
from biqa.reporting.intervals import interval_columns
from biqa.reporting.panels import MARGIN, Grid, add_axes, draw_dots, drawing, legend_below_title, look, title_panel
from biqa.reporting.tokens import fitting

Systems = Mapping[str, Mapping[str, Any]]
"""Label -> what the summary of analysis=grounding holds of one data set."""

MOST = 24
"""Features in a figure; those with the largest coefficients where there are more."""
MOST_PANELS = 12
"""Features with a panel of their own; the most often named ones where there are more."""
NAMES, ROW = 2.0, 0.25
"""Width of the names and height of a row in inches."""
FIT = {"r2_cv": "R² (cross-validated)", "r2": "R² (same images)", "srcc_cv": "SRCC (cross-validated)"}
SMALL = 6.5


def feature_label(column: str) -> str:
    """A column's name as people read it: "main_defect=2" is "main defect: underexposure", "non_eccentricity_patch" "non eccentricity patch"."""
    name, _, kind = column.removeprefix("f:").partition("=")
    spec = FEATURES.get(name)
    if kind.lstrip("-").isdigit() and spec is not None and 0 <= int(kind) - spec.lowest < len(spec.strengths):
        kind = spec.strengths[int(kind) - spec.lowest]
    return name.replace("_", " ") + (f": {kind.replace('_', ' ')}" if kind else "")


def strength_word(column: str, strength: int) -> str:
    """The word for a strength of a feature, or the number where the registry has no such word."""
    spec = FEATURES.get(column.removeprefix("f:"))
    if spec is None or not 0 <= strength - spec.lowest < len(spec.strengths):
        return str(strength)
    return spec.strengths[strength - spec.lowest]


def draw_grounding(systems: Systems, title: str = "") -> Figure:
    """Left: standardised coefficients with 95 % intervals, the largest on top. Right: how much of the score the described features tell.

    Args:
        systems: label -> what the summary of analysis=grounding holds of one data set.
        title: stands top left, for example the data set.
    """
    columns = _by_size(systems)
    shown = columns[:MOST]
    labels = {column: _name(column) for column in shown}
    rows = max(len(shown), 4)
    left, plot, names, fits, right, top, bottom = NAMES, 3.0, 1.7, 1.9, 0.15, 0.75, 0.62
    height = top + rows * _row(systems) + bottom
    with drawing(left + plot + names + fits + right, height, title) as figure:
        axes = add_axes(figure, left, bottom, plot, height - top - bottom)
        figures = {
            system: {column: values["coefficient"] for column, values in summary["features"].items() if column in labels}
            for system, summary in systems.items()
        }
        draw_dots(axes, labels, figures)
        axes.axvline(0, color="0.5", linewidth=0.8)
        axes.set_xlabel("standardised coefficient\n(SD of the score for one SD of the feature)")
        left_out = f" ({len(shown)} of {len(columns)})" if len(shown) < len(columns) else ""
        title_panel(axes, f"what the score hangs on{left_out}")
        if not shown:
            axes.text(0.5, 0.5, "no feature varies", transform=axes.transAxes, ha="center", backgroundcolor="white")
        beside = min(4, rows) * _row(systems)  # as high as three rows need, at the top
        _draw_fit(add_axes(figure, left + plot + names, height - top - beside, fits, beside), systems)
        legend_below_title(figure, axes)
    return figure


def draw_partial_dependence(systems: Systems, title: str = "") -> Figure | None:
    """A panel a feature: mean score of the images described with each strength, 95 % intervals; above it the number of images.

    Args:
        systems: label -> what the summary of analysis=grounding holds of one data set.
        title: stands top left.

    Returns:
        None where no system has a feature to show.
    """
    columns = [column for column in _by_naming(systems) if any(summary["partial_dependence"].get(column) for summary in systems.values())]
    shown = columns[:MOST_PANELS]
    if not shown:
        return None
    above = 0.12 * len(systems)
    grid = Grid(len(shown), min(3, len(shown)), width=2.1, height=1.35, top=0.78 + above, across=0.4, between=1.2 + above, bottom=1.05)
    more = f"   {len(shown)} of {len(columns)} features, the most often named" if len(shown) < len(columns) else ""
    with drawing(max(grid.size[0], 4.0), grid.size[1], f"{title}{more}") as figure:
        panels = [grid.add(figure, position) for position in range(grid.count)]
        for position, (axes, column) in enumerate(zip(panels, shown, strict=True)):
            _draw_dependence(axes, systems, column)
            axes.set_title(_name(column), loc="left", pad=5 + 9 * len(systems))
            axes.tick_params(labelleft=position % grid.columns == 0)
            axes.set_ylabel("mean score (0..1)" if position % grid.columns == 0 else "")
        legend_below_title(figure, panels[0])
        note = "along: strength in the words of the description; n: images described so; bars: 95 % intervals"
        figure.text(grid.left / figure.get_size_inches()[0], MARGIN / grid.size[1], note, fontsize=SMALL, va="bottom")
    return figure


def draw_swaps(systems: Systems, title: str = "") -> Figure | None:
    """The swap test: by feature the mean change of the score when the text says it better instead of worse, and the share of right-way moves.

    Args:
        systems: label -> what the summary of analysis=grounding holds of one data set.
        title: stands top left.

    Returns:
        None where no system has a swap.
    """
    columns = list(dict.fromkeys(column for summary in systems.values() for column in summary["swaps"]))
    if not columns:
        return None
    labels = {column: _name(column) for column in columns}
    left, change, between, share, right, top, bottom = NAMES, 2.9, 0.3, 2.0, 0.2, 0.75, 0.5
    counts = 0.4 * len(systems)
    height = top + max(len(columns), 3) * _row(systems) + bottom
    with drawing(left + change + between + share + counts + right, height, title) as figure:
        first = add_axes(figure, left, bottom, change, height - top - bottom)
        second = add_axes(figure, left + change + between, bottom, share, height - top - bottom)
        draw_dots(first, labels, _of_swaps(systems, "change", 1.0))
        draw_dots(second, labels, _of_swaps(systems, "right_way", 100.0), labelled=False)
        first.axvline(0, color="0.5", linewidth=0.8)
        first.set_xlabel("mean change of the score, better minus worse wording")
        title_panel(first, "change of the score")
        second.axvline(50, color="0.4", linestyle="--", linewidth=0.8)
        second.set(xlim=(-4, 104), xlabel="images that move the right way (%)")
        title_panel(second, "right way (dashed: chance)")
        _write_counts(second, systems, columns)
        legend_below_title(figure, first)
    return figure


def _draw_fit(axes: Axes, systems: Systems) -> None:
    """Cross-validated R2 and SRCC, and R2 on the same images, which has no interval."""
    figures = {
        system: {key: value if isinstance(value := summary[key], Mapping) else _bare(value) for key in FIT} for system, summary in systems.items()
    }
    draw_dots(axes, FIT, figures)
    values = interval_columns([figure for named in figures.values() for figure in named.values()])
    lowest = np.nanmin(values) if np.isfinite(values).any() else 0.0
    axes.set_xlim(min(-0.05, max(lowest * 1.1, -1.0)), 1.05)
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.set_xlabel("share of variance; rank correlation")
    hidden = "; < -1 cut" if lowest < -1 else ""
    title_panel(axes, f"how much they tell{hidden}")


def _draw_dependence(axes: Axes, systems: Systems, column: str) -> None:
    """Lines over the strengths that occur, with the number of images above."""
    spec = FEATURES.get(column.removeprefix("f:"))
    strengths = sorted({point["strength"] for summary in systems.values() for point in summary["partial_dependence"].get(column, [])})
    if spec is not None:
        strengths = sorted({*strengths, *range(spec.lowest, spec.lowest + len(spec.strengths))})
    shifts = np.linspace(-0.08, 0.08, len(systems)) if len(systems) > 1 else [0.0]
    for position, ((system, summary), shift) in enumerate(zip(systems.items(), shifts, strict=True)):
        points = summary["partial_dependence"].get(column, [])
        values = interval_columns([point["score"] for point in points])
        places = np.array([strengths.index(point["strength"]) for point in points]) + shift
        style = look(position)
        joined = style.line if spec is None or spec.ordered else ""  # between two kinds there is nothing
        axes.plot(places, values[:, 0], color=style.colour, marker=style.marker, linestyle=joined, markersize=4, linewidth=1, label=system)
        axes.vlines(places, values[:, 1], values[:, 2], colors=style.colour, linewidth=1)
        height = 1.02 + 0.09 * (len(systems) - 1 - position)
        for place, point in zip(places, points, strict=True):
            where = axes.get_xaxis_transform()
            axes.text(place - shift, height, f"{point['images']}", fontsize=6, ha="center", va="bottom", color=style.colour, transform=where)
        axes.text(-0.75, height, "n", fontsize=6, ha="center", va="bottom", color=style.colour, transform=axes.get_xaxis_transform())
    words = [fitting(strength_word(column, strength), 62, SMALL) for strength in strengths]
    axes.set_xticks(range(len(words)), words, rotation=35, ha="right", rotation_mode="anchor", fontsize=SMALL)
    axes.set_xlim(-0.5, max(len(words), 2) - 0.5)
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.grid(axis="y", color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)


def _write_counts(axes: Axes, systems: Systems, columns: list[str]) -> None:
    """Numbers of images right of the panel, a column a system."""
    width = axes.get_position().width * axes.figure.get_size_inches()[0]  # pyright: ignore[reportAttributeAccessIssue] (no subfigures here)
    for position, summary in enumerate(systems.values()):
        place, colour = 1 + (0.35 + 0.4 * position) / width, look(position).colour
        axes.text(place, len(columns) - 0.45, "n", transform=axes.get_yaxis_transform(), ha="right", va="bottom", fontsize=SMALL, color=colour)
        for row, column in enumerate(columns):
            number = summary["swaps"].get(column, {}).get("images", 0)
            height = len(columns) - 1 - row
            axes.text(place, height, str(number), transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=SMALL, color=colour)


def _of_swaps(systems: Systems, key: str, scale: float) -> dict[str, dict[str, Any]]:
    """System -> column -> figure of the swap test, scaled; null where its direction is not known."""
    found: dict[str, dict[str, Any]] = {}
    for system, summary in systems.items():
        known = {column: swap[key] for column, swap in summary["swaps"].items() if swap.get(key) is not None}
        found[system] = {
            column: dict(zip(("value", "low", "high"), scale * interval_columns([figure])[0], strict=True)) for column, figure in known.items()
        }
    return found


def _by_size(systems: Systems) -> list[str]:
    """All columns, the largest coefficient of any system first; unknown ones last."""
    largest: dict[str, float] = {}
    for summary in systems.values():
        for column, values in summary["features"].items():
            value = abs(interval_columns([values["coefficient"]])[0, 0])
            largest[column] = max(largest.get(column, -1.0), -1.0 if math.isnan(value) else value)
    return sorted(largest, key=lambda column: -largest[column])


def _by_naming(systems: Systems) -> list[str]:
    """Features of the partial dependence, the one with the most images first."""
    named: dict[str, int] = {}
    for summary in systems.values():
        for column, points in summary["partial_dependence"].items():
            named[column] = named.get(column, 0) + sum(point["images"] for point in points)
    return sorted(named, key=lambda column: -named[column])


def _row(systems: Systems) -> float:
    return max(ROW, 0.13 * len(systems))


def _name(column: str) -> str:
    return fitting(feature_label(column), (NAMES - MARGIN - 0.12) * 72, 8)


def _bare(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": None, "high": None}
