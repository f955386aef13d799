"""Fixtures that make up answers tables and finished runs: a test module asks for them with `pytest_plugins = ["fabrication"]`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import pytest

from biqa.evaluation.answers import PROBABILITIES, answers_frame, write_answers
from biqa.evaluation.evaluate import evaluate
from biqa.language.levels import LEVELS, WEIGHTS
from biqa.reporting.result import RESULT_NAME, write_result


def made_up_answers(dataset: str = "synthetic", images: int = 60, repeats: int = 4, noise: float = 0.2, seed: int = 0) -> pd.DataFrame:
    """Answers of a model whose mean level is q plus noise; q depends on the data set only, so systems share it."""
    q = np.random.default_rng(crc32(dataset.encode())).random(images)
    rng = np.random.default_rng(seed)
    centre = q[:, None] + noise * (rng.normal(size=(images, 1)) + 0.5 * rng.normal(size=(images, repeats + 1)))
    p = np.exp(-((centre[:, :, None] - WEIGHTS) ** 2) / 0.05)
    p /= p.sum(axis=2, keepdims=True)
    drawn = (p.cumsum(axis=2) > rng.random((images, repeats + 1, 1))).argmax(axis=2)
    levels = np.where(np.arange(repeats + 1) == 0, p.argmax(axis=2), drawn)
    return answers_frame(
        {
            "dataset": dataset,
            "image": f"image{image:03d}.png",
            "query": query,
            "description": "The image is sharp.",
            "level": LEVELS[levels[image, query]],
            **dict(zip(PROBABILITIES, p[image, query], strict=True)),
            "score": p[image, query] @ WEIGHTS,
            "q": q[image],
        }
        for image in range(images)
        for query in range(repeats + 1)
    )


def made_up_run(
    root: Path,
    name: str,
    stage: str,
    *,
    dataset: str = "synthetic",
    seed: int = 0,
    noise: float = 0.2,
    stand_in: bool = True,
    text: str = "generated",
    repeats: int = 4,
    images: int = 60,
    config: dict[str, Any] | None = None,
    **choices: str,
) -> Path:
    """A finished run below root: result.json, and its answers table beside it."""
    answers = made_up_answers(dataset, images=images, repeats=repeats, noise=noise, seed=100 * seed + len(stage + text))
    folder = root / name
    write_answers(answers, folder / "answers" / f"{dataset}.parquet")
    result: dict[str, Any] = {
        "schema": 1,
        "run": {"name": name, "model": "tiny", "stage": stage, "data": dataset, "descriptions": "distortions", "tuning": "full"} | choices,
        "seed": seed,
        "metrics": evaluate(answers, resamples=50),
        "sampling": {"repeats": repeats, "temperature": 1.0, "top_p": 1.0},
        "data": {dataset: {"images": images, "fingerprint": f"{dataset}-{images}", "stand_in": stand_in}},
        "config": {"stage": {"descriptions": text} if stage == "inference" else {}} | (config or {}),
        "versions": {"biqa": "0.1.0", "numpy": "2.4"},
        "git_commit": "0123abc",
        "hardware": {"cpu": "A CPU", "cores": 2, "memory_gb": 8.0, "gpus": []},
        "seconds": {"fit": 1.0},
    }
    write_result(result, folder / RESULT_NAME)
    return folder


@pytest.fixture
def answers() -> Callable[..., pd.DataFrame]:
    """`made_up_answers`."""
    return made_up_answers


@pytest.fixture
def fabricate() -> Callable[..., Path]:
    """`made_up_run`."""
    return made_up_run
