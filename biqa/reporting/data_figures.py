"""Pictures of a data set: how quality is distributed in each split, and what its best, middle and worst images look like."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from biqa.data.images import image_of
from biqa.data.record import SPLITS, Record

COLUMNS = 6
"""Images a row of the contact sheet."""
THUMBNAIL = 240
"""Longer side of a thumbnail in pixels."""


def draw_histogram(name: str, records: Sequence[Record]) -> Figure:
    """Share of the images in each of 20 bins of quality, a line a split."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    edges = np.linspace(0.0, 1.0, 21)
    for split in SPLITS:
        q = [record.q for record in records if record.split == split]
        if q:
            axes.stairs(np.histogram(q, edges)[0] / len(q), edges, label=f"{split} ({len(q)})", linewidth=1.5)
    axes.set_xlabel("human quality q (0 worst, 1 best)")
    axes.set_ylabel("share of images")
    axes.set_title(name)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_contact_sheet(name: str, records: Sequence[Record]) -> Figure:
    """The best, the middle and the worst images by human quality, a row each."""
    order = sorted(records, key=lambda record: (-record.q, record.image))
    middle = max(0, (len(order) - COLUMNS) // 2)
    rows = {"best": order[:COLUMNS], "middle": order[middle : middle + COLUMNS], "worst": order[-COLUMNS:]}
    figure = Figure(figsize=(2.0 * COLUMNS, 2.2 * len(rows)), layout="constrained")
    figure.suptitle(f"{name}: best, middle and worst by human quality")
    for axes_row, (label, members) in zip(figure.subplots(len(rows), COLUMNS, squeeze=False), rows.items(), strict=True):
        for axes in axes_row:
            axes.set_axis_off()
        for axes, record in zip(axes_row, members, strict=False):
            image = image_of(record)
            image.thumbnail((THUMBNAIL, THUMBNAIL))
            axes.imshow(image)
            axes.set_title(f"{label}: q = {record.q:.2f}\n{record.image[-24:]}", fontsize=7)
    return figure
