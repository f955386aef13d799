"""The table of an ablation: systems that differ in one option, each with its paired difference to a reference."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from biqa.errors import IncompatibleChoice
from biqa.reporting.systems import System
from biqa.reporting.tables import LABELS, Cell, Column, Kind, Row, Study, Table, change, measure_cell, provenance

METRICS: dict[str, tuple[Kind, Kind]] = {
    "srcc": ("correlation", "gain"),
    "plcc": ("correlation", "gain"),
    "instability_sampled": ("percent", "points"),
    "instability_argmax": ("percent", "points"),
}
"""Metric -> how it and its difference are printed."""


def ablation_table(study: Study, reference: str, command: str) -> Table:
    """Every system's accuracy and instability by data set, and its differences to the reference on the same images (paired bootstrap).

    Args:
        study: the systems.
        reference: a pattern that fits the names of the reference's runs and of no other's.
        command: what makes the table again.

    Raises:
        IncompatibleChoice: the pattern fits the runs of no system, or of several.
    """
    base = _reference(study.systems, reference)
    columns = [
        Column(dataset, LABELS[metric], dataset, metric, kinds[0], study.stand_in(dataset))
        for dataset in study.datasets
        for metric, kinds in METRICS.items()
    ]
    columns += [
        Column(f"minus {base.name}" + (f", {dataset}" if len(study.datasets) > 1 else ""), LABELS[metric], dataset, f"{metric}_gain", kinds[1])
        for dataset in study.datasets
        for metric, kinds in METRICS.items()
    ]
    rows = []
    for system in study.systems:
        figures = [measure_cell(study.measures[system.name, dataset].get(metric)) for dataset in study.datasets for metric in METRICS]
        rows.append(Row(system.name, (*figures, *_changes(study, system, base))))
    caption = (
        f"Accuracy (higher is better) and instability in percent (lower is better), and what changes against {base.name} on the same images. "
        f"Differences of instability are percentage points."
    )
    asked = "; ".join(sorted({f"N = {one.sampling['repeats']}, T = {one.sampling['temperature']:g}" for one in study.systems}))
    return Table("ablation", caption, command, tuple(columns), tuple(rows), (f"Asked: {asked}.", *provenance(study)))


def _reference(systems: Sequence[System], pattern: str) -> System:
    fitting = [system for system in systems if all(fnmatchcase(run.name, pattern) for run in system.runs)]
    if len(fitting) != 1:
        names = "; ".join(f"{system.name}: {system.runs[0].name}" for system in systems)
        raise IncompatibleChoice(
            f"reference={pattern} fits the runs of {len(fitting)} systems, and has to fit those of one. Systems and a run of each: {names}."
        )
    return fitting[0]


def _changes(study: Study, system: System, base: System) -> list[Cell | None]:
    """Differences by data set and metric; none to itself, and none where the two did not answer the same images."""
    cells: list[Cell | None] = []
    for dataset in study.datasets:
        same = system is not base and system.fingerprints(dataset) == base.fingerprints(dataset)
        cells += [change(study, system, base, metric, [dataset]) if same else None for metric in METRICS]
    return cells
