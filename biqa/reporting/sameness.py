"""Whether two run folders hold the same, bit for bit: weights, what was said, figures."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from biqa.config.identity import flat
from biqa.evaluation.answers import read_table

WEIGHTS = ("model", "adapter", ".")
"""Folders of what was learnt, in the run's folder or that itself (stage=probe)."""
TABLES = ("answers", "descriptions")
"""Folders of what was said."""
ABSENT = "not there"


@dataclass(frozen=True)
class Sameness:
    """Whether one thing came out the same."""

    what: str
    same: bool
    told: str
    """How much of it, or how it differs."""


def same_weights(original: Path, made: Path) -> Iterator[Sameness]:
    """Each file of weights by its SHA-256."""
    there, here = weights_of(original), weights_of(made)
    for name in sorted(there | here):
        first, second = (found.get(name, ABSENT) for found in (there, here))
        yield Sameness(name, first == second, f"SHA-256 {first[:16]}" if first == second else f"SHA-256 {first[:16]} then, {second[:16]} now")


def weights_of(run: Path) -> dict[str, str]:
    """File of weights, relative to the run's folder -> its SHA-256."""
    return {name: _sha256(run / name) for name in _names([run], WEIGHTS, "*.safetensors")}


def same_tables(original: Path, made: Path) -> Iterator[Sameness]:
    """Each table of answers or descriptions, row by row."""
    for name in _names([original, made], TABLES, "*.parquet"):
        there = [folder for folder in (original, made) if (folder / name).is_file()]
        if len(there) == 1:
            yield Sameness(name, False, f"only in {there[0]}")
            continue
        first, second = (read_table(folder / name) for folder in (original, made))
        yield Sameness(name, first.equals(second), f"{len(first)} rows" if first.equals(second) else _rows_apart(first, second))


def same_figures(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sameness:
    """All figures of two results, with their intervals."""
    first, second = (flat(result["metrics"]) for result in (before, after))
    apart = [name for name in sorted(first.keys() | second.keys()) if json.dumps(first.get(name)) != json.dumps(second.get(name))]
    return Sameness("figures", not apart, f"{len(first)} numbers" if not apart else f"{len(apart)} of {len(first)} numbers differ, first {apart[0]}")


def _rows_apart(first: pd.DataFrame, second: pd.DataFrame) -> str:
    """How two tables differ."""
    if list(first.columns) != list(second.columns) or len(first) != len(second):
        return f"{len(first)} rows then, {len(second)} now"
    apart = ~((first == second) | (first.isna() & second.isna())).all(axis=1)
    scores = f", scores by up to {(first['score'] - second['score']).abs().max():.2g}" if "score" in first.columns else ""
    return f"{int(apart.sum())} of {len(first)} rows differ{scores}"


def _names(runs: Sequence[Path], folders: Sequence[str], pattern: str) -> list[str]:
    """Names of files, relative to a run folder, that one of the runs has."""
    return sorted({str(file.relative_to(run)) for run in runs for folder in folders for file in (run / folder).glob(pattern)})


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
