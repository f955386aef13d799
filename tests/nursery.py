"""A process that has imported all that a run needs, and forks a child for each: runs to be killed begin at once.

`python nursery.py` reads a request a line and answers with a line, both JSON. A request names the door, its arguments, the file for what it says, and
perhaps where it is killed: {"phase": "save", "occurrence": 3, "delay": 0.01} is 10 ms after the third save has begun. The answer has the exit code, and
of a child that came to its end the phases that it went through with the seconds of each.
"""

import importlib
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DOORS = ("biqa.run", "biqa.report", "biqa.prepare")
NEEDED = (
    *DOORS, "lightning.pytorch", "peft", "pandas", "pyarrow.parquet", "matplotlib.pyplot", "scipy.stats", "transformers.models.llava.modeling_llava",
    "biqa.running.training", "biqa.running.answering", "biqa.running.loading", "biqa.models.tiny", "biqa.models.sampling", "biqa.models.adapters",
    "biqa.stages.joint", "biqa.stages.perception", "biqa.stages.inference", "biqa.data.synthetic", "biqa.reporting.tables",
)  # fmt: skip


class Phases:
    """What a child is doing, and when it is killed."""

    def __init__(self, kill: dict[str, Any] | None) -> None:
        self.kill = kill
        self.times: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}

    def entered(self, name: str) -> None:
        """A phase begins: perhaps the one to be killed in."""
        self.times[name] += 1
        if self.kill and (self.kill["phase"], self.kill["occurrence"]) == (name, self.times[name]):
            threading.Timer(self.kill["delay"], os.kill, (os.getpid(), signal.SIGKILL)).start()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        self.entered(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Calls of a method are a phase."""
        inner = getattr(owner, method)

        def watched(*given: Any, **named: Any) -> Any:
            with self.phase(name):
                return inner(*given, **named)

        setattr(owner, method, watched)


def forget_random_numbers() -> None:
    """For a control: a resumed run draws others."""
    from biqa.stages.checkpoints import Checkpoints

    Checkpoints.load_state_dict = lambda self, state_dict: None


def begin_epochs_anew() -> None:
    """For a control: a resumed run begins its epoch with the first batch, not after those that it has seen."""
    from biqa.data.module import DataModule

    load = DataModule.load_state_dict
    DataModule.load_state_dict = lambda self, state_dict: load(self, state_dict | {"start": 0})


SABOTAGE: dict[str, Callable[[], None]] = {"random numbers": forget_random_numbers, "fast-forward": begin_epochs_anew}


def run_door(request: dict[str, Any], phases: Phases) -> None:
    """What the child does."""
    from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop
    from quick_hydra import without_detours

    from biqa import config as schema
    from biqa import run
    from biqa.doors.opening import open_door
    from biqa.models import adapters
    from biqa.running.training import Seconds
    from biqa.stages.base import StageModule
    from biqa.stages.checkpoint_files import AtomicCheckpointIO

    inner = Seconds.phase

    @contextmanager
    def watched(self: Seconds, name: str) -> Iterator[None]:
        with phases.phase(name), inner(self, name):
            yield

    Seconds.phase = watched
    phases.watch(AtomicCheckpointIO, "save_checkpoint", "save")
    phases.watch(_EvaluationLoop, "run", "validate")
    phases.watch(StageModule, "training_step", "step")
    phases.watch(adapters, "save_weights", "weights")
    if request.get("sabotage"):
        SABOTAGE[request["sabotage"]]()
    schema.register()
    sys.argv = [request["door"], *run.numbers_to_words(request["arguments"])]
    with without_detours(request["arguments"]), phases.phase("all"):
        open_door(sys.modules[request["door"]].main)


def child(request: dict[str, Any]) -> int:
    """Exit code of what a request asks for, in this process."""
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(said, number)
    phases = Phases(request.get("kill"))
    code = 0
    try:
        run_door(request, phases)
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    Path(f"{request['said']}.phases").write_text(json.dumps({name: [phases.times[name], seconds] for name, seconds in phases.seconds.items()}))
    return code


def main() -> None:
    """Answer requests until there are no more."""
    for name in NEEDED:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            code = 1
            try:
                code = child(request)
            finally:
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        file = Path(f"{request['said']}.phases")
        print(json.dumps({"code": code, "phases": json.loads(file.read_text()) if code == 0 and file.is_file() else {}}), flush=True)


if __name__ == "__main__":
    main()
