"""What a finished run answers with, found from its folder alone: config, weights, the stage 1 behind a stage 2, device and precision.

Runs that one builds on are named by where they lay then. A folder of runs that has been moved or copied is whole: they are looked for beside it too.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from biqa.config import SCHEMAS
from biqa.doors.opening import of_type
from biqa.errors import IncompatibleChoice, RunExists, RunNotFound
from biqa.running.building import AUTOCAST
from biqa.running.instantiate import KINDS, choices
from biqa.runs import STAGE_ONE, RunFolder, find_run, fitting_stage_ones, plain

INFERENCE = "biqa.stages.inference.Inference"
"""`_target_` of stage 2."""
GROUPS = ("model", "stage", "data", "descriptions", "tuning", "quantization", "sampling", "trainer")
"""Options that say what a run answers with, and of which images."""
NEEDED = ("model", "stage", "data", "tuning", "sampling", "trainer")
"""Those that the first release had."""
EDITED = "Is it of another release, or was it edited?"


def composed_of(folder: RunFolder) -> DictConfig:
    """The config of a run, as it was composed.

    Raises:
        RunExists: it is damaged, holds more than values, or values of other types than options have.
    """
    values = folder.read_config()
    for group in GROUPS:
        found = values.get(group)
        if found is None and group not in NEEDED:  # of an older release
            continue
        if not isinstance(found, dict):
            raise RunExists(f"{folder.config} has no group of options {group}. {EDITED}")
        if group in KINDS and found.get("_target_") not in choices(group):
            raise RunExists(f"{folder.config}: {group}._target_={found.get('_target_')} is refused: no choice of conf/{group} has it. {EDITED}")
        _refuse_other_types(group, found, folder.config)
    return OmegaConf.create(values)


def _refuse_other_types(group: str, found: Mapping[str, Any], file: Path) -> None:
    of_target = (schema for schema in SCHEMAS.values() if getattr(schema, "_target_", None) == found.get("_target_"))
    schema = SCHEMAS.get(group) or next(of_target, None)
    if schema is None:  # a reader of a release: its options are few, and it checks them
        return
    known = {field.name for field in fields(schema)}
    try:
        OmegaConf.merge(OmegaConf.structured(schema), {name: value for name, value in found.items() if name in known})
    except OmegaConfBaseException as error:
        raise RunExists(f"{file}: {group}.{error.full_key}={found.get(str(error.full_key))}: {of_type(error)} {EDITED}") from error


@contextmanager
def whole(folder: RunFolder) -> Iterator[None]:
    """While its config is used: an option that is not there is told in words.

    Raises:
        RunExists: one is not there.
    """
    try:
        yield
    except (ConfigAttributeError, ConfigKeyError, MissingMandatoryValue) as error:
        raise RunExists(f"{folder.config} has no {error.full_key}. {EDITED}") from error


def answered_with(folder: RunFolder, config: DictConfig, stage_one: RunFolder | None = None) -> RunFolder | None:
    """The run whose weights it answered with: itself where it has learnt, else the one that it began with; None: the base weights.

    Args:
        folder: the finished run.
        config: its config.
        stage_one: what a stage 2 builds on, where that is known; None: it is looked for if it is needed.

    Raises:
        RunNotFound: what it learnt is gone, or the run that it began with.
    """
    if config.stage.epochs:
        if not any((folder.path / kind).is_dir() for kind in ("adapter", "model")):
            raise RunNotFound(
                f"{folder.path}: what it has learnt is gone (neither model/ nor adapter/ is there). Put it back, or run that run again with "
                f"overwrite=true."
            )
        return folder
    began = config.stage.get("init_from")
    if began is None and config.stage._target_ == INFERENCE:
        return stage_one or stage_one_behind(folder, config)
    return None if began in (None, "base") else _named_by(folder, began, "stage.init_from")


def stage_one_behind(folder: RunFolder, config: DictConfig, named: str | PathLike[str] | None = None) -> RunFolder:
    """The stage 1 whose descriptions a finished stage 2 judges.

    Args:
        folder: the stage 2.
        config: its config.
        named: where the user says that it lies; None: where the config says, or the one that fits it beside the run, or where runs lay then.

    Raises:
        RunNotFound: it is not there, or several fit.
    """
    if named is not None:
        return find_run(Path(named), "perception", STAGE_ONE)
    if config.stage.perception is not None:
        return _named_by(folder, config.stage.perception, "stage.perception", STAGE_ONE, "perception=FOLDER")
    places = list(dict.fromkeys((_beside(folder), Path(config.runs).absolute())))
    for runs in places:
        found = fitting_stage_ones(plain(OmegaConf.to_container(config)), runs, STAGE_ONE)
        if len(found) > 1:
            listed = ", ".join(str(one.path) for one in found)
            raise RunNotFound(
                f"{folder.path}: {len(found)} finished stage-1 runs fit it: {listed}. Say which one described for it: perception=FOLDER."
            )
        if found:
            return found[0]
    raise RunNotFound(
        f"{folder.path} judges what a stage 1 says, and no finished stage 1 of the same model, data and seed ({config.seed}) lies in "
        f"{' or '.join(map(str, places))}. Put it beside the run, or name it: perception=FOLDER."
    )


def _named_by(folder: RunFolder, named: str, option: str, stage_class: str | None = None, instead: str = "") -> RunFolder:
    """A run that another one names in its config."""
    for path in (Path(named), _beside(folder) / Path(named).name):
        if RunFolder(path).config.is_file():
            return find_run(path, option, stage_class)
    remedy = f", or name it: {instead}" if instead else ""
    raise RunNotFound(
        f"{folder.path} builds on another run, {option}={named}, which lies neither there nor in {_beside(folder)}. Put it beside this one{remedy}."
    )


def _beside(folder: RunFolder) -> Path:
    return folder.path.absolute().parent


def chosen_device(wanted: str, option: str = "accelerator") -> torch.device:
    """A device by name.

    Args:
        wanted: "auto" (a GPU where there is one), "cpu", "cuda", or torch's name of one, as "cuda:1".
        option: what names it, for messages.

    Raises:
        IncompatibleChoice: there is none of that name here.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise IncompatibleChoice(f"{option}={wanted} is no device: choose auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise IncompatibleChoice(f"{option}={wanted}: there is no GPU here that PyTorch can use. Choose {option}=cpu or auto.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise IncompatibleChoice(f"{option}={wanted}: there are {torch.cuda.device_count()} GPUs here, counted from 0.")
    return device


def computing(config: DictConfig, device: torch.device) -> AbstractContextManager[Any]:
    """A run's own precision: its answers were made in it."""
    kind = AUTOCAST.get(str(config.trainer.precision))
    return torch.autocast(device.type, kind) if kind else nullcontext()
