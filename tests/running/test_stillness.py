"""When a process counts as one that stands still."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from biqa.running.stillness import LIFE, TOGETHER, Watch, Work, waits_for, work_of


class Told:
    """Looks at a process that the test tells of, under a clock of the test's."""

    def __init__(self, patience=45.0):
        self.now, self.seconds, self.others, self.on_disk = 0.0, 0.0, frozenset({1}), False
        self.watch = Watch(1, patience, look=lambda _: Work(self.others, self.seconds, self.on_disk), clock=lambda: self.now)

    def after(self, seconds, *, work=0.0, **changes):
        """Whether it stands still at any of the looks in so many seconds of this share of a core."""
        vars(self).update(changes)
        still = False
        for _ in range(round(seconds)):
            self.now += 1
            self.seconds += work
            still |= self.watch.still()
        return still


def test_nothing_for_as_long_as_was_said():
    told = Told()
    assert not told.after(44)
    assert told.after(1)


@pytest.mark.parametrize(("work", "still"), [(0.0, True), (LIFE / 2, True), (LIFE * 1.5, False), (1.0, False)])
def test_a_thread_that_looks_at_a_clock_is_no_work(work, still):
    assert Told().after(120, work=work) == still


def test_work_once_a_minute_is_not_enough_and_every_half_minute_is():
    told = Told()
    for _ in range(5):
        assert not told.after(1, work=1.0)
        assert not told.after(30)
    assert told.after(50)


def test_a_disk_and_a_process_that_comes_or_goes_are_work():
    told = Told()
    assert not told.after(100, on_disk=True)
    told.on_disk = False
    assert not told.after(40)
    assert not told.after(40, others=frozenset({1, 2}))
    assert not told.after(40, others=frozenset({1}))
    assert told.after(10)


def test_a_gap_begins_anew():
    """All were stopped, this process too: by Ctrl-Z, or as the machine slept."""
    told = Told()
    told.after(40)
    told.now += 3600
    assert not told.watch.still()
    assert not told.after(44)
    assert told.after(2)


def test_work_is_that_of_a_process_and_of_those_that_it_has_started():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        until = time.monotonic() + 30
        while work_of(process.pid).seconds < 1.0 and time.monotonic() < until:
            time.sleep(0.05)
        work = work_of(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
    assert len(work.processes) == 2
    assert work.seconds >= 1.0
    assert work_of(process.pid) == Work(frozenset(), 0.0, False)


def test_what_goes_on_beside_a_run_is_no_work_of_it(tmp_path):
    """W&B's service lives as long as the run, and does something now and then."""
    for name in ("wandb-core", "worker"):
        (tmp_path / name).write_text("#!/bin/sh\nwhile :; do :; done\n")
        (tmp_path / name).chmod(0o755)
    code = f"import subprocess\nfor name in ('wandb-core', 'worker'): last = subprocess.Popen(['{tmp_path}/' + name])\nlast.wait()"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True) as process:
        until = time.monotonic() + 30
        while len(psutil.Process(process.pid).children()) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.2)  # both have the names of their files
        children = {child.name(): child.pid for child in psutil.Process(process.pid).children()}
        work = work_of(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
    assert work.processes == {process.pid, children["worker"]}


@pytest.mark.parametrize(
    ("inner", "waits"),
    [
        ("/venv/torch/distributed/distributed_c10d.py", True),
        ("/venv/torch/autograd/graph.py", True),
        ("/home/me/sleeps.py", False),
        ("/venv/torch/utils/data/dataloader.py", False),
    ],
)
def test_what_a_stack_waits_for_is_said_by_its_innermost_calls(inner, waits):
    outer = "".join(f'  File "/venv/torch/distributed/outer.py", line {n} in run\n' for n in range(3))
    between = "".join(f'  File "/biqa/stages/loop.py", line {n} in step\n' for n in range(6))
    stack = f'Stack (most recent call first):\n  File "{inner}", line 3 in wait\n{between}{outer}'
    assert waits_for(TOGETHER, stack) == waits
