"""What every door shares: a mistake that the user can mend ends in one message on stderr and exit code 2, without a stack trace.

    @hydra.main(version_base="1.3", config_path=config_directory(), config_name="report")
    @user_errors
    def main(composed: DictConfig) -> None: ...

    if __name__ == "__main__":
        open_door(main)

A machine that is not enough (memory, disk) is told in a message too, with exit code 1: the command is sound, and elsewhere it would do.
Anything else that goes wrong is a defect and keeps its stack trace, exit code 1. HYDRA_FULL_ERROR=1 shows the stack trace of Hydra's messages too.
"""

import functools
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from biqa.config import config_directory
from biqa.config.checks import did_you_mean, nearest
from biqa.config.identity import flat
from biqa.doors.sweeps import failed_job, missing_launcher
from biqa.errors import IncompatibleChoice, MachineLimit, UserError
from biqa.files import AGAIN, disk_limit
from biqa.runs import plain

P = ParamSpec("P")
R = TypeVar("R")

EXIT_CODE = 2
"""Of a call that cannot work as it was typed."""

FULL_ERROR = "HYDRA_FULL_ERROR"

NEEDED = {
    "to Integer": "write a whole number.",
    "to Float": "write a number.",
    "is not a valid bool": "write true or false.",
    "is not a ListConfig": "write a list: {name}=[{value}]",
}
"""What OmegaConf says of a value of another type -> what to write."""

ELSEWHERE = {
    "learning_rate": "tuning.lr", "dataset": "data", "backbone": "model", "output_dir": "runs", "out": "runs", "resume": "ckpt",
    "gpus": "trainer.devices", "num_workers": "trainer.workers", "max_epochs": "stage.epochs", "lora_rank": "tuning.rank",
    "lora_alpha": "tuning.alpha", "fp16": "trainer.precision", "bf16": "trainer.precision", "load_in_4bit": "quantization",
    "load_in_8bit": "quantization", "checkpoint": "stage.init_from",
}  # fmt: skip
"""What other programs call an option -> what it is called here."""


def user_errors(task: Callable[P, R]) -> Callable[P, R]:
    """Decorator of a task below `hydra.main`: prints a UserError, an option without a value or a reference that leads nowhere, and exits with code 2.

    It has to stand inside `hydra.main`, which would print "Error executing job with overrides" and a shortened stack trace. In a sweep the first job
    with such an error ends the sweep. Ctrl-C ends with the shell's exit code for it.
    """

    @functools.wraps(task)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return task(*args, **kwargs)
        except (UserError, MissingMandatoryValue, InterpolationResolutionError) as error:
            raise SystemExit(_refuse(error)) from error
        except MachineLimit as error:
            print(error, file=sys.stderr)
            raise SystemExit(1) from error
        except KeyboardInterrupt:
            print("Stopped by SIGINT.", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
        except Exception as error:
            if limit := disk_limit(error, Path(), AGAIN):
                print(limit, file=sys.stderr)
                raise SystemExit(1) from error
            # Hydra would keep it until the last job of a sweep has run, and lose it when another one exits before that
            traceback.print_exc()
            raise SystemExit(1) from None

    return guarded


def open_door(main: Callable[[], Any], *, flags: bool = True) -> None:
    """Call a `hydra.main` function (or, with `flags` off, one that takes no flags of Hydra's).

    Options that Hydra cannot compose (unknown name, wrong type, no such choice) end with a message, exit code 2.
    Hydra itself would exit with 1 and an advice on its environment variable. That variable is set here for the call, so that Hydra lets its errors
    through; where the user has set it, they go through to the interpreter.
    """
    if os.environ.get(FULL_ERROR) == "1":
        main()
        return
    os.environ[FULL_ERROR] = "1"
    try:
        if flags:
            refuse_unknown_flags(sys.argv[1:])
        main()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: Hydra's own for stage=1 where no such alias is known
        sys.exit(_refuse(error))
    except Exception as error:
        if said := missing_launcher(error):
            print(said, file=sys.stderr)
            sys.exit(EXIT_CODE)
        if (said := failed_job(error)) is None:
            raise
        print(said, file=sys.stderr)
        sys.exit(1)
    finally:
        del os.environ[FULL_ERROR]


def refuse_unknown_flags(arguments: Sequence[str]) -> None:
    """Check what begins with a dash. Hydra's own parser would print all that it knows, a screen of it.

    Raises:
        IncompatibleChoice: there is no such flag, or it lacks its value.
    """
    parser = get_args_parser()

    def refuse(message: str) -> None:
        unknown = "unrecognized arguments: "
        typed = message.removeprefix(unknown).partition(" ")[0]
        if not message.startswith(unknown):
            raise IncompatibleChoice(f"{message.replace(chr(39), '')}.")
        if not typed.startswith("-"):
            raise IncompatibleChoice(f"{typed}: a flag stands in the midst of options. Put flags before all of them: -m {typed} ...")
        if "=" in typed:
            raise IncompatibleChoice(f"There is no flag {typed}. Options are written without dashes: {typed.lstrip('-')}")
        meant = did_you_mean(nearest(typed, ("--help", "--cfg", "--resolve", "--info", "--multirun", "--package", "--config-dir", "--version")))
        raise IncompatibleChoice(f"There is no flag {typed}.{meant} Options are written NAME=VALUE, without dashes; --help lists them.")

    parser.error = refuse  # pyright: ignore[reportAttributeAccessIssue] (argparse's own way: it expects that this does not return)
    parser.parse_args(list(arguments))


def refuse_unknown(names: Sequence[str], composed: DictConfig) -> None:
    """Check that there are no options that no schema knows, as `+stage.epoch=3` makes them.

    Args:
        names: those that there are, dotted.
        composed: the config that holds them.

    Raises:
        IncompatibleChoice: there is one; the message names what may have been meant.
    """
    if names:
        raise IncompatibleChoice("\n".join(no_option(name, composed, others=names) for name in names[:3]))


def no_option(name: str, config: DictConfig, others: Sequence[str] = ()) -> str:
    """What to say of an option that does not exist: which one may have been meant, or which ones stand where it was looked for.

    Args:
        name: dotted.
        config: the whole config.
        others: options in it that do not exist either.
    """
    values = flat(plain(OmegaConf.to_container(config, resolve=False)))
    known = [option for option in values if not option.startswith("hydra.") and option not in others and not option.endswith("_target_")]
    place, _, last = name.rpartition(".")
    beside = _beside(place, known)
    said = f"There is no option {name}."
    if place.startswith("test") and not any(option.startswith("test.") for option in known):
        return f"{said} No data set to test on is named: test=[{place.partition('.')[2] or last}] names one."
    meant = [option for option in known if option.rpartition(".")[2] == last]
    meant += [f"{place}.{option}".removeprefix(".") for option in nearest(last, beside)]
    meant += [ELSEWHERE[last]] if last in ELSEWHERE and ELSEWHERE[last] in {*known, *_beside("", known)} else []
    if not place and not meant:
        meant = [option for option in known if option.rpartition(".")[2] in nearest(last, [one.rpartition(".")[2] for one in known], most=1)]
    return f"{said}{did_you_mean(list(dict.fromkeys(meant))[:3])}" if meant else f"{said} What there is beside it: {', '.join(beside)}."


def _beside(place: str, known: Sequence[str]) -> list[str]:
    """Names of options and groups right below a place, or at the top where there is no such place."""
    below = [option.removeprefix(f"{place}.") for option in known if option.startswith(f"{place}.")] if place else list(known)
    return list(dict.fromkeys(option.partition(".")[0] for option in below or known))


def _no_choice(error: MissingConfigException) -> str:
    """What to say of a choice for which there is no file: the nearest first, then the others."""
    group, _, typed = str(error.missing_cfg_file).removesuffix(".yaml").rpartition("/")
    known = list(error.options or ())
    wrong = typed
    if group in ("data", "test"):  # which may be made of several
        known = sorted(file.stem for file in Path(config_directory(), "data").glob("*.yaml"))
        wrong = next((part for part in typed.split("+") if part not in known), typed)
    if not known:
        return str(error).splitlines()[0]
    meant = nearest(wrong, known)
    others = [choice for choice in known if choice not in meant]
    form = "test=[{}]" if group == "test" else f"{group}={{}}"
    said = f"There is no {form.format(wrong)}.{did_you_mean([form.format(choice) for choice in meant])}" if wrong else f"{group}= is empty."
    return f"{said} {'Others' if meant else 'Choices'}: {', '.join(others)}." if others else said


def _refuse(error: Exception) -> int:
    """Print an error in words for somebody who does not know Hydra; the exit code."""
    print(in_words(error), file=sys.stderr)
    return EXIT_CODE


def in_words(error: Exception) -> str:
    """What to print of a mistake: of ours as it is, of Hydra's and OmegaConf's what was typed, what is wrong and what to type."""
    reason = error.__cause__
    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key} has no value. Set it: {error.full_key}=VALUE"
    if isinstance(reason, ConfigAttributeError | ConfigKeyError) and reason.parent_node is not None:
        return no_option(str(reason.full_key), reason.parent_node._get_root())
    if isinstance(reason, OmegaConfBaseException):
        typed = str(error).removeprefix("Error merging override ")
        return f"{typed}: {of_type(reason, typed)}"
    return _of_hydra(error) if isinstance(error, HydraException) else str(error)


def _of_hydra(error: HydraException) -> str:
    """What to say of what Hydra itself cannot compose."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _no_choice(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    said = str(error)
    if unchosen := re.match(r"You must specify '([^']+)'", said):
        return f"{unchosen[1]}= is not chosen. Choose one: {', '.join(word.strip() for word in said.splitlines()[2:])}."
    if several := re.match(r"Ambiguous value for argument '([^=]+)=(.*)'", said):
        name, values = several.groups()
        return f"{name}={values}: these are several values. A run for each: add -m. One list: {name}=[{values}]. One text: \"{name}='{values}'\""
    return said


def of_type(error: OmegaConfBaseException, typed: str = "OPTION=a,b") -> str:
    """What to write instead of a value of another type: NAME=VALUE as it was typed."""
    said = str(error.msg).splitlines()[0]  # what follows are names of OmegaConf's own
    name, _, value = typed.partition("=")
    return next((hint.format(name=name, value=value) for words, hint in NEEDED.items() if words in said), said)


def _unreadable(error: OverrideParseException) -> str:
    """What to say of an option that Hydra's grammar does not take."""
    name, equals, value = str(error.override).partition("=")
    if not equals:
        return f"{name}: an option has a value. Write {name}=VALUE; --help lists options and choices."
    quoted = f"\"{name}='{value}'\"" if "'" not in value else f"'{name}=\"{value}\"'"
    return f"{error.override} cannot be read: its value is no plain word, number or list. Quote it, with both kinds of quotes: {quoted}"
