"""Figures beside the tables: systems of an ablation, instability against how a model is asked, and which images flip."""

import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from biqa.evaluation.evaluate import Answers
from biqa.language.levels import LEVELS, level_index
from biqa.reporting.panels import MARGIN, Grid, add_axes, draw_dots, drawing, legend_below_title, look, title_panel
from biqa.reporting.systems import ASKED, System, load_answers
from biqa.reporting.tables import Study

PANELS = {"srcc": "SRCC", "instability_sampled": "instability %, sampled", "instability_argmax": "instability %, arg-max"}
"""Metric -> title of its panel in an ablation."""
NAMES, ROW = 2.6, 0.3
"""Width of the names and height of a row in inches."""
DECISIONS = {"instability_sampled": "sampled", "instability_argmax": "arg-max"}
WAYS = {"temperature": "temperature T of the sampled answers", "repeats": "sampled answers an image, N"}
"""How a model may be asked -> label of that axis."""
SMALL = 6.5


def draw_ablation(study: Study) -> Figure:
    """A panel a metric: a row a system, a dot with its 95 % interval a data set."""
    rows = {system.name: _broken(system.name) for system in study.systems}
    lines = max(text.count("\n") + 1 for text in rows.values())
    plot, top, bottom, right, gap = 1.9, 0.7, 0.45, 0.15, 0.25
    height = top + bottom + len(rows) * max(ROW, 0.14 * lines)
    with drawing(NAMES + len(PANELS) * (plot + gap) + right, height) as figure:
        for position, (metric, title) in enumerate(PANELS.items()):
            axes = add_axes(figure, NAMES + position * (plot + gap), bottom, plot, height - top - bottom)
            found = {
                _set_name(study, dataset): {
                    system.name: measure.estimate.as_dict()
                    for system in study.systems
                    if (measure := study.measures[system.name, dataset].get(metric)) is not None
                }
                for dataset in study.datasets
            }
            draw_dots(axes, rows, found, labelled=position == 0)
            title_panel(axes, title)
            if position == 0:
                legend_below_title(figure, axes, down=0.1)
        figure.text(NAMES / figure.get_size_inches()[0], MARGIN / height, "bars: 95 % intervals over images", va="bottom", fontsize=SMALL)
    return figure


def way_of_asking(study: Study) -> str | None:
    """The one way of asking, of `WAYS`, in which systems of the study differ that are the same otherwise; None where there is none, or both."""
    varied = [way for way in WAYS if len({system.sampling[way] for system in study.systems}) > 1]
    return varied[0] if len(varied) == 1 else None


def draw_asking(study: Study, way: str) -> Figure:
    """Instability of both decisions against temperature or number of answers: a panel a data set, a line a system and decision.

    Args:
        study: systems that were asked in several ways.
        way: a key of `WAYS`.
    """
    groups: dict[str, list[System]] = {}
    for system in study.systems:
        groups.setdefault(_without_asking(system.name), []).append(system)
    grid = Grid(len(study.datasets), min(3, len(study.datasets)), width=3.4, height=2.2, top=1.0)
    with drawing(max(grid.size[0], 5.2), grid.size[1]) as figure:
        panels = [grid.add(figure, position) for position in range(grid.count)]
        for axes, dataset in zip(panels, study.datasets, strict=True):
            for position, (name, systems) in enumerate(groups.items()):
                for line, (metric, decision) in zip(("-", "--"), DECISIONS.items(), strict=True):
                    ordered = sorted(systems, key=lambda system: system.sampling[way])
                    measures = [study.measures[system.name, dataset].get(metric) for system in ordered]
                    points = [(system.sampling[way], found.estimate) for system, found in zip(ordered, measures, strict=True) if found is not None]
                    values = np.array([(at, found.value, found.low, found.high) for at, found in points]).reshape(-1, 4)
                    style = look(position)
                    axes.plot(
                        values[:, 0],
                        values[:, 1],
                        color=style.colour,
                        marker=style.marker,
                        markersize=3.5,
                        linestyle=line,
                        label=f"{name}, {decision}",
                    )
                    axes.fill_between(values[:, 0], values[:, 2], values[:, 3], color=style.colour, alpha=0.15, linewidth=0)
            ticks = sorted({system.sampling[way] for system in study.systems})
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.set(xlabel=WAYS[way], ylabel="instability (%)")
            axes.set_ylim(bottom=0)
            axes.grid(color="0.92", linewidth=0.6)
            axes.set_axisbelow(True)
            title_panel(axes, _set_name(study, dataset))
        legend_below_title(figure, panels[0], down=0.1, columns=2)
    return figure


def draw_flips(study: Study) -> Figure | None:
    """A panel a system and data set: the level words that each image was given, images from low to high quality, and the level that people gave.

    A column of one dark cell is an image that is given one word whenever it is asked. Of the lowest seed; None where no answers lie beside the runs.
    """
    drawn = [(system, dataset, answers) for system in study.systems for dataset in study.datasets if (answers := _answers(system, dataset))]
    if not drawn:
        return None
    grid = Grid(len(drawn), min(2, len(drawn)), width=3.6, height=1.15, left=0.8, top=0.55, across=0.75, between=0.8)
    with drawing(*grid.size) as figure:
        for position, (system, dataset, answers) in enumerate(drawn):
            axes = grid.add(figure, position)
            flipped = 100 * np.mean(answers.sampled.max(axis=1) != answers.sampled.min(axis=1))
            _draw_words(axes, answers)
            axes.tick_params(labelleft=position % grid.columns == 0)
            title_panel(axes, f"{system.name}, {_set_name(study, dataset)}: {flipped:.0f} % flip in {answers.sampled.shape[1]} answers")
            axes.set_xlabel(f"{len(answers.images)} images, from low to high quality")
        figure.text(MARGIN / grid.size[0], 1 - MARGIN / grid.size[1], "shade: share of the sampled words; line: the level of human quality", va="top",
                    fontsize=SMALL)  # fmt: skip
    return figure


def _draw_words(axes: Axes, answers: Answers) -> None:
    order = np.argsort(answers.q, kind="stable")
    words = answers.sampled[order]
    shares = np.stack([(words == level).mean(axis=1) for level in range(len(LEVELS))])
    axes.imshow(shares, origin="lower", aspect="auto", cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.plot([level_index(q) for q in answers.q[order]], color="#D55E00", linewidth=0.9, drawstyle="steps-mid")
    axes.set_yticks(range(len(LEVELS)), LEVELS)
    axes.set_xticks([])


def _answers(system: System, dataset: str) -> Answers | None:
    runs = system.runs_on(dataset)
    answers = load_answers(runs[0], dataset) if runs else None
    return answers if answers is not None and answers.sampled.shape[1] > 1 else None


def _set_name(study: Study, dataset: str) -> str:
    return f"{dataset} (stand-in)" if study.stand_in(dataset) else dataset


def _broken(name: str) -> str:
    """A system's name in lines that fit beside a panel: one for each thing that it says."""
    lines: list[str] = []
    for part in name.split(", "):
        if lines and len(lines[-1]) + len(part) < 34:
            lines[-1] += f", {part}"
        else:
            lines.append(part)
    return "\n".join(lines)


def _without_asking(name: str) -> str:
    """A system's name without how it was asked."""
    said: Sequence[str] = tuple(ASKED.values())
    return ", ".join(part for part in name.split(", ") if not re.match(rf"({'|'.join(map(re.escape, said))})=", part))
