"""The paper's tables: finds the data sets, trains zero-shot, one-stage and two-stage, measures them, and sets them beside what was published.

python -m biqa.reproduce                                          the stand-in: model=tiny, synthetic data, a CPU, minutes
python -m biqa.reproduce data_root=/data                          and every published data set that lies below /data
python -m biqa.reproduce model=owl2 data_root=/data model.path=MAGAer13/mplug-owl2-llama2-7b tuning=lora model.dtype=bfloat16
python -m biqa.reproduce model=qwen3_vl data_root=/data tuning=lora images.shorter_side=512 seeds=[0]
make reproduce-table MODEL=owl2 DATA_ROOT=/data ARGS="model.size=tiny"

Options (option=value)
  model      the choice of biqa.run's model=; tiny
  data_root  folder that holds the data sets, as unpacked, each under its official name, or one folder deeper; BIQA_DATASETS, or datasets/
  seeds      of each system, as [0,1,2]; 0, 1, 2 on published data and 0 on the stand-in
  train      choices of data to train on, as [koniq]; koniq and spaq where both are there, else all that are
  runs       where the runs lie; runs/main_table
  out        folder of the tables; experiments/main_table, with another model experiments/main_table-<model>
  estimate   whether hours and disk are estimated first, by trying a step and some answers; true

Every other option goes to each run: model.size=tiny tuning=lora stage.epochs=1 sampling.repeats=5 trainer.devices=4 ...

Each run is a call of `python -m biqa.run` in a process of its own, so that its memory is free after it. What is finished is not run again, and the
same command goes on after a kill. Exit codes: those of a run that failed; 130 and 143 after a signal.
"""

import sys

from biqa.doors.arguments import open_light_door, read_options, show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

from biqa.errors import DatasetNotFound, IncompatibleChoice, NoDiskSpace

if TYPE_CHECKING:
    from biqa.data.discovery import Finds
    from biqa.planning.plan import PlannedRun, PlannedStudy
    from biqa.reporting.estimate import Estimate

OF_ONE_RUN = ("stage", "seed", "data", "test", "name", "ckpt", "overwrite", "dry_run", "estimate", "experiment", "sweep")
"""Options of `biqa.run` that the plan gives each run itself."""


@dataclass
class ReproduceOptions:
    """Which tables, from which data."""

    model: str = "tiny"
    """Choice of `model=`."""
    data_root: str | None = None
    """Folder that holds the data sets; null: the environment variable BIQA_DATASETS, or `datasets`."""
    seeds: list[str] = field(default_factory=list)
    """Of each system; []: 0, 1, 2 on published data and 0 on the stand-in."""
    train: list[str] = field(default_factory=list)
    """Choices of data to train on; []: KonIQ-10k and SPAQ where both are there, else all that are."""
    runs: str = "runs/main_table"
    """Where the runs lie."""
    out: str | None = None
    """Folder of the tables; null: experiments/main_table, with another model than tiny experiments/main_table-<model>."""
    estimate: bool = True
    """Whether hours and disk are estimated first."""

    def __post_init__(self) -> None:
        if not all(seed.isdigit() for seed in self.seeds) or len(set(self.seeds)) < len(self.seeds):
            raise IncompatibleChoice(f"seeds=[{','.join(self.seeds)}]: give different whole numbers from 0 on, as seeds=[0,1,2].")


def main(arguments: Sequence[str]) -> int:
    """Make the tables that the options name; the exit code."""
    known = {option.name for option in fields(ReproduceOptions)}
    own = [one for one in arguments if one.startswith("--") or one.partition("=")[0] in known or "=" not in one]
    options = [one for one in arguments if one not in own]
    given = [option.partition("=")[0] for option in options if re.split(r"[=@]", option.lstrip("+~"))[0] in OF_ONE_RUN]
    if given:
        raise IncompatibleChoice(
            f"{given[0]}= is what the plan gives each run: leave it out. What is trained on what is chosen by seeds=, train= and data_root=."
        )
    reproduce(read_options(own, ReproduceOptions), options)
    return 0


def reproduce(config: ReproduceOptions, options: Sequence[str]) -> None:
    """Look for data, say what is planned and what it will cost, run what is not finished, and write the tables.

    Args:
        config: this door's options.
        options: further ones of every run.

    Raises:
        DatasetNotFound: `data_root` is no folder.
        SystemExit: a run failed (its exit code), or a signal came (130, 143).
    """
    from biqa.planning.plan import plan_studies

    finds = look_for_data(config)
    seeds = [int(seed) for seed in config.seeds] or None
    studies = plan_studies(model=config.model, found=finds.found, seeds=seeds, runs=Path(config.runs), train=config.train, options=options)
    show_plan(config, studies)
    costs = estimate(studies) if config.estimate else {}
    carry_out([run for study in studies for run in study.runs], costs)
    write_tables(config, options, studies)


def look_for_data(config: ReproduceOptions) -> "Finds":
    """What lies below `data_root`, said in a line a data set."""
    from biqa.data.discovery import READERS, Finds, discover

    root = Path(config.data_root or os.environ.get("BIQA_DATASETS", "datasets"))
    if not root.is_dir():
        if config.data_root is not None:
            raise DatasetNotFound(
                f"data_root={config.data_root}: there is no such folder. Name the one that holds the data sets as they were unpacked "
                f"(databaserelease2/, CSIQ/, SPAQ/, koniq10k/, ...)."
            )
        print(f"No published data: there is no folder {root}/. With data_root=FOLDER (or BIQA_DATASETS) they are found by their official names:")
        for choice, reader in READERS.items():
            print(f"  {choice:8} {reader.release.folders[0]:20} {reader.release.source}")
        return Finds(missing=list(READERS))
    finds = discover(root)
    print(f"Data below {root}:")
    for one in finds.found:
        part = f" of the release's {one.whole}" if one.whole not in (None, one.images) else ""
        print(f"  found       {one.choice:8} {one.images} images{part}, {one.folder}")
    for bad in finds.incomplete:
        print(f"  incomplete  {bad.choice:8} {bad.folder}: {bad.reason}. Left out; biqa prepare data={bad.choice} data.root={bad.folder} says more.")
    for choice in finds.missing:
        release = READERS[choice].release
        print(f"  missing     {choice:8} {release.folders[0]}: {release.source}")
    return finds


def show_plan(config: ReproduceOptions, studies: "Sequence[PlannedStudy]") -> None:
    """What will be trained on what, and what of it is there."""
    for study in studies:
        done = sum(run.folder.finished for run in study.runs)
        seeds = ", ".join(str(seed) for seed in dict.fromkeys(run.seed for run in study.runs))
        print(
            f"{config.model} trained on {study.data}, measured on {', '.join(study.tests)}; seeds {seeds}: {len(study.runs)} runs"
            + (f", {done} of them finished" if done else "")
        )


@dataclass(frozen=True)
class Cost:
    """What one run is thought to take."""

    seconds: float
    disk_bytes: float


def estimate(studies: "Sequence[PlannedStudy]") -> dict[Path, Cost]:
    """Run folder -> what it will take, of those that are not finished; says the sum.

    A dry run of a one-stage run of each study measures a training step and some answers. Stage 1 trains and answers as that does; stage 2 describes
    and trains on texts, which is counted as much, so that the sum is more likely too high than too low.

    Raises:
        SystemExit: the dry run was refused, with its exit code: so would the run be.
        NoDiskSpace: the disk below `runs` is not enough.
    """
    from biqa.files import nearest_folder
    from biqa.reporting.estimate import amount, duration

    costs: dict[Path, Cost] = {}
    for study in studies:
        left = [run for run in study.runs if not run.folder.finished]
        if left:
            found = dry_run(study.first("joint"))
            whole = Cost(found.total_seconds, found.disk_bytes)
            answers = Cost(found.total_seconds - found.seconds.get("fit", 0.0), found.disk["answers"])
            costs |= {run.folder.path: answers if run.stage == "zero_shot" else whole for run in left}
    if costs:
        seconds, needed = sum(cost.seconds for cost in costs.values()), sum(cost.disk_bytes for cost in costs.values())
        runs = next(iter(costs)).parent
        free = shutil.disk_usage(nearest_folder(runs)).free
        print(f"Estimated for {len(costs)} runs: {duration(seconds)}, {amount(needed)} of disk ({amount(free)} are free)", flush=True)
        if needed > free:
            raise NoDiskSpace(
                f"{runs}: {len(costs)} runs need about {amount(needed)} and {amount(free)} are free. Free some, name another disk with "
                f"runs=FOLDER, or make fewer with seeds=[0]."
            )
    return costs


def dry_run(run: "PlannedRun") -> "Estimate":
    """What `dry_run=true` says of a run."""
    from biqa.planning.plan import quoted
    from biqa.reporting.estimate import read_estimate

    with tempfile.TemporaryDirectory(prefix="biqa-") as place:
        file = Path(place) / "estimate.json"
        command = [sys.executable, "-m", "biqa.run", *run.overrides, f"estimate={quoted(str(file))}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None, text=True, check=False)
        if done.returncode:
            print(done.stdout, end="")
            print(f"That is what {run.title} says before anything is run.", file=sys.stderr)
            raise SystemExit(done.returncode)
        return read_estimate(file)


def carry_out(runs: "Sequence[PlannedRun]", costs: dict[Path, Cost]) -> None:
    """Run what is not finished, one after another; before each, what it is and how much time is left by what the others took.

    Raises:
        SystemExit: a run failed, or was stopped.
    """
    from biqa.reporting.estimate import duration

    taken = expected = 0.0
    for number, run in enumerate(runs, start=1):
        head = f"[{number}/{len(runs)}] {run.title}"
        if run.folder.finished:
            print(f"{head}: finished already")
            continue
        left = sum(cost.seconds for path, cost in costs.items() if not (path / "result.json").is_file())
        pace = taken / expected if expected else 1.0
        print(head + (f"; about {duration(left * pace)} left" if costs else ""), flush=True)
        start = time.monotonic()
        call(run)
        taken += time.monotonic() - start
        expected += costs[run.folder.path].seconds if costs else 0.0


def call(run: "PlannedRun") -> None:
    """One run in a process of its own, which gets the signals that come here and has its time to save.

    Raises:
        SystemExit: with its exit code, or with that of the signal.
    """
    from biqa.running.processes import die_with_the_parent

    command = [sys.executable, "-m", "biqa.run", *run.overrides]
    stopped: list[int] = []
    # in a group of its own, so that a signal from the terminal comes here alone, as one from elsewhere does
    with subprocess.Popen(command, process_group=0, preexec_fn=die_with_the_parent) as process:  # noqa: PLW1509 (no threads here)

        def hand_on(number: int, _: object) -> None:
            stopped.append(number)
            process.send_signal(number)

        before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if stopped:
        print("The same command goes on.", file=sys.stderr)
        raise SystemExit(128 + stopped[0])
    if code:
        print(f"{run.title} ended with exit code {code}: see above. What is finished stays; the same command goes on.", file=sys.stderr)
        print(f"By itself: {shlex.join(['python', '-m', 'biqa.run', *run.overrides])}", file=sys.stderr)
        raise SystemExit(code if code > 0 else 128 - code)


def write_tables(config: ReproduceOptions, options: Sequence[str], studies: "Sequence[PlannedStudy]") -> None:
    """The tables and the figure of the runs of the plan."""
    from biqa.planning.plan import ending
    from biqa.report import ReportConfig, report

    out = config.out or ("experiments/main_table" if config.model == "tiny" else f"experiments/main_table-{config.model}")
    end = ending(options)
    only = [f"{config.model}-*-{study.data}-s{seed}{end}" for study in studies for seed in dict.fromkeys(run.seed for run in study.runs)]
    report(ReportConfig(runs=config.runs, out=out, baseline="joint", only=only, resamples=1000, seed=0))


if __name__ == "__main__":
    open_light_door(main)
