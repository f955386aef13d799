import numpy as np
import pandas as pd
import pytest
from made_up_insides import (
    as_file,
    attention_summary,
    contradiction_frame,
    estimate,
    gap_summary,
    grounding_summary,
    lens_frame,
    lens_summary,
)
from PIL import Image

from biqa.language.levels import LEVELS
from biqa.reporting.figures import write_figure
from biqa.reporting.inside_answers import draw_contradiction, draw_gap, level_counts
from biqa.reporting.inside_attention import draw_attention, draw_attention_map
from biqa.reporting.inside_grounding import draw_grounding, draw_partial_dependence, draw_swaps, feature_label, strength_word
from biqa.reporting.inside_lens import draw_lens_of_image, draw_logit_lens
from biqa.reporting.intervals import interval_columns, interval_text
from biqa.reporting.tokens import drawable, fitting, visible

NAMES = ("one-stage", "two-stage", "zero-shot, trained on generated text")


def systems(make, number, *arguments):
    return {name: as_file(make(*arguments)) for name in NAMES[:number]}


def pixels(picture=(320, 240)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (*picture[::-1], 3), dtype=np.uint8))


def attention_map(layers=3, box=(40, 0, 280, 240)):
    weights = np.random.default_rng(0).dirichlet(np.ones(64), layers).reshape(layers, 8, 8) * 0.3
    weights[0, 0, 0] = np.nan
    return draw_attention_map(pixels(), weights, range(1, layers + 1), box, "a.png")


LONG = tuple(f"a_feature_with_a_very_long_name_{number}=of_a_very_long_kind" for number in range(30))
DRAWN = {
    f"{name}, {layers} layers, {number} systems": draw
    for layers in (1, 3, 32)
    for number in (1, 2, 3)
    for name, draw in {
        "lens": lambda layers=layers, number=number: draw_logit_lens(systems(lens_summary, number, layers), "synthetic"),
        "attention": lambda layers=layers, number=number: draw_attention(systems(attention_summary, number, layers), "synthetic"),
    }.items()
}
DRAWN |= {
    f"{name}, {number} systems": draw
    for number in (1, 2, 3)
    for name, draw in {
        "grounding": lambda number=number: draw_grounding(systems(grounding_summary, number), "synthetic"),
        "grounding on 30 long names": lambda number=number: draw_grounding(systems(grounding_summary, number, 0.5, LONG), "synthetic"),
        "grounding on nothing": lambda number=number: draw_grounding(systems(grounding_summary, number, 0.5, ()), "synthetic"),
        "dependence": lambda number=number: draw_partial_dependence(systems(grounding_summary, number), "synthetic"),
        "swaps": lambda number=number: draw_swaps(systems(grounding_summary, number), "synthetic"),
        "contradiction": lambda number=number: draw_contradiction(dict.fromkeys(NAMES[:number], contradiction_frame()), "synthetic"),
        "gap": lambda number=number: draw_gap(systems(gap_summary, number), "synthetic"),
    }.items()
}
DRAWN |= {
    f"lens of an image, {layers} layers": lambda layers=layers: draw_lens_of_image({"one-stage": lens_frame(layers)}, "$a$.png")
    for layers in (1, 3, 32)
}
DRAWN |= {
    "lens of an image, two systems of different depth": lambda: draw_lens_of_image({"a": lens_frame(3), "b": lens_frame(32)}, "中.png"),
    "map of one layer": lambda: attention_map(1),
    "map of 32 layers": lambda: attention_map(32),
    "map beyond the picture": lambda: attention_map(3, (-40, -20, 360, 280)),
}


@pytest.mark.parametrize("name", DRAWN)
def test_nothing_leaves_the_figure_or_covers_a_title(name):
    figure = DRAWN[name]()
    figure.canvas.draw()
    drawn = [text.get_window_extent() for text in figure.texts] + [axes.get_tightbbox() for axes in figure.get_axes()]
    drawn += [legend.get_window_extent() for legend in figure.legends]
    assert min(min(box.x0, box.y0) for box in drawn) >= 0
    assert max(box.x1 for box in drawn) <= figure.bbox.width
    assert max(box.y1 for box in drawn) <= figure.bbox.height
    texts = [*figure.texts, *(title for axes in figure.get_axes() for title in (axes._left_title, axes.xaxis.label) if title.get_text())]
    boxes = [text.get_window_extent() for text in texts] + [legend.get_window_extent() for legend in figure.legends]
    for position, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[position + 1 :])


@pytest.mark.parametrize("name", [next(iter(DRAWN)), "lens of an image, 3 layers", "map of one layer", "dependence, 2 systems"])
def test_the_same_figures_give_the_same_files(name, tmp_path):
    for copy in ("a", "b"):
        write_figure(DRAWN[name](), tmp_path / f"{copy}.png", tmp_path / f"{copy}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def nulls(value):
    """The same with every number with an interval unknown."""
    if isinstance(value, dict):
        return (
            {"value": None, "low": None, "high": None}
            if set(value) == {"value", "low", "high"}
            else {key: nulls(part) for key, part in value.items()}
        )
    return [nulls(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("draw", "make"),
    [
        (draw_logit_lens, lens_summary),
        (draw_attention, attention_summary),
        (draw_grounding, grounding_summary),
        (draw_partial_dependence, grounding_summary),
        (draw_swaps, grounding_summary),
        (draw_gap, gap_summary),
    ],
)
def test_figures_without_a_known_number_still_draw(draw, make):
    figure = draw({"one-stage": nulls(make())})
    figure.canvas.draw()
    assert figure.get_axes()


def panel(figure, title):
    return next(axes for axes in figure.get_axes() if axes.get_title(loc="left").startswith(title))


def test_the_lens_draws_what_the_summary_says():
    summary = lens_summary(3)
    figure = draw_logit_lens({"one-stage": summary, "two-stage": lens_summary(3, 0.2)})
    agrees = panel(figure, "the top level is already the final one")
    assert list(agrees.lines[0].get_ydata()) == [point["value"] for point in summary["by_layer"]["agrees"]]
    assert agrees.lines[1].get_xdata()[0] == summary["commit_depth"]["value"]
    levels = panel(figure, "one-stage: mean probability of each level")
    assert [line.get_label() for line in levels.lines] == list(LEVELS)
    assert list(levels.lines[3].get_ydata()) == [point["value"] for point in summary["by_layer"]["p_good"]]
    lightness = [sum(np.array(line.get_color()[:3]) * (0.3, 0.59, 0.11)) for line in levels.lines]
    assert lightness == sorted(lightness)  # so that grey print keeps the order


def test_the_lens_of_an_image_shows_tokens_layers_and_levels():
    frame = lens_frame(3)
    frame.loc[0, "token_1"] = " $\\alpha$"
    axes = draw_lens_of_image({"one-stage": frame.sample(frac=1, random_state=1)}).get_axes()[0]
    texts = [text.get_text() for text in axes.texts]
    assert "␣$\\alpha$" in texts
    assert [label.get_text() for label in axes.get_yticklabels()] == ["1", "2", "3"]
    bold = {text.get_text() for text in axes.texts if text.get_fontweight() == "bold"}
    assert {"good", "␣fair", "␣excellent", "␣poor"} <= bold
    assert axes.yaxis_inverted()  # the first layer stands on top


def test_attention_has_a_panel_a_system_and_breadth():
    figure = draw_attention({"one-stage": attention_summary(3), "two-stage": attention_summary(3, 0.0)})
    two = panel(figure, "two-stage")
    assert [line.get_label() for line in two.lines] == ["image", "question", "description", "rest of the prompt"]
    assert list(two.lines[0].get_ydata()) == [0, 0, 0]
    assert "image 0" in two.get_title(loc="left").replace("\n", " ")
    assert len(panel(figure, "breadth").lines) == 2


def test_the_map_covers_its_box_in_percent():
    weights = np.zeros((2, 2, 4))
    weights[0, 1, 3] = 0.2
    figure = draw_attention_map(pixels(), weights, [1, 7], (40, 0, 280, 240))
    first, mean = panel(figure, "layer 1").images[1], panel(figure, "mean of 2 layers").images[1]
    assert first.get_extent() == [40, 280, 240, 0]
    assert first.get_array()[1, 3] == pytest.approx(20)
    assert mean.get_array()[1, 3] == pytest.approx(10)
    assert any("%" in axes.get_ylabel() for axes in figure.get_axes())


def test_grounding_orders_by_size_and_draws_only_what_is_known():
    figure = draw_grounding({"one-stage": grounding_summary(0.5)})
    axes = panel(figure, "what the score hangs on")
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["sharpness", "noise", "main defect: underexposure", "non eccentricity patch", "colourfulness"]
    assert axes.lines[0].get_xdata()[:4] == pytest.approx([0.5, 0.3, -0.1, 0.1])
    assert np.isnan(axes.lines[0].get_xdata()[4])
    many = draw_grounding({"one-stage": grounding_summary(0.5, LONG)})
    crowded = panel(many, "what the score hangs on (24 of 30)")
    assert len(set(crowded.lines[0].get_xdata())) == 24  # though their names are cut to the same letters


def test_a_fit_far_below_zero_is_told():
    summary = grounding_summary() | {"r2_cv": estimate(-40.0)}
    assert panel(draw_grounding({"one-stage": summary}), "how much they tell; < -1 cut").get_xlim()[0] == -1


def test_dependence_has_the_words_of_the_description():
    figure = draw_partial_dependence({"one-stage": grounding_summary()})
    assert [label.get_text() for label in panel(figure, "sharpness").get_xticklabels()] == [
        "very blurred",
        "blurred",
        "moderately sharp",
        "sharp",
        "very sharp",
    ]
    assert panel(figure, "main defect").lines[0].get_linestyle() == "None"  # kinds are no scale
    assert draw_partial_dependence({"one-stage": grounding_summary() | {"partial_dependence": {}}}) is None


def test_swaps_without_a_direction_have_no_share():
    share = panel(draw_swaps({"one-stage": grounding_summary()}), "right way")
    assert share.lines[0].get_xdata()[:2] == pytest.approx([85, 55])
    assert np.isnan(share.lines[0].get_xdata()[2])
    assert draw_swaps({"one-stage": grounding_summary() | {"swaps": {}}}) is None


def test_contradictions_are_counted_by_both_levels():
    frame = pd.DataFrame(
        [("good", "good", 0), ("good", "bad", 0), ("bad", "excellent", 0), ("bad", "excellent", 1), (None, "bad", 0), ("fair", None, 0)],
        columns=["level", "implied", "query"],
    )
    counts = level_counts(frame)
    assert counts.sum() == 3
    assert counts[3, 3] == counts[3, 0] == counts[0, 4] == 1
    title = draw_contradiction({"one-stage": frame}).get_axes()[0].get_title(loc="left")
    assert title == "one-stage (3 images)\nbetter than described 33.3 %\nworse than described 33.3 %"
    assert draw_contradiction({"one-stage": frame[:0]}).get_axes()


def test_the_gap_is_written_above_its_bars():
    texts = [text.get_text() for text in draw_gap({"one-stage": gap_summary(0.5)}).get_axes()[0].texts]
    assert texts == ["image minus\nanswer: +0.22 [+0.16, +0.27]\ntext: +0.32 [+0.26, +0.37]"]


def test_names_as_people_read_them():
    assert feature_label("f:non_eccentricity_patch") == "non eccentricity patch"
    assert feature_label("main_defect=2") == feature_label("main_defect=underexposure") == "main defect: underexposure"
    assert strength_word("sharpness", 0) == "very blurred"
    assert strength_word("sharpness", 9) == "9"
    assert strength_word("unheard_of", 2) == "2"


def test_tokens_are_made_visible():
    assert visible(" a\n\t") == "␣a↵⇥"
    assert visible("") == "∅"
    assert visible("\u200b\u0301e\u0301") == "\\u200b\\u0301é"
    assert visible("中") == "中"  # a page has fonts for it
    assert drawable("中") == "\\u4e2d"
    assert fitting("short", 100, 7) == "short"
    assert fitting("W" * 40, 50, 7).endswith("W…")
    assert fitting("W", 0.1, 7) == "…"


def test_intervals_as_text_and_as_numbers():
    assert interval_text({"value": 0.7124, "low": 0.6666, "high": 0.75}) == "0.712 [0.67, 0.75]"
    assert interval_text({"value": 0.1, "low": None, "high": None}, digits=(1, 1), scale=100) == "10.0"
    assert interval_text({"value": 0.5, "low": -0.1, "high": 1}, digits=(1, 1), signed=True) == "+0.5 [-0.1, +1.0]"
    assert interval_text({"value": None, "low": None, "high": None}) == "undefined"
    assert interval_text(None) == "-"
    assert np.isnan(interval_columns([None])).all()
    assert interval_columns([]).shape == (0, 3)
