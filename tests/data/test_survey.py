"""One look at every image: what is found, what is kept, what is looked at again."""

import io
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biqa.data import images
from biqa.data import survey as module
from biqa.data.measured import measure
from biqa.data.record import Record, Reduction
from biqa.data.survey import Look, check_images, survey
from biqa.errors import BadRecord


def record(path: Path) -> Record:
    return Record(image=path.name, path=path, q=0.5, split="train", group=path.name, score=3.0)


def damaged(tmp_path: Path) -> dict[str, Path]:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(buffer, "png")
    files = {"cut.png": buffer.getvalue()[:3000], "empty.png": b"", "text.png": b"not an image"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (4, 4)).save(tmp_path / "fine.png")
    return {name: tmp_path / name for name in ("fine.png", *files, "missing.png")}


def test_bad_images_are_left_out_counted_and_listed(tmp_path: Path) -> None:
    records = [record(path) for path in damaged(tmp_path).values()]
    usable, skipped = check_images(records, "skip")
    assert usable == records[:1]
    assert [line.split(":")[0] for line in skipped] == [f"Image {r.image} (row {i} of 5)" for i, r in enumerate(records[1:], start=2)]
    assert skipped[-1].endswith("there is no such file.")


def test_a_bad_image_stops_the_run_by_name(tmp_path: Path) -> None:
    records = [record(path) for path in damaged(tmp_path).values()]
    with pytest.raises(BadRecord, match=r"Image cut\.png \(row 2 of 5\): .*cut\.png: cannot be decoded .*in all: 4\. .*data\.on_bad_image=skip"):
        check_images(records, "stop")
    assert check_images(records[:1], "stop") == (records[:1], [])


def test_an_image_too_small_to_measure_is_left_out_where_measurements_are_needed(tmp_path: Path) -> None:
    for name, side in (("fine.png", 16), ("small.png", 15)):
        Image.new("RGB", (20, side)).save(tmp_path / name)
    records = [record(tmp_path / name) for name in ("fine.png", "small.png")]
    looks = survey([one.path for one in records], ("measured",))
    usable, skipped = check_images(records, "skip", looks, ("measured",))
    assert usable == records[:1]
    assert skipped == ["Image small.png (row 2 of 2): 20 x 15 pixels are too few to measure: at least 16 a side"]
    assert check_images(records, "skip", looks, ("hash",)) == (records, []), "it decodes, and nobody measures it"
    assert check_images(records, "stop", looks, ("measured",)) == (records, []), "descriptions refuse it in their own words"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file that is looked at, in order."""
    paths: list[Path] = []
    decode = module.load_image

    def noted(path: Path, reduction: Reduction | None = None) -> Image.Image:
        paths.append(path)
        return decode(path, reduction)

    monkeypatch.setattr(module, "load_image", noted)
    return paths


def pictures(place: Path, number: int = 5, size: int = 32) -> list[Path]:
    place.mkdir(exist_ok=True)
    for i in range(number):
        pixels = np.random.default_rng(i).integers(0, 255, (size, size + i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return [place / f"{i}.png" for i in range(number)]


def test_what_a_look_finds(tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    looks = survey(paths, ("measured", "hash"))
    assert [(look.problem, look.width, look.height) for look in looks] == [(None, 32 + i, 32) for i in range(5)]
    assert [look.measured for look in looks] == [measure(np.asarray(Image.open(path))) for path in paths]
    assert all(look.hash is not None and len(look.hash) == 16 for look in looks)
    assert survey(paths[:1])[0] == Look(problem=None, width=32, height=32)
    small = tmp_path / "small.png"
    Image.new("RGB", (8, 8)).save(small)
    assert (survey([small], ("measured",))[0].measured, survey([small], ("measured",))[0].problem) == (None, None)


def test_a_hash_survives_a_new_size_and_tells_images_apart(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.linspace(0, 1, 128), np.linspace(0, 1, 96))
    waves = [np.sin(7 * x) * np.cos(5 * y), np.sin(3 * x + 9 * y * y)]
    images = [Image.fromarray(((wave + 1) * 127).astype(np.uint8)).convert("RGB") for wave in waves]
    for i, image in enumerate(images):
        image.save(tmp_path / f"{i}.png")
        image.resize((64, 48)).save(tmp_path / f"{i}.jpg")
    hashes = [int(look.hash or "", 16) for look in survey([tmp_path / name for name in ("0.png", "0.jpg", "1.png", "1.jpg")], ("hash",))]
    apart = [[(a ^ b).bit_count() for b in hashes] for a in hashes]
    assert max(apart[0][1], apart[2][3]) <= 8
    assert min(apart[0][2], apart[0][3], apart[1][2], apart[1][3]) >= 16


def test_a_file_is_looked_at_again_only_when_it_has_changed(tmp_path: Path, seen: list[Path]) -> None:
    paths, cache = pictures(tmp_path / "images"), tmp_path / "cache"
    first = survey(paths, ("measured",), cache=cache)
    assert sorted(seen) == paths
    assert survey(paths, ("measured",), cache=cache) == first
    assert survey(paths[::-1], cache=cache) == first[::-1]
    assert len(seen) == 5
    os.utime(paths[2], ns=(1, 1))
    assert survey(paths, ("measured",), cache=cache) == first
    assert seen[5:] == [paths[2]]
    survey(paths, ("hash",), cache=cache)  # a part that was not asked for before
    assert len(seen) == 11


def test_without_a_cache_nothing_is_kept(tmp_path: Path, seen: list[Path]) -> None:
    paths = pictures(tmp_path)
    survey(paths)
    survey(paths)
    assert len(seen) == 10


def test_what_was_wrong_is_remembered_until_the_file_is_mended(tmp_path: Path) -> None:
    path, cache = damaged(tmp_path)["cut.png"], tmp_path / "cache"
    assert "cannot be decoded" in str(survey([path], cache=cache)[0].problem)
    assert "cannot be decoded" in str(survey([path], cache=cache)[0].problem)
    Image.new("RGB", (4, 4)).save(path)
    assert survey([path], cache=cache)[0].problem is None


@pytest.mark.parametrize("damage", ["text", "cut", "another table"])
def test_a_damaged_cache_costs_time_and_no_result(tmp_path: Path, seen: list[Path], damage: str) -> None:
    paths, cache = pictures(tmp_path / "images"), tmp_path / "cache"
    first = survey(paths, cache=cache)
    file = cache / "looks.sqlite"
    if damage == "text":
        file.write_text("this is no database " * 100)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:5000])
    else:
        file.unlink()
        with sqlite3.connect(file) as connection:
            connection.execute(f"CREATE TABLE {module.TABLE} (a TEXT)")
        connection.close()
    assert survey(paths, cache=cache) == first
    assert len(seen) == 10


def test_a_cache_that_another_run_holds_costs_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache = pictures(tmp_path / "images"), tmp_path / "cache"
    first = survey(paths[:1], cache=cache)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    other = sqlite3.connect(cache / "looks.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    looks = survey(paths, cache=cache)
    other.close()
    assert looks[:1] == first
    assert all(look.problem is None for look in looks)


def test_a_kill_keeps_what_was_seen(tmp_path: Path, seen: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    paths, cache = pictures(tmp_path / "images", 6), tmp_path / "cache"
    monkeypatch.setattr(module, "FEW", 2)  # saved every two images
    monkeypatch.setattr(module, "_pool", lambda images, workers: module.ThreadPoolExecutor(1))
    look_at = module.look_at

    def stopped(path: Path, parts: tuple[str, ...] = (), reduction: Reduction | None = None) -> Look:
        if path.name == "4.png":
            raise KeyboardInterrupt
        return look_at(path, parts, reduction)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(module, "look_at", stopped)
    with pytest.raises(KeyboardInterrupt):
        survey(paths, cache=cache)
    monkeypatch.setattr(module, "look_at", look_at)
    seen.clear()
    survey(paths, cache=cache)
    assert seen == [path for path in paths if path.name in ("4.png", "5.png")]


def test_processes_find_what_threads_find(tmp_path: Path) -> None:
    paths = [*pictures(tmp_path, module.FEW + 1, size=16), tmp_path / "gone.png"]
    assert survey(paths, ("measured",), workers=2) == survey(paths, ("measured",), workers=1)


# reduced images


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Every file whose pixels are read, in order."""
    paths: list[Path] = []
    decode = images._decode

    def noted(path: Path, shorter_side: int | None = None) -> tuple[Image.Image, bool]:
        found = decode(path, shorter_side)
        paths.append(path)
        return found

    monkeypatch.setattr(images, "_decode", noted)
    return paths


def test_looking_reduces_once_and_measures_what_the_model_will_see(tmp_path: Path, decoded: list[Path]) -> None:
    paths = pictures(tmp_path / "images", 3, size=64)
    to_20 = Reduction(20, tmp_path / "cache")
    looks = survey(paths, ("measured",), reduction=to_20, cache=to_20.cache)
    assert [(look.width, look.height) for look in looks] == [(20, 20), (20, 20), (21, 20)]
    assert [look.measured for look in looks] == [measure(np.asarray(images.load_image(path, to_20))) for path in paths]
    hashes = survey(paths, ("hash",), reduction=to_20, cache=to_20.cache)
    assert sorted(path for path in decoded if path in paths) == paths, "the epoch and a later question read the copies"
    assert [look.hash for look in hashes] == [look.hash for look in survey(paths, ("hash",), reduction=Reduction(20, None))]


def test_looks_at_several_sizes_are_kept_apart(tmp_path: Path, decoded: list[Path]) -> None:
    paths, cache = pictures(tmp_path / "images", 3, size=64), tmp_path / "cache"
    sizes = (None, Reduction(20, cache), Reduction(32, cache))
    first = [survey(paths, ("measured", "hash"), reduction=reduction, cache=cache) for reduction in sizes]
    before = len(decoded)
    assert [survey(paths, ("measured", "hash"), reduction=reduction, cache=cache) for reduction in sizes] == first
    assert len(decoded) == before
    assert [looks[0].height for looks in first] == [64, 20, 32]


def test_processes_reduce_as_threads_do(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "images", module.FEW + 1, size=24)
    found = [survey(paths, ("measured",), reduction=Reduction(16, tmp_path / str(workers)), workers=workers) for workers in (2, 1)]
    assert found[0] == found[1]
    kept = [{path.name: path.read_bytes() for path in (tmp_path / str(workers)).rglob("*.png")} for workers in (2, 1)]
    assert kept[0] == kept[1]
    assert len(kept[0]) == len(paths)
