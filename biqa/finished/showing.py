"""What the analyses of one run, or of two beside each other, have found: figures beside the data, tables on the terminal, and one page."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from biqa.errors import IncompatibleChoice, UserError
from biqa.evaluation.answers import read_table
from biqa.files import write_whole
from biqa.finished.opened import OpenedRun
from biqa.reporting.figures import write_figure
from biqa.reporting.formats import MISSING
from biqa.reporting.inside_answers import draw_contradiction, draw_gap
from biqa.reporting.inside_attention import draw_attention, draw_attention_map
from biqa.reporting.inside_grounding import draw_grounding, draw_partial_dependence, draw_swaps
from biqa.reporting.inside_lens import draw_lens_of_image, draw_logit_lens
from biqa.reporting.inside_page import contradiction_cards, example_of, gap_cards, run_table, section_of
from biqa.reporting.inside_tables import Difference, markdown, tables_of
from biqa.reporting.page import Cards, Example, Page, PageFigure, PageTable, Section, page_figure, write_page

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_AT = (0.1, 0.5, 0.9)
"""Images with figures of their own, where none is named: those at these quantiles of human quality."""
WORST = 10
"""Images on the page with the largest contradictions and gaps."""

Drawn = tuple[str, str, str, Figure | None]
"""(what follows the analysis in the file's name, caption, what is to be seen in words, figure)"""


@dataclass(frozen=True)
class Shown:
    """Runs whose analyses are shown side by side."""

    systems: Mapping[str, OpenedRun]
    """Label -> run. Files go to the first one's folder."""
    found: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Analysis -> label -> summary."""
    named: Sequence[str]
    """Images with figures of their own."""

    @property
    def first(self) -> OpenedRun:
        """The run that was asked for."""
        return next(iter(self.systems.values()))

    @property
    def datasets(self) -> list[str]:
        """Data sets that all runs answered.

        Raises:
            IncompatibleChoice: there is none.
        """
        shared = [dataset for dataset in self.first.answers if all(dataset in opened.answers for opened in self.systems.values())]
        if not shared:
            answered = "; ".join(f"{opened.folder.path}: {', '.join(opened.answers)}" for opened in self.systems.values())
            raise IncompatibleChoice(f"The two runs answered no data set in common ({answered}). Leave out against=, or name another run.")
        return shared

    def of(self, analysis: str, dataset: str) -> dict[str, Mapping[str, Any]]:
        """Label -> figures of one data set."""
        return {label: summary["datasets"][dataset] for label, summary in self.found[analysis].items()}

    def rows(self, table: str, dataset: str, image: str | None = None) -> dict[str, pd.DataFrame]:
        """Label -> rows of a parquet file of one data set, or of one image of it."""
        read = {label: read_table(opened.folder.path / "analysis" / f"{table}.parquet") for label, opened in self.systems.items()}
        # where no description names what could be changed, the table of swaps has no rows, and so no columns
        kept = {label: frame.loc[frame["dataset"] == dataset, :] if len(frame) else frame for label, frame in read.items()}
        return kept if image is None else {label: frame.loc[frame["image"] == image, :] for label, frame in kept.items()}

    def difference(self, analysis: str, dataset: str) -> Difference | None:
        """The first of two runs minus the other one."""
        from biqa.analysis.pairs import BY_IMAGE, differences

        if len(self.systems) != 2 or analysis not in BY_IMAGE:
            return None
        ours, theirs = self.rows(BY_IMAGE[analysis][0], dataset).values()
        settings = next(iter(self.found[analysis].values()))["settings"]
        made = differences(analysis, ours, theirs, resamples=settings["resamples"], seed=settings["seed"])
        return Difference(" minus ".join(self.systems), made)

    def tables(self, analysis: str, dataset: str) -> tuple[PageTable, ...]:
        """The tables of one analysis on one data set."""
        named = dataset if len(self.datasets) > 1 else ""
        return tables_of(analysis, self.of(analysis, dataset), named, self.difference(analysis, dataset))

    def chosen(self) -> list[tuple[str, str]]:
        """(data set, image) of those with figures of their own.

        Raises:
            IncompatibleChoice: a named image was not answered by all runs.
        """
        known: dict[str, str] = {}
        for dataset in reversed(self.datasets):
            of_all = [set(opened.greedy[dataset]["image"]) for opened in self.systems.values()]
            known |= dict.fromkeys(sorted(set.intersection(*of_all)), dataset)
        if unknown := [image for image in self.named if image not in known]:
            some = ", ".join(list(known)[:3])
            raise IncompatibleChoice(f"show=[{','.join(self.named)}]: {', '.join(unknown)} was not answered. There are {len(known)}, such as {some}.")
        if self.named:
            return [(known[image], image) for image in self.named]
        return [(dataset, image) for dataset in self.datasets for image in self._across_quality(dataset, list(known))]

    def _across_quality(self, dataset: str, known: list[str]) -> list[str]:
        """Some of the known images of a data set, from low to high quality."""
        rows = self.first.greedy[dataset]
        ordered = rows.loc[rows["image"].isin(known), :].sort_values(["q", "image"], kind="stable")["image"].tolist()
        return [ordered[place] for place in dict.fromkeys(round(at * (len(ordered) - 1)) for at in SHOWN_AT)] if ordered else []


def narrow_tables(shown: Shown) -> Iterator[PageTable]:
    """All tables. One that has columns for each system is parted: a table a system fits a window and a column of text."""
    for analysis in shown.found:
        for dataset in shown.datasets:
            for table in shown.tables(analysis, dataset):
                yield from _parted(table) if table.groups else [table]


def write_tables(shown: Shown) -> None:
    """Write tables.md: all tables in Markdown."""
    file = shown.first.folder.path / "analysis" / "tables.md"
    write_whole(file, "\n".join(map(markdown, narrow_tables(shown))))


def _parted(table: PageTable) -> Iterator[PageTable]:
    """A table a group of columns, without rows that have nothing in them."""
    begin = 1
    for number, (group, columns) in enumerate(table.groups):
        end = begin + columns
        rows = tuple((row[0], *row[begin:end]) for row in table.rows)
        kept = tuple(row for row in rows if any(cell != MISSING for cell in row[1:]))
        notes = table.notes if number == len(table.groups) - 1 else ()
        yield PageTable(f"{table.caption}: {group}", (table.headings[0], *table.headings[begin:end]), kept, notes)
        begin = end


def on_the_terminal(table: PageTable) -> "Table":
    """The table as rich prints it."""
    import rich.table
    from rich.text import Text

    made = rich.table.Table(title=Text(table.caption), title_justify="left", caption=Text("\n".join(table.notes)), caption_justify="left")
    for number, heading in enumerate(table.headings):
        made.add_column(Text(heading), justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        made.add_row(*map(Text, row))
    return made


def figures(shown: Shown) -> dict[str, list[PageFigure]]:
    """Draw and write all figures of sets: analysis -> its figures."""
    return {
        analysis: [
            made
            for dataset in shown.datasets
            for suffix, caption, seen, figure in drawn(shown, analysis, dataset)
            if (made := _write(shown, f"{analysis}{suffix}{_end(shown, dataset)}", f"{caption} ({dataset})", seen, figure)) is not None
        ]
        for analysis in shown.found
    }


def drawn(shown: Shown, analysis: str, dataset: str) -> list[Drawn]:
    """The figures of one analysis on one data set."""
    systems = shown.of(analysis, dataset)
    if analysis == "logit_lens":
        return [
            (
                "",
                "What each layer would say",
                "lines by layer: agreement with the final level, entropy, probabilities",
                draw_logit_lens(systems, dataset),
            )
        ]
    if analysis == "attention":
        return [
            ("", "What the level's token attends to, by layer", "shares of attention and its breadth, by layer", draw_attention(systems, dataset))
        ]
    if analysis == "gap":
        return [("", "Accuracy from the image and from the text alone", "bars of correlations", draw_gap(systems, dataset))]
    if analysis == "contradiction":
        table = draw_contradiction(shown.rows("contradiction", dataset), dataset)
        return [("", "Level given against level implied by the description", "counts of images, given level against implied level", table)]
    return [
        ("", "How the score hangs on each described feature", "standardised coefficients with intervals", draw_grounding(systems, dataset)),
        ("-dependence", "Mean score by what is described", "mean score by strength of each feature", draw_partial_dependence(systems, dataset)),
        ("-swaps", "What changing the text does to the score", "mean change of the score and share of right moves", draw_swaps(systems, dataset)),
    ]


def figures_of_images(shown: Shown) -> dict[tuple[str, str], list[PageFigure]]:
    """Draw and write the figures of single images: (data set, image) -> its figures."""
    return {place: [figure for figure in _of_image(shown, *place) if figure is not None] for place in shown.chosen()}


def _of_image(shown: Shown, dataset: str, image: str) -> Iterator[PageFigure | None]:
    end = f"-{_slug(Path(image).stem)}{_end(shown, dataset)}"
    if "logit_lens" in shown.found:
        figure = draw_lens_of_image(shown.rows("logit_lens", dataset, image), image)
        yield _write(shown, f"logit_lens{end}", f"What each layer would say about {image}", "tokens by layer", figure)
    if "attention" in shown.found:
        for label, opened in shown.systems.items():
            name = f"attention-map{end}" if opened is shown.first else f"attention-map-{_slug(label)}{end}"
            figure = _map(opened, dataset, image, f"{label}: {image}")
            yield _write(shown, name, f"{label}: attention on {image}", "attention laid over the picture", figure)


def _map(opened: OpenedRun, dataset: str, image: str, title: str) -> Figure | None:
    """Attention over the picture; None where the model sees none, or where its visual tokens lie on no grid."""
    if not opened.sees:
        return None
    from biqa.analysis.attention import attention_map
    from biqa.models.inside import box_of

    rows = opened.greedy[dataset].set_index("image")
    with opened.precision():
        weights = attention_map(opened.vlm, opened.contexts(dataset, [image], [rows.loc[image, "description"]])[0])
    if weights is None:
        return None
    picture = opened.picture(dataset, image)
    return draw_attention_map(picture, weights, range(1, len(weights) + 1), box_of(opened.vlm, picture), title)


def page(shown: Shown, of_sets: Mapping[str, list[PageFigure]], of_images: Mapping[tuple[str, str], list[PageFigure]], notes: Sequence[str]) -> None:
    """Write report.html.

    Args:
        shown: what was found.
        of_sets: `figures`.
        of_images: `figures_of_images`.
        notes: what must be known to read it, such as an analysis that is missing.
    """
    sections = [_section(shown, analysis, of_sets[analysis]) for analysis in shown.found]
    examples = [_example(shown, *place, of) for place, of in of_images.items()]
    stand_ins = [dataset for dataset in shown.datasets if shown.first.result["data"][dataset]["stand_in"]]
    told = [f"STAND-IN: the labels of {dataset} are not human opinions of these very images." for dataset in stand_ins]
    facts = run_table({label: next(iter(shown.found.values()))[label] for label in shown.systems})
    content = Page(f"Inside {shown.first.name}", facts, (*told, *notes), tuple(sections), tuple(examples))
    write_page(shown.first.folder.path / "analysis" / "report.html", content)


def _section(shown: Shown, analysis: str, made: Sequence[PageFigure]) -> Section:
    from biqa.analysis.gap import worst_gaps
    from biqa.evaluation.contradiction import worst

    cards: list[Cards] = []
    for dataset in shown.datasets:
        for label, opened in shown.systems.items():
            name = f"{label}, {dataset}" if len(shown.datasets) > 1 else label
            if analysis == "contradiction":
                cards.append(contradiction_cards(name, worst(shown.rows(analysis, dataset)[label], WORST), _pictures(opened)))
            if analysis == "gap" and opened.sees:
                cards.append(gap_cards(name, worst_gaps(shown.rows(analysis, dataset)[label], WORST), _pictures(opened)))
    return section_of(analysis, [table for dataset in shown.datasets for table in shown.tables(analysis, dataset)], made, cards)


def _example(shown: Shown, dataset: str, image: str, made: Sequence[PageFigure]) -> Example:
    answers = {label: opened.greedy[dataset].set_index("image").loc[image].to_dict() for label, opened in shown.systems.items()}
    lens = shown.rows("logit_lens", dataset, image) if "logit_lens" in shown.found else None
    return example_of(dataset, image, _pictures(shown.first), answers, lens=lens, figures=made)


def _pictures(opened: OpenedRun) -> Any:  # noqa: ANN401 (a function)
    def picture(dataset: str, image: str) -> Image.Image | None:
        try:
            return opened.picture(dataset, image)
        except UserError:  # moved or changed since; the page says so
            return None

    return picture


def _write(shown: Shown, name: str, caption: str, seen: str, figure: Figure | None) -> PageFigure | None:
    if figure is None:
        return None
    png, svg = (shown.first.folder.path / "analysis" / f"{name}.{kind}" for kind in ("png", "svg"))
    write_figure(figure, png, svg)
    return page_figure(png, svg, caption, f"{caption}: {seen}")


def _end(shown: Shown, dataset: str) -> str:
    """Of a file name: the data set, where there are several."""
    return f"-{_slug(dataset)}" if len(shown.datasets) > 1 else ""


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
