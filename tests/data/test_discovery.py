"""Releases found by their folders' names; what is half there is named and left out."""

from importlib import import_module
from pathlib import Path

import pytest

from biqa.config import config_directory
from biqa.data.discovery import READERS, discover
from biqa.data.official import OfficialSet


def write_release(name: str, place: Path) -> Path:
    return import_module(f"test_{name}").write_release(place)


def test_every_official_set_of_the_config_is_looked_for() -> None:
    from hydra.utils import get_class
    from omegaconf import OmegaConf

    from biqa.config import SCHEMAS

    found = set()
    for path in Path(config_directory()).glob("data/*.yaml"):
        node = OmegaConf.load(path)
        schema = next(entry for entry in node.defaults if str(entry).startswith("/schema/")).split("/")[2].split("@")[0]
        target = get_class(str(node.get("_target_") or SCHEMAS[schema]._target_))
        found |= {path.stem} if issubclass(target, OfficialSet) else set()
    assert set(READERS) == found


@pytest.mark.parametrize("deeper", ["", "iqa"])
def test_they_are_found_in_the_folder_and_one_below(deeper: str, tmp_path: Path) -> None:
    place = tmp_path / deeper
    place.mkdir(exist_ok=True)
    folders = {name: write_release(name, place) for name in ("spaq", "csiq", "livec")}
    finds = discover(tmp_path)
    assert {one.choice: one.folder for one in finds.found} == folders
    assert {one.choice: one.images for one in finds.found}["spaq"] == 10
    assert set(finds.missing) == set(READERS) - set(folders)
    assert finds.incomplete == []


def test_the_release_itself_may_be_named(tmp_path: Path) -> None:
    folder = write_release("spaq", tmp_path)
    assert [one.choice for one in discover(folder).found] == ["spaq"]


def test_what_is_half_unpacked_is_named_with_what_is_missing(tmp_path: Path) -> None:
    spaq, koniq, csiq = (write_release(name, tmp_path) for name in ("spaq", "koniq", "csiq"))
    images = sorted((spaq / "TestImage").iterdir())
    for image in images[3:]:
        image.unlink()
    for table in koniq.glob("*.csv"):
        table.unlink()
    (csiq / "dst_imgs").rename(csiq / "other")
    finds = discover(tmp_path)
    reasons = {bad.choice: bad.reason for bad in finds.incomplete}
    assert finds.found == []
    assert reasons["spaq"] == f"7 of 10 labelled images are missing, {images[3].name} first"
    assert "KonIQ-10k is not there" in reasons["koniq"]
    assert reasons["csiq"] == "dst_imgs is missing"
    assert set(finds.missing) == set(READERS) - set(reasons)


def test_an_empty_folder(tmp_path: Path) -> None:
    finds = discover(tmp_path)
    assert (finds.found, finds.incomplete) == ([], [])
    assert finds.missing == list(READERS)
