"""Loggers of others work aside, in a thread of their own: a server that refuses, hangs or dies costs a run no step, and neither does one that fails.

The record that counts is the run's own (`CurveLogger`). What another logger does not take is said once, and the run goes on without it.
"""

import sys
import threading
from collections.abc import Mapping
from queue import Full, Queue
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from biqa.stages.together import first

MOST = 100_000
"""Calls that wait for a logger, at most."""
PATIENCE = 30.0
"""Seconds, at most, that the end of a run waits for it."""

_open: list["Aside"] = []


class Aside(Logger):
    """Hands calls to a logger in another thread, one after another, and returns at once.

    Args:
        logger: does the work.
        name: what it is called where it fails.
        curve: where the run's own curve is.
    """

    def __init__(self, logger: Logger, name: str, curve: str) -> None:
        super().__init__()
        self.logger = logger
        self.called = name
        self.curve = curve
        self.failed = False
        self.calls: Queue[tuple[str, tuple[Any, ...]] | int] = Queue(MOST)
        self.thread = threading.Thread(target=self._work, name=name, daemon=True)  # daemon: a run does not outlive its work for a server
        if first():
            self.thread.start()
            _open.append(self)

    @property
    def name(self) -> str:
        """What it is called."""
        return self.called

    @property
    def version(self) -> str:
        """None but this one."""
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Hand a row over."""
        self._hand("log_metrics", dict(metrics), step)

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:  # noqa: ANN401 (Lightning's method)
        """Hand options over."""
        self._hand("log_hyperparams", params)

    def save(self) -> None:
        """Hand it over."""
        self._hand("save")

    def finalize(self, status: str) -> None:
        """Hand the outcome over."""
        self._hand("finalize", status)

    def close(self, code: int, within: float = PATIENCE) -> None:
        """End it with the run's exit code, and wait so many seconds for what it has not sent yet."""
        try:
            self.calls.put_nowait(code)
        except Full:
            return
        self.thread.join(within)
        if self.thread.is_alive():
            self._give_up(f"it did not take all within {within:g} s of the run's end")

    def _hand(self, method: str, *given: Any) -> None:  # noqa: ANN401 (whatever it takes)
        if self.failed or not first():
            return
        try:
            self.calls.put_nowait((method, given))
        except Full:
            self._give_up(f"{MOST} calls wait for it")

    def _work(self) -> None:
        while not isinstance(call := self.calls.get(), int):
            if self.failed:
                continue
            try:
                getattr(self.logger, call[0])(*call[1])
            except BaseException as error:  # also SystemExit, by which wandb ends where nobody can type a key
                self._give_up(_in_a_line(error))
        if "wandb" in sys.modules:
            try:
                sys.modules["wandb"].finish(exit_code=call)
            except BaseException as error:
                self._give_up(_in_a_line(error))

    def _give_up(self, reason: str) -> None:
        """Say so, once."""
        if not self.failed:
            self.failed = True
            print(f"{self.called} is left out from here on: {reason}. The run goes on; its curve is in {self.curve}.", file=sys.stderr)


def _in_a_line(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}{f' ({said[:300]})' if said else ''}"


def close_all(code: int) -> None:
    """End all loggers that work aside: a process has one run of W&B at a time, and the next job of a sweep would write into it."""
    while _open:
        _open.pop().close(code)
