"""The config of a finished run, composed anew: as typed and as checked as a command, although it comes from a file.

Values go into what Hydra composes of the same choices, whose types, names and `_target_`s hold. So a config.yaml that somebody has sent can set
options, and name nothing that is run; it can refer to nothing, and send nothing anywhere.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from biqa import config as schema
from biqa.config.identity import flat
from biqa.doors.opening import in_words, no_option, of_type
from biqa.errors import IncompatibleChoice
from biqa.reporting.result import read_result
from biqa.runs import RunFolder, plain

NAMED = ("model", "stage", "data", "descriptions", "tuning", "quantization", "strategy", "logger")
"""Groups whose choice is given; that of the others the values tell."""
CHOSEN_ANEW = ("strategy", "logger")
"""Groups whose choice may change between two calls of one run."""


def recomposed(
    original: RunFolder, *, name: str, runs: str, perception: str | None = None, further: Sequence[str] = ()
) -> tuple[DictConfig, schema.Config, dict[str, str]]:
    """The config of a run once more, under another name.

    Args:
        original: the finished run.
        name: of the new one; `runs` the folder that it is made in.
        perception: of a stage 2, the stage 1 that described for it; None: found as then.
        further: NAME=VALUE of options that may change between two calls of one run.

    Returns:
        The composed config, the same as objects, and the choices by group.

    Raises:
        RunExists, BadRecord: config.yaml or result.json cannot be read.
        IncompatibleChoice: a value is not of its type, an option is not known, a `_target_` is none of the choice, or options cannot go together.
        RunNotFound: the stage 1 of a stage 2 is not there, or several fit.
    """
    then = original.read_config()
    refuse_foreign_server(then, further, original.config)
    chosen = {group: str(choice) for group, choice in read_result(original.result)["run"].items() if group != "name"}
    anew = dict(argument.split("=", 1) for argument in further if argument.partition("=")[0] in CHOSEN_ANEW)
    values = {option: value for option, value in then.items() if option not in anew}
    composed = _filled(values | {"name": name, "runs": runs, "ckpt": None, "overwrite": False}, {**chosen, **anew}, original.config)
    _set(composed, [argument for argument in further if argument.partition("=")[0] not in CHOSEN_ANEW])
    if then["stage"]["_target_"] == schema.InferenceStage._target_:
        from biqa.finished.restoring import stage_one_behind

        composed.stage.perception = as_typed(stage_one_behind(original, OmegaConf.create(then), perception).path)
    elif perception is not None:
        raise IncompatibleChoice(f"perception={perception} is for a run of stage 2, and {original.path} is none. Leave it out.")
    OmegaConf.set_readonly(composed, True)
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema.Config)
    return composed, config, chosen


def filled_in(original: RunFolder, composed: DictConfig) -> list[str]:
    """Options that the run's release did not have, a line each: the new run takes what is usual now."""
    there, here = flat(original.read_config()), _flat(composed)
    new = [name for name, value in here.items() if name not in there and value not in (None, False, {}, [])]
    return [f"{original.config} has no {name}: taken is {here[name]}" for name in new]


def as_typed(path: Path) -> str:
    """A path below the working directory as it would be typed there."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) and path != here else path)


def refuse_foreign_server(values: Mapping[str, Any], further: Sequence[str], file: Path) -> None:
    """Check that a server which is to describe images was named by who sits here: its address, and the key that it is sent, are not a file's to say.

    Raises:
        IncompatibleChoice: it was not.
    """
    descriptions = values.get("descriptions") or {}
    named = {argument.partition("=")[0] for argument in further}
    if descriptions.get("url") and not {"descriptions.url", "descriptions.key_env"} <= named:
        raise IncompatibleChoice(
            f"{file}: images whose texts are not kept yet would be sent to {descriptions['url']}, with the key in {descriptions.get('key_env')}. "
            f"Say so yourself: descriptions.url={descriptions['url']} descriptions.key_env={descriptions.get('key_env') or 'null'}"
        )


def _filled(values: Mapping[str, Any], chosen: Mapping[str, str], file: Path) -> DictConfig:
    """What Hydra composes of the choices, with these values in the place of its own; `file` is where they are from.

    Raises:
        IncompatibleChoice: they do not fit.
    """
    try:
        with initialize_config_dir(schema.config_directory(), version_base="1.3"):
            composed = compose("config", [*(f"{group}={choice}" for group, choice in _choices(values, chosen).items()), "name=x"])
    except HydraException as error:
        raise IncompatibleChoice(f"{file}: {in_words(error)}") from error
    known = _flat(composed)
    for name, value in flat(values).items():
        if name.endswith("_target_") and known.get(name) != value:
            raise IncompatibleChoice(
                f"{file}: {name}={value} is refused: with these choices it is {known.get(name, 'none')}. Was the file edited? "
                f"What a config names is run, so it is not taken from a file."
            )
    try:
        merged = OmegaConf.merge(composed, OmegaConf.create(dict(values)))
    except (ConfigKeyError, ConfigAttributeError) as error:
        raise IncompatibleChoice(f"{file}: {no_option(str(error.full_key), composed)} Was the run made by another release?") from error
    except OmegaConfBaseException as error:
        raise IncompatibleChoice(f"{file}: {error.full_key}={flat(values).get(str(error.full_key))}: {of_type(error)}") from error
    assert isinstance(merged, DictConfig)
    OmegaConf.resolve(merged)
    return merged


def _choices(values: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, str]:
    """Group -> choice that Hydra is given: what is chosen, and for the other groups what the values tell."""
    descriptions, logger = values.get("descriptions") or {}, values.get("logger")
    wandb = "WandbLogger" in str((logger or {}).get("_target_"))
    told = {
        "strategy": str((values.get("strategy") or {}).get("kind", "auto")),
        "answers": (values.get("answers") or {}).get("engine") or "own",
        "logger": "wandb" if wandb else "csv" if logger else "null",
        **{group: choice for group, choice in chosen.items() if group in NAMED},
    }
    if values.get("test"):
        told["test"] = "+".join(values["test"])
    if isinstance(teacher := descriptions.get("model"), Mapping):
        told["model@descriptions.model"] = schema.choice_of(str(teacher.get("_target_")))
    if isinstance(packed := descriptions.get("quantization"), Mapping):
        told["quantization@descriptions.quantization"] = str(packed.get("kind"))
    if told["logger"] == "null":  # as Hydra has it
        told["~logger"] = "csv"
        del told["logger"]
    return told


def _set(composed: DictConfig, further: Sequence[str]) -> None:
    """Set what was typed.

    Raises:
        IncompatibleChoice: there is no such option, or its value is of another type.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(further))
    except HydraException as error:
        raise IncompatibleChoice(in_words(error)) from error
    for override in parsed:
        try:
            OmegaConf.update(composed, override.get_key_element(), override.value())
        except (ConfigKeyError, ConfigAttributeError) as error:
            raise IncompatibleChoice(no_option(override.get_key_element(), composed)) from error
        except OmegaConfBaseException as error:
            raise IncompatibleChoice(f"{override.input_line}: {of_type(error)}") from error


def _flat(config: DictConfig) -> dict[str, Any]:
    return flat(plain(OmegaConf.to_container(config, resolve=False)))
