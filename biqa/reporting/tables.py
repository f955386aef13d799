"""The two tables of the paper, from finished runs: accuracy by data set, and instability (METHOD.md section 5). `formats.py` writes them down."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from biqa.evaluation.bootstrap import difference
from biqa.reporting import published
from biqa.reporting.result import FoundRun, alarms_of
from biqa.reporting.systems import STAGE_NAMES, Measure, System, baseline_of, datasets_of, group_systems, mean_measure, measure_system

Kind = Literal["correlation", "gain", "percent", "points", "number"]
"""How a column is printed: correlations and gains with three digits, percent and percentage points with one, numbers as they are."""

LABELS = {"srcc": "SRCC", "plcc": "PLCC", "instability_sampled": "sampled", "instability_argmax": "arg-max"}
MEAN = "mean"
"""What stands for a data set where a figure is the mean over data sets."""


@dataclass(frozen=True)
class Cell:
    """One figure with its 95 % interval (NaN where not known)."""

    value: float
    low: float = math.nan
    high: float = math.nan
    by_seed: tuple[tuple[int, float], ...] = ()
    """The figure of each seed."""
    p: float = math.nan
    """Two-sided p-value of a difference."""
    printed: str = ""
    """How a published figure was printed; "": to be rounded like its column."""

    @property
    def std(self) -> float:
        """Standard deviation over seeds (divided by their number - 1); NaN with fewer than two."""
        return float(np.std([value for _, value in self.by_seed], ddof=1)) if len(self.by_seed) > 1 else math.nan


@dataclass(frozen=True)
class Column:
    """One column. `group` stands above the labels of several columns; `dataset` is a data set, or `MEAN`."""

    group: str
    label: str
    dataset: str
    metric: str
    kind: Kind
    stand_in: bool = False
    """Whether our figures in it rest on stand-in labels."""

    @property
    def heading(self) -> str:
        """The group, with a dagger on stand-in data (not on differences: the paper's stand in the same column)."""
        return f"{self.group}†" if self.stand_in and self.kind not in ("gain", "points") else self.group


@dataclass(frozen=True)
class Row:
    """One system; a cell is None where there is no figure. `paper` rows hold published figures."""

    system: str
    cells: tuple[Cell | None, ...]
    paper: bool = False


@dataclass(frozen=True)
class Table:
    """A table before it is written down in any format."""

    name: str
    caption: str
    command: str
    """What makes this table again."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """Everything that the tables and the figure are made of."""

    runs: tuple[FoundRun, ...]
    systems: tuple[System, ...]
    datasets: tuple[str, ...]
    measures: Mapping[tuple[str, str], Mapping[str, Measure]]
    """(system, data set) -> metric -> measure."""
    baseline: str
    resamples: int
    seed: int

    def of(self, system: System, metric: str, datasets: Sequence[str]) -> list[Measure]:
        """The measures of a system on those of the data sets where it has them."""
        found = (self.measures[system.name, dataset].get(metric) for dataset in datasets)
        return [measure for measure in found if measure is not None]

    def averaged(self, paper: Sequence[str]) -> tuple[str, ...]:
        """The data sets that a mean is taken over: those that the paper takes one over, where all of them were measured; else those with human
        opinions of their images; else all."""
        if set(paper) <= set(self.datasets):
            return tuple(paper)
        return tuple(dataset for dataset in self.datasets if not self.stand_in(dataset)) or self.datasets

    def mean(self, system: System, metric: str, datasets: Sequence[str]) -> Measure | None:
        """Mean over data sets; None where one is missing."""
        found = self.of(system, metric, datasets)
        return mean_measure(found) if found and len(found) == len(datasets) else None

    def stand_in(self, dataset: str) -> bool:
        """Whether a data set's labels are not human opinions of its very images."""
        return any(run.result["data"][dataset]["stand_in"] for run in self.runs if dataset in run.result["data"])

    def heading(self, datasets: Sequence[str]) -> str:
        """What a column over some data sets is called."""
        if len(datasets) == 1:
            return datasets[0]
        return "mean over data sets" if set(datasets) == set(self.datasets) else f"mean over {', '.join(datasets)}"

    def compared(self, averaged: Sequence[str]) -> list[tuple[str, ...]]:
        """What gains are taken over: the mean, and each stand-in by itself where it is not in that."""
        apart = [(dataset,) for dataset in self.datasets if dataset not in averaged and self.stand_in(dataset)]
        return [tuple(averaged), *apart]


def study_runs(runs: Sequence[FoundRun], *, baseline: str, resamples: int, seed: int) -> Study:
    """Group the runs and draw their figures.

    Args:
        runs: Finished runs; those that do not score images are left out.
        baseline: Stage that gains are taken over, a key of `STAGE_NAMES`.
        resamples: Bootstrap resamples; `seed` draws them.

    Raises:
        RunNotFound, IncompatibleChoice, BadRecord: as `group_systems` and `measure_system` say.
    """
    systems = group_systems(runs)
    datasets = datasets_of(systems)
    places = [(system, dataset) for system in systems for dataset in datasets]
    measures = {(system.name, dataset): measure_system(system, dataset, resamples=resamples, seed=seed) for system, dataset in places}
    used = tuple(run for system in systems for run in system.runs)
    return Study(used, tuple(systems), tuple(datasets), measures, baseline, resamples, seed)


def accuracy_table(study: Study, command: str) -> Table:
    """Table 1: SRCC and PLCC of each system by data set, the mean over data sets, and the gain over the baseline (paired bootstrap)."""
    metrics, averaged = ("srcc", "plcc"), study.averaged(published.ACCURACY_SETS)
    changes = _changes(study, metrics, averaged, f"gain over {STAGE_NAMES[study.baseline]}", "gain")
    columns = _columns(study, metrics, "correlation", averaged) + changes
    rows, notes = _rows(study, metrics, averaged)
    gains = {f"{figure.metric}_gain": Cell(figure.value, printed=figure.printed) for figure in published.GAINS}
    first = changes[: len(metrics)]  # a stand-in by itself is not what the paper's figure is of
    paper = tuple(gains[column.metric] if column in first else None for column in columns)
    rows.append(Row(f"paper ({published.BACKBONE}; {published.GAIN_DATASETS})", paper, paper=True))
    caption = "Accuracy: Spearman (SRCC) and Pearson (PLCC, raw scores) correlation with human opinion; higher is better."
    quoted = f"The row of the paper: {published.GAINS[0].source} ({published.GAIN_DATASETS}); other images, another backbone, and no interval."
    return Table("accuracy", caption, command, tuple(columns), tuple(rows), (*notes, quoted, *provenance(study)))


def stability_table(study: Study, command: str) -> Table:
    """Table 2: instability of each system by data set for both decisions, N and T, and the change against the baseline (paired bootstrap)."""
    metrics, averaged = ("instability_sampled", "instability_argmax"), study.averaged(published.INSTABILITY_SETS)
    asked = [Column("asked", "N", "", "repeats", "number"), Column("asked", "T", "", "temperature", "number")]
    columns = asked + _columns(study, metrics, "percent", averaged)
    columns += _changes(study, metrics, averaged, f"change against {STAGE_NAMES[study.baseline]} (points)", "points")
    columns.append(Column("published", "decision unknown", published.INSTABILITY_DATASETS, "instability", "percent"))
    rows, notes = _rows(study, metrics, averaged)
    sampling = {system.name: system.sampling for system in study.systems}
    asked_of = {name: tuple(Cell(float(options[column.metric])) for column in asked) for name, options in sampling.items()}
    rows = [Row(row.system, (*asked_of[row.system], *row.cells, None)) for row in rows]  # the last column is the paper's
    for name, figure in (("baseline", published.INSTABILITY_BASELINE), ("two-stage", published.INSTABILITY_TWO_STAGE)):
        cells = (*(None for _ in columns[1:]), Cell(figure.value, printed=figure.printed))
        rows.append(Row(f"paper, {name} ({published.BACKBONE}; {figure.datasets})", cells, paper=True))
    caption = (
        "Instability in percent, lower is better: each image is asked N times at temperature T; mean over images of 1 - share of the commonest "
        "level. Sampled: the level is the sampled word; arg-max: the likeliest level of each query."
    )
    quoted = (
        f"The rows of the paper: {published.INSTABILITY_BASELINE.source}; its formula, N and T are not published, so they need not be comparable."
    )
    return Table("instability", caption, command, tuple(columns), tuple(rows), (*notes, quoted, *provenance(study)))


def _columns(study: Study, metrics: Sequence[str], kind: Kind, averaged: Sequence[str]) -> list[Column]:
    """Columns of every data set, and of the mean over some where these are several."""
    groups = {dataset: (dataset, study.stand_in(dataset)) for dataset in study.datasets}
    groups |= {MEAN: (study.heading(averaged), any(map(study.stand_in, averaged)))} if len(averaged) > 1 else {}
    return [Column(group, LABELS[metric], dataset, metric, kind, mark) for dataset, (group, mark) in groups.items() for metric in metrics]


def _changes(study: Study, metrics: Sequence[str], averaged: Sequence[str], over: str, kind: Kind) -> list[Column]:
    """Columns of differences to the baseline, of what `Study.compared` says."""
    compared = study.compared(averaged)
    return [
        Column(
            over if len(compared) == 1 else f"{over}, {study.heading(datasets)}",
            LABELS[metric],
            datasets[0] if len(datasets) == 1 else MEAN,
            f"{metric}_gain",
            kind,
            any(map(study.stand_in, datasets)),
        )
        for datasets in compared
        for metric in metrics
    ]


def _rows(study: Study, metrics: Sequence[str], averaged: Sequence[str]) -> tuple[list[Row], list[str]]:
    """Rows with the cells of `_columns` and of `_changes`, and notes on gains that are missing or partial."""
    rows, notes = [], []
    for system in study.systems:
        found = [study.measures[system.name, dataset].get(metric) for dataset in study.datasets for metric in metrics]
        found += [study.mean(system, metric, averaged) for metric in metrics] if len(averaged) > 1 else []
        changes: list[Cell | None] = []
        for datasets in study.compared(averaged):
            gains, note = _gains(study, system, metrics, datasets)
            changes += gains
            notes += [note] if note and note not in notes else []
        rows.append(Row(system.name, (*(measure_cell(measure) for measure in found), *changes)))
    return rows, notes


def _gains(study: Study, system: System, metrics: Sequence[str], datasets: Sequence[str]) -> tuple[list[Cell | None], str]:
    """Differences to the baseline over those of the data sets whose test images both answered, and a note where that is not all of them."""
    nothing: list[Cell | None] = [None] * len(metrics)
    if system.stage == study.baseline:
        return nothing, ""
    base = baseline_of(system, study.systems, study.baseline)
    if base is None:
        return nothing, f"{system.name}: no gain, there is no single {STAGE_NAMES[study.baseline]} run of the same kind to compare with."
    measured = [dataset for dataset in datasets if system.runs_on(dataset) and base.runs_on(dataset)]
    shared = [dataset for dataset in measured if system.fingerprints(dataset) == base.fingerprints(dataset)]
    left_out = [dataset for dataset in datasets if dataset not in shared]
    note = f"{system.name}: the gain leaves out {', '.join(left_out)}, where the two did not answer the same images." if left_out else ""
    return [change(study, system, base, metric, shared) for metric in metrics], note


def change(study: Study, system: System, base: System, metric: str, datasets: Sequence[str]) -> Cell | None:
    """Mean over data sets of one system minus that of another, with the interval of the paired bootstrap; None where one lacks the metric on one."""
    ours, theirs = study.of(system, metric, datasets), study.of(base, metric, datasets)
    if not ours or len(ours) != len(theirs):
        return None
    first, second = mean_measure(ours), mean_measure(theirs)
    by_seed = tuple((seed, value - second.by_seed[seed]) for seed, value in first.by_seed.items() if seed in second.by_seed)
    if first.draws is None or second.draws is None:
        return Cell(first.value - second.value, by_seed=by_seed)
    found = difference(first.value - second.value, first.draws - second.draws)
    return Cell(found.value, found.low, found.high, by_seed, found.p)


def measure_cell(measure: Measure | None) -> Cell | None:
    """A measure as it stands in a table."""
    if measure is None:
        return None
    found = measure.estimate
    return Cell(found.value, found.low, found.high, tuple(measure.by_seed.items()))


def provenance(study: Study) -> tuple[str, ...]:
    """Notes below a table: what the marks mean, and what made the figures."""
    results = [run.result for run in study.runs]
    warnings = [f"WARNING: {run.name}, {dataset}: {text}" for run in study.runs for dataset, text in alarms_of(run.result)]
    stand_ins = [dataset for dataset in study.datasets if study.stand_in(dataset)]
    notes = [
        f"[low, high]: 95 % percentile bootstrap over images ({study.resamples} resamples, seed {study.seed}); differences by the paired bootstrap."
    ]
    if any(len(system.runs_on(dataset)) > 1 for system in study.systems for dataset in study.datasets):
        notes.append("a ± b: mean and standard deviation over seeds; the interval is that of the mean over these seeds.")
    if any(len({run.result["run"]["data"] for run in system.runs}) > 1 for system in study.systems):
        notes.append("Each data set's figures are of the model trained on it.")
    if stand_ins:
        notes.append(f"† stand-in: the labels of {', '.join(stand_ins)} are not human opinions of these very images.")
    sampling = _distinct(results, lambda result: f"{result['sampling']['top_p']:g}")
    versions = _distinct(results, lambda result: ", ".join(f"{name} {number}" for name, number in result["versions"].items()))
    hardware = _distinct(results, lambda result: ", ".join([str(result["hardware"].get("cpu")), *result["hardware"].get("gpus", [])]))
    seeds = _distinct(results, lambda result: str(result["seed"]))
    commits = _distinct(results, lambda result: result["git_commit"] or "not in a checkout")
    notes.append(f"Seeds: {seeds}. Top-p: {sampling}. Hardware: {hardware}. Commit: {commits}. Versions: {versions}.")
    return (*warnings, *notes)


def _distinct(results: Sequence[dict], text: Callable[[dict], str]) -> str:
    return "; ".join(sorted({text(result) for result in results}))
