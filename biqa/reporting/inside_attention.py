"""Figures of the attention of the token that emits the level (METHOD.md 6.3; the paper's Fig. 5), and its map over one picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from biqa.reporting.intervals import interval_columns
from biqa.reporting.panels import Grid, add_axes, draw_by_layer, drawing, layer_axis, legend_below_title, look, title_panel
from biqa.reporting.tokens import fitting

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of a picture."""

GROUPS = {"image": "image", "question": "question", "description": "description", "rest": "rest of the prompt"}
"""Parts of the context and what a figure calls them; they partition it."""
COLUMNS = {1: 2, 2: 3, 3: 2}
"""Panels a row by number of systems (there is one panel more); 3 for every other number."""
SHOWN = 4
"""Layers that the map of one image shows beside the mean, spread evenly from the first to the last."""
CLIP = 99.0
"""Percentile of the weights where the colours end: a few sinks hold much of the attention and would leave the rest dark."""


def draw_attention(systems: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """Where the level's token looks, by layer: the share of its attention on each group, a panel a system, and how broad it is.

    Bands are 95 % intervals over images. Breadth is the effective number of tokens, 2 to the entropy of the attention in bits.

    Args:
        systems: label -> what the summary of analysis=attention holds of one data set.
        title: stands top left, for example the data set.
    """
    grid = Grid(len(systems) + 1, COLUMNS.get(len(systems), 3), width=2.5, height=1.9, top=1.0, between=1.0)
    with drawing(*grid.size, title) as figure:
        panels = [grid.add(figure, position) for position in range(grid.count)]
        for axes, (system, summary) in zip(panels, systems.items(), strict=False):
            for position, (group, name) in enumerate(GROUPS.items()):
                draw_by_layer(axes, summary["by_layer"][group], look(position), name)
            layer_axis(axes, summary["layers"])
            axes.set_ylim(-0.03, 1.03)
            axes.set_ylabel("share of attention (0..1)")
            title_panel(axes, f"{system}\nmean tokens: {_token_counts(summary['tokens'])}")
        breadth = panels[-1]
        for position, (system, summary) in enumerate(systems.items()):
            draw_by_layer(breadth, summary["by_layer"]["effective"], look(position), system)
        layer_axis(breadth, max(summary["layers"] for summary in systems.values()))
        breadth.set_ylim(0, 1.35 * _widest(systems))
        breadth.set_ylabel("effective number of tokens")
        title_panel(breadth, "breadth of attention")
        breadth.legend(fontsize=6.5, loc="upper right", borderaxespad=0.2)
        legend_below_title(figure, panels[0])
    return figure


def draw_attention_map(picture: Image.Image, weights: NDArray[np.floating], layers: Sequence[int], box: Box, title: str = "") -> Figure:
    """The attention on the visual tokens of one image laid over it: the picture, some layers, the mean over all layers.

    Args:
        picture: the image as the model was given it.
        weights: shape [layers, rows, columns]: share of the token's whole attention on each patch, mean over heads; NaN: no token there.
        layers: numbers of the layers, in the order of `weights`.
        box: left, top, right, bottom in pixels of the picture: what the grid covers. It may be larger than the picture, where the model pads.
        title: stands top left.
    """
    percent = 100.0 * np.asarray(weights, dtype=np.float64)
    chosen = np.unique(np.round(np.linspace(0, len(layers) - 1, min(SHOWN, len(layers)))).astype(int))
    maps = {f"layer {layers[index]}": percent[index] for index in chosen}
    if len(layers) > 1:
        maps[f"mean of {len(layers)} layers"] = percent.mean(axis=0)
    drawn = np.concatenate([values.ravel() for values in maps.values()])
    drawn = drawn[np.isfinite(drawn)]
    top = float(np.percentile(drawn, CLIP)) if drawn.size else 0.0
    limits = Normalize(0, top or 1.0)
    columns = min(3, len(maps) + 1)
    left, upper, right, lower = _extent(picture, box)
    height = float(np.clip(2.1 * (lower - upper) / (right - left), 0.9, 3.2))
    grid = Grid(len(maps) + 1, columns, width=2.1, height=height, left=0.12, right=0.95, top=0.6, bottom=0.15, across=0.15, between=0.3)
    with drawing(*grid.size, fitting(title, (grid.size[0] - 0.2) * 72, 10)) as figure:
        panels = [grid.add(figure, position) for position in range(grid.count)]
        _show(panels[0], picture, box, "picture, frame: what the map covers")
        shown = [
            _lay_over(axes, picture, values, box=box, limits=limits, name=name) for axes, (name, values) in zip(panels[1:], maps.items(), strict=True)
        ]
        bar = add_axes(figure, grid.size[0] - 0.8, grid.size[1] - grid.top - height, 0.12, height)
        colours = figure.colorbar(shown[0], cax=bar, extend="max" if drawn.size and drawn.max() > top else "neither")
        colours.set_label("attention on a patch (%)")
    return figure


def _widest(systems: Mapping[str, Mapping[str, Any]]) -> float:
    """The highest bound of all effective numbers of tokens; 1 where none is known."""
    numbers = interval_columns([figure for summary in systems.values() for figure in summary["by_layer"]["effective"]])
    return float(np.nanmax(numbers)) if np.isfinite(numbers).any() else 1.0


def _token_counts(tokens: Mapping[str, float]) -> str:
    return ", ".join(f"{group} {count:.0f}" for group, count in tokens.items())


def _extent(picture: Image.Image, box: Box) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of all that is shown: the picture and the box."""
    return min(0.0, box[0]), min(0.0, box[1]), max(float(picture.width), box[2]), max(float(picture.height), box[3])


def _show(axes: Axes, picture: Image.Image, box: Box, name: str) -> None:
    """The picture with a frame round what the map covers."""
    axes.imshow(picture.convert("RGB"), extent=(0, picture.width, picture.height, 0))
    _finish(axes, picture, box, name)


def _lay_over(axes: Axes, picture: Image.Image, values: NDArray[np.float64], *, box: Box, limits: Normalize, name: str) -> AxesImage:
    """The map over the picture in pale grey, so that the colours are those of the map alone."""
    axes.imshow(picture.convert("L"), extent=(0, picture.width, picture.height, 0), cmap="gray", vmin=-200, vmax=255)
    left, upper, right, lower = box
    shown = axes.imshow(
        np.ma.masked_invalid(values), extent=(left, right, lower, upper), cmap="YlOrRd", norm=limits, alpha=0.65, interpolation="nearest"
    )
    _finish(axes, picture, box, name)
    return shown


def _finish(axes: Axes, picture: Image.Image, box: Box, name: str) -> None:
    left, upper, right, lower = _extent(picture, box)
    axes.set(xlim=(left, right), ylim=(lower, upper), xticks=[], yticks=[])
    axes.set_aspect("equal", anchor="NW")
    axes.spines[:].set_visible(False)
    axes.add_patch(Rectangle((box[0], box[1]), box[2] - box[0], box[3] - box[1], fill=False, edgecolor="0.35", linewidth=0.8, clip_on=False))
    axes.set_title(name, loc="left")
