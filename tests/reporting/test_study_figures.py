"""Figures beside the tables show the figures of the tables, and nothing covers anything."""

import itertools
import json

import numpy as np
import pytest

from biqa.evaluation.answers import read_answers
from biqa.reporting.result import find_results
from biqa.reporting.study_figures import draw_ablation, draw_asking, draw_flips, way_of_asking
from biqa.reporting.tables import study_runs

pytest_plugins = ["fabrication"]


def study_of(folder):
    return study_runs(find_results(folder), baseline="joint", resamples=30, seed=0)


@pytest.fixture
def asked(fabricate, tmp_path):
    for stage, repeats in itertools.product(("joint", "inference"), (3, 5, 9)):
        config = {"sampling": {"repeats": repeats, "temperature": 1.0}}
        fabricate(tmp_path, f"{stage}-{repeats}", stage, repeats=repeats, noise=0.3, config=config)
    return study_of(tmp_path)


def test_an_ablation_has_a_row_a_system_and_a_panel_a_metric(asked):
    figure = draw_ablation(asked)
    panels = figure.get_axes()
    assert [panel.get_title(loc="left") for panel in panels] == ["SRCC", "instability %, sampled", "instability %, arg-max"]
    for panel, metric in zip(panels, ("srcc", "instability_sampled", "instability_argmax"), strict=True):
        wanted = [asked.measures[system.name, "synthetic"][metric].value for system in asked.systems]
        assert list(panel.lines[0].get_xdata()) == pytest.approx(wanted)


def test_instability_against_the_number_of_answers(asked):
    assert way_of_asking(asked) == "repeats"
    [panel] = draw_asking(asked, "repeats").get_axes()
    lines = {line.get_label(): line for line in panel.lines}
    assert set(lines) == {f"{stage}, {decision}" for stage in ("one-stage (joint)", "two-stage") for decision in ("sampled", "arg-max")}
    line = lines["two-stage, arg-max"]
    assert list(line.get_xdata()) == [3, 5, 9]
    wanted = [asked.measures[f"two-stage, N={n}", "synthetic"]["instability_argmax"].value for n in (3, 5, 9)]
    assert list(line.get_ydata()) == pytest.approx(wanted)


def test_two_ways_of_asking_at_once_are_no_line(fabricate, tmp_path):
    for repeats, temperature in ((3, 1.0), (5, 0.5)):
        folder = fabricate(tmp_path, f"a{repeats}", "joint", repeats=repeats, config={"sampling": {"repeats": repeats, "temperature": temperature}})
        result = json.loads((folder / "result.json").read_text())
        result["sampling"]["temperature"] = temperature
        (folder / "result.json").write_text(json.dumps(result))
    assert way_of_asking(study_of(tmp_path)) is None


def test_systems_asked_in_one_way_need_no_such_figure(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint")
    assert way_of_asking(study_of(tmp_path)) is None


def test_flips_are_the_words_of_each_image(fabricate, tmp_path):
    folder = fabricate(tmp_path, "a", "joint", images=20, repeats=6, noise=0.4)
    figure = draw_flips(study_of(tmp_path))
    [panel] = figure.get_axes()
    answers = read_answers(folder / "answers" / "synthetic.parquet").query("query > 0")
    images = answers.groupby("image")
    ordered = images["q"].first().sort_values(kind="stable").index
    good = np.array([(images.get_group(image)["level"] == "good").mean() for image in ordered])
    assert np.asarray(panel.images[0].get_array())[3] == pytest.approx(good)
    share = 100 * np.mean([images.get_group(image)["level"].nunique() > 1 for image in ordered])
    assert f"{share:.0f} % flip in 6 answers" in panel.get_title(loc="left").replace("\n", " ")


def test_no_answers_no_flips(fabricate, tmp_path):
    folder = fabricate(tmp_path, "a", "joint")
    (folder / "answers" / "synthetic.parquet").unlink()
    assert draw_flips(study_of(tmp_path)) is None


@pytest.mark.parametrize("draw", [draw_ablation, lambda study: draw_asking(study, "repeats"), draw_flips])
def test_nothing_leaves_the_figure(draw, asked):
    figure = draw(asked)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.texts] + [axes.get_tightbbox() for axes in figure.get_axes()]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height
