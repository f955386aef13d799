"""A finished run once more, from its config.yaml alone, and whether it came out the same, bit for bit.

biqa rerun runs/NAME
biqa rerun runs/NAME name=again runs=elsewhere
biqa rerun runs/NAME trainer.progress=false ckpt=last

Options (option=value)
  run         folder of the finished run; its name alone will do
  name        of the new run; if nothing is said, that of the run with -rerun behind it
  runs        folder that the new run is made in; if nothing is said, the one that the run lies in
  perception  of a stage 2: the stage 1 that described for it, where several fit

Options of biqa run that may change between two calls of one run go too: data.root=, trainer.devices=, images.cache=, ckpt=last, overwrite=true, ...
Exit code 0 when weights, answers and figures are the same bit for bit, 1 when they are not: what differs is listed, with the versions, the commit
and the hardware that differ. On one CPU with the same number of threads and the same versions they should be the same; a GPU does not promise it.
The config is data: its values pass the checks of a typed command, and it can name nothing but what the choices of biqa name.
"""

import sys

from biqa.doors.arguments import open_light_door, read_options, show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from biqa.errors import IncompatibleChoice

if TYPE_CHECKING:
    from biqa.runs import RunFolder


@dataclass
class RerunOptions:
    """Which run, and where the new one goes."""

    run: str
    """Folder of the finished run."""
    name: str | None = None
    """Of the new one; null: the run's own with -rerun behind it."""
    runs: str | None = None
    """Folder of the new one; null: the one that the run lies in."""
    perception: str | None = None
    """Folder of the stage 1 behind a stage 2; null: found as then."""


def main(arguments: Sequence[str]) -> int:
    """Run it again and compare; 0 where it came out the same.

    Raises:
        UserError: as `recomposed` says, or as the run itself.
    """
    from biqa import config as schema
    from biqa.finished.recomposed import as_typed, filled_in, recomposed
    from biqa.run import run
    from biqa.runs import RunFolder, find_run

    own, further = divided(arguments)
    options = read_options(own, RerunOptions, alone=("run",))
    original = find_run(options.run, "run")
    name, runs = options.name or f"{original.path.resolve().name}-rerun", options.runs or as_typed(original.path.absolute().parent)
    if Path(runs, name).resolve() == original.path.resolve():
        raise IncompatibleChoice(f"name={name}: that is the run itself, which stays as it is. Choose another name= or runs=.")
    schema.register()
    composed, config, choices = recomposed(original, name=name, runs=runs, perception=options.perception, further=further)
    for line in filled_in(original, composed):
        print(line)
    logging.getLogger().setLevel(logging.ERROR)  # as Hydra does it for biqa.run
    run(config, composed, choices)
    if config.dry_run or config.estimate:
        return 0
    place = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))  # where torchrun or srun started several, one of them speaks
    return report(original, RunFolder(Path(config.runs) / config.name)) if place == "0" else 0


def divided(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Arguments of this door, and options for the run.

    Raises:
        IncompatibleChoice: an option would make another run.
    """
    from biqa.config import Config
    from biqa.config.checks import did_you_mean, nearest
    from biqa.config.identity import NO_DIFFERENCE, may_change

    own, of_run = ({option.name for option in fields(options)} for options in (RerunOptions, Config))
    further: list[str] = []
    wrong: list[str] = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if equals and name not in own and (name in of_run or "." in name):
            (further if may_change(name) else wrong).append(argument)
    if wrong:
        meant = did_you_mean(nearest(wrong[0].partition("=")[0], [option for option in NO_DIFFERENCE if "." in option], most=1))
        another = f"For another: biqa run {' '.join(wrong)}"
        raise IncompatibleChoice(f"{' '.join(wrong)} would make another run, and this is to be the same one.{meant} {another}")
    return [argument for argument in arguments if argument not in further], further


def report(original: "RunFolder", made: "RunFolder") -> int:
    """Print what is the same and what is not; the exit code."""
    from biqa.reporting.pairwise import different_origins
    from biqa.reporting.result import read_result
    from biqa.reporting.sameness import same_figures, same_tables, same_weights

    before, after = (read_result(folder.result) for folder in (original, made))
    found = [*same_weights(original.path, made.path), *same_tables(original.path, made.path), same_figures(before, after)]
    for one in found:
        print(f"{'same' if one.same else 'DIFFERS':<9}{one.what:<34}{one.told}")
    origins = different_origins(before, after)
    for name, (a, b) in origins.items():
        print(f"{'':<9}{name}: {a if a is not None else 'not known'} then, {b if b is not None else 'not known'} now")
    if all(one.same for one in found):
        print(f"{made.path} is {original.path}, bit for bit.")
        return 0
    why = "what differs above" if origins else "another number of threads (OMP_NUM_THREADS), a GPU, or data that have changed"
    print(f"{made.path} is not {original.path}. What may be behind it: {why}. How much it matters: biqa compare {original.path} {made.path}")
    return 1


if __name__ == "__main__":
    open_light_door(main)
