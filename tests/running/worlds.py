"""What the processes of test_exactly_once.py do: one set of images after another, as a world of one process, two, three and four."""

import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from biqa import config as schema
from biqa.data.module import Item
from biqa.data.record import Card, Record
from biqa.models.tiny import build_tiny
from biqa.reporting.result import json_text
from biqa.running import answering
from biqa.running.answering import answer
from biqa.running.building import build_trainer, quiet
from biqa.running.loading import Corpus, Images
from biqa.running.parts import RowsInParts
from biqa.running.serving import Serving
from biqa.running.training import measure
from biqa.runs import RunFolder
from biqa.stages import together
from biqa.stages.base import Row
from biqa.stages.joint import ZeroShot

REPEATS = 2
ASLEEP = 0.03
"""Seconds that the stand-in takes for a batch where it is killed."""
TINY = {"hidden": 32, "layers": 1, "heads": 2, "tower_hidden": 32, "tower_layers": 1, "grid": 3, "vocabulary": 2048, "attention": "sdpa", "seed": 0}
ASKING = {"lr": 1e-3, "weight_decay": 0.0, "warmup": 0.0, "total_steps": 0, "target": "soft", "level_weight": 1.0, "repeats": REPEATS, "seed": 0}


class ByName(ZeroShot):
    """Answers from the random numbers of an image, which are drawn by its name: the model is asked nothing, all else is as ever."""

    def answer(self, items: list[Item]) -> list[Row]:
        probabilities = (3 * self.random_numbers(items)[..., :5]).softmax(-1)
        of_all = probabilities.mean(1, keepdim=True)
        return self.rows(
            items, [[f"{item.record.image}, {query}" for query in range(REPEATS + 1)] for item in items], torch.cat([of_all, probabilities], 1)
        )


def images_of(number: int, picture: Path | None = None) -> Images:
    """So many images to answer; the stand-in opens none, a model sees one picture each."""
    q = random.Random(number)
    names = [f"{place:04d}.png" for place in range(number)]
    path = (lambda name: picture / f"{int(name[:4]) % 7}.png") if picture else Path
    records = [Record(image=name, path=path(name), q=q.random(), split="test", group=name, score=0.0) for name in names]
    return Images(Card("made_up", 0.0, 1.0, "mos"), records, {}, [], [], weight=0.0)


@cache
def tiny():
    """The small model of all stages of a process."""
    return build_tiny(vision=True, **TINY).eval()


def answered(composed, folder: Path, number: int, picture: Path | None = None) -> None:
    """Answer and measure so many images, as a run does when it has learnt what it learns."""
    stage = (ZeroShot if picture else ByName)(tiny(), max_new_tokens=4, temperature=1.0, top_p=1.0, **ASKING)
    images, run = images_of(number, picture), RunFolder(folder)
    trainer = build_trainer(composed, run, logs=False)
    with Serving(composed, None) as serving:
        answer(serving, run, stage, trainer, {"made_up": images.items("test")})
    if trainer.global_rank == 0:
        config = OmegaConf.to_object(composed)
        assert isinstance(config, schema.Config)
        (folder / "metrics.json").write_text(json_text(measure(config, run, Corpus([], [images]), queries=REPEATS + 1)[0]))


def every_world(composed, folder: Path, worlds: Sequence[int], sizes: Sequence[int], picture: Path | None = None) -> None:
    """As one of four processes: take part in each world that has a place for this one. The last world stays as it is, for the end of `launch`."""
    quiet()
    rank = dist.get_rank()
    together._patient.clear()
    dist.destroy_process_group()
    for world in worlds:
        if rank >= world:
            continue
        os.environ["WORLD_SIZE"] = str(world)
        if world > 1:
            dist.init_process_group("gloo", init_method=f"file://{folder / f'store {world}'}", rank=rank, world_size=world)
        composed = OmegaConf.merge(composed, {"trainer": {"devices": world}})
        for number in sizes:
            answered(composed, folder / f"{world}-{number}", number, picture)
        if world > 1 and world != worlds[-1]:
            dist.barrier()
            dist.destroy_process_group()


def doubled(composed, folder: Path, number: int) -> None:
    """As one of two: answer where nobody leaves out what was only filled up, as where Lightning's sampler shares images."""
    quiet()
    with patch.object(RowsInParts, "add", lambda parts, rows: parts._unwritten.extend(map(dict, rows))):
        answered(composed, folder, number)


def killed(composed, folder: Path, number: int, victim: int, after: float) -> None:
    """As one of several: answer, slowly, and keep every batch; one of them gets a SIGKILL after so many seconds."""
    quiet()
    if together.rank() == victim:
        kill = threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL))
        kill.daemon = True
        kill.start()
    answer_at_once = ByName.answer
    with (
        patch.object(ByName, "answer", lambda stage, items: (time.sleep(ASLEEP), answer_at_once(stage, items))[1]),
        patch.object(answering, "SECONDS", 0),
    ):
        answered(composed, folder, number)
