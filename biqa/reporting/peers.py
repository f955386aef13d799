"""Table 3: our systems beside published ones, data set by data set. Pearson's correlation of raw scores and of fitted ones never share a row."""

from collections.abc import Sequence

import numpy as np

from biqa.reporting.published import PEERS, Fit, Peer
from biqa.reporting.systems import System
from biqa.reporting.tables import LABELS, Cell, Column, Row, Study, Table

METRIC: dict[Fit, str] = {"raw": "plcc", "logistic": "plcc_logistic4"}
"""What was done to the scores before -> our name of that correlation."""
SAID: dict[Fit, str] = {"raw": "raw scores", "logistic": "after a logistic fit", "not said": "fit not said"}


def peers_table(study: Study, command: str) -> Table | None:
    """Our systems, once for each kind of PLCC, and the published rows on those data sets that both have; None where there is none such."""
    datasets = [dataset for dataset in study.datasets if any(dataset in peer.figures for peer in PEERS)]
    if not datasets:
        return None
    columns = tuple(Column(dataset, LABELS[metric], dataset, metric, "correlation") for dataset in datasets for metric in ("srcc", "plcc"))
    ours = [row for fit in METRIC for system in study.systems if (row := _ours(study, system, datasets, fit)) is not None]
    theirs = [_published(peer, datasets) for peer in PEERS if any(dataset in peer.figures for dataset in datasets)]
    caption = (
        "Beside published systems: SRCC and PLCC by data set. Each row says what was done to the scores before PLCC was taken. Training data, splits "
        "and images differ from row to row."
    )
    sources = "; ".join(f"{source}: {', '.join(names)}" for source, names in _by_source(datasets).items())
    notes = ("Our rows: means over seeds; their intervals stand in the table of accuracy.", f"Published rows: {sources}.")
    return Table("peers", caption, command, columns, (*ours, *theirs), notes)


def _ours(study: Study, system: System, datasets: Sequence[str], fit: Fit) -> Row | None:
    cells = [_mean(system, dataset, metric) for dataset in datasets for metric in ("srcc", METRIC[fit])]
    return Row(f"ours: {system.name} (PLCC: {SAID[fit]})", tuple(cells)) if any(cell is not None for cell in cells) else None


def _mean(system: System, dataset: str, metric: str) -> Cell | None:
    """Mean over seeds of a figure as result.json has it."""
    runs = system.runs_on(dataset)
    figures = [(run.result["seed"], run.result["metrics"][dataset].get(metric, {}).get("value", np.nan)) for run in runs]
    return Cell(float(np.mean([value for _, value in figures])), by_seed=tuple(figures)) if figures else None


def _published(peer: Peer, datasets: Sequence[str]) -> Row:
    cells: list[Cell | None] = []
    for dataset in datasets:
        printed = peer.figures.get(dataset)
        cells += [Cell(float(text), printed=f"{float(text):.3f}") for text in printed] if printed else [None, None]
    return Row(f"{peer.name} (trained on {peer.trained_on}; PLCC: {SAID[peer.fit]})", tuple(cells), paper=True)


def _by_source(datasets: Sequence[str]) -> dict[str, list[str]]:
    """Source -> the systems whose rows are taken from it."""
    found: dict[str, list[str]] = {}
    for peer in PEERS:
        if any(dataset in peer.figures for dataset in datasets):
            found.setdefault(peer.source, []).append(peer.name)
    return {source: list(dict.fromkeys(names)) for source, names in found.items()}
