"""Each image is answered once, however many processes share them and whenever they are killed; what is not so is refused before any figure is shown."""

import json
import random
import time

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from worlds import answered, doubled, every_world, killed

from biqa import config as schema
from biqa.errors import BadRecord
from biqa.running.building import quiet
from biqa.running.launching import ProcessDied, launch
from biqa.running.parts import RowsInParts
from biqa.runs import RunFolder

pytest_plugins = ["quick_processes", "small_runs"]

WORLDS = (1, 2, 3, 4)
AWKWARD = (*range(1, 18), 21, 499, 1000)
FEW = (1, 2, 3, 5, 7, 10)
OPTIONS = (
    "stage=zero_shot", "name=x", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.progress=false", "sampling.repeats=2",
    "sampling.max_new_tokens=4", "evaluation.resamples=10",
)  # fmt: skip


def composed(*options):
    schema.register()
    with initialize_config_dir(schema.config_directory(), version_base="1.3"):
        return compose("config", [*OPTIONS, *options])


def assert_once(folder, sizes):
    """Each world's table and figures are those of one process, byte by byte, and hold each image with each query once."""
    for number in sizes:
        tables = {world: (folder / f"{world}-{number}" / "answers" / "made_up.parquet").read_bytes() for world in WORLDS}
        figures = {world: (folder / f"{world}-{number}" / "metrics.json").read_text() for world in WORLDS}
        rows = pd.read_parquet(folder / f"1-{number}" / "answers" / "made_up.parquet")
        assert list(zip(rows["image"], rows["query"], strict=True)) == [(f"{place:04d}.png", query) for place in range(number) for query in range(3)]
        assert set(map(len, (set(tables.values()), set(figures.values())))) == {1}, number
        assert json.loads(figures[1])["made_up"]["srcc"]


@pytest.fixture
def in_worlds(quickly, tmp_path):
    def answer(sizes, picture=None, *options):
        launch(4, every_world, composed(*options), tmp_path, WORLDS, sizes, picture, gpus=False)
        return tmp_path

    return answer


@pytest.fixture
def pictures(tmp_path, picture):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(7):
        picture(seed, size=48 + 8 * seed).save(folder / f"{seed}.png")
    return folder


def test_each_image_is_answered_once_by_one_to_four_processes(in_worlds):
    assert_once(in_worlds(FEW, None, "sampling.batch_size=2"), FEW)


@pytest.mark.faults
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_awkward_numbers_of_images_are_answered_once(in_worlds, tally, batch):
    began = time.monotonic()
    assert_once(in_worlds(AWKWARD, None, f"sampling.batch_size={batch}"), AWKWARD)
    tally("exactly_once", len(WORLDS) * len(AWKWARD), seconds=time.monotonic() - began)


@pytest.mark.faults
def test_a_model_gives_the_same_bytes_in_any_world_where_it_is_asked_about_one_image_at_a_time(in_worlds, tally, pictures):
    sizes = (1, 3, 7, 21)
    assert_once(in_worlds(sizes, pictures, "sampling.batch_size=1"), sizes)
    tally("exactly_once", len(WORLDS) * len(sizes))


def test_what_is_only_filled_up_and_not_left_out_is_refused(quickly, tmp_path):
    """The control: 5 images among two are 3 and 2, and one more to be as many."""
    with pytest.raises(BadRecord, match=r"0000\.png needs the queries 0\.\.2 once each, and has 0, 0, 1, 1, 2, 2 \(1 images in all are wrong\)"):
        launch(2, doubled, composed("sampling.batch_size=2", "trainer.devices=2"), tmp_path, 5, gpus=False)


def killed_until_done(folder, draw, most):
    """One chain: worlds in any order, a kill in each but the last; how many there were."""
    number, kills, kept = draw.randint(60, 120), 0, set()
    while True:
        world, stops = draw.randint(1, 4), kills < most
        work = composed("sampling.batch_size=2", f"trainer.devices={world}")
        try:
            launch(world, killed, work, folder, number, draw.randrange(world), draw.uniform(0, 0.6) if stops else 1e6, gpus=False)
        except ProcessDied as died:
            if "was killed by SIGKILL" not in str(died):
                raise
            kills += 1
        else:
            return number, kills
        parts = RowsInParts(RunFolder(folder).answers("made_up"))
        now = parts.images()
        assert kept <= now or RunFolder(folder).answers("made_up").is_file()
        kept = now


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(8))
def test_killed_in_one_world_it_goes_on_in_another_and_ends_with_the_same_bytes(quickly, tmp_path, tally, seed):
    began = time.monotonic()
    number, kills = killed_until_done(tmp_path / "killed", random.Random(seed), most=6)
    quiet()
    answered(composed("sampling.batch_size=2"), tmp_path / "whole", number)
    for name in ("answers/made_up.parquet", "metrics.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "killed" / "answers").iterdir()) == ["made_up.parquet"]
    tally("other_world", kills, seconds=time.monotonic() - began)
