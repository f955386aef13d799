"""The file in which paid texts lie: nothing in it is lost, whoever writes and dies."""

import sqlite3
import subprocess
import sys

import pytest

from biqa.data import text_cache
from biqa.data.text_cache import TextCache
from biqa.errors import TeacherUnavailable

WRITE = """
import sys
from pathlib import Path
from biqa.data.text_cache import TextCache
cache = TextCache(Path(sys.argv[1]))
for number in range(20):
    cache.keep(f"image {number}", "question", sys.argv[2], f"Text {number} of {sys.argv[2]}.")
"""
HOLD = """
import sys
from pathlib import Path
from biqa.data.text_cache import TextCache
with TextCache(Path(sys.argv[1])).alone("question", "writer", lambda: print("waits", flush=True)):
    print("alone", flush=True)
    sys.stdin.read()
"""


def start(script, *arguments):
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_text_belongs_to_image_question_and_writer_and_stays(tmp_path):
    cache = TextCache(tmp_path / "made" / "here")
    cache.keep("a", "question", "writer", "Edges are crisp.")
    cache.keep("a", "question", "writer", "Another text.")
    cache.keep("b", "question", "writer", "")
    cache.keep("a", "other question", "writer", "A dark sky.")
    cache.keep("a", "question", "other writer", "A bright lamp.")
    again = TextCache(tmp_path / "made" / "here")
    assert again.known("question", "writer") == {"a": "Edges are crisp.", "b": ""}
    assert again.known("other question", "writer") == {"a": "A dark sky."}
    assert again.known("question", "other writer") == {"a": "A bright lamp."}
    assert again.known("question", "nobody") == {}


def test_a_file_goes_by_its_content(tmp_path):
    cache = TextCache(tmp_path)
    one, two, three = (tmp_path / name for name in ("1.png", "2.png", "3.png"))
    one.write_bytes(b"abc")
    two.write_bytes(b"abc")
    three.write_bytes(b"")
    contents = cache.contents([one, two, three])
    assert contents == {
        one: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180-2, appendix B.1
        two: contents[one],
        three: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }
    moved = one.rename(tmp_path / "moved.png")
    two.write_bytes(b"abcd")
    again = cache.contents([moved, two])
    assert again[moved] == contents[one]
    assert again[two] not in contents.values()


def test_a_file_is_read_once_as_long_as_it_stays_as_it_is(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("biqa.data.contents._content", lambda path: read.append(path.name) or "content")
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"abc")
        TextCache(tmp_path).contents([tmp_path / "1.png"])
    (tmp_path / "1.png").write_bytes(b"abcd")
    TextCache(tmp_path).contents([tmp_path / "1.png", tmp_path / "2.png"])
    assert sorted(read) == ["1.png", "1.png", "2.png"]


def test_several_processes_write_at_a_time(tmp_path):
    writers = [start(WRITE, tmp_path, name) for name in ("one", "two", "two")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    for writer in writers:
        writer.communicate()
    for name in ("one", "two"):
        assert TextCache(tmp_path).known("question", name) == {f"image {number}": f"Text {number} of {name}." for number in range(20)}


def test_one_process_at_a_time_asks_and_a_dead_one_keeps_nobody_waiting(tmp_path):
    first = start(HOLD, tmp_path)
    assert first.stdout.readline() == "alone\n"
    second = start(HOLD, tmp_path)
    assert second.stdout.readline() == "waits\n"
    waited = []
    with TextCache(tmp_path).alone("other question", "writer", lambda: waited.append(True)):
        assert not waited
    first.kill()
    assert second.stdout.readline() == "alone\n"
    assert second.communicate("")[0] == ""
    first.communicate()


@pytest.mark.parametrize("damage", ["no database", "cut off", "overwritten within"])
def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path, damage):
    cache = TextCache(tmp_path)
    for number in range(10):
        cache.keep(f"image {number}", "question", "writer", "Edges are crisp. " * 200)
    whole = cache.file.read_bytes()
    damaged = {
        "no database": b"no database at all",
        "cut off": whole[: len(whole) // 2],
        "overwritten within": whole[:8192] + bytes(reversed(whole[8192:16384])) + whole[16384:],
    }[damage]
    cache.file.write_bytes(damaged)
    with pytest.raises(TeacherUnavailable, match=r"texts\.sqlite is damaged: .*It holds texts that were paid for, so it is left as it is\. Restore"):
        TextCache(tmp_path)
    assert cache.file.read_bytes() == damaged


def test_a_file_that_cannot_be_used_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(TeacherUnavailable, match=r"file cannot be made \(.*\)\. Choose a folder that you may write to"):
        TextCache(tmp_path / "file")
    with sqlite3.connect(tmp_path / "texts.sqlite") as other:
        other.execute("CREATE TABLE texts (something TEXT)")
    other.close()
    with pytest.raises(TeacherUnavailable, match=r"texts\.sqlite cannot be used: no such column: image\. Mend that, or choose another folder"):
        TextCache(tmp_path).known("question", "writer")
    monkeypatch.setattr(text_cache, "PATIENCE", 0.05)
    cache = TextCache(tmp_path / "locked")
    with sqlite3.connect(cache.file) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TeacherUnavailable, match=r"cannot be used: database is locked"):
            cache.keep("a", "question", "writer", "text")
    other.close()
