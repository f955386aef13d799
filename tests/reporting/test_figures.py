import pytest
from PIL import Image

from biqa.reporting.figures import draw_figure, write_figure
from biqa.reporting.result import find_results
from biqa.reporting.tables import study_runs

pytest_plugins = ["fabrication"]


@pytest.fixture
def study(fabricate, tmp_path):
    fabricate(tmp_path, "one", "joint")
    fabricate(tmp_path, "two", "inference", noise=0.1)
    fabricate(tmp_path, "three", "inference", noise=0.1, text="target")
    fabricate(tmp_path, "zero", "zero_shot", noise=1.0)
    return study_runs(find_results(tmp_path), baseline="joint", resamples=30, seed=0)


def axes_titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.get_axes() if axes.get_title()]


def test_a_panel_a_system_with_its_srcc(study):
    titles = axes_titles(draw_figure(study))
    names = ["zero-shot", "one-stage (joint)", "two-stage, trained on generated text", "two-stage, trained on target text"]
    values = [study.measures[name, "synthetic"]["srcc"].value for name in names]
    assert [title.replace("\n", " ") for title in titles] == [f"{name} SRCC {value:.3f}" for name, value in zip(names, values, strict=True)]


def test_points_are_the_test_images_and_bars_the_intervals(study):
    figure = draw_figure(study)
    panel = figure.get_axes()[0]
    assert len(panel.collections[0].get_offsets()) == 60  # pyright: ignore[reportArgumentType]
    instability = figure.get_axes()[-1]
    values = [study.measures[system.name, "synthetic"]["instability_sampled"].value for system in study.systems]
    assert list(instability.lines[0].get_xdata()) == pytest.approx(values)  # pyright: ignore[reportArgumentType]
    labels = [text.get_text() for text in figure.texts]
    assert any(label.startswith("instability (%), N = 4, T = 1") for label in labels)
    assert any("synthetic (stand-in)" in label for label in labels)


def test_nothing_leaves_the_figure(study):
    figure = draw_figure(study)
    figure.canvas.draw()
    width, height = figure.bbox.width, figure.bbox.height
    drawn = [text.get_window_extent() for text in figure.texts] + [axes.get_tightbbox() for axes in figure.get_axes()]
    for box in drawn:
        assert box is not None
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_no_title_or_label_covers_another(study):
    figure = draw_figure(study)
    figure.canvas.draw()
    names = figure.get_axes()[-1].get_yticklabels()
    boxes = [text.get_window_extent() for text in (*figure.texts, *names, *(axes.title for axes in figure.get_axes() if axes.get_title()))]
    boxes += [legend.get_window_extent() for legend in figure.legends]
    for position, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[position + 1 :])


def test_the_same_figures_give_the_same_files(study, tmp_path):
    for name in ("a", "b"):
        write_figure(draw_figure(study), tmp_path / f"{name}.png", tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000
    assert not list(tmp_path.glob("*.tmp"))


def test_a_run_without_answers_or_sampled_queries_still_draws(fabricate, tmp_path):
    folder = fabricate(tmp_path, "one", "joint", repeats=0)
    (folder / "answers" / "synthetic.parquet").unlink()
    study = study_runs(find_results(tmp_path), baseline="joint", resamples=30, seed=0)
    assert len(axes_titles(draw_figure(study))) == 1


def test_several_data_sets_share_a_panel(fabricate, tmp_path):
    fabricate(tmp_path, "a", "joint", dataset="koniq", stand_in=False)
    fabricate(tmp_path, "b", "joint")
    figure = draw_figure(study_runs(find_results(tmp_path), baseline="joint", resamples=30, seed=0))
    assert axes_titles(figure)[0].startswith("one-stage (joint)\nmean SRCC")
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["koniq", "synthetic (stand-in)"]
    assert any("koniq, bars: 95 % intervals" in text.get_text() for text in figure.texts)  # no mean with a stand-in
