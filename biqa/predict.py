"""The door to your own pictures: description, level and score of files, folders and patterns, by a finished run.

python -m biqa.predict run=runs/tiny-inference-synthetic-s0 photo.jpg holiday 'scans/*.png'
python -m biqa.predict run=runs/tiny-inference-synthetic-s0 holiday out=scores.csv repeats=10 --html
python -m biqa.predict --help

On a terminal it prints a table, into a pipe a line of JSON a picture; notes and progress go to stderr. It ends with 0 where every picture was scored,
with 3 where some could not be read, with 2 on a mistake in the command or where no picture could be read, with 1 where the machine is not enough.
"""

import sys

from biqa.doors.help import show_help

if __name__ == "__main__":
    show_help("predict", sys.argv[1:])

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

import biqa
from biqa.config import config_directory, unknown_options
from biqa.data.pictures import Pictures, pictures_named
from biqa.doors.opening import open_door, refuse_unknown, user_errors
from biqa.errors import BadRecord, IncompatibleChoice
from biqa.runs import find_run

if TYPE_CHECKING:
    from rich.console import Console

    from biqa.evaluation.predictions import Prediction
    from biqa.finished.predicting import Scorer
    from biqa.reporting.predictions import Result

SOME_UNREADABLE = 3
"""Exit code where some pictures could not be read and the others were scored."""
PAGE = "predictions.html"
"""What --html writes."""
WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd", "--experimental-rerun")
"""Hydra's flags that the next argument belongs to."""
PICTURES: list[str] = []
"""What this command names beside options: kept from Hydra, whose grammar does not take every name of a file, and is slow with thousands."""


@dataclass
class PredictConfig:
    """Which pictures to look at, with which run, and where to write what it says."""

    run: str = MISSING
    """Folder of a finished run of stage=joint, inference, zero_shot or probe."""
    images: list[str] = field(default_factory=list)
    """Files, folders and patterns, beside those that stand on the command line without a name."""
    perception: str | None = None
    """Folder of the stage 1 of a two-stage run; null: found as the run found it, or beside it."""
    repeats: int = MISSING
    """How often each picture is asked again, for its instability; 0: once, greedily."""
    out: str | None = None
    """File for the results, .jsonl or .csv; null: stdout."""
    html: str | None = None
    """Page of pictures from best to worst; null: none."""
    batch_size: Any = MISSING
    """Pictures answered at a time; "auto": as many as fit into memory."""
    accelerator: str = MISSING
    """"auto" (a GPU where there is one), "cpu" or "cuda"."""
    seed: int | None = None
    """Draws the repeated answers; null: the run's own."""
    progress: bool = True
    """Whether a bar shows how far it is."""
    overwrite: bool = False
    """Whether files that are there already may be replaced."""

    def __post_init__(self) -> None:
        counted = isinstance(self.batch_size, int) and not isinstance(self.batch_size, bool) and self.batch_size >= 1
        problems = [
            (
                self.repeats != MISSING and (self.repeats < 0 or self.repeats == 1),
                f"repeats={self.repeats}: one answer cannot disagree with itself. Choose 2 or more, or 0 to ask once.",
            ),
            (self.batch_size not in ("auto", MISSING) and not counted, f"batch_size={self.batch_size}: choose 1 or more, or auto."),
            (self.accelerator not in ("auto", "cpu", "cuda", MISSING), f"accelerator={self.accelerator} is not known: choose auto, cpu or cuda."),
            (self.seed is not None and not 0 <= self.seed < 2**32, f"seed={self.seed}: choose 0 or more, below 2^32."),
            (self.run == "", "run= is empty: name the folder of a finished run."),
            (
                self.out is not None and not self.out.lower().endswith((".jsonl", ".csv")),
                f"out={self.out}: its ending says what is written. Choose a name that ends in .jsonl or .csv.",
            ),
            (self.html is not None and not self.html.lower().endswith(".html"), f"html={self.html}: choose a name that ends in .html."),
        ]
        if said := [text for wrong, text in problems if wrong]:
            raise IncompatibleChoice("\n".join(said))


ConfigStore.instance().store(name="predict_schema", node=PredictConfig, provider="biqa")


@hydra.main(version_base="1.3", config_path=config_directory(), config_name="predict")
@user_errors
def main(composed: DictConfig) -> None:
    """Predict for the pictures that the command names."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, PredictConfig)
    refuse_unknown(unknown_options(config), composed)
    try:
        code = predict(config, PICTURES)
    except BrokenPipeError:  # whoever reads has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python will flush what is left
        code = 128 + signal.SIGPIPE
    if code:
        raise SystemExit(code)


def enter() -> None:
    """Open the door with what `sys.argv` holds: pictures are put apart, options are left to Hydra."""
    sys.argv[1:], PICTURES[:] = options_and_pictures(sys.argv[1:])
    open_door(main)


def options_and_pictures(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell pictures from options: what is there on the disk, or has no `=` and no dash before it, is a picture; so is all that follows `--`.

    `--html` is short for `html=predictions.html`, `--html=page.html` for `html=page.html`.
    """
    options: list[str] = []
    pictures: list[str] = []
    coming = iter(arguments)
    for argument in coming:
        if argument == "--":
            pictures += coming
        elif os.path.lexists(argument):
            pictures.append(argument)
        elif argument == "--html" or argument.startswith("--html="):
            options.append(f"html={argument.partition('=')[2] or PAGE}")
        elif argument in WITH_VALUE:
            options += [argument, *([value] if (value := next(coming, None)) is not None else [])]
        elif argument.startswith(("-", "~")) or "=" in argument:
            options.append(argument)
        else:
            pictures.append(argument)
    return options, pictures


def predict(config: PredictConfig, named: Sequence[str]) -> int:
    """Score the pictures, and write what is said of each as it comes.

    Args:
        config: the options.
        named: pictures beside `config.images`.

    Returns:
        The exit code: 0, or `SOME_UNREADABLE`.

    Raises:
        UserError: a mistake in the command; or no picture could be read, which is said when all else is written.
        MachineLimit: memory or disk are not enough.
    """
    find_run(config.run, "run")  # before what takes seconds to import
    found = pictures_named([*config.images, *named])

    from rich.console import Console

    from biqa.reporting.predictions import JsonLines, OnTheTerminal, Whole, temporary_name, write_predictions_page

    page = None if config.html is None else Path(config.html)
    if page is not None:
        temporary_name(page, overwrite=config.overwrite, option="html")
    table = config.out is None and sys.stdout.isatty()
    console = Console() if table else Console(stderr=True)
    with ExitStack() as opened:
        if config.out is not None:
            rows = opened.enter_context(Whole(Path(config.out), overwrite=config.overwrite))
        else:
            rows = OnTheTerminal(console, found.paths, repeated=config.repeats > 0) if table else JsonLines(sys.stdout)
        results: list[Result] = []  # a sentence and some numbers each
        with limits(Path(config.out or ".")):
            scorer = scorer_of(config)
            for result in shown(every(scorer, found, config.repeats), console, len(found.paths), wanted=config.progress):
                rows.add(result)
                results.append(result)
            if page is not None:
                title = f"What {scorer.name} says of {len(scored(results))} pictures"
                write_predictions_page(page, title, facts(scorer, config, results), results, notes(scorer))
    for note in [*notes(scorer), *(f"Written to {file}" for file in (config.out, config.html) if file is not None)]:
        print(note, file=sys.stderr)
    return outcome(results)


def limits(place: Path) -> AbstractContextManager[None]:
    """Tells a lack of memory or disk in words."""
    from biqa.stages.limits import limits_in_words

    return limits_in_words(place.absolute(), then="the same command begins anew")


def scorer_of(config: PredictConfig) -> "Scorer":
    """The run, ready to be asked."""
    from biqa.finished.predicting import Scorer

    return Scorer(
        config.run, device=config.accelerator, perception=config.perception, batch_size=config.batch_size, seed=config.seed, option="accelerator"
    )


def every(scorer: "Scorer", found: Pictures, repeats: int) -> "Iterator[Result]":
    """Results as they are made, what cannot even be opened first. What has no score is told on stderr too."""
    from biqa.evaluation.predictions import Unreadable
    from biqa.reporting.predictions import printable

    closed = (Unreadable(path, reason) for path, reason in found.closed.items())
    for result in chain(closed, scorer.each(found.paths, repeats=repeats)):
        if isinstance(result, Unreadable):
            print(printable(f"{result.image}: {result.reason}"), file=sys.stderr)
        yield result


def shown(results: "Iterable[Result]", console: "Console", number: int, *, wanted: bool) -> "Iterator[Result]":
    """The same, with a bar that shows how far it is, where somebody sees it. Neither stdout nor a stderr that is a file is touched by it."""
    from rich.progress import Progress

    hidden = not (wanted and console.is_terminal)
    with Progress(console=console, transient=True, redirect_stdout=False, redirect_stderr=sys.stderr.isatty() and not hidden, disable=hidden) as bar:
        yield from bar.track(results, total=number, description="Looking")


def scored(results: "Sequence[Result]") -> "list[Prediction]":
    """Those that have a score."""
    from biqa.evaluation.predictions import Prediction

    return [result for result in results if isinstance(result, Prediction)]


def facts(scorer: "Scorer", config: PredictConfig, results: "Sequence[Result]") -> dict[str, str]:
    """What the page says of the run and of all pictures together."""
    of = [result.score for result in scored(results)]
    run, unreadable = scorer.result["run"], len(results) - len(of)
    return {
        "name": scorer.name,
        "model": run["model"],
        "stage": run["stage"],
        "has learnt from": scorer.learnt_from,
        "pictures": f"{len(of)} scored{f', {unreadable} could not be read' if unreadable else ''}",
        **({"scores": f"{min(of):.3f} to {max(of):.3f}, mean {sum(of) / len(of):.3f}"} if of else {}),
        **({"asked again": f"{config.repeats} times a picture"} if config.repeats else {}),
        "made with": f"biqa {biqa.__version__}",
    }


def notes(scorer: "Scorer") -> list[str]:
    """What must be known to read the scores."""
    from biqa.reporting.result import alarms_of

    warnings = [f"WARNING: {scorer.name}, on {dataset}: {text}" for dataset, text in alarms_of(scorer.result)]
    if not scorer.stand_ins:
        return warnings
    return [
        *warnings,
        f"STAND-IN: {scorer.name} has learnt from labels that are no human opinions of those very pictures ({', '.join(scorer.stand_ins)}).",
    ]


def outcome(results: "Sequence[Result]") -> int:
    """The exit code, told in words where something is missing.

    Raises:
        BadRecord: nothing could be read.
    """
    number = len(scored(results))
    if not number:
        raise BadRecord(f"Of {len(results)} pictures none could be read: there is no score.")
    if number == len(results):
        return 0
    print(f"{number} pictures scored, {len(results) - number} could not be read (named above).", file=sys.stderr)
    return SOME_UNREADABLE


if __name__ == "__main__":
    enter()
