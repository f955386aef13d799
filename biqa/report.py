"""The door to the paper's tables: finished runs -> table.md, table.tex, table.csv, and figures as png and svg.

python -m biqa.report runs=runs out=experiments/main_table
python -m biqa.report --help
"""

import sys

from biqa.doors.help import show_help

if __name__ == "__main__":
    show_help("report", sys.argv[1:])

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from biqa.config import config_directory, unknown_options
from biqa.doors.opening import open_door, refuse_unknown, user_errors
from biqa.errors import IncompatibleChoice, RunNotFound
from biqa.files import raise_unwritten, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from biqa.reporting.result import FoundRun
    from biqa.reporting.tables import Study, Table

BASELINES = ("joint", "zero_shot", "inference")
DRAWN, PANELS = 48, 240
"""Systems, and panels of a system and data set, that a figure shows at most: more are no picture that one can look at, or can draw."""


@dataclass
class ReportConfig:
    """What to report, and where to."""

    runs: str = MISSING
    """Folder that holds the runs; every result.json below it counts."""
    out: str = MISSING
    """Folder that the tables and the figure are written to."""
    baseline: str = MISSING
    """Stage that gains are taken over: joint (one-stage, as in the paper), zero_shot or inference."""
    reference: str | None = None
    """A pattern of the names of one system's runs: then an ablation table is made, with every system's differences to that one, and none of the
    paper's two."""
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
        problems += ["reference= is empty: give a pattern of run names, or leave it out."] if self.reference == "" else []
        if problems:
            raise IncompatibleChoice("\n".join(problems))


ConfigStore.instance().store(name="report_schema", node=ReportConfig, provider="biqa")


@hydra.main(version_base="1.3", config_path=config_directory(), config_name="report")
@user_errors
def main(composed: DictConfig) -> None:
    """Report the runs that the options name."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, ReportConfig)
    refuse_unknown(unknown_options(config), composed)
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

    from biqa.reporting.figures import write_figure
    from biqa.reporting.formats import rich_table
    from biqa.reporting.tables import study_runs

    out = Path(config.out)
    study = study_runs(runs, baseline=config.baseline, resamples=config.resamples, seed=config.seed)
    tables = tables_of(study, config.reference, command_of(config))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise_unwritten(error, out)
        raise IncompatibleChoice(f"out={out} cannot be made ({error.strerror}). Choose a folder that you may write to.") from error
    write_tables(tables, out)
    drawn = best_of(study)
    figures = figures_of(drawn, ablation=config.reference is not None)
    for name, figure in figures.items():
        write_figure(figure, out / f"{name}.png", out / f"{name}.svg")

    console = Console()
    for table in tables:
        console.print(rich_table(table))
    for note in dict.fromkeys(note for table in tables for note in table.notes):
        console.print(note, markup=False, highlight=False)
    if len(drawn.systems) < len(study.systems):
        console.print(
            f"The figures show the {len(drawn.systems)} of {len(study.systems)} systems with the highest SRCC; only=[...] chooses others.",
            markup=False,
            highlight=False,
        )
    pictures = ", ".join(f"{name}.png, {name}.svg" for name in figures)
    console.print(f"Written to {out}: table.md, table.tex, table.csv, {pictures}", markup=False, highlight=False)


def tables_of(study: "Study", reference: str | None, command: str) -> "list[Table]":
    """The paper's two tables, and what others published where that is on the same data sets; with a reference the table of an ablation."""
    from biqa.reporting.ablation import ablation_table
    from biqa.reporting.peers import peers_table
    from biqa.reporting.tables import accuracy_table, stability_table

    if reference is not None:
        return [ablation_table(study, reference, command)]
    made = (accuracy_table(study, command), stability_table(study, command), peers_table(study, command))
    return [table for table in made if table is not None]


def best_of(study: "Study") -> "Study":
    """The systems that figures have room for: those with the highest SRCC, a mean over the data sets that each was measured on, in their order."""
    most = max(1, min(DRAWN, PANELS // len(study.datasets)))
    if len(study.systems) <= most:
        return study
    ranked = sorted(study.systems, key=lambda system: fmean(measure.value for measure in study.of(system, "srcc", study.datasets)))
    kept = {system.name for system in ranked[-most:]}
    return replace(study, systems=tuple(system for system in study.systems if system.name in kept))


def figures_of(study: "Study", *, ablation: bool) -> "dict[str, Figure]":
    """Name -> figure: scores against human quality with instability, and which images flip; of an ablation its systems side by side, and instability
    against how they were asked where they differ in that.
    """
    from biqa.reporting.figures import draw_figure
    from biqa.reporting.study_figures import draw_ablation, draw_asking, draw_flips, way_of_asking

    if ablation:
        way = way_of_asking(study)
        return {"figure": draw_ablation(study), **({"asking": draw_asking(study, way)} if way else {})}
    flips = draw_flips(study)
    return {"figure": draw_figure(study), **({"flips": flips} if flips else {})}


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
    """The command that makes the same tables again, ready for a shell. It stands in tables that are published: the home folder is $HOME."""
    options = [f"runs={config.runs}", f"out={config.out}", f"baseline={config.baseline}", f"resamples={config.resamples}", f"seed={config.seed}"]
    options += [f"reference={config.reference}"] if config.reference is not None else []
    options += [] if config.only == ["*"] else [f"only=[{','.join(config.only)}]"]
    home = str(Path.home())
    plain = [word.replace(home, "$HOME") if len(home) > 1 and shlex.quote(word) == word else shlex.quote(word) for word in options]
    return " ".join(["python", "-m", "biqa.report", *plain])


def write_tables(tables: "Sequence[Table]", out: Path) -> None:
    """table.md, table.tex and table.csv, each whole or not at all."""
    from biqa.reporting.formats import csv_text, latex, markdown

    texts = {"table.md": "\n".join(map(markdown, tables)), "table.tex": "\n".join(map(latex, tables)), "table.csv": csv_text(tables)}
    for name, text in texts.items():
        write_whole(out / name, text)


if __name__ == "__main__":
    open_door(main)
