"""The door to what is inside a finished run: does the verdict follow from the description, where is it decided, what is attended to?

python -m biqa.analyze run=runs/tiny-joint-synthetic-s0 analysis=all against=runs/tiny-inference-synthetic-s0
python -m biqa.analyze --help

Writes runs/<name>/analysis/: for each analysis <name>.parquet (the data), <name>.json (the figures with their intervals) and pictures (png, svg);
tables.md, the tables that it prints; with analysis=all also report.html. What was made before from the same answers and settings is taken as it is;
what was begun goes on.
"""

import sys

from biqa.doors.help import show_help

if __name__ == "__main__":
    show_help("analyze", sys.argv[1:])

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from biqa.config import config_directory, unknown_options
from biqa.doors.opening import open_door, refuse_unknown, user_errors
from biqa.errors import IncompatibleChoice, UserError

if TYPE_CHECKING:
    from biqa.finished.opened import OpenedRun

CHOICES = ("grounding", "logit_lens", "attention", "contradiction", "gap")


@dataclass
class AnalyzeConfig:
    """What to look at, and in which run."""

    run: str = MISSING
    """Folder of a finished run of stage=joint, inference or zero_shot."""
    analysis: str = MISSING
    """One of `CHOICES`, or "all"."""
    against: str | None = None
    """Folder of another finished run, to stand beside it."""
    images: int | None = None
    """Images of each data set, at most; null: all. The paper averages attention over 720."""
    show: list[str] = field(default_factory=list)
    """Images with figures of their own; none named: three, from low to high quality."""
    folds: int = MISSING
    """Of the cross-validation."""
    resamples: int = MISSING
    """Bootstrap resamples behind each 95 % interval."""
    seed: int = MISSING
    """Draws images, folds and resamples."""
    batch_size: int = MISSING
    """Images that the model is shown at a time."""
    accelerator: str = MISSING
    """"auto" (a GPU where there is one), "cpu" or "cuda"."""
    progress: bool = True
    """Whether a bar shows how far it is."""

    def __post_init__(self) -> None:
        least = {"folds": 2, "resamples": 1, "seed": 0, "batch_size": 1, "images": 2}
        given = {option: getattr(self, option) for option in least}
        problems = [
            f"{option}={value}: choose {least[option]} or more."
            for option, value in given.items()
            if value not in (None, MISSING) and value < least[option]
        ]
        if self.analysis not in (*CHOICES, "all", MISSING):
            problems.append(f"analysis={self.analysis} is not known: choose {', '.join(CHOICES)}, or all.")
        if self.accelerator not in ("auto", "cpu", "cuda", MISSING):
            problems.append(f"accelerator={self.accelerator} is not known: choose auto, cpu or cuda.")
        if self.against is not None and self.against == self.run:
            problems.append(f"against={self.against} is the run itself: name another one.")
        if problems:
            raise IncompatibleChoice("\n".join(problems))


ConfigStore.instance().store(name="analyze_schema", node=AnalyzeConfig, provider="biqa")


@hydra.main(version_base="1.3", config_path=config_directory(), config_name="analyze")
@user_errors
def main(composed: DictConfig) -> None:
    """Look inside the run that the options name."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, AnalyzeConfig)
    refuse_unknown(unknown_options(config), composed)
    analyze(config)


def analyze(config: AnalyzeConfig) -> None:
    """Make what was not made yet, draw it, and print the tables.

    Raises:
        UserError: as the analyses say; with analysis=all one that cannot be made is told, and the others are.
    """
    from biqa.finished.opened import OpenedRun

    how: dict[str, Any] = {"most": config.images, "always": config.show, "seed": config.seed, "accelerator": config.accelerator}
    opened = [OpenedRun(config.run, **how)]
    if config.against is not None:
        opened.append(OpenedRun(config.against, option="against", **how))
    if config.accelerator == "cuda":  # before a folder is made
        from biqa.finished.restoring import chosen_device

        chosen_device(config.accelerator)
    from biqa.stages.limits import limits_in_words

    with limits_in_words(opened[0].folder.path, then="the same command goes on"):
        look(config, dict(zip(labels(opened), opened, strict=True)))


def labels(opened: "Sequence[OpenedRun]") -> list[str]:
    """What the runs are called side by side: by their stages where those differ, else by their names."""
    stages = {"joint": "one-stage", "inference": "two-stage", "zero_shot": "zero-shot"}
    names = [stages[one.stage] for one in opened]
    return names if len(set(names)) == len(names) else [one.name for one in opened]


def look(config: AnalyzeConfig, systems: "dict[str, OpenedRun]") -> None:
    """All that was asked for, of one run or two."""
    from rich.console import Console

    from biqa.finished.analyses import Settings, Task, analyse
    from biqa.finished.showing import Shown, figures, figures_of_images, narrow_tables, on_the_terminal, page, write_tables

    Shown(systems, {}, config.show).chosen()  # a name that is not there is told before time is spent
    settings = Settings(config.images, config.folds, config.resamples, config.seed, config.batch_size)
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for name in CHOICES if config.analysis == "all" else (config.analysis,):
        try:
            found[name] = {
                label: analyse(Task(name, opened, settings, partial(progress, said=f"{name}, {label}", wanted=config.progress)))
                for label, opened in systems.items()
            }
        except UserError as error:
            if config.analysis != "all":
                raise
            notes.append(f"{name} is left out: {error}")
    shown = Shown(systems, found, config.show)
    of_sets, of_images = figures(shown), figures_of_images(shown)
    if config.analysis == "all" and found:
        page(shown, of_sets, of_images, notes)
    write_tables(shown)
    console = Console()
    for table in narrow_tables(shown):
        console.print(on_the_terminal(table))
    for note in notes:
        console.print(note, markup=False, highlight=False)
    folder = next(iter(systems.values())).folder.path / "analysis"
    console.print(f"Written to {folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}", markup=False, highlight=False)


def progress(done: Iterable[None], number: int, said: str, *, wanted: bool) -> Iterable[None]:
    """Pieces as they are done, with a bar that shows how many of them are."""
    from rich.progress import track

    return track(done, description=said, total=number) if wanted else done


if __name__ == "__main__":
    open_door(main)
