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
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from hydra.errors import HydraException
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from biqa.errors import MachineLimit, UserError
from biqa.sweeps import failed_job, missing_launcher

P = ParamSpec("P")
R = TypeVar("R")

EXIT_CODE = 2
"""Of a call that cannot work as it was typed."""

FULL_ERROR = "HYDRA_FULL_ERROR"


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
        except Exception:
            # Hydra would keep it until the last job of a sweep has run, and lose it when another one exits before that
            traceback.print_exc()
            raise SystemExit(1) from None

    return guarded


def open_door(main: Callable[[], Any]) -> None:
    """Call a `hydra.main` function. Options that Hydra cannot compose (unknown name, wrong type, no such choice) end with its message, exit code 2.

    Hydra itself would exit with 1 and an advice on its environment variable. That variable is set here for the call, so that Hydra lets its errors
    through; where the user has set it, they go through to the interpreter.
    """
    if os.environ.get(FULL_ERROR) == "1":
        main()
        return
    os.environ[FULL_ERROR] = "1"
    try:
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


def _refuse(error: Exception) -> int:
    """Print an error in words for somebody who does not know Hydra; the exit code."""
    print(_text(error), file=sys.stderr)
    return EXIT_CODE


def _text(error: Exception) -> str:
    reason = error.__cause__
    if isinstance(error, MissingMandatoryValue) and error.full_key:
        return f"{error.full_key} has no value. Set it: {error.full_key}=VALUE"
    if isinstance(reason, ConfigAttributeError | ConfigKeyError) and reason.parent_node is not None:
        known = ", ".join(str(key) for key in reason.parent_node if key != "hydra")
        return f"There is no option {reason.full_key}. What there is beside it: {known}."
    if isinstance(reason, OmegaConfBaseException):
        said = str(reason.msg).splitlines()[0]  # what follows are names of OmegaConf's own
        hint = " Write a list: option=[a,b]." if "is not a ListConfig" in said else ""
        return f"{error}\n{said}{hint}"
    return str(error)
