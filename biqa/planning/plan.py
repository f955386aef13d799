"""Which runs the paper's tables need, in which order, and what of them is done: `biqa.reproduce` carries it out.

A plan is made of studies. A study is one set of training data; each of its runs is one call of `python -m biqa.run`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from biqa.config import SCHEMAS, variant
from biqa.config.identity import may_change
from biqa.errors import IncompatibleChoice
from biqa.runs import RunFolder

if TYPE_CHECKING:
    from biqa.data.discovery import Found

STAGES = ("zero_shot", "joint", "perception", "inference")
"""In this order: a stage 2 finds its stage 1."""
PAPER_TRAINING = ("koniq", "spaq")
"""What the paper measures instability on, and what most images of Q-Instruct are from: trained on where both are there."""
STAND_IN = "synthetic"


@dataclass(frozen=True)
class PlannedRun:
    """One run."""

    stage: str
    seed: int
    data: str
    """The choice of training data."""
    folder: RunFolder
    overrides: tuple[str, ...]
    """What follows `python -m biqa.run`."""

    @property
    def title(self) -> str:
        """For messages."""
        return f"{self.stage}, trained on {self.data}, seed {self.seed}" if self.stage != "zero_shot" else f"zero_shot, seed {self.seed}"


@dataclass(frozen=True)
class PlannedStudy:
    """The runs on one set of training data."""

    data: str
    tests: tuple[str, ...]
    """Data sets that its runs are measured on."""
    runs: tuple[PlannedRun, ...]

    def first(self, stage: str) -> PlannedRun:
        """The first run of a stage."""
        return next(run for run in self.runs if run.stage == stage)


def plan_studies(
    *, model: str, found: "Sequence[Found]", seeds: Sequence[int] | None, runs: Path, train: Sequence[str] = (), options: Sequence[str] = ()
) -> list[PlannedStudy]:
    """The studies that a table needs.

    - Published data: trained on KonIQ-10k and SPAQ where both are there, else on all that are; measured on all that are.
    - The stand-in, for model=tiny, and for any model where no published data are there.

    Args:
        model: choice of `model=`.
        found: releases on disk.
        seeds: of each study's runs; None: 0, 1, 2 on published data and 0 on the stand-in.
        runs: where the runs lie.
        train: choices of data to train on instead.
        options: further options of every run.

    Raises:
        IncompatibleChoice: `train` names data that are not there.
    """
    there = {one.choice: one for one in found}
    if absent := [choice for choice in train if choice not in there]:
        raise IncompatibleChoice(
            f"train=[{','.join(train)}]: {', '.join(absent)} is not there as a whole. What is: {', '.join(there) or 'nothing'}. "
            f"Put it below data_root=, or leave train= out."
        )
    training = tuple(train) or (PAPER_TRAINING if set(PAPER_TRAINING) <= set(there) else tuple(there))
    places = {choice: one.folder for choice, one in there.items()}
    studies = []
    if not there or (model == "tiny" and not train):
        studies.append(_study(_Ways(model, seeds or [0], runs, options), (), {}))
    if there:
        studies.append(_study(_Ways(model, seeds or [0, 1, 2], runs, options), training, places))
    return studies


@dataclass(frozen=True)
class _Ways:
    """What the runs of a study have, whatever they learn from."""

    model: str
    seeds: Sequence[int]
    runs: Path
    options: Sequence[str]

    def run(self, stage: str, seed: int, data: str, overrides: Sequence[str]) -> PlannedRun:
        name = f"{self.model}-{stage}-{data}-s{seed}{ending(self.options)}"
        own = [f"stage={stage}", f"model={self.model}", f"data={data}", *overrides, f"seed={seed}", f"name={quoted(name)}"]
        own += [f"runs={quoted(str(self.runs))}", "ckpt=last"]
        own += [option for option in self.options if takes(stage, option)]
        return PlannedRun(stage, seed, data, RunFolder(self.runs / name), tuple(own))


def _study(ways: _Ways, training: Sequence[str], places: Mapping[str, Path]) -> PlannedStudy:
    """A study on some of the data sets, or on the stand-in where there is none.

    Args:
        ways: its seeds, and what all of its runs have.
        training: choices to train on.
        places: choice to measure on -> its folder.
    """
    data, tests = "+".join(training) or STAND_IN, tuple(places) or (STAND_IN,)
    roots = {f"data.parts.{choice}" if len(training) > 1 else "data": choice for choice in training}
    overrides = []
    if places and set(tests) != set(training):
        overrides.append(f"test=[{','.join(tests)}]")
        roots |= {f"test.{choice}": choice for choice in tests}
    overrides += [f"{node}.root={quoted(str(places[choice]))}" for node, choice in roots.items()]
    return PlannedStudy(data, tests, tuple(ways.run(stage, seed, data, overrides) for seed in ways.seeds for stage in STAGES))


def ending(options: Sequence[str]) -> str:
    """What the names of runs with further options end in: those that make other runs, and so not on how many devices or where they are made."""
    return variant(",".join(option for option in options if not may_change(option.lstrip("+~").partition("=")[0])))


def takes(stage: str, option: str) -> bool:
    """Whether an option is for the runs of a stage: `stage.target=hard` is for those that end in a level, `stage.epochs=1` for those that train.

    What no stage has goes to all, and is refused by the first.
    """
    group, _, name = option.lstrip("+~").partition("=")[0].partition(".")
    having = [one for one in STAGES if group == "stage" and name in {known.name for known in fields(SCHEMAS[one])}]
    return not having or (stage in having and (stage, name) != ("zero_shot", "epochs"))


def quoted(text: str) -> str:
    """A value as Hydra reads it back, whatever characters a folder's name has: backslashes count only before a quote."""
    doubled = re.sub(r"(\\+)(?='|$)", lambda found: found[1] * 2, text)
    return "'" + doubled.replace("'", "\\'") + "'"
