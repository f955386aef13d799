"""From the summaries of the analyses to tables that people read: a column a system, or some columns a system by feature."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from biqa.reporting.formats import MISSING
from biqa.reporting.inside_answers import CORRELATIONS
from biqa.reporting.inside_grounding import feature_label
from biqa.reporting.intervals import interval_text
from biqa.reporting.page import PageTable

Summary = Mapping[str, Any]
"""What a summary holds of one data set."""
Systems = Mapping[str, Summary]
"""Label -> summary, in the order of the columns."""

INTERVALS = "[low, high]: 95 % bootstrap intervals over images."
GAPS = {"answer": "answer without the picture", "text": "text in stage 2's question"}


@dataclass(frozen=True)
class Difference:
    """One system minus another, where both have a figure of each image."""

    label: str
    """Such as "two-stage minus one-stage"."""
    figures: Mapping[str, Mapping[str, Any]]
    """Place of the figure in a summary, parts joined by "/" -> value, low, high."""


@dataclass(frozen=True)
class Row:
    """A row of a table with a column a system."""

    label: str
    place: str
    """Where the figure stands in a summary, parts joined by "/"."""
    digits: tuple[int, int] | None = (3, 2)
    """Decimal places of value and bounds; None: as it stands."""
    scale: float = 1.0
    signed: bool = False
    form: str = ""
    """Of a number without an interval."""

    def text(self, summary: Summary) -> str:
        """The figure of one system."""
        found: Any = summary
        for part in self.place.split("/"):
            found = None if found is None else found.get(part)
        if isinstance(found, Mapping):
            return interval_text(found, digits=self.digits or (3, 2), scale=self.scale, signed=self.signed)
        return MISSING if found is None else f"{found:{self.form}}"

    def difference(self, between: Difference) -> str:
        """The difference of two systems."""
        return interval_text(between.figures.get(self.place), digits=self.digits or (3, 2), scale=self.scale, signed=True)


def percent(label: str, place: str) -> Row:
    """A share as percent."""
    return Row(label, place, digits=(1, 1), scale=100.0)


def tables_of(analysis: str, systems: Systems, dataset: str = "", difference: Difference | None = None) -> tuple[PageTable, ...]:
    """The tables of an analysis on one data set, systems side by side.

    Args:
        analysis: grounding, logit_lens, attention, contradiction or gap.
        systems: label -> what the summary of that analysis holds of the data set.
        dataset: its name, for the captions.
        difference: of two systems, for a column of its own.
    """
    between = difference if difference is not None and difference.figures else None
    first = _side_by_side(FIRST[analysis], systems, between, _left_out(systems) if analysis == "grounding" else [])
    others = (_features_table(systems), *_swaps_table(systems)) if analysis == "grounding" else ()
    return tuple(replace(table, caption=f"{table.caption} ({dataset})") if dataset else table for table in (first, *others))


GROUPS = ("image", "question", "description", "rest")
LAST = "last layer"


@dataclass(frozen=True)
class Layout:
    """What a table with a column a system holds."""

    caption: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


FIRST: dict[str, Layout] = {
    "grounding": Layout(
        "How much of the score the description tells",
        (
            Row("images", "images"),
            percent("sentences understood (%)", "coverage"),
            Row("R² (cross-validated)", "r2_cv"),
            Row("SRCC (cross-validated)", "srcc_cv"),
            Row("R² (same images)", "r2", form=".3f"),
            percent("changed texts that move the score the right way (%)", "right_way"),
        ),
        ("Right way: 50 % is chance, a move of nothing counts half.",),
    ),
    "logit_lens": Layout(
        "Where the level is decided",
        (
            Row("images", "images"),
            Row("layers", "layers"),
            Row("commit depth (layer)", "commit_depth", digits=(2, 2)),
            percent("commit depth (% of the layers)", "commit_share"),
            Row("levels on top in the last quarter of the layers", "switches", digits=(2, 2)),
            Row("different likeliest tokens over the layers", "candidates", digits=(2, 2)),
            Row(f"entropy over the vocabulary, {LAST} (bits)", "last/entropy", digits=(2, 2)),
            Row(f"entropy over the levels, {LAST} (bits)", "last/level_entropy", digits=(2, 2)),
            percent(f"probability of the five level words, {LAST} (%)", "last/level_mass"),
            Row(f"{LAST} against the model's own answer (largest difference)", "last_layer_error", form=".1e"),
        ),
    ),
    "attention": Layout(
        "What the level's token attends to, mean over layers",
        (
            Row("images", "images"),
            Row("layers", "layers"),
            *(percent(f"attention on {group} (%)", f"mean/{group}") for group in GROUPS),
            Row("effective number of tokens", "mean/effective", digits=(1, 1)),
            Row("tokens in the context (mean)", "context", form=".1f"),
            *(Row(f"tokens of {group} (mean)", f"tokens/{group}", form=".1f") for group in GROUPS),
            Row("sum of the model's weights in a layer, largest distance from 1", "row_sum_error", form=".1e"),
        ),
    ),
    "contradiction": Layout(
        "Levels two or more steps from what the description implies",
        (
            Row("images", "images"),
            Row("of these without a level, or not understood", "left_out"),
            Row("training images behind the implied level", "trained_on"),
            percent("contradictions (% of images)", "greedy"),
            percent("better than described (%)", "better"),
            percent("worse than described (%)", "worse"),
            percent("contradictions among sampled answers (%)", "sampled"),
        ),
    ),
    "gap": Layout(
        "Accuracy from the image and from the model's own text alone",
        (
            Row("images", "images"),
            *(
                row
                for key, name in CORRELATIONS.items()
                for row in (
                    Row(f"{name} from the image", f"{key}_image"),
                    *(
                        row
                        for text, words in GAPS.items()
                        for row in (
                            Row(f"{name} from its {words}", f"{key}_{text}"),
                            Row(f"{name} gap, image minus {words}", f"{key}_gap_{text}", signed=True),
                        )
                    ),
                )
            ),
        ),
        ("Intervals of a gap are of the paired difference on the same images.",),
    ),
}
"""Analysis -> its first table."""


def markdown(table: PageTable) -> str:
    """A table without groups of columns in Markdown, with its notes below."""
    rows = [table.headings, ["---", *(["---:"] * (len(table.headings) - 1))], *table.rows]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join([f"**{table.caption}**", "", *lines, "", *(f"- {note}" for note in table.notes), ""])


def _side_by_side(layout: Layout, systems: Systems, between: Difference | None, more: Sequence[str]) -> PageTable:
    headings = ("", *systems, *([between.label] if between else []))
    body = tuple((row.label, *map(row.text, systems.values()), *([row.difference(between)] if between else [])) for row in layout.rows)
    paired = ["Differences are paired: of the same images, where each image has such a figure by itself."] if between else []
    return PageTable(layout.caption, headings, body, (INTERVALS, *layout.notes, *paired, *more))


def _features_table(systems: Systems) -> PageTable:
    """A row a feature: how often it is named, its coefficients and p by system."""
    columns = dict.fromkeys(column for summary in systems.values() for column in summary["features"])
    headings = ["named (%)", "coefficient", "p", "ordered logit"]
    rows = []
    for column in columns:
        texts = [feature_label(column)]
        for summary in systems.values():
            feature, logit = summary["features"].get(column), summary["logit"].get(column)
            named = "-" if feature is None else f"{100 * feature['named']:.1f}"
            slope = interval_text(feature and feature["coefficient"], signed=True)
            ordered = interval_text(logit["coefficient"] if isinstance(logit, Mapping) else None, signed=True)
            texts += [named, slope, _p(feature and feature["p"]), ordered]
        rows.append(tuple(texts))
    notes = ["Standardised: standard deviations of the score (ordered logit: log-odds of a higher level) for one standard deviation of the feature."]
    notes += [f"{system}: no ordered logit, {summary['logit']['why_not']}" for system, summary in systems.items() if summary["logit"].get("why_not")]
    return _by_feature("Which described features the score hangs on", systems, headings, rows, notes)


def _swaps_table(systems: Systems) -> list[PageTable]:
    """A row a feature whose wording was changed; no table without one."""
    columns = dict.fromkeys(column for summary in systems.values() for column in summary["swaps"])
    headings = ["images", "change of the score", "right way (%)"]
    rows = []
    for column in columns:
        texts = [feature_label(column)]
        for summary in systems.values():
            swap = summary["swaps"].get(column)
            texts += ["-"] * 3 if swap is None else [str(swap["images"]), interval_text(swap["change"], signed=True), _as_percent(swap["right_way"])]
        rows.append(tuple(texts))
    note = "Change: towards better wording (of a feature without a direction: towards more of it, and no right way is counted)."
    caption = "What happens to the score when one feature is reworded"
    return [_by_feature(caption, systems, headings, rows, [note])] if rows else []


def _by_feature(caption: str, systems: Systems, headings: Sequence[str], rows: Sequence[tuple[str, ...]], notes: Sequence[str]) -> PageTable:
    """A table with the same columns for each system, under its name."""
    groups = tuple((system, len(headings)) for system in systems)
    return PageTable(caption, ("feature", *(list(headings) * len(systems))), tuple(rows), tuple(notes), groups)


def _left_out(systems: Systems) -> list[str]:
    """A note a system on features that have no coefficient, with the reason."""
    return [
        f"{system}, features left out: " + "; ".join(f"{feature_label(one['feature'])} ({one['why']})" for one in summary["dropped"]) + "."
        for system, summary in systems.items()
        if summary["dropped"]
    ]


def _as_percent(figure: Mapping[str, Any] | None) -> str:
    return interval_text(figure, digits=(1, 1), scale=100.0)


def _p(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
