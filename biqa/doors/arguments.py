"""Options of the doors that need no Hydra (ls, doctor, compare, rerun, completion): NAME=VALUE, and where it is clear what is meant VALUE alone.

    @dataclass
    class LsOptions:
        runs: str = "runs"
        json: bool = False

    def main(arguments: Sequence[str]) -> int:
        options = read_options(arguments, LsOptions, alone=("runs",))

    if __name__ == "__main__":
        open_light_door(main)

`--json` says json=true. Mistakes are told as by the other doors: one message, exit code 2. Importing this loads neither Hydra nor OmegaConf.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from biqa.config.checks import did_you_mean, nearest
from biqa.errors import IncompatibleChoice, MachineLimit, UserError
from biqa.files import AGAIN, disk_limit

T = TypeVar("T")


def show_text(text: str | None, arguments: Sequence[str]) -> None:
    """Print a text and exit, where `--help` stands among the arguments. Called before a door's other imports."""
    if {"-h", "--help"} & set(arguments):
        print(str(text).strip())
        raise SystemExit(0)


def open_light_door(main: Callable[[Sequence[str]], int]) -> None:
    """Call a door with what was typed, and exit with its code: 2 after a mistake of the user, 1 where the machine is not enough."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(error, file=sys.stderr)
        code = 2
    except MachineLimit as error:
        print(error, file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("Stopped by SIGINT.", file=sys.stderr)
        code = 128 + signal.SIGINT
    except BrokenPipeError:  # `biqa ls | head` has seen enough; what is left must not be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if (limit := disk_limit(error, Path(), AGAIN)) is None:
            raise
        print(limit, file=sys.stderr)
        code = 1
    raise SystemExit(code)


def read_options(arguments: Sequence[str], schema: type[T], alone: Sequence[str] = ()) -> T:
    """What was typed as a dataclass, whose defaults are what is not typed.

    Args:
        arguments: NAME=VALUE, `--NAME` for NAME=true, or VALUE alone.
        schema: a dataclass with options of type str, int, bool, `str | None` or list[str].
        alone: options whose values may be typed without their names, in this order.

    Raises:
        IncompatibleChoice: there is no such option, its value is of another type or missing, or something stands there twice.
    """
    kinds = get_type_hints(schema)
    given: dict[str, Any] = {}
    left = list(alone)
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if argument.startswith("-"):
            name, text = argument.lstrip("-").partition("=")[0], text or "true"
        elif not equals:
            name, text = next((option for option in left if option not in given), ""), argument
            if not name:
                raise IncompatibleChoice(f"{argument}: an option is written NAME=VALUE. {_list(kinds)}")
        if name not in kinds:
            meant = did_you_mean([f"{option}=" for option in nearest(name, kinds)])
            raise IncompatibleChoice(f"There is no option {name}.{meant or ' ' + _list(kinds)}")
        if name in given:
            raise IncompatibleChoice(f"{name}= stands there twice ({argument} is the second). Leave one out.")
        given[name] = _value(name, text, kinds[name])
    for field in fields(schema):  # pyright: ignore[reportArgumentType] (a dataclass)
        if field.name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise IncompatibleChoice(f"{field.name} has no value. Set it: {field.name}=VALUE")
    return schema(**given)


def _list(kinds: Sequence[str] | dict[str, Any]) -> str:
    return f"Options: {', '.join(f'{name}=' for name in kinds)}."


def _value(name: str, text: str, kind: Any) -> Any:  # noqa: ANN401 (a type, and what is of it)
    """A text as what an option holds."""
    if type(None) in get_args(kind):
        if text == "null":
            return None
        kind = next(one for one in get_args(kind) if one is not type(None))
    if not text:
        raise IncompatibleChoice(f"{name}= is empty: give a value, or leave the option out.")
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise IncompatibleChoice(f"{name}={text}: write true or false.")
        return text.lower() == "true"
    if kind is int:
        try:
            return int(text)
        except ValueError as error:
            raise IncompatibleChoice(f"{name}={text}: write a whole number.") from error
    if kind == list[str]:
        return [part.strip() for part in text.removeprefix("[").removesuffix("]").split(",") if part.strip()]
    return text
