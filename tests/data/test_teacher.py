"""Targets that a teacher writes: each image is asked about once, whatever happens in between."""

import hashlib
import io
import subprocess
import sys
import threading
import time
from contextlib import redirect_stderr
from pathlib import Path

import pytest
from chat_server import Reply, serving
from PIL import Image

from biqa.data.record import Record, Reduction
from biqa.data.survey import Look
from biqa.data.teacher import TeacherTargets
from biqa.errors import AnswerLeak, BadRecord, TeacherUnavailable

QUESTION = "What is seen?"
ASK = """
import sys
from pathlib import Path
from biqa.data.endpoint import EndpointWriter
from biqa.data.record import Record
from biqa.data.teacher import TeacherTargets
url, folder, cache = sys.argv[1:]
writer = EndpointWriter(url=url, model="m", key_env=None, concurrency=4, retries=0, timeout=30)
records = [Record(path.name, path, 0.5, "train", path.name, 3.0) for path in sorted(Path(folder).iterdir())]
targets = TeacherTargets(writer=writer, question="What is seen?", cache=cache)
print("begins", flush=True)
targets.fit(records)
print(len({targets.describe(record).text for record in records}), flush=True)
"""


class Notes:
    """A writer that notes what it is asked, and says what it is told to (file name -> text)."""

    def __init__(self, name="writer", fails_at=None, **texts):
        self.name = name
        self.fails_at = fails_at
        self.texts = texts
        self.asked = []
        self.reductions = set()

    def write(self, images, reduction, question, keep):
        self.reductions.add(reduction)
        for path in images:
            if path.stem == self.fails_at:
                raise TeacherUnavailable("gone")
            self.asked.append(path.name)
            keep(path, self.texts.get(path.stem, f"Edges of {path.stem} are crisp."))


@pytest.fixture
def folder(tmp_path):
    """Pictures a.png to d.png of different grey."""
    place = tmp_path / "images"
    place.mkdir()
    for shade, name in enumerate("abcd"):
        Image.new("L", (40, 30), 10 * shade).save(place / f"{name}.png")
    return place


def record(path, **options):
    return Record(image=path.name, path=path, q=0.5, split="train", group=path.name, score=3.0, **options)


def records(folder, names="abcd", **options):
    return [record(folder / f"{name}.png", **options) for name in names]


@pytest.fixture
def targets(tmp_path):
    """Targets of a writer, with the cache of this test."""

    def build(writer, question=QUESTION, **options):
        return TeacherTargets(writer=writer, question=question, cache=tmp_path / "cache", **options)

    return build


# once for each image


def test_every_usable_image_is_asked_about_once(folder, targets):
    writer = Notes()
    looks = {folder / f"{name}.png": Look(problem="bad" if name == "d" else None) for name in "abcd"}
    for _ in range(2):
        found = targets(writer)
        found.fit(records(folder, "b"), looks)
        found.fit(records(folder, "ab"))
        assert [found.describe(one).text for one in records(folder, "abc")] == [f"Edges of {name} are crisp." for name in "abc"]
        assert (found.report.entries, found.report.problems) == (3, [])
    assert writer.asked == ["b.png", "a.png", "c.png"]


def test_an_image_goes_by_its_content(folder, targets):
    writer = Notes()
    (folder / "twin.png").write_bytes((folder / "a.png").read_bytes())
    targets(writer).fit([*records(folder, "a"), record(folder / "twin.png")])
    assert writer.asked == ["a.png"]
    moved = (folder / "a.png").rename(folder / "moved.png")
    found = targets(writer)
    found.fit([record(moved)])
    assert found.describe(record(moved)).text == "Edges of a are crisp."
    assert writer.asked == ["a.png"]
    Image.new("L", (40, 30), 200).save(moved)
    found = targets(writer)
    found.fit([record(moved)])
    assert found.describe(record(moved)).text == "Edges of moved are crisp."


def test_another_question_or_writer_asks_anew(folder, targets):
    writer, other = Notes(), Notes("other writer")
    for asked in (targets(writer), targets(writer, "What else?"), targets(other), targets(writer)):
        asked.fit(records(folder, "a"))
    assert writer.asked == ["a.png", "a.png"]
    assert other.asked == ["a.png"]


def test_a_reduced_image_is_another_one_if_it_is_reduced(folder, targets):
    writer = Notes()
    wide, small = Reduction(30, None), Reduction(20, None)
    for reduction in (None, wide, small, small):
        found = targets(writer)
        found.fit(records(folder, "a", reduction=reduction))
        assert found.describe(record(folder / "a.png", reduction=reduction)).text
    assert writer.asked == ["a.png", "a.png"]
    assert writer.reductions == {None, small}


def test_what_was_written_before_a_failure_is_kept(folder, targets):
    writer = Notes(fails_at="c")
    with pytest.raises(TeacherUnavailable, match="gone"):
        targets(writer).fit(records(folder))
    writer.fails_at = None
    targets(writer).fit(records(folder))
    assert writer.asked == ["a.png", "b.png", "c.png", "d.png"]


def test_an_image_that_nobody_asked_about_is_asked_about_when_it_is_described(folder, targets):
    writer = Notes()
    found = targets(writer)
    found.fit(records(folder, "a"))
    assert found.describe(record(folder / "b.png")).text == "Edges of b are crisp."
    (folder / "b.png").write_text("no image")
    with pytest.raises(BadRecord, match=r"Image c2\.png: .*c2\.png: there is no such file"):
        found.describe(record(folder / "c2.png"))
    assert writer.asked == ["a.png", "b.png"]


def test_a_cache_that_cannot_be_used_is_told_before_anything_is_asked(folder, targets, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "texts.sqlite").write_text("no database")
    with pytest.raises(TeacherUnavailable, match=r"texts\.sqlite is damaged"):
        targets(Notes())


# from text to target


def test_markdown_verdict_and_leaks_are_left_out_of_targets(folder, targets):
    texts = {
        "a": "**Light**: good.\n- Edges are soft\n- The image shows slight block artefacts.\n\nOverall, the quality is poor.",
        "b": "The lighting is nice. Noise is low. What a great lamp!",
    }
    found = targets(Notes(**texts))
    found.fit(records(folder, "abc"))
    said = found.describe(record(folder / "a.png"))
    assert said.text == "Edges are soft. The image shows slight block artefacts."
    assert said.features == {"jpeg": 2}
    assert found.describe(record(folder / "b.png")).text == "Noise is low."
    assert found.report.problems == [
        f'3 sentences that give the answer away were dropped from 2 of 3 texts. First: {folder / "a.png"}, "Light: good."'
    ]


@pytest.mark.parametrize("text", ["A poor image. The light is bad.", "The quality of the image is good.", "Fair", "Dark. Bad light.", "A dark", ""])
def test_a_text_of_which_nothing_is_left_is_told(folder, targets, text):
    found = targets(Notes(a=text))
    found.fit(records(folder, "ab"))
    message = (
        r"Image a\.png: nothing that describes it is left of the teacher's text: fewer than 3 words, or all of it gives the answer away\. "
        r"So it is with 1 of 2 images: a\.png\. Ask for what is seen \(descriptions\.question=\), choose another teacher, or take these images"
    )
    with pytest.raises(BadRecord, match=message):
        found.describe(record(folder / "a.png"))
    assert found.describe(record(folder / "b.png")).text == "Edges of b are crisp."


def test_a_leak_can_stop(folder, targets):
    found = targets(Notes(a="Edges are soft. The light is good. A lamp glows."), on_leak="stop")
    found.fit(records(folder, "ab"))
    assert found.describe(record(folder / "b.png")).text == "Edges of b are crisp."
    with pytest.raises(AnswerLeak, match=r'Image a\.png \(descriptions\.on_leak=skip_sentence drops such sentences\): the description says "good"'):
        found.describe(record(folder / "a.png"))


# processes of their own


@pytest.fixture
def many(tmp_path):
    """Twenty different pictures, and the content of each."""
    place = tmp_path / "many"
    place.mkdir()
    for shade in range(20):
        Image.new("L", (8, 8), 10 * shade).save(place / f"{shade:02}.png")
    return place, {hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}


def ask(url, folder, cache):
    return subprocess.Popen([sys.executable, "-c", ASK, url, folder, cache], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.005)


def test_after_a_kill_only_the_rest_is_asked_about(many, tmp_path):
    folder, contents = many
    with serving() as server:
        gate = threading.Event()

        def answer(image, time):
            return Reply(f"Edges of {image[:8]} are crisp.", after=bool if len(set(server.images)) <= 8 else lambda: gate.wait(30))

        server.answer = answer
        killed = ask(server.url, folder, tmp_path / "cache")
        until(lambda: len(server.images) == 12)  # eight answered and on disk, as each thread has asked again since; four under way
        killed.kill()
        killed.communicate()
        assert killed.returncode == -9
        under_way = set(server.images[8:])
        gate.set()
        assert ask(server.url, folder, tmp_path / "cache").communicate(timeout=60) == ("begins\n20\n", "")
        assert set(server.images) == contents
        assert {image for image in contents if server.images.count(image) > 1} <= under_way
        assert len(server.images) <= 20 + 4
        asked = len(server.images)
        assert ask(server.url, folder, tmp_path / "cache").communicate(timeout=60) == ("begins\n20\n", "")
        assert len(server.images) == asked


def test_two_runs_at_a_time_do_not_both_pay(many, tmp_path):
    folder, contents = many
    with serving() as server:
        gate = threading.Event()
        server.answer = lambda image, time: Reply(f"Edges of {image[:8]} are crisp.", after=lambda: gate.wait(30))
        first = ask(server.url, folder, tmp_path / "cache")
        until(lambda: len(server.images) == 4)
        second = ask(server.url, folder, tmp_path / "cache")
        said = second.stderr.readline()
        assert said == f"Another run is asking this teacher (its texts go into {tmp_path / 'cache' / 'texts.sqlite'}): waiting for it.\n"
        gate.set()
        assert first.communicate(timeout=60) == ("begins\n20\n", "")
        assert second.communicate(timeout=60) == ("begins\n20\n", "")
        assert sorted(server.images) == sorted(contents)


def test_a_progress_bar_stands_on_a_terminal_only(folder, targets, monkeypatch):
    for terminal in (False, True):
        monkeypatch.setenv("FORCE_COLOR", "1") if terminal else monkeypatch.delenv("FORCE_COLOR", raising=False)
        said = io.StringIO()
        with redirect_stderr(said):
            targets(Notes(f"writer {terminal}")).fit(records(folder))
        assert ("Asking the teacher" in said.getvalue() and "4/4" in said.getvalue()) is terminal
        assert bool(said.getvalue()) is terminal


def test_paths_at_home(folder, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    TeacherTargets(writer=Notes(), question=QUESTION, cache="~/texts").fit(records(folder, "a"))
    assert (tmp_path / "texts" / "texts.sqlite").is_file()
