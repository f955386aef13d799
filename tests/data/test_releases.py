"""All official sets from their config: each composes, reads a made-up release in its layout, and puts every image into words."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from biqa import config as schema
from biqa.data.official import OfficialSet
from biqa.data.targets import AttributeTargets, DistortionTargets, MeasuredTargets
from biqa.errors import BadRecord, IncompatibleChoice
from biqa.language.features import parse
from biqa.language.leak import find_leak
from biqa.running.instantiate import allowed, make
from biqa.running.loading import load_corpus

CONF = Path(schema.config_directory())
DESCRIPTIONS = {
    "agiqa": MeasuredTargets,
    "biq2021": MeasuredTargets,
    "csiq": DistortionTargets,
    "kadid": DistortionTargets,
    "koniq": AttributeTargets,
    "live": MeasuredTargets,
    "livec": MeasuredTargets,
    "spaq": AttributeTargets,
    "tid2013": DistortionTargets,
}
"""Name of a set -> its default descriptions. The made-up release of each is that of its own tests."""


@cache
def defaults(name: str) -> DictConfig:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"data={name}", "name=x"])


def composed(name: str, **options: object) -> DictConfig:
    """The config with other values below `data`."""
    config = deepcopy(defaults(name))
    for option, value in options.items():
        config.data[option] = value
    return config


def reader_of(name: str) -> type[OfficialSet]:
    return allowed(str(defaults(name).data._target_))


def write_release(name: str, place: Path) -> Path:
    return import_module(f"test_{name}").write_release(place)


def repaint(folder: Path, picture: Callable[..., Image.Image]) -> list[Path]:
    """Give every image its own content, large enough to measure."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".bmp", ".jpg", ".png"))
    for seed, file in enumerate(files):
        file.unlink()  # not written over: it is a link to the others
        picture(seed, size=32).save(file)
    return files


def test_every_official_set_of_the_config_is_here() -> None:
    targets = {path.stem: reader_of(path.stem) for path in CONF.glob("data/*.yaml")}
    assert {name for name, target in targets.items() if isinstance(target, type) and issubclass(target, OfficialSet)} == set(DESCRIPTIONS)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_it_composes_and_instantiates(name: str) -> None:
    config = composed(name, root="somewhere", split_seed=7, on_bad_image="skip")
    assert isinstance(OmegaConf.to_object(config), schema.Config)
    reader = make(config.data)
    assert (reader.card.name, reader.root, reader.protocol) == (name, Path("somewhere"), reader.protocols[0])
    assert (reader.split_seed, reader.val_share, reader.test_share, reader.on_bad_image) == (7, 0.1, 0.2, "skip")
    assert not reader.card.stand_in
    assert type(make(config.descriptions)) is DESCRIPTIONS[name]


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_every_protocol_is_an_option_and_others_are_refused(name: str) -> None:
    protocols = reader_of(name).protocols
    for protocol in protocols:
        assert make(composed(name, root="x", protocol=protocol).data).protocol == protocol
    with pytest.raises(IncompatibleChoice, match=rf"data\.protocol=mine is not known for {name}: choose {', '.join(protocols)}\."):
        make(composed(name, root="x", protocol="mine").data)


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_release_is_read_looked_at_and_put_into_words(name: str, tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    folder = write_release(name, tmp_path)
    repaint(folder, picture)
    [images] = load_corpus(composed(name, root=str(folder)), describe_tests=False).training
    assert images.card.name == name
    assert images.skipped == []
    assert sum(len(images.split(split)) for split in ("train", "val", "test")) == len(images.records) == len(images.targets)
    assert all(0 <= record.q <= 1 and (record.q_std is None or record.q_std >= 0) for record in images.records)
    for record in images.records:
        target = images.targets[record.image]
        assert target.features
        assert parse(target.text) == target.features
        assert find_leak(target.text) is None


@pytest.mark.parametrize("name", ["agiqa", "kadid", "koniq"])  # one a kind of descriptions
def test_a_damaged_image_stops_or_is_left_out(name: str, tmp_path: Path, picture: Callable[..., Image.Image]) -> None:
    folder = write_release(name, tmp_path)
    repaint(folder, picture)
    whole = make(composed(name, root=str(folder)).data).records()
    damaged = next(record for record in whole if record.split == "train")
    damaged.path.write_bytes(damaged.path.read_bytes()[:40])
    with pytest.raises(BadRecord, match=r"cannot be decoded .*Unusable images in all: 1\. Repair the file, or set data\.on_bad_image=skip"):
        load_corpus(composed(name, root=str(folder)), describe_tests=False)
    [images] = load_corpus(composed(name, root=str(folder), on_bad_image="skip"), describe_tests=False).training
    assert images.records == [record for record in whole if record is not damaged]
    assert len(images.skipped) == 1
    assert damaged.image in images.skipped[0]


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_no_group_is_on_two_sides(name: str, tmp_path: Path) -> None:
    folder = write_release(name, tmp_path)
    for protocol in reader_of(name).protocols:
        splits = set()
        for seed in range(10):
            records = reader_of(name)(root=folder, protocol=protocol, split_seed=seed).records()
            assert len({record.group for record in records}) == len({(record.group, record.split) for record in records})
            splits.add(tuple(record.split for record in records))
        assert len(splits) == 1 if (name, protocol) == ("koniq", "official") else len(splits) > 1
