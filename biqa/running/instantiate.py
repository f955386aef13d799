"""What a config names: called with its values, where it is a choice that conf/ offers."""

import inspect
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import MISSING, DictConfig, OmegaConf

from biqa.config import SCHEMAS, Data, Descriptions, Model, Stage, config_directory
from biqa.errors import IncompatibleChoice
from biqa.runs import plain

ALLOWED_TARGETS = ("biqa.", "lightning.pytorch.loggers.")
"""Where what a config names must be defined: a name is run as it stands, and configs travel between people."""
_TARGET = re.compile(r"^_target_:\s*([\w.]+)", re.MULTILINE)


KINDS = {"model": Model, "stage": Stage, "data": Data, "descriptions": Descriptions}


@cache
def choices(group: str = "*") -> frozenset[str]:
    """Every `_target_` of conf/ and its schemas, or of one group of `KINDS`: biqa has other functions too, that write files and start programs."""
    files = Path(config_directory()).glob(f"{group}/*.yaml")
    written = {found for file in files for found in _TARGET.findall(file.read_text(encoding="utf-8"))}
    nodes = (node for node in SCHEMAS.values() if issubclass(node, KINDS.get(group, object)))
    return frozenset(written | {target for node in nodes if (target := getattr(node, "_target_", MISSING)) != MISSING})


def make(node: DictConfig, without: Sequence[str] = (), **given: Any) -> Any:  # noqa: ANN401 (whatever the config names)
    """Call what a config node names, with its values (but those of `without`) and the given ones as named arguments.

    Not Hydra's `instantiate`: that runs the `_target_` of every nested value too, and wraps what goes wrong in an error of its own.

    Raises:
        IncompatibleChoice: `_target_` is none of `choices`, or takes no such values.
    """
    values = plain(OmegaConf.to_container(node, resolve=True))
    target = allowed(str(values.pop("_target_")))
    named = {name: value for name, value in values.items() if name not in without} | given
    try:
        inspect.signature(target).bind(**named)
    except TypeError as error:
        raise IncompatibleChoice(f"{target.__module__}.{target.__name__}: {error}. Is the config of another release, or was it edited?") from error
    return target(**named)


def allowed(target: str) -> Any:  # noqa: ANN401 (a class or a function)
    """What a `_target_` names, where it is defined in the allowlist (`biqa.running.building.os.system` is not) and is one of `choices`.

    Raises:
        IncompatibleChoice: it is not, or there is nothing of that name.
    """
    try:
        found = get_object(target) if target.startswith(ALLOWED_TARGETS) else None
    except ImportError as error:
        raise IncompatibleChoice(f"_target_={target} cannot be had: {error}") from error
    if not str(getattr(found, "__module__", "")).startswith(ALLOWED_TARGETS):
        names = " or ".join(prefix.removesuffix(".") for prefix in ALLOWED_TARGETS)
        raise IncompatibleChoice(f"_target_={target} is refused: a config may only name what {names} defines.")
    if target not in choices():
        raise IncompatibleChoice(f"_target_={target} is refused: no choice of conf/ has it, and a config may name nothing else.")
    return found
