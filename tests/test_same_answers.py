"""What a model says of a picture depends on the picture and the seed: not on what is asked beside it, in which order, by how many processes, or on what
is kept. Texts and levels are the same; probabilities differ by the rounding of float32, which depends on how many rows a matrix has.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from biqa.evaluation.answers import PROBABILITIES
from biqa.evaluation.predictions import Prediction
from biqa.finished.predicting import Scorer
from biqa.language.levels import LEVELS
from biqa.models.sampling import uniforms
from biqa.running.loading import load_corpus
from biqa.stages.base import StageModule

pytest_plugins = ["small_runs"]

KIND = "same-answers"
ROUNDING = 1e-5
"""By which probabilities may differ."""
TAUGHT = (
    "stage.epochs=4", "stage.batch_size=8", "tuning.lr=3e-3", "data.train=24", "model.layers=2",
    "sampling.repeats=3", "sampling.max_new_tokens=24", "~logger",
)  # fmt: skip


@pytest.fixture(scope="module")
def taught(run, tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a one-stage or a two-stage run that has learnt enough to say different things, made when first asked for."""
    runs = tmp_path_factory.mktemp("taught")
    made = {"joint": ("stage=joint",), "one": ("stage=1",), "two": ("stage=2", f"stage.perception={runs / 'one'}")}

    def of(name: str) -> Path:
        for needed in ("one", "two") if name == "two" else (name,):
            if not (runs / needed).is_dir():
                done = run(runs, needed, *TAUGHT, *made[needed])
                assert done.code == 0, done.err
        return runs / name

    return of


def pictures(run: Path) -> list[Path]:
    config = OmegaConf.load(run / "config.yaml")
    return [record.path for images in load_corpus(config, describe_tests=False).test for record in images.split("test")]


def asked(run: Path, images: Sequence[Path], size: int) -> dict[str, Prediction]:
    return {found.image: found for found in Scorer(run, device="cpu", batch_size=size)(images, repeats=3)}


def apart(one: Prediction, other: Prediction) -> float:
    """By how much two results of one picture differ; infinitely where they say something else."""
    if (one.description, one.level, one.levels) != (other.description, other.level, other.levels):
        return float("inf")
    assert one.probabilities
    assert other.probabilities
    return max(abs(one.probabilities[level] - other.probabilities[level]) for level in LEVELS)


def compared(run: Path, images: Sequence[Path], ways: Sequence[tuple[Sequence[Path], int]]) -> list[float]:
    """By how much the answers differ from those of one picture at a time, for each picture that is asked in one of the ways."""
    truth = asked(run, images, 1)
    return [apart(truth[image], found) for some, size in ways for image, found in asked(run, some, size).items()]


def ways_of(images: Sequence[Path], sizes: Sequence[int], orders: int) -> list[tuple[Sequence[Path], int]]:
    """Pictures in several orders, and parts of them, by so many at a time."""
    rng = np.random.default_rng(0)
    mixed = [[images[place] for place in rng.permutation(len(images))] for _ in range(orders)]
    return [(some, size) for size in sizes for some in (images, images[::-1], images[3:8], *mixed)]


def test_company_order_and_number_change_no_answer(taught):
    """Of a two-stage run, which asks two models. The short form of the last one here."""
    images = pictures(taught("two"))
    assert len({(found.levels, found.score_std) for found in asked(taught("two"), images, 8).values()}) > 6  # no two are asked with the same noise
    differ = compared(taught("two"), images, [(images[::-1], 8), (images[3:8], 3)])
    assert len(differ) == len(images) + 5
    assert max(differ) <= ROUNDING


def test_noise_by_the_place_in_a_batch_would_be_noticed(taught, monkeypatch):
    """The negative control: random numbers that belong to the place of a picture and not to the picture."""
    images = pictures(taught("two"))

    def by_place(self: StageModule, items: Sequence[object]):
        return uniforms(self.seed, [str(place) for place in range(len(items))], self.repeats, self.max_new_tokens + 1)

    monkeypatch.setattr(StageModule, "random_numbers", by_place)
    differ = compared(taught("two"), images, [(images[::-1], 8)])
    assert np.isinf(differ).mean() > 0.5


def answers(run: Path) -> pd.DataFrame:
    return pd.read_parquet(run / "answers" / "synthetic.parquet")


def differences(first: pd.DataFrame, second: pd.DataFrame) -> np.ndarray:
    """Of each row, by how much its probabilities differ; infinitely where text or level do."""
    said = (first[["image", "query", "description", "level"]] == second[["image", "query", "description", "level"]]).all(axis=1)
    apart = np.abs(first[list(PROBABILITIES)].to_numpy() - second[list(PROBABILITIES)].to_numpy()).max(axis=1)
    return np.where(said, apart, np.inf)


SETTINGS = [
    f"sampling.batch_size={size} trainer.workers={workers} trainer.cache_mb={cache} images.features_gb={features}"
    for size in (1, 3, 8)
    for workers in (0, 1, 2)
    for cache, features in ((0, 0), (512, 10))
]


@pytest.mark.faults
@pytest.mark.parametrize("stage", ["joint", "zero_shot", "1"])
def test_workers_batches_and_what_is_kept_change_no_answer(run, tmp_path, tally, stage):
    """Whole runs: what is learnt too, bit by bit, as long as the tower learns along with the rest."""
    learns = ("stage.epochs=0",) if stage == "zero_shot" else ()
    truth = None
    for number, setting in enumerate(SETTINGS[:: 3 if stage == "1" else 1]):
        name = f"run{number}"
        done = run(tmp_path, name, *TAUGHT, f"stage={stage}", *learns, *setting.split())
        assert done.code == 0, done.err
        weights = [file.read_bytes() for file in sorted((tmp_path / name).glob("model/*.safetensors"))]
        found = answers(tmp_path / name)
        if truth is None:
            truth = weights, found
            continue
        assert weights == truth[0], setting
        columns = [column for column in ("image", "query", "description") if column in found]
        differ = differences(truth[1], found) if stage != "1" else np.where((truth[1][columns] == found[columns]).all(axis=1), 0.0, np.inf)
        assert differ.max() <= ROUNDING, setting
        tally(KIND, tried=len(differ), rounding=differ.max())
        shutil.rmtree(tmp_path / name)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["joint", "two"])
def test_many_orders_and_parts_change_no_answer(taught, tally, name):
    images = pictures(taught(name))
    differ = compared(taught(name), images, ways_of(images, (1, 3, 8, 12), 3))
    assert max(differ) <= ROUNDING
    tally(KIND, tried=len(differ), rounding=max(differ))
