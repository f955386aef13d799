"""From the summaries of the analyses to tables that people read: a column a system, or some columns a system by feature."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

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


def tables_of(analysis: str, systems: Systems, dataset: str = "") -> tuple[PageTable, ...]:
    """The tables of an analysis on one data set, systems side by side.

    Args:
        analysis: grounding, logit_lens, attention, contradiction or gap.
        systems: label -> what the summary of that analysis holds of the data set.
        dataset: its name, for the captions.
    """
    tables = TABLES[analysis](systems)
    return tuple(replace(table, caption=f"{table.caption} ({dataset})") for table in tables) if dataset else tables


def lens_tables(systems: Systems) -> tuple[PageTable, ...]:
    """When the level is decided."""
    rows = {
        "images": _count("images"),
        "layers": _count("layers"),
        "commit depth (layer)": _figure("commit_depth", digits=(2, 2)),
        "commit depth (% of the layers)": _percent("commit_share"),
        "levels on top in the last quarter of the layers": _figure("switches", digits=(2, 2)),
        "different likeliest tokens over the layers": _figure("candidates", digits=(2, 2)),
        "entropy over the vocabulary, last layer (bits)": lambda summary: interval_text(summary["by_layer"]["entropy"][-1], digits=(2, 2)),
        "entropy over the levels, last layer (bits)": lambda summary: interval_text(summary["by_layer"]["level_entropy"][-1], digits=(2, 2)),
        "probability of the five level words, last layer (%)": lambda summary: _as_percent(summary["by_layer"]["level_mass"][-1]),
        "last layer against the model's own answer (largest difference)": _tiny("last_layer_error"),
    }
    return (_side_by_side("Where the level is decided", systems, rows, (INTERVALS,)),)


def attention_tables(systems: Systems) -> tuple[PageTable, ...]:
    """What the token attends to, mean over layers."""
    shares = {f"attention on {group} (%)": _nested_percent("mean", group) for group in ("image", "question", "description", "rest")}
    tokens = {
        f"tokens of {group} (mean)": lambda summary, group=group: f"{summary['tokens'][group]:.1f}"
        for group in ("image", "question", "description", "rest")
    }
    rows = {
        "images": _count("images"),
        "layers": _count("layers"),
        **shares,
        "effective number of tokens": lambda summary: interval_text(summary["mean"]["effective"], digits=(1, 1)),
        "tokens in the context (mean)": lambda summary: f"{summary['context']:.1f}",
        **tokens,
        "shares of a layer add up to 1 (largest error)": _tiny("row_sum_error"),
    }
    return (_side_by_side("What the level's token attends to, mean over layers", systems, rows, (INTERVALS,)),)


def grounding_tables(systems: Systems) -> tuple[PageTable, ...]:
    """How much of the score the description tells, which features it hangs on, and the swap test."""
    rows = {
        "images": _count("images"),
        "sentences understood (%)": _percent("coverage"),
        "R² (cross-validated)": _figure("r2_cv"),
        "SRCC (cross-validated)": _figure("srcc_cv"),
        "R² (same images)": lambda summary: interval_text(_bare(summary["r2"])),
        "changed texts that move the score the right way (%)": _percent("right_way"),
    }
    notes = (INTERVALS, "Right way: 50 % is chance, a move of nothing counts half.", *_left_out(systems))
    fit = _side_by_side("How much of the score the description tells", systems, rows, notes)
    return (fit, _features_table(systems), *_swaps_table(systems))


def contradiction_tables(systems: Systems) -> tuple[PageTable, ...]:
    """How often a level does not fit its own description."""
    rows = {
        "images": _count("images"),
        "of these without a level, or not understood": _count("left_out"),
        "training images behind the implied level": _count("trained_on"),
        "contradictions (% of images)": _percent("greedy"),
        "better than described (%)": _percent("better"),
        "worse than described (%)": _percent("worse"),
        "contradictions among sampled answers (%)": _percent("sampled"),
    }
    return (_side_by_side("Levels two or more steps from what the description implies", systems, rows, (INTERVALS,)),)


def gap_tables(systems: Systems) -> tuple[PageTable, ...]:
    """What the image adds to the model's own text."""
    rows: dict[str, Callable[[Summary], str]] = {"images": _count("images")}
    for key, name in CORRELATIONS.items():
        rows[f"{name} from the image"] = _figure(f"{key}_image")
        for text, words in GAPS.items():
            rows[f"{name} from its {words}"] = _figure(f"{key}_{text}")
            rows[f"{name} gap, image minus {words}"] = _figure(f"{key}_gap_{text}", signed=True)
    notes = (INTERVALS, "Intervals of a gap are of the paired difference on the same images.")
    return (_side_by_side("Accuracy from the image and from the model's own text alone", systems, rows, notes),)


TABLES: dict[str, Callable[[Systems], tuple[PageTable, ...]]] = {
    "grounding": grounding_tables,
    "logit_lens": lens_tables,
    "attention": attention_tables,
    "contradiction": contradiction_tables,
    "gap": gap_tables,
}


def _side_by_side(caption: str, systems: Systems, rows: Mapping[str, Callable[[Summary], str]], notes: Sequence[str]) -> PageTable:
    body = tuple((name, *(text(summary) for summary in systems.values())) for name, text in rows.items())
    return PageTable(caption, ("", *systems), body, tuple(notes))


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


def _figure(key: str, digits: tuple[int, int] = (3, 2), *, signed: bool = False) -> Callable[[Summary], str]:
    return lambda summary: interval_text(summary.get(key), digits=digits, signed=signed)


def _percent(key: str) -> Callable[[Summary], str]:
    return lambda summary: _as_percent(summary.get(key))


def _nested_percent(outer: str, key: str) -> Callable[[Summary], str]:
    return lambda summary: _as_percent(summary[outer][key])


def _count(key: str) -> Callable[[Summary], str]:
    return lambda summary: str(summary.get(key, "-"))


def _tiny(key: str) -> Callable[[Summary], str]:
    return lambda summary: "-" if summary.get(key) is None else f"{summary[key]:.1e}"


def _as_percent(figure: Mapping[str, Any] | None) -> str:
    return interval_text(figure, digits=(1, 1), scale=100.0)


def _bare(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": None, "high": None}


def _p(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
