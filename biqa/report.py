"""The door to the paper's tables: finished runs -> table.md, table.tex, table.csv, figure.png, figure.svg.

python -m biqa.report runs=runs out=experiments/main_table
python -m biqa.report --help
"""

import sys

from biqa.help import show_help

if __name__ == "__main__":
    show_help("report", sys.argv[1:])

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from biqa.config import config_directory
from biqa.doors import open_door, user_errors
from biqa.errors import IncompatibleChoice, RunNotFound

if TYPE_CHECKING:
    from biqa.reporting.result import FoundRun
    from biqa.reporting.tables import Table

BASELINES = ("joint", "zero_shot", "inference")


@dataclass
class ReportConfig:
    """What to report, and where to."""

    runs: str = MISSING
    """Folder that holds the runs; every result.json below it counts."""
    out: str = MISSING
    """Folder that the tables and the figure are written to."""
    baseline: str = MISSING
    """Stage that gains are taken over: joint (one-stage, as in the paper), zero_shot or inference."""
    only: list[str] = field(default_factory=list)
    """Patterns of run names (* and ?); a run counts when one of them fits."""
    resamples: int = MISSING
    """Bootstrap resamples behind each 95 % interval."""
    seed: int = MISSING
    """Draws the resamples."""

    def __post_init__(self) -> None:
        problems = []
        if self.baseline not in (*BASELINES, MISSING):
            problems.append(f"baseline={self.baseline} is not known: choose {', '.join(BASELINES)}.")
        if self.resamples != MISSING and self.resamples < 1:
            problems.append(f"resamples={self.resamples}: choose 1 or more.")
        if self.seed != MISSING and self.seed < 0:
            problems.append(f"seed={self.seed}: choose 0 or more.")
        problems += [f"{option}= is empty: name a folder." for option, value in (("runs", self.runs), ("out", self.out)) if not value]
        if problems:
            raise IncompatibleChoice("\n".join(problems))


ConfigStore.instance().store(name="report_schema", node=ReportConfig, provider="biqa")


@hydra.main(version_base="1.3", config_path=config_directory(), config_name="report")
@user_errors
def main(composed: DictConfig) -> None:
    """Report the runs that the options name."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, ReportConfig)
    if unknown := sorted(set(vars(config)) - {option.name for option in fields(ReportConfig)}):
        raise IncompatibleChoice(f"There is no option {', '.join(unknown)}. See --help for those that there are.")
    report(config)


def report(config: ReportConfig) -> None:
    """Write tables and figure, and print the tables.

    Raises:
        RunNotFound: no finished run that scores images is left.
        IncompatibleChoice: `out` cannot be made a folder.
        IncompatibleChoice, BadRecord: as `study_runs` says.
    """
    from biqa.reporting.result import find_results

    runs = keep(find_results(Path(config.runs)), config.only, config.runs)

    from rich.console import Console

    from biqa.reporting.figures import draw_figure, write_figure
    from biqa.reporting.formats import rich_table
    from biqa.reporting.tables import accuracy_table, stability_table, study_runs

    out = Path(config.out)
    study = study_runs(runs, baseline=config.baseline, resamples=config.resamples, seed=config.seed)
    command = command_of(config)
    tables = [accuracy_table(study, command), stability_table(study, command)]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IncompatibleChoice(f"out={out} cannot be made ({error.strerror}). Choose a folder that you may write to.") from error
    write_tables(tables, out)
    write_figure(draw_figure(study), out / "figure.png", out / "figure.svg")

    console = Console()
    for table in tables:
        console.print(rich_table(table))
    for note in dict.fromkeys(note for table in tables for note in table.notes):
        console.print(note, markup=False, highlight=False)
    console.print(f"Written to {out}: table.md, table.tex, table.csv, figure.png, figure.svg", markup=False, highlight=False)


def keep(runs: "Sequence[FoundRun]", patterns: Sequence[str], where: str) -> "list[FoundRun]":
    """The runs whose name fits one of the patterns.

    Raises:
        RunNotFound: none does; the message lists the names.
    """
    kept = [run for run in runs if any(fnmatchcase(run.name, pattern) for pattern in patterns)]
    if not kept:
        names = ", ".join(run.name for run in runs)
        raise RunNotFound(f"only=[{','.join(patterns)}] fits none of the {len(runs)} finished runs below {where}: {names}. Choose other patterns.")
    return kept


def command_of(config: ReportConfig) -> str:
    """The command that makes the same tables again, ready for a shell."""
    options = [f"runs={config.runs}", f"out={config.out}", f"baseline={config.baseline}", f"resamples={config.resamples}", f"seed={config.seed}"]
    options += [] if config.only == ["*"] else [f"only=[{','.join(config.only)}]"]
    return shlex.join(["python", "-m", "biqa.report", *options])


def write_tables(tables: "Sequence[Table]", out: Path) -> None:
    """table.md, table.tex and table.csv, each under a temporary name first."""
    from biqa.reporting.formats import csv_text, latex, markdown

    texts = {"table.md": "\n".join(map(markdown, tables)), "table.tex": "\n".join(map(latex, tables)), "table.csv": csv_text(tables)}
    for name, text in texts.items():
        temporary = out / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out / name)


if __name__ == "__main__":
    open_door(main)
