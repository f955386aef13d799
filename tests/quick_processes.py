"""Processes of `launch` that begin in a fraction of a second: forked from one that has torch and Lightning in memory and has done nothing yet.

biqa itself starts each from nothing, as CUDA wants it, which takes seconds of a core. A module asks for them with
`pytest_plugins = ["quick_processes"]`; what a process of biqa's own start is like is tested in tests/running/test_launching.py.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

READY = ("torch.distributed", "lightning.pytorch", "biqa.running.training", "biqa.running.answering", "biqa.models.tiny", "biqa.stages.joint")
"""What each has in memory when it begins, unless a module says by a `READY` of its own what it needs."""


class QuickProcess(ForkServerProcess):
    """One that finds in its environment what the starting process has there at that moment, as one started from nothing does."""

    def start(self) -> None:
        self._args = (dict(os.environ), self._target, self._args)
        self._target = in_environment
        super().start()


class Quick:
    """In the place of multiprocessing's `spawn`."""

    Process = QuickProcess


def in_environment(environment: Mapping[str, str], target: Callable[..., object], given: tuple[Any, ...]) -> None:
    import torch

    os.environ.clear()
    os.environ |= environment
    torch.set_num_threads(1)
    target(*given)


@pytest.fixture(scope="module")
def quickly(request: pytest.FixtureRequest) -> Iterator[None]:
    """As long as this lasts, `launch` begins its processes so."""
    here = Path(__file__).parent
    get_context("forkserver").set_forkserver_preload(list(getattr(request.module, "READY", READY)))
    path = os.pathsep.join([str(here.parent), str(here), str(here / "running")])
    with patch.dict(os.environ, {"PYTHONPATH": path}), patch("biqa.running.launching.get_context", lambda _: Quick):
        yield
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
    server._stop()  # the next module begins one with what it needs
