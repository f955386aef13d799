"""SIGKILL at random moments, the same command again until it is done: what comes out is, to the bit, what an uninterrupted run leaves.

`make test` kills 50 times, `make test-faults` 200 times.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

pytest_plugins = ["small_runs"]

TESTS = Path(__file__).parent
LONG = ("data.train=60", "stage.batch_size=2", "stage.epochs=2", "trainer.checkpoint_steps=3", "ckpt=last")
LORA = ("tuning=lora", "tuning.rank=2", "tuning.lr=0.01", "tuning.dropout=0.3")
KINDS = {
    "joint": ("stage=joint", "trainer.accumulate=1", "trainer.workers=0"),
    "joint_lora": ("stage=joint", *LORA, "trainer.accumulate=4", "trainer.workers=2"),
    "perception": ("stage=1", *LORA, "trainer.accumulate=1", "trainer.workers=2"),
    "inference": ("stage=2", "trainer.accumulate=4", "trainer.workers=0"),
}
"""Runs of two epochs of 30 batches, shuffled; LoRA with dropout, which draws random numbers in every step."""
PHASES = ("all", "build", "data", "describe", "fit", "step", "save", "validate", "weights", "answer", "evaluate")
MOST_KILLS = 8
"""Of one run."""


@dataclass
class Nursery:
    """Asks for runs: `tests/nursery.py`."""

    process: "subprocess.Popen[str]"
    place: Path
    asked: int = 0

    def __call__(self, door: str, *arguments: str, **request: object) -> dict[str, Any]:
        """Exit code and phases of a door, as a process of its own."""
        self.asked += 1
        said = self.place / f"said-{self.asked}.txt"  # of its own: workers of a killed run may outlive it
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"door": door, "arguments": arguments, "said": str(said)} | request) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["code"] in (0, -signal.SIGKILL), said.read_text()
        assert answer["code"] or "Traceback" not in said.read_text(), said.read_text()
        return answer


@pytest.fixture(scope="module")
def nursery(tmp_path_factory) -> Iterator[Nursery]:
    """One for all."""
    place = tmp_path_factory.mktemp("nursery")
    environment = os.environ | {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1", "BIQA_CACHE": str(place / "cache")}
    command = [sys.executable, str(TESTS / "nursery.py")]
    with subprocess.Popen(command, cwd=place, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Nursery(process, place)
        process.kill()


@pytest.fixture(scope="module")
def options(nursery, synthetic) -> Callable[[str, Path], tuple[str, ...]]:
    """Options of a run of some kind in some folder; stage 2 builds on a stage 1 that is made once."""
    made: list[Path] = []

    def of(kind: str, runs: Path) -> tuple[str, ...]:
        common = (*synthetic, f"runs={runs}", f"name={kind}")
        if kind == "inference":
            if not made:
                made.append(nursery.place / "stage1" / "one")
                nursery("biqa.run", *common, "stage=1", f"runs={made[0].parent}", "name=one", "stage.epochs=1", "data.train=60")
            return (*common, *LONG, *KINDS[kind], f"stage.perception={made[0]}")
        return (*common, *LONG, *KINDS[kind])

    return of


@pytest.fixture(scope="module")
def whole(nursery, options) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """The folder of an uninterrupted run of a kind, and its phases: how many there were of each, and the seconds of all of them."""
    made: dict[str, tuple[Path, dict[str, Any]]] = {}

    def of(kind: str) -> tuple[Path, dict[str, Any]]:
        if kind not in made:
            runs = nursery.place / "whole"
            made[kind] = (runs / kind, nursery("biqa.run", *options(kind, runs))["phases"])
        return made[kind]

    return of


def content(value: object) -> object:
    """A nested value with the SHA-256 of each tensor in its place."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), hashlib.sha256(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {name: content(inner) for name, inner in value.items()}
    return [content(inner) for inner in value] if isinstance(value, list | tuple) else value


def left_by(folder: Path) -> dict[str, object]:
    """All that a finished run leaves: weights, answers and curves as SHA-256, figures, and of its last checkpoint weights, optimizer, schedule, position and
    random numbers."""
    files = [
        file
        for pattern in ("model/*", "adapter/*", "answers/*", "descriptions/*", "logs/*")
        for file in sorted(folder.glob(pattern))
        if file.is_file()
    ]
    found: dict[str, object] = {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.name != "README.md"
    }
    result = json.loads((folder / "result.json").read_text())
    found |= {name: result[name] for name in ("metrics", "data", "seed")}
    last = sorted(folder.glob("checkpoints/*.ckpt"))[-1]
    return found | {last.name: content(torch.load(last, weights_only=True))}


def moment(draw: random.Random, phases: dict[str, Any], tried: int) -> dict[str, Any]:
    """When to kill: each phase in turn, in one of its occurrences, at some moment of it."""
    there = [phase for phase in PHASES if phase in phases]
    phase = there[tried % len(there)]
    times, seconds = phases[phase]
    return {"phase": phase, "occurrence": draw.randint(1, max(1, times // 2)), "delay": draw.uniform(0, 1.2 * seconds / times)}


def killed_until(nursery: Nursery, command: tuple[str, ...], phases: dict[str, Any], draw: random.Random, kills: int, done: int = 0) -> int:
    """Call the same command until it is done; it is killed at most so often on the way. The number of kills."""
    killed = 0
    while killed < kills:
        if nursery("biqa.run", *command, kill=moment(draw, phases, done + killed))["code"] == 0:
            return killed
        killed += 1
    assert nursery("biqa.run", *command)["code"] == 0
    return killed


@pytest.mark.parametrize(
    ("kind", "kills"), [("joint_lora", 20), ("inference", 20), *(pytest.param(kind, 45, marks=pytest.mark.faults) for kind in KINDS)]
)
def test_killed_at_random_it_ends_with_the_same_bits(nursery, options, whole, tmp_path, tally, kind, kills):
    folder, phases = whole(kind)
    expected = left_by(folder)
    draw = random.Random(f"{kind} {kills}")
    done = runs = differ = 0
    while done < kills:
        runs += 1
        place = tmp_path / str(runs)
        done += killed_until(nursery, options(kind, place), phases, draw, min(MOST_KILLS, kills - done), done)
        differ += left_by(place / kind) != expected
    if kills == 45:
        tally("kills", done, survived=0 if differ else done)
    assert not differ


def files(folder: Path) -> dict[str, str]:
    """File -> SHA-256 of all files in a folder that are no temporary ones."""
    there = [file for file in sorted(folder.rglob("*")) if file.is_file() and not file.name.endswith(".tmp")]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in there}


@pytest.mark.parametrize("kills", [5, pytest.param(15, marks=pytest.mark.faults)])
@pytest.mark.parametrize("door", ["biqa.report", "biqa.prepare"])
def test_pages_that_are_made_by_a_killed_door_are_the_old_or_the_new_ones(nursery, whole, synthetic, tmp_path, tally, door, kills):
    if door == "biqa.report":
        command = (f"runs={whole('joint')[0].parent}", "only=[joint]", "resamples=50")
    else:
        command = ("data=synthetic", *(option for option in synthetic if option.startswith("data.")))
    out = tmp_path / "out"
    phases = nursery(door, *command, f"out={out}")["phases"]
    expected = files(out)
    assert len(expected) > 2
    draw = random.Random(door)
    killed = lost = 0
    while killed < kills:
        if killed % 2:  # the other times over what is there
            shutil.rmtree(out, ignore_errors=True)
        killed += nursery(door, *command, f"out={out}", kill=moment(draw, {"all": phases["all"]}, 0))["code"] != 0
        lost += not {name: sha for name, sha in files(out).items() if not name.startswith(".unfinished")}.items() <= expected.items()
    assert nursery(door, *command, f"out={out}")["code"] == 0
    assert files(out) == expected
    if kills == 15:
        tally("kills", killed, survived=killed - lost)
    assert not lost


@pytest.mark.parametrize("sabotage", ["random numbers", pytest.param("fast-forward", marks=pytest.mark.faults)])
def test_a_run_that_does_not_go_on_rightly_is_noticed(nursery, options, whole, tmp_path, sabotage):
    """The control: random numbers that are not put back, or an epoch that begins anew, and the comparison fails."""
    folder, _ = whole("joint_lora")
    command = options("joint_lora", tmp_path)
    assert nursery("biqa.run", *command, kill={"phase": "step", "occurrence": 27, "delay": 0})["code"] == -signal.SIGKILL
    assert nursery("biqa.run", *command, sabotage=sabotage)["code"] == 0
    assert left_by(tmp_path / "joint_lora") != left_by(folder)


def test_the_curve_has_every_tenth_step_once(whole):
    folder, _ = whole("joint")
    rows = [line.split(",") for line in (folder / "logs" / "metrics.csv").read_text().splitlines()]
    named = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    assert [int(row["step"]) for row in named if row["train/loss"]] == list(range(9, 60, 10))
    assert [int(row["step"]) for row in named if row["val/srcc"]] == [29, 59]
