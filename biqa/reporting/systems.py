"""From finished runs to the rows of a table: which runs are one system, and its figures as a mean over seeds with draws to compare them by."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from biqa.config.identity import flat, may_change
from biqa.errors import BadRecord, IncompatibleChoice, RunNotFound
from biqa.evaluation.answers import read_answers, refuse_other_answers
from biqa.evaluation.bootstrap import Estimate, draws_of_each, estimate
from biqa.evaluation.evaluate import Answers, answers_by_dataset, statistics
from biqa.reporting.result import FoundRun

STAGE_NAMES = {"probe": "ridge probe", "zero_shot": "zero-shot", "joint": "one-stage (joint)", "inference": "two-stage"}
"""Stages that score images, in the order of the rows, and what a table calls them."""

TABLE_METRICS = ("srcc", "plcc", "instability_sampled", "instability_argmax")


@dataclass(frozen=True)
class System:
    """Runs that differ in nothing but the seed (and the data set, where each run was trained and measured on one)."""

    name: str
    """What a row calls it."""
    stage: str
    model: str
    tuning: str
    """With the quantization of the base, where there is one."""
    descriptions: str
    data: str
    """The choice of data, or "" where runs on several data sets form one row."""
    options: str
    """Further options that tell it from others of its name, "" where there are none."""
    runs: tuple[FoundRun, ...]

    def runs_on(self, dataset: str) -> list[FoundRun]:
        """Its runs that were measured on a data set, seeds ascending."""
        return sorted((run for run in self.runs if dataset in run.result["metrics"]), key=lambda run: run.result["seed"])

    def fingerprints(self, dataset: str) -> set[str]:
        """Fingerprints of the test images that its runs answered."""
        return {run.result["data"][dataset]["fingerprint"] for run in self.runs_on(dataset)}

    @property
    def sampling(self) -> dict[str, float]:
        """N, T and top-p, the same for all its runs."""
        return self.runs[0].result["sampling"]


@dataclass(frozen=True, eq=False)
class Measure:
    """One metric of one system: the mean over its seeds, and that mean in each bootstrap resample of the images."""

    value: float
    by_seed: dict[int, float]
    """The figure of each seed; {} for a mean over data sets that were not measured with the same seeds."""
    draws: NDArray[np.float64] | None
    """Shape [resamples]; None where an answers table is missing."""
    written: Estimate | None = None
    """The interval that result.json gives, where there is one seed only."""

    @property
    def estimate(self) -> Estimate:
        """Mean over seeds with its 95 % interval over images (NaN where it cannot be known)."""
        if self.draws is None:
            return self.written or Estimate(self.value, np.nan, np.nan)
        return estimate(self.value, self.draws)


def group_systems(runs: Sequence[FoundRun]) -> list[System]:
    """Runs as systems, in the order of `STAGE_NAMES`. Runs of other stages (perception) are left out.

    A name says the model, tuning, descriptions or stage-2 training text wherever runs of one stage differ in it, and then every further option in
    which runs of that name differ. Runs of one system trained on
    different data sets share a row when no data set was measured twice; otherwise the name says the data.

    Raises:
        RunNotFound: no run scores images.
        IncompatibleChoice: two runs are the same system with the same seed on the same data set, or one system was asked in two ways.
    """
    scoring = [run for run in runs if run.result["run"]["stage"] in STAGE_NAMES]
    if not scoring:
        raise RunNotFound(
            f"None of the {len(runs)} runs found scores images: a table needs runs of stage {', '.join(STAGE_NAMES)}. "
            f"Make them with python -m biqa.run sweep=main_table, or choose others with runs= and only=."
        )
    by_data = bool(_clashes(scoring, ignore_data=True))
    keys = _keys(scoring, ignore_data=not by_data)
    clashes = _clashes(scoring, ignore_data=False)
    if clashes:
        first, second = clashes[0]
        raise IncompatibleChoice(
            f"{first.folder} and {second.folder} are the same system with the same seed: they differ in nothing that a table has a name for. "
            f"Leave one out: only=[...] takes patterns of the run names to keep."
        )
    members: dict[Key, list[FoundRun]] = {}
    for run in scoring:
        members.setdefault(keys[run.folder], []).append(run)
    systems = [_system(key, runs_of, list(members)) for key, runs_of in members.items()]
    return sorted(systems, key=lambda system: (list(STAGE_NAMES).index(system.stage), _in_order(system.name)))


def _in_order(name: str) -> list[str | float]:
    """A name as a key that puts N=2 before N=10."""
    return [float(part) if position % 2 else part for position, part in enumerate(re.split(r"(\d+(?:\.\d+)?)", name))]


def datasets_of(systems: Sequence[System]) -> list[str]:
    """Names of all data sets that were measured, sorted."""
    return sorted({dataset for system in systems for run in system.runs for dataset in run.result["metrics"]})


def baseline_of(system: System, systems: Sequence[System], stage: str) -> System | None:
    """The system of a stage with the same model and data (and tuning and descriptions, where there are several); None where there is not one."""
    same = [other for other in systems if other.stage == stage and (other.model, other.data) == (system.model, system.data)]
    nearest = [other for other in same if (other.tuning, other.descriptions) == (system.tuning, system.descriptions)] or same
    exact = [other for other in nearest if other.options == system.options] or [other for other in nearest if not other.options]
    found = nearest if len(nearest) == 1 else exact
    return found[0] if len(found) == 1 else None


def measure_system(system: System, dataset: str, *, resamples: int, seed: int) -> dict[str, Measure]:
    """`TABLE_METRICS` of a system on a data set, those that its runs have; {} where it was not measured there.

    Raises:
        BadRecord: an answers table does not give the figures of its result.json.
    """
    runs = system.runs_on(dataset)
    drawn = [draws_of(run, dataset, resamples, seed) for run in runs]
    measures: dict[str, Measure] = {}
    for metric in TABLE_METRICS:
        if not runs or not all(metric in run.result["metrics"][dataset] for run in runs):
            continue
        figures = [run.result["metrics"][dataset][metric] for run in runs]
        by_seed = {run.result["seed"]: figure["value"] for run, figure in zip(runs, figures, strict=True)}
        known = [draws[metric] for draws in drawn if draws is not None]
        written = Estimate(figures[0]["value"], figures[0]["low"], figures[0]["high"]) if len(runs) == 1 else None
        draws = np.mean(known, axis=0) if len(known) == len(runs) else None
        measures[metric] = Measure(float(np.mean(list(by_seed.values()))), by_seed, draws, written)
    return measures


def mean_measure(measures: Sequence[Measure]) -> Measure:
    """Mean over data sets, whose images are resampled independently of each other."""
    seeds = measures[0].by_seed.keys()
    same_seeds = all(measure.by_seed.keys() == seeds for measure in measures)
    by_seed = {seed: float(np.mean([measure.by_seed[seed] for measure in measures])) for seed in seeds} if same_seeds else {}
    draws = [measure.draws for measure in measures if measure.draws is not None]
    return Measure(
        value=float(np.mean([measure.value for measure in measures])),
        by_seed=by_seed,
        draws=np.mean(draws, axis=0) if len(draws) == len(measures) else None,
        written=measures[0].written if len(measures) == 1 else None,
    )


def load_answers(run: FoundRun, dataset: str) -> Answers | None:
    """The answers of a run on a data set; None where the table does not lie beside result.json (a result may travel without it).

    Raises:
        BadRecord: it does not hold the answers that result.json counts.
    """
    path = run.folder / "answers" / f"{dataset}.parquet"
    if not path.is_file():
        return None
    answers = read_answers(path)
    refuse_other_answers(answers, path, images=run.result["data"][dataset]["images"], queries=run.result["sampling"]["repeats"] + 1)
    return answers_by_dataset(answers)[dataset]


Name = tuple[str, str, str, str, str, str]
"""Of a system, without its further options: see `_named_by`."""
Key = tuple[str, str, str, str, str, str, str]

NAMED = ("seed", "data.", "stage._target_", "stage.descriptions", "evaluation.", "test.")
"""Options that a row is named by already, or that say nothing of the system."""
ASKED = {"sampling.repeats": "N", "sampling.temperature": "T", "sampling.top_p": "top-p"}
"""Options of asking, as a table calls them."""


def _descriptions_of(runs: Sequence[FoundRun]) -> dict[str, set[str]]:
    """Choice of data -> choices of descriptions that runs on it have."""
    found: dict[str, set[str]] = {}
    for run in runs:
        found.setdefault(run.result["run"]["data"], set()).add(run.result["run"]["descriptions"])
    return found


def _named_by(run: FoundRun, *, ignore_data: bool, own_words: bool) -> Name:
    """Stage, model, tuning, descriptions ("" where each data set has its own), training text of stage 2, data."""
    choices = run.result["run"]
    text = run.result["config"].get("stage", {}).get("descriptions", "") if choices["stage"] == "inference" else ""
    tuning = " ".join([choices["tuning"], *([packed] if (packed := choices.get("quantization", "none")) != "none" else [])])
    descriptions = "" if own_words else choices["descriptions"]
    return choices["stage"], choices["model"], tuning, descriptions, text, "" if ignore_data else choices["data"]


def _keys(runs: Sequence[FoundRun], *, ignore_data: bool) -> dict[Path, Key]:
    """Run folder -> what tells its system from the others: `_named_by`, and the further options in which runs of one such name differ."""
    own_words = ignore_data and all(len(found) == 1 for found in _descriptions_of(runs).values())
    named = {run.folder: _named_by(run, ignore_data=ignore_data, own_words=own_words) for run in runs}
    options = {run.folder: _further_options(run, NAMED + (("descriptions.",) if own_words else ())) for run in runs}
    alike: dict[Name, list[dict[str, Any]]] = {}
    for run in runs:
        alike.setdefault(named[run.folder], []).append(options[run.folder])
    apart = {name: _apart(several) for name, several in alike.items()}  # once a name and not once a run: a thousand runs may share one
    keys = {}
    for run in runs:
        own = {name: options[run.folder].get(name) for name in apart[named[run.folder]]}
        said = [f"{ASKED.get(name, name)}={value:g}" if name in ASKED else f"{name}={value}" for name, value in own.items() if value is not None]
        keys[run.folder] = (*named[run.folder], ", ".join(said))
    return keys


def _apart(options: Sequence[Mapping[str, Any]]) -> list[str]:
    """The options in which some of several runs differ, sorted; one that a run has not got is as good as None."""
    return sorted(name for name in set().union(*options) if len({str(one.get(name)) for one in options}) > 1)


def _further_options(run: FoundRun, named: tuple[str, ...]) -> dict[str, Any]:
    """Options that change what is computed and that `_named_by` does not name; the seed in names of other runs is left open."""
    kept = {name: value for name, value in flat(run.result["config"]).items() if not may_change(name) and not name.startswith(named)}
    seed = re.compile(rf"-s{run.result['seed']}(?!\d)")
    return {name: seed.sub("-s*", value) if isinstance(value, str) else value for name, value in kept.items()}


def _clashes(runs: Sequence[FoundRun], *, ignore_data: bool) -> list[tuple[FoundRun, FoundRun]]:
    """Pairs of runs that would stand in the same cell with the same seed."""
    keys = _keys(runs, ignore_data=ignore_data)
    seen: dict[tuple[Key, int, str], FoundRun] = {}
    found = []
    for run in runs:
        for dataset in run.result["metrics"]:
            place = (keys[run.folder], run.result["seed"], dataset)
            if place in seen:
                found.append((seen[place], run))
            seen[place] = run
    return found


def _system(key: Key, runs: Sequence[FoundRun], keys: Sequence[Key]) -> System:
    """One system, named by its stage and by what else tells it from the others."""
    stage, model, tuning, descriptions, text, data, options = key
    siblings = [other for other in keys if other[0] == stage]
    models = {other[1] for other in keys}
    parts = [model] if len(models) > 1 else []
    named = ((tuning, 2, "{}"), (descriptions, 3, "{} descriptions"), (text, 4, "trained on {} text"), (data, 5, "{}"))
    parts += [form.format(part) for part, position, form in named if len({other[position] for other in siblings}) > 1]
    parts += [options] if options else []
    ways = {str(run.result["sampling"]) for run in runs}
    if len(ways) > 1:  # its config does not say so: a result that was put together by hand
        raise IncompatibleChoice(
            f"{' and '.join(str(run.folder) for run in runs)} are one system asked in different ways: {' and '.join(sorted(ways))}. "
            f"Measure them with the same sampling options, or leave some out: only=[...] takes patterns of the run names to keep."
        )
    return System(", ".join([STAGE_NAMES[stage], *parts]), stage, model, tuning, descriptions, data, options, tuple(runs))


def draws_of(run: FoundRun, dataset: str, resamples: int, seed: int) -> dict[str, NDArray[np.float64]] | None:
    """`TABLE_METRICS` of a run in each resample of the images of a data set, shape [resamples]; None where its answers table is missing.

    Raises:
        BadRecord: the table does not give the figures of its result.json.
    """
    answers = load_answers(run, dataset)
    if answers is None:
        return None
    found = {metric: statistic for metric, statistic in statistics(answers).items() if metric in TABLE_METRICS}
    for metric, statistic in found.items():
        value, written = float(statistic(None)), run.result["metrics"][dataset].get(metric, {}).get("value", np.nan)
        if not np.isclose(value, written, rtol=0, atol=1e-6, equal_nan=True):
            raise BadRecord(
                f"{run.folder}: {metric} on {dataset} is {written:g} in result.json and {value:g} in the answers table beside it. "
                f"They are not of the same run: run it again with overwrite=true."
            )
    return draws_of_each(found, dataset, answers.images, resamples, seed)
