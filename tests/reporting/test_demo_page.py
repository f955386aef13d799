"""What the page of `biqa demo` shows: all of it in words too, and nothing of it can do anything."""

import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
from made_up_insides import lens_frame

from biqa.evaluation.predictions import Prediction
from biqa.predict import options_and_pictures
from biqa.reporting import demo_page
from biqa.reporting.page import PageFigure

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> ${alert(2)} {{ 7*7 }} "\' & \udcff'
LIKELY = {"bad": 0.0, "poor": 0.1, "fair": 0.2, "good": 0.5, "excellent": 0.2}
SAID = Prediction("a.jpg", "Sharp.", "good", 0.7, LIKELY, ("good", "fair", "good"), 100 / 3, 0.05)
ONCE = Prediction("a.jpg", "", "good", 0.7, LIKELY)
PROBE = Prediction("a.jpg", None, "fair", 0.5, None)
LENS = PageFigure("What each layer would answer", 'a "lens"', "data:image/png;base64,AAAA", 300)


class Read(HTMLParser):
    """Elements with their attributes, and all text."""

    def __init__(self, piece: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(piece)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_all_that_is_drawn_stands_there_in_words():
    read = Read(demo_page.answer(SAID, "photo.jpg", "data:image/jpeg;base64,AAAA", LENS))
    assert "level good score 0.700 instability 33 % of 3 answers spread of the score 0.050 Sharp." in read.text
    assert "bad 0.0 % poor 10.0 % fair 20.0 % good 50.0 % excellent 20.0 %" in read.text
    assert "Asked 3 times again Dashed: not the commonest level. good fair good" in read.text
    assert [of["class"] if of else None for of in read.of("li")] == [None, "other", None]
    assert [bar["style"] for bar in read.of("span")] == ["width:0.0%", "width:10.0%", "width:20.0%", "width:50.0%", "width:20.0%"]
    assert [image["alt"] for image in read.of("img")] == ["The picture photo.jpg", 'a "lens"']
    assert [box["aria-label"] for box in read.of("div") if box.get("tabindex") == "0"] == ["What each layer would answer"]


def test_what_a_run_does_not_say_is_left_out():
    once, probe = (Read(demo_page.answer(said, "a.jpg", "data:,")) for said in (ONCE, PROBE))
    assert "(no word)" in once.text
    assert "instability" not in once.text
    assert not once.of("figure")
    assert "excellent 20.0 %" in once.text
    assert probe.text == "a.jpg level fair score 0.500"
    always = Read(demo_page.answer(replace(SAID, levels=("good", "good"), instability=0.0), "a.jpg", "data:,"))
    assert "Asked 2 times again good good" in always.text
    assert not probe.of("blockquote")


@pytest.mark.parametrize(
    "piece",
    [
        demo_page.answer(Prediction(EVIL, EVIL, "good", 0.5, LIKELY), EVIL, "data:,", PageFigure(EVIL, EVIL, "data:,", 3)),
        demo_page.refusal(EVIL),
        demo_page.head(EVIL, {EVIL: EVIL}, [EVIL]),
    ],
    ids=["answer", "refusal", "head"],
)
def test_texts_of_models_and_names_of_files_do_nothing(piece):
    read = Read(piece)
    assert not read.of("script")
    assert not [attributes for _, attributes in read.elements if "onerror" in attributes]
    assert {of.get("src") for of in read.of("img")} <= {"data:,"}
    assert '<script>alert("x")</script>' in read.text


@pytest.mark.parametrize("layers", [1, 5])
def test_the_lens_is_told_in_words(layers):
    rows = lens_frame(layers).to_dict("records")
    figure = demo_page.lens_figure(rows, "one", "a.jpg")
    levels = [row["level"] for row in rows]
    assert f"The likeliest level by layer: {', '.join(levels)}." in figure.alt
    steady = re.search(r"From layer (\d+) on it is (\w+)\.", figure.alt)
    assert steady is not None
    first = int(steady[1])
    assert steady[2] == levels[-1]
    assert set(levels[first - 1 :]) == {levels[-1]}
    assert first == 1 or levels[first - 2] != levels[-1]
    assert figure.source.startswith("data:image/")


def test_levels_that_change_until_the_end():
    rows = pd.concat([lens_frame(1)] * 3).assign(layer=[1, 2, 3], level=["good", "bad", "good"]).to_dict("records")
    assert demo_page.lens_figure(rows, "one", "a.jpg").alt.endswith("by layer: good, bad, good. From layer 3 on it is good.")


@pytest.mark.parametrize("name", ["photo.jpg", "my photo.jpg", "-x.jpg", "a=b.jpg", "it's; rm -rf $HOME.jpg", "run=other.jpg"])
def test_the_command_means_that_very_file(name):
    words = shlex.split(demo_page.command(["run=a b", "repeats=10"], name))
    assert words[:2] == ["biqa", "predict"]
    assert options_and_pictures(words[2:]) == (["run=a b", "repeats=10"], [name])
