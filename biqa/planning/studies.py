"""A study of Optuna in a folder: trials are runs in processes of their own, judged by their validation figures.

<runs>/<study>/journal.log (Optuna's journal, on any file system that several machines share), study.lock, trial-<n>.lock, trial-<n>.log, trials.csv
"""

import csv
import fcntl
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from biqa.errors import IncompatibleChoice, UserError
from biqa.files import write_whole
from biqa.running.processes import die_with_the_parent

if TYPE_CHECKING:
    import optuna

METRICS: dict[str, Literal["minimize", "maximize"]] = {"val/srcc": "maximize", "val/plcc": "maximize", "val/loss": "minimize"}
GLANCE = 0.5
"""Seconds between two looks at a trial's validation figures."""


@dataclass(frozen=True)
class Range:
    """Values of an option that are searched: choices, or numbers from low to high (whole ones between whole ones)."""

    choices: tuple[Any, ...] = ()
    low: float = math.nan
    high: float = math.nan
    log: bool = False


@dataclass(frozen=True)
class TrialRun:
    """A run as composed from a trial's options."""

    arguments: list[str]
    folder: Path


class Study:
    """Trials in a folder.

    Args:
        folder: where the study is kept; begun there, or gone on with.
        space: option -> what is searched.
        metric: validation figure, one of METRICS; `take`: its "last" or its "best" value counts.
        seed: draws the proposals.
        prune: stop trials that are worse than the median.
        given: options of all trials: a study has one set of them.
        compose: from the options of a trial to its run.

    Raises:
        IncompatibleChoice: Optuna is not installed, or the folder holds a study of other options.
    """

    def __init__(
        self,
        folder: Path,
        *,
        space: Mapping[str, Range],
        metric: str,
        take: str,
        seed: int,
        prune: bool,
        given: Sequence[str],
        compose: Callable[[Mapping[str, Any]], TrialRun],
    ) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend, JournalStorage
        except ImportError as error:
            raise IncompatibleChoice("A search needs optuna, which is not installed: pip install 'biqa[optuna]'.") from error
        self.folder, self.metric, self.take, self.seed, self.compose = folder, metric, take, seed, compose
        self.space = {option: _distribution(values) for option, values in space.items()}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        folder.mkdir(parents=True, exist_ok=True)
        what = {
            "options": sorted(given),
            "space": {option: str(values) for option, values in sorted(self.space.items())},
            "metric": metric,
            "take": take,
        }
        with self._locked():
            self.study = optuna.create_study(
                study_name=folder.name, storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))), load_if_exists=True,
                direction=METRICS[metric], pruner=optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner(),
            )  # fmt: skip
            for key, value in what.items():
                there = self.study.user_attrs.get(key, value)
                if there != value:
                    raise IncompatibleChoice(f"{folder} holds a study with another {key}: {there} there, {value} here. Choose another search.study=.")
                self.study.set_user_attr(key, value)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time; a killed one gives the lock back."""
        with (self.folder / "study.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def run(self, trials: int) -> None:
        """Trials, until the study has so many."""
        while (asked := self._next(trials)) is not None:
            trial, claim = asked
            with claim:
                self._try(trial)

    def _next(self, trials: int) -> "tuple[optuna.Trial, TextIO] | None":
        """The next trial with the lock which says that its process lives, or None when there are enough.

        A trial whose process has died comes again with the same options: its run goes on from its checkpoint.
        """
        import optuna

        states = optuna.trial.TrialState
        with self._locked():
            for trial in self.study.get_trials(states=(states.RUNNING,)):
                if self._dead(trial.number):
                    self.study.tell(trial.number, state=states.FAIL)
                    self.study.enqueue_trial(trial.params)
            begun = (states.RUNNING, states.COMPLETE, states.PRUNED)
            if sum(trial.state in begun or "error" in trial.user_attrs for trial in self.study.trials) >= trials:
                return None
            # what is proposed depends on the seed and on what is known, not on which process asks
            self.study.sampler = optuna.samplers.TPESampler(seed=self.seed * 1_000_003 + len(self.study.trials))
            trial = self.study.ask(self.space)
            claim = (self.folder / f"trial-{trial.number}.lock").open("w")
            fcntl.flock(claim, fcntl.LOCK_EX)
            return trial, claim

    def _dead(self, number: int) -> bool:
        """Whether nobody holds the lock of a trial."""
        with (self.folder / f"trial-{number}.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return True

    def _try(self, trial: "optuna.Trial") -> None:
        """Run a trial and record what came of it."""
        import optuna

        said = ", ".join(f"{option}={value}" for option, value in trial.params.items())
        try:
            run = self.compose(trial.params)
            trial.set_user_attr("run", str(run.folder))
            value = self._train(trial, run)
        except optuna.TrialPruned:
            self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            print(f"Trial {trial.number}: {said}: stopped, below the median")
        except (UserError, HydraException, OmegaConfBaseException, TrialFailed) as error:
            trial.set_user_attr("error", str(error))
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            print(f"Trial {trial.number}: {said}: failed: {error}")
        else:
            self.study.tell(trial, value)
            print(f"Trial {trial.number}: {said}: {self.metric} {value:.4f}")

    def _train(self, trial: "optuna.Trial", run: TrialRun) -> float:
        """The figure of a run, trained in a process that dies with this one.

        Raises:
            TrialFailed: the run failed, or has no such figure.
            optuna.TrialPruned: it was stopped as hopeless.
        """
        log = self.folder / f"trial-{trial.number}.log"
        command = [sys.executable, "-m", "biqa.run", *run.arguments, "ckpt=last", "trainer.progress=false"]
        with (
            log.open("w", encoding="utf-8") as file,
            subprocess.Popen(command, stdout=file, stderr=file, preexec_fn=die_with_the_parent) as process,  # noqa: PLW1509 (no threads here)
        ):
            try:
                self._watch(process, trial, run)
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise TrialFailed(f"exit code {process.returncode}: {words[-1] if words else 'it said nothing'} ({log})")
        figures = validations(run.folder, self.metric)
        if not figures or math.isnan(figures[-1]):
            raise TrialFailed(f"{run.folder / 'logs' / 'metrics.csv'} has no {self.metric}: " + ("it is NaN" if figures else "no such column"))
        best = max if METRICS[self.metric] == "maximize" else min
        return figures[-1] if self.take == "last" else best(figures)

    def _watch(self, process: "subprocess.Popen[bytes]", trial: "optuna.Trial", run: TrialRun) -> None:
        """Until the run ends: tell Optuna each figure as it comes, and ask whether to stop."""
        import optuna

        known = 0
        while process.poll() is None:
            time.sleep(GLANCE)
            figures = validations(run.folder, self.metric)
            for step, value in enumerate(figures[known:], start=known):
                if not math.isnan(value):
                    trial.report(value, step)
            known = len(figures)
            if trial.should_prune():
                raise optuna.TrialPruned

    def show(self) -> None:
        """All trials, the best first, on the terminal and in trials.csv."""
        from rich.console import Console
        from rich.table import Table

        sign = -1 if METRICS[self.metric] == "maximize" else 1
        trials = sorted(self.study.trials, key=lambda trial: math.inf if trial.value is None else sign * trial.value)
        columns = ["trial", "state", self.metric, *self.space, "run", "error"]
        rows = [
            [trial.number, trial.state.name.lower(), "" if trial.value is None else trial.value]
            + [trial.params.get(option, "") for option in self.space]
            + [trial.user_attrs.get(name, "") for name in ("run", "error")]
            for trial in trials
        ]
        csv.writer(text := StringIO()).writerows([columns, *rows])
        write_whole(self.folder / "trials.csv", text.getvalue())
        table = Table(*columns[:-2], title=f"{self.folder}: {self.take} {self.metric} of the validation split")
        for row in rows:
            table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row[:-2]))
        Console().print(table)

    def best(self) -> dict[str, Any] | None:
        """Options of the best trial; None where no trial has a figure."""
        return None if all(trial.value is None for trial in self.study.trials) else self.study.best_params

    def last_words(self) -> str:
        """The error of the newest trial that failed."""
        return next((trial.user_attrs["error"] for trial in reversed(self.study.trials) if "error" in trial.user_attrs), "nothing")


class TrialFailed(Exception):
    """A trial has no figure."""


def _distribution(given: Range) -> Any:  # noqa: ANN401 (one of Optuna's)
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if given.choices:
        return CategoricalDistribution(given.choices)
    if isinstance(given.low, int) and isinstance(given.high, int):
        return IntDistribution(given.low, given.high, log=given.log)
    return FloatDistribution(given.low, given.high, log=given.log)


def validations(folder: Path, metric: str) -> list[float]:
    """A run's figure at each validation so far, from its logs."""
    file = folder / "logs" / "metrics.csv"
    if not file.is_file():
        return []
    return [float(row[metric]) for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()) if row.get(metric)]
