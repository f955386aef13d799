"""Run folders: what lies where in one, whether a config may use it, and how a stage 2 finds its stage 1.

runs/<name>/config.yaml  checkpoints/  model/ or adapter/  descriptions/  answers/<dataset>.parquet  logs/  result.json
"""

import io
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from biqa.config import choice_of
from biqa.config.checks import did_you_mean, nearest
from biqa.config.identity import flat, may_change
from biqa.config.reading import yaml_text
from biqa.errors import RunExists, RunNotFound
from biqa.files import write_whole

STAGE_ONE = "biqa.stages.perception.Perception"
"""`_target_` of stage 1."""


@dataclass(frozen=True)
class RunFolder:
    """Places inside one run folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config, written when the run starts."""
        return self.path / "config.yaml"

    @property
    def result(self) -> Path:
        """The figures, written last: a folder with it is a finished run."""
        return self.path / "result.json"

    @property
    def job(self) -> Path:
        """Number of the cluster's job that began the run, if one did; there before the config, so that no run is begun without it."""
        return self.path / "job"

    @property
    def lock(self) -> Path:
        """Held by the run that is at work here (`biqa.running.alone`); gone when it has ended."""
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """Resumable checkpoints of an unfinished run."""
        return self.path / "checkpoints"

    @property
    def descriptions(self) -> Path:
        """What stage 1 wrote about the images of a stage-2 run."""
        return self.path / "descriptions"

    @property
    def regression(self) -> Path:
        """What a stage has learnt at once, without steps (stage=probe)."""
        return self.path / "regression.safetensors"

    @property
    def merged(self) -> Path:
        """Base and adapter as one model (`export.merge=true`)."""
        return self.path / "merged"

    def answers(self, dataset: str) -> Path:
        """The answers table of one data set."""
        return self.path / "answers" / f"{dataset}.parquet"

    @property
    def asked(self) -> bool:
        """Whether a model has been asked anything that is kept here."""
        return any(any(folder.glob("*.*")) for folder in (self.path / "answers", self.descriptions))

    @property
    def finished(self) -> bool:
        """Whether the run has its result."""
        return self.result.is_file()

    def read_config(self) -> dict[str, Any]:
        """The config as plain values. It is data, and may be somebody else's: nothing in it is instantiated, and it refers to nothing.

        Raises:
            RunExists: config.yaml is damaged, of another program, or holds a reference, which would be followed, into the environment too.
        """
        away = f"Move the folder {self.path} away, or name another."
        try:
            found = OmegaConf.to_container(OmegaConf.load(io.StringIO(yaml_text(self.config))), resolve=False)
        # OSError: OmegaConf's for a file that holds a number; ValueError, TypeError: YAML's for dates and keys that are none
        except (YAMLError, OmegaConfBaseException, OSError, ValueError, TypeError, RecursionError) as error:
            raise RunExists(f"{self.config} cannot be read: {' '.join(str(error).split())}. {away}") from error
        stage = found.get("stage") if isinstance(found, dict) else None
        if not isinstance(stage, dict) or not isinstance(stage.get("_target_"), str):
            raise RunExists(f"{self.config} is no config of a run of biqa. {away}")
        for name, value in flat(plain(found)).items():
            if "${" in str(value):
                raise RunExists(f"{self.config}: {name}={value} is a reference, and the config of a run holds values. Write the value itself.")
        return plain(found)

    def open(self, config: Mapping[str, Any], *, resume: bool, overwrite: bool) -> bool:
        """Check that this run may use the folder. Nothing changes yet: `start` is what clears it with `overwrite`.

        Returns:
            True when the run is finished already: there is nothing to do.

        Raises:
            RunExists: the folder belongs to another config, to something else, or to an unfinished run and `resume` is off.
        """
        place = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not place.is_dir() or not os.access(place, os.W_OK):
            raise RunExists(f"{self.path} cannot be made: {place} is no folder that you may write to. Choose another runs=.")
        if not self.path.exists() or not any(path not in (self.job, self.lock) for path in self.path.iterdir()):
            return False
        if not self.config.is_file():
            raise RunExists(f"{self.path} is there already and is no run folder (it has no config.yaml). Choose another name= or runs=.")
        there = self.read_config()  # before overwrite=true: it deletes no folder of another program
        if overwrite:
            return False
        # what answers may be chosen until something was asked: nothing of the run has depended on it
        differs = different(there, config, without=() if self.asked else ("answers.",))
        if differs:
            raise RunExists(
                f"{self.path} holds a run with another config:\n"
                + "\n".join(shortened(differs))
                + "\nChoose another name=, or overwrite=true to delete it."
            )
        if not self.finished and not resume:
            raise RunExists(f"{self.path} holds an unfinished run of this config: add ckpt=last to go on with it, or overwrite=true to start again.")
        return self.finished

    def start(self, config: Mapping[str, Any], *, overwrite: bool = False, job: str | None = None) -> None:
        """Make the folder (with `overwrite` anew, once `open` has agreed) and write into it the job that this is, if any, and the config.

        Raises:
            RunExists: the old one cannot be deleted.
        """
        if overwrite:
            self._delete()
        self.path.mkdir(parents=True, exist_ok=True)
        if job is not None:
            write_whole(self.job, job)
        write_whole(self.config, OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def _delete(self) -> None:
        """Nothing of the old run may stay but its lock: answers that do would be taken for those of the new one."""
        failed: list[str] = []
        for path in [path for path in self.path.glob("*") if path != self.lock]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, onerror=lambda _, inner, __: failed.append(inner))
            else:
                path.unlink(missing_ok=True)
        if first := next((path for path in failed if Path(path).exists()), None):
            raise RunExists(f"{self.path} cannot be deleted: {first} stays. Close what uses it, or choose another name=.")


def plain(config: Any) -> dict[str, Any]:  # noqa: ANN401 (OmegaConf's own return type)
    """A container of OmegaConf as a dictionary with string keys."""
    assert isinstance(config, dict), f"a config is a mapping, got {type(config).__name__}"
    return {str(key): value for key, value in config.items()}


def different(there: Mapping[str, Any], here: Mapping[str, Any], within: tuple[str, ...] = ("",), without: tuple[str, ...] = ()) -> list[str]:
    """Options below the prefixes `within`, and not `without`, that differ and matter, one line each: `  stage.epochs: 5 there, 3 here`."""
    return [f"  {name}: {a} there, {b} here" for name, (a, b) in differences(there, here, within, without).items()]


def differences(
    there: Mapping[str, Any], here: Mapping[str, Any], within: tuple[str, ...] = ("",), without: tuple[str, ...] = ()
) -> dict[str, tuple[Any, Any]]:
    """The same options as dotted name -> both values, "absent" for one that a config has not."""
    a, b = flat(there), flat(here)
    names = [name for name in sorted(a | b) if name.startswith(within) and not name.startswith(without) and not may_change(name)]
    differ = [name for name in names if _as_absent(a.get(name)) != _as_absent(b.get(name))]
    return {name: (a.get(name, "absent"), b.get(name, "absent")) for name in differ}


def shortened(lines: Sequence[str], most: int = 4) -> list[str]:
    """The first lines, and how many more there are: a message that one reads."""
    return [*lines] if len(lines) <= most else [*lines[: most - 1], f"  and {len(lines) - most + 1} more"]


def _as_absent(value: Any) -> Any:  # noqa: ANN401 (whatever an option is)
    """An option that is off is as good as one that an older release did not have."""
    return None if value is False or value in ("none", [], {}) else value


def find_run(path: str | Path, needed_for: str, stage_class: str | None = None) -> RunFolder:
    """The finished run in a folder that the user named.

    Args:
        path: the folder.
        needed_for: the option that names it, for the message.
        stage_class: `_target_` of the stage that it must be a run of; None: any.

    Raises:
        RunNotFound: no such folder, no run in it, not finished, or a run of another stage.
    """
    folder = RunFolder(Path(path))
    if not folder.config.is_file():
        near = did_you_mean([str(folder.path.parent / name) for name in nearest(folder.path.name, _names_of_runs(folder.path.parent))])
        raise RunNotFound(
            f"{needed_for}={path}: no run there (a run folder has a config.yaml).{near or ' biqa ls runs=FOLDER lists those that there are.'}"
        )
    if not folder.finished:
        raise RunNotFound(
            f"{needed_for}={path}: that run is not finished (it has no result.json). Finish it first: the command that began it, with ckpt=last."
        )
    found = folder.read_config()["stage"]["_target_"]
    if stage_class not in (None, found):
        raise RunNotFound(
            f"{needed_for}={path}: that is a run of stage={choice_of(found)}, and one of stage={choice_of(str(stage_class))} is needed. "
            f"biqa ls runs=FOLDER shows the stage of each run."
        )
    return folder


def _names_of_runs(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold a run."""
    return [path.parent.name for path in folder.glob("*/config.yaml")]


def find_stage_one(config: Mapping[str, Any], choices: Mapping[str, str], stage_class: str) -> RunFolder:
    """The finished stage 1 that a stage 2 builds on: same model, data, images, descriptions, quantization, tuning kind and seed.

    What an adapter learns is also what its packed base has lost, so only a stage 1 on the same packing is taken unasked. Another one can be named.

    Args:
        config: the stage-2 run's config.
        choices: model, data, tuning and quantization as typed, for the message.
        stage_class: `_target_` of the stage 1.

    Raises:
        RunNotFound: none, or several; the message says which command makes one or which option names one.
    """
    found = fitting_stage_ones(config, Path(config["runs"]), stage_class)
    if len(found) == 1:
        return found[0]
    named = {"model": "", "data": "", "tuning": "full", "quantization": "none"}  # and those that go without saying
    wanted = " ".join(f"{group}={choices[group]}" for group, usual in named.items() if choices.get(group, usual) != usual) + f" seed={config['seed']}"
    if not found:
        raise RunNotFound(
            f"stage 2 needs a finished stage 1 with {wanted} and the same options of model, data, images and descriptions; "
            f"none lies in {config['runs']}/. Run it first: python -m biqa.run stage=1 {wanted} (and your other options), "
            f"or name one: stage.perception=FOLDER."
        )
    raise RunNotFound(
        f"{len(found)} finished stage-1 runs fit {wanted}: {', '.join(str(folder.path) for folder in found)}. Say which: stage.perception=FOLDER."
    )


def fitting_stage_ones(config: Mapping[str, Any], runs: Path, stage_class: str) -> list[RunFolder]:
    """The finished stage-1 runs in a folder of runs that a stage 2 builds on (see `find_stage_one`)."""
    found = []
    for path in sorted(runs.glob("*/config.yaml")):
        folder = RunFolder(path.parent)
        if not folder.finished or stage_class.encode() not in path.read_bytes():  # to parse a config takes longer, and there may be a thousand
            continue
        try:
            other = folder.read_config()
        except RunExists:  # something else that lies among the runs
            continue
        same = other.get("seed") == config["seed"] and other.get("tuning", {}).get("kind") == config["tuning"]["kind"]
        if (
            same
            and other.get("stage", {}).get("_target_") == stage_class
            and not different(other, config, ("data.", "images.", "model.", "descriptions.", "quantization."))
        ):
            found.append(folder)
    return _one_of_each(found) if len(found) > 1 else found


def _one_of_each(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """The runs without those that have learnt the very same as one before: a run and its rerun serve alike."""
    from biqa.reporting.sameness import weights_of

    kept: dict[str, RunFolder] = {}
    for run in runs:
        kept.setdefault("".join(weights_of(run.path).values()) or str(run.path), run)
    return [*kept.values()]
