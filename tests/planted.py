"""Faults that several tests plant: a limit of file sizes, something that happens at a training step, a signal at some moment."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from subprocess import Popen
from typing import Any

import pytest

from biqa.stages.base import StageModule


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """`ulimit -f` in bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], object]) -> None:
    """Do something before the training step of that number, from 1."""
    training_step = StageModule.training_step

    def step(module: StageModule, *arguments: Any) -> Any:
        if module.global_step == number - 1:
            do()
        return training_step(module, *arguments)

    monkeypatch.setattr(StageModule, "training_step", step)


def signal_when(process: "Popen[str]", number: int, condition: Callable[[], bool]) -> tuple[int, str, str]:
    """Send a signal as soon as the condition holds; what the process left on its way: (exit code, stdout, stderr)."""
    while not condition():
        assert process.poll() is None, f"over before the signal: {process.communicate()}"
        time.sleep(0.002)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
