import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from browser import PROGRAM, Browser
from made_up_insides import (
    as_file,
    attention_summary,
    contradiction_frame,
    contradiction_summary,
    estimate,
    gap_frame,
    gap_summary,
    grounding_summary,
    lens_frame,
    lens_summary,
)
from PIL import Image

from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.contradiction import worst
from biqa.reporting.figures import write_figure
from biqa.reporting.inside_grounding import draw_grounding
from biqa.reporting.inside_page import contradiction_cards, example_of, gap_cards, lens_cells, run_table, section_of
from biqa.reporting.inside_tables import Difference, tables_of
from biqa.reporting.page import Page, page_figure, thumbnail, write_page

EVIL = "<script>alert(1)</script>"
SUMMARIES = {
    "grounding": (grounding_summary(), grounding_summary(0.9)),
    "logit_lens": (lens_summary(32), lens_summary(32, 0.1)),
    "attention": (attention_summary(32), attention_summary(32, 0.0, 60.0)),
    "contradiction": (contradiction_summary(), contradiction_summary(0.05)),
    "gap": (gap_summary(), gap_summary(0.72)),
}


def side_by_side(analysis):
    return as_file(dict(zip(("one-stage", "two-stage"), SUMMARIES[analysis], strict=True)))


def pictures(dataset, image):
    if image == "gone.png":
        return None
    gradient = np.linspace(0, 255, 640, dtype=np.uint8)[None, :, None] * np.ones((480, 1, 3), dtype=np.uint8)
    return Image.fromarray(gradient)


def full_page(folder, layers=32):
    """Everything that a page can hold, with hostile names and texts."""
    write_figure(draw_grounding(side_by_side("grounding")), folder / "g.png", folder / "g.svg")
    figures = [page_figure(folder / "g.png", folder / "g.svg", "Coefficients of each feature", "dots with intervals")] * 2
    sections = [section_of(analysis, tables_of(analysis, side_by_side(analysis)), figures) for analysis in SUMMARIES]
    rows = worst(contradiction_frame(), 10).replace({"image": {"000.png": EVIL}})
    rows.loc[0, ["image", "description"]] = [EVIL, f"{EVIL} There is heavy noise."]
    rows.loc[1, "image"] = "gone.png"
    cards = contradiction_cards("one-stage", rows, pictures), gap_cards("one-stage", gap_frame().head(10), pictures)
    sections[3] = replace(sections[3], cards=(cards[0],))
    sections[4] = replace(sections[4], cards=(cards[1],))
    answer = {"q": 0.62, "level": "good", "score": 0.71, "description": "Details are sharp. " * 8} | dict(
        zip(PROBABILITIES, (0.02, 0.08, 0.3, 0.5, 0.1), strict=True)
    )
    systems = ("one-stage", "two-stage")
    lens = {system: lens_frame(layers, seed) for seed, system in enumerate(systems)}
    examples = [
        example_of("synthetic", image, pictures, dict.fromkeys(systems, answer), lens=lens)
        for image in (f"{EVIL}.png", "averylongname" * 12 + ".png")
    ]
    run = {"name": "tiny-joint-synthetic-s0", "model": "tiny", "stage": "joint", "data": "synthetic"}
    facts = run_table({system: {"run": run, "seed": 0, "versions": {"biqa": "1.0", "torch": "2.13.0"}} for system in systems})
    return Page(
        "Inside tiny-joint-synthetic-s0", facts, ("STAND-IN: the labels of synthetic are not human opinions.",), tuple(sections), tuple(examples)
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    write_page(folder / "report.html", full_page(folder))
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if PROGRAM is None:
        pytest.skip("needs chromium or google-chrome on PATH")
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


class Outline(HTMLParser):
    """Tags with their attributes, and the level of each heading, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_what_others_wrote_is_text_and_never_markup(page):
    text = page.read_text()
    outline = Outline(text)
    assert "script" not in {tag for tag, _ in outline.tags}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not outline.open
    assert not [name for _, attributes in outline.tags for name in attributes if name.startswith("on")]


def test_it_is_one_file(page):
    outline = Outline(page.read_text())
    assert {tag for tag, _ in outline.tags}.isdisjoint({"link", "iframe", "object", "base"})
    for _, attributes in outline.tags:
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith("#")
    assert not re.search(r"@import|url\(", page.read_text())
    policy = next(attributes["content"] for _, attributes in outline.tags if "http-equiv" in attributes)
    assert "default-src 'none'" in policy
    assert not list(page.parent.glob("*.tmp"))


def test_headings_pictures_and_ids(page):
    outline = Outline(page.read_text())
    levels = [int(tag[1]) for tag, _ in outline.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(attributes["alt"] for tag, attributes in outline.tags if tag == "img")
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"][1:] for tag, attributes in outline.tags if tag == "a"}
    assert links == {*SUMMARIES, "examples"}
    assert "The image file is no longer there." in page.read_text()


def test_a_thumbnail_is_small():
    source = thumbnail(Image.new("RGBA", (1280, 640)))
    kind, content = source.split(",")
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert (kind, image.size, image.mode) == ("data:image/jpeg;base64", (320, 160), "RGB")


def test_a_figure_is_the_smaller_file_at_its_own_width(tmp_path):
    write_figure(draw_grounding(side_by_side("grounding")), tmp_path / "g.png", tmp_path / "g.svg")
    drawn = page_figure(tmp_path / "g.png", tmp_path / "g.svg", "caption", "alt")
    inches = draw_grounding(side_by_side("grounding")).get_size_inches()[0]
    assert drawn.width == pytest.approx(96 * inches, abs=1)
    assert drawn.source.startswith("data:image/svg+xml;base64,")
    (tmp_path / "g.svg").write_bytes(b" " * 10**7)
    assert page_figure(tmp_path / "g.png", tmp_path / "g.svg", "caption", "alt").source.startswith("data:image/png;base64,")


@pytest.mark.parametrize("analysis", SUMMARIES)
def test_every_table_has_a_cell_a_column_and_no_raw_nan(analysis):
    systems = side_by_side(analysis)
    for shown in (systems, {"zero-shot": systems["one-stage"]}):
        for table in tables_of(analysis, shown, "synthetic"):
            assert table.rows
            assert {len(row) for row in table.rows} == {len(table.headings)}
            assert table.caption.endswith("(synthetic)")
            text = str(table)
            assert not re.search(r"\b(nan|None|null)\b", text)


def test_figures_stand_side_by_side_with_intervals():
    [table] = tables_of("contradiction", side_by_side("contradiction"))
    cells = {row[0]: row[1:] for row in table.rows}
    assert table.headings == ("", "one-stage", "two-stage")
    assert cells["contradictions (% of images)"] == ("10.0 [6.0, 13.2]", "5.0 [1.0, 8.2]")
    assert cells["contradictions among sampled answers (%)"] == ("-", "-")
    [_, features, swaps] = tables_of("grounding", side_by_side("grounding"))
    rows = {row[0]: row[1:] for row in features.rows}
    assert rows["sharpness"][:3] == ("40.0", "+0.500 [+0.42, +0.56]", "0.010")
    assert rows["colourfulness"][1] == "undefined"
    assert {row[0]: row[3] for row in swaps.rows}["main defect"] == "-"


def test_reasons_stand_below_the_tables():
    summary = grounding_summary() | {"logit": {"why_not": "every answer has the same level"}, "right_way": None, "swaps": {}}
    fit, features = tables_of("grounding", {"one-stage": as_file(summary)})
    assert "one-stage, features left out: moire (named in no description)." in fit.notes
    assert "one-stage: no ordered logit, every answer has the same level" in features.notes
    assert dict(row[:2] for row in fit.rows)["changed texts that move the score the right way (%)"] == "-"


def test_cards_say_how_far_and_which_way():
    rows = worst(contradiction_frame(), 3)
    cards = contradiction_cards("one-stage", rows, pictures).cards
    assert [card.heading for card in cards] == list(rows["image"])
    assert {dict(card.facts)["difference"] for card in cards} <= {"2 steps better", "2 steps worse", "3 steps better"}
    first = gap_cards("one-stage", gap_frame().head(1), pictures).cards[0]
    assert dict(first.facts)["score from the image"] == f"{gap_frame()['score_image'][0]:.3f}"


def test_the_lens_strip_starts_with_layer_one():
    cells = lens_cells(lens_frame(3).sample(frac=1, random_state=0))
    assert [cell.layer for cell in cells] == [1, 2, 3]
    assert cells[-1].token == "good"


def test_a_difference_has_a_column_of_its_own():
    between = Difference("one-stage minus two-stage", {"mean/image": {"value": 0.25, "low": 0.2, "high": 0.3}})
    [table] = tables_of("attention", side_by_side("attention"), difference=between)
    assert table.headings[-1] == "one-stage minus two-stage"
    last = {row[0]: row[-1] for row in table.rows}
    assert last["attention on image (%)"] == "+25.0 [+20.0, +30.0]"
    assert last["attention on rest (%)"] == last["images"] == "-"
    assert any("paired" in note for note in table.notes)
    [table] = tables_of("attention", side_by_side("attention"), difference=Difference("a minus b", {}))
    assert len(table.headings) == 3


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_it_opens_in_a_browser(page, browser, width, colours):
    begun = len(browser.events)
    browser.open(page, width, colours=colours)
    assert browser.value("document.title") == "Inside tiny-joint-synthetic-s0"
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    wide = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth)"
    assert browser.value(f"{wide}.every(box => box.tabIndex === 0)")
    if width == 400:
        assert browser.value(f"{wide}.length") > 5
        assert browser.value("[...document.querySelectorAll('.paper')].every(box => box.scrollWidth > box.clientWidth)")
    assert browser.complaints() == []
    asked = [event["params"]["request"]["url"] for event in browser.events[begun:] if event.get("method") == "Network.requestWillBeSent"]
    assert {address.split(":")[0] for address in asked} <= {"file", "data"}


def test_light_and_dark(page, browser):
    seen = {}
    for colours in ("light", "dark"):
        browser.open(page, 1000, colours=colours)
        corner = browser.picture().convert("L").getpixel((2, 2))
        seen[colours] = corner, browser.value("getComputedStyle(document.querySelector('.paper')).backgroundColor")
    assert seen["light"][0] > 240
    assert seen["dark"][0] < 50
    assert seen["light"][1] == seen["dark"][1] == "rgb(255, 255, 255)"


def test_the_policy_stops_a_script(tmp_path, browser):
    """The second lock, should an escape ever be forgotten."""
    content = full_page(tmp_path)
    write_page(tmp_path / "report.html", content)
    broken = (tmp_path / "report.html").read_text().replace("</body>", "<script>document.title = 'run'</script></body>")
    (tmp_path / "broken.html").write_text(broken)
    seen = len(browser.events)
    browser.open(tmp_path / "broken.html", 800)
    assert browser.value("document.title") == content.title
    assert browser.complaints()
    del browser.events[seen:]


def test_an_unknown_interval_is_left_out():
    summary = contradiction_summary() | {"greedy": {"value": 0.1, "low": None, "high": None}, "better": estimate(float("nan"))}
    [table] = tables_of("contradiction", {"one-stage": summary})
    cells = {row[0]: row[1] for row in table.rows}
    assert cells["contradictions (% of images)"] == "10.0"
    assert cells["better than described (%)"] == "undefined"
