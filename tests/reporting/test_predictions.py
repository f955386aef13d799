"""What is said of pictures, as lines, rows and a page."""

import csv
import io
import json

import pytest
from browser import PROGRAM, Browser
from PIL import Image
from rich.console import Console

from biqa.errors import IncompatibleChoice
from biqa.evaluation.predictions import Prediction, Unreadable
from biqa.reporting import predictions
from biqa.reporting.predictions import COLUMNS, Csv, JsonLines, OnTheTerminal, Whole, as_record, printable, temporary_name, write_predictions_page

LIKELY = {"bad": 0.1, "poor": 0.1, "fair": 0.2, "good": 0.5, "excellent": 0.1}
ONCE = Prediction("a.jpg", 'Sharp,\n"bright" ünd 明るい.', "good", 0.6, LIKELY)
AGAIN = Prediction("b.jpg", "", "bad", 0.0, LIKELY, ("bad", "bad", "poor"), 33.3, 0.05)
PROBE = Prediction("c.jpg", None, "fair", 0.5, None)
FAILED = Unreadable("d.jpg", "cannot be decoded (0 bytes)")
EVIL = "<script>alert(1)</script>.png"
FACTS = {"name": "tiny-joint-synthetic-s0", "model": "tiny", "stage": "joint"}


def test_what_a_result_has_not_is_left_out():
    assert list(as_record(ONCE)) == ["image", "description", "level", "score", "probabilities"]
    assert as_record(AGAIN) == {
        "image": "b.jpg", "description": "", "level": "bad", "score": 0.0, "probabilities": LIKELY, "levels": ["bad", "bad", "poor"],
        "instability": 33.3, "score_std": 0.05,
    }  # fmt: skip
    assert as_record(PROBE) == {"image": "c.jpg", "level": "fair", "score": 0.5}
    assert as_record(FAILED) == {"image": "d.jpg", "error": "cannot be decoded (0 bytes)"}


def test_each_picture_is_a_line_of_json_at_once():
    stream = io.StringIO()
    lines = JsonLines(stream)
    for number, result in enumerate((ONCE, AGAIN, PROBE, FAILED), 1):
        lines.add(result)
        assert stream.getvalue().count("\n") == number
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [as_record(one) for one in (ONCE, AGAIN, PROBE, FAILED)]
    assert "明るい" in stream.getvalue()


def test_a_name_of_odd_bytes_comes_back(tmp_path):
    name = b"\xff\xfe.jpg".decode("utf-8", "surrogateescape")
    for encoding in ("utf-8", "ascii"):
        with (tmp_path / "a.jsonl").open("w", encoding=encoding) as stream:
            JsonLines(stream).add(Prediction(name, "ü", "good", 0.6, LIKELY))
        record = json.loads((tmp_path / "a.jsonl").read_text(encoding=encoding))
        assert (record["image"], record["description"]) == (name, "ü")
    with Whole(tmp_path / "a.csv", overwrite=False) as file:
        file.add(Unreadable(name, "gone"))
        assert "\\udcff\\udcfe.jpg" in (tmp_path / "a.csv.tmp").read_text()  # at once


def test_a_csv_has_a_column_for_everything():
    stream = io.StringIO()
    rows = Csv(stream)
    for result in (ONCE, AGAIN, PROBE, FAILED):
        rows.add(result)
    read = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert tuple(read[0]) == COLUMNS
    assert [row["image"] for row in read] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert (float(read[0]["p_good"]), read[0]["description"], read[0]["error"], read[0]["levels"]) == (0.5, ONCE.description, "", "")
    assert (read[1]["instability"], read[1]["levels"], read[1]["score"]) == ("33.3", "bad bad poor", "0.0")
    assert (read[2]["p_good"], read[2]["description"]) == ("", "")
    assert {name: value for name, value in read[3].items() if value} == {"image": "d.jpg", "error": FAILED.reason}


@pytest.mark.parametrize("width", [60, 120])
def test_the_terminal_shows_rows_that_fit_and_no_commands(width):
    stream = io.StringIO()
    rows = OnTheTerminal(Console(file=stream, width=width, force_terminal=False), ["b.jpg", "evil\x1b[31m.jpg"], repeated=True)
    rows.add(AGAIN)
    rows.add(FAILED)
    rows.add(Prediction("evil\x1b[31m.jpg", "[red]no markup[/red] \x1b[2J " + "word " * 40, "good", 0.6, LIKELY, ("good", "good"), 0.0, 0.0))
    text = stream.getvalue()
    assert text.split("\n")[0].split() == ["score", "level", "instability", "picture", "description"]
    assert text.split("\n")[1].split()[:5] == ["0.000", "bad", "33", "%", "b.jpg"]
    assert "d.jpg" not in text
    assert "\x1b" not in text
    assert "[red]no" in text
    assert "\\u001b" in text
    assert max(map(len, text.splitlines())) <= width
    assert printable("a\nb\tc\udcff") == "a b\\u0009c\\udcff"


def test_a_file_is_there_when_all_of_it_is(tmp_path, capsys):
    path = tmp_path / "new" / "scores.jsonl"
    with Whole(path, overwrite=False) as file:
        file.add(ONCE)
        assert not path.exists()
        assert len((tmp_path / "new" / "scores.jsonl.tmp").read_text().splitlines()) == 1
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.jsonl"]
    with pytest.raises(KeyboardInterrupt), Whole(path, overwrite=True):
        raise KeyboardInterrupt
    assert [entry.name for entry in path.parent.iterdir()] == ["scores.jsonl"]
    interrupted = Whole(path, overwrite=True)
    interrupted.add(AGAIN)
    with pytest.raises(KeyboardInterrupt), interrupted:
        raise KeyboardInterrupt
    assert json.loads(path.read_text())["image"] == "a.jpg"
    assert json.loads((path.parent / "scores.jsonl.tmp").read_text())["image"] == "b.jpg"
    assert capsys.readouterr().err == f"What was there until then, 1 pictures, is in {path}.tmp.\n"


def test_what_is_in_the_way_is_told(tmp_path):
    (tmp_path / "there.csv").touch()
    (tmp_path / "folder.csv").mkdir()
    for name, said in (("there.csv", "is there already. Choose another name, or overwrite=true."), ("folder.csv", "is a folder. Name a file in it.")):
        with pytest.raises(IncompatibleChoice, match=f"^out={tmp_path / name} {said}$"):
            temporary_name(tmp_path / name, overwrite=False, option="out")
    for place in (tmp_path / "there.csv" / "a.csv", tmp_path / f"{'long' * 80}.csv"):
        with pytest.raises(IncompatibleChoice, match=r"cannot be written \(.*\)\. Choose a place that you may write to"):
            temporary_name(place, overwrite=True, option="out")
    temporary_name(tmp_path / "there.csv", overwrite=True, option="out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder.csv", "there.csv"]


@pytest.fixture
def results(tmp_path, picture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.jpg", "b.jpg", EVIL.replace("/", "_"))):
        picture(seed).save(name)
    evil = Prediction(EVIL.replace("/", "_"), f"{EVIL} & more", "excellent", 0.9, LIKELY, ("excellent", "good"), 50.0, 0.01)
    return [ONCE, AGAIN, PROBE, FAILED, evil, Unreadable(f"{EVIL}.txt", EVIL)]


def test_the_page_goes_from_best_to_worst(results, tmp_path):
    write_predictions_page(tmp_path / "page.html", f"What {EVIL} says", FACTS, results, ["STAND-IN: labels"])
    text = (tmp_path / "page.html").read_text()
    order = [text.index(f"{place}. {name}") for place, name in enumerate(("&lt;script&gt;", "a.jpg", "c.jpg", "b.jpg"), 1)]
    assert order == sorted(order)
    assert "<script" not in text
    assert "STAND-IN: labels" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    assert text.count('class="levels"') == 3  # the regression has no distribution
    assert text.count("data:image/jpeg;base64,") == 3
    assert text.count("The image file is no longer there.") == 1
    assert "50 % of 2 answers" in text
    assert "Instability is the share" in text
    assert text.index("What could not be read") < text.index("cannot be decoded (0 bytes)")
    assert not list(tmp_path.glob("*.tmp"))


def test_of_very_many_the_ends_are_shown(results, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "SHOWN", 4)
    many = [Prediction(f"{number}.jpg", "", "good", number / 10, LIKELY) for number in range(10)]
    write_predictions_page(tmp_path / "page.html", "What it says", FACTS, many)
    text = (tmp_path / "page.html").read_text()
    assert [name for name in range(10) if f". {name}.jpg</h4>" in text] == [0, 1, 8, 9]
    assert "1. 9.jpg" in text
    assert "10. 0.jpg" in text
    assert "Shown are the best and the worst 2." in text
    assert "What could not be read" not in text
    assert "Instability" not in text


@pytest.mark.skipif(PROGRAM is None, reason="needs chromium or google-chrome on PATH")
def test_a_browser_has_nothing_to_complain_of(results, tmp_path):
    write_predictions_page(tmp_path / "page.html", "What it says", FACTS, results, ["STAND-IN: labels"])
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(tmp_path / "page.html", 375)
        assert browser.complaints() == []
        assert [url for url in browser.requests() if not url.startswith(("data:", "file:"))] == []
        assert browser.value("document.documentElement.scrollWidth <= innerWidth")
        assert browser.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert isinstance(browser.picture(), Image.Image)
    finally:
        browser.close()
