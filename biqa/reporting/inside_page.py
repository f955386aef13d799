"""What the page of analysis=all is made of: sections with their plain words, cards of single images, examples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.contradiction import STEPS
from biqa.language.levels import LEVELS
from biqa.reporting.page import Answer, Card, Cards, Example, LensCell, PageFigure, PageTable, Section, thumbnail
from biqa.reporting.tokens import visible

Pictures = Callable[[str, str], Image.Image | None]
"""(data set, image) -> its pixels; None where the file is no longer there."""

HEADINGS = {
    "grounding": "Grounding: does the score follow from the description?",
    "logit_lens": "Logit lens: in which layer is the level decided?",
    "attention": "Attention: what does the level's token look at?",
    "contradiction": "Contradiction: does the level fit the description?",
    "gap": "Image-text gap: does the text say all that the score rests on?",
}
EXPLANATIONS = {
    "grounding": (
        "The features that each generated description names (such as sharpness or noise, each with a strength) are read out of its text, "
        "and the score is regressed on them. If the score rests on what the model says it saw, they foretell it well on images that the "
        "regression has not seen (R² and SRCC near 1); if it does not, they say little (near 0). The swap test asks for cause: one "
        "feature is reworded, the text is scored again, and the score should rise where the text says it better."
    ),
    "logit_lens": (
        "At the position where the model says the level, the state of every layer is read as if it were the last one. This shows which "
        "word each layer would answer. Commit depth is the layer from which the final level stays on top of the five; the entropy says "
        "how undecided a layer is, in bits (over five levels at most 2.32). The last layer is the model's own answer."
    ),
    "attention": (
        "At the position where the model says the level, attention says how much it draws from each token before it. The shares on image, "
        "question, description and the rest of the prompt add up to 1. The effective number of tokens says over how many of them the "
        "attention is spread. A two-stage model has no image tokens in its second stage, so its share on the image is 0 by construction."
    ),
    "contradiction": (
        "From the training images it is learnt which level people give to images with such features. An answer contradicts itself when "
        "its level lies two or more steps (of bad, poor, fair, good, excellent) from what its own description implies: better than "
        "described, or worse."
    ),
    "gap": (
        "The model is scored on the image as usual, and again on its own text without the image. The difference in accuracy (correlation "
        "with human quality) is what the score draws from the image and the text does not say. For a two-stage model it is 0 by "
        "construction: its score rests on the text alone."
    ),
}


def section_of(analysis: str, tables: Sequence[PageTable], figures: Sequence[PageFigure] = (), cards: Sequence[Cards] = ()) -> Section:
    """One analysis on the page.

    Args:
        analysis: grounding, logit_lens, attention, contradiction or gap.
        tables: as `tables_of` gives them.
        figures, cards: as `page_figure`, `contradiction_cards` and `gap_cards` give them.
    """
    return Section(analysis, HEADINGS[analysis], EXPLANATIONS[analysis], tuple(tables), tuple(figures), tuple(cards))


def run_table(summaries: Mapping[str, Mapping[str, Any]]) -> PageTable:
    """Where the figures come from: a row a choice of the run, a column a system.

    Args:
        summaries: label -> any summary of that run, as its JSON file holds it.
    """
    choices = dict.fromkeys(choice for summary in summaries.values() for choice in summary["run"])
    rows = [(choice, *(str(summary["run"].get(choice, "-")) for summary in summaries.values())) for choice in choices]
    rows.append(("seed", *(str(summary.get("seed", "-")) for summary in summaries.values())))
    versions = [", ".join(f"{name} {number}" for name, number in summary.get("versions", {}).items()) for summary in summaries.values()]
    notes = tuple(f"Made with {text}." for text in dict.fromkeys(versions) if text)
    return PageTable("The runs" if len(summaries) > 1 else "The run", ("", *summaries), tuple(rows), notes)


def contradiction_cards(system: str, rows: pd.DataFrame, pictures: Pictures) -> Cards:
    """A card for each row of contradiction.parquet (such as `contradiction.worst` chooses), in their order."""
    cards = []
    for row in rows.to_dict("records"):
        steps = int(row["difference"])
        way = "as described" if not steps else f"{abs(steps)} step{'s' if abs(steps) > 1 else ''} {'better' if steps > 0 else 'worse'}"
        facts = (("given level", row["level"]), ("implied level", row["implied"]), ("difference", way))
        cards.append(_card(row, facts, pictures))
    contradicted = any(abs(steps) >= STEPS for steps in rows["difference"])
    heading = "worst contradictions" if contradicted else "no contradiction, the largest differences"
    return Cards(f"{system}: {heading}", "Answers whose level lies furthest from what their own description implies.", tuple(cards))


def gap_cards(system: str, rows: pd.DataFrame, pictures: Pictures) -> Cards:
    """A card for each row of gap.parquet (such as `gap.worst_gaps` chooses), in their order."""
    cards = []
    for row in rows.to_dict("records"):
        scores = {"score from the image": "score_image", "from the answer alone": "score_answer", "from the text": "score_text", "human quality": "q"}
        facts = tuple((name, f"{row[column]:.3f}") for name, column in scores.items())
        cards.append(_card(row, facts, pictures))
    return Cards(f"{system}: largest gaps", "Images whose score changes most when the image is taken away (all from 0, worst, to 1).", tuple(cards))


def example_of(
    dataset: str, image: str, pictures: Pictures, answers: Mapping[str, Mapping[str, Any]], *,
    lens: Mapping[str, pd.DataFrame] | None = None, figures: Sequence[PageFigure] = (),
) -> Example:  # fmt: skip
    """One image with what each system says of it.

    Args:
        dataset, image: names.
        pictures: finds its pixels.
        answers: label -> its greedy row of the answers table.
        lens: label -> its rows of logit_lens.parquet, one a layer; a system without them gets no strip.
        figures: of this image alone.
    """
    q = next(iter(answers.values()))["q"]
    told = []
    for system, row in answers.items():
        rows = (lens or {}).get(system)
        levels = tuple(zip(LEVELS, np.array([row[name] for name in PROBABILITIES], dtype=np.float64).tolist(), strict=True))
        facts = (("level", str(row["level"])), ("score", f"{row['score']:.3f}"))
        told.append(Answer(system, str(row["description"]), facts, levels, () if rows is None else lens_cells(rows)))
    return Example(image, _picture(pictures, dataset, image), (("data set", dataset), ("human quality", f"{q:.3f}")), tuple(told), tuple(figures))


def lens_cells(rows: pd.DataFrame) -> tuple[LensCell, ...]:
    """The lens strip from the rows of one image of logit_lens.parquet, layer 1 first."""
    ordered = rows.sort_values("layer").to_dict("records")
    return tuple(LensCell(int(row["layer"]), row["level"], visible(row["token_1"]), float(row["prob_1"])) for row in ordered)


def _card(row: Mapping[str, Any], facts: tuple[tuple[str, str], ...], pictures: Pictures) -> Card:
    return Card(row["image"], _picture(pictures, row["dataset"], row["image"]), facts, row["description"])


def _picture(pictures: Pictures, dataset: str, image: str) -> str:
    found = pictures(dataset, image)
    return "" if found is None else thumbnail(found)
