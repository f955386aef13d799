"""The door to one's own pictures: a folder of all kinds of files, what is printed and written, and how it ends."""

import csv
import io
import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biqa import predict as door
from biqa.finished.predicting import Scorer
from biqa.predict import options_and_pictures

pytest_plugins = ["small_runs"]

READABLE = ("alpha.png", "animated.webp", "cmyk.jpg", "deep.png", "gray.png", "palette.png", "photo.jpg", "sub/photo.jpg", "turned.jpg", "web.webp")
UNREADABLE = {
    "cut.jpg": r"cannot be decoded \(.*truncated.*\)",
    "empty.png": r"cannot be decoded \(0 bytes\)",
    "float.tif": "32-bit pixels",
    "huge.png": "more than 80,000,000 pixels",
    "large.png": "10000 x 9000 pixels are more than 80,000,000",
    "text.jpg": r"cannot be decoded \(not recognised as a picture\)",
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> Path:
    """A folder with a picture of each kind, what only looks like one, and what is none."""
    folder = tmp_path_factory.mktemp("mixed") / "photos"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    photo = Image.fromarray(np.clip(rng.normal(120, 40, (64, 80, 3)), 0, 255).astype(np.uint8))
    photo.save(folder / "photo.jpg")
    photo.rotate(180).save(folder / "sub" / "photo.jpg")
    photo.save(folder / "web.webp")
    photo.save(folder / "animated.webp", save_all=True, append_images=[photo.rotate(90)])
    photo.convert("L").save(folder / "gray.png")
    photo.convert("P").save(folder / "palette.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    Image.merge("RGBA", (*photo.split(), photo.convert("L"))).save(folder / "alpha.png")
    Image.fromarray(rng.integers(0, 65536, (64, 80), dtype=np.uint16)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(folder / "turned.jpg", exif=exif)
    whole = (folder / "photo.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    Image.fromarray(np.ones((8, 8), np.float32)).save(folder / "float.tif")
    Image.new("1", (10000, 9000)).save(folder / "large.png")
    Image.new("1", (25000, 20000)).save(folder / "huge.png")
    (folder / "readme.txt").write_text("not named like a picture")
    return folder


class Terminal(io.StringIO):
    """A stream that somebody looks at."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def predict(finished, mixed, monkeypatch, capsys):
    """`python -m biqa.predict run=joint <arguments>` where the folder lies, in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(mixed.parent)

    def call(*arguments: str, run: str = "joint") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["predict", *([f"run={finished / run}"] if run else []), "accelerator=cpu", *arguments])
        capsys.readouterr()
        code = 0
        try:
            door.enter()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(), newline="")))


def test_a_folder_of_all_kinds_of_files(predict, finished, mixed):
    code, out, err = predict("photos")
    assert code == 3
    rows = lines(out)
    here = sorted(name for name in (*READABLE, *UNREADABLE) if "/" not in name)
    assert [row["image"] for row in rows] == [f"photos/{name}" for name in (*here, "sub/photo.jpg")]
    scored = {row["image"]: row for row in rows if "score" in row}
    assert sorted(scored) == [f"photos/{name}" for name in READABLE]
    for row in scored.values():
        assert 0 <= row["score"] <= 1
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["level"] == max(row["probabilities"], key=row["probabilities"].get)
    for name, said in UNREADABLE.items():
        (row,) = (row for row in rows if row["image"] == f"photos/{name}")
        assert sorted(row) == ["error", "image"]
        assert re.search(said, row["error"])
        assert f"photos/{name}: {row['error']}\n" in err
    assert "10 pictures scored, 6 could not be read (named above)." in err
    assert "STAND-IN: joint has learnt from labels that are no human opinions" in err
    expected = Scorer(finished / "joint", device="cpu")([mixed / name for name in READABLE])
    assert [scored[f"photos/{name}"]["score"] for name in READABLE] == pytest.approx([one.score for one in expected], abs=1e-5)


def test_all_can_be_read(predict):
    code, out, err = predict("photos/photo.jpg", "photos/s*", "photos/*.webp")
    assert code == 0
    assert [row["image"] for row in lines(out)] == ["photos/photo.jpg", "photos/sub/photo.jpg", "photos/animated.webp", "photos/web.webp"]
    assert "could not be read" not in err
    assert predict("images=[photos/photo.jpg]", "photos/gray.png", "repeats=3")[0] == 0


def test_repeated_answers_have_an_instability(predict):
    first, again, other = (lines(predict("photos/photo.jpg", "photos/gray.png", "repeats=8", *seed)[1]) for seed in ((), (), ("seed=5",)))
    assert first == again != other
    assert all(len(row["levels"]) == 8 and row["instability"] % 12.5 == 0 and row["score_std"] >= 0 for row in first)


def test_files_and_page(predict, mixed, tmp_path):
    code, out, err = predict("photos", f"out={tmp_path / 'new' / 'all.csv'}", f"--html={tmp_path / 'page.html'}", "repeats=2", "batch_size=3")
    assert (code, out) == (3, "")
    assert f"Written to {tmp_path / 'new' / 'all.csv'}" in err
    rows = table(tmp_path / "new" / "all.csv")
    assert len(rows) == 16
    assert sorted(row["image"] for row in rows if row["error"]) == [f"photos/{name}" for name in UNREADABLE]
    assert all(row["score"] and row["instability"] and row["levels"] for row in rows if not row["error"])
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "10 scored, 6 could not be read" in page
    assert page.count("data:image/jpeg;base64,") == 10
    assert all(name in page for name in (*READABLE, *UNREADABLE))
    best = max((row for row in rows if row["score"]), key=lambda row: float(row["score"]))
    assert f"1. {best['image']}" in page
    assert sorted(entry.name for entry in tmp_path.rglob("*") if entry.is_file()) == ["all.csv", "page.html"]
    before = (tmp_path / "page.html").read_bytes()
    for option in (f"out={tmp_path / 'new' / 'all.csv'}", f"html={tmp_path / 'page.html'}"):
        code, out, err = predict("photos/photo.jpg", option)
        assert (code, out) == (2, "")
        assert "is there already. Choose another name, or overwrite=true." in err
    assert (tmp_path / "page.html").read_bytes() == before
    assert predict("photos/photo.jpg", f"out={tmp_path / 'new' / 'all.csv'}", "overwrite=true")[0] == 0
    assert len(table(tmp_path / "new" / "all.csv")) == 1


def test_a_terminal_shows_a_table(predict, monkeypatch):
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    code, _, err = predict("photos/photo.jpg", "photos/text.jpg", "progress=false")
    assert code == 3
    text = re.sub(r"\x1b\[[01]m", "", shown.getvalue())  # the headings are bold
    assert text.splitlines()[0].split() == ["score", "level", "picture", "description"]
    assert "photos/photo.jpg" in text
    assert "{" not in text
    assert "\x1b" not in text
    assert "photos/text.jpg: cannot be decoded" in err


def test_a_regression_scores_without_words(predict, tmp_path):
    code, out, _ = predict("photos/photo.jpg", f"html={tmp_path / 'page.html'}", run="probe")
    assert code == 0
    assert list(lines(out)[0]) == ["image", "level", "score"]
    assert 'class="levels"' not in (tmp_path / "page.html").read_text()


def test_a_name_that_looks_like_an_option_is_a_picture_if_it_is_there(predict, mixed):
    odd = ["a=b.jpg", "100%,[x] 'y' ${z}.jpg", "--html.jpg"]
    for name in odd:
        Path(name).write_bytes((mixed / "photo.jpg").read_bytes())
    code, out, _ = predict(*odd)
    assert code == 0
    assert [row["image"] for row in lines(out)] == odd
    assert len({row["score"] for row in lines(out)}) == 1
    for name in odd:
        Path(name).unlink()


def test_options_and_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run=x").touch()
    told = options_and_pictures(
        ["run=x", "run=y", "a.jpg", "-m", "--cfg", "job", "out=a.csv", "~images", "--html", "'*.png'", "--", "run=z", "--html", "-"]
    )
    assert told == (
        ["run=y", "-m", "--cfg", "job", "out=a.csv", "~images", "html=predictions.html"],
        ["run=x", "a.jpg", "'*.png'", "run=z", "--html", "-"],
    )
    assert options_and_pictures(["--html=b.html", "--cfg"]) == (["html=b.html", "--cfg"], [])


@pytest.mark.parametrize(
    ("of", "typed", "said"),
    [
        ("", ["photos"], "run has no value. Set it: run=VALUE"),
        ("nowhere", ["photos"], "no run there"),
        ("one", ["photos"], "one is a run of stage 1: it describes pictures and judges none. Train a stage 2 on it"),
        ("joint", [], "No picture is named."),
        ("joint", ["gone.jpg"], "gone.jpg: there is no such file or folder."),
        ("joint", ["photos", "*.gif"], "*.gif: no picture fits this pattern"),
        ("joint", ["photos", "repeats=1"], "repeats=1: one answer cannot disagree with itself."),
        ("joint", ["photos", "repeats=-1", "batch_size=0", "seed=-1"], "seed=-1: choose 0 or more, below 2^32."),
        ("joint", ["photos", "batch_size=many"], "batch_size=many: choose 1 or more, or auto."),
        ("joint", ["photos", "out=scores.xlsx"], "out=scores.xlsx: its ending says what is written. Choose a name that ends in .jsonl or .csv."),
        ("joint", ["photos", "html=page"], "html=page: choose a name that ends in .html."),
        ("joint", ["photos", "out=photos/photo.jpg/a.csv"], "out=photos/photo.jpg/a.csv cannot be written (photos/photo.jpg is no folder)."),
        ("joint", ["photos", "+repeat=2"], "There is no option repeat."),
        ("joint", ["photos", "accelerator=tpu"], "accelerator=tpu is not known: choose auto, cpu or cuda."),
        ("probe", ["photos", "repeats=2"], "probe is a regression: asked again it says the same. Choose repeats=0."),
        ("joint", ["photos/text.jpg", "photos/empty.png"], "Of 2 pictures none could be read: there is no score."),
    ],
)
def test_mistakes_end_with_2(predict, of, typed, said):
    code, _, err = predict(*typed, run=of)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) <= 6
    assert sorted(entry.name for entry in Path().iterdir()) == ["photos"]


def test_a_machine_that_is_not_enough_ends_with_1(predict, tmp_path, monkeypatch):
    def full(self, result):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("biqa.reporting.predictions.JsonLines.add", full)
    code, _, err = predict("photos/photo.jpg", f"out={tmp_path / 'a.jsonl'}")
    assert code == 1
    assert "No space left on device" in err
    assert "Make room, and the same command begins anew." in err
    assert not list(tmp_path.iterdir())


def test_no_memory_ends_with_1(predict, monkeypatch):
    import torch

    def full(self, items):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr("biqa.stages.joint.Joint.answer", full)
    code, out, err = predict("photos/photo.jpg", "batch_size=4")
    assert (code, out) == (1, "")
    assert "Out of memory (CUDA out of memory. Tried to allocate 2 GiB.)." in err
    assert "What helps: a smaller batch_size" in err


def test_ctrl_c_keeps_what_was_made(predict, tmp_path, monkeypatch):
    each = Scorer.each

    def interrupted(self, images, *, repeats):
        results = each(self, images, repeats=repeats)
        yield next(results)
        raise KeyboardInterrupt

    monkeypatch.setattr(Scorer, "each", interrupted)
    code, _, err = predict("photos/photo.jpg", "photos/gray.png", f"out={tmp_path / 'a.jsonl'}")
    assert code == 128 + signal.SIGINT
    assert f"What was there until then, 1 pictures, is in {tmp_path / 'a.jsonl.tmp'}." in err
    assert [row["image"] for row in lines((tmp_path / "a.jsonl.tmp").read_text())] == ["photos/photo.jpg"]


def test_a_reader_that_has_had_enough_ends_it_quietly(predict, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

        def fileno(self):
            return 99

    replaced = []
    with monkeypatch.context() as patched:  # pytest's own capturing needs what is replaced
        patched.setattr(sys, "stdout", Closed())
        patched.setattr(os, "dup2", lambda source, target: replaced.append(target) or os.close(source))
        code, _, err = predict("photos/photo.jpg")
    assert code == 128 + signal.SIGPIPE
    assert replaced == [99]
    assert "Traceback" not in err
