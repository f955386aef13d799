"""A page on this machine to try a finished run on pictures: drop one, and see what the run says of it.

biqa demo run=runs/NAME
biqa demo run=runs/NAME port=0 repeats=20
biqa demo run=runs/NAME host=0.0.0.0 open=true

Options (option=value)
  run          folder of a finished run of stage=joint, inference, zero_shot or probe; its folder alone will do
  perception   folder of the stage 1 of a two-stage run; if nothing is said, found as the run found it, or beside it
  repeats      how often each picture is asked again, for its instability; 10, or 0 where the run always says the same
  accelerator  auto (a GPU where there is one), cpu or cuda
  port         where the page is served; 0: any that is free
  host         127.0.0.1, where this machine alone can reach it; any other needs open=true
  open         whether others may use the page: there is no password, and nothing is encrypted
  max_mb       the largest file that is taken, in MB
  waiting      pictures that may wait for their turn; the model looks at one at a time

The page is made with Gradio: pip install 'biqa[demo]'. It asks no other machine for anything. A picture is deleted as soon as it is answered; what
was said of the last one stays in the browser, where "Forget" deletes it. To use it from another machine: ssh -L 7860:127.0.0.1:7860 MACHINE.
Ctrl-C ends it.
"""

import sys

from biqa.doors.arguments import open_light_door, read_options, show_text

if __name__ == "__main__":
    show_text(__doc__, sys.argv[1:])

import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from biqa.errors import IncompatibleChoice

if TYPE_CHECKING:
    from biqa.finished.predicting import Scorer

HERE = ("127.0.0.1", "localhost")
"""Hosts that this machine alone can reach."""
GRADIO = "6.29"
"""The oldest release that is used: below 6.16 a page can be made to show files of the machine, below 6.29 it holds back huggingface_hub."""
REPEATS = 10


@dataclass
class DemoOptions:
    """Which run, and where its page is served."""

    run: str
    """Folder of a finished run."""
    perception: str | None = None
    """Folder of the stage 1 of a two-stage run; null: found as the run found it, or beside it."""
    repeats: int | None = None
    """How often each picture is asked again; null: 10, or 0 of a run that always says the same."""
    accelerator: str = "auto"
    """"auto", "cpu" or "cuda"."""
    port: int = 7860
    """0: any that is free."""
    host: str = "127.0.0.1"
    """Address that the page is bound to; one that others can reach needs `open`."""
    open: bool = False
    """Whether others may use the page."""
    max_mb: int = 20
    """Largest file that is taken, in MB (2^20 bytes)."""
    waiting: int = 8
    """Pictures that may wait for their turn."""

    def __post_init__(self) -> None:
        problems = [
            (self.accelerator not in ("auto", "cpu", "cuda"), f"accelerator={self.accelerator} is not known: choose auto, cpu or cuda."),
            (not 0 <= self.port < 2**16, f"port={self.port}: choose 0 (any that is free) to 65535."),
            (self.max_mb < 1, f"max_mb={self.max_mb}: choose 1 or more."),
            (self.waiting < 1, f"waiting={self.waiting}: choose 1 or more."),
            (
                self.host not in HERE and not self.open,
                f"host={self.host}: then others could use the page, without a password and without encryption. If that is meant, add open=true. "
                f"For yourself from another machine leave host out, and there: ssh -L {self.port or 7860}:127.0.0.1:{self.port or 7860} MACHINE",
            ),
        ]
        if said := [text for wrong, text in problems if wrong]:
            raise IncompatibleChoice("\n".join(said))


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        UserError: as `serve` says; or Gradio is not installed.
        MachineLimit: memory is not enough for the model.
    """
    serve(read_options(arguments, DemoOptions, alone=("run",)))
    return 0


def serve(options: DemoOptions) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        RunNotFound: no finished run there, or one that it builds on is gone.
        IncompatibleChoice: Gradio is missing or too old, the port is taken, or the run cannot do what is asked for.
    """
    from biqa.runs import find_run

    refuse_old_gradio()
    find_run(options.run, "run")  # before what takes seconds
    port = free_port(options.host, options.port)

    from biqa.finished.gradio_page import Answering, Limits, served
    from biqa.finished.predicting import Scorer
    from biqa.predict import limits, notes

    with limits(Path()):
        scorer = Scorer(options.run, device=options.accelerator, perception=options.perception, option="accelerator")
    repeats = repeats_of(scorer, options.repeats)
    told = notes(scorer)
    if options.host not in HERE:
        told.append(f"OPEN: whoever reaches {options.host} can use this page. There is no password, and nothing is encrypted.")
    for note in told:
        print(note, file=sys.stderr)
    answering = Answering(scorer, repeats, as_typed(options, repeats))
    limited = Limits(options.max_mb, options.waiting, options.open)
    with asked_to_end() as end, served(answering, told, limited, host=options.host, port=port) as address:
        print(f"{address} shows what {scorer.name} says of your pictures. Ctrl-C ends it.", flush=True)
        end.wait()


@contextmanager
def asked_to_end() -> Iterator[threading.Event]:
    """Set by Ctrl-C or SIGTERM, which end nothing by themselves as long as the context lasts: what pictures leave on the disk is deleted first."""
    end = threading.Event()
    before = {number: signal.signal(number, lambda *_: end.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield end
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def refuse_old_gradio() -> None:
    """Check that Gradio is there, without importing it.

    Raises:
        IncompatibleChoice: it is not installed, or too old.
    """
    from packaging.version import Version

    try:
        there = version("gradio")
    except PackageNotFoundError as error:
        raise IncompatibleChoice("biqa demo needs the package gradio: pip install 'biqa[demo]'. biqa predict needs none.") from error
    if Version(there) < Version(GRADIO):
        raise IncompatibleChoice(f"biqa demo needs gradio {GRADIO} or newer, and {there} is installed: pip install --upgrade 'biqa[demo]'")


def free_port(host: str, port: int) -> int:
    """The port itself, or one that is free where it is 0.

    Raises:
        IncompatibleChoice: it is taken or not allowed, or this machine has no such address.
    """
    try:
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
            return tried.getsockname()[1]
    except OSError as error:
        raise IncompatibleChoice(
            f"The page cannot be served at {host}, port {port} ({error.strerror}). Choose another port, or port=0 for any that is free."
        ) from error


def repeats_of(scorer: "Scorer", wanted: int | None) -> int:
    """How often a picture is asked again.

    Args:
        scorer: the run.
        wanted: what was typed; None: `REPEATS`, or 0 of a run that always says the same.

    Raises:
        IncompatibleChoice: it is 1, or the run always says the same.
    """
    if wanted is not None:
        scorer.each((), repeats=wanted)
        return wanted
    return REPEATS if scorer.describes and scorer.config.sampling.temperature > 0 else 0


def as_typed(options: DemoOptions, repeats: int) -> list[str]:
    """The options of `biqa predict` that say the same."""
    perception = [] if options.perception is None else [f"perception={options.perception}"]
    accelerator = [] if options.accelerator == "auto" else [f"accelerator={options.accelerator}"]
    return [f"run={options.run}", *perception, *accelerator, *([f"repeats={repeats}"] if repeats else [])]


if __name__ == "__main__":
    open_light_door(main)
